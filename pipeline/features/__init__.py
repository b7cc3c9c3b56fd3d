"""From frames to features: crops, encoder, frame sampling, video segments."""
