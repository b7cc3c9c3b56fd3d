"""Windows of cached features hold what the shards hold, wherever the features lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from affect.pipeline.errors import ShardError
from affect.pipeline.learning.tracks import Batch, FeatureTracks, read_track
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter

CPU = torch.device("cpu")
WIDTH = 6


def write(path: Path, n: int, *, views: int = 1, seed: int = 0, order: slice = slice(None), width: int = WIDTH) -> Path:
    """A shard whose features say which row and view they are: feature 0 is the row, feature 1 the view."""
    rng = np.random.default_rng(seed)
    index = np.arange(3, 3 + 2 * n, 2)[order]
    arrays = {
        "index": index, "pts": index / 25, "target": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "valid": rng.random(n) < 0.7,
    }  # fmt: skip
    for view in range(views):
        feature = rng.normal(size=(n, width))
        feature[:, 0], feature[:, 1], feature[:, 2] = np.arange(n), view, seed
        arrays["feature" + (f"_{view}" if view else "")] = feature.astype(np.float16)
    with ShardWriter(path, FEATURES, "x", {}, path.stem) as writer:
        writer.append(**arrays)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("features")
    return [write(folder / f"{name}.h5", n, views=2, seed=n) for name, n in (("a", 70), ("b", 9), ("c", 33), ("d", 1))]


def tracks_of(paths: list[Path], memory: int | None = None) -> FeatureTracks:
    return FeatureTracks([read_track(path) for path in paths], CPU, memory=memory)


def test_memory_and_disk_give_the_same_batches(shards: list[Path]) -> None:
    held, read = (list(tracks_of(shards, memory).batches(16, 3, seed=0, epoch=2)) for memory in (None, 0))
    assert len(held) == len(read) == 3
    for one, other in zip(held, read, strict=True):
        for name in ("target", "present", "valid"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.features[one.present], other.features[other.present])


@pytest.mark.parametrize("memory", [None, 0])
def test_each_row_of_a_batch_is_a_row_of_its_shard(shards: list[Path], memory: int | None) -> None:
    tracks = tracks_of(shards, memory)
    by_seed = {len(track): number for number, track in enumerate(tracks.tracks)}
    views = set()
    for batch in tracks.batches(16, 3, seed=0, epoch=1):
        assert batch.features.dtype == torch.float32
        for features, target, present, valid in zip(
            batch.features, batch.target, batch.present, batch.valid, strict=True
        ):
            n = int(present.sum())
            track = by_seed[int(features[0, 2])]
            start = int(features[0, 0])
            assert present[:n].all()
            known = tracks.tracks[track]
            assert n == min(16, len(known) - start)
            assert np.array_equal(target[:n], known.target[start : start + n])
            assert np.array_equal(valid[:n], known.valid[start : start + n])
            assert not valid[n:].any()
            view = int(features[0, 1])
            views.add(view)
            assert torch.equal(features[:n].half(), tracks.features(track, start, start + n, view))
    assert views == {0, 1}


def test_an_epoch_has_the_requested_number_of_batches_of_even_size(shards: list[Path]) -> None:
    sizes = [len(batch.features) for batch in tracks_of(shards).batches(8, 4, seed=0, epoch=5)]
    assert len(sizes) == 4
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("memory", [None, 0])
def test_statistics_are_those_of_all_frames(shards: list[Path], memory: int | None) -> None:
    tracks = tracks_of(shards, memory)
    every = np.concatenate([tracks.features(number).numpy() for number in range(4)]).astype(np.float64)
    mean, spread = tracks.statistics()
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(spread, every.std(0), rtol=1e-5, atol=1e-6)


def test_statistics_of_a_long_set_are_of_frames_from_all_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affect.pipeline.learning.tracks.MAX_STATISTICS_FRAMES", 80)
    monkeypatch.setattr("affect.pipeline.learning.tracks.STRIDE", 4)
    tracks = tracks_of([write(tmp_path / f"{n}.h5", n, seed=n) for n in (400, 200)], memory=0)
    row, _, owner = tracks.statistics()[0][:3].tolist()
    # Feature 0 is the row, feature 2 the number of rows of the track.
    assert row == pytest.approx((400 * 199.5 + 200 * 99.5) / 600, rel=0.05)
    assert owner == pytest.approx((400 * 400 + 200 * 200) / 600, rel=0.05)
    assert row != pytest.approx((400 * 199.5 + 200 * 99.5) / 600, rel=1e-6)


def test_views_that_not_all_shards_have_are_left_out(shards: list[Path], tmp_path: Path) -> None:
    assert tracks_of([*shards, write(tmp_path / "plain.h5", 5)]).views == 1


def test_frames_out_of_order_and_widths_that_differ_are_errors(tmp_path: Path, shards: list[Path]) -> None:
    with pytest.raises(ShardError, match="time order"):
        read_track(write(tmp_path / "back.h5", 8, order=slice(None, None, -1)))
    with pytest.raises(ShardError, match="one width"):
        tracks_of([*shards, write(tmp_path / "wide.h5", 8, width=7)])


def test_a_batch_is_float32_whatever_the_shard(shards: list[Path]) -> None:
    batch = next(iter(tracks_of(shards).batches(8, 2, seed=0, epoch=1)))
    assert isinstance(batch, Batch)
    assert {batch.features.dtype, batch.target.dtype} == {torch.float32}
