"""An export is held to its model before it is there, says what it is, and is kept while nothing changed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import InputError, MissingStageError
from affect.pipeline.learning.model_file import NAME, load_model, read_model_info, save_model
from affect.pipeline.progress import Reporter
from affect.pipeline.runs.model_card import card_facts, model_card
from affect.pipeline.stages.export import export

QUIET = Reporter(quiet=True)
CONFIG = load(
    "demo",
    ["frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8", "head.hidden=8",
     "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32"],
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    for layer in (list(stn.localiser.says.children())[-1], stn.localiser.presence):
        assert isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        torch.nn.init.normal_(layer.weight, std=0.5)
    net = AffectNet(stn, scratch(), TemporalHead(2048, HeadSettings(**CONFIG.head.model_dump()))).eval()
    net.head.calibrate(torch.rand(2048), torch.rand(2048) + 0.1)
    metrics = {"validation_ccc_valence": 0.1234, "validation_ccc_arousal": 0.5, "validation_ccc_mean": 0.3117}
    facts = {"run": "wide", "metrics": metrics, "train": [f"s{k}" for k in range(12)], "validation": ["v"]}
    save_model(folder / NAME, net, fingerprint="f", encoder="e", config=CONFIG.model_dump(mode="json"), **facts)
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def exported(
    model: Path, write_video: Callable[[Path, int], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("out")
    videos = [write_video(folder / "film.mp4", 20)]
    out = folder / "exported"
    report = export(CONFIG, model, out, QUIET, check=[*videos, folder / "nothing.mp4"])
    assert [problem.name for problem in report.failed] == [str(folder / "nothing.mp4")]
    assert report.as_json()
    assert export(CONFIG, model, out, QUIET, check=videos).made == ()
    return out, report.facts


@pytest.mark.slow
def test_both_forms_agree_with_torch_on_a_video(exported: tuple[Path, dict]) -> None:
    out, facts = exported
    assert sorted(facts["files"]) == ["encoder.onnx", "encoder.pt2", "head.onnx", "head.pt2"]
    (row,) = facts["parity"]
    assert row["frames"] > 16
    assert set(row["frames_per_second"]) == {"torch", "onnxruntime", "torch.export"}
    assert 0 < max(row[what] for what in ("value", "theta", "presence", "feature")) <= 1e-4
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("count", [1, 5])
def test_the_encoder_takes_any_batch(exported: tuple[Path, dict], model: Path, count: int) -> None:
    from affect.pipeline.runs.portable_file import OnnxModel

    frames = np.random.default_rng(count).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    net, _ = load_model(model)
    with torch.no_grad():
        seen = net.encode(torch.from_numpy(frames))
    feature, theta, presence = OnnxModel(exported[0] / "encoder.onnx")(frames)
    np.testing.assert_allclose(theta, seen.theta.numpy(), atol=1e-4)
    np.testing.assert_allclose(presence, seen.presence.numpy(), atol=1e-4)
    assert np.abs(feature - seen.feature.numpy()).max() <= 1e-4 * max(1.0, float(seen.feature.max()))


def test_the_card_describes_the_model(exported: tuple[Path, dict], model: Path) -> None:
    card = (exported[0] / "README.md").read_text()
    for text in ("`wide`", "12 subjects", "s7 and 4 more", "0.123", "0.312", "drawn", "FER2013", "EULA", "head.onnx"):
        assert text in card
    bare = model_card(read_model_info(model).metadata, card_facts(model))
    assert "encoder.onnx" not in bare
    assert "affect predict" in bare


def test_an_impossible_export_is_an_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="there is no model"):
        export(CONFIG, tmp_path, tmp_path / "out", QUIET)
    with pytest.raises(InputError, match=r"tflite.*onnx, pt2"):
        export(CONFIG, model, tmp_path / "out", QUIET, formats=("tflite",))
    assert not (tmp_path / "out").exists()
