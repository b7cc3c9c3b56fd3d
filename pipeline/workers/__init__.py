"""The workers of a Dask scheduler: what they must share with the command, and how that is checked."""
