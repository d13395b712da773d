"""Texts that say how a class of actions moves: written, checked, masked, rated, loaded."""

from .load import load_description_set, load_descriptions, shipped_descriptions
from .schema import KINDS, DescriptionRow, Descriptions, DescriptionSet

__all__ = [
    "KINDS",
    "DescriptionRow",
    "DescriptionSet",
    "Descriptions",
    "load_description_set",
    "load_descriptions",
    "shipped_descriptions",
]
