"""A tiny network with random weights, because the tests are about the code around the network."""

from pathlib import Path

import torch
from affect.configs.schema import load
from affect.models.affect_net import AffectNet
from affect.models.backbone import scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.stn import SpatialTransformer
from affect.pipeline.features.encoder import BACKBONE_FORMAT, STN_FORMAT
from affect.pipeline.learning.model_file import NAME, save_model
from affect.pipeline.storage.checkpoint import save_weights

SETTINGS = (
    "frames.size=64", "stn.view=32", "stn.crop=32", "clip.length=16", "clip.hop=8", "head.project=8", "head.hidden=8",
    "head.dense=[8]", "runtime.device=cpu", "runtime.precision=fp32", "adapt.epochs=0", "predict.face_threshold=0",
)  # fmt: skip


def tiny_model(folder: Path) -> Path:
    """Writes a model file as `affect train` does. Returns its folder."""
    config = load("demo", list(SETTINGS))
    torch.manual_seed(1)
    net = AffectNet(
        SpatialTransformer("crop", 32, 32, 0.1), scratch(), TemporalHead(2048, HeadSettings(**config.head.model_dump()))
    )
    net.head.calibrate(torch.rand(2048), torch.rand(2048) + 0.1)
    save_model(folder / NAME, net.eval(), fingerprint="tiny", encoder="e", config=config.model_dump(mode="json"))
    return folder


def random_networks(work: Path) -> None:
    """Writes an STN and a backbone as `affect pretrain` does, for SETTINGS."""
    torch.manual_seed(0)
    shape = {"kind": "crop", "view": 32, "crop": 32, "margin": 0.1}
    stn = SpatialTransformer("crop", 32, 32, 0.1)
    facts = {"format": STN_FORMAT, "fingerprint": "s", "stn": shape, "report": {}}
    save_weights(work / "weights" / "stn.safetensors", stn.state_dict(), facts)
    backbone = scratch()
    facts = {"format": BACKBONE_FORMAT, "fingerprint": "b", "backbone": backbone.metadata(), "report": {}}
    save_weights(work / "weights" / "backbone.safetensors", backbone.state_dict(), facts)
