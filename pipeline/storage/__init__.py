"""Files that affect writes: shards, checkpoints, fingerprints, locks and atomic writes."""
