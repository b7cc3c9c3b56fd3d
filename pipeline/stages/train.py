"""train: the head learns valence and arousal from cached features; or, end to end, all networks do from raw frames."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..learning.model_file import model_path, read_model_metadata
from ..progress import Talk
from ..records import Problem, StageReport, Subject, Work
from ..storage.fingerprint import content_digest, fingerprint
from ..storage.shard import sweep
from .encoder import EncoderPlan, plan_encoder
from .fitting import STAGE, fit_run, smoothing_of
from .frames_of import frame_tracks, frames_digest, subjects_with_frames
from .networks import save_run, start_head, whole_network
from .runs import plain, read_run, stored_key
from .splits import CACHE_REMEDY, Cached, cached_subjects, divide, in_step, redeal

if TYPE_CHECKING:
    import torch

    from ..learning.end_to_end import EndToEnd
    from ..learning.from_cache import FromCache
    from ..learning.loop import FitResult
    from ..processes import Place

CHANGES_NOTHING = {"state_minutes", "tensorboard"}
ONLY_END_TO_END = {
    "batch_end_to_end", "learning_rate_backbone", "learning_rate_stn", "unfreeze_backbone", "unfreeze_stn",
    "box_weight",
}  # fmt: skip
ONLY_FROM_CACHE = {"batch", "noise", "time_mask", "speed"}


@dataclass(frozen=True)
class _Plan:
    """What a run is made from. begin: the model whose head it starts with. note: what is worth saying."""

    key: str
    encoder: EncoderPlan
    begin: Path | None
    training: list[str]
    validation: list[str]
    note: str


def train(
    config: Config,
    data: Path,
    work: Work,
    talk: Talk,
    *,
    run: str = "default",
    end_to_end: bool = False,
    start: str | None = None,
    fold: str | None = None,
) -> StageReport:
    """Trains a model and writes W/train/<run>: model.safetensors, last.safetensors, metrics.jsonl, config.yaml and
    run.json.

    start: the name of a run, or a path, whose head is trained further, end to end all of its networks; how good they
    are before is epoch 0. fold: `2/5`, the second of five ways to deal the subjects of train and validation anew. A
    training that was stopped goes on from its last state, and a run that is up to date is kept. Started by torchrun,
    several processes share each batch, and the first one writes. Raises MissingStageError, ShardError, WeightsError,
    InputError.
    """
    folder = work.run(run)
    shards, subjects = _sources(config, data, work, end_to_end=end_to_end)
    plan = _plan(config, work, shards, subjects, start, fold)
    if stored_key(folder) == plan.key:
        return _report(folder, read_run(folder), kept=(run,))
    for text in (plan.note, *plan.encoder.warnings):
        if text:
            talk.warn(text)

    from ..learning.distributed import joined, own_device
    from ..learning.runtime import pick_device

    device = own_device(pick_device(config.runtime.device), config.runtime.device)
    with joined(device) as here:
        facts = _train(config, work, talk, plan, subjects, shards, run, fold, device, here)
    return _report(folder, facts, made=(run,))


def run_fingerprint(
    config: Config,
    data: Path,
    work: Work,
    *,
    end_to_end: bool = False,
    start: str | None = None,
    fold: str | None = None,
) -> str:
    """What a run bears that is up to date. Raises what train raises before it trains."""
    return _plan(config, work, *_sources(config, data, work, end_to_end=end_to_end), start, fold).key


def _sources(
    config: Config, data: Path, work: Work, *, end_to_end: bool
) -> tuple[dict[str, Cached], dict[str, Subject]]:
    """The feature shards, or end to end the subjects with frames."""
    if end_to_end:
        return {}, subjects_with_frames(config, data, work)
    return in_step(cached_shards(config, work), data, work), {}


def _train(
    config: Config,
    work: Work,
    talk: Talk,
    plan: _Plan,
    subjects: dict[str, Subject],
    shards: dict[str, Cached],
    run: str,
    fold: str | None,
    device: "torch.device",
    here: "Place",
) -> dict[str, Any]:
    """Trains and saves; returns what run.json says. subjects: where it is end to end; else shards."""
    from ..learning.from_cache import FromCache
    from ..learning.runtime import environment, pick_dtype, seed_everything

    end_to_end = bool(subjects)
    folder = work.run(run)
    dtype = pick_dtype(config.runtime.precision, device)
    seed_everything(config.runtime.seed)
    problems: list[Problem] = []
    if end_to_end:
        way, problems = _end_to_end(config, work, plan, subjects, device, dtype)
    else:
        way = _from_cache(config, plan, shards, device, dtype)
    if here.rank:
        seed_everything(config.runtime.seed + here.rank)  # the networks are equal; noise and dropout need not be
    sizes = [f"{len(tracks)} subjects ({sum(map(len, tracks)):,} frames)" for tracks in (way.learned, way.judged)]
    together = f"; {here.world} processes" if here.world > 1 else ""
    talk.say(f"{STAGE}: {sizes[0]} to learn from, {sizes[1]} to judge by{together}")
    if not here.rank:
        sweep(folder)
    started = time.perf_counter()
    result = fit_run(way, config, folder, plan.key, talk, started=plan.begin is not None, writes=not here.rank)
    smoothing = smoothing_of(way, config, talk)
    facts = {
        "run": run,
        "fingerprint": plan.key,
        "end_to_end": end_to_end,
        "encoder": plan.key if end_to_end else plan.encoder.digest,
        "best_epoch": result.best_epoch,
        "epochs": result.history[-1]["epoch"],
        "metrics": plain(_line(result, result.best_epoch)),
        "smoothing": smoothing,
        "fold": fold,
        "train": [track.subject for track in way.learned],
        "validation": [track.subject for track in way.judged],
        "failed": [asdict(problem) for problem in problems],
        "seconds": time.perf_counter() - started,
        "environment": {**environment(device, dtype), "processes": here.world},
    }
    if not here.rank:
        net = whole_network(config, plan.encoder, way.model.cpu()) if isinstance(way, FromCache) else way.model
        save_run(config, folder, net, way.model, result.last, result.history[-1], facts)
    return facts


def _line(result: "FitResult", epoch: int) -> dict[str, Any]:
    return next(line for line in result.history if line["epoch"] == epoch)


def cached_shards(config: Config, work: Work) -> dict[str, Cached]:
    """The feature shards, which have to be of the config's encoder. Raises MissingStageError."""
    shards = cached_subjects(work)
    if not shards:
        raise MissingStageError(f"{work.root / 'features'} holds no features", CACHE_REMEDY)
    encoder = plan_encoder(config, work).digest
    for name, shard in shards.items():
        if shard.encoder != encoder:
            raise MissingStageError(f"the features of {name} come from other weights or settings", CACHE_REMEDY)
    return shards


