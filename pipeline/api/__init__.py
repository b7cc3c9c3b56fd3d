"""The public Python API: load, Model, Trace, Moment."""
