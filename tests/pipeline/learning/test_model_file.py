"""A model comes back from its file as it was, and what is not one is refused with the reason."""

from pathlib import Path

import pytest
import torch
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.errors import WeightsError
from affect.pipeline.learning.model_file import NAME, load_model, read_model_info, save_model
from affect.pipeline.storage.checkpoint import load_weights, save_weights

CONFIG = load(
    "demo", ["head.project=8", "head.hidden=8", "head.dense=[8,4]", "head.readout=clip", "stn.kind=similarity"]
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AffectNet]:
    path = tmp_path_factory.mktemp("run") / NAME
    torch.manual_seed(3)
    net = AffectNet(
        SpatialTransformer("similarity", 32, 48, 0.3),
        scratch("ferplus"),
        TemporalHead(2048, HeadSettings(**CONFIG.head.model_dump())),
    ).eval()
    net.head.calibrate(torch.rand(2048), torch.rand(2048))
    save_model(path, net, fingerprint="f", encoder="e", config=CONFIG.model_dump(mode="json"), run="default")
    return path, net


@pytest.mark.parametrize("by", ["file", "folder"])
def test_a_saved_model_is_loaded_unchanged(made: tuple[Path, AffectNet], by: str) -> None:
    path, net = made
    again, info = load_model(path if by == "file" else path.parent)
    frames = torch.randint(0, 256, (4, 3, 60, 60), dtype=torch.uint8)
    with torch.no_grad():
        features = [network.encode(frames).feature for network in (net, again)]
        one, other = (network.head(rows[None]) for network, rows in zip((net, again), features, strict=True))
    assert features[0].shape == (4, 2048)
    assert torch.equal(*features)
    assert torch.equal(one.frame, other.frame)
    assert (again.stn.margin, again.stn.crop, again.backbone.dialect) == (0.3, 48, "ferplus")
    assert {
        "format",
        "fingerprint",
        "config",
        "stn",
        "backbone",
        "head",
        "encoder",
        "clip",
        "run",
    } <= info.metadata.keys()


def test_what_is_no_model_is_refused(made: tuple[Path, AffectNet], tmp_path: Path) -> None:
    path, _ = made
    with pytest.raises(WeightsError, match="there is no model"):
        load_model(tmp_path)
    other = tmp_path / "stn.safetensors"
    save_weights(other, {"x": torch.zeros(1)}, {"format": "affect-stn"})
    with pytest.raises(WeightsError, match="'affect-stn', expected 'affect-model'"):
        read_model_info(other)
    (tmp_path / NAME).write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_model(tmp_path)
    state, metadata = load_weights(path)
    save_weights(tmp_path / NAME, state, {**metadata, "head": {**metadata["head"], "hidden": 16}})
    with pytest.raises(WeightsError, match="do not match"):
        load_model(tmp_path)
