"""affect submit: the file for a challenge, one line per row of its template, from one run or the mean of several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.schema import Config
from ..errors import InputError, WorkError
from ..faults import one_input
from ..ingest.catalog import find_catalog
from ..ingest.template import HEADER, Template, read_template
from ..ingest.video.decode import decoded
from ..learning.model_file import read_model_info
from ..progress import Reporter
from ..records import Catalog, Problem, Side, StageReport, Subject, Video, Work
from ..runs.folder import read_run
from ..runs.splits import cached_subjects
from ..storage.atomic import write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGE = "submit"
LEFT_OUT = "its rows contain 0: do not submit this file"


@dataclass(frozen=True)
class _Values:
    """index: int64 [n], frames from 0, increasing. value: float32 [n, 2]."""

    index: "NDArray[np.int64]"
    value: "NDArray[np.float32]"


def submit(
    config: Config,
    data: Path,
    work: Work,
    reporter: Reporter,
    *,
    template: Path,
    out: Path,
    runs: Sequence[str] = ("default",),
) -> StageReport:
    """Writes `out`: image_location,valence,arousal, one line per row of the template, in the same order.

    The values of a subject come from cached features if the encoder of the run computed them, otherwise from its video
    in `data`, which needs no annotation. A frame without a prediction (lost in decoding, or after the end) gets the
    nearest earlier one; frames before the first prediction get the first. Subjects without both are in `failed`, and
    their values are 0.

    The values are equal to those of `affect evaluate`: with the smoothing of the model, and with the state of the head
    carried if clip.carry is set. Several runs are averaged. The file is read back and compared with the template.
    Raises InputError, MissingStageError, WorkError.
    """
    entries = read_template(template)
    folders = [work.run(run) for run in runs]
    for folder in folders:
        read_run(folder)
    names = list(dict.fromkeys(entries.subject))
    catalog = _catalog(data)
    value = np.zeros((len(entries), 2))
    held: dict[str, int] = {}
    failed: dict[str, Problem] = {}
    rows = _rows(entries)
    for folder in folders:
        source = _Source(config, folder, work, catalog)
        with reporter.progress(f"{STAGE} {folder.name}", len(names), "subjects") as tracker:
            for name in names:
                problems: list[Problem] = []
                with one_input(name, problems, kind="missing"):
                    found = source.values(name)
                    frames = entries.frame[rows[name]]
                    place = np.searchsorted(found.index, frames, side="right") - 1
                    value[rows[name]] += found.value[place.clip(min=0)] / len(folders)
                    held[name] = int((found.index[place.clip(min=0)] != frames).sum())
                if problems:
                    failed[name] = replace(problems[0], message=f"{problems[0].message}; {LEFT_OUT}")
                tracker.advance(item=name)
    for name in failed:
        value[rows[name]] = 0.0
        held.pop(name, None)
    value = value.clip(-1, 1)
    lines = [f"{where},{v:.6f},{a:.6f}" for where, (v, a) in zip(entries.locations, value.tolist(), strict=True)]
    write_text(out, "\n".join([HEADER, *lines]) + "\n", "another --out")
    _check(out, entries)
    facts = {
        "rows": len(entries),
        "subjects": len(names),
        "held": sum(held.values()),
        "held_by_subject": {name: count for name, count in held.items() if count},
        "left_out": sum(len(rows[name]) for name in failed),
        "runs": list(runs),
    }
    reporter.info(
        f"{STAGE}: {facts['rows']:,} rows of {facts['subjects']} subjects, as in the template; "
        f"{facts['held']} repeat an earlier frame, {facts['left_out']} have no prediction"
    )
    return StageReport(STAGE, out, (str(out),), (), tuple(failed.values()), facts)


def _catalog(data: Path) -> Catalog | None:
    try:
        return find_catalog(data)
    except InputError:  # no annotations in it; cached features may suffice
        return None


def _rows(entries: Template) -> "dict[str, NDArray[np.int64]]":
    places: dict[str, list[int]] = {}
    for row, name in enumerate(entries.subject):
        places.setdefault(name, []).append(row)
    return {name: np.array(rows) for name, rows in places.items()}


def _check(out: Path, entries: Template) -> None:
    """Reads the file back. A difference means a bug or a fault of the disk."""
    lines = out.read_text(encoding="utf-8").splitlines()
    parts = [line.split(",") for line in lines[1:]]
    same = lines[0] == HEADER and [part[0] for part in parts] == list(entries.locations)
    if not same or not all(len(part) == 3 and all(abs(float(it)) <= 1 for it in part[1:]) for part in parts):
        raise WorkError(f"{out}: does not match its template", "Free space, and run the command again.")


class _Source:
    """The values of one run for any subject, by name."""

    def __init__(self, config: Config, folder: Path, work: Work, catalog: Catalog | None) -> None:
        from ..inference.predictor import Predictor

        info = read_model_info(folder)
        self.config, self.catalog, self.localiser = config, catalog, info.localiser
        self.network = Predictor(folder, config)
        shards = cached_subjects(work).items()
        self.shards = {name: shard.path for name, shard in shards if shard.encoder == info.encoder}

    def values(self, name: str) -> _Values:
        """Raises InputError if the values cannot be computed."""
        if name in self.shards:
            from ..learning.tracks import FeatureTracks, read_track

            track = read_track(self.shards[name])
            if len(track):
                features = FeatureTracks([track], self.network.device).features(0)
                return _Values(track.index, self.network.predict_features(features))
        found = _find(self.catalog, name)
        if found is None:
            raise InputError(
                "there are neither features of this run nor a video with this name", "Check --data and the template."
            )
        if self.localiser in ("box", "aligned"):
            raise InputError(
                f"it has only a video, but the run was trained with stn.localiser {self.localiser}",
                "Add an annotation file with -5,-5 in each row, and run the stages up to cache-features.",
            )
        video, subject = found
        index, value = decoded(
            video.path,
            self.network.size,
            lambda decoding: self.network.predict_decoding(decoding, subject.region),
            batch=self.config.features.batch,
            deadline=self.config.runtime.decode_seconds,
        )
        if not len(index):
            raise InputError("its video has no frames", "Restore it from the release of the data set.")
        return _Values(index, value)


def _find(catalog: Catalog | None, name: str) -> tuple[Video, Subject] | None:
    """The video of a subject, annotated or not, and the side of the picture."""
    if catalog is None:
        return None
    videos = {video.name: video for video in catalog.videos}
    sides: tuple[tuple[str, Side | None], ...] = (("", None), ("_left", "left"), ("_right", "right"))
    for suffix, side in sides:
        video = videos.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if video is not None:
            return video, Subject(name, video.name, "test", Path(name), side)
    return None
