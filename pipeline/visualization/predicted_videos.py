"""Predicts videos one after the other and writes all their files, each while the next one is predicted."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...configs.schema import Config
from ..background import Background, BackgroundDied
from ..errors import InputError, InUseError
from ..faults import one_input, worker_died
from ..features.video_digest import video_digest
from ..inference.inputs import Picture
from ..inference.intervals import interval_settings
from ..inference.outputs import PredictOptions, Recorded, claimed, exists, recorded, remove_others
from ..inference.partial_results import OnFrames
from ..inference.picture_table import PICTURES, PictureTable
from ..inference.trace import TraceData, summary_lines
from ..inference.unlike import judge_people
from ..ingest.video.decoders import Decoders
from ..learning.model_file import read_model_info
from ..processes import without_garbage_collection
from ..progress import Reporter
from ..records import Problem
from ..storage.fingerprint import fingerprint, without_unset
from .video_files import FileResult, FileTask, write_files, write_files_quietly

if TYPE_CHECKING:
    from ..inference.predictor import Predictor

VERSION = 2
MAX_UNWRITTEN = 4
"""Predicted videos whose files are being written while the next video is predicted."""


@dataclass(frozen=True)
class Job:
    """One video. title: for progress and messages. wait: until another process that writes it has ended."""

    name: str
    path: Path
    title: str
    wait: bool = False


@dataclass(eq=False)
class _Video:
    """The state of one video, from when it is locked until its files are written.

    name, key: of its files. known: what is recorded of files that are up to date. lock: of the name. failed: its
    faults. lines: the summary for the user. result: of writing its files, or `writer`: the process that writes them.
    """

    job: Job
    name: str
    key: str
    known: Recorded | None = None
    lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    failed: list[Problem] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    result: FileResult | None = None
    writer: Background | None = None

    @property
    def is_written(self) -> bool:
        return self.writer is None or self.writer.is_ready()


@dataclass
class PredictionWriter:
    """Predicts videos one after the other and writes their files. The model is loaded for the first one that needs it.

    Beside the networks, the decoder opens the next video, and another process draws the files of earlier ones.

    models: paths of the models. classes: names of the emotions to predict. failed: the videos, or parts of their
    outputs, that could not be made. brief: whether each video is summed up in one line. on_frames, pages:
    see `predict`.
    """

    config: Config
    models: Sequence[Path]
    classes: tuple[str, ...]
    out: Path
    reporter: Reporter
    options: PredictOptions
    on_frames: OnFrames | None = None
    pages: dict[str, list[Problem]] | None = None
    failed: list[Problem] = field(default_factory=list)
    brief: bool = False
    _keys: dict[Path, str] = field(default_factory=dict)
    _unwritten: deque[_Video] = field(default_factory=deque)
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _background: Background | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        for video in self._unwritten:
            video.lock.close()

    @cached_property
    def predictor(self) -> "Predictor":
        with without_garbage_collection():
            from ..inference.predictor import Predictor

            return Predictor(self.models, self.config)

    @cached_property
    def decoders(self) -> Decoders:
        size = read_model_info(self.models[0]).frame_size
        decoders = Decoders(size, self.config.features.batch, self.config.runtime.decode_seconds)
        return self._ends.enter_context(decoders)

    @cached_property
    def intervals(self) -> dict[str, Any]:
        return interval_settings(self.models, self.config, self.reporter)

    @cached_property
    def digests(self) -> list[str]:
        return [read_model_info(path).fingerprint for path in self.models]

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Recorded, bool]]:
        """Yields the name of the files of each video, what is recorded of them, and whether they were made now.

        Videos that failed are in `failed`.
        """
        queue = deque(jobs)
        while queue:
            job = queue.popleft()
            if job.wait:  # for a process that may wait for a video of this one
                yield from self._finish(0)
            try:
                self._unwritten.append(self._begin(job, queue))
            except InUseError:
                self.reporter.info(f"{job.title}: another process is writing it; it is retried last")
                queue.append(replace(job, wait=True))
                continue
            yield from self._finish(MAX_UNWRITTEN)
        yield from self._finish(0)

    def _begin(self, job: Job, later: Iterable[Job]) -> _Video:
        """Predicts a video and begins to write its files, unless they are up to date. later: the jobs after this one.
        Raises InUseError if another process writes the files."""
        video = _Video(job, job.name, "")
        with one_input(job.name, video.failed):
            video.key = self._key(job)
        if not video.key or self._is_up_to_date(video):
            return video
        with contextlib.ExitStack() as lock:
            video.name = lock.enter_context(claimed(self.out, job.name, job.path, wait=job.wait))
            if self._is_up_to_date(video):  # made by another process, in the meantime
                return video
            with one_input(video.name, video.failed):
                self._predict(video, self._next_due(later))
            video.lock = lock.pop_all()
        return video

    def _key(self, job: Job) -> str:
        """The fingerprint of the files of a video. Raises InputError."""
        if job.path not in self._keys:
            settings = without_unset(self.config.predict, "fps")
            self._keys[job.path] = fingerprint(
                version=VERSION, model=self.digests, source=video_digest(job.path),
                predict={name: value for name, value in settings.items() if name != "level"},
                clip=[self.config.clip.hop, self.config.clip.carry], precision=self.config.runtime.precision,
                emotions=self.options.emotions, people=self.options.people, **self.intervals,
            )  # fmt: skip
        return self._keys[job.path]

    def _is_up_to_date(self, video: _Video) -> bool:
        known = recorded(self.out, video.name)
        if known is not None and known.key == video.key and known.has(self.options.suffixes):
            video.known = known
        return video.known is not None

    def _next_due(self, later: Iterable[Job]) -> Path | None:
        """The next video that must probably be predicted."""
        for job in later:
            with contextlib.suppress(InputError):
                if not self._is_up_to_date(_Video(job, job.name, self._key(job))):
                    return job.path
        return None

    def _predict(self, video: _Video, following: Path | None) -> None:
        """Predicts one video and begins to write its files. following: the video after it."""
        job = video.job
        self.decoders.prepare(job.path, following)  # before the model is loaded
        predictor = self.predictor
        from ..inference.offline import VideoReader, trace_video

        started = time.perf_counter()
        reader = VideoReader(predictor, self.decoders, self.reporter, job.title, bool(self.classes), self.on_frames)
        traces = trace_video(reader, job.path, name=video.name, classes=self.classes, people=self.options.people)
        rate = len(traces[0]) / (time.perf_counter() - started)
        video.lines.append(f"{job.title}: {len(traces[0])} frames, {rate:,.1f} frames/s")
        if not self.brief:
            video.lines += summary_lines(traces)
        facts, environment = _facts(traces, rate, self.config.predict.fps), predictor.environment()
        record = Recorded(
            self.out / video.name, video.key, job.path.resolve(), facts, self.options.suffixes, environment
        )
        old = recorded(self.out, video.name)
        task = FileTask(record, old, self.options.format, self.pages is not None, job.title, self.config)
        if task.draws and (following is not None or self._background is not None):
            self._background = self._background or self._ends.enter_context(Background())
            self._background.submit(write_files_quietly, task, traces)
            video.writer = self._background
        else:
            video.result = write_files(task, traces, self.reporter)

    def _finish(self, most: int) -> Iterator[tuple[str, Recorded, bool]]:
        """Finishes videos whose files are written, in order; waits until at most so many are left. Yields as `run`."""
        while self._unwritten and (len(self._unwritten) > most or self._unwritten[0].is_written):
            video = self._unwritten.popleft()
            with video.lock:
                if video.writer is not None:
                    try:
                        video.result = video.writer.result()
                    except BackgroundDied as death:
                        video.failed.append(worker_died(video.name, f"its files are not written: {death}"))
                        self._background = None
            self.failed += video.failed
            if video.known is not None:
                yield video.name, video.known, False
                continue
            record = video.result.record if video.result is not None else None
            if video.result is not None:
                self.failed += video.result.failed
                for warning in video.result.warnings:
                    self.reporter.warning(warning)
                if self.pages is not None and video.result.page is not None:
                    self.pages[video.name] = video.result.page
            if record is None:
                self._remove_outdated(video)
                continue
            for line in video.lines:
                self.reporter.info(line)
            yield video.name, record, True

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

    def _remove_outdated(self, video: _Video) -> None:
        """Removes the files that an earlier run wrote for a video that failed now, unless they have the same
        fingerprint or another process is writing them."""
        job = video.job
        known = recorded(self.out, job.name)
        if known is None or known.key == video.key or (known.source != job.path.resolve() and exists(known.source)):
            return
        with contextlib.suppress(InUseError), claimed(self.out, job.name, job.path, wait=False) as own:
            if own == job.name:
                remove_others(self.out, job.name, known, (), mark=True)


def _facts(traces: Sequence[TraceData], rate: float, fps: float | None) -> dict[str, Any]:
    """The summary of the first person, and of several people the summary of each. fps: `predict.fps`."""
    facts = {**traces[0].summary(), "frames_per_second": round(rate, 2), **({} if fps is None else {"fps": fps})}
    if traces[0].person is not None:
        facts["people"] = [trace.summary() for trace in traces]
    return facts
