"""Annotations, splits, data sets, and clips rendered for demonstration and tests."""
