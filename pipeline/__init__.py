"""From videos on a disk to valence and arousal: ingest, storage, learning, stages."""
