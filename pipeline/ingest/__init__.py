"""What comes in: catalogues, annotations, boxes, videos, FER+, and the demo tree."""
