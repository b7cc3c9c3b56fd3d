"""Shards are written atomically, have a fingerprint, and their damage is detected."""

import contextlib
import json
import os
import resource
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from affect.pipeline.errors import ShardError, WorkError
from affect.pipeline.storage import jpeg
from affect.pipeline.storage.atomic import sweep
from affect.pipeline.storage.shard import FEATURES, FRAMES, VERSION, FrameShard, Shard, is_fresh, read_rows
from affect.pipeline.storage.shard_writer import ShardWriter
from affect.tests.child import run
from affect.tests.programs.storage import fill_shard
from hypothesis import given, settings
from hypothesis import strategies as st


def write_features(path: Path, rows: int = 200, batch: int = 48, **changed: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    arrays: dict[str, np.ndarray] = {
        "feature": rng.normal(size=(rows, 2048)).astype(np.float16),
        "theta": rng.normal(size=(rows, 2, 3)).astype(np.float32),
        "index": np.arange(rows),
        "valid": rng.random(rows) < 0.5,
    }
    parts = {"fingerprint": "f1", "settings": {"size": 3}, "source": "v.mp4", "attributes": {"width": 640}, **changed}
    with ShardWriter(path, FEATURES, **parts) as writer:  # type: ignore[arg-type]
        for start in range(0, rows, batch):
            writer.append(**{name: array[start : start + batch] for name, array in arrays.items()})
    return arrays


def write_frames(path: Path, pictures: np.ndarray, quality: int = 95) -> None:
    with ShardWriter(path, FRAMES, "f1", {}, "v.mp4") as writer:
        writer.append(offset=np.zeros(1, np.int64))
        end = 0
        for number, picture in enumerate(pictures):
            (coded,) = jpeg.encode(picture[None], quality)
            end += len(coded)
            writer.append(jpeg=coded, offset=np.array([end]), index=np.array([number]), pts=np.array([number / 25]))


def text(file: h5py.File, name: str) -> str:
    value = file.attrs[name]
    assert isinstance(value, bytes)
    return value.decode()


@pytest.fixture
def pictures() -> np.ndarray:
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    flat = np.stack(np.meshgrid(ramp, ramp), -1)
    return np.stack([np.dstack([flat, np.full((48, 48), 9 * number, np.uint8)]) for number in range(20)])


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 200), batch=st.integers(1, 200), start=st.integers(0, 200), stop=st.integers(0, 200))
def test_written_rows_are_read_unchanged(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, start: int, stop: int
) -> None:
    path = tmp_path_factory.mktemp("w") / "deep" / "s.h5"
    arrays = write_features(path, rows, batch)
    with Shard(path, FEATURES) as shard:
        assert (len(shard), shard.fingerprint, shard.source) == (rows, "f1", "v.mp4")
        assert (shard.settings, shard.attributes) == ({"size": 3}, {"width": 640})
        assert set(shard.names) == set(arrays)
        for name, array in arrays.items():
            read = shard.read(name, start, stop)
            assert read.dtype == array.dtype
            np.testing.assert_array_equal(read, array[start:stop])
        shard.verify()


