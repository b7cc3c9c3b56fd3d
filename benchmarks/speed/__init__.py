"""How fast, as ratios within one run: against the bare limit of the machine, and against the naive way."""
