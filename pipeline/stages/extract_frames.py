"""Every annotated video, decoded once, into a shard of square JPEG frames with their numbers and times."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import run_tasks, worker_count
from ..errors import InputError, ShardError, VideoError
from ..ingest.catalog import find_catalog
from ..ingest.video import Decoding, decoded
from ..progress import Talk
from ..records import Problem, StageReport, Work
from ..storage.fingerprint import fingerprint, source_digest
from ..storage.jpeg import encode
from ..storage.shard import FRAMES, VERSION, Shard, ShardWriter, is_fresh, sweep
from ..storage.versions import versions

BATCH = 16
"""Frames decoded at once: more of them would no longer be in the processor's cache when they are encoded."""
WRITTEN = 64
"""Frames written at once: each writing costs as much as some frames."""


@dataclass(frozen=True)
class Extraction:
    """One video to extract, all that a worker has to know of it."""

    name: str
    video: Path
    shard: Path
    fingerprint: str
    settings: dict[str, Any]
    deadline: float


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
    # The longest first, so that none is left to run alone at the end.
    wanted.sort(key=lambda item: (-item.video.stat().st_size, item.name))
    made: list[str] = []
    if wanted:
        with talk.track("extract-frames", len(wanted), "videos") as bar:

            def done(item: Extraction, result: int | Problem) -> None:
                if isinstance(result, Problem):
                    failed[item.name] = result
                    # What an older source or other settings made is not what was asked for.
                    item.shard.unlink(missing_ok=True)
                    bar.advance(item=f"{item.name}: {result.message}")
                else:
                    made.append(item.name)
                    bar.advance(item=f"{item.name}: {result} frames")

            def died(item: Extraction, reason: str) -> None:
                done(item, Problem("damaged", item.name, reason, "Free memory, or set fewer runtime.workers."))

            alone = len(wanted) == 1 and scheduler is None
            workers = 0 if alone else worker_count(config.runtime.workers, cores=1)
            run_tasks(extract, wanted, workers=workers, scheduler=scheduler, on_result=done, on_error=died)
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
    """Writes one video's shard; returns how many frames it has, or why there is none. Raises WorkError."""

    def write(decoding: Decoding) -> int:
        with ShardWriter(item.shard, FRAMES, item.fingerprint, item.settings, item.video.name) as writer:
            end = frames = 0
            writer.append(offset=np.zeros(1, np.int64))
            for jpegs, index, time in _encoded(decoding, item.settings["jpeg_quality"]):
                offset = end + np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
                writer.append(jpeg=np.concatenate(jpegs), offset=offset, index=index, pts=time)
                end, frames = int(offset[-1]), frames + len(jpegs)
            facts = decoding.facts
            writer.attributes |= {"width": facts.width, "height": facts.height, "codec": facts.codec}
            writer.attributes |= {"lost": list(decoding.lost), "decoder": decoding.decoder}
            writer.attributes |= {"environment": versions("decord", "decord2", "av", "opencv-python-headless", "numpy")}
        return frames

    try:
        return decoded(item.video, item.settings["size"], write, batch=BATCH, lent=True, deadline=item.deadline)
    except VideoError as error:
        return Problem("damaged", item.name, error.problem, error.remedy)


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
