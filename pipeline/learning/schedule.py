"""Learning rate schedules."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["cosine", "one-cycle", "plateau", "constant"]


def rate_factor(schedule: Schedule, step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate at a step (from 0), in [0, 1].

    cosine: a linear rise over the share `warmup`, then half a cosine down to 0.
    one-cycle: half a cosine up from 1/25 over the larger of `warmup` and 0.3, then half a cosine down to 1e-4.
    plateau and constant: only the rise. `fit` halves the rate of plateau after 3 epochs without a better score.
    """
    total = max(total, 1)
    share = max(warmup, 0.3) if schedule == "one-cycle" else warmup
    rise = round(share * total)
    if step < rise:
        progress = (step + 1) / rise
        return progress if schedule != "one-cycle" else 0.04 + 0.96 * (1 - math.cos(math.pi * progress)) / 2
    if schedule in ("plateau", "constant"):
        return 1.0
    floor = 1e-4 if schedule == "one-cycle" else 0.0
    progress = min(1.0, (step - rise) / max(1, total - rise))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def count_halvings(scores: Sequence[float], wait: int = 3) -> int:
    """How often the plateau schedule has halved the rate: once per `wait` epochs without a better score."""
    best, waited, count = -math.inf, 0, 0
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == wait:
            count, waited = count + 1, 0
    return count