def test_every_dataset_is_chunked_with_checksums(tmp_path: Path) -> None:
    write_features(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert all(data.fletcher32 and data.chunks for data in file.values())
        assert tuple(file["feature"].chunks) == (64, 2048)  # type: ignore[union-attr]
        assert json.loads(text(file, "settings")) == {"size": 3}
        assert [text(file, name) for name in ("format", "source")] == [FEATURES, "v.mp4"]
        assert file.attrs["version"] == VERSION


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        write_features(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_attributes_can_be_long_and_set_late(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "s.h5", FEATURES, "f", {}, "ü.mp4") as writer:
        writer.append(index=np.arange(3))
        writer.attributes["lost"] = list(range(50_000))
        writer.attributes["name"] = "ünï — ∞"
    with Shard(tmp_path / "s.h5", FEATURES) as shard:
        assert shard.attributes == {"lost": list(range(50_000)), "name": "ünï — ∞"}
        assert shard.source == "ü.mp4"


def test_frames_are_returned_in_the_requested_order(tmp_path: Path, pictures: np.ndarray) -> None:
    write_frames(tmp_path / "v.h5", pictures)
    with FrameShard(tmp_path / "v.h5") as shard:
        assert len(shard) == 20
        frames = shard.frames([7, 3, 3, 19, 0, 8])
        assert frames.shape == (6, 3, 48, 48)
        expected = pictures[[7, 3, 3, 19, 0, 8]].transpose(0, 3, 1, 2).astype(int)
        assert np.abs(frames.numpy() - expected).max() <= 6
        assert len(shard.frames([])) == 0
        with pytest.raises(IndexError, match=r"v\.h5: positions 0\.\.20, the shard has 20"):
            shard.frames([0, 20])


def test_jpeg_keeps_the_channel_order(pictures: np.ndarray) -> None:
    picture = np.zeros((1, 16, 16, 3), np.uint8)
    picture[..., 0] = 250
    (coded,) = jpeg.encode(picture, 100)
    np.testing.assert_allclose(jpeg.decode([coded])[0].numpy().mean((1, 2)), [250, 0, 0], atol=2)


def test_bytes_that_are_not_a_jpeg_are_damage(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "v.h5", FRAMES, "f1", {}, "v.mp4") as writer:
        writer.append(jpeg=np.arange(100, dtype=np.uint8), offset=np.array([0, 100]), index=np.array([0]))
    with FrameShard(tmp_path / "v.h5") as shard, pytest.raises(ShardError, match="100 bytes are not a JPEG"):
        shard.frames([0])


def test_a_shard_is_fresh_only_with_the_right_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    assert not is_fresh(path, FEATURES, "f1")
    write_features(path)
    assert is_fresh(path, FEATURES, "f1")
    assert not is_fresh(path, FEATURES, "f2")
    assert not is_fresh(path, FRAMES, "f1")
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_fresh(path, FEATURES, "f1")
    path.write_bytes(b"")
    assert not is_fresh(path, FEATURES, "f1")


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (60, 70), (190, 300), (200, 201), (7, 7)])
def test_read_rows_returns_the_same_rows_as_shard(tmp_path: Path, start: int, stop: int) -> None:
    arrays = write_features(tmp_path / "a.h5")
    for name in ("feature", "theta", "index"):
        rows = read_rows(tmp_path / "a.h5", name, start, stop)
        assert rows.dtype == arrays[name].dtype
        np.testing.assert_array_equal(rows, arrays[name][start:stop])


def test_read_rows_detects_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_features(path)
    with h5py.File(path) as file:
        place = file["feature"].id.get_chunk_info(1).byte_offset + 1000
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"is damaged.*cache-features"):
        read_rows(path, "feature", 60, 70)
    read_rows(path, "feature", 0, 10)
    assert not is_fresh(path, FEATURES, "f1"), "its stage makes it again"
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["feature"] = h5py.ExternalLink(str(path), "feature")
    for name in ("nothing", "feature"):
        with pytest.raises(ShardError, match="is damaged"):
            read_rows(tmp_path / "link.h5", name, 0, 1)
    with pytest.raises(ShardError, match="is damaged"):
        read_rows(tmp_path / "gone.h5", "feature", 0, 1)


def test_a_flipped_bit_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    arrays = write_features(path)
    data = bytearray(path.read_bytes())
    place = data.find(arrays["feature"][100, :32].tobytes())
    assert place > 0
    data[place] ^= 4
    path.write_bytes(data)
    with Shard(path, FEATURES) as shard:
        shard.read("feature", 0, 64)
        with pytest.raises(ShardError, match=r"s\.h5: is damaged .* Run `affect cache-features` to make it again"):
            shard.read("feature", 64, 128)
        with pytest.raises(ShardError):
            shard.verify()


