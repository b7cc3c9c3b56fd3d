"""affect train: trains the head on cached features, or all networks end to end on frames."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..features.encoder import EncoderPlan, named_file, plan_encoder
from ..features.raw_tracks import frame_tracks, frames_digest, subjects_with_frames
from ..learning.model_file import model_path, read_model_info
from ..processes import rank_info
from ..progress import Reporter
from ..records import Problem, StageReport, Subject, Work
from ..runs.build import init_head, save_run, whole_network
from ..runs.fit import STAGE, STATE, fit_run, smoothing_of
from ..runs.folder import plain, read_run, stored_key
from ..runs.splits import Cached, annotated, cached_shards, divide, in_step, split_by_fold
from ..storage.fingerprint import content_digest, fingerprint
from ..storage.shard import sweep

if TYPE_CHECKING:
    from ..learning.end_to_end import EndToEnd
    from ..learning.from_cache import FromCache
    from ..learning.loop import FitResult
    from ..learning.runtime import Compute
    from ..processes import RankInfo

CHANGES_NOTHING = {"state_minutes", "tensorboard"}
ONLY_END_TO_END = {
    "batch_end_to_end", "learning_rate_backbone", "learning_rate_stn", "unfreeze_backbone", "unfreeze_stn",
    "box_weight",
}  # fmt: skip
ONLY_FROM_CACHE = {"batch", "noise", "time_mask", "speed"}


@dataclass(frozen=True)
class RunOptions:
    """The options of `affect train`.

    run: name of the run. start: name of a run, or path of a model, to start from. fold: `2/5` for the second of five
    folds.
    """

    run: str = "default"
    end_to_end: bool = False
    start: str | None = None
    fold: str | None = None


@dataclass(frozen=True)
class RunPlan:
    """The inputs of a run.

    initial: the model file to start from. shards: the cached features by subject; end to end it is empty, and
    `subjects` has the subjects with frames. warnings: what the user should know before the training.
    """

    options: RunOptions
    fingerprint: str
    encoder: EncoderPlan
    initial: Path | None
    shards: dict[str, Cached]
    subjects: dict[str, Subject]
    training: list[str]
    validation: list[str]
    warnings: tuple[str, ...]


def train(
    config: Config,
    data: Path,
    work: Work,
    reporter: Reporter,
    *,
    run: str = "default",
    end_to_end: bool = False,
    start: str | None = None,
    fold: str | None = None,
) -> StageReport:
    """Trains a model and writes W/train/<run>: model.safetensors, last.safetensors, metrics.jsonl, config.yaml and
    run.json.

    start: name of a run, or path of a model, to start from: its head, or all networks if end_to_end. Its metrics
    before the training are epoch 0. fold: `2/5` divides the training and validation subjects into five folds and
    validates on the second. An up-to-date run is kept. An interrupted training continues from its last state. Under
    torchrun, several processes share each batch, and rank 0 writes the files. Raises MissingStageError, ShardError,
    WeightsError, InputError.
    """
    folder, options = work.run(run), RunOptions(run, end_to_end, start, fold)
    plan = plan_run(config, data, work, options) if rank_info().world == 1 else None
    if plan and stored_key(folder) == plan.fingerprint:
        return _report(folder, read_run(folder), kept=(run,))

    from ..learning.distributed import need_agreement, own_device, process_group
    from ..learning.runtime import Compute, pick_device, pick_dtype

    device = own_device(pick_device(config.runtime.device), config.runtime.device)
    with process_group(device) as rank:
        if plan is None:  # several processes: if this fails in one, the others notice that its connection ends
            plan = plan_run(config, data, work, options)
            done = stored_key(folder) == plan.fingerprint
            seen = fingerprint(plan=plan.fingerprint, done=done, state=_size(folder / STATE))
            need_agreement(seen, device, f"data, settings or files of run {run}")
            if done:
                return _report(folder, read_run(folder), kept=(run,))
        for warning in plan.warnings:
            reporter.warning(warning)
        compute = Compute(device, pick_dtype(config.runtime.precision, device))
        facts = _train(config, work, reporter, plan, compute, rank)
    return _report(folder, facts, made=(run,))


def _size(path: Path) -> int | None:
    """The size of a file, None if it is missing. It is opened, because a network disk may remember an earlier size."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError:
        return None


def plan_run(config: Config, data: Path, work: Work, options: RunOptions) -> RunPlan:
    """Finds the inputs of a run and their fingerprint. Raises what train raises before it trains."""
    shards: dict[str, Cached] = {}
    subjects: dict[str, Subject] = {}
    if options.end_to_end:
        subjects = subjects_with_frames(config, data, work)
    else:
        shards = in_step(cached_shards(config, work), data, work)
    encoder = plan_encoder(config, work)
    initial = _initial_model(work, options.start)
    training, validation, note = _divide(subjects or shards, options.fold, config)
    used = sorted((*training, *validation))
    ignored = CHANGES_NOTHING | (ONLY_FROM_CACHE if options.end_to_end else ONLY_END_TO_END)
    settings = config.train.model_dump(mode="json", exclude=ignored)
    key = fingerprint(
        settings=[config.clip, config.head, settings, config.smooth, config.runtime.precision, config.runtime.seed],
        features={name: shards[name].fingerprint for name in used if name in shards},
        frames={name: frames_digest(config, subjects[name], work) for name in used if name in subjects},
        validation=validation,
        encoder=encoder.digest,
        start=content_digest(initial) if initial else None,
    )
    warnings = (*([note] if note else []), *encoder.warnings)
    return RunPlan(options, key, encoder, initial, shards, subjects, training, validation, warnings)


