"""Intervals hold for new people, widen where residuals are large, and survive a model file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.errors import WeightsError
from affect.pipeline.learning.calibration import GRID, from_state, to_state
from affect.pipeline.learning.fit_calibration import Person, calibrate
from numpy.typing import NDArray


def draw_person(rng: np.random.Generator, frames: int, effect: float = 1.0) -> Person:
    """A person with a difficulty of their own, whose residuals grow with the first of two covariates."""
    covariate = rng.uniform(-1.5, 1.5, size=(frames, 2))
    scale = 0.1 * np.exp(0.3 * rng.normal() + effect * covariate[:, :1])
    return Person(scale * rng.exponential(size=(frames, 2)), covariate)


def coverage(people: int, level: float, trials: int = 30) -> NDArray[np.float64]:
    """The share of the frames of new people in the interval, for each trial."""
    rng = np.random.default_rng(people)
    shares = []
    for _ in range(trials):
        known = [draw_person(rng, int(rng.integers(5, 80))) for _ in range(people)]
        found = calibrate(known, ("a", "b"), (1, 0))
        new = draw_person(rng, 60)
        shares.append((new.residual <= found.half_width(new.covariate, level)).mean())
    return np.array(shares)


@pytest.mark.parametrize(("people", "level"), [(9, 0.9), (15, 0.8), (30, 0.9)])
def test_the_intervals_hold_for_new_people(people: int, level: float) -> None:
    shares = coverage(people, level)
    assert shares.mean() > level - 2.5 * shares.std() / len(shares) ** 0.5 - 0.01


def test_a_person_with_many_frames_counts_as_much_as_one_with_few() -> None:
    easy, hard = np.full((10, 2), 0.1), np.full((10, 2), 0.5)
    many = Person(np.repeat(easy, 1000, 0), np.zeros((10_000, 0)))
    people = [many, *(Person(hard, np.zeros((10, 0))) for _ in range(9))]
    assert calibrate(people, (), ()).half_width(np.zeros((1, 0)), 0.8).tolist() == [[0.5, 0.5]]


def test_the_width_follows_the_covariates_and_is_shorter_for_the_same_coverage() -> None:
    rng = np.random.default_rng(1)
    people = [draw_person(rng, 200) for _ in range(40)]
    local = calibrate(people, ("a", "b"), (1, 0))
    constant = calibrate(people, ("a", "b"), (1, 0), constant=True)
    test = [draw_person(rng, 200) for _ in range(40)]
    for it in (local, constant):
        inside = [(one.residual <= it.half_width(one.covariate, 0.9)).mean() for one in test]
        assert abs(np.mean(inside) - 0.91) < 0.05
    widths = [np.mean([it.half_width(one.covariate, 0.9).mean() for one in test]) for it in (local, constant)]
    assert widths[0] < 0.9 * widths[1]
    assert np.ptp(constant.half_width(test[0].covariate, 0.9)) < 0.5
    low, high = local.half_width(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.9)
    assert (high > 3 * low).all()


def test_the_width_never_falls_with_a_covariate_that_may_only_raise_it() -> None:
    rng = np.random.default_rng(2)
    people = [draw_person(rng, 100, effect=-1.0) for _ in range(30)]
    found = calibrate(people, ("a", "b"), (1, 0))
    low, high = found.half_width(np.array([[-1.0, 0.0], [1.0, 0.0]]), 0.9)
    assert (high >= low).all()


def test_few_people_have_a_constant_width_and_no_interval_at_a_high_level() -> None:
    rng = np.random.default_rng(3)
    found = calibrate([draw_person(rng, 50) for _ in range(4)], ("a", "b"), (1, 0))
    covariate = rng.normal(size=(5, 2))
    assert found.highest_level == pytest.approx(0.8)
    assert np.isinf(found.half_width(covariate, 0.9)).all()
    widths = found.half_width(covariate, 0.8)
    assert np.isfinite(widths).all()
    assert np.ptp(widths, axis=0).max() == 0


def test_a_higher_level_has_wider_intervals() -> None:
    rng = np.random.default_rng(4)
    found = calibrate([draw_person(rng, 50) for _ in range(120)], ("a", "b"), (1, 0))
    widths = [found.quantile(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)]
    assert (np.diff(widths, axis=0) > 0).all()
    assert found.score.shape == (2, GRID)


def test_a_stored_calibration_gives_the_same_widths() -> None:
    rng = np.random.default_rng(5)
    found = calibrate([draw_person(rng, 50) for _ in range(20)], ("a", "b"), (1, 0))
    state, facts = to_state({"offline": found})
    again = from_state(state, facts)["offline"]
    covariate = rng.normal(size=(7, 2))
    assert np.array_equal(again.half_width(covariate, 0.9), found.half_width(covariate, 0.9))
    assert (again.people, again.covariates) == (20, ("a", "b"))
    assert from_state(state, facts | {"version": 999}) == {}
    with pytest.raises(WeightsError, match="calibration"):
        from_state({name: tensor[:1] for name, tensor in state.items()}, facts)


def test_intervals_are_added_to_a_model_file_without_changing_its_values(
    tmp_path: Path, tiny_run: Callable[..., Path]
) -> None:
    from affect.pipeline.learning.model_file import add_calibration, load_model, read_calibration

    run = tiny_run(tmp_path)
    assert read_calibration(run) == {}
    before, old = load_model(run)
    rng = np.random.default_rng(6)
    found = calibrate([draw_person(rng, 50) for _ in range(20)], ("a", "b"), (1, 0))
    for _ in range(2):  # the second time in place of the first
        add_calibration(run, {"offline": found})
    after, info = load_model(run)
    assert all((it == after.state_dict()[name]).all() for name, it in before.state_dict().items())
    assert info.fingerprint == old.fingerprint
    assert np.array_equal(read_calibration(run)["offline"].score, found.score)
