"""Tortures affect and prints what came of it: `python -m affect.benchmarks.torture`, or `make torture`.

--share 0.01 does a hundredth of it. Nothing is left behind but what is printed; --json prints the figures as JSON.
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
WANTED = {
    "videos": {"without a record": 0, "frames shifted": 0, "tables that differ from their shard": 0},
    "kills": {"left processes behind": 0},
    "texts": {"misread": 0, "raised": 0},
    "flips": {"verify: missed": 0, "reading: wrong": 0},
}


def torture(
    folder: Path, share: float, seed: int, say: Callable[[str], None], parts: tuple[str, ...], demo: Path | None = None
) -> dict[str, dict[str, Any]]:
    """The figures of each part. share: of the full number of cases."""

    def some(number: int) -> int:
        return max(1, round(number * share))

    ways: dict[str, Callable[[Path], dict[str, Any]]] = {
        "flips": lambda place: flips.run(place, some(FLIPS), seed, say),
        "texts": lambda place: texts.run(place, some(TEXTS), seed, say),
        "videos": lambda place: videos.run(place, some(VIDEOS), seed, say, demo=demo, peers=share >= 1),
        "kills": lambda place: kills.run(place, some(KILLS), seed, say),
    }
    figures = {}
    for part in parts:
        place = folder / part
        place.mkdir(parents=True)
        figures[part] = ways[part](place)
    return figures


def faults(figures: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as it has to be."""
    found = [
        f"{part}: {name} is {figures[part][name]}, has to be {wanted}"
        for part in figures
        for name, wanted in WANTED[part].items()
        if figures[part][name] != wanted
    ]
    if "kills" in figures and figures["kills"]["equal"] != figures["kills"]["kills"]:
        found.append(f"kills: only {figures['kills']['equal']} ended as undisturbed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m affect.benchmarks.torture", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of cases")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", type=Path, help="a demo set, whose videos are damaged as well")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        figures = torture(Path(folder), given.share, given.seed, say, tuple(given.only or PARTS), given.demo)
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        for part, own in figures.items():
            print(f"\n{part}")
            for name, value in own.items():
                print(f"  {name:<40}{value}")
    wrong = faults(figures)
    for text in wrong:
        say(f"WRONG: {text}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
