"""Texts that say how a class of actions moves."""

from .load import Descriptions, load_descriptions, shipped_descriptions

__all__ = ["Descriptions", "load_descriptions", "shipped_descriptions"]
