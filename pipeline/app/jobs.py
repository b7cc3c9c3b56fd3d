"""The app's queue: one video is predicted at a time, the others wait. All files are in a temporary folder."""

import asyncio
import json
import re
import secrets
import shutil
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...configs.schema import Config
from ..errors import AffectError
from ..inference.partial_results import FrameResults
from ..ingest.walk import VIDEO_SUFFIXES, composed
from ..names import shorten_name
from ..progress import Reporter
from ..stages.predict import PredictOptions, predict
from ..visualization.clip import as_json, read_clip, rows_of, with_web_video, words
from ..visualization.clip_page import max_video_bytes, render_clip

MAX_JOBS = 20
"""Above this number, the oldest finished jobs are deleted."""
MAX_WAITING = 8
MAX_STEM_BYTES = 160
"""Length of an upload's stem in UTF-8. The names of outputs and temporary files are longer."""
COLUMNS = ("frame", "time", "valence", "arousal", "face", "box")


class Stopped(BaseException):
    """Ends a prediction whose job was deleted. Not an Exception: no handler must take it for a fault."""


@dataclass
class Job:
    """One uploaded video. status: coming, waiting, running, done or failed. rows: results so far, by column.

    Only the thread of the event loop changes it. Each change sets the `listeners`.
    """

    key: str
    name: str
    folder: Path
    video: Path
    status: str = "coming"
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    listeners: set[asyncio.Event] = field(default_factory=set)
    dropped: bool = False

    def file(self, ending: str) -> Path:
        return self.folder / "out" / f"{self.video.stem}{ending}"

    def change(self, status: str = "", message: str = "") -> None:
        self.status, self.message = status or self.status, message or self.message
        for listener in self.listeners:
            listener.set()


class Jobs:
    """The queue. Create and use it in the thread of the event loop."""

    def __init__(self, config: Config, model: Path, folder: Path, reporter: Reporter) -> None:
        self.config, self.model, self.folder, self.reporter = config, model, folder, reporter
        self.jobs: dict[str, Job] = {}
        self.stopped = False
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")

    def full(self) -> bool:
        return sum(job.status in ("coming", "waiting") for job in self.jobs.values()) >= MAX_WAITING

    def new(self, name: str) -> Job | None:
        """A job for a video to upload; None if the name is not the name of a video file."""
        safe = safe_name(name)
        if safe is None:
            return None
        key = secrets.token_urlsafe(9)
        folder = self.folder / key
        folder.mkdir()
        job = self.jobs[key] = Job(key, Path(safe).stem, folder, folder / safe)
        finished = [old for old in self.jobs.values() if old.status in ("done", "failed")]
        for old in finished[: max(0, len(self.jobs) - MAX_JOBS)]:
            self.drop(old)
        return job

    def start(self, job: Job) -> None:
        """Queues the job. Its video is complete."""
        job.change("waiting")
        self._worker.submit(self._run, job).add_done_callback(lambda future: self._report_crash(job, future))

    def drop(self, job: Job) -> None:
        """Deletes a job and its files. A running job stops at its next batch of frames."""
        job.dropped = True
        self.jobs.pop(job.key, None)
        job.change("failed", "dropped")
        if job.status != "running":
            shutil.rmtree(job.folder, ignore_errors=True)

    def jobs_before(self, job: Job) -> int:
        """How many jobs are done before this one."""
        queue = [other for other in self.jobs.values() if other.status in ("waiting", "running")]
        return queue.index(job) if job in queue else 0

    def close(self) -> None:
        """Stops the running job and waits for it. The caller removes the folder."""
        self.stopped = True
        self._worker.shutdown(cancel_futures=True)

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self, job: Job) -> None:
        """Predicts the video, in the worker thread."""
        try:
            self._predict(job)
        except Stopped:
            shutil.rmtree(job.folder, ignore_errors=True)
        except AffectError as error:
            self._call_in_loop(job.change, "failed", str(error))

    def _report_crash(self, job: Job, future: "Future[None]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            traceback.print_exception(error)
            text = f"{type(error).__name__}: {error}. This is a bug in affect; the terminal shows the traceback."
            self._call_in_loop(job.change, "failed", text)

    def _predict(self, job: Job) -> None:
        def check_stopped() -> None:
            if self.stopped or job.dropped:
                raise Stopped

        def on_frames(results: FrameResults) -> None:
            check_stopped()
            self._call_in_loop(_add_rows, job, results)

        check_stopped()
        self._call_in_loop(job.change, "running")
        out = job.folder / "out"
        quiet = Reporter(quiet=True)
        report = predict(
            self.config, [job.video], self.model, out, quiet, PredictOptions(plot=False), on_frames=on_frames
        )
        if report.failed:
            problem = report.failed[0]
            self._call_in_loop(
                job.change, "failed", f"{problem.message.replace(f'{job.folder}/', '')}. {problem.remedy}"
            )
            return
        clip = read_clip(out, job.video.stem, self.config.predict.face_threshold)
        clip = with_web_video(clip, max_video_bytes(self.config), self.reporter)
        job.file(".html").write_text(render_clip(clip), encoding="utf-8")
        job.file(".json").write_text(json.dumps(as_json(clip), allow_nan=False), encoding="utf-8")
        job.video.unlink(missing_ok=True)
        self.reporter.info(f"{job.video.name}: {len(clip.time)} frames")
        self._call_in_loop(job.change, "done")


def empty_clip(job: Job, threshold: float) -> dict[str, Any]:
    """The data of the player before the first frame."""
    return {
        "name": job.name, "video": "", "start": 0, "end": 0, "width": 0, "height": 0, "threshold": threshold,
        "words": words(), "remark": "", "moments": [], "rows": {name: [] for name in COLUMNS}, "truth": None,
    }  # fmt: skip


def safe_name(name: str) -> str | None:
    """The file name with only letters, digits and . - _ in it; None if its suffix is not one of a video."""
    path = Path(composed(name).replace("\\", "/").rsplit("/", 1)[-1])
    stem = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:80] or "video"
    stem = shorten_name(stem, 0, MAX_STEM_BYTES)
    return f"{stem}{path.suffix.lower()}" if path.suffix.lower() in VIDEO_SUFFIXES else None


def _add_rows(job: Job, results: FrameResults) -> None:
    facts = results.facts
    job.facts = {"width": facts.width, "height": facts.height, "frames": facts.frames, "seconds": facts.seconds}
    # The browser plays the uploaded file, in square pixels.
    box = results.box * (facts.stretch * 2)
    rows = rows_of(results.index, results.time, results.value, results.face, box)
    for name in COLUMNS:
        job.rows[name].extend(rows[name])
    job.change()
