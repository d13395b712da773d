"""`python -m kinetext.cli`."""

from .verbs import app

app(prog_name="kinetext")
