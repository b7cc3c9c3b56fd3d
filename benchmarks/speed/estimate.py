"""Estimates how long all of Aff-Wild2 would take.

    python -m affect.benchmarks.speed.estimate [speed.json]

It calculates from the rates that `make bench` measured, and measures nothing itself. It assumes that the cores of
another machine are as fast, and that speed grows linearly with the number of cores. No GPU was measured.
"""

import argparse
import json
from pathlib import Path

VIDEOS, FRAMES, LONGEST = 558, 2_800_000, 47_435
MACHINES = {"a laptop, 8 cores": 8, "one H100, its 16 cores only": 16, "64 CPU workers, 64 cores": 64}
GPU_CORES = 16
"""CPU cores that decode the JPEGs for one GPU."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="estimate", description=__doc__)
    parser.add_argument("speed", type=Path, nargs="?", default=Path("work/speed.json"))
    parser.add_argument("--gpu", type=float, metavar="N", help="frames/s of STN and network on a GPU, if you know it")
    options = parser.parse_args()
    rows = [row for part in json.loads(options.speed.read_text(encoding="utf-8")).values() for row in part]
    rate = {row["rate"]: row["figure"] for row in rows if row["rate"]}
    if missing := [name for name in ("extract", "cache", "head", "jpeg") if name not in rate]:
        parser.error(f"no rate of {', '.join(missing)}. Run first: make bench PARTS='extract cache head profile'")
    print(f"Calculated from rates, not measured: {VIDEOS} videos, {FRAMES:,} frames, the longest {LONGEST:,}.")
    print(f"Rates in frames/s: extract-frames {rate['extract']:.0f} per core, cache-features {rate['cache']:.1f} per")
    print(f"worker of 2 cores (fp32), head {rate['head']:,.0f} on 2 cores, JPEGs {1000 / rate['jpeg']:.0f} per core.")
    for machine, cores in MACHINES.items():
        # The longest video starts first, in one worker.
        extract = max(FRAMES / cores, LONGEST) / rate["extract"]
        cache = max(2 * FRAMES / cores, LONGEST) / rate["cache"]
        print(f"{machine:<28} extract-frames {_duration(extract):>7}  cache-features {_duration(cache):>7}")
    print(f"{'the head, 2 cores':<28} one epoch {_duration(FRAMES / rate['head'])}")
    bound = GPU_CORES * 1000 / rate["jpeg"]
    limit = (
        f"at most {bound:,.0f} frames/s, because {GPU_CORES} cores decode JPEGs; at least {_duration(FRAMES / bound)}"
    )
    print(f"{'one H100, cache-features':<28} {limit}; the GPU itself was not measured")
    if options.gpu:
        print(f"{'':<28} with --gpu {options.gpu:,.0f}: {_duration(FRAMES / min(bound, options.gpu))}")


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
