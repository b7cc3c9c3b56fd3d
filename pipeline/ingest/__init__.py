"""Readers of the input: data folders, annotations, boxes, FER+, templates, videos. Also draws the demo data."""
