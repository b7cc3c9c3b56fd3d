"""Measures how affect handles damaged input and killed runs, and prints the figures.

    python -m affect.benchmarks.torture [--only PART] [--share 0.01] [--json]

flips: single flipped bits in shards; `verify` and reading are compared with the intact shard.
texts: fuzzed annotation and box files, compared with a second reader.
videos: damaged videos through extract-frames and predict, compared with the intact video, PyAV, OpenCV and decord.
kills: `kill -9` during a stage and the same command again, compared with an undisturbed run.

--share 0.01 runs a hundredth of the cases. Everything is written to a temporary folder. The exit code is 1 if a figure
that must be 0 is not 0.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import flips, kills, texts, videos

VIDEOS, KILLS, TEXTS, FLIPS = 300, 50, 20_000, 1_000
PARTS = ("flips", "texts", "videos", "kills")
EXPECTED = {
    "videos": {"not reported": 0, "frames shifted": 0, "tables that differ from their shard": 0},
    "kills": {"left processes": 0},
    "texts": {"misread": 0, "raised": 0},
    "flips": {"verify: missed": 0, "reading: wrong": 0},
}


def torture(
    folder: Path, share: float, seed: int, log: Callable[[str], None], parts: tuple[str, ...], demo: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The figures of each part. share: the share of the cases to run."""

    def count(number: int) -> int:
        return max(1, round(number * share))

    runs: dict[str, Callable[[Path], dict[str, Any]]] = {
        "flips": lambda own: flips.run(own, count(FLIPS), seed, log),
        "texts": lambda own: texts.run(own, count(TEXTS), seed, log),
        "videos": lambda own: videos.run(own, count(VIDEOS), seed, log, demo=demo, peers=share >= 1),
        "kills": lambda own: kills.run(own, count(KILLS), seed, log),
    }
    figures = {}
    for part in parts:
        own = folder / part
        own.mkdir(parents=True)
        figures[part] = runs[part](own)
    return figures


def faults(figures: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each figure that differs from the expected one."""
    found = [
        f"{part}: {name} is {figures[part][name]}, expected {expected}"
        for part in figures
        for name, expected in EXPECTED[part].items()
        if figures[part][name] != expected
    ]
    if "kills" in figures and figures["kills"]["equal"] != figures["kills"]["kills"]:
        found.append(f"kills: only {figures['kills']['equal']} gave the result of an undisturbed run")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m affect.benchmarks.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases to run")
    parser.add_argument("--only", choices=PARTS, action="append", help="run only this part; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", type=Path, help="a demo data set whose videos are also damaged")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        figures = torture(Path(folder), options.share, options.seed, log, tuple(options.only or PARTS), options.demo)
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        for part, own in figures.items():
            print(f"\n{part}")
            for name, value in own.items():
                print(f"  {name:<40}{value}")
    wrong = faults(figures)
    for text in wrong:
        log(f"WRONG: {text}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
