"""Each label belongs to the frame with its number, even if other frames are lost."""

import numpy as np
import pytest
from affect.pipeline.errors import AlignmentError
from affect.pipeline.ingest.align import align
from affect.pipeline.records import Labels
from hypothesis import given, settings
from hypothesis import strategies as st


def numbered(rows: int, invalid: frozenset[int] = frozenset()) -> Labels:
    """Labels whose valence encodes their row."""
    value = np.zeros((rows, 2), np.float32)
    value[:, 0] = np.arange(rows) / 1000
    valid = np.array([row not in invalid for row in range(rows)], bool)
    value[~valid] = 0
    return Labels(value, valid)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, frozenset[int], frozenset[int]]:
    frames = draw(st.integers(0, 200))
    rows = max(0, frames + draw(st.integers(-3, 3)))
    lost = draw(st.frozensets(st.integers(0, frames - 1))) if frames else frozenset()
    invalid = draw(st.frozensets(st.integers(0, rows - 1))) if rows else frozenset()
    return rows, frames, lost, invalid


@given(cases())
def test_each_decoded_frame_gets_the_row_of_its_number_or_none(
    case: tuple[int, int, frozenset[int], frozenset[int]],
) -> None:
    rows, frames, lost, invalid = case
    aligned = align(numbered(rows, invalid), frames, lost=lost)
    assert aligned.index.tolist() == [number for number in range(frames) if number not in lost]
    assert aligned.difference == rows - frames
    for number, target, valid in zip(aligned.index.tolist(), aligned.target, aligned.valid, strict=True):
        assert valid == (number < rows and number not in invalid)
        assert target.tolist() == ([np.float32(number / 1000), 0] if valid else [0, 0])


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 10))
def test_a_difference_above_the_tolerance_is_refused(rows: int, frames: int, tolerance: int) -> None:
    if abs(rows - frames) <= tolerance:
        assert align(numbered(rows), frames, tolerance=tolerance).difference == rows - frames
    else:
        with pytest.raises(AlignmentError, match=f"{rows} rows for {frames} frames"):
            align(numbered(rows), frames, tolerance=tolerance)


def test_lost_frames_count_as_frames() -> None:
    lost = frozenset(range(10, 20))
    aligned = align(numbered(100), 100, lost=lost)
    assert aligned.difference == 0
    assert aligned.index[10] == 20
    assert aligned.target[10, 0] == np.float32(0.020)


def test_a_lost_frame_outside_the_video_is_an_error() -> None:
    with pytest.raises(ValueError, match="are not in a video of 5 frames"):
        align(numbered(5), 5, lost=frozenset({5}))
