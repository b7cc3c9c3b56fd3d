"""Outputs of frames that were not encoded: linear in time where little changes, and a change is found to the frame."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from affect.pipeline.learning.time_sampling import Outputs, SparseEncoder
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

N, STEP = 61, 6
TIME = np.arange(N) / 30
STILL = np.tile(np.array([1.0, 2.0, 0.5], np.float32), (N, 1))
SURE = np.full(N, 0.99, np.float32)


def encoded(
    feature: NDArray[np.floating], face: NDArray[np.floating], ends: list[int] | None = None, time: NDArray = TIME
) -> tuple[Outputs, NDArray[np.bool_]]:
    """Encodes a track with every STEP-th frame due, in chunks that end at these frames."""
    due = np.arange(N) % STEP == 0
    encoder, outputs, rows_seen = SparseEncoder(), [], []

    def encode(start: int, rows: NDArray[np.int64]) -> Outputs:
        return {"feature": feature[start + rows], "face": face[start + rows]}

    edges: list[int] = [0, *(ends or []), N]
    for start, end in pairwise(edges):
        found, seen = encoder.push(time[start:end], due[start:end], partial(encode, start))
        outputs.append(found)
        rows_seen.append(seen)
    return {name: np.concatenate([it[name] for it in outputs]) for name in outputs[0]}, np.concatenate(rows_seen)


def test_what_hardly_changes_is_interpolated_in_time() -> None:
    uneven = np.sort(np.random.default_rng(0).uniform(0, 3, N))
    slow = (STILL * (1 + 0.1 * uneven[:, None])).astype(np.float32)
    outputs, seen = encoded(slow, SURE, time=uneven)
    assert np.flatnonzero(seen).tolist() == list(range(0, N, STEP))
    np.testing.assert_allclose(outputs["feature"], slow, rtol=1e-5)
    np.testing.assert_array_equal(outputs["feature"][::STEP], slow[::STEP])
    assert outputs["feature"].dtype == np.float32


@pytest.mark.parametrize("cut", [1, 6, 8, 11, 12, 30, 59, 60])
def test_a_cut_is_found_to_the_frame(cut: int) -> None:
    feature = np.where(np.arange(N)[:, None] < cut, STILL, STILL[:, ::-1] * 3).astype(np.float32)
    outputs, seen = encoded(feature, SURE)
    assert seen[[cut - 1, cut]].all()
    np.testing.assert_array_equal(outputs["feature"], feature)
    assert seen.sum() <= N // STEP + 4


def test_the_first_and_last_frame_of_a_face_are_found() -> None:
    face = np.where((np.arange(N) >= 9) & (np.arange(N) < 28), 0.9, 0.02).astype(np.float32)
    outputs, seen = encoded(STILL, face)
    assert seen[[8, 9, 27, 28]].all()
    np.testing.assert_array_equal(outputs["face"] >= 0.5, face >= 0.5)


def test_an_uncertain_face_is_searched_in_the_frames_beside_it() -> None:
    face = np.full(N, 0.02, np.float32)
    face[10:15], face[12] = 0.6, 0.3  # only frame 12 of them is due
    outputs, _ = encoded(STILL, face)
    assert (outputs["face"] >= 0.5).sum() >= 2
    assert encoded(STILL, np.full(N, 0.02, np.float32))[1].sum() == 11


@given(st.lists(st.integers(0, N // STEP - 1), unique=True, max_size=5), st.integers(0, 10))
def test_the_result_does_not_depend_on_the_chunks(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    feature = np.maximum(np.cumsum(rng.normal(size=(N, 3)), 0), 0).astype(np.float32)
    face = rng.uniform(size=N).astype(np.float32)
    whole, seen = encoded(feature, face)
    parts, parts_seen = encoded(feature, face, sorted(cut * STEP + 1 for cut in cuts))
    np.testing.assert_array_equal(seen, parts_seen)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_float16_stays_exact_where_the_networks_have_seen_the_frame() -> None:
    feature = np.random.default_rng(1).uniform(1, 1.2, (N, 3)).astype(np.float16)
    outputs, seen = encoded(feature, SURE)
    assert outputs["feature"].dtype == np.float16
    np.testing.assert_array_equal(outputs["feature"][seen], feature[seen])
