"""Estimates how long all of Aff-Wild2 would take, and a data set a hundred times as large.

    python -m affect.benchmarks.speed.estimate [speed.json] [--catalog catalog.json]

It calculates from the rates that `make bench` measured, and from the costs per video that `make catalog` measured. It
measures nothing itself. It assumes that the cores of another machine are as fast, and that speed grows linearly with
the number of cores. No GPU was measured.
"""

import argparse
import json
from pathlib import Path

VIDEOS, FRAMES, LONGEST = 558, 2_800_000, 47_435
MACHINES = {"a laptop, 8 cores": 8, "one H100, its 16 cores only": 16, "64 CPU workers, 64 cores": 64}
TIMES = 100
"""How much larger the other data set is."""
WORKERS = (1, 16, 64)
FEATURE_BYTES = 2 * 2048
"""Of a frame in the cache: float16."""
SERIAL = {
    "audit, nothing new": "audit, nothing new",
    "extract-frames again": "extract-frames, all up to date",
    "cache-features again": "cache-features, all up to date",
}
"""Steps of `make catalog` that run in one process, however many workers there are."""
GPU_CORES = 16
"""CPU cores that decode the JPEGs for one GPU."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="estimate", description=__doc__)
    parser.add_argument("speed", type=Path, nargs="?", default=Path("work/speed.json"))
    parser.add_argument("--gpu", type=float, metavar="N", help="frames/s of STN and network on a GPU, if you know it")
    parser.add_argument("--catalog", type=Path, help="the figures of make catalog")
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

    cost = _costs(options.catalog) if options.catalog else {}
    for name, times in (("Aff-Wild2", 1), (f"{TIMES} times Aff-Wild2", TIMES)):
        _print_set(name, VIDEOS * times, FRAMES * times, rate, cost)


def _print_set(name: str, videos: int, frames: int, rate: dict[str, float], cost: dict[str, float]) -> None:
    """Prints the times of a data set. cost: seconds per video, by step of `make catalog`."""
    print(f"\n{name}: {videos:,} videos, {frames:,} frames, features {frames * FEATURE_BYTES / 1e12:.3g} TB")
    first = next((cost[step] for step in cost if step.startswith("first audit")), None)
    for workers in WORKERS:
        line = f"{workers:>3} worker{'s' * (workers > 1):<1}"
        line += f"  extract-frames {_duration(max(frames / workers, LONGEST) / rate['extract']):>8}"
        line += f"  cache-features {_duration(max(frames / workers, LONGEST) / rate['cache']):>8}"
        line += f"  first audit {_duration(videos * first / workers):>8}" if first is not None else ""
        print(line)
    for step, title in SERIAL.items():
        if step in cost:
            print(f"{title}, one process: {_duration(videos * cost[step])}")


def _costs(path: Path) -> dict[str, float]:
    """Seconds of CPU time per video, by step."""
    steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    return {step["step"]: step["cpu"] / step["videos"] for step in steps}


def _duration(seconds: float) -> str:
    if seconds >= 48 * 3600:
        return f"{seconds / 86400:.0f} days"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"


if __name__ == "__main__":
    main()
