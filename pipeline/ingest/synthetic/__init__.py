"""Draws the demo data set: synthetic people in synthetic videos, with the layout and irregularities of Aff-Wild2."""

from .tree import draw_tree

__all__ = ["draw_tree"]
