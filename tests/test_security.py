"""Untrusted files and names run no code, write to no other folder, and use no more memory than exists."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affect.cli import app
from affect.configs.schema import load
from affect.models.backbone import load_ferplus_dag
from affect.pipeline.errors import AffectError, ConfigError, InputError, WeightsError
from affect.pipeline.features.crops import read_crops
from affect.pipeline.ingest.catalog import find_catalog
from affect.pipeline.learning.model_file import load_model
from affect.pipeline.records import Work, is_name
from affect.pipeline.storage.checkpoint import load_weights, save_weights
from safetensors.torch import save_file
from typer.testing import CliRunner


class MaliciousPickle:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_a_model_file_runs_no_code(tmp_path: Path, kind: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "resnet50_ferplus_dag.pth"
    if kind == "zip":
        torch.save({"conv1": MaliciousPickle(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1": MaliciousPickle(mark)}, protocol=2))
    with pytest.raises(WeightsError):
        load_ferplus_dag(path)
    for name in ("model.safetensors", "x.safetensors"):
        (tmp_path / name).write_bytes(path.read_bytes())
        with pytest.raises(WeightsError):
            load_weights(tmp_path / name)
    assert not mark.exists()


def test_a_deeply_nested_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"affect": "[" * 100_000})
    with pytest.raises(WeightsError, match="is damaged"):
        load_weights(path)


@pytest.mark.parametrize("size", [{"hidden": 10**9}, {"layers": 10**9}, {"project": 10**12}, {"dense": [10**11]}])
def test_a_model_that_claims_to_be_huge_takes_no_memory(tmp_path: Path, size: dict[str, Any]) -> None:
    head = {"features": 8, "project": 4, "hidden": 4, "layers": 1, "dense": [4], "bidirectional": True}
    metadata = {
        "format": "affect-model", "fingerprint": "f", "encoder": "e", "config": {}, "clip": {"length": 8}, "stn": {},
        "backbone": {"classes": []},
        "head": {**head, "dropout": 0.0, "readout": "frame", **size},
    }  # fmt: skip
    save_weights(tmp_path / "model.safetensors", {"w": torch.zeros(100)}, metadata)
    with pytest.raises(WeightsError, match="but the file has 100 weights"):
        load_model(tmp_path)


def test_a_config_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (tmp_path / "laughs.yaml").write_text("a0: &a0 [x]\n" + levels)
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    (tmp_path / "code.yaml").write_text(f"name: !!python/object/apply:os.mkdir [{tmp_path / 'ran'}]\n")
    for name in ("laughs", "deep", "code"):
        with pytest.raises(ConfigError, match="not valid YAML"):
            load(str(tmp_path / f"{name}.yaml"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["../x", "../../x", "/tmp/x", "a/b", "..", ".", "", ".hidden", "a\nb", "a\x00", "x" * 101]
)
def test_a_run_name_must_not_be_a_path(tmp_path: Path, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="is not a valid name of a run"):
        Work(tmp_path).run(name)
    for command in ("train", "evaluate", "all"):
        arguments = [command, "--data", str(tmp_path), "--work", str(tmp_path), f"--run={name}"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mred", "a\u202egpj", os.fsdecode(b"a\xff")])
def test_an_unprintable_name_is_refused_and_the_others_are_used(tmp_path: Path, name: str) -> None:
    labels = tmp_path / "VA_Set" / "Train_Set"
    labels.mkdir(parents=True)
    for stem in (name, "good one (2) – ü"):
        (tmp_path / f"{stem}.mp4").write_bytes(b"x")
        (labels / f"{stem}.txt").write_text("valence,arousal\n0,0\n")
    catalog = find_catalog(tmp_path)
    assert [subject.name for subject in catalog.subjects] == ["good one (2) – ü"]
    refused = [problem for problem in catalog.problems if problem.kind == "refused"]
    assert len(refused) == 2
    json.dumps([str(problem) for problem in refused], ensure_ascii=False).encode()
    assert all(problem.name.isprintable() and problem.remedy for problem in refused)


def test_pictures_that_claim_to_be_huge_are_refused(tmp_path: Path) -> None:
    import cv2

    sound = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    place = sound.index(b"\xff\xc0") + 5
    bomb = tmp_path / "00001.jpg"
    bomb.write_bytes(sound[:place] + struct.pack(">HH", 60_000, 60_000) + sound[place + 4 :])
    large = tmp_path / "00002.jpg"
    with large.open("wb") as file:
        file.truncate(1 << 25)
    for path in (bomb, large):
        with pytest.raises(InputError, match=path.name):
            read_crops([path], 32)


def test_the_state_of_a_stopped_training_runs_no_code(tmp_path: Path) -> None:
    from affect.pipeline.learning.run_state import RunState, load_state
    from affect.pipeline.progress import Reporter

    model = torch.nn.Linear(2, 2)
    run = RunState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    mark = tmp_path / "ran"
    torch.save({"key": "k", "model": MaliciousPickle(mark)}, tmp_path / "state.pt")
    assert not load_state(tmp_path / "state.pt", "k", run, torch.device("cpu"), Reporter(quiet=True))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("x", "y")
    assert not load_state(tmp_path / "zip.pt", "k", run, torch.device("cpu"), Reporter(quiet=True))
    assert not mark.exists()


def test_every_error_of_affect_has_a_remedy() -> None:
    assert str(AffectError("it broke", "Mend it.")) == "it broke. Mend it."
