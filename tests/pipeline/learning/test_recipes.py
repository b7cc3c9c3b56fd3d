"""Folds, averages of several runs, and speed: what the recipes do to subjects, predictions and windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from affect.pipeline.errors import InputError
from affect.pipeline.inference.ensemble import AveragingReader
from affect.pipeline.learning.smoothing import Smoother, smooth
from affect.pipeline.learning.tracks import FeatureTracks, read_track
from affect.pipeline.learning.windows import OverlapAverage
from affect.pipeline.runs.splits import evaluated, split_by_fold
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SPLITS = {f"v{n}": "train" for n in range(12)} | {f"w{n}": "validation" for n in range(5)} | {"t": "test"}
SPLITS |= {"v3_left": "train", "v3_right": "validation", "w1_left": "validation"}
VIDEOS = {name: name.removesuffix("_left").removesuffix("_right") for name in SPLITS}


def test_in_five_folds_everybody_validates_once_and_videos_stay_together() -> None:
    held_out: list[str] = []
    for which in range(1, 6):
        dealt = split_by_fold(SPLITS, VIDEOS, f"{which}/5")
        assert dealt["t"] == "test"
        own = [name for name, split in dealt.items() if split == "validation"]
        assert 3 <= len({VIDEOS[name] for name in own}) <= 4
        assert not {VIDEOS[name] for name in own} & {VIDEOS[name] for name, split in dealt.items() if split == "train"}
        assert split_by_fold(dict(reversed(SPLITS.items())), VIDEOS, f"{which}/5") == dealt
        held_out += own
    assert sorted(held_out) == sorted(name for name in SPLITS if name != "t")


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "a/b", "-1/5", "2/5/6", "1/99"])
def test_an_impossible_fold_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--fold"):
        split_by_fold(SPLITS, VIDEOS, text)


def test_a_run_on_a_fold_is_evaluated_on_its_validation_subjects() -> None:
    run = {"fold": "1/5", "train": ["v1", "w2"], "validation": ["v2", "w1", "gone"]}
    assert evaluated(SPLITS, "validation", run) == ["v2", "w1"]
    assert evaluated(SPLITS, "train", run) == ["v1", "w2"]
    assert evaluated(SPLITS, "test", run) == ["t"]
    assert "v2" not in evaluated(SPLITS, "validation", {**run, "fold": None})


def reader(column: int, length: int, hop: int) -> OverlapAverage:
    return OverlapAverage(lambda windows: windows.cumsum(1)[..., [column, column]], length, hop)


@settings(deadline=None, max_examples=40)
@given(pieces=st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_several_readers_of_different_delay_give_the_mean_of_what_each_gives(pieces: list[int]) -> None:
    """A long window and a wide filter beside a short one: rows stay in step, and each comes once."""
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(sum(pieces), 4)).astype(np.float32))

    def parts() -> list[tuple[slice, OverlapAverage, Smoother]]:
        return [
            (slice(0, 2), reader(1, 24, 6), Smoother("gaussian", 9)),
            (slice(2, 4), reader(0, 5, 5), Smoother("none", 1)),
        ]

    both = AveragingReader(parts())
    pushed = [both.push(rows) for rows in features.split(pieces)] + [both.finish()]
    alone = []
    for (columns, own, _), width in zip(parts(), (9, 1), strict=True):
        values = np.concatenate((own.push(features[:, columns]), own.finish()))
        alone.append(smooth(values, "gaussian" if width > 1 else "none", width))
    np.testing.assert_allclose(np.concatenate(pushed), np.mean(alone, 0), atol=1e-5)


def test_rows_without_a_face_do_not_leak_into_their_neighbours() -> None:
    features = torch.zeros(30, 2)
    features[10:14] = 100
    seen = np.ones(30, bool)
    seen[10:14] = False
    one = AveragingReader([(slice(0, 2), OverlapAverage(lambda it: it[..., :2], 4, 4), Smoother("gaussian", 3))])
    values = np.concatenate((one.push(features, seen), one.finish()))
    assert not values[seen].any()


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A track that rises by one a row, in its features and in its labels."""
    n, path = 200, tmp_path_factory.mktemp("features") / "a.h5"
    steps = np.arange(n)
    with ShardWriter(path, FEATURES, "x", {}, "a") as writer:
        writer.append(
            feature=np.stack((steps, steps), 1).astype(np.float16), index=steps, pts=steps / 25, valid=steps % 7 > 0,
            target=np.stack((steps / n, -steps / n), 1).astype(np.float32),
        )  # fmt: skip
    return path


@pytest.mark.parametrize("memory", [None, 0])
def test_speed_plays_windows_faster_and_slower_with_their_labels(shard: Path, memory: int | None) -> None:
    tracks = FeatureTracks([read_track(shard)], torch.device("cpu"), memory=memory)
    rates: list[float] = []
    for epoch in range(6):
        for batch in tracks.batches(20, 2, 0, epoch, speed=0.5):
            for window, target, valid, present in zip(
                batch.features, batch.target, batch.valid, batch.present, strict=True
            ):
                rows = window[:, 0]
                assert present.all()
                assert _even(rows)
                assert torch.equal(valid, rows % 7 > 0)
                torch.testing.assert_close(target[:, 0], rows / 200, atol=1e-4, rtol=0)
                rates.append(float(rows[-1] - rows[0]) / 19)
    assert 0.66 <= min(rates) < 0.8
    assert 1.25 < max(rates) <= 1.5
    plain = next(iter(tracks.batches(20, 2, 0, 0)))
    assert (plain.features[:, 1:, 0] - plain.features[:, :-1, 0] == 1).all()


def _even(rows: Tensor) -> bool:
    steps = rows.diff()
    return bool((steps.max() - steps.min() <= 1) and (steps >= 0).all())
