"""python -m affect.benchmarks.speed.reckon [speed.json]: what all of Aff-Wild2 would take, by the rates measured here.

Only the rates are measured, which `make bench` wrote; they are of the cores of that machine. That another machine's
cores are as fast, and that twice as many do twice as much, is assumed. No GPU has been measured.
"""

import argparse
import json
from pathlib import Path

VIDEOS, FRAMES, LONGEST = 558, 2_800_000, 47_435
MACHINES = {"a laptop, 8 cores": 8, "one H100, its 16 cores only": 16, "64 CPU workers, 64 cores": 64}
BESIDE = 16
"""Cores beside a GPU, which decode its JPEGs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="reckon", description=__doc__)
    parser.add_argument("speed", type=Path, nargs="?", default=Path("work/speed.json"))
    parser.add_argument(
        "--gpu", type=float, metavar="N", help="frames/s of STN and network on a GPU, where it is known"
    )
    wished = parser.parse_args()
    rows = [row for part in json.loads(wished.speed.read_text(encoding="utf-8")).values() for row in part]
    rate = {row["rate"]: row["figure"] for row in rows if row["rate"]}
    if missing := [name for name in ("extract", "cache", "head", "jpeg") if name not in rate]:
        parser.error(f"no rate of {', '.join(missing)}; first: make bench PARTS='extract cache head profile'")
    print(f"Reckoned from rates, not measured: {VIDEOS} videos, {FRAMES:,} frames, the longest of {LONGEST:,}.")
    print(
        f"Rates: extract-frames {rate['extract']:.0f} frames/s a core, cache-features {rate['cache']:.1f} a worker of 2"
    )
    print(f"cores (fp32), the head {rate['head']:,.0f} on 2 cores, JPEGs {1000 / rate['jpeg']:.0f} a core.")
    for machine, cores in MACHINES.items():
        # The longest video is one worker's, and begun first.
        extract = max(FRAMES / cores, LONGEST) / rate["extract"]
        cache = max(2 * FRAMES / cores, LONGEST) / rate["cache"]
        print(f"{machine:<28} extract-frames {_long(extract):>7}  cache-features {_long(cache):>7}")
    print(f"{'the head, 2 cores':<28} an epoch {_long(FRAMES / rate['head'])}")
    bound = BESIDE * 1000 / rate["jpeg"]
    found = f"at most {bound:,.0f} frames/s, as {BESIDE} cores decode JPEGs; {_long(FRAMES / bound)} or more"
    print(f"{'one H100, cache-features':<28} {found}; the GPU itself was not measured")
    if wished.gpu:
        print(f"{'':<28} at {wished.gpu:,.0f} frames/s, as given: {_long(FRAMES / min(bound, wished.gpu))}")


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
