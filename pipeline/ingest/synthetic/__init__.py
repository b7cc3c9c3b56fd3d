"""The demo data set: drawn people in drawn videos, in the shape of Aff-Wild2, with every quirk of the real one."""

from .tree import draw_tree

__all__ = ["draw_tree"]
