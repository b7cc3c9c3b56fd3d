"""Trains the backbone of the base model on FER+, from random weights: the long recipe behind models/pretrained.

    python tools/train_ferplus.py FERPLUS OUT [--detector yunet.onnx] [--faces N] [--decay SHARE]

FERPLUS: the folder with fer2013.csv and fer2013new.csv. OUT: a folder for the state, the log and, at the end,
backbone.safetensors. Start the command again to continue an interrupted training.

Differences to `affect pretrain backbone`: SGD with a constant learning rate and a linear decay at the end, two sizes,
mixup, one grey channel, and faces that are cut as the STN cuts them (with --detector, half of the faces are cut around
their YuNet box, stretched to a square as crops of videos are). The labels are the distributions of the votes.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from affect.models.backbone import CLASSES, Backbone, Preprocessing, scratch
from affect.pipeline.features.encoder import BACKBONE_FORMAT
from affect.pipeline.ingest import ferplus as fer
from affect.pipeline.learning.augment import LUMA, Augmentation, augment, crop_centre
from affect.pipeline.learning.run_state import clone_state, ema_update
from affect.pipeline.stages.pretrain_backbone import score
from affect.pipeline.storage.atomic import replacing
from affect.pipeline.storage.checkpoint import save_weights
from torch import Tensor, nn

CHANGES = Augmentation(
    rotate=12, scale=0.15, shift=0.07, shear=0.05, brightness=0.15, contrast=0.3, shade=0.3, blur=0.15, noise=0.2,
    erase=0.3,
)  # fmt: skip
GREY = Preprocessing(1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SURROUND = 0.4
"""Faces are kept with this much context around them, so that a changed crop shows pixels at its edges."""


@dataclass
class Plan:
    """faces: seen in all. decay: share of them, at the end, in which the learning rate falls. large: share after which
    the faces have `size` instead of `small` pixels. Stored in OUT/plan.json; edit it to change a running plan."""

    faces: int = 1_000_000
    decay: float = 0.4
    large: float = 0.4
    small: int = 48
    size: int = 64
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 5e-4
    ema: float = 0.998
    mixup: float = 0.3


def face_boxes(pixels: np.ndarray[Any, Any], detector: Path) -> np.ndarray[Any, Any]:
    """YuNet's box of each face [n, 48, 48], float32 [n, 4] in its pixels; NaN where there is none."""
    times, pad = 5, 16
    side = (48 + 2 * pad) * times
    yunet = cv2.FaceDetectorYN.create(str(detector), "", (side, side), score_threshold=0.5)
    boxes = np.full((len(pixels), 4), np.nan, np.float32)
    for number, face in enumerate(pixels):
        wide = cv2.copyMakeBorder(face, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        large = cv2.resize(wide, (side, side), interpolation=cv2.INTER_CUBIC)
        found = yunet.detect(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))[1]
        if found is not None:
            x, y, w, h = max(found, key=lambda row: row[2] * row[3])[:4] / times
            if w > 16 and h > 20:
                boxes[number] = (x - pad, y - pad, x + w - pad, y + h - pad)
    return boxes


