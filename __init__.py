"""affect: valence and arousal from video, frame by frame and clip by clip."""

__version__ = "0.1.0"
