"""Weights are written atomically, and damage is detected."""

import json
import struct
from pathlib import Path

import pytest
import torch
from affect.pipeline.errors import WeightsError, WorkError
from affect.pipeline.storage.checkpoint import load_weights, read_metadata, save_weights
from affect.pipeline.storage.fingerprint import content_digest
from affect.tests.child import output
from affect.tests.programs.libraries import read_metadata as read_metadata_alone
from safetensors.torch import save_file
from torch import Tensor

METADATA = {"format": "affect-test", "report": {"iou": 0.91, "auroc": None}, "classes": ["a", "ü"]}


def state() -> dict[str, Tensor]:
    shared = torch.arange(6.0)
    return {
        "a": torch.randn(3, 4).t(),
        "b": torch.tensor(7),
        "c": torch.randn(2).to(torch.bfloat16),
        "one": shared,
        "same": shared,
        "part": shared[2:4],
        "none": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_weights(tmp_path / "weights" / "x.safetensors", state(), METADATA)
    return tmp_path / "weights" / "x.safetensors"


def test_saved_weights_are_loaded_unchanged(tmp_path: Path) -> None:
    path, saved = tmp_path / "new" / "folder" / "x.safetensors", state()
    save_weights(path, saved, METADATA)
    loaded, metadata = load_weights(path)
    assert metadata == METADATA == read_metadata(path)
    assert loaded.keys() == saved.keys()
    for name, tensor in saved.items():
        torch.testing.assert_close(loaded[name], tensor.detach(), rtol=0, atol=0)
        assert loaded[name].dtype == tensor.dtype
    assert [entry.name for entry in path.parent.iterdir()] == ["x.safetensors"]


def test_changed_metadata_is_detected(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.91", b"0.99"))
    with pytest.raises(WeightsError, match="checksum"):
        load_weights(path)


def test_a_later_save_replaces_the_file(path: Path) -> None:
    save_weights(path, {"a": torch.zeros(1)}, {"n": 2})
    loaded, metadata = load_weights(path)
    assert (list(loaded), metadata) == (["a"], {"n": 2})


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    """Digests of weights are part of fingerprints, so the bytes must not depend on the order of keys."""
    saved = state()
    for name, order in (("x", 1), ("y", -1)):
        save_weights(tmp_path / name, dict(list(saved.items())[::order]), dict(list(METADATA.items())[::order]))
    assert content_digest(tmp_path / "x") == content_digest(tmp_path / "y")


@pytest.mark.parametrize("at", [0.0, 0.02, 0.3, 0.7, 0.9999])
def test_a_changed_byte_is_detected(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x41
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize("length", [0, 4, 100, -1, -8])
def test_a_truncated_file_is_detected(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(path)
    with pytest.raises(WeightsError, match="is damaged"):
        read_metadata(path)


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="not written by affect"):
        load_weights(tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        read_metadata(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WeightsError, match="is damaged"):
        read_metadata(tmp_path / "text")


@pytest.mark.parametrize("entry", ["nothing", "{}", '{"metadata": 1, "sha256": ""}', "[]"])
def test_an_invalid_header_is_refused(tmp_path: Path, entry: str) -> None:
    header = json.dumps({"__metadata__": {"affect": entry}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(WeightsError, match="is damaged"):
        read_metadata(tmp_path / "x")


def test_metadata_is_read_without_torch(path: Path) -> None:
    kind, libraries = output(read_metadata_alone, path).splitlines()
    assert kind == METADATA["format"]
    assert "torch" not in libraries.split()


def test_a_failed_write_raises_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkError, match="cannot be written"):
        save_weights(tmp_path / "file" / "x.safetensors", state(), {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(WorkError, match="cannot be written"):
        save_weights(tmp_path / "folder", state(), {})
    with pytest.raises(ValueError, match="JSON"):
        save_weights(tmp_path / "x", state(), {"iou": float("nan")})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
