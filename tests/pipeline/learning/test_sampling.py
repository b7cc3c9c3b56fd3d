"""Which windows an epoch has: even over subjects, or over the plane, and never without an annotated row."""

import numpy as np
import pytest
from affect.pipeline.learning.sampling import GRID
from affect.pipeline.learning.windows import Balance, draw_windows
from hypothesis import given, settings
from hypothesis import strategies as st

LENGTH = 16


def tracks(counts: list[int], share: float = 1.0, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [rng.random(n) < share for n in counts], [rng.uniform(-1, 1, (n, 2)).astype(np.float32) for n in counts]


@pytest.mark.parametrize("balance", ["subject", "plane"])
@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 150), min_size=1, max_size=6),
    share=st.floats(0, 1),
    epoch=st.integers(0, 9),
    length=st.integers(1, 40),
)
def test_windows_lie_within_their_track_and_hold_an_annotated_row(
    balance: Balance, counts: list[int], share: float, epoch: int, length: int
) -> None:
    valid, targets = tracks(counts, share, epoch)
    windows = draw_windows(valid, length, 0, epoch, balance=balance, targets=targets)
    for track, start in windows:
        assert 0 <= start <= max(0, counts[track] - length)
        assert valid[track][start : start + length].any()
    assert bool(len(windows)) == any(rows.any() for rows in valid)
    again = draw_windows(valid, length, 0, epoch, balance=balance, targets=targets)
    assert np.array_equal(windows, again)


def test_each_subject_has_as_many_windows_as_the_next() -> None:
    valid, _ = tracks([LENGTH * 200, LENGTH * 10, 5, LENGTH * 30])
    windows = draw_windows(valid, LENGTH, 0, 1, balance="subject")
    counts = np.bincount(windows[:, 0], minlength=4)
    assert counts.max() - counts.min() <= 1
    assert len(windows) == pytest.approx(241, abs=5)
    for part in np.array_split(windows, 8):
        assert np.bincount(part[:, 0], minlength=4).min() >= 5
    assert len(np.unique(windows[windows[:, 0] == 1, 1])) > 40, "a short track's windows come at many offsets"


def test_rare_labels_are_sampled_more_often_and_none_is_left_out() -> None:
    """Nine tracks sit at rest, one is excited: its share of the windows grows, by the root of how rare it is."""
    valid = [np.ones(LENGTH * 40, bool) for _ in range(10)]
    targets = [np.full((LENGTH * 40, 2), 0.1, np.float32) for _ in range(9)] + [
        np.full((LENGTH * 40, 2), 0.9, np.float32)
    ]
    share = {}
    for balance in ("none", "plane"):
        windows = draw_windows(valid, LENGTH, 0, 1, balance=balance, targets=targets)
        share[balance] = (windows[:, 0] == 9).mean()
    assert share["none"] == pytest.approx(0.1, abs=0.01)
    assert share["plane"] == pytest.approx(0.25, abs=0.02), "one third to one"
    assert set(windows[:, 0]) == set(range(10))


def test_the_edges_of_the_plane_are_cells_too() -> None:
    edge = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1]], np.float32)
    windows = draw_windows([np.ones(4, bool)], 1, 0, 0, balance="plane", targets=[edge])
    assert sorted(windows[:, 1]) == [0, 1, 2, 3]
    assert GRID > 1
