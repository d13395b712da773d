"""Checkpoints of other projects to kinetext folders, strictly."""
