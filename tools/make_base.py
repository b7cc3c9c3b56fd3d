"""Makes models/pretrained/base.safetensors, the model that affect uses where none is named.

    python tools/make_base.py FERPLUS BACKBONE [--detector yunet.onnx] [--keep DIR]

FERPLUS: the folder with fer2013.csv and fer2013new.csv. BACKBONE: the weights that tools/train_ferplus.py made. The STN
is models/pretrained/stn.safetensors. The head learns from sequences of features: faces of the training rows, held for
up to three seconds, with another crop in each frame, and changed into one another. The targets are the expected valence
and arousal of the votes (pipeline/learning/expression_affect.py). At the end, tools/add_intervals.py calibrates the
intervals. About 15 minutes on two cores.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from add_intervals import add_intervals
from affect.configs.schema import Config, load
from affect.models.backbone import CLASSES, folded
from affect.pipeline.features.encoder import build_backbone, plan_encoder
from affect.pipeline.ingest import ferplus as fer
from affect.pipeline.learning.augment import Augmentation, augment
from affect.pipeline.learning.expression_affect import expected_affect
from affect.pipeline.learning.model_file import NAME, load_model, save_model
from affect.pipeline.progress import Reporter
from affect.pipeline.records import BASE_MODEL, Work
from affect.pipeline.stages.train import train
from affect.pipeline.storage.shard import FEATURES, ShardWriter
from numpy.typing import NDArray
from torch import Tensor
from train_ferplus import SURROUND, Faces

STN = BASE_MODEL.with_name("stn.safetensors")
NOTICE = (
    "The base model was trained on FER+ (votes on single pictures), not on videos labelled with valence and arousal. "
    "To replace it, train a model on Aff-Wild2 and name it with --model."
)
VERSIONS = 4
"""Crops of each face, each changed at random."""
FRAMES = 300
RATE = 30.0
CHANGES = Augmentation(
    rotate=8, scale=0.12, shift=0.05, shear=0.03, brightness=0.1, contrast=0.2, shade=0.2, blur=0.2, noise=0.15
)


@dataclass(frozen=True)
class Bank:
    """feature: float16 [faces, VERSIONS, 2048]. target: float32 [faces, 2]. weight: [faces], sums to 1."""

    feature: NDArray[np.float16]
    target: NDArray[np.float32]
    weight: NDArray[np.float64]


def make_bank(config: Config, faces: Faces, backbone: Path) -> Bank:
    """The features of all usable faces, half of the crops cut around the face as in videos."""
    network = folded(build_backbone(backbone, 0))
    generator = torch.Generator().manual_seed(1)
    rows = faces.usable
    parts: list[Tensor] = []
    with torch.inference_mode():
        for part in rows.split(64):
            versions = []
            for number in range(VERSIONS):
                pixels = (faces.whole if number % 3 == 0 else faces.framed)[part, None].expand(-1, 3, -1, -1)
                crops = augment(pixels, config.stn.crop, CHANGES, generator, surround=SURROUND)
                versions.append(network.features(crops).half())
            parts.append(torch.stack(versions, 1))
    target = faces.target[rows].numpy()
    # Rare expressions come more often: each face counts by the inverse root of how common its expression is.
    common = target.sum(0) / len(target)
    weight = (target / np.sqrt(common)).sum(1)
    return Bank(torch.cat(parts).numpy(), expected_affect(target, CLASSES), weight / weight.sum())


def compose(bank: Bank, frames: int, rng: np.random.Generator) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """A sequence: (feature [frames, 2048], target [frames, 2])."""
    feature = np.empty((frames, bank.feature.shape[2]), np.float32)
    target = np.empty((frames, 2), np.float32)
    start, before = 0, None
    while start < frames:
        face = rng.choice(len(bank.weight), p=bank.weight)
        length = int(rng.integers(8, 91))
        stop = min(frames, start + length)
        # Neighbouring frames share most of their crop: the mix of versions drifts.
        keys = rng.dirichlet(np.full(VERSIONS, 0.3), size=2 + (stop - start) // 6)
        place = np.linspace(0, len(keys) - 1.001, stop - start)
        low = place.astype(int)
        mix = keys[low] + (place - low)[:, None] * (keys[low + 1] - keys[low])
        held = mix @ bank.feature[face].astype(np.float32)
        wanted = np.repeat(bank.target[face][None], stop - start, 0)
        if before is not None:
            ramp = np.clip(np.arange(1, stop - start + 1) / int(rng.integers(1, 16)), 0, 1)[:, None].astype(np.float32)
            held = (1 - ramp) * before[0] + ramp * held
            wanted = (1 - ramp) * before[1] + ramp * wanted
        feature[start:stop], target[start:stop] = held, wanted
        before = (held[-1], wanted[-1])
        start = stop
    # Now and then a frame shows something else: a hand, a turned head, a bad crop.
    other = np.flatnonzero(rng.random(frames) < 0.03)
    feature[other] = bank.feature[rng.integers(len(bank.feature), size=len(other)), 0]
    return feature.astype(np.float16), target


def write_sequences(config: Config, work: Work, banks: dict[str, Bank], count: dict[str, int]) -> None:
    """Feature shards of composed sequences, as `cache-features` writes them."""
    encoder = plan_encoder(config, work).digest
    for split, bank in banks.items():
        for number in range(count[split]):
            name = f"{split}_{number:04d}"
            feature, target = compose(bank, FRAMES, np.random.default_rng((number, split == "train")))
            attributes = {"split": split, "video": name, "encoder": encoder, "width": 64, "height": 64}
            with ShardWriter(work.features(name), FEATURES, name, {}, name, attributes) as writer:
                writer.append(
                    feature=feature, theta=np.zeros((FRAMES, 2, 3), np.float32), index=np.arange(FRAMES),
                    presence=np.ones(FRAMES, np.float32), pts=np.arange(FRAMES) / RATE, target=target,
                    valid=np.ones(FRAMES, bool),
                )  # fmt: skip


def make(ferplus: Path, backbone: Path, detector: Path | None, folder: Path, sequences: int) -> None:
    config = load("base")
    work = Work(folder)
    work.weights("stn").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(STN, work.weights("stn"))
    shutil.copy(backbone, work.weights("backbone"))
    usages: dict[str, fer.Usage] = {"train": "Training", "validation": "PublicTest"}
    banks = {
        split: make_bank(config, Faces(ferplus, usage, detector, folder), backbone) for split, usage in usages.items()
    }
    write_sequences(config, work, banks, {"train": sequences, "validation": sequences // 8})
    train(config, folder, work, Reporter())
    net, info = load_model(work.run("default") / NAME)
    metadata = info.metadata
    kept = ("fingerprint", "encoder", "config", "smoothing", "metrics", "best_epoch")
    save_model(BASE_MODEL, net, int8=True, notice=NOTICE, **{name: metadata[name] for name in kept})
    add_intervals(ferplus, BASE_MODEL, detector, folder)
    print(f"{BASE_MODEL}: {BASE_MODEL.stat().st_size / 2**20:.1f} MiB, {metadata['metrics']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferplus", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--sequences", type=int, default=800)
    parser.add_argument("--keep", type=Path, help="folder for the work folder; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = options.keep or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        make(options.ferplus, options.backbone, options.detector, kept, options.sequences)
    return 0


if __name__ == "__main__":
    sys.exit(main())
