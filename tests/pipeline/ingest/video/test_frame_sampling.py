"""Which frames the networks see: so many per second whatever the frame rate, and the first after a cut."""

from collections.abc import Sequence

import numpy as np
import pytest
from affect.pipeline.ingest.video.frame_sampling import MAX_GAP, FrameChunk, frame_chunks
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray


def grey(levels: Sequence[int]) -> NDArray[np.uint8]:
    return np.array(levels, np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)


def chunks(
    time: NDArray[np.float64], pictures: NDArray[np.uint8], fps: float | None, batch: int = 20
) -> list[FrameChunk]:
    index = np.arange(len(time))
    parts = [slice(start, start + batch) for start in range(0, len(time), batch)]
    return list(frame_chunks([(index[part], time[part], pictures[part]) for part in parts], fps))


def due(time: NDArray[np.float64], pictures: NDArray[np.uint8], fps: float | None, batch: int = 20) -> list[int]:
    found = chunks(time, pictures, fps, batch)
    assert np.concatenate([chunk.index for chunk in found]).tolist() == list(range(len(time)))
    assert all(chunk.due[-1] for chunk in found)
    return np.flatnonzero(np.concatenate([chunk.due for chunk in found])).tolist()


@pytest.mark.parametrize("digits", [3, 9])
def test_ten_per_second_is_every_third_frame_of_thirty_and_the_last_one(digits: int) -> None:
    time = np.round(5 + np.arange(101) / 30, digits)
    assert due(time, grey([50] * 101), 10) == [*range(0, 101, 3), 100]


def test_a_rate_that_does_not_divide_the_frame_rate_is_kept_on_average() -> None:
    assert len(due(np.arange(480) / 24, grey([50] * 480), 10)) == pytest.approx(200, abs=1)


def test_a_rate_above_that_of_the_video_takes_every_frame() -> None:
    assert due(np.arange(50) / 25, grey([50] * 50), 30) == list(range(50))
    assert due(np.round(np.arange(90) / 60, 3), grey([50] * 90), 60) == list(range(90))
    assert due(np.arange(50) / 25, grey([50] * 50), None) == list(range(50))


def test_time_counts_and_not_the_number_of_frames() -> None:
    time = np.concatenate((np.arange(30) / 60, 0.5 + np.arange(10) / 5))  # 60 frames/s, then 5
    assert due(time, grey([50] * 40), 10) == [*range(0, 30, 6), *range(30, 40)]


def test_the_first_frame_after_a_cut_and_a_single_other_frame_are_due() -> None:
    levels = [50] * 14 + [200] * 20 + [50] + [200] * 25
    assert set(due(np.arange(60) / 30, grey(levels), 5)) >= {14, 34, 35}


def test_a_slow_rate_leaves_no_gap_that_does_not_fit_into_memory() -> None:
    found = due(np.arange(400) / 240, grey([50] * 400), 1)
    assert np.diff(found).max() == MAX_GAP
    assert max(len(chunk) for chunk in chunks(np.arange(400) / 240, grey([50] * 400), 1)) <= 4 * MAX_GAP


@given(st.lists(st.integers(0, 255), min_size=1, max_size=90), st.integers(1, 40), st.floats(1, 40))
def test_what_is_due_does_not_depend_on_the_batches(levels: list[int], batch: int, fps: float) -> None:
    time = np.arange(len(levels)) / 25
    assert due(time, grey(levels), fps, batch) == due(time, grey(levels), fps, len(levels))


def test_a_chunk_gives_the_pictures_of_its_own_rows() -> None:
    pictures = grey(list(range(0, 240, 2)))
    for chunk in chunks(np.arange(120) / 30, pictures, 4, batch=7):
        rows = np.flatnonzero(chunk.due)
        np.testing.assert_array_equal(chunk.pixels(rows), pictures[chunk.index[rows]])
