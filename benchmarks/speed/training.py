"""The training steps of adapt, pretrain backbone and train --end-to-end, compared with the bare networks and with the
matrix product of the machine."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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
from affect.pipeline.learning.loop import Callbacks, FitSettings, SimpleTask, Task, fit
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.records import WHOLE
from affect.pipeline.stages.adapt import WIDER, adaptation
from affect.pipeline.stages.pretrain_backbone import pretraining
from affect.pipeline.storage.jpeg import decode, encode
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .measure import QUIET, Row, median

TURNS = 3
STEPS = 5
"""Steps of a turn, of each side."""
SIDE = 2048
"""Of the matrices whose product is the limit of the machine."""
COMPUTE = Compute(torch.device("cpu"))


@dataclass(frozen=True)
class Case:
    """task, settings: what the stage gives to `fit`, for an epoch of STEPS steps. loss: of the same networks for
    tensors in memory, without augmentation. parameters: of these networks, those that are trained."""

    name: str
    detail: str
    task: Task
    settings: FitSettings
    loss: Callable[[], Tensor]
    parameters: list[nn.Parameter]


@dataclass(frozen=True)
class Spent:
    """Seconds of a step: elapsed, and of all cores."""

    wall: float
    cpu: float


def training(folder: Path, frames: int) -> Iterator[Row]:
    """The steps of affect in turns with the bare forward pass, backward pass and optimizer step, in fp32, with the
    sizes of config `demo`. Both have the same batch, networks, frozen parts and AdamW."""
    config = load("demo", ["runtime.precision=fp32", "runtime.device=cpu"])
    for case in (_adapt(config), _pretrain(config), _end_to_end(config)):
        yield from _compare(case)


def _compare(case: Case) -> Iterator[Row]:
    optimizer = torch.optim.AdamW(case.parameters, lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        case.loss().backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    flops, ours, bare, product = counter.get_total_flops(), [], [], []
    for _ in range(TURNS):
        product.append(_product())
        bare.append(_time_bare(step))
        ours.append(_time_affect(case))
    turns = list(zip(ours, bare, product, strict=True))
    cpu = median([theirs.cpu / own.cpu for own, theirs, _ in turns])
    times = f"{median([own.wall for own in ours]):.2f} and {median([theirs.wall for theirs in bare]):.2f} s"
    detail = f"{times}, by CPU time {cpu:.2f}; {case.detail}"
    ratio = median([theirs.wall / own.wall for own, theirs, _ in turns])
    yield Row(f"{case.name}: speed of a step / bare networks", ratio, "", detail, ">= 0.9")
    rate, limit = flops / median([own.cpu for own in ours]), median(product)
    detail = f"{rate / 1e9:.0f} and {limit / 1e9:.0f} GFLOP per second of a core, {flops / 1e9:.0f} GFLOP in a step"
    yield Row(
        "  a step / matrix product in fp32", median([flops / own.cpu / most for own, _, most in turns]), "", detail
    )
    share = median([flops / theirs.cpu / most for _, theirs, most in turns])
    yield Row("  bare networks / matrix product in fp32", share)


def _time_bare(step: Callable[[], None]) -> Spent:
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        step()
    return Spent((time.perf_counter() - start) / STEPS, (time.process_time() - cpu) / STEPS)


def _time_affect(case: Case) -> Spent:
    """From the start of an epoch to the end of its last step, without validation."""
    times: list[tuple[float, float]] = []

    def mark(*_: Any) -> None:
        times.append((time.perf_counter(), time.process_time()))

    def batches(epoch: int) -> Iterable[Any]:
        mark()
        return case.task.batches(epoch)

    task = SimpleTask(
        case.task.model, batches, case.task.loss, lambda: {case.settings.score: 0.0}, case.task.groups, case.task.steps
    )
    fit(task, case.settings, COMPUTE, QUIET, case.name, callbacks=Callbacks(on_step=mark))
    assert len(times) == STEPS + 1, len(times)
    return Spent(*((times[-1][k] - times[0][k]) / STEPS for k in range(2)))


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

    detail = f"{settings.batch} crops of {size} pixels"
    return Case("adapt", detail, task, fit_settings, loss, [*trained, *head.parameters()])


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

    detail = f"{settings.batch} faces of {settings.size} pixels"
    return Case("pretrain backbone", detail, task, replace(fit_settings, epochs=1), loss, [*net.parameters()])


def _end_to_end(config: Config) -> Case:
    train, length, side, count = config.train, config.clip.length, config.frames.size, config.train.batch_end_to_end
    jpegs = encode(_random_faces(8, 3, side).permute(0, 2, 3, 1).numpy(), config.frames.jpeg_quality)

    def read(rows: NDArray[np.int64]) -> Tensor:
        return decode([jpegs[row % 8] for row in rows.tolist()])

    index, known = np.arange(length), np.ones(length, np.bool_)
    target = np.random.default_rng(0).uniform(-1, 1, (length, 2)).astype(np.float32)
    boxes = np.tile(np.eye(2, 3, dtype=np.float32), (length, 1, 1))
    track = FrameTrack("one", read, WHOLE, index, index / 25, target, known, boxes=boxes, boxed=known)
    stn = SpatialTransformer(config.stn.kind, config.stn.view, config.stn.crop, config.stn.margin)
    net = AffectNet(stn, scratch(), TemporalHead(FEATURES, HeadSettings(**config.head.model_dump())))
    bare = copy.deepcopy(net).train()
    bare.stn.eval()
    bare.backbone.eval()
    bare.backbone.network.fc.requires_grad_(False)
    frames, present = read(np.tile(index, count)), torch.ones(count, length, dtype=torch.bool)
    truth, box = torch.from_numpy(target).expand(count, length, 2), torch.from_numpy(boxes).repeat(count, 1, 1)

    def loss() -> Tensor:
        crop, theta, _ = bare.stn(frames)
        output = bare.head(bare.backbone.features(crop).view(count, length, -1), present).frame
        box_loss = F.smooth_l1_loss(theta, box, beta=0.05)
        return affect_loss(train.loss, output, truth, present, train.valence_weight) + train.box_weight * box_loss

    task = EndToEnd(net, [track] * (STEPS * count), [track], config, COMPUTE, calibrate=False)
    settings = FitSettings("score", 1, train.ema, train.warmup, train.weight_decay, train.gradient_clip, "cosine")
    detail = f"{count} x {length} frames of {side} pixels, crops of {config.stn.crop}"
    trained = [value for value in bare.parameters() if value.requires_grad]
    return Case("train --end-to-end", detail, task, settings, loss, trained)


def _product() -> float:
    """FLOP per second of all cores in an fp32 matrix product. The fastest of five."""
    left, right = torch.rand(2, SIDE, SIDE)
    fastest = float("inf")
    for _ in range(5):
        start = time.process_time()
        torch.mm(left, right)
        fastest = min(fastest, time.process_time() - start)
    return 2 * SIDE**3 / fastest


def _random_faces(n: int, channels: int, side: int) -> Tensor:
    return torch.randint(
        0, 255, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
