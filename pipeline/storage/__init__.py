"""What lies between the stages: HDF5 shards, fingerprints, checkpoints."""