@pytest.mark.parametrize("keep", [0, 7, 500, 0.3, 0.9])
def test_a_truncated_file_is_damaged(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "s.h5"
    write_features(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(ShardError, match="is damaged"):
        Shard(path, FEATURES)


def test_missing_shards_and_shards_of_another_format_are_refused(tmp_path: Path) -> None:
    write_features(tmp_path / "s.h5")
    with pytest.raises(ShardError, match=r"is affect-features version 2, expected affect-frames version 2"):
        FrameShard(tmp_path / "s.h5")
    with pytest.raises(ShardError, match=r"does not exist. Run `affect extract-frames` first"):
        FrameShard(tmp_path / "t.h5")
    with Shard(tmp_path / "s.h5", FEATURES) as shard, pytest.raises(ShardError, match="is damaged"):
        shard.read("nothing")
    with h5py.File(tmp_path / "u.h5", "w"):
        pass
    with pytest.raises(ShardError, match="is damaged"):
        Shard(tmp_path / "u.h5", FEATURES)


def test_a_shard_of_an_older_version_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.attrs.update({"format": FEATURES, "version": 1, "fingerprint": "f", "source": "v"})
        file.attrs.update({"settings": "{}", "attributes": "{}"})
    with pytest.raises(ShardError, match="is affect-features version 1, expected affect-features version 2"):
        Shard(tmp_path / "s.h5", FEATURES)
    assert not is_fresh(tmp_path / "s.h5", FEATURES, "f")


@pytest.mark.parametrize("kind", ["link", "outside", "virtual", "unsummed"])
def test_datasets_in_other_files_are_not_read(tmp_path: Path, kind: str) -> None:
    path, secret = tmp_path / "s.h5", tmp_path / "secret"
    write_features(path, 8)
    secret.write_bytes(bytes(range(80)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(8)
    with h5py.File(path, "r+") as file:
        del file["valid"]
        match kind:
            case "link":
                file["valid"] = h5py.ExternalLink("other.h5", "x")
            case "outside":
                file.create_dataset("valid", (8,), "u1", external=[(str(secret), 0, 8)])
            case "virtual":
                layout = h5py.VirtualLayout((8,), "i8")
                layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (8,))
                file.create_virtual_dataset("valid", layout)
            case _:
                file.create_dataset("valid", (8,), "u1", chunks=(8,))
    with Shard(path, FEATURES) as shard, pytest.raises(ShardError, match="valid is not a chunked dataset"):
        shard.read("valid")


def test_verify_detects_any_change_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_features(path, 8)
    whole = path.read_bytes()
    assert whole.startswith(b"affect shard, sealed by sha256 ")
    for changed in (whole + b"\0", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], whole[:511] + b"x" + whole[512:]):
        path.write_bytes(changed)
        with pytest.raises(ShardError, match="is damaged"), Shard(path, FEATURES) as shard:
            shard.verify()


def test_a_failed_write_keeps_the_old_shard(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_features(path)
    before = path.read_bytes()
    with contextlib.suppress(KeyboardInterrupt), ShardWriter(path, FEATURES, "f2", {}, "v") as writer:
        writer.append(index=np.arange(9))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["s.h5"]


def test_rows_with_another_shape_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "s.h5", FEATURES, "f", {}, "v") as writer:
        writer.append(index=np.arange(3), theta=np.zeros((3, 2, 3), np.float32))
        with pytest.raises(ValueError, match=r"index: rows are float64 \(\), expected int64"):
            writer.append(index=np.arange(3) / 2)
        with pytest.raises(ValueError, match=r"theta: rows are float32 \(6,\), expected float32 \(2, 3\)"):
            writer.append(theta=np.zeros((3, 6), np.float32))


def test_a_shard_without_an_index_is_not_written(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkError, match="the written file cannot be read"),
        ShardWriter(tmp_path / "s.h5", FEATURES, "f", {}, "v") as writer,
    ):
        writer.append(feature=np.zeros((3, 2)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [1_000, 700_000, 12_000_000])
def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path, room: int) -> None:
    path = tmp_path / "s.h5"
    done = run(fill_shard, path, room)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{path}: cannot be written (")
    assert "Free space, or choose another --work" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"file/s\.h5: cannot be written"):
        write_features(tmp_path / "file" / "s.h5")


def test_memory_does_not_grow_with_the_length_of_a_shard(tmp_path: Path) -> None:
    def peak(batches: int) -> int:
        tracemalloc.start()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with ShardWriter(tmp_path / "s.h5", FEATURES, "f", {}, "v") as writer:
            for _ in range(batches):
                writer.append(feature=np.ones((64, 2048), np.float16), index=np.arange(64))
        tracemalloc.stop()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    peak(20)
    assert peak(600) < 40 << 10  # KiB; the shard has 150 MiB


def test_temporary_files_of_ended_processes_are_removed(tmp_path: Path, ended_process: int) -> None:
    kept = [f".a.h5.{os.getpid()}.tmp", ".a.h5.tmp", "a.h5", f"a.{ended_process}.tmp"]
    for name in [f".a.h5.{ended_process}.tmp", *kept]:
        (tmp_path / name).write_text("")
    assert sweep(tmp_path) == 1
    assert {item.name for item in tmp_path.iterdir()} == set(kept)
    assert sweep(tmp_path / "none") == 0
