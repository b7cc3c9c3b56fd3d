"""Smoothing: a filter does what its name says, a stream gives what the whole gives, and the width is earned."""

from types import SimpleNamespace

import numpy as np
import pytest
from affect.pipeline.learning.smoothing import Smoother, choose_smoothing, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import medfilt

kinds = st.sampled_from(["none", "median", "gaussian"])
widths = st.sampled_from([1, 3, 5, 9, 25])


@settings(deadline=None)
@given(kind=kinds, width=widths, pieces=st.lists(st.integers(0, 40), max_size=8), holes=st.floats(0, 1))
def test_a_stream_in_pieces_gives_what_the_whole_gives(kind, width: int, pieces: list[int], holes: float) -> None:
    rng = np.random.default_rng(len(pieces))
    values = rng.uniform(-1, 1, (sum(pieces), 2)).astype(np.float32)
    values[rng.random(len(values)) < holes] = np.nan
    smoother = Smoother(kind, width)
    given_out = [smoother.push(part) for part in np.split(values, np.cumsum(pieces)[:-1])] if pieces else []
    given_out.append(smoother.finish().reshape(-1, 2))
    np.testing.assert_array_equal(np.concatenate(given_out), smooth(values, kind, width))
    assert len(smooth(values, kind, width)) == len(values)


@given(kind=kinds, width=widths, level=st.floats(-1, 1), n=st.integers(1, 60))
def test_what_does_not_change_is_not_changed(kind, width: int, level: float, n: int) -> None:
    flat = np.full((n, 2), level, np.float32)
    np.testing.assert_allclose(smooth(flat, kind, width), flat, atol=1e-6)


def test_the_median_is_scipys_away_from_the_ends() -> None:
    values = np.random.default_rng(0).normal(size=(80, 2))
    own = smooth(values, "median", 9)
    for column in range(2):
        np.testing.assert_allclose(own[4:-4, column], medfilt(values[:, column], 9)[4:-4], atol=1e-6)


def test_a_gaussian_removes_noise_and_keeps_the_wave() -> None:
    time = np.linspace(0, 4 * np.pi, 400)
    wave = np.stack((np.sin(time), np.cos(time)), 1)
    noisy = wave + np.random.default_rng(0).normal(0, 0.3, wave.shape)
    smoothed = smooth(noisy, "gaussian", 15)
    assert np.abs(smoothed - wave).mean() < 0.5 * np.abs(noisy - wave).mean()


def test_rows_without_a_face_do_not_count() -> None:
    values = np.zeros((40, 2), np.float32)
    values[10:15] = np.nan
    for kind in ("median", "gaussian"):
        assert not np.nan_to_num(smooth(values, kind, 3)).any()
        assert np.isnan(smooth(values, kind, 3)[11:14]).all()
        assert np.isfinite(smooth(values, kind, 25)).all()


def test_a_stream_keeps_no_more_than_the_width_needs() -> None:
    smoother = Smoother("gaussian", 25)
    given_out = 0
    for pushed in range(8, 8 * 500, 8):
        given_out += len(smoother.push(np.zeros((8, 2))))
        assert pushed - given_out <= 12
        assert smoother._rows is not None
        assert len(smoother._rows) <= 2 * 12
    assert given_out + len(smoother.finish()) == 8 * 499


@pytest.mark.parametrize(("kind", "width"), [("mean", 3), ("median", 4), ("gaussian", 0)])
def test_what_is_no_filter_is_refused(kind, width: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        Smoother(kind, width)


def judged(noise: float) -> tuple[list[np.ndarray], list[SimpleNamespace]]:
    rng = np.random.default_rng(0)
    values, found = [], []
    for n in (300, 120):
        target = np.stack([np.sin(np.linspace(0, k, n)) * 0.6 for k in (20, 31)], 1).astype(np.float32)
        values.append((target + rng.normal(0, noise, (n, 2))).astype(np.float32))
        found.append(SimpleNamespace(target=target, valid=rng.random(n) < 0.8))
    return values, found


def test_the_width_is_the_best_on_validation_and_none_where_none_wins() -> None:
    values, found = judged(noise=0.3)
    chosen = choose_smoothing(values, found, "auto", (3, 9, 101))
    assert chosen["width"] == 9
    assert chosen["ccc_mean"] > chosen["ccc_mean_before"]
    assert choose_smoothing(values, found, "none", (3, 9))["kind"] == "none"
    exact, found = judged(noise=0.0)
    chosen = choose_smoothing(exact, found, "auto", (9, 101))
    assert (chosen["kind"], chosen["width"]) == ("none", 1)
    assert chosen["ccc_mean"] == chosen["ccc_mean_before"]
