"""evaluate: a trained model on all frames of a split, pooled and subject by subject."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.schema import Config
from ..errors import MissingStageError
from ..learning.metrics import pooled
from ..learning.model_file import NAME, read_model_metadata
from ..progress import Talk
from ..records import Problem, StageReport, Work
from ..storage.fingerprint import fingerprint
from .card import CARD, card_facts, model_card
from .frames_of import frame_tracks, frames_digest, subjects_with_frames
from .runs import read_run, write_text
from .splits import Cached, cached_subjects, evaluated

if TYPE_CHECKING:
    from numpy.typing import NDArray


STAGE = "evaluate"
COLUMNS = ("subject", "frame", "time", "valence", "arousal", "valence_true", "arousal_true", "valid")


def evaluate(
    config: Config, data: Path, work: Work, talk: Talk, *, run: str = "default", split: str = "validation"
) -> StageReport:
    """Writes evaluation-<split>.json and predictions-<split>.csv into W/train/<run>; the figures are the facts.

    Features come from the cache if the run's own encoder made them, else from raw frames. The windows are as long as
    the run's, their hop is the config's. In the CSV frames count from 0, and the true values of a frame that is not
    valid are empty. Raises MissingStageError, WeightsError, ShardError.
    """
    folder = work.run(run)
    facts = read_run(folder)
    metadata = read_model_metadata(folder)
    its_config = Config.model_validate(metadata["config"])
    shards = {name: shard for name, shard in cached_subjects(work).items() if shard.encoder == metadata["encoder"]}
    names = evaluated({name: shard.split for name, shard in shards.items()}, split, facts)
    subjects = {}
    if not names:
        subjects = subjects_with_frames(data, work)
        names = evaluated({name: subject.split for name, subject in subjects.items()}, split, facts)
    if not names:
        raise MissingStageError(
            f"no subject of the {split} split has features or frames", "Check --split, or run the earlier stages again."
        )
    sources = {
        name: frames_digest(its_config, subjects[name], work) if subjects else shards[name].fingerprint
        for name in names
    }
    key = fingerprint(model=metadata["fingerprint"], hop=config.clip.hop, split=split, sources=sources)
    output = folder / f"evaluation-{split}.json"
    table = folder / f"predictions-{split}.csv"
    kept = _kept(output, key) if table.is_file() else None
    if kept:
        return _report(output, kept, kept=(split,))

    if subjects:
        talk.say(f"{STAGE}: the cached features are not this run's: looking at raw frames")
        tracks, problems = frame_tracks(its_config, [subjects[name] for name in names], work)
        if not tracks:
            raise MissingStageError(f"no subject can be used: {problems[0]}", "See: affect audit")
    else:
        tracks, problems = _tracks(shards, names), []
    values = _predict(config, folder, tracks, bool(subjects), talk)
    figures = _figures(tracks, values)
    write_text(table, _csv(tracks, values))
    told = {"fingerprint": key, "run": run, "split": split, "failed": [asdict(problem) for problem in problems]}
    write_text(output, json.dumps(told | figures, indent=1) + "\n")
    write_text(folder / CARD, model_card(metadata, card_facts(folder)))
    return _report(output, told | figures, made=(split,))


def _kept(path: Path, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if found["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _report(output: Path, told: dict[str, Any], **names: tuple[str, ...]) -> StageReport:
    facts = {name: value for name, value in told.items() if name not in ("fingerprint", "run", "split", "failed")}
    return StageReport(STAGE, output, failed=tuple(Problem(**it) for it in told["failed"]), facts=facts, **names)


def _tracks(shards: dict[str, Cached], names: list[str]) -> list[Any]:
    from ..learning.tracks import read_track

    return [read_track(shards[name].path) for name in names]


def _predict(config: Config, folder: Path, tracks: list[Any], raw: bool, talk: Talk) -> list["NDArray[np.float32]"]:
    from ..learning.frame_tracks import predict_frames
    from ..learning.model_file import load_model
    from ..learning.runtime import pick_device, pick_dtype
    from ..learning.tracks import FeatureTracks
    from ..learning.windows import predict_track

    device = pick_device(config.runtime.device)
    dtype = pick_dtype(config.runtime.precision, device)
    net, metadata = load_model(folder / NAME)
    net.to(device)
    length, hop = metadata["clip"]["length"], config.clip.hop
    cached = None if raw else FeatureTracks(tracks, device)
    values = []
    with talk.track(STAGE, sum(map(len, tracks)), "frames") as tracker:
        for number, track in enumerate(tracks):
            if cached:
                found = predict_track(net.head, cached.features(number), length, hop, device=device, dtype=dtype)
            else:
                found = predict_frames(net, track, length, hop, device=device, dtype=dtype).values
            values.append(found)
            tracker.advance(len(track))
    return values


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
