"""Checks affect on more than one machine, as far as one machine can stand for several.

    python -m affect.benchmarks.cluster [PART ...]

dask: stages on the workers of a Dask scheduler, which have other addresses of this machine.
nodes: `torchrun` with two nodes on two addresses.
slurm: the same by jobs of SLURM.

Prints a table: the check, what happened, the time, and whether it passed. Without PART, all parts run. Everything is
written to a temporary folder. The exit code is 1 if a check failed. A part that cannot run here is skipped.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .checks import Outcome, Part, outcomes
from .dask_workers import dask_workers
from .nodes import nodes
from .slurm import slurm

PARTS: dict[str, Part] = {"dask": dask_workers, "nodes": nodes, "slurm": slurm}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m affect.benchmarks.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--only", metavar="TEXT", default="", help="run only the checks with this text in their name")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write to this folder, and keep it")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]}; allowed: {', '.join(PARTS)}")
    rows: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="affect-cluster-") as temporary:
        for part in options.parts or PARTS:
            folder = (options.keep or Path(temporary)).absolute() / part
            folder.mkdir(parents=True)
            for row in outcomes(part, PARTS[part](folder), options.only):
                rows.append(row)
                print(f"{row.part}: {row.check}: {row.status} ({row.seconds:.0f} s)", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([vars(row) for row in rows], indent=1))
    else:
        _print(rows)
    return any(row.status == "failed" for row in rows)


def _print(rows: list[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in ("part", "check", "what happened", "time", "status"):
        table.add_column(column, justify="right" if column == "time" else "left", no_wrap=column in ("time", "status"))
    for row in rows:
        table.add_row(row.part, row.check, row.happened, f"{row.seconds:.0f} s", row.status)
    Console(emoji=False, highlight=False, markup=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
