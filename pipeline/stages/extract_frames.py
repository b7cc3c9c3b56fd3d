"""Every annotated video, decoded once, into a shard of square JPEG frames with their numbers and times."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import crew_size, run_tasks, worker_count
from ..errors import InputError, ShardError, VideoError
from ..ingest.catalog import find_catalog
from ..ingest.video import Decoding, decode, decoded
from ..progress import Talk
from ..records import Problem, StageReport, Work
from ..storage.fingerprint import fingerprint, source_digest
from ..storage.jpeg import encode
from ..storage.shard import FRAMES, VERSION, Shard, ShardWriter, is_fresh, sweep
from ..storage.versions import versions
from .pieces import Piece, clear, join, piece_path, split

BATCH = 16
"""Frames decoded at once: more of them would no longer be in the processor's cache when they are encoded."""
WRITTEN = 64
"""Frames written at once: each writing costs as much as some frames."""


@dataclass(frozen=True)
class Extraction:
    """One video to extract, all that a worker has to know of it.

    piece: only this part of it, into a shard that waits. pieces: to be joined, where there is no `piece`.
    """

    name: str
    video: Path
    shard: Path
    fingerprint: str
    settings: dict[str, Any]
    deadline: float
    pieces: tuple[Piece, ...] = ()
    piece: Piece | None = None

    @property
    def size(self) -> float:
        """Bytes of video in it, about."""
        return self.video.stat().st_size / (len(self.pieces) if self.piece else 1)

    def parts(self) -> "list[Extraction]":
        """It, or its pieces."""
        return [replace(self, piece=piece) for piece in self.pieces] or [self]


@dataclass
class _Gathered:
    """How far the pieces of one video have come."""

    left: int
    failed: bool = False


@dataclass
class _Ledger:
    """Which pieces are there, and what is to be done when the last one of a video is."""

    videos: dict[str, _Gathered] = field(default_factory=dict)

    def enter(self, item: Extraction, *, failed: bool) -> list[Extraction]:
        """A piece has ended. Once all of its video have: the task that joins them, or, where one failed, that which
        decodes it in one."""
        video = self.videos.setdefault(item.name, _Gathered(len(item.pieces)))
        video.left -= 1
        video.failed |= failed
        return [] if video.left else [replace(item, piece=None, pieces=() if video.failed else item.pieces)]


def extract_frames(
    config: Config, data: Path, work: Work, talk: Talk, *, scheduler: str | None = None, verify: bool = False
) -> StageReport:
    """Writes W/frames/<video>.h5 for every video that a subject is annotated in, unless it is there and up to date.

    verify: shards that are up to date are read through against their checksums as well. A video that gives only some
    of its frames is used, and the numbers of the others are in its shard's `lost` and counted in facts["notes"]; one
    that gives none is in `failed`. Raises CatalogError and WorkError.
    """
    catalog = find_catalog(data)
    annotated = {subject.video for subject in catalog.subjects}
    settings = config.frames.model_dump(mode="json")
    wanted: list[Extraction] = []
    kept: list[str] = []
    failed: dict[str, Problem] = {}
    sweep(work.frames("").parent)
    for video in sorted((video for video in catalog.videos if video.name in annotated), key=lambda video: video.name):
        shard = work.frames(video.name)
        try:
            made_from = frames_fingerprint(config, video.path)
        except InputError as error:
            failed[video.name] = Problem("damaged", video.name, error.problem, error.remedy)
            continue
        if is_fresh(shard, FRAMES, made_from) and (not verify or _reads_through(shard, talk)):
            kept.append(video.name)
        else:
            deadline = config.runtime.decode_seconds
            wanted.append(Extraction(video.name, video.path, shard, made_from, settings, deadline))
    made: list[str] = []
    if wanted:
        workers = crew_size(worker_count(config.runtime.workers, cores=1), scheduler)
        total = sum(item.video.stat().st_size for item in wanted)
        wanted = [replace(item, pieces=split(item.video, item.video.stat().st_size, total, workers)) for item in wanted]
        parts = [part for item in wanted for part in item.parts()]
        # The longest first, so that none is left to run alone at the end.
        parts.sort(key=lambda part: (-part.size, part.name, part.piece or ()))
        clear(work.frames("").parent, [piece_path(part.shard, part.piece) for part in parts if part.piece])
        ledger = _Ledger()
        with talk.track("extract-frames", len(wanted), "videos") as bar:

            def done(item: Extraction, result: int | Problem) -> list[Extraction]:
                if item.piece:
                    return ledger.enter(item, failed=isinstance(result, Problem))
                if isinstance(result, Problem):
                    failed[item.name] = result
                    # What an older source or other settings made is not what was asked for.
                    item.shard.unlink(missing_ok=True)
                    bar.advance(item=f"{item.name}: {result.message}")
                else:
                    made.append(item.name)
                    bar.advance(item=f"{item.name}: {result} frames")
                return []

            def died(item: Extraction, reason: str) -> list[Extraction]:
                return done(item, Problem("damaged", item.name, reason, "Free memory, or set fewer runtime.workers."))

            alone = len(parts) == 1 and scheduler is None
            run_tasks(
                extract, parts, workers=0 if alone else workers, scheduler=scheduler, on_result=done, on_error=died
            )
        clear(work.frames("").parent)
    return StageReport(
        "extract-frames",
        work.frames("").parent,
        made=tuple(sorted(made)),
        kept=tuple(kept),
        failed=tuple(problem for _, problem in sorted(failed.items())),
        facts=_facts(work, sorted([*made, *kept])),
    )


