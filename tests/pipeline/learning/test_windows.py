"""Every frame is in a window, and gets exactly one value, whatever the sizes and however the frames arrive."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import Clip, Head
from affect.models.head import HeadSettings, TemporalHead
from affect.pipeline.errors import ConfigError
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.learning.windows import OverlapAverage, draw_windows, predict_track, track_reader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

sizes = {"n": st.integers(0, 200), "length": st.integers(1, 40), "hop": st.integers(1, 60)}

CPU = Compute(torch.device("cpu"))


class Scan(nn.Module):
    """A head whose output depends on the place in the window and on all rows before, as an LSTM's does."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> SimpleNamespace:
        place = torch.arange(features.shape[1], dtype=torch.float32)[None, :, None]
        return SimpleNamespace(frame=features.cumsum(1)[..., :2] + 0.1 * place)


def head_of(**settings: Any) -> TemporalHead:
    return TemporalHead(3, HeadSettings(**{**Head(project=0, hidden=4).model_dump(), **settings}))


def window_starts(n: int, length: int, hop: int) -> list[int]:
    """The windows that a track of n rows should have, written as plainly as possible."""
    starts = set(range(0, n - length + 1, min(hop, length))) | {max(0, n - length)}
    return sorted(starts) if n else []


def naive(features: Tensor, length: int, hop: int) -> np.ndarray:
    values: list[list[np.ndarray]] = [[] for _ in features]
    for start in window_starts(len(features), length, hop):
        window = Scan()(features[None, start : start + length]).frame[0].numpy()
        for row, value in enumerate(window):
            values[start + row].append(value)
    return np.array([np.mean(value, 0) for value in values]).reshape(-1, 2)


@given(**sizes)
def test_windows_cover_every_row_and_stay_inside(n: int, length: int, hop: int) -> None:
    starts: list[int] = []
    sizes: set[int] = set()

    def predict(windows: Tensor) -> Tensor:
        starts.extend(windows[:, 0, 0].int().tolist())
        sizes.add(windows.shape[1])
        return windows.repeat(1, 1, 2)

    average = OverlapAverage(predict, length, hop)
    rows = np.concatenate([average.push(torch.arange(n, dtype=torch.float32)[:, None]), average.finish()])
    np.testing.assert_allclose(rows, np.arange(n)[:, None].repeat(2, 1))
    assert sizes <= {min(n, length)}
    covered = {row for start in starts for row in range(start, min(n, start + length))}
    assert covered == set(range(n))
    assert starts == sorted(set(starts))
    assert all(start == 0 or start + length <= n for start in starts)


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (1, 0), (-1, 5)])
def test_sizes_below_one_are_refused(length: int, hop: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        OverlapAverage(lambda windows: windows, length, hop)


@settings(deadline=None)
@given(**sizes)
def test_each_row_has_the_mean_of_its_windows(n: int, length: int, hop: int) -> None:
    features = torch.from_numpy(np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32))
    values = predict_track(Scan(), features, Clip(length=length, hop=hop), CPU, batch=7)
    assert values.shape == (n, 2)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, naive(features, length, hop), atol=1e-4)


@settings(deadline=None)
@given(pieces=st.lists(st.integers(0, 50), max_size=12), length=st.integers(1, 30), hop=st.integers(1, 40))
def test_a_stream_in_pieces_gives_what_the_whole_gives(pieces: list[int], length: int, hop: int) -> None:
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(sum(pieces), 3)).astype(np.float32))
    average = OverlapAverage(lambda windows: Scan()(windows).frame, length, hop)
    values = [average.push(piece) for piece in features.split(pieces)] if pieces else []
    values.append(average.finish())
    whole = predict_track(Scan(), features, Clip(length=length, hop=hop), CPU)
    np.testing.assert_array_equal(np.concatenate(values), whole)


@settings(deadline=None, max_examples=40)
@given(pieces=st.lists(st.integers(0, 40), min_size=1, max_size=8), kind=st.sampled_from(["lstm", "tcn"]), **sizes)
def test_with_carry_each_row_is_read_once_and_clips_do_not_matter(
    pieces: list[int], kind: Any, n: int, length: int, hop: int
) -> None:
    """The values of the whole track, however it comes; and then another track begins."""
    torch.manual_seed(0)
    head = head_of(bidirectional=False, dense=(), kind=kind, blocks=2).eval()
    reader = track_reader(head, Clip(length=length, hop=hop, carry=True), CPU)
    for count in (sum(pieces), n):
        track = torch.from_numpy(np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32))
        cuts = pieces if count == sum(pieces) else [count]
        values = np.concatenate([*(reader.push(piece) for piece in track.split(cuts)), reader.finish()])
        assert values.shape == (count, 2)
        if count:
            np.testing.assert_allclose(values, head(track[None]).frame[0].detach(), atol=1e-5)


def test_only_a_causal_head_can_be_carried() -> None:
    with pytest.raises(ConfigError, match=r"needs later frames.*head\.bidirectional=false"):
        track_reader(head_of(), Clip(length=16, hop=8, carry=True), CPU)


def test_memory_does_not_grow_with_the_stream_and_values_come_soon() -> None:
    average = OverlapAverage(lambda windows: windows[..., :2], 32, 16)
    given_out = held = 0
    for pushed in range(8, 8 * 2000, 8):
        given_out += len(average.push(torch.zeros(8, 4)))
        assert average._rows is not None
        held = max(held, average._rows.untyped_storage().nbytes() // 16)
        assert pushed - given_out <= 32 + 16 + 8
    assert held <= 3 * 32
    assert given_out + len(average.finish()) == 8 * 1999


lengths = st.lists(st.integers(0, 150), min_size=1, max_size=8)


@settings(deadline=None)
@given(counts=lengths, length=st.integers(1, 40), epoch=st.integers(0, 50), share=st.floats(0, 1))
def test_training_windows_hold_every_valid_row_and_no_window_is_without(
    counts: list[int], length: int, epoch: int, share: float
) -> None:
    rng = np.random.default_rng(epoch)
    valid = [rng.random(n) < share for n in counts]
    seen = [np.zeros(n, bool) for n in counts]
    for track, start in draw_windows(valid, length, 0, epoch):
        assert start >= 0
        assert start + length <= max(length, counts[track])
        assert valid[track][start : start + length].any()
        seen[track][start : start + length] = True
    assert all((rows | ~annotated).all() for rows, annotated in zip(seen, valid, strict=True))


def test_training_windows_follow_from_seed_and_epoch_and_change_with_both() -> None:
    valid = [np.ones(500, bool), np.ones(300, bool)]
    first = draw_windows(valid, 32, seed=1, epoch=1)
    assert np.array_equal(first, draw_windows(valid, 32, seed=1, epoch=1))
    assert not np.array_equal(first, draw_windows(valid, 32, seed=1, epoch=2))
    assert not np.array_equal(first, draw_windows(valid, 32, seed=2, epoch=1))


def test_every_part_of_an_epoch_holds_each_subject_in_proportion() -> None:
    windows = draw_windows([np.ones(32 * 300, bool), np.ones(32 * 100, bool)], 32, seed=0, epoch=3)
    for part in np.array_split(windows, 10):
        assert (part[:, 0] == 1).mean() == pytest.approx(0.25, abs=0.06)
