"""Files are written atomically with the mode of new files, and leftovers of killed processes are removed."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.pipeline.api.trace import Trace
from affect.pipeline.errors import WorkError
from affect.pipeline.ingest.boxes import write_boxes
from affect.pipeline.records import Boxes
from affect.pipeline.storage.atomic import leftovers, replacing, sweep, temp_path, temporary_folder, write_text
from affect.pipeline.storage.checkpoint import save_weights
from affect.pipeline.storage.corruption import mark_corrupt
from affect.pipeline.storage.shard import FRAMES
from affect.pipeline.storage.shard_writer import ShardWriter
from affect.pipeline.visualization.mp4 import Mp4
from affect.pipeline.visualization.style import LIGHT, drawing, save
from affect.tests.child import command
from affect.tests.programs.storage import write_until_killed


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_writer_creates_files_with_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    out = tmp_path / "made"
    save_weights(out / "weights.safetensors", {"x": torch.zeros(2)}, {})
    write_text(out / "text.json", "{}")
    write_boxes(out / "boxes.csv", Boxes(np.array([0]), np.array([[0, 0, 1, 1]], np.float32)))
    with ShardWriter(out / "shard.h5", FRAMES, "f", {}, "s") as writer:
        writer.append(index=np.arange(3))
    mark_corrupt(out / "shard.h5", "1 2")
    single = np.ones(3, np.float32)
    trace = Trace(
        "x", out, np.arange(3), np.arange(3) / 25, single, np.ones(3, bool), np.zeros(3), np.zeros(3),
        np.ones((3, 4), np.float32),
    )  # fmt: skip
    for ending in ("csv", "json", "parquet"):
        trace.save(out / f"table.{ending}")
    with drawing(LIGHT, 2, 2) as figure:
        save(figure, out / "figure.png", 50)
    with Mp4(out / "film.mp4", 64, 64, 25) as mp4:
        mp4.add(np.zeros((64, 64, 3), np.uint8), 0.0)
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in out.iterdir()}
    assert len(modes) == 10
    assert modes == dict.fromkeys(modes, oct(0o666 & ~umask))
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        temporary.write_text((tmp_path / "missing").read_text())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder in which a process was killed while it wrote x.txt and a temporary folder."""
    with subprocess.Popen(
        command(write_until_killed, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"writing\n"
        assert not leftovers(tmp_path), "its process still runs"
        process.kill()
    assert len(names(tmp_path)) == 2
    return tmp_path


def test_the_next_write_to_a_folder_removes_files_of_a_killed_process(killed: Path) -> None:
    assert len(leftovers(killed)) == 2
    write_text(killed / "another.txt", "whole")
    assert names(killed) == ["another.txt"]


def test_temporary_files_of_earlier_versions_are_removed(tmp_path: Path, ended_process: int) -> None:
    kept = [f".a.h5.{os.getpid()}.tmp", ".x.part"]
    for name in (f".config.yaml.{ended_process}.part", f".audit.{ended_process}.tmp", *kept):
        (tmp_path / name).touch()
    assert sweep(tmp_path) == 2
    assert names(tmp_path) == sorted(kept)


def test_temporary_files_of_another_host_are_kept_for_a_day(tmp_path: Path, ended_process: int) -> None:
    fresh, old = (tmp_path / f".{name}.h5.0123abcd.{ended_process}.tmp" for name in ("fresh", "old"))
    fresh.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert sweep(tmp_path) == 1
    assert names(tmp_path) == [fresh.name]


@pytest.mark.parametrize("letter", ["x", "ü", "한"])
def test_files_with_the_longest_names_are_written(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (251 // len(letter.encode())) + ".txt")
    write_text(path, "whole")
    assert path.read_text() == "whole"
    twin = path.with_name(path.name[:-5] + "z.txt")
    assert temp_path(path) != temp_path(twin)


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    write_text(pipe, "whole")
    assert reader.communicate()[0] == "whole"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_names_that_are_not_utf8_are_restored_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    write_text(tmp_path / "x.json", json.dumps([name], ensure_ascii=False))
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == [name]


def test_the_remedy_matches_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(WorkError) as caught:
            write_text(path, "", "another --out")
        assert caught.value.remedy == "Choose another --out."
    assert names(tmp_path) == ["file", "folder"]


def test_a_temporary_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "out", "export") as folder:
        (folder / "model.onnx").touch()
    assert not list((tmp_path / "out").iterdir())
