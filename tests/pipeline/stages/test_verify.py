"""`affect verify` finds what is damaged, says what to do, and leaves the sound alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.cli import app
from affect.pipeline.records import Work
from affect.pipeline.storage.checkpoint import save_weights
from affect.pipeline.storage.jpeg import encode
from affect.pipeline.storage.shard import FEATURES, FRAMES
from affect.pipeline.storage.shard_writer import ShardWriter
from typer.testing import CliRunner, Result


def verify(work: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["verify", "--work", str(work), *more])


def frames(path: Path, numbers: list[int]) -> None:
    (jpeg,) = encode(np.full((1, 16, 16, 3), 99, np.uint8), 95)
    with ShardWriter(path, FRAMES, "f", {}, "v.mp4", {"lost": []}) as writer:
        n = len(numbers)
        writer.append(jpeg=np.tile(jpeg, n), offset=len(jpeg) * np.arange(n + 1), index=np.array(numbers))
        writer.append(pts=np.array(numbers) / 25)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with one of everything."""
    place = Work(tmp_path / "work")
    frames(place.frames("v"), [0, 1, 2])
    with ShardWriter(place.features("v"), FEATURES, "f", {}, "v", {}) as writer:
        writer.append(index=np.arange(3), pts=np.arange(3) / 25, feature=np.zeros((3, 8), np.float16))
    save_weights(place.weights("stn"), {"w": torch.arange(6.0)}, {"format": "affect-stn"})
    run = place.run("default")
    described = {
        "format": "affect-model", "fingerprint": "f", "encoder": "e", "config": {}, "clip": {"length": 8},
        "backbone": {"classes": []},
    }  # fmt: skip
    save_weights(run / "model.safetensors", {"w": torch.arange(6.0)}, described)
    (run / "run.json").write_text('{"run": "default"}')
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    return place.root


def flip(path: Path, place: int = -9) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_verify_leaves_an_intact_folder_unchanged(work: Path) -> None:
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    result = verify(work)
    assert (result.exit_code, result.stdout) == (0, "")
    assert {
        path: path.read_bytes() for path in work.rglob("*") if path.is_file() and path.name != "config.yaml"
    } == before


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("frames/v.h5", flip, "affect extract-frames"),
    ("frames/v.h5", lambda path: frames(path, [0, 2, 1]), "affect extract-frames"),
    ("features/v.h5", lambda path: path.write_bytes(path.read_bytes()[:-1]), "affect cache-features"),
    ("features/v.h5", lambda path: path.write_bytes(b""), "affect cache-features"),
    ("weights/stn.safetensors", flip, "run the stage"),
    ("train/default/model.safetensors", flip, "run the stage"),
    ("train/default/run.json", lambda path: path.write_text("{"), "affect train"),
    ("train/default/metrics.jsonl", lambda path: path.write_text("{}\n{\n"), "stage"),
    ("audit.json", lambda path: path.write_text("[]"), "affect audit"),
]


@pytest.mark.parametrize(("name", "damage", "remedy"), DAMAGE)
def test_each_fault_is_named_with_its_remedy(
    work: Path, name: str, damage: Callable[[Path], object], remedy: str
) -> None:
    damage(work / name)
    result = verify(work)
    assert result.exit_code == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("  damaged")]
    assert line.startswith(f"  damaged  {name}: ")
    assert remedy in line
    (listed,) = json.loads((work / "failures.json").read_text())["verify"]
    assert listed["name"] == name


def test_remove_deletes_damaged_files_and_the_folder_is_then_valid(work: Path) -> None:
    for name in ("frames/v.h5", "weights/stn.safetensors"):
        flip(work / name)
    assert verify(work, "--remove").exit_code == 3
    assert not (work / "frames" / "v.h5").exists()
    assert not (work / "weights" / "stn.safetensors").exists()
    assert (work / "features" / "v.h5").exists()
    assert verify(work).exit_code == 0
    assert not (work / "failures.json").exists()
