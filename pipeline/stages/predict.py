"""affect predict: valence and arousal of videos, as tables per frame and per clip, plots and overlays; and of pictures,
as one table."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import InputError, InUseError
from ..faults import one_input
from ..features.video_digest import video_digest
from ..inference.inputs import Picture, find_inputs
from ..inference.intervals import interval_settings
from ..inference.load import check_model
from ..inference.outputs import (
    FACTS,
    OVERLAY,
    PLOT,
    Recorded,
    claimed,
    exists,
    output_names,
    recorded,
    remove_others,
)
from ..inference.partial_results import OnFrames
from ..inference.picture_table import PICTURES, PictureTable
from ..inference.tables import clip_file, frame_file, require_format
from ..inference.trace import TraceData, summary_lines
from ..inference.unlike import judge_people
from ..learning.model_file import read_model_info
from ..progress import Reporter
from ..records import Problem, StageReport
from ..storage.fingerprint import fingerprint
from ..visualization.trace_plot import draw_traces

if TYPE_CHECKING:
    from ..inference.predictor import Predictor

STAGE = "predict"
VERSION = 2
MANY_VIDEOS = 12
"""From this number on, each video is summed up in one line."""
ONE_PERSON = "a picture has one row, for its most likely face"


@dataclass(frozen=True)
class PredictOptions:
    """What to predict and which files to write.

    emotions: also the backbone's eight classes. people: how many faces to follow in each video. format: of the tables,
    one of tables.FORMATS. plot: also <video>.png. overlay: also <video>.overlay.mp4 and <picture>.overlay.png.
    """

    emotions: bool = False
    people: int = 1
    format: str = "csv"
    plot: bool = True
    overlay: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files to write for each video, the two tables first."""
        tables = (f".{self.format}", f".clips.{self.format}")
        return (*tables, *([PLOT] if self.plot else []), *([OVERLAY] if self.overlay else []))


@dataclass(frozen=True)
class _Job:
    """One video. title: for progress and messages. wait: until another process that writes it has ended."""

    name: str
    path: Path
    title: str
    wait: bool = False


def predict(
    config: Config,
    videos: Sequence[Path],
    model: Path | Sequence[Path],
    out: Path,
    reporter: Reporter,
    options: PredictOptions = PredictOptions(),
    *,
    on_frames: OnFrames | None = None,
) -> StageReport:
    """Writes the tables, the plot and <video>.facts.json of each video into `out`, and one table of all pictures.

    videos: files, folders (all videos below them, or all pictures if there is no video) or glob patterns. model: a run
    folder or its model file. It sets the frame size and the clip length; `config` sets the rest. The values of several
    models are averaged; faces, boxes, emotions and clips are those of the first. on_frames: called with the values of
    the first person as they become final, before frames without a face are treated.

    A video or picture that cannot be read is in `failed`. So is one whose plot or overlay cannot be drawn, but its
    tables are written. Several processes may write into one `out`: a video that another process is writing comes last.
    Raises MissingStageError, WeightsError, DeviceError, WorkError, and InputError for an unknown format, too many
    people, or pictures with more than one person.
    """
    require_format(options.format)
    models = [model] if isinstance(model, Path) else list(dict.fromkeys(model))
    classes, *_ = [check_model(it, reporter, emotions=options.emotions, people=options.people) for it in models]
    inputs = find_inputs(videos)
    if inputs.pictures and options.people > 1:
        problem = f"--people {options.people} with pictures, such as {inputs.pictures[0].path}: {ONE_PERSON}"
        raise InputError(problem, "Predict the pictures without --people, in a call of their own.")
    for problem in inputs.problems:
        if problem.kind == "note":
            reporter.warning(f"{problem}")
    files = inputs.videos
    writer = _Writer(config, models, classes, out, reporter, options)
    writer.failed += [problem for problem in inputs.problems if problem.kind != "note"]
    writer.brief = len(files) >= MANY_VIDEOS
    made, kept, facts = [], [], {}
    if inputs.pictures:  # first, so that no video takes the name of the table
        known, new = writer.run_pictures(inputs.pictures)
        if known is not None:
            (made if new else kept).append(PICTURES)
            facts[PICTURES] = known.facts
    queue = []
    for number, (name, path) in enumerate(output_names(files, out), 1):
        title = f"{STAGE} {number}/{len(files)}  {name}" if len(files) > 1 else f"{STAGE} {name}"
        queue.append(_Job(name, path, title))
    for job in queue:  # it grows
        try:
            name, known, new = writer.run(job, on_frames)
        except InUseError:
            reporter.info(f"{job.title}: another process is writing it; it is retried last")
            queue.append(replace(job, wait=True))
            continue
        if known is None:
            continue
        (made if new else kept).append(name)
        facts[name] = known.facts
        _warn(name, known.facts, options.people, reporter)
    return StageReport(STAGE, out, tuple(made), tuple(kept), tuple(writer.failed), facts)


