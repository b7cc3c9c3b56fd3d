"""The training steps of adapt, pretrain backbone and train --end-to-end, compared with the bare networks and with the
matrix product of the machine."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from affect.configs.schema import Config, load
from affect.models.affect_net import AffectNet
from affect.models.backbone import FEATURES, scratch
from affect.models.head import HeadSettings, TemporalHead
from affect.models.losses import affect_loss
from affect.models.stn import SpatialTransformer
from affect.pipeline.learning.end_to_end import EndToEnd
from affect.pipeline.learning.frame_tracks import FrameTrack
from affect.pipeline.learning.loop import FitSettings, Task, fit
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.records import WHOLE
from affect.pipeline.stages.adapt import WIDER, adaptation
from affect.pipeline.stages.pretrain_backbone import pretraining
from affect.pipeline.storage.jpeg import decode, encode
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .measure import QUIET, Row, median

TURNS = 3
STEPS = 10
"""Steps of a turn, of each side."""
SIDE = 2048
"""Of the matrices whose product is the limit of the machine."""
COMPUTE = Compute(torch.device("cpu"))
Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """task, settings: what the stage gives to `fit`. bare: the loss of the same networks for tensors in memory, and
    their parameters."""

    name: str
    task: Task
    settings: FitSettings
    bare: tuple[Loss, list[nn.Parameter]]
    detail: str


@dataclass(frozen=True)
class Spent:
    """Of a step. wall, cpu: seconds."""

    wall: float
    cpu: float


def training(folder: Path, frames: int) -> Iterator[Row]:
    """The steps of affect in turns with the bare forward pass, backward pass and optimizer step, in fp32, with the
    sizes of config `demo`."""
    config = load("demo", ["runtime.precision=fp32", "runtime.device=cpu", "train.batch_end_to_end=2"])
    for case in (_adapt(config), _pretrain(config), _end_to_end(config)):
        ours, bare, product = [], [], []
        step = _bare_step(*case.bare)
        with FlopCounterMode(display=False) as counter:
            step()
        for _ in range(TURNS):
            product.append(_product())
            bare.append(_spent(lambda: [step() for _ in range(STEPS)]))
            ours.append(_spent(lambda: fit(case.task, case.settings, COMPUTE, QUIET, case.name)))
        ratio = median([theirs.wall / own.wall for own, theirs in zip(ours, bare, strict=True)])
        cpu = median([theirs.cpu / own.cpu for own, theirs in zip(ours, bare, strict=True)])
        limit, flops = median(product), counter.get_total_flops()
        detail = f"{case.detail}; by CPU time {cpu:.2f}"
        yield Row(f"{case.name}: bare networks / a step of affect, by time", ratio, "", detail, ">= 0.9")
        share = median([flops / theirs.wall / most for theirs, most in zip(bare, product, strict=True)])
        rate = flops / median([own.wall for own in ours])
        detail = f"{rate / 1e9:.0f} of {limit / 1e9:.0f} GFLOP/s, {flops / 1e9:.0f} GFLOP per step"
        yield Row("  a step of affect / fp32 matrix product, by FLOP/s", rate / limit, "", detail)
        yield Row("  bare networks / fp32 matrix product", share)


def _adapt(config: Config) -> Case:
    settings, size = config.adapt, config.stn.crop
    wide, n = size + 2 * round(WIDER * size), STEPS * settings.batch
    crops, target = _random_faces(n, 3, wide), torch.rand(n, 2) * 2 - 1
    backbone = scratch()
    task, fit_settings = adaptation(
        config, backbone, (crops, target), (crops[:2], target[:2]), COMPUTE, epochs=1
    )  # fmt: skip
    net = copy.deepcopy(backbone)
    head = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(FEATURES, 2), nn.Tanh())
    faces, truth = crops[: settings.batch, :, :size, :size].float().contiguous(), target[: settings.batch]
    trained = [value for name, value in net.named_parameters() if not name.startswith("network.fc")]

    def loss() -> Tensor:
        return affect_loss("ccc+mse", head(net.features(faces)), truth)

    return Case(
        "adapt", task, fit_settings, (loss, [*trained, *head.parameters()]), f"{settings.batch} crops of {size} pixels"
    )


def _pretrain(config: Config) -> Case:
    settings = config.pretrain_backbone
    n = STEPS * settings.batch
    pixels, target = _random_faces(n, 1, 48)[:, 0], torch.rand(n, 8).softmax(1)
    backbone = scratch()
    task, fit_settings = pretraining(
        config, backbone, (pixels, target), (pixels[:2], np.zeros(2, np.int64)), COMPUTE
    )  # fmt: skip
    net = copy.deepcopy(backbone)
    faces, truth = _random_faces(settings.batch, 3, settings.size).float(), target[: settings.batch]

    def loss() -> Tensor:
        return F.cross_entropy(net(faces)[1], truth, label_smoothing=settings.label_smoothing)

    fit_settings = FitSettings(**{**vars(fit_settings), "epochs": 1})
    return Case(
        "pretrain backbone",
        task,
        fit_settings,
        (loss, [*net.parameters()]),
        f"{settings.batch} faces of {settings.size} pixels",
    )


def _end_to_end(config: Config) -> Case:
    train, length, side = config.train, config.clip.length, config.frames.size
    jpegs = encode(_random_faces(8, 3, side).permute(0, 2, 3, 1).numpy(), config.frames.jpeg_quality)
    n = STEPS * train.batch_end_to_end * length
    index, rng = np.arange(n), np.random.default_rng(0)
    target, boxes = rng.uniform(-1, 1, (n, 2)).astype(np.float32), np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1))
    known = np.ones(n, np.bool_)
    track = FrameTrack(
        "one", lambda rows: decode([jpegs[row % 8] for row in rows.tolist()]), WHOLE, index, index / 25, target, known,
        boxes=boxes, boxed=known,
    )  # fmt: skip
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin)
    net = AffectNet(stn, scratch(), TemporalHead(FEATURES, HeadSettings(**config.head.model_dump())))
    bare = copy.deepcopy(net)
    task = EndToEnd(net, [track], [track], config, COMPUTE, calibrate=False)
    task.validate = lambda: {"score": 0.0}
    windows = train.batch_end_to_end
    frames, present = (
        decode([jpegs[k % 8] for k in range(windows * length)]),
        torch.ones(windows, length, dtype=torch.bool),
    )
    truth = torch.from_numpy(target[: windows * length]).view(windows, length, 2)
    bare.backbone.network.fc.requires_grad_(False)
    bare.train()
    bare.stn.eval()
    bare.backbone.eval()

    def loss() -> Tensor:
        crop, theta, _ = bare.stn(frames)
        feature = bare.backbone.features(crop)
        output = bare.head(feature.view(windows, length, -1), present).frame
        box = F.smooth_l1_loss(theta, torch.from_numpy(boxes[: len(theta)]), beta=0.05)
        return affect_loss(train.loss, output, truth, present, train.valence_weight) + train.box_weight * box

    settings = FitSettings("score", 1, train.ema, train.warmup, train.weight_decay, train.gradient_clip, "cosine")
    trained = [value for value in bare.parameters() if value.requires_grad]
    return Case(
        "train --end-to-end",
        task,
        settings,
        (loss, trained),
        f"{windows} windows of {length} frames of {side} pixels, crops of {config.stn.crop}",
    )


def _bare_step(loss: Loss, parameters: list[nn.Parameter]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def _spent(work: Callable[[], Any]) -> Spent:
    """Of one of the STEPS steps of `work`."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent((time.perf_counter() - start) / STEPS, (time.process_time() - cpu) / STEPS)


def _product() -> float:
    """FLOP/s of an fp32 matrix product."""
    left, right = torch.rand(2, SIDE, SIDE)
    torch.mm(left, right)
    fastest = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(left, right)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * SIDE**3 / fastest


def _random_faces(n: int, channels: int, side: int) -> Tensor:
    return torch.randint(
        0, 255, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
