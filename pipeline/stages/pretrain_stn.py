"""affect pretrain stn: trains the STN on face boxes, to locate the face and to detect whether there is one.

Frames come from the frame shards. If a subject has a box file without a box for a frame, the frame shows no face.
Pictures come from the folders of pretrain_stn.pictures.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import AffectError, MissingStageError, ShardError
from ..features.boxed_frames import Boxed, gather, stored_side
from ..features.crops import boxes_digest, fresh_frames
from ..features.encoder import SCRATCH, STN_FORMAT, requested_precision, stored_fingerprint, weights_digest
from ..features.stn_init import init_from, start_weights
from ..ingest.boxed_pictures import pictures_digest
from ..ingest.boxes import read_boxes
from ..ingest.catalog import find_catalog
from ..progress import Reporter
from ..records import Catalog, Problem, StageReport, Subject, Work, training_facts
from ..storage.audit_file import accepted_subjects
from ..storage.checkpoint import read_metadata, save_weights
from ..storage.fingerprint import fingerprint
from ..storage.shard import FrameShard

if TYPE_CHECKING:
    import torch

    from ...models.stn import SpatialTransformer
    from ..learning.stn.train_data import BoxedImages

STAGE = "pretrain-stn"
VERSION = 5
LOST = 0.01
"""A video that lost a larger share of its frames in decoding is not used."""


def pretrain_stn(config: Config, data: Path, work: Work, reporter: Reporter) -> StageReport:
    """Trains the STN on the boxes of the training split and writes weights/stn.safetensors.

    It starts from `pretrain_stn.start`. Without any boxes it keeps these weights, with a warning; with `scratch`, the
    STN is then the identity, and the crop is the whole picture. Raises MissingStageError if there are no frames,
    InputError and WeightsError if the start cannot be used.
    """
    output = work.weights("stn")
    catalog = find_catalog(data)
    subjects = [subject for subject in accepted_subjects(work, catalog) if subject.split != "test"]
    digest = stn_fingerprint(config, subjects, work)
    if stored_fingerprint(output) == digest:
        facts = training_facts(read_metadata(output)["report"])
        return StageReport(STAGE, output, kept=(output.name,), facts=facts)
    (training, problems), (validation, more) = (
        _boxed(config, catalog, [subject for subject in subjects if subject.split == split], work)
        for split in ("train", "validation")
    )
    if not validation and len(training) > 1:
        held = max(1, len(training) // 5)
        training, validation = training[:-held], training[-held:]
        reporter.info(f"no validation subject has boxes: the last {held} of the training split are held out")
    if not training and not config.pretrain_stn.pictures:
        started = start_weights(config)
        result = "keeps its initial weights (see pretrain_stn.start)" if started else "returns the whole picture"
        reporter.warning(
            f"no training subject has boxes: the STN {result}. "
            "Run `affect detect-boxes --data DIR` and then this stage again, or set pretrain_stn.pictures."
        )
    stn, report, damaged = _train(config, training, validation, work, reporter, digest)
    if damaged:  # trained without them, so it is trained again when they are repaired
        digest = stn_fingerprint(config, subjects, work)
    save_weights(
        output,
        stn.state_dict(),
        {
            "format": STN_FORMAT,
            "fingerprint": digest,
            "stn": stn.metadata(),
            "report": report,
        },
    )
    if "iou" in report:
        reporter.info(
            f"validation: mean IoU {report['iou']:.3f}, {report['iou_80']:.1%} of frames at 0.80 or above, "
            f"presence AUROC {_figure(report['presence_auroc'])} ({report['frames']} frames)"
        )
    return StageReport(
        STAGE, output, made=(output.name,), failed=(*problems, *more, *damaged), facts=training_facts(report)
    )


def stn_fingerprint(config: Config, subjects: Sequence[Subject], work: Work) -> str:
    """The fingerprint of up-to-date STN weights. subjects: of the training and validation splits.

    Raises InputError if pretrain_stn.start does not exist.
    """
    start = start_weights(config)
    folders = {"pictures": [pictures_digest(folder) for folder in picture_folders(config)]}
    return fingerprint(
        version=VERSION,
        settings=config.pretrain_stn.model_dump(mode="json", exclude={"pictures"}),
        start=weights_digest(start) if start else None,
        shape=config.stn.model_dump(include={"kind", "view"}),
        subjects=[_source(subject, work) for subject in subjects],
        seed=config.runtime.seed,
        **requested_precision(config),
        **(folders if folders["pictures"] else {}),  # work folders of versions without pictures stay up to date
    )


def picture_folders(config: Config) -> list[Path]:
    """The folders of pretrain_stn.pictures."""
    return [Path(folder).expanduser() for folder in config.pretrain_stn.pictures]


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _known(figure: float) -> float | None:
    """None instead of NaN, which JSON does not have."""
    return None if isnan(figure) else figure


def _source(subject: Subject, work: Work) -> list[Any]:
    shard = work.frames(subject.video)
    if subject.boxes is None or not shard.is_file():
        return [subject.name]
    try:
        with FrameShard(shard) as frames:
            made_from = frames.fingerprint
    except ShardError as error:  # _boxed reports it and leaves the subject out
        made_from = error.problem
    return [subject.name, subject.split, made_from, boxes_digest(subject)]


def _boxed(
    config: Config, catalog: Catalog, subjects: Sequence[Subject], work: Work
) -> tuple[list[Boxed], list[Problem]]:
    """The subjects with boxes and frames, and the problems of subjects whose boxes or frames cannot be read or are out
    of date.

    Videos that lost frames in decoding are left out, because their other frames can be damaged too.
    """
    if subjects and not any(work.frames(subject.video).is_file() for subject in subjects):
        raise MissingStageError(
            f"{work.root / 'frames'}: contains no video of this data set", "Run `affect extract-frames`."
        )
    found, problems = [], []
    for subject in subjects:
        shard = work.frames(subject.video)
        if subject.boxes is None or not shard.is_file():
            continue
        try:
            if fresh_frames(config, catalog.video(subject.video), work) is None:
                raise ShardError(
                    f"{shard}: was written for an older version of the video or for other settings",
                    "Run `affect extract-frames`.",
                )
            boxes = read_boxes(subject.boxes)
            with FrameShard(shard) as frames:
                count = len(frames)
                broken = len(frames.attributes["lost"]) > LOST * count
        except AffectError as error:
            problems.append(Problem("refused", subject.name, error.problem, error.remedy))
            continue
        if len(boxes) and count and not broken:
            found.append(Boxed(subject, shard, boxes, count))
    return found, problems


def _train(
    config: Config, training: list[Boxed], validation: list[Boxed], work: Work, reporter: Reporter, digest: str
) -> tuple["SpatialTransformer", dict[str, Any], list[Problem]]:
    from ...models.stn import CANDIDATES, SpatialTransformer
    from ..learning.loop import FitSettings, ResumeFile, SimpleTask, fit
    from ..learning.runtime import environment, pick_compute, seed_everything
    from ..learning.stn.compose import Composer
    from ..learning.stn.negatives import add_background_negatives
    from ..learning.stn.objective import calibrate_presence, concatenate, measure, stn_loss
    from ..learning.stn.picture_batches import Mixture, draw_mixed_batches, load_picture_set
    from ..learning.stn.train_data import ImagePool

    settings = config.pretrain_stn
    compute = pick_compute(config.runtime)
    device = compute.device
    seed_everything(config.runtime.seed)
    stn = SpatialTransformer(**config.stn.model_dump(include={"kind", "view", "crop", "margin"}), candidates=CANDIDATES)
    start = start_weights(config)
    begun = {"start": settings.start if start else SCRATCH, "environment": environment(compute)}
    if start:
        init_from(stn, start)
    elif not training or settings.epochs == 0:
        stn.reset_to_whole_picture()
    side = stored_side(config)
    pictures, problems = load_picture_set(picture_folders(config), side)
    if not (training or pictures.training) or not (start or settings.epochs):
        return stn, {"trained": False, **begun}, problems
    stn = stn.to(device)
    shown, more = gather(config, training, settings.frames, device, reporter)
    problems += more
    truth, more = gather(config, validation, settings.validation_frames, device, reporter)
    problems += more
    if not len(shown) and not pictures.training:
        if not start:
            stn.reset_to_whole_picture()
        return stn.cpu(), {"trained": False, **begun}, problems
    truth = concatenate([part for part in (truth, pictures.truth) if len(part)])
    truth = truth if len(truth) else shown
    own, shown = len(shown), add_background_negatives(shown, config.runtime.seed)
    state = work.weights("stn").with_suffix(".state")
    groups = [{"params": list(stn.parameters()), "lr": settings.learning_rate}]

    def loss(batch: "BoxedImages") -> tuple["torch.Tensor", dict[str, Any]]:
        return stn_loss(stn, batch)

    mixture = Mixture(
        ImagePool(shown) if len(shown) else None,
        Composer(pictures.training, side, config.runtime.seed) if pictures.training else None,
        settings.batch,
        deepcopy(stn).cpu().eval() if pictures.training else None,
    )

    def batches(epoch: int) -> Iterator["BoxedImages"]:
        if mixture.scout:
            mixture.scout.load_state_dict(stn.state_dict())
        return draw_mixed_batches(mixture, config.stn.view, config.runtime.seed * 100003 + epoch, device)

    task = SimpleTask(stn, batches, loss, lambda: measure(stn, truth, device), groups, mixture.steps())
    fit_settings = FitSettings(
        score="score", epochs=settings.epochs, ema=settings.ema, warmup=0.1, weight_decay=0.01, gradient_clip=5.0,
        schedule="cosine", validate_start=start is not None,
    )  # fmt: skip
    result = fit(task, fit_settings, compute, reporter, STAGE, resume=ResumeFile(state, digest))
    stn.eval()
    calibrate_presence(stn, truth, device)
    report: dict[str, Any] = {"trained": settings.epochs > 0, **begun, **measure(stn, truth, device)}
    del report["score"]
    report["presence_auroc"] = _known(report["presence_auroc"])
    state.unlink(missing_ok=True)
    report |= {
        "frames": len(truth),
        "training_frames": own,
        **({"training_pictures": len(pictures.training)} if pictures.training else {}),
        "best_epoch": result.best_epoch,
        "seconds": round(sum(epoch.get("train_seconds", 0) for epoch in result.history), 1),
        "history": [{name: _known(figure) for name, figure in line.items()} for line in result.history],
    }
    return stn.cpu(), report, problems