@dataclass
class _Writer:
    """Predicts videos one by one and writes their files. The model is loaded for the first video that needs it.

    models: paths of the models. classes: names of the emotions to predict. failed: the videos, or parts of their
    outputs, that could not be made. brief: whether each video is summed up in one line.
    """

    config: Config
    models: Sequence[Path]
    classes: tuple[str, ...]
    out: Path
    reporter: Reporter
    options: PredictOptions
    failed: list[Problem] = field(default_factory=list)
    brief: bool = False

    @cached_property
    def predictor(self) -> "Predictor":
        from ..inference.predictor import Predictor

        return Predictor(self.models, self.config)

    @cached_property
    def intervals(self) -> dict[str, Any]:
        return interval_settings(self.models, self.config, self.reporter)

    @cached_property
    def digests(self) -> list[str]:
        return [read_model_info(path).fingerprint for path in self.models]

    def run(self, job: _Job, on_frames: OnFrames | None) -> tuple[str, Recorded | None, bool]:
        """Returns the name of the files, what is recorded of them (None if the video failed), and whether they were
        made now. Raises InUseError if another process writes them."""
        key = ""
        with one_input(job.name, self.failed):
            key = fingerprint(
                version=VERSION, model=self.digests, source=video_digest(job.path),
                predict=self.config.predict.model_dump(exclude={"level"}),
                clip=[self.config.clip.hop, self.config.clip.carry], precision=self.config.runtime.precision,
                emotions=self.options.emotions, people=self.options.people, **self.intervals,
            )  # fmt: skip
        if not key:
            self._remove_outdated(job, key)
            return job.name, None, False
        known = recorded(self.out, job.name)
        if self._is_done(known, key):
            return job.name, known, False
        with claimed(self.out, job.name, job.path, wait=job.wait) as name:
            known = recorded(self.out, name)
            if self._is_done(known, key):  # by another process, in the meantime
                return name, known, False
            new = None
            with one_input(name, self.failed):
                new = self._predict(job, name, key, known, on_frames)
        if new is None:
            self._remove_outdated(job, key)
        return name, new, True

    def run_pictures(self, pictures: Sequence[Picture]) -> tuple[Recorded | None, bool]:
        """Writes the table of pictures. Returns what is recorded of it (None if it could not be made), and whether it
        was made now."""
        draw = None
        if self.options.overlay:
            from ..visualization.overlay_picture import write_overlay_picture as draw
        table = PictureTable(
            self.config, self.out, lambda: self.predictor, self.digests, self.classes, self.options.format, draw,
            self.intervals,
        )  # fmt: skip
        known, new = None, False
        with one_input(PICTURES, self.failed):
            known, new = table.make(pictures, self.failed, self.reporter)
        if known is not None and not known.facts["faces"]:
            self.reporter.warning(f"{PICTURES}: no face in any picture. Try a lower predict.face_threshold.")
        for _, text in judge_people(known.facts if known else {}):
            self.reporter.warning(f"{PICTURES}: {text}")
        return known, new

    def _is_done(self, known: Recorded | None, key: str) -> bool:
        return known is not None and known.key == key and known.has(self.options.suffixes)

    def _predict(self, job: _Job, name: str, key: str, old: Recorded | None, on_frames: OnFrames | None) -> Recorded:
        """Predicts one video and writes its files. old: what an earlier run wrote under this name."""
        from ..inference.offline import trace_video

        predictor = self.predictor
        started = time.perf_counter()
        traces = trace_video(
            predictor,
            job.path,
            self.reporter,
            name=name,
            title=job.title,
            classes=self.classes,
            people=self.options.people,
            on_frames=on_frames,
        )
        rate = len(traces[0]) / (time.perf_counter() - started)
        still_valid = old.suffixes if old is not None and old.key == key else ()
        remove_others(self.out, name, old, still_valid)
        written = self._write(job, name, traces)
        suffixes = tuple(dict.fromkeys((*still_valid, *written)))
        source = job.path.resolve()
        new = Recorded(self.out / name, key, source, _facts(traces, rate), suffixes, predictor.environment())
        new.save()
        self.reporter.info(f"{job.title}: {len(traces[0])} frames, {rate:,.1f} frames/s")
        if not self.brief:
            for line in summary_lines(traces):
                self.reporter.info(line)
        return new

    def _write(self, job: _Job, name: str, traces: Sequence[TraceData]) -> tuple[str, ...]:
        """Writes all files of one video except its facts, and returns their suffixes. A plot or an overlay that cannot
        be drawn is added to `failed`."""
        # The facts say that all other files are there, so they are removed first and written last.
        (self.out / f"{name}{FACTS}").unlink(missing_ok=True)
        frames, clips, *_ = self.options.suffixes
        frame_file(self.out / f"{name}{frames}", traces, self.options.format)
        clip_file(self.out / f"{name}{clips}", traces, self.options.format)
        written = [frames, clips]
        if self.options.plot:
            with one_input(name, self.failed, part="its tables are written, but not the plot"):
                draw_traces(traces, self.out / f"{name}{PLOT}")
                written.append(PLOT)
        if self.options.overlay:
            from ..visualization.overlay_video import write_overlay_video

            deadline = self.config.runtime.decode_seconds
            with one_input(name, self.failed, part="its tables are written, but not the overlay"):
                overlay = self.out / f"{name}{OVERLAY}"
                write_overlay_video(overlay, traces, self.reporter, f"{job.title}: overlay", deadline=deadline)
                written.append(OVERLAY)
        return tuple(written)

    def _remove_outdated(self, job: _Job, key: str) -> None:
        """Removes the files that an earlier run wrote for a video that failed now, unless they have the same
        fingerprint or another process is writing them."""
        known = recorded(self.out, job.name)
        if known is None or known.key == key or (known.source != job.path.resolve() and exists(known.source)):
            return
        with contextlib.suppress(InUseError), claimed(self.out, job.name, job.path, wait=False) as own:
            if own == job.name:
                remove_others(self.out, job.name, known, (), mark=True)


def _facts(traces: Sequence[TraceData], rate: float) -> dict[str, Any]:
    """The summary of the first person, and of several people the summary of each."""
    facts = {**traces[0].summary(), "frames_per_second": round(rate, 2)}
    if traces[0].person is not None:
        facts["people"] = [trace.summary() for trace in traces]
    return facts


def _warn(name: str, facts: dict[str, Any], people: int, reporter: Reporter) -> None:
    if not facts["face_share"]:
        reporter.warning(f"{name}: no face in any frame, so there are no values. Try a lower predict.face_threshold.")
    if facts["lost"]:
        reporter.warning(f"{name}: {facts['lost']} frames cannot be decoded and have no row")
    for person, text in judge_people(facts):
        reporter.warning(f"{name}{person}: {text}")
    if people > 1 and people > len(facts.get("people", ())):
        reporter.warning(f"{name}: {len(facts['people'])} of {people} people found")
