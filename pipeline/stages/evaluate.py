"""evaluate: a trained model on all frames of a split, pooled and subject by subject."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..learning.metrics import pooled
from ..learning.model_file import NAME, read_model_metadata
from ..learning.smoothing import NONE
from ..progress import Talk
from ..records import Problem, StageReport, Work
from ..storage.fingerprint import fingerprint
from .card import CARD, card_facts, model_card
from .frames_of import frame_tracks, frames_digest, subjects_with_frames
from .runs import read_run, write_text
from .splits import Cached, cached_subjects, evaluated, in_step

if TYPE_CHECKING:
    from numpy.typing import NDArray


STAGE = "evaluate"
COLUMNS = ("subject", "frame", "time", "valence", "arousal", "valence_true", "arousal_true", "valid")


@dataclass(frozen=True)
class _Run:
    """A run to be evaluated. facts: its run.json. metadata: its model's."""

    name: str
    folder: Path
    facts: dict[str, Any]
    metadata: dict[str, Any]


def evaluate(
    config: Config,
    data: Path,
    work: Work,
    talk: Talk,
    *,
    run: str | Sequence[str] = "default",
    split: str = "validation",
) -> StageReport:
    """Writes evaluation-<split>.json and predictions-<split>.csv into W/train/<run>; the figures are the facts.

    Features come from the cache if the run's own encoder made them, else from raw frames. The windows are as long as
    the run's, their hop is the config's. Predictions are smoothed as the run's model says. In the CSV frames count from
    0, and the true values of a frame that is not valid are empty.
    run: of several runs with one encoder each frame's predictions are averaged, and the folder is W/train/<run>+<run>.
    Of runs on folds each subject is predicted by those that did not learn from it.
    Raises MissingStageError, WeightsError, ShardError, InputError.
    """
    runs = _runs(work, [run] if isinstance(run, str) else list(dict.fromkeys(run)))
    first = runs[0]
    folder = first.folder if len(runs) == 1 else work.run("+".join(it.name for it in runs))
    its_config = Config.model_validate(first.metadata["config"])
    encoder = first.metadata["encoder"]
    shards = {name: shard for name, shard in cached_subjects(work).items() if shard.encoder == encoder}
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
    models = [it.metadata["fingerprint"] for it in runs]
    how = {"hop": config.clip.hop, "carry": config.clip.carry, "precision": config.runtime.precision}
    key = fingerprint(model=models, split=split, sources=sources, **how)
    output = folder / f"evaluation-{split}.json"
    table = folder / f"predictions-{split}.csv"
    kept = _kept(output, key) if table.is_file() else None
    if kept:
        return _report(output, kept, kept=(split,))

    if subjects:
        talk.say(f"{STAGE}: the cached features are not this run's: looking at raw frames")
        tracks, problems = frame_tracks(its_config, [subjects[name] for name in asked], work)
        if not tracks:
            raise MissingStageError(f"no subject can be used: {problems[0]}", "See: affect audit")
    else:
        tracks, problems = _tracks(shards, list(asked)), []
    values, computed = _predict(config, runs, asked, tracks, bool(subjects), talk)
    figures = _figures(tracks, values)
    write_text(table, _csv(tracks, values))
    told: dict[str, Any] = {"fingerprint": key, "run": folder.name, "split": split}
    told |= {"failed": [asdict(problem) for problem in problems], "runs": len(runs), "environment": computed}
    if len(runs) == 1:
        told["smoothing"] = first.metadata.get("smoothing", NONE)
    write_text(output, json.dumps(told | figures, indent=1) + "\n")
    if len(runs) == 1:
        write_text(folder / CARD, model_card(first.metadata, card_facts(folder)))
    return _report(output, told | figures, made=(split,))


def _runs(work: Work, names: Sequence[str]) -> list[_Run]:
    runs = [_Run(it, work.run(it), read_run(work.run(it)), read_model_metadata(work.run(it))) for it in names]
    for it in runs[1:]:
        if it.metadata["encoder"] != runs[0].metadata["encoder"]:
            raise InputError(
                f"runs {runs[0].name} and {it.name} look through different encoders, so no cache serves both",
                "Evaluate each alone, or average them over videos: affect predict VIDEO --model A --model B.",
            )
    return runs


def _asked(splits: dict[str, str], split: str, runs: Sequence[_Run]) -> dict[str, list[int]]:
    """The subjects to predict, by name, and which of the runs are asked for each."""
    asked: dict[str, list[int]] = {}
    for number, it in enumerate(runs):
        for name in evaluated(splits, split, it.facts):
            asked.setdefault(name, []).append(number)
    return dict(sorted(asked.items()))


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _report(output: Path, told: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    own = ("fingerprint", "run", "runs", "split", "failed", "environment")
    facts = {name: value for name, value in told.items() if name not in own}
    return StageReport(STAGE, output, failed=tuple(Problem(**it) for it in told["failed"]), facts=facts, **names)


def _tracks(shards: dict[str, Cached], names: list[str]) -> list[Any]:
    from ..learning.tracks import read_track

    return [read_track(shards[name].path) for name in names]


def _predict(
    config: Config, runs: Sequence[_Run], asked: dict[str, list[int]], tracks: list[Any], raw: bool, talk: Talk
) -> tuple[list["NDArray[np.float32]"], dict[str, Any]]:
    """Of each track, the mean of what the runs that are asked for it say, each smoothed in its own way; and what it was
    computed with."""
    from ..learning.frame_tracks import predict_frames
    from ..learning.model_file import load_model
    from ..learning.runtime import environment, pick_device, pick_dtype
    from ..learning.smoothing import smooth
    from ..learning.tracks import FeatureTracks
    from ..learning.windows import predict_track

    device = pick_device(config.runtime.device)
    dtype = pick_dtype(config.runtime.precision, device)
    cached = None if raw else FeatureTracks(tracks, device)
    sums = [np.zeros((len(track), 2)) for track in tracks]
    total = sum(len(track) * len(asked[track.subject]) for track in tracks)
    with talk.track(STAGE, total, "frames") as tracker:
        for which, it in enumerate(runs):
            net, metadata = load_model(it.folder / NAME)
            net.to(device)
            length, hop, carry = metadata["clip"]["length"], config.clip.hop, config.clip.carry
            for number, track in enumerate(tracks):
                if which not in asked[track.subject]:
                    continue
                if cached:
                    features = cached.features(number)
                    found = predict_track(net.head, features, length, hop, carry=carry, device=device, dtype=dtype)
                else:
                    found = predict_frames(net, track, length, hop, carry=carry, device=device, dtype=dtype).values
                sums[number] += smooth(found, **metadata.get("smoothing", NONE))
                tracker.advance(len(track))
    values = [(own / len(asked[track.subject])).astype(np.float32) for own, track in zip(sums, tracks, strict=True)]
    return values, environment(device, dtype)


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


def _csv(tracks: list[Any], values: list["NDArray[np.float32]"]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for track, value in zip(tracks, values, strict=True):
        for row in range(len(track)):
            true = [f"{it:.6g}" for it in track.target[row]] if track.valid[row] else ["", ""]
            own = (f"{value[row, 0]:.6f}", f"{value[row, 1]:.6f}")
            table.writerow(
                (track.subject, track.index[row], f"{track.time[row]:.6f}", *own, *true, int(track.valid[row]))
            )
    return text.getvalue()
