"""The learning rate's way through a training."""

from typing import Any

import pytest
from affect.pipeline.learning.schedule import rate_factor
from hypothesis import given
from hypothesis import strategies as st

SCHEDULES = ("cosine", "one-cycle", "plateau", "constant")


@given(
    schedule=st.sampled_from(SCHEDULES), total=st.integers(1, 400), warmup=st.floats(0, 0.9), step=st.integers(0, 500)
)
def test_the_rate_stays_between_0_and_1(schedule: Any, total: int, warmup: float, step: int) -> None:
    assert 0 <= rate_factor(schedule, step, total, warmup) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_to_one_and_falls_only_after(schedule: Any) -> None:
    factors = [rate_factor(schedule, step, 200, 0.1) for step in range(200)]
    top = factors.index(max(factors))
    assert max(factors) == pytest.approx(1)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert (factors[-1] < 0.01) == (schedule in ("cosine", "one-cycle"))