def _train(
    config: Config, work: Work, reporter: Reporter, plan: RunPlan, compute: "Compute", rank: "RankInfo"
) -> dict[str, Any]:
    """Trains and saves the run; returns the content of run.json."""
    from ..learning.from_cache import FromCache
    from ..learning.runtime import environment, seed_everything

    options = plan.options
    folder = work.run(options.run)
    seed_everything(config.runtime.seed)
    problems: list[Problem] = []
    if options.end_to_end:
        task, problems = _end_to_end(config, work, plan, compute)
    else:
        task = _from_cache(config, plan, compute)
    if rank.rank:
        # The weights are equal in all processes. Noise and dropout should differ.
        seed_everything(config.runtime.seed + rank.rank)
    sizes = [
        f"{len(tracks)} subjects ({sum(map(len, tracks)):,} frames)"
        for tracks in (task.train_tracks, task.validation_tracks)
    ]
    processes = f"; {rank.world} processes" if rank.world > 1 else ""
    reporter.info(f"{STAGE}: {sizes[0]} for training, {sizes[1]} for validation{processes}")
    if not rank.rank:
        sweep(folder)
    started = time.perf_counter()
    result = fit_run(
        task, config, folder, plan.fingerprint, reporter, started=plan.initial is not None, writes=not rank.rank
    )
    smoothing = smoothing_of(task, config, reporter)
    facts = {
        "run": options.run,
        "fingerprint": plan.fingerprint,
        "end_to_end": options.end_to_end,
        "encoder": plan.fingerprint if options.end_to_end else plan.encoder.digest,
        "best_epoch": result.best_epoch,
        "epochs": result.history[-1]["epoch"],
        "metrics": plain(_line(result, result.best_epoch)),
        "smoothing": smoothing,
        "fold": options.fold,
        "train": [track.subject for track in task.train_tracks],
        "validation": [track.subject for track in task.validation_tracks],
        "failed": [asdict(problem) for problem in problems],
        "seconds": time.perf_counter() - started,
        "environment": {**environment(compute), "processes": rank.world},
    }
    if not rank.rank:
        net = whole_network(config, plan.encoder, task.model.cpu()) if isinstance(task, FromCache) else task.model
        save_run(config, folder, net, task.model, result.last, result.history[-1], facts)
    return facts


def _line(result: "FitResult", epoch: int) -> dict[str, Any]:
    return next(line for line in result.history if line["epoch"] == epoch)


def _divide(
    known: Mapping[str, Cached] | Mapping[str, Subject], fold: str | None, config: Config
) -> tuple[list[str], list[str], str]:
    splits = {name: it.split for name, it in known.items()}
    if fold is None:
        return divide(splits)
    training, validation, note = divide(split_by_fold(splits, {name: it.video for name, it in known.items()}, fold))
    if config.adapt.epochs > 0:
        note = (
            f"fold {fold}: the backbone was adapted on the whole training split, so it has seen the people of every "
            "fold, and the metrics on them are too high. Set adapt.epochs to 0, or use such runs on the test split only"
        )
    return training, validation, note


def _initial_model(work: Work, start: str | None) -> Path | None:
    if start is None:
        return None
    known = [path.name for path in work.runs()]
    path = model_path(work.run(start) if start in known else named_file(start))
    if not path.is_file():
        raise InputError(
            f"--start {start} is neither a run of {work.root} nor a model file",
            f"Runs: {', '.join(known) or 'none'}.",
        )
    read_model_info(path)
    return path


def _from_cache(config: Config, plan: RunPlan, compute: "Compute") -> "FromCache":
    from ..learning.from_cache import FromCache
    from ..learning.tracks import FeatureTracks, read_track

    train_tracks, validation_tracks = (
        FeatureTracks(annotated([read_track(plan.shards[name].path) for name in names]), compute.device)
        for names in (plan.training, plan.validation)
    )
    head = init_head(config, plan.initial, train_tracks.width)
    return FromCache(head, train_tracks, validation_tracks, config, compute, calibrate=plan.initial is None)


def _end_to_end(config: Config, work: Work, plan: RunPlan, compute: "Compute") -> tuple["EndToEnd", list[Problem]]:
    from ...models.backbone import FEATURES
    from ..learning.end_to_end import EndToEnd

    train_tracks, problems = frame_tracks(config, [plan.subjects[name] for name in plan.training], work)
    validation_tracks, more = frame_tracks(config, [plan.subjects[name] for name in plan.validation], work)
    for tracks in (train_tracks, validation_tracks):
        if not tracks:
            raise MissingStageError(
                f"no subject can be used: {(problems + more)[0]}", "Run `affect audit` for details."
            )
    net = whole_network(config, plan.encoder, init_head(config, plan.initial, FEATURES), begin=plan.initial)
    task = EndToEnd(
        net, annotated(train_tracks), annotated(validation_tracks), config, compute, calibrate=plan.initial is None
    )
    return task, problems + more


def _report(folder: Path, run: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    metrics = {name: value for name, value in run["metrics"].items() if name.startswith(("validation_", "train_"))}
    facts = {"best_epoch": run["best_epoch"], "epochs": run["epochs"], **metrics, "seconds": run["seconds"]}
    return StageReport(STAGE, folder, failed=tuple(Problem(**it) for it in run["failed"]), facts=facts, **names)