def cut(pixels: Tensor, boxes: Tensor, side: int = 68) -> Tensor:
    """The faces [n, 48, 48] cut around their boxes with a margin of 0.1, and SURROUND more: uint8 [n, side, side]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 48 - 1
    half = (boxes[:, 2:] - boxes[:, :2]) / 48 * 1.1 * (1 + SURROUND)
    theta = torch.cat((torch.diag_embed(half), centre[:, :, None]), 2)
    grid = F.affine_grid(theta, [len(pixels), 1, side, side], align_corners=False)
    found = F.grid_sample(pixels[:, None].float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return found[:, 0].round().clamp(0, 255).to(torch.uint8)


def widen(pixels: Tensor, side: int = 68) -> Tensor:
    """The faces [n, 48, 48] with SURROUND of repeated edge around them: uint8 [n, side, side]."""
    border = torch.tensor([0.0, 0.0, 48.0, 48.0]).expand(len(pixels), 4)
    scaled = (border - 24) / 1.1 + 24
    return cut(pixels, scaled, side)


class Faces:
    """The faces of one usage, whole and cut around their boxes, and their labels."""

    def __init__(self, folder: Path, usage: fer.Usage, detector: Path | None, store: Path) -> None:
        faces = fer.read_ferplus(folder, usage)
        target = fer.distribution(faces.votes)
        self.majority = torch.from_numpy(fer.majority(faces.votes))
        self.target = torch.from_numpy(target)
        self.raw = faces.pixels
        pixels = torch.from_numpy(faces.pixels)
        self.whole = widen(pixels)
        self.framed = self.whole.clone()
        self.has_box = torch.zeros(len(pixels), dtype=torch.bool)
        if detector:
            cached = store / f"boxes_{usage}.npy"
            if not cached.exists():
                np.save(cached, face_boxes(faces.pixels, detector))
            boxes = torch.from_numpy(np.load(cached))
            self.has_box = ~boxes.isnan().any(1)
            self.framed[self.has_box] = cut(pixels[self.has_box], boxes[self.has_box])
        self.usable = (self.target.sum(1) > 0).nonzero()[:, 0]


def crops(faces: Tensor, size: int) -> Tensor:
    return crop_centre(faces[:, None], size, surround=SURROUND)


def classify(network: nn.Module, faces: Tensor, size: int, mirror: bool) -> Tensor:
    """Probabilities [n, 8]."""
    network.eval()
    out = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for part in faces.split(128):
            inputs = crops(part, size).expand(-1, 3, -1, -1)
            said = network(inputs)[1].float().softmax(1)
            if mirror:
                said = (said + network(inputs.flip(3))[1].float().softmax(1)) / 2
            out.append(said)
    return torch.cat(out)


def accuracy(network: nn.Module, faces: Faces, rows: Tensor, size: int) -> dict[str, float]:
    """Share of the faces with a majority that get their class: plain, with the mirrored face, and cut as in videos."""
    label = faces.majority[rows]
    rows, label = rows[label >= 0], label[label >= 0]
    figures = {}
    for name, pixels, mirror in (
        ("plain", faces.whole, False), ("mirror", faces.whole, True), ("framed", faces.framed, False),
    ):  # fmt: skip
        said = classify(network, pixels[rows], size, mirror).argmax(1)
        figures[name] = float((said == label).float().mean())
    return figures


def rate(plan: Plan, seen: int) -> float:
    """Learning rate after this many faces: a short rise, constant, a linear decay."""
    share = seen / plan.faces
    rise = min(1.0, seen / (0.02 * plan.faces) + 0.01)
    fall = min(1.0, max(0.0, (1 - share) / plan.decay))
    return plan.rate * min(rise, fall)


def batch_of(faces: Faces, rows: Tensor, size: int, plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Changed, mixed crops [n, 3, size, size] and their targets [n, 8]."""
    framed = (torch.rand(len(rows), generator=generator) < 0.5)[:, None, None]
    pixels = torch.where(framed, faces.framed[rows], faces.whole[rows])[:, None]
    inputs = augment(pixels.expand(-1, 3, -1, -1), size, CHANGES, generator, surround=SURROUND)[:, :1]
    target = faces.target[rows]
    if plan.mixup and float(torch.rand((), generator=generator)) < plan.mixup:
        share = 0.7 + 0.3 * float(torch.rand((), generator=generator))
        inputs = share * inputs + (1 - share) * inputs.flip(0)
        target = share * target + (1 - share) * target.flip(0)
    return inputs.expand(-1, 3, -1, -1), target


def leaked(training: Faces, other: Faces) -> Tensor:
    """Which faces of `other` are also, byte for byte, among the training faces: bool [n]."""
    known = {face.tobytes() for face in training.raw}
    return torch.tensor([face.tobytes() in known for face in other.raw])


