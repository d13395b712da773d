"""Training: arguments and recipes, parameter groups, the trainer, and the run that ties them together."""