def frames_fingerprint(config: Config, video: Path) -> str:
    """What a shard of this video's frames bears when it is up to date. Raises InputError."""
    settings = config.frames.model_dump(mode="json")
    return fingerprint(format=FRAMES, version=VERSION, source=source_digest(video), settings=settings)


def extract(item: Extraction) -> int | Problem:
    """Writes one video's shard, or a piece of it; returns how many frames it has, or why there is none. Raises
    WorkError."""
    try:
        if item.piece:
            return _extract_piece(item, item.piece)
        if item.pieces and (frames := _join(item)):
            return frames
        return decoded(
            item.video, item.settings["size"], lambda decoding: _write(item, item.shard, item.fingerprint, decoding),
            batch=BATCH, lent=True, deadline=item.deadline,
        )  # fmt: skip
    except VideoError as error:
        return Problem("damaged", item.name, error.problem, error.remedy)


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


def _extract_piece(item: Extraction, piece: Piece) -> int:
    shard, made_from = piece_path(item.shard, piece), _piece_fingerprint(item, piece)
    if is_fresh(shard, FRAMES, made_from):
        return piece.stop - piece.start
    part = {"start": piece.start, "stop": piece.stop, "decoders": ("pyav",), "batch": BATCH, "lent": True}
    with decode(item.video, item.settings["size"], **part, deadline=item.deadline) as decoding:
        return _write(item, shard, made_from, decoding)


def _piece_fingerprint(item: Extraction, piece: Piece) -> str:
    return fingerprint(whole=item.fingerprint, start=piece.start, stop=piece.stop)


def _join(item: Extraction) -> int:
    """How many frames its pieces gave, 0 where one of them is damaged or another's."""
    paths = [piece_path(item.shard, piece) for piece in item.pieces]
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
    """JPEGs, numbers and times of the frames, WRITTEN of them or a few more at a time."""
    jpegs: list[NDArray[np.uint8]] = []
    index: list[NDArray[np.int64]] = []
    time: list[NDArray[np.float64]] = []
    for batch in decoding:
        jpegs += encode(batch.pixels, quality)
        index.append(batch.index)
        time.append(batch.time)
        if len(jpegs) >= WRITTEN:
            yield jpegs, np.concatenate(index), np.concatenate(time)
            jpegs, index, time = [], [], []
    if jpegs:
        yield jpegs, np.concatenate(index), np.concatenate(time)


def _reads_through(path: Path, talk: Talk) -> bool:
    try:
        with Shard(path, FRAMES) as shard:
            shard.verify()
    except ShardError as error:
        talk.warn(f"{error.problem}: it is made again")
        return False
    return True


def _facts(work: Work, names: list[str]) -> dict[str, Any]:
    """Totals over the shards, and a note on each video that lost frames."""
    frames = size = 0
    notes: list[dict[str, str]] = []
    for name in names:
        size += work.frames(name).stat().st_size
        with Shard(work.frames(name), FRAMES) as shard:
            frames += len(shard)
            lost = shard.attributes["lost"]
        if lost:
            message = f"{len(lost)} of {len(shard) + len(lost)} frames cannot be decoded, the first is {lost[0]}"
            notes.append({"name": name, "message": message})
    return {"videos": len(names), "frames": frames, "bytes": size, "notes": notes}
