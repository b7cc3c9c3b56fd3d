"""affect pretrain backbone: trains the backbone on the eight expressions of FER+.

The usage Training is for training, PublicTest selects the epoch, and PrivateTest is evaluated once, at the end.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config, PretrainBackbone
from ..errors import InputError, MissingStageError
from ..features.encoder import (
    BACKBONE_FORMAT,
    IMAGENET,
    SCRATCH,
    build_backbone,
    named_file,
    requested_precision,
    stored_fingerprint,
    weights_digest,
)
from ..ingest import ferplus as fer
from ..progress import Reporter
from ..records import StageReport, Work, training_facts
from ..storage.checkpoint import read_metadata, save_weights
from ..storage.fingerprint import fingerprint, source_digest
from ..visualization.confusion import draw_confusion

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from ...models.backbone import Backbone
    from ..learning.loop import FitSettings, SimpleTask
    from ..learning.runtime import Compute

STAGE = "pretrain-backbone"
VERSION = 1


def pretrain_backbone(config: Config, ferplus: Path, work: Work, reporter: Reporter) -> StageReport:
    """Trains on FER+. Writes weights/backbone.safetensors and backbone-confusion.png.

    ferplus: the folder with fer2013.csv and fer2013new.csv. The metadata of the weights has the report with the
    accuracy on PrivateTest. Raises InputError, FerplusError, WeightsError.
    """
    output = work.weights("backbone")
    start = _start(config.pretrain_backbone.start)
    digest = backbone_fingerprint(config, ferplus)
    if stored_fingerprint(output) == digest:
        return StageReport(STAGE, output, kept=(output.name,), facts=training_facts(read_metadata(output)["report"]))
    backbone, report = _train(config, ferplus, start, work, reporter, digest)
    metadata = {"format": BACKBONE_FORMAT, "fingerprint": digest, "backbone": backbone.metadata(), "report": report}
    save_weights(output, backbone.state_dict(), metadata)
    draw_confusion(report, output.with_name("backbone-confusion.png"))
    reporter.info(f"FER+ PrivateTest: accuracy {report['accuracy']:.3f} on {report['faces']} faces")
    return StageReport(STAGE, output, made=(output.name,), facts=training_facts(report))


def backbone_fingerprint(config: Config, ferplus: Path) -> str:
    """The fingerprint of up-to-date backbone weights. Raises InputError, MissingStageError."""
    return fingerprint(
        version=VERSION,
        settings=config.pretrain_backbone,
        start=weights_digest(_start(config.pretrain_backbone.start)),
        sources=[source_digest(path) for path in _sources(ferplus)],
        seed=config.runtime.seed,
        **requested_precision(config),
    )


def count_faces(ferplus: Path) -> dict[str, dict[str, Any]]:
    """For each usage of FER+: the number of rows, of faces per class (majority), and of faces that each rule keeps.

    Needs only fer2013new.csv. Raises MissingStageError, FerplusError.
    """
    path = ferplus / fer.VOTES if ferplus.is_dir() else ferplus
    if not path.is_file():
        raise MissingStageError(f"{path} does not exist", "Give the folder that contains it: --ferplus DIR.")
    usage, votes = fer.read_votes(path)
    return fer.rule_counts(votes, usage)


def counts_table(counts: dict[str, dict[str, Any]]) -> "Table":
    """The result of count_faces as a table."""
    from rich import box
    from rich.table import Table

    table = Table("faces", box=box.SIMPLE_HEAD)
    for usage in counts:
        table.add_column(usage, justify="right")
    for rule, title in (("rows", "all"), ("majority", "with a majority"), ("distribution", "with a distribution")):
        table.add_row(title, *(f"{own[rule]:,}" for own in counts.values()))
    table.add_section()
    for name in fer.CLASSES:
        table.add_row(f"majority: {name}", *(f"{own['classes'][name]:,}" for own in counts.values()))
    return table


def _start(name: str) -> Path | str:
    if name in (SCRATCH, IMAGENET):
        return name
    path = named_file(name)
    if not path.is_file():
        raise InputError(
            f"pretrain_backbone.start is {name!r}, which does not exist", "Use imagenet, scratch, base or a path."
        )
    return path


def _sources(ferplus: Path) -> list[Path]:
    folder = ferplus if ferplus.is_dir() else ferplus.parent
    found = sorted(folder.glob("fer2013*.csv"))
    if not found:
        raise MissingStageError(
            f"{ferplus}: does not contain fer2013.csv and fer2013new.csv",
            "Give the folder that contains both (--ferplus DIR), or set backbone.weights to imagenet or a path.",
        )
    return found


def _train(
    config: Config, ferplus: Path, start: Path | str, work: Work, reporter: Reporter, digest: str
) -> tuple["Backbone", dict[str, Any]]:
    from ..learning.loop import ResumeFile, fit
    from ..learning.runtime import environment, pick_compute, seed_everything

    settings = config.pretrain_backbone
    compute = pick_compute(config.runtime)
    seed_everything(config.runtime.seed)
    training = _faces(ferplus, "Training", settings)
    public, private = (_labelled(ferplus, usage) for usage in ("PublicTest", "PrivateTest"))
    reporter.info(
        f"FER+: {len(training[0])} training faces, {len(public[0])} validation faces, {len(private[0])} test faces"
    )
    backbone = build_backbone(start, config.runtime.seed)
    task, fit_settings = pretraining(config, backbone, training, public, compute)
    state = work.weights("backbone").with_suffix(".state")
    result = fit(task, fit_settings, compute, reporter, STAGE, resume=ResumeFile(state, digest))
    predicted = classify(backbone, private[0], settings.size, compute)
    report = score(predicted, private[1], backbone.classes)
    report |= {"public_accuracy": task.validate()["accuracy"], "best_epoch": result.best_epoch}
    report["history"] = result.history
    state.unlink(missing_ok=True)
    return backbone.cpu(), report | {"environment": environment(compute)}


def pretraining(
    config: Config,
    backbone: "Backbone",
    training: tuple["Tensor", "Tensor"],
    validation: tuple["Tensor", NDArray[np.int64]],
    compute: "Compute",
) -> tuple["SimpleTask", "FitSettings"]:
    """The training of a backbone as a task of `fit`.

    training: faces uint8 [n, 48, 48] and targets [n, 8]. validation: faces and their classes [n].
    """
    import torch
    import torch.nn.functional as F

    from ..learning.augment import Augmentation, augment
    from ..learning.loop import FitSettings, SimpleTask
    from ..learning.prefetch import prefetch

    settings, device = config.pretrain_backbone, compute.device
    pixels, target = training
    network = backbone.to(device)
    augmentation = Augmentation(
        rotate=8, scale=0.1, shift=0.05, shear=0.03, brightness=0.1, contrast=0.2, blur=0.1, noise=0.2, erase=0.1
    )  # fmt: skip
    steps = max(1, len(pixels) // settings.batch)

    def batches(epoch: int) -> Iterator[tuple["Tensor", "Tensor"]]:
        generator = torch.Generator().manual_seed(config.runtime.seed * 100003 + epoch)
        parts = torch.randperm(len(pixels), generator=generator)[: steps * settings.batch].split(settings.batch)
        seeds = torch.randint(2**60, (len(parts),), generator=generator).tolist()

        def make(given: tuple["Tensor", int]) -> tuple["Tensor", "Tensor"]:
            rows, seed = given
            faces = pixels[rows, None].to(device).expand(-1, 3, -1, -1)
            faces = augment(faces, settings.size, augmentation, torch.Generator().manual_seed(seed))
            return faces, target[rows].to(device)

        return prefetch(zip(parts, seeds, strict=True), make, threads=1)

    def loss(batch: tuple["Tensor", "Tensor"]) -> tuple["Tensor", dict[str, Any]]:
        faces, truth = batch
        _, logits = network(faces)
        return F.cross_entropy(logits.float(), truth, label_smoothing=settings.label_smoothing), {}

    def validate() -> dict[str, float]:
        predicted = classify(network, validation[0], settings.size, compute)
        return {"accuracy": float((predicted == validation[1]).mean())}

    groups = [{"params": list(network.parameters()), "lr": settings.learning_rate}]
    task = SimpleTask(network, batches, loss, validate, groups, steps)
    return task, FitSettings(
        score="accuracy", epochs=settings.epochs, ema=settings.ema, warmup=0.1, weight_decay=settings.weight_decay,
        gradient_clip=1.0, schedule="cosine",
    )  # fmt: skip


def _faces(ferplus: Path, usage: Any, settings: PretrainBackbone) -> tuple["Tensor", "Tensor"]:
    """Faces uint8 [n, 48, 48] that have a label, and their targets float32 [n, 8]."""
    import torch

    faces = fer.read_ferplus(ferplus, usage)
    target = fer.distribution(faces.votes)
    if settings.labels == "majority":
        target = np.eye(len(fer.CLASSES), dtype=np.float32)[fer.majority(faces.votes)]
        target[fer.majority(faces.votes) < 0] = 0
    known = target.sum(1) > 0
    if not known.any():
        raise InputError(f"{ferplus}: {usage} has no face with a label", "Use the complete FER+ files.")
    return torch.from_numpy(faces.pixels[known]), torch.from_numpy(target[known])


def _labelled(ferplus: Path, usage: Any) -> tuple["Tensor", NDArray[np.int64]]:
    """Faces uint8 [n, 48, 48] with a majority, and its class int64 [n]."""
    import torch

    faces = fer.read_ferplus(ferplus, usage)
    label = fer.majority(faces.votes)
    if not (label >= 0).any():
        raise InputError(f"{ferplus}: {usage} has no face with a majority label", "Use the complete FER+ files.")
    return torch.from_numpy(faces.pixels[label >= 0]), label[label >= 0]


def classify(backbone: Any, faces: "Tensor", size: int, compute: "Compute", batch: int = 64) -> NDArray[np.int64]:
    """The most probable class of each face uint8 [n, 48, 48], int64 [n]."""
    import torch

    from ..learning.augment import crop_centre

    backbone.eval()
    predicted = []
    with torch.inference_mode(), compute.autocast():
        for part in faces.split(batch):
            crops = crop_centre(part[:, None].to(compute.device).expand(-1, 3, -1, -1), size)
            predicted.append(backbone(crops)[1].argmax(1).cpu().numpy())
    return np.concatenate(predicted)


def score(predicted: NDArray[np.int64], label: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, accuracy per class (None where there is no such face), and the confusion matrix [true][predicted]."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (label, predicted), 1)
    faces = confusion.sum(1)
    return {
        "accuracy": float((predicted == label).mean()),
        "faces": len(label),
        "classes": list(classes),
        "per_class": {
            name: float(confusion[k, k] / faces[k]) if faces[k] else None for k, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }  # fmt: skip
