"""affect adapt: fine-tunes the backbone on single frames of the training split, before the features are cached.

The crops are sampled once, a little wider than the backbone needs. Each batch shifts, rotates and recolours them, so
that the backbone learns the expression and not the person, the light or the exact box.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import InputError
from ..features.crops import (
    CropBoxes,
    annotation_digest,
    boxes_digest,
    configured_boxes,
    crop_source_digest,
    locate_crops,
    read_crops,
)
from ..features.encoder import (
    BACKBONE_FORMAT,
    SCRATCH,
    EncoderPlan,
    build_encoder,
    plan_start,
    requested_precision,
    stn_digest,
    stored_fingerprint,
    weights_digest,
)
from ..features.frame_sampling import FrameSample, sample_frames
from ..ingest.catalog import find_catalog
from ..progress import Reporter
from ..records import StageReport, Subject, Work, training_facts
from ..storage.audit_file import accepted_subjects
from ..storage.checkpoint import read_metadata, save_weights
from ..storage.fingerprint import fingerprint
from ..storage.shard import FrameShard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...models.backbone import Backbone
    from ...models.stn import SpatialTransformer
    from ..learning.loop import FitSettings, SimpleTask
    from ..learning.runtime import Compute

STAGE = "adapt"
VERSION = 3
WIDER = 0.1
"""Extra width of the stored crops on each side, as a share of stn.crop."""
FACE = 0.5
"""Training leaves out frames whose face probability is below this."""


def adapt(config: Config, data: Path, work: Work, reporter: Reporter) -> StageReport:
    """Fine-tunes the backbone and writes weights/adapted.safetensors. Does nothing if adapt.epochs is 0.

    Needs the frames, and the STN if stn.localiser is stn. Starts from weights/backbone.safetensors, or from random
    weights if that file does not exist. Raises MissingStageError, InputError, ShardError.
    """
    output = work.weights("adapted")
    if config.adapt.epochs == 0:
        return StageReport(STAGE, output)
    plan = plan_start(config, work)
    catalog = find_catalog(data)
    subjects = accepted_subjects(work, catalog)
    digest = adapted_fingerprint(config, subjects, work)
    if stored_fingerprint(output) == digest:
        return StageReport(STAGE, output, kept=(output.name,), facts=training_facts(read_metadata(output)["report"]))
    for warning in plan.warnings:
        reporter.warning(warning)
    training, problems = sample_frames(config, catalog, subjects, work, "train", config.adapt.frames)
    validation, more = sample_frames(config, catalog, subjects, work, "validation", config.adapt.validation_frames)
    problems += more
    backbone, report = _train(config, plan, training, validation, work, reporter, digest)
    metadata = {
        "format": BACKBONE_FORMAT,
        "fingerprint": digest,
        "backbone": backbone.metadata(),
        "stn_digest": stn_digest(config, work),
        "report": report,
    }
    save_weights(output, backbone.state_dict(), metadata)
    reporter.info(
        f"single validation frames: CCC {report['ccc_valence']:.3f} valence, {report['ccc_arousal']:.3f} arousal "
        f"({report['frames']} frames)"
    )
    return StageReport(STAGE, output, made=(output.name,), failed=tuple(problems), facts=training_facts(report))


def adapted_fingerprint(config: Config, subjects: Sequence[Subject], work: Work) -> str:
    """The fingerprint of up-to-date adapted weights. Raises MissingStageError, ShardError."""
    return fingerprint(
        version=VERSION,
        settings=config.adapt,
        stn=stn_digest(config, work),
        start=weights_digest(plan_start(config, work).backbone),
        subjects=[_source(config, subject, work) for subject in subjects if subject.split != "test"],
        seed=config.runtime.seed,
        **requested_precision(config),
    )


def _source(config: Config, subject: Subject, work: Work) -> list[Any]:
    shard = work.frames(subject.video)
    if not shard.is_file():
        return [subject.name, subject.split]
    with FrameShard(shard) as frames:
        made_from = frames.fingerprint
    # With every localiser, training leaves out frames without a box.
    boxes = boxes_digest(subject) if subject.split == "train" else None
    return [
        subject.name,
        subject.split,
        made_from,
        annotation_digest(subject),
        crop_source_digest(config, subject),
        boxes,
    ]


def _train(
    config: Config,
    plan: EncoderPlan,
    training: list[FrameSample],
    validation: list[FrameSample],
    work: Work,
    reporter: Reporter,
    digest: str,
) -> tuple["Backbone", dict[str, Any]]:
    from ..learning.loop import ResumeFile, fit
    from ..learning.runtime import environment, pick_compute, seed_everything

    compute = pick_compute(config.runtime)
    seed_everything(config.runtime.seed)
    stn, backbone = build_encoder(config, plan)
    crops, target = gather(config, stn.to(compute.device), training, compute.device, reporter, faces_only=True)
    seen = gather(config, stn, validation, compute.device, reporter, faces_only=False)
    if len(crops) < 2:
        raise InputError("no training frame contains a face", "Check the crops of the STN with `affect report`.")
    epochs = (plan.backbone == SCRATCH and config.adapt.epochs_from_scratch) or config.adapt.epochs
    task, settings = adaptation(config, backbone, (crops, target), seen, compute, epochs=epochs)
    state = work.weights("adapted").with_suffix(".state")
    result = fit(task, settings, compute, reporter, STAGE, resume=ResumeFile(state, digest))
    report = task.validate() | {
        "best_epoch": result.best_epoch,
        "training_frames": len(crops),
        "start": str(plan.backbone),
        "history": result.history,
        "environment": environment(compute),
    }
    state.unlink(missing_ok=True)
    return backbone.cpu(), report


def adaptation(
    config: Config,
    backbone: "Backbone",
    training: tuple["Tensor", "Tensor"],
    validation: tuple["Tensor", "Tensor"],
    compute: "Compute",
    *,
    epochs: int,
) -> tuple["SimpleTask", "FitSettings"]:
    """The training of a backbone as a task of `fit`. training, validation: crops and targets, see `gather`."""
    import torch
    from torch import nn

    from ...models.losses import affect_loss
    from ..learning.augment import Augmentation, augment
    from ..learning.loop import FitSettings, SimpleTask
    from ..learning.metrics import pooled
    from ..learning.prefetch import prefetch

    settings, size, device = config.adapt, config.stn.crop, compute.device
    (crops, target), (seen, truth) = training, validation
    surround = crops.shape[-1] / size - 1
    backbone.to(device)
    head = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(2048, 2), nn.Tanh()).to(device)
    batch = min(settings.batch, len(crops))
    steps = len(crops) // batch
    augmentation = Augmentation(
        rotate=6, scale=0.08, shift=0.04, shear=0.03, brightness=0.1, contrast=0.2, channels=0.2, invert_hue=0.1,
        shade=0.15, grey=0.15, blur=0.15, noise=0.2, erase=0.1,
    )  # fmt: skip

    def batches(epoch: int) -> Iterator[tuple["Tensor", "Tensor"]]:
        generator = torch.Generator().manual_seed(config.runtime.seed * 100003 + epoch)
        parts = torch.randperm(len(crops), generator=generator)[: steps * batch].split(batch)
        seeds = torch.randint(2**60, (steps,), generator=generator).tolist()

        def make(given: tuple["Tensor", int]) -> tuple["Tensor", "Tensor"]:
            rows, seed = given
            changes = torch.Generator().manual_seed(seed)
            faces = augment(crops[rows].to(device), size, augmentation, changes, surround=surround)
            return faces, target[rows].to(device)

        return prefetch(zip(parts, seeds, strict=True), make, threads=1)

    def loss(pair: tuple["Tensor", "Tensor"]) -> tuple["Tensor", dict[str, Any]]:
        predicted = head(backbone.features(pair[0])).float()
        return affect_loss("ccc+mse", predicted, pair[1]), {}

    def validate() -> dict[str, float]:
        predicted = predict_frames(backbone, head, seen, size, compute)
        return pooled(predicted, truth.numpy(), np.ones(len(predicted), np.bool_))

    trained = [value for name, value in backbone.named_parameters() if not name.startswith("network.fc")]
    groups = [{"params": trained + list(head.parameters()), "lr": settings.learning_rate}]
    task = SimpleTask(nn.ModuleList((backbone, head)), batches, loss, validate, groups, steps)
    return task, FitSettings(
        score="ccc_mean", epochs=epochs, ema=settings.ema, warmup=0.1, weight_decay=settings.weight_decay,
        gradient_clip=1.0, schedule="cosine",
    )  # fmt: skip


def gather(
    config: Config,
    stn: "SpatialTransformer",
    draws: Sequence[FrameSample],
    device: "torch.device",
    reporter: Reporter,
    *,
    faces_only: bool,
) -> tuple["Tensor", "Tensor"]:
    """The crops of the sampled frames, uint8 [n, 3, w, w], `WIDER` than stn.crop on each side, and their targets [n,
    2].

    faces_only: leave out frames without a face.
    """
    import torch

    from ...models.stn import SpatialTransformer

    size = config.stn.crop
    wide = size + 2 * round(WIDER * size)
    sampler = SpatialTransformer(stn.kind, stn.view, wide, stn.margin).to(device)
    stretch = torch.tensor([wide / size, wide / size, 1.0], device=device)
    crops, targets = [], []
    with torch.inference_mode(), reporter.progress("crops", sum(len(draw.rows) for draw in draws), "frames") as tracker:
        for draw in draws:
            with FrameShard(draw.shard) as shard:
                width, height = shard.attributes["width"], shard.attributes["height"]
                index = shard.read("index")[draw.rows]
                places = configured_boxes(config, draw.subject, index, width, height)
                for start in range(0, len(draw.rows), config.features.batch):
                    rows = slice(start, start + config.features.batch)
                    frames = _frames(config, shard, draw, places, rows).to(device)
                    theta, presence = locate_crops(stn, frames, draw.subject.region, places, rows, device)
                    kept = (presence >= FACE).cpu() if faces_only else torch.ones(len(frames), dtype=torch.bool)
                    found = sampler.sample(frames[kept.to(device)], theta[kept.to(device)] * stretch)
                    crops.append(found.round().clamp(0, 255).to("cpu", torch.uint8))
                    targets.append(torch.from_numpy(draw.target[rows])[kept])
                    tracker.advance(len(frames))
    return torch.cat(crops), torch.cat(targets)


def _frames(config: Config, shard: FrameShard, draw: FrameSample, places: CropBoxes | None, rows: slice) -> "Tensor":
    if places is not None and places.crops is not None:
        return read_crops(places.crops[rows], config.frames.size)
    return shard.frames(draw.rows[rows])


def predict_frames(
    backbone: Any, head: Any, crops: "Tensor", size: int, compute: "Compute", batch: int = 64
) -> NDArray[np.float32]:
    """Valence and arousal, float32 [n, 2], of crops uint8 [n, 3, w, w] that are wider than `size`."""
    import torch

    from ..learning.augment import crop_centre

    backbone.eval()
    head.eval()
    predicted = []
    with torch.inference_mode(), compute.autocast():
        for part in crops.split(batch):
            faces = crop_centre(part.to(compute.device), size, surround=crops.shape[-1] / size - 1)
            predicted.append(head(backbone.features(faces)).float().cpu().numpy())
    return np.concatenate(predicted)
