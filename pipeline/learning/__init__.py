"""How it learns: windows over tracks, metrics, the training loop."""
