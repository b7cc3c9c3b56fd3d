"""python -m affect.benchmarks.speed [PART ...]: prints a table of ratios and writes them as JSON.

Parts: cache, extract, head, memory, predict, start; all of them where none is named. Machines are noisy, so what is
compared is measured in turns, and only ratios are to be quoted.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from .measure import Row
from .parts import PARTS


def main() -> None:
    parser = argparse.ArgumentParser(prog="speed")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--frames", type=int, default=400, help="length of the videos that are drawn")
    parser.add_argument("--out", type=Path, default=Path("work/speed.json"))
    wished = parser.parse_args()
    if unknown := [part for part in wished.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PARTS)}")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}", file=sys.stderr)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in wished.parts or PARTS:
            print(f"{name} …", file=sys.stderr)
            (Path(folder) / name).mkdir()
            for row in PARTS[name](Path(folder) / name, wished.frames):
                print(f"{row.what:<64} {row.figure:>9.3g} {row.unit:<12} {row.told}", flush=True)
                rows.append(row)
    wished.out.parent.mkdir(parents=True, exist_ok=True)
    wished.out.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    print(f"→ {wished.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
