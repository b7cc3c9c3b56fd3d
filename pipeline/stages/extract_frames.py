"""affect extract-frames: decodes each annotated video once into a shard of JPEG frames with numbers and times."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import Shared, run_tasks, worker_count, worker_slots
from ..errors import ShardError, VideoError
from ..faults import one_input, worker_died
from ..features.crops import frames_fingerprint
from ..features.segments import Segment, join, remove_segments, segment_path, split
from ..features.shard_jobs import ShardJobs, rows_of
from ..ingest.catalog import find_catalog
from ..ingest.video.decode import Decoding, decode, decoded
from ..progress import Reporter
from ..records import Problem, StageReport, Video, Work
from ..storage.atomic import sweep
from ..storage.fingerprint import fingerprint
from ..storage.jpeg import encode
from ..storage.shard import FRAMES, Shard, is_fresh
from ..storage.shard_writer import ShardWriter
from ..storage.versions import versions

STAGE = "extract-frames"
BATCH = 16
"""Frames decoded at once. More would no longer be in the cache of the processor when they are encoded."""
FRAMES_PER_WRITE = 64
"""Frames written at once. A write has a fixed cost."""


@dataclass(frozen=True)
class Extraction:
    """The task of a worker: one video, or one segment of it.

    piece: the segment to decode into its own shard. pieces: all segments of the video; without `piece` they are joined.
    """

    name: str
    video: Path
    shard: Path
    fingerprint: str
    settings: dict[str, Any]
    deadline: float
    pieces: tuple[Segment, ...] = ()
    piece: Segment | None = None

    @property
    def size(self) -> float:
        """Approximate number of bytes to decode."""
        return self.video.stat().st_size / (len(self.pieces) if self.piece else 1)

    def parts(self) -> "list[Extraction]":
        """One task per segment, or this task if the video is not divided."""
        return [replace(self, piece=piece) for piece in self.pieces] or [self]


@dataclass
class _Segments:
    """Counts the segments of each video that are still to be decoded, and knows what to do after the last one."""

    left: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def done(self, item: Extraction, *, failed: bool) -> list[Extraction]:
        """Records that a segment has ended. After the last one of a video, returns the task that joins them, or, if a
        segment failed, the task that decodes the whole video."""
        self.left[item.name] = self.left.get(item.name, len(item.pieces)) - 1
        if failed:
            self.failed.add(item.name)
        if self.left[item.name]:
            return []
        return [replace(item, piece=None, pieces=() if item.name in self.failed else item.pieces)]


def extract_frames(
    config: Config, data: Path, work: Work, reporter: Reporter, *, scheduler: str | None = None
) -> StageReport:
    """Writes W/frames/<video>.h5 for each annotated video, unless it is up to date.

    A video of which only some frames can be decoded is used. The numbers of the others are in `lost` of its shard, and
    facts["notes"] counts them. A video without any frame is in `failed`. Raises CatalogError and WorkError.
    """
    if scheduler:
        data, work = data.absolute(), work.absolute()
    folder = work.frames("").parent
    pending, jobs = plan(config, data, work)
    if pending:
        workers = worker_slots(worker_count(config.runtime.workers, cores=1), scheduler)
        shared = Shared(work.root, [item.video for item in pending], (), reporter.warning)
        _extract_all(pending, jobs, workers, scheduler, shared, reporter)
        remove_segments(folder)
    return jobs.report(folder, _facts(work, jobs))


def plan(config: Config, data: Path, work: Work) -> tuple[list[Extraction], ShardJobs]:
    """The videos to decode, and a record of those that are up to date or cannot be used. Raises CatalogError."""
    catalog = find_catalog(data)
    annotated = {subject.video for subject in catalog.subjects}
    videos = sorted((video for video in catalog.videos if video.name in annotated), key=lambda video: video.name)
    pending: list[Extraction] = []
    jobs = ShardJobs(STAGE, FRAMES)
    sweep(work.frames("").parent)
    for video in videos:
        shard = work.frames(video.name)
        job = jobs.plan(video.name, shard, partial(_job, config, video, shard))
        if job is not None:
            pending.append(job)
    return pending, jobs


def _job(config: Config, video: Video, shard: Path) -> Extraction:
    settings = config.frames.model_dump(mode="json")
    key = frames_fingerprint(config, video.path)
    return Extraction(video.name, video.path, shard, key, settings, config.runtime.decode_seconds)


def _extract_all(
    pending: list[Extraction],
    jobs: ShardJobs,
    workers: int,
    scheduler: str | None,
    shared: Shared,
    reporter: Reporter,
) -> None:
    total = sum(item.video.stat().st_size for item in pending)
    pending = [replace(item, pieces=split(item.video, item.video.stat().st_size, total, workers)) for item in pending]
    parts = [part for item in pending for part in item.parts()]
    # The largest first, so that no large one is left to run alone at the end.
    parts.sort(key=lambda part: (-part.size, part.name, part.piece or ()))
    remove_segments(pending[0].shard.parent, [segment_path(part.shard, part.piece) for part in parts if part.piece])
    segments = _Segments()
    with reporter.progress(STAGE, len(pending), "videos") as bar:

        def done(item: Extraction, result: int | Problem) -> list[Extraction]:
            if item.piece:
                return segments.done(item, failed=isinstance(result, Problem))
            jobs.finish(item.name, item.shard, result, bar)
            return []

        def died(item: Extraction, reason: str) -> list[Extraction]:
            return done(item, worker_died(item.name, reason))

        alone = len(parts) == 1 and scheduler is None
        run_tasks(
            extract, parts, workers=0 if alone else workers, scheduler=scheduler, on_result=done, on_error=died,
            shared=shared,
        )  # fmt: skip


def extract(item: Extraction) -> int | Problem:
    """Writes the shard of a video or segment. Returns the number of its frames, or the problem. Raises WorkError."""
    failed: list[Problem] = []
    with one_input(item.name, failed):
        if item.piece:
            return _extract_piece(item, item.piece)
        if item.pieces and (frames := _join(item)):
            return frames
        return decoded(
            item.video, item.settings["size"], lambda decoding: _write(item, item.shard, item.fingerprint, decoding),
            batch=BATCH, zero_copy=True, deadline=item.deadline,
        )  # fmt: skip
    return failed[0]


def _write(item: Extraction, shard: Path, made_from: str, decoding: Decoding) -> int:
    with ShardWriter(shard, FRAMES, made_from, item.settings, item.video.name) as writer:
        end = frames = 0
        writer.append(offset=np.zeros(1, np.int64))
        for jpegs, index, time in _encoded(decoding, item.settings["jpeg_quality"]):
            offset = end + np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
            writer.append(jpeg=np.concatenate(jpegs), offset=offset, index=index, pts=time)
            end, frames = int(offset[-1]), frames + len(jpegs)
        if item.piece and decoding.lost:
            raise VideoError(f"{item.video}: lost frames in {item.piece.start} to {item.piece.stop}", "")
        facts = decoding.facts
        writer.attributes |= {"width": facts.width, "height": facts.height, "codec": facts.codec}
        writer.attributes |= {"lost": list(decoding.lost), "decoder": decoding.decoder}
        writer.attributes |= {"environment": versions("decord", "decord2", "av", "opencv-python-headless", "numpy")}
    return frames


def _extract_piece(item: Extraction, piece: Segment) -> int:
    shard, made_from = segment_path(item.shard, piece), _piece_fingerprint(item, piece)
    if is_fresh(shard, FRAMES, made_from):
        return piece.stop - piece.start
    part = {"start": piece.start, "stop": piece.stop, "decoders": ("pyav",), "batch": BATCH, "zero_copy": True}
    with decode(item.video, item.settings["size"], **part, deadline=item.deadline) as decoding:
        return _write(item, shard, made_from, decoding)


def _piece_fingerprint(item: Extraction, piece: Segment) -> str:
    return fingerprint(whole=item.fingerprint, start=piece.start, stop=piece.stop)


def _join(item: Extraction) -> int:
    """Joins the segments and returns the number of frames; 0 if a segment is damaged or out of date."""
    paths = [segment_path(item.shard, piece) for piece in item.pieces]
    fresh = (
        is_fresh(path, FRAMES, _piece_fingerprint(item, piece)) for path, piece in zip(paths, item.pieces, strict=True)
    )
    if not all(fresh):
        return 0
    try:
        with ShardWriter(item.shard, FRAMES, item.fingerprint, item.settings, item.video.name) as writer:
            frames = join(writer, paths)
    except ShardError:
        return 0
    for path in paths:
        path.unlink(missing_ok=True)
    return frames


def _encoded(
    decoding: Decoding, quality: int
) -> Iterator[tuple[list[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.float64]]]:
    """JPEGs, numbers and times of the frames, in groups of at least FRAMES_PER_WRITE except the last."""
    jpegs: list[NDArray[np.uint8]] = []
    index: list[NDArray[np.int64]] = []
    time: list[NDArray[np.float64]] = []
    for batch in decoding:
        jpegs += encode(batch.pixels, quality)
        index.append(batch.index)
        time.append(batch.time)
        if len(jpegs) >= FRAMES_PER_WRITE:
            yield jpegs, np.concatenate(index), np.concatenate(time)
            jpegs, index, time = [], [], []
    if jpegs:
        yield jpegs, np.concatenate(index), np.concatenate(time)


def _facts(work: Work, jobs: ShardJobs) -> dict[str, Any]:
    """Totals over the shards, and a note for each video with lost frames."""
    total = size = 0
    notes: list[dict[str, str]] = []
    names = sorted([*jobs.made, *jobs.kept])
    for name in names:
        size += work.frames(name).stat().st_size
        if name not in jobs.rows:
            with Shard(work.frames(name), FRAMES) as shard:
                jobs.rows[name] = rows_of(shard)
        frames, lost = jobs.rows[name]
        total += frames
        if lost:
            message = f"{len(lost)} of {frames + len(lost)} frames cannot be decoded, the first is {lost[0]}"
            notes.append({"name": name, "message": message})
    return {"videos": len(names), "frames": total, "bytes": size, "notes": notes}
