"""Evaluation: metrics, the evaluator, and what a model costs."""
