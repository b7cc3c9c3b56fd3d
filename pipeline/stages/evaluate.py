"""affect evaluate: metrics of a trained model on all frames of a split, pooled and per subject."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..features.raw_tracks import frame_tracks, frames_digest, subjects_with_frames
from ..inference.intervals import interval_settings
from ..inference.tables import INTERVAL_COLUMNS
from ..learning.metrics import pooled
from ..learning.model_file import ModelInfo, read_model_info
from ..names import csv_text
from ..progress import Reporter
from ..records import Problem, StageReport, Work
from ..runs.folder import read_result, read_run
from ..runs.interval_figures import add_interval_figures
from ..runs.model_card import CARD, card_facts, model_card
from ..runs.splits import Cached, cached_subjects, evaluated, in_step
from ..storage.atomic import write_text
from ..storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray


STAGE = "evaluate"
COLUMNS = ("subject", "frame", "time", "valence", "arousal", "valence_true", "arousal_true", "valid")


@dataclass(frozen=True)
class _Run:
    """A run to be evaluated. facts: its run.json. info: of its model."""

    name: str
    folder: Path
    facts: dict[str, Any]
    info: ModelInfo


def evaluate(
    config: Config,
    data: Path,
    work: Work,
    reporter: Reporter,
    *,
    run: str | Sequence[str] = "default",
    split: str = "validation",
    calibrate: bool = False,
) -> StageReport:
    """Writes evaluation-<split>.json and predictions-<split>.csv into W/train/<run>. The metrics are the facts.

    Features come from the cache if the encoder of the run computed them, otherwise from raw frames. The windows have
    the length of the run and the hop of the config. Predictions are smoothed with the filter that the model stores. In
    the CSV file, frames count from 0, and the true values of a frame that is not valid are empty.

    With intervals (`predict.level`), their ends are the last columns of the CSV file, and the facts have their coverage
    and mean width. They are computed from cached features only. calibrate: first calibrate the intervals of the run on
    its validation subjects and write them into its model file.

    run: the predictions of several runs with one encoder are averaged, and the folder is W/train/<run>+<run>. If runs
    were trained on folds, each subject is predicted by the runs that were not trained on it. Raises MissingStageError,
    WeightsError, ShardError, InputError.
    """
    runs = _runs(work, [run] if isinstance(run, str) else list(dict.fromkeys(run)))
    first = runs[0]
    if calibrate:
        _calibrate(work, runs, reporter)
    folder = first.folder if len(runs) == 1 else work.run("+".join(it.name for it in runs))
    its_config = first.info.config
    shards = {name: shard for name, shard in cached_subjects(work).items() if shard.encoder == first.info.encoder}
    shards = in_step(shards, data, work)
    asked = _asked({name: shard.split for name, shard in shards.items()}, split, runs)
    subjects = {}
    if not asked:
        subjects = subjects_with_frames(config, data, work)
        asked = _asked({name: subject.split for name, subject in subjects.items()}, split, runs)
    if not asked:
        raise MissingStageError(
            f"no subject of the {split} split has features or frames", "Check --split, or run the earlier stages again."
        )
    sources = {
        name: frames_digest(its_config, subjects[name], work) if subjects else shards[name].fingerprint
        for name in asked
    }
    models = [it.info.fingerprint for it in runs]
    options = {"hop": config.clip.hop, "carry": config.clip.carry, "precision": config.runtime.precision}
    intervals = {} if subjects else interval_settings([it.folder for it in runs], config, reporter)
    key = fingerprint(model=models, split=split, sources=sources, **options, **intervals)
    output = folder / f"evaluation-{split}.json"
    table = folder / f"predictions-{split}.csv"
    kept = read_result(output, key) if table.is_file() else None
    if kept:
        return _report(output, kept, kept=(split,))

    if subjects:
        reporter.info(f"{STAGE}: the cached features are from another encoder: reading the raw frames")
        tracks, problems = frame_tracks(its_config, [subjects[name] for name in asked], work)
        if not tracks:
            raise MissingStageError(f"no subject can be used: {problems[0]}", "See: affect audit")
    else:
        tracks, problems = _tracks(shards, list(asked)), []
    values, computed = _predict(config, runs, asked, tracks, bool(subjects), reporter)
    figures = _figures(tracks, values)
    ends = None
    if intervals:
        ends = _ends(config, runs, asked, tracks, values)
        add_interval_figures(figures, tracks, ends, config.predict.level)
    write_text(table, _csv(tracks, values, ends))
    record: dict[str, Any] = {"fingerprint": key, "run": folder.name, "split": split}
    record |= {"failed": [asdict(problem) for problem in problems], "runs": len(runs), "environment": computed}
    if len(runs) == 1:
        record["smoothing"] = dict(first.info.smoothing)
    write_text(output, json.dumps(record | figures, indent=1) + "\n")
    if len(runs) == 1:
        write_text(folder / CARD, model_card(first.info.metadata, card_facts(folder)))
    return _report(output, record | figures, made=(split,))


def _runs(work: Work, names: Sequence[str]) -> list[_Run]:
    runs = [_Run(it, work.run(it), read_run(work.run(it)), read_model_info(work.run(it))) for it in names]
    for it in runs[1:]:
        if it.info.encoder != runs[0].info.encoder:
            raise InputError(
                f"runs {runs[0].name} and {it.name} use different encoders, so they cannot share cached features",
                "Evaluate each run alone, or average their predictions: affect predict VIDEO --model A --model B.",
            )
    return runs


def _asked(splits: dict[str, str], split: str, runs: Sequence[_Run]) -> dict[str, list[int]]:
    """The subjects to predict, by name, and the indices of the runs that predict them."""
    asked: dict[str, list[int]] = {}
    for number, it in enumerate(runs):
        for name in evaluated(splits, split, it.facts):
            asked.setdefault(name, []).append(number)
    return dict(sorted(asked.items()))


def _report(output: Path, record: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    own = ("fingerprint", "run", "runs", "split", "failed", "environment")
    facts = {name: value for name, value in record.items() if name not in own}
    return StageReport(STAGE, output, failed=tuple(Problem(**it) for it in record["failed"]), facts=facts, **names)


def _tracks(shards: dict[str, Cached], names: list[str]) -> list[Any]:
    from ..learning.tracks import read_track

    return [read_track(shards[name].path) for name in names]


def _predict(
    config: Config, runs: Sequence[_Run], asked: dict[str, list[int]], tracks: list[Any], raw: bool, reporter: Reporter
) -> tuple[list["NDArray[np.float32]"], dict[str, Any]]:
    """The values of each track, averaged over the runs that predict it, and the environment of the computation."""
    from ..inference.predictor import Predictor
    from ..learning.runtime import environment, pick_compute
    from ..learning.tracks import FeatureTracks

    compute = pick_compute(config.runtime)
    cached = None if raw else FeatureTracks(tracks, compute.device)
    sums = [np.zeros((len(track), 2)) for track in tracks]
    total = sum(len(track) * len(asked[track.subject]) for track in tracks)
    with reporter.progress(STAGE, total, "frames") as tracker:
        for which, it in enumerate(runs):
            predictor = Predictor(it.folder, config)
            for number, track in enumerate(tracks):
                if which not in asked[track.subject]:
                    continue
                if cached:
                    sums[number] += predictor.predict_features(cached.features(number))
                else:
                    sums[number] += predictor.predict_frames(track)
                tracker.advance(len(track))
    values = [(own / len(asked[track.subject])).astype(np.float32) for own, track in zip(sums, tracks, strict=True)]
    return values, environment(compute)


def _figures(tracks: list[Any], values: list["NDArray[np.float32]"]) -> dict[str, Any]:
    per_subject = {
        track.subject: pooled(value, track.target, track.valid)
        for track, value in zip(tracks, values, strict=True)
        if track.valid.any()
    }
    if not per_subject:
        raise MissingStageError(
            "no frame of the split is annotated", "The test split of Aff-Wild2 has no public labels."
        )
    target = np.concatenate([track.target for track in tracks])
    valid = np.concatenate([track.valid for track in tracks])
    return {
        **pooled(np.concatenate(values), target, valid),
        "subjects": len(per_subject),
        "per_subject": per_subject,
    }


def _calibrate(work: Work, runs: Sequence[_Run], reporter: Reporter) -> None:
    """Calibrates the intervals of one run on the cached features of its validation subjects."""
    from ..runs.calibrate import calibrate_run, describe

    run = runs[0]
    shards = {name: shard for name, shard in cached_subjects(work).items() if shard.encoder == run.info.encoder}
    names = [name for name in run.facts["validation"] if name in shards]
    if len(runs) > 1 or not names:
        raise InputError(
            "--calibrate needs one run whose encoder computed the cached features",
            "Give one run, and run `affect cache-features` with its settings. A run that was trained end to end is "
            "calibrated at the end of the training.",
        )
    modes = calibrate_run(run.folder, {name: shards[name].path for name in names})
    reporter.info(f"{STAGE}: {describe(modes, run.info.config.predict.level)}")


def _ends(
    config: Config,
    runs: Sequence[_Run],
    asked: dict[str, list[int]],
    tracks: list[Any],
    values: list["NDArray[np.float32]"],
) -> list["NDArray[np.float64]"]:
    """The ends of the intervals of each track, [n, 2, 2], averaged over the runs that predict it."""
    from ..inference.predictor import Predictor
    from ..runs.calibrate import track_ends

    sums = [np.zeros((len(track), 2, 2)) for track in tracks]
    for which, it in enumerate(runs):
        predictor = Predictor(it.folder, config)
        for number, track in enumerate(tracks):
            if which in asked[track.subject]:
                sums[number] += track_ends(predictor, track, values[number]) / len(asked[track.subject])
    return sums


def _csv(
    tracks: list[Any], values: list["NDArray[np.float32]"], ends: list["NDArray[np.float64]"] | None = None
) -> str:
    rows: list[tuple[Any, ...]] = []
    for number, (track, value) in enumerate(zip(tracks, values, strict=True)):
        for row in range(len(track)):
            interval = [] if ends is None else [f"{it:.6f}" for it in ends[number][row].ravel().tolist()]
            true = [f"{it:.6g}" for it in track.target[row]] if track.valid[row] else ["", ""]
            own = (f"{value[row, 0]:.6f}", f"{value[row, 1]:.6f}")
            rows.append(
                (
                    track.subject,
                    track.index[row],
                    f"{track.time[row]:.6f}",
                    *own,
                    *true,
                    int(track.valid[row]),
                    *interval,
                )
            )
    return csv_text(COLUMNS if ends is None else (*COLUMNS, *INTERVAL_COLUMNS), rows)
