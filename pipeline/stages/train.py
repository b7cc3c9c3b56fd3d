"""train: the head learns valence and arousal from cached features; or, end to end, all networks do from raw frames."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs import schema
from ...configs.schema import Config
from ..errors import InputError, MissingStageError, WeightsError
from ..learning.model_file import NAME, model_path, read_model_metadata, save_model
from ..progress import Talk
from ..records import Problem, StageReport, Subject, Work
from ..storage.fingerprint import content_digest, fingerprint
from ..storage.shard import sweep
from .card import CARD, model_card
from .encoder import EncoderPlan, build_encoder, plan_encoder
from .fitting import STAGE, fit_run, smoothing_of
from .frames_of import frame_tracks, frames_digest, subjects_with_frames
from .runs import plain, read_run, stored_key, write_text
from .splits import Cached, cached_subjects, divide, redeal

if TYPE_CHECKING:
    import torch

    from ...models.affect_net import AffectNet
    from ...models.head import TemporalHead
    from ..learning.end_to_end import EndToEnd
    from ..learning.from_cache import FromCache

CACHE_REMEDY = "Run: affect cache-features --data D --work W"
NO_MATTER = {"tensorboard"}
ONLY_END_TO_END = {"batch_end_to_end", "learning_rate_backbone", "learning_rate_stn", "box_weight"}


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
    """Trains a model and writes W/train/<run>: model.safetensors, metrics.jsonl, config.yaml and run.json.

    start: the name of a run, or a path, whose head is trained further. fold: `2/5`, the second of five ways to deal the
    subjects of train and validation anew. A training that was stopped goes on after its last whole epoch, and a run
    that is up to date is kept. Raises MissingStageError, ShardError, WeightsError, InputError.
    """
    folder = work.run(run)
    shards = {} if end_to_end else cached_shards(config, work)
    subjects = subjects_with_frames(data, work) if end_to_end else {}
    plan = _plan(config, work, shards, subjects, start, fold)
    if stored_key(folder) == plan.key:
        return _report(folder, read_run(folder), kept=(run,))
    for text in (plan.note, *plan.encoder.warnings):
        if text:
            talk.warn(text)

    from ..learning.runtime import environment, pick_device, pick_dtype, seed_everything

    device = pick_device(config.runtime.device)
    dtype = pick_dtype(config.runtime.precision, device)
    seed_everything(config.runtime.seed)
    problems: list[Problem] = []
    if end_to_end:
        way, problems = _end_to_end(config, work, plan, subjects, device, dtype)
    else:
        way = _from_cache(config, plan, shards, device, dtype)
    sizes = [f"{len(tracks)} subjects ({sum(map(len, tracks)):,} frames)" for tracks in (way.learned, way.judged)]
    talk.say(f"{STAGE}: {sizes[0]} to learn from, {sizes[1]} to judge by")
    sweep(folder)
    started = time.perf_counter()
    result = fit_run(way, config, folder, plan.key, talk)
    smoothing = smoothing_of(way, config, talk)
    facts = {
        "run": run,
        "fingerprint": plan.key,
        "end_to_end": end_to_end,
        "encoder": plan.key if end_to_end else plan.encoder.digest,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "metrics": plain(result.history[result.best_epoch - 1]),
        "smoothing": smoothing,
        "fold": fold,
        "train": [track.subject for track in way.learned],
        "validation": [track.subject for track in way.judged],
        "failed": [asdict(problem) for problem in problems],
        "seconds": time.perf_counter() - started,
        "environment": environment(device, dtype),
    }
    _save(config, folder, _whole(config, plan, way), facts)
    return _report(folder, facts, made=(run,))


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
    ignored = NO_MATTER if subjects else NO_MATTER | ONLY_END_TO_END
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
    head = _head(config, plan, learned.width)
    return FromCache(head, learned, judged, config, device, dtype, calibrate=plan.begin is None)


def _end_to_end(
    config: Config,
    work: Work,
    plan: _Plan,
    subjects: dict[str, Subject],
    device: "torch.device",
    dtype: "torch.dtype",
) -> tuple["EndToEnd", list[Problem]]:
    from ...models.affect_net import AffectNet
    from ...models.backbone import FEATURES
    from ..learning.end_to_end import EndToEnd

    learned, problems = frame_tracks(config, [subjects[name] for name in plan.training], work)
    judged, more = frame_tracks(config, [subjects[name] for name in plan.validation], work)
    for tracks in (learned, judged):
        if not tracks:
            raise MissingStageError(f"no subject can be used: {(problems + more)[0]}", "See: affect audit")
    net = AffectNet(*build_encoder(config, plan.encoder), _head(config, plan, FEATURES))
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


def _head(config: Config, plan: _Plan, width: int) -> "TemporalHead":
    from ...models.head import TemporalHead
    from ..learning.model_file import load_model

    head = TemporalHead(width, **config.head.model_dump())
    if plan.begin:
        try:
            head.load_state_dict(load_model(plan.begin)[0].head.state_dict())
        except RuntimeError as error:
            raise WeightsError(
                f"{plan.begin}: its head has another shape than this config's", "Use the config it was trained with."
            ) from error
    return head


def _whole(config: Config, plan: _Plan, way: "FromCache | EndToEnd") -> "AffectNet":
    from ...models.affect_net import AffectNet

    if isinstance(way.model, AffectNet):
        return way.model
    return AffectNet(*build_encoder(config, plan.encoder), way.model.cpu())


def _save(config: Config, folder: Path, net: "AffectNet", facts: dict[str, Any]) -> None:
    """The model last: while it is missing or an older one, the run is not up to date."""
    write_text(folder / "config.yaml", schema.dump(config))
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")
    told = {"config": config.model_dump(mode="json"), "run": facts["run"], "metrics": facts["metrics"]}
    write_text(folder / CARD, model_card(told, facts))
    save_model(
        folder / NAME,
        net,
        fingerprint=facts["fingerprint"],
        encoder=facts["encoder"],
        config=config.model_dump(mode="json"),
        run=facts["run"],
        best_epoch=facts["best_epoch"],
        metrics=facts["metrics"],
        smoothing={name: facts["smoothing"][name] for name in ("kind", "width")},
    )
    (folder / "state.pt").unlink(missing_ok=True)


def _report(folder: Path, run: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    metrics = {name: value for name, value in run["metrics"].items() if name.startswith(("validation_", "train_"))}
    facts = {"best_epoch": run["best_epoch"], "epochs": run["epochs"], **metrics, "seconds": run["seconds"]}
    return StageReport(STAGE, folder, failed=tuple(Problem(**it) for it in run["failed"]), facts=facts, **names)
