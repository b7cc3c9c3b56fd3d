"""Measures the speed of affect.

    python -m affect.benchmarks.speed [PART ...]

Most parts compare a command with the limit of the machine (only decord, only the network, tensors in memory) and with a
naive implementation. The two sides are measured in turns, because machines are noisy; quote only ratios. Prints a table
and writes it as JSON (--out). Without PART, all parts run. Parts that do not run keep their figures in the JSON.
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

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch is imported, as the commands do

from .caching import cache, compiled
from .extracting import extract
from .learning import epoch, head
from .measure import Row
from .peers import peers
from .prediction import memory, predict, start
from .profiling import profile
from .training import training

PARTS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "extract": extract, "cache": cache, "head": head, "epoch": epoch, "memory": memory, "predict": predict,
    "start": start, "profile": profile, "compile": compiled, "training": training, "peers": peers,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="speed")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--frames", type=int, default=400, help="length of the videos, a multiple of 200")
    parser.add_argument("--out", type=Path, default=Path("work/speed.json"))
    parser.add_argument("--keep", type=Path, help="a folder that keeps the drawn videos for the next call")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]}; allowed: {', '.join(PARTS)}")
    if options.frames % 200 or options.frames < 200:
        parser.error("--frames must be a multiple of 200, at least 200")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}", file=sys.stderr)
    known = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for name in options.parts or PARTS:
            (folder / name).mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            rows: list[Row] = []
            for row in PARTS[name](folder / name, options.frames):
                figures = f"{row.what:<68} {row.figure:>9.3g} {row.unit:<9}"
                print(f"{figures} {row.target and f'(target {row.target}) '}{row.detail}", flush=True)
                rows.append(row)
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
            if rows:
                known[name] = [vars(row) for row in rows]
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(f"→ {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
