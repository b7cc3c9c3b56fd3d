"""Torture: figures for docs/reliability.md. `make torture`, or `python -m affect.benchmarks.torture --help`."""
