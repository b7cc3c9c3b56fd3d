"""The app's queue: one video is predicted at a time, the others wait. All that is kept lies in a temporary folder."""

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
from ..ingest.catalog import VIDEO_SUFFIXES
from ..progress import Talk
from .arrivals import Arrived
from .player import as_json, read_clip, rows_of, with_film, words
from .player_page import most_bytes, page_of
from .predict import predict

MOST_JOBS = 20
"""Finished ones beyond are forgotten, the oldest first."""
MOST_WAITING = 8
COLUMNS = ("frame", "time", "valence", "arousal", "face", "box")


class Stopped(Exception):  # noqa: N818
    """Raised in the midst of a prediction that nobody waits for any more."""


@dataclass
class Job:
    """One uploaded video. status: coming, waiting, running, done or failed. rows: what has come in, column by column.

    Changed on the event loop's thread only; `listeners` are woken by each change.
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
    """The queue. To be made and used on the event loop's thread."""

    def __init__(self, config: Config, model: Path, folder: Path, talk: Talk) -> None:
        self.config, self.model, self.folder, self.talk = config, model, folder, talk
        self.jobs: dict[str, Job] = {}
        self.stopped = False
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")

    def full(self) -> bool:
        return sum(job.status in ("coming", "waiting") for job in self.jobs.values()) >= MOST_WAITING

    def new(self, name: str) -> Job | None:
        """A job for a video to come, with a place to write it to; None for a name that is not a video's."""
        safe = safe_name(name)
        if safe is None:
            return None
        key = secrets.token_urlsafe(9)
        folder = self.folder / key
        folder.mkdir()
        job = self.jobs[key] = Job(key, Path(safe).stem, folder, folder / safe)
        ended = [old for old in self.jobs.values() if old.status in ("done", "failed")]
        for old in ended[: max(0, len(self.jobs) - MOST_JOBS)]:
            self.drop(old)
        return job

    def start(self, job: Job) -> None:
        """The video is there: in line with it."""
        job.change("waiting")
        self._worker.submit(self._run, job).add_done_callback(lambda future: self._ended(job, future))

    def drop(self, job: Job) -> None:
        """Forgets a job and its files; one that is running stops at its next batch of frames."""
        job.dropped = True
        self.jobs.pop(job.key, None)
        job.change("failed", "dropped")
        if job.status != "running":
            shutil.rmtree(job.folder, ignore_errors=True)

    def before(self, job: Job) -> int:
        """How many come before this one."""
        line = [other for other in self.jobs.values() if other.status in ("waiting", "running")]
        return line.index(job) if job in line else 0

    def close(self) -> None:
        """Ends what runs, and waits for it. The folder is the caller's to remove."""
        self.stopped = True
        self._worker.shutdown(cancel_futures=True)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self, job: Job) -> None:
        """On the worker's thread."""
        try:
            self._predict(job)
        except Stopped:
            shutil.rmtree(job.folder, ignore_errors=True)
        except AffectError as error:
            self._tell(job.change, "failed", str(error))

    def _ended(self, job: Job, future: "Future[None]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            traceback.print_exception(error)
            self._tell(job.change, "failed", f"{type(error).__name__}: {error}. That is a bug: see the terminal.")

    def _predict(self, job: Job) -> None:
        def watch(arrived: Arrived) -> None:
            if self.stopped or job.dropped:
                raise Stopped
            self._tell(_grow, job, arrived)

        if self.stopped or job.dropped:
            raise Stopped
        self._tell(job.change, "running")
        out = job.folder / "out"
        quiet = Talk(quiet=True)
        report = predict(self.config, [job.video], self.model, out, quiet, watch=watch)
        if report.failed:
            problem = report.failed[0]
            self._tell(job.change, "failed", f"{problem.message.replace(f'{job.folder}/', '')}. {problem.remedy}")
            return
        clip = read_clip(out, job.video.stem, self.config.predict.face_threshold)
        clip = with_film(clip, most_bytes(self.config))
        job.file(".html").write_text(page_of(clip), encoding="utf-8")
        job.file(".json").write_text(json.dumps(as_json(clip), allow_nan=False), encoding="utf-8")
        job.video.unlink(missing_ok=True)
        self.talk.say(f"{job.video.name}: {len(clip.time)} frames")
        self._tell(job.change, "done")


def empty_clip(job: Job, threshold: float) -> dict[str, Any]:
    """What the player is told before the first frame: only that there is something to come."""
    return {
        "name": job.name, "video": "", "start": 0, "end": 0, "width": 0, "height": 0, "threshold": threshold,
        "words": words(), "remark": "", "moments": [], "rows": {name: [] for name in COLUMNS}, "truth": None,
    }  # fmt: skip


def safe_name(name: str) -> str | None:
    """A file name with nothing in it but letters, digits, and . - _ between; None where it is not a video's."""
    path = Path(name.replace("\\", "/").rsplit("/", 1)[-1])
    stem = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:80] or "video"
    return f"{stem}{path.suffix.lower()}" if path.suffix.lower() in VIDEO_SUFFIXES else None


def _grow(job: Job, arrived: Arrived) -> None:
    facts = arrived.facts
    job.facts = {"width": facts.width, "height": facts.height, "frames": facts.frames, "seconds": facts.seconds}
    new = rows_of(arrived.index, arrived.time, arrived.value, arrived.face, arrived.box)
    for name in COLUMNS:
        job.rows[name].extend(new[name])
    job.change()
