"""Draws the demo data set: synthetic people in synthetic videos, with the layout and irregularities of Aff-Wild2."""

from .demo_data import draw_demo_data

__all__ = ["draw_demo_data"]
