"""The base model: used where no model is named, small, and close to its full-precision weights."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import affect
import numpy as np
import pytest
import torch
from affect.configs.schema import load
from affect.models.backbone import scratch
from affect.pipeline.features.encoder import build_backbone, build_stn
from affect.pipeline.inference.load import named_or_base
from affect.pipeline.learning.model_file import load_model, read_model_info, save_model
from affect.pipeline.records import BASE_MODEL


def test_it_is_small_and_says_what_it_is() -> None:
    assert BASE_MODEL.stat().st_size < 30e6
    info = read_model_info(BASE_MODEL)
    assert "FER+" in info.notice
    assert info.localiser == "stn"
    assert len(info.classes) == 8
    assert (BASE_MODEL.parent / "README.md").read_text(encoding="utf-8").count("base.safetensors")


def test_predict_without_a_model_uses_it_and_says_so_once(
    write_video: Callable[[Path, int], Path], tmp_path: Path, full_resnet: None
) -> None:
    videos = [str(write_video(tmp_path / f"{name}.mp4", 12)) for name in "ab"]
    command = [sys.executable, "-m", "affect", "predict", *videos, "--out", str(tmp_path / "out"), "--no-plot"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    notice = read_model_info(BASE_MODEL).notice
    assert "".join((done.stderr + done.stdout).split()).count("".join(notice.split())) == 1
    assert len((tmp_path / "out" / "a.csv").read_text().splitlines()) == 13


def test_a_file_named_base_comes_before_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_or_base(Path("base")) == BASE_MODEL
    (tmp_path / "base").mkdir()
    assert named_or_base(Path("base")) == Path("base")


def test_int8_weights_give_the_values_of_full_weights(tiny_run: Callable[..., Path], tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", backbone=scratch(seed=3))
    net, info = load_model(run)
    save_model(
        tmp_path / "small.safetensors", net, fingerprint="f", encoder="e",
        config=info.config.model_dump(mode="json"), int8=True,
    )  # fmt: skip
    small, _ = load_model(tmp_path / "small.safetensors")
    frames = torch.randint(0, 256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        full, other = (it.backbone.features(it.stn(frames).crop) for it in (net, small))
        values, others = (it.head(features[None]).frame for it, features in ((net, full), (small, other)))
    assert float((full - other).abs().mean() / full.abs().mean()) < 0.02
    assert float((values - others).abs().max()) < 0.02


def test_its_parts_can_be_named_as_weights(full_resnet: None) -> None:
    config = load("base")
    assert build_stn(config, BASE_MODEL).view == config.stn.view
    assert build_backbone(BASE_MODEL, 0).classes == load_model(BASE_MODEL)[0].backbone.classes


@pytest.mark.slow
def test_a_woman_from_tears_to_laughter(real: Path, full_resnet: None) -> None:
    """Valence is negative while she weeps and positive while she laughs."""
    trace = affect.load().predict(real / "tears-to-laughter.mp4")
    weeps, laughs = trace.valence[trace.time < 9], trace.valence[trace.time > 11]
    assert np.mean(weeps) < -0.1
    assert np.mean(laughs) > 0.5
    assert trace.arousal[trace.time > 11].mean() > trace.arousal[trace.time < 9].mean() + 0.3
