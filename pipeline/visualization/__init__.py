"""Plots, overlays and pages."""
