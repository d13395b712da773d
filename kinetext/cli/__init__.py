"""The command line: `kinetext …`, also `python -m kinetext.cli`."""

from .verbs import app

__all__ = ["app"]