def train(options: argparse.Namespace) -> None:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    plan_file, state_file = out / "plan.json", out / "state.pt"
    if not plan_file.exists():
        plan_file.write_text(json.dumps(asdict(Plan(faces=options.faces, decay=options.decay)), indent=1))
    training, public, private = (
        Faces(options.ferplus, usage, options.detector, out) for usage in ("Training", "PublicTest", "PrivateTest")
    )
    say(out, f"{len(training.usable)} faces, {float(training.has_box.float().mean()):.3f} with a box")
    torch.manual_seed(0)
    start = scratch()
    network = Backbone("torchvision", CLASSES, GREY)
    network.load_state_dict(start.state_dict())
    network = network.to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": Plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    average, step, seen = clone_state(network.state_dict()), 0, 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, seen = state["average"], state["step"], state["seen"]
        say(out, f"continuing after {seen} faces")

    def save() -> None:
        with replacing(state_file) as temporary:
            torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
                        "step": step, "seen": seen}, temporary)  # fmt: skip

    per_epoch = len(training.usable)
    saved, began, first, losses = time.monotonic(), time.monotonic(), seen, []
    plan = Plan(**json.loads(plan_file.read_text()))
    while seen < plan.faces:
        plan = Plan(**json.loads(plan_file.read_text()))
        epoch, within = divmod(step, per_epoch // plan.batch)
        order = torch.randperm(per_epoch, generator=torch.Generator().manual_seed(epoch))
        rows = training.usable[order[within * plan.batch : (within + 1) * plan.batch]]
        size = plan.small if seen < plan.large * plan.faces else plan.size
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, seen)
        network.train()
        inputs, target = batch_of(training, rows, size, plan, torch.Generator().manual_seed(10**6 + step))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(inputs)[1]
        loss = F.cross_entropy(logits.float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step, seen = step + 1, seen + len(rows)
        ema_update(average, network, min(plan.ema, step / (step + 9)))
        losses.append(float(loss.detach()))
        if time.monotonic() - saved > 120:
            save()
            saved = time.monotonic()
        if (step % (per_epoch // plan.batch)) == 0:
            save()
            figures = evaluate(network, average, partial(accuracy, network, public, public.usable, size))
            speed = (seen - first) / (time.monotonic() - began)
            say(out, f"epoch {epoch + 1} size {size} lr {rate(plan, seen):.4f} loss {np.mean(losses):.4f} "
                f"public {figures['plain']:.4f} mirror {figures['mirror']:.4f} framed {figures['framed']:.4f} "
                f"{speed:.0f} faces/s")  # fmt: skip
            losses = []
    save()
    network.load_state_dict(average)
    report = {"public": accuracy(network, public, public.usable, plan.size)}
    copies = leaked(training, private)
    label = private.majority
    for name, mask in (("private", label >= 0), ("private_without_leaked", (label >= 0) & ~copies)):
        report[name] = accuracy(network, private, mask.nonzero()[:, 0], plan.size)
    rows = (label >= 0).nonzero()[:, 0]
    said = classify(network, private.whole[rows], plan.size, mirror=False).argmax(1).numpy()
    details: dict[str, Any] = {**score(said, label[rows].numpy(), CLASSES), "faces_seen": seen, "figures": report}
    write(network, out / "backbone.safetensors", details)
    say(out, json.dumps(report))


def evaluate(
    network: nn.Module, weights: dict[str, Tensor], measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """What `measure` returns with other weights in the network."""
    own = clone_state(network.state_dict())
    network.load_state_dict(weights)
    figures = measure()
    network.load_state_dict(own)
    return figures


def write(network: Backbone, path: Path, report: dict[str, Any]) -> None:
    """Writes the weights. The first convolution gets the sum over its channels, spread by their share of the luma, so
    that a coloured face gives what its grey picture gives."""
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    summed = state["network.conv1.weight"].sum(1, keepdim=True)
    state["network.conv1.weight"] = (summed * torch.tensor(LUMA).view(1, 3, 1, 1)).contiguous()
    metadata = {"format": BACKBONE_FORMAT, "fingerprint": "ferplus", "backbone": network.metadata(), "report": report}
    save_weights(path, state, metadata)


def say(out: Path, text: str) -> None:
    line = f"{time.strftime('%H:%M:%S')} {text}"
    print(line, flush=True)
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferplus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--decay", type=float, default=0.4)
    train(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