def _plan(
    config: Config,
    work: Work,
    shards: dict[str, Cached],
    subjects: dict[str, Subject],
    start: str | None,
    fold: str | None,
) -> _Plan:
    encoder = plan_encoder(config, work)
    begin = _begin(work, start)
    training, validation, note = _divide(subjects or shards, fold, config)
    used = sorted((*training, *validation))
    ignored = CHANGES_NOTHING | (ONLY_FROM_CACHE if subjects else ONLY_END_TO_END)
    settings = config.train.model_dump(mode="json", exclude=ignored)
    key = fingerprint(
        settings=[config.clip, config.head, settings, config.smooth, config.runtime.precision, config.runtime.seed],
        features={name: shards[name].fingerprint for name in used if name in shards},
        frames={name: frames_digest(config, subjects[name], work) for name in used if name in subjects},
        validation=validation,
        encoder=encoder.digest,
        start=content_digest(begin) if begin else None,
    )
    return _Plan(key, encoder, begin, training, validation, note)


def _divide(
    known: Mapping[str, Cached] | Mapping[str, Subject], fold: str | None, config: Config
) -> tuple[list[str], list[str], str]:
    splits = {name: it.split for name, it in known.items()}
    if fold is None:
        return divide(splits)
    training, validation, note = divide(redeal(splits, {name: it.video for name, it in known.items()}, fold))
    if config.adapt.epochs > 0:
        note = (
            f"fold {fold}: the backbone was adapted on the whole training split, so it knows the people of every fold, "
            "and figures on them flatter. For honest ones set adapt.epochs to 0, or use the runs on the test split only"
        )
    return training, validation, note


def _begin(work: Work, start: str | None) -> Path | None:
    if start is None:
        return None
    known = [path.name for path in work.runs()]
    path = model_path(work.run(start) if start in known else Path(start).expanduser())
    if not path.is_file():
        raise InputError(f"--start {start}: neither a run nor a model file", f"Runs: {', '.join(known) or 'none'}.")
    read_model_metadata(path)
    return path


def _from_cache(
    config: Config, plan: _Plan, shards: dict[str, Cached], device: "torch.device", dtype: "torch.dtype"
) -> "FromCache":
    from ..learning.from_cache import FromCache
    from ..learning.tracks import FeatureTracks, read_track

    learned, judged = (
        FeatureTracks(annotated([read_track(shards[name].path) for name in names]), device)
        for names in (plan.training, plan.validation)
    )
    head = start_head(config, plan.begin, learned.width)
    return FromCache(head, learned, judged, config, device, dtype, calibrate=plan.begin is None)


def _end_to_end(
    config: Config,
    work: Work,
    plan: _Plan,
    subjects: dict[str, Subject],
    device: "torch.device",
    dtype: "torch.dtype",
) -> tuple["EndToEnd", list[Problem]]:
    from ...models.backbone import FEATURES
    from ..learning.end_to_end import EndToEnd

    learned, problems = frame_tracks(config, [subjects[name] for name in plan.training], work)
    judged, more = frame_tracks(config, [subjects[name] for name in plan.validation], work)
    for tracks in (learned, judged):
        if not tracks:
            raise MissingStageError(f"no subject can be used: {(problems + more)[0]}", "See: affect audit")
    net = whole_network(config, plan.encoder, start_head(config, plan.begin, FEATURES), begin=plan.begin)
    way = EndToEnd(net, annotated(learned), annotated(judged), config, device, dtype, calibrate=plan.begin is None)
    return way, problems + more


def annotated(tracks: Sequence[Any]) -> list[Any]:
    """Those with an annotated frame. Raises MissingStageError where none has one."""
    found = [track for track in tracks if track.valid.any()]
    if not found:
        raise MissingStageError(
            f"none of {len(tracks)} subjects ({tracks[0].subject}, ...) has an annotated frame", "See: affect audit"
        )
    return found


def _report(folder: Path, run: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    metrics = {name: value for name, value in run["metrics"].items() if name.startswith(("validation_", "train_"))}
    facts = {"best_epoch": run["best_epoch"], "epochs": run["epochs"], **metrics, "seconds": run["seconds"]}
    return StageReport(STAGE, folder, failed=tuple(Problem(**it) for it in run["failed"]), facts=facts, **names)
