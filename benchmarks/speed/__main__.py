"""python -m affect.benchmarks.speed [PART ...]: prints a table of ratios and writes them as JSON.

All parts where none is named; what other parts wrote to the JSON before stays there. Machines are noisy, so what is
compared is measured in turns, and only ratios are to be quoted.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands set it, before torch is loaded

from .caching import cache, compiled
from .extracting import extract
from .learning import epoch, head
from .measure import Row
from .profiling import profile
from .watching import memory, predict, start

PARTS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "extract": extract, "cache": cache, "head": head, "epoch": epoch, "memory": memory, "predict": predict,
    "start": start, "profile": profile, "compile": compiled,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="speed")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--frames", type=int, default=400, help="length of the videos, a multiple of 200")
    parser.add_argument("--out", type=Path, default=Path("work/speed.json"))
    parser.add_argument("--keep", type=Path, help="a folder where what is drawn is kept for the next time")
    wished = parser.parse_args()
    if unknown := [part for part in wished.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PARTS)}")
    if wished.frames % 200 or wished.frames < 200:
        parser.error("--frames has to be a multiple of 200")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}", file=sys.stderr)
    known = json.loads(wished.out.read_text(encoding="utf-8")) if wished.out.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = wished.keep or Path(temporary)
        for name in wished.parts or PARTS:
            (folder / name).mkdir(parents=True, exist_ok=True)
            began = time.perf_counter()
            rows: list[Row] = []
            for row in PARTS[name](folder / name, wished.frames):
                figures = f"{row.what:<68} {row.figure:>9.3g} {row.unit:<9}"
                print(f"{figures} {row.wanted and f'(wanted {row.wanted}) '}{row.told}", flush=True)
                rows.append(row)
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
            known[name] = [vars(row) for row in rows]
            wished.out.parent.mkdir(parents=True, exist_ok=True)
            wished.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(f"→ {wished.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
