"""affect detect-boxes: detects faces in every frame, follows one face over time, and writes one CSV file per subject.

`affect detect-boxes --data D` writes D/bounding_boxes/<subject>.csv, or into --out. `affect detect-boxes VIDEO… --out
DIR` reads videos outside a data set. Faces are detected by an STN, or by YuNet if --detector names its file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.schema import Config
from ..cluster import Shared, run_tasks, worker_count, worker_number
from ..errors import InputError, WeightsError, WorkError
from ..faults import one_input, worker_died
from ..features.box_record import BoxRecord
from ..features.stn_detector import default_weights, open_stn
from ..features.video_digest import video_digest
from ..inference.inputs import find_videos
from ..inference.outputs import output_names
from ..ingest.boxes import write_boxes
from ..ingest.catalog import find_catalog
from ..progress import Reporter
from ..records import WHOLE, Problem, Region, StageReport
from ..storage.fingerprint import content_digest, fingerprint

if TYPE_CHECKING:
    from ..ingest.detector import Detector, Faces

VERSION = 1
"""Increase it when the same detector gives other boxes."""


@dataclass(frozen=True)
class Search:
    """The search for the boxes of one subject. detector: file of the STN or of YuNet; None: the STN that
    comes with the affect of the worker. fingerprint: of the result."""

    name: str
    video: Path
    out: Path
    region: Region
    detector: Path | None
    config: Config
    fingerprint: str = ""


@dataclass(frozen=True)
class Found:
    """frames: decoded; boxes: frames with a box; content: digest of the box file, if it was written; problem: why it
    was not written or has no boxes."""

    frames: int
    boxes: int
    content: str | None = None
    problem: Problem | None = None


def detect_boxes(
    config: Config,
    reporter: Reporter,
    *,
    data: Path | None = None,
    videos: Sequence[Path] = (),
    out: Path | None = None,
    detector: Path | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
) -> StageReport:
    """Writes a box file for each subject of `data`, and for each of `videos`.

    detector: a YuNet .onnx file, or the .safetensors weights of an STN; None: the STN that comes with affect. Existing
    box files are kept, unless `overwrite` is given, or this stage wrote them with another detector or other settings.
    Raises InputError if there is no input, WeightsError if the detector cannot be used, WorkError if no file can be
    written.
    """
    if data is None and (not videos or out is None):
        raise InputError("no videos given", "Give --data DIR, or videos and --out DIR.")
    if detector is not None and not detector.is_file():
        remedy = "Give a YuNet .onnx file or the weights of an STN, or omit --detector."
        raise WeightsError(f"{detector} does not exist", remedy)
    if scheduler:
        data, out, detector = (path and path.absolute() for path in (data, out, detector))
        videos = [path.absolute() for path in videos]
    folder = out if out is not None else Path(data or ".") / "bounding_boxes"
    found, failed = _named(videos, reporter)
    if data is not None:
        catalog = find_catalog(data)
        found += [(subject.name, catalog.video(subject.video).path, subject.region) for subject in catalog.subjects]
    searches = [Search(name, path, folder / f"{name}.csv", region, detector, config) for name, path, region in found]
    record = BoxRecord(folder)
    pending, problems = _pending(searches, record, content_digest(detector or default_weights()), overwrite)
    results = {problem.name: Found(0, 0, problem=problem) for problem in problems}
    if pending:
        _detector(detector, config.model_dump_json())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(f"{folder}: cannot be written ({error.strerror})", "Choose another --out.") from error
        with reporter.progress("detect-boxes", len(pending), "subjects") as bar:

            def done(search: Search, result: Found) -> None:
                results[search.name] = result
                if result.content is not None:
                    record.add(search.out, search.fingerprint, result.content)
                share = f"{result.boxes} of {result.frames} frames have a face"
                bar.advance(item=f"{search.name}: {result.problem.message if result.problem else share}")

            def died(search: Search, reason: str) -> None:
                done(search, Found(0, 0, problem=worker_died(search.name, reason)))

            workers = 0 if len(pending) == 1 and scheduler is None else _workers(config, detector)
            weights = (detector or default_weights(),)
            run_tasks(
                search_video, pending, workers=workers, scheduler=scheduler, on_result=done, on_error=died,
                shared=Shared(folder, [search.video for search in pending], weights, reporter.warning),
            )  # fmt: skip
    record.save()
    return StageReport(
        stage="detect-boxes",
        output=folder,
        made=tuple(sorted(name for name, result in results.items() if result.problem is None)),
        kept=tuple(search.name for search in searches if search.name not in results),
        failed=(*failed, *(result.problem for _, result in sorted(results.items()) if result.problem)),
        facts={name: {"frames": r.frames, "boxes": r.boxes} for name, r in sorted(results.items())},
    )


def _named(videos: Sequence[Path], reporter: Reporter) -> tuple[list[tuple[str, Path, Region]], list[Problem]]:
    """The videos in these files, folders and patterns, each with the name of its box file, and the problems."""
    files, left_out = find_videos(videos)
    for problem in left_out:
        if problem.kind == "note":
            reporter.warning(f"{problem}")
    failed = [problem for problem in left_out if problem.kind != "note"]
    return [(name, path, WHOLE) for name, path in output_names(files)], failed


def _pending(
    searches: Sequence[Search], record: BoxRecord, digest: str, overwrite: bool
) -> tuple[list[Search], list[Problem]]:
    """The searches without up-to-date boxes, with their fingerprints, largest videos first; and the problems of videos
    that cannot be read. digest: of the detector."""
    pending: list[tuple[int, Search]] = []
    problems: list[Problem] = []
    for search in searches:
        kept = search.out.is_file() and not overwrite
        if kept and search.out not in record:
            continue  # the file came with the data
        with one_input(search.name, problems, kind="missing"):
            key = _fingerprint(search, digest)
            if not kept or record.is_outdated(search.out, key):
                pending.append((search.video.stat().st_size, replace(search, fingerprint=key)))
    pending.sort(key=lambda pair: (-pair[0], pair[1].name))
    return [search for _, search in pending], problems


def _fingerprint(search: Search, detector: str) -> str:
    """detector: the digest of its file. Raises InputError."""
    return fingerprint(
        version=VERSION,
        detector=detector,
        threshold=search.config.predict.face_threshold if _is_stn(search.detector) else None,
        video=video_digest(search.video),
        region=search.region,
        settings=search.config.detect_boxes,
    )


def search_video(search: Search) -> Found:
    """Decodes the video, detects faces in the subject's region, follows one face and writes its boxes. If there is no
    face, the box file has no rows."""
    from ..ingest.detector import no_faces, track_one_face
    from ..ingest.video.decode import Decoding, decoded

    settings = search.config
    detector = _detector(search.detector, settings.model_dump_json())

    def search_frames(decoding: Decoding) -> "tuple[list[Faces], float]":
        faces: list[Faces] = []
        first, last = 0.0, 0.0
        width, height = decoding.facts.width, decoding.facts.height
        for batch in decoding:
            found = detector.find(batch.pixels, width, height)
            for number, some in zip(batch.index.tolist(), found, strict=True):
                faces += [no_faces()] * (number - len(faces))  # frames that were lost
                faces.append(_within(search.region, some, width, height))
            first, last = (first if len(faces) > len(batch) else float(batch.time[0])), float(batch.time[-1])
        return faces, (len(faces) - 1) / (last - first) if last > first else 1.0

    failed: list[Problem] = []
    frames = 0
    with one_input(search.name, failed):
        faces, rate = decoded(
            search.video, detector.size, search_frames, batch=detector.batch, deadline=settings.runtime.decode_seconds
        )
        frames = len(faces)
        boxes = track_one_face(faces, gap=round(settings.detect_boxes.gap_seconds * rate))
        write_boxes(search.out, boxes)
        remedy = "Try a YuNet model with --detector."
        none = None if len(boxes) else Problem("missing", search.name, "no face found in any frame", remedy)
        return Found(frames, len(boxes), content_digest(search.out), none)
    return Found(frames, 0, problem=failed[0])


def _is_stn(detector: Path | None) -> bool:
    return detector is None or detector.suffix == ".safetensors"


def _workers(config: Config, detector: Path | None) -> int:
    """Worker processes: one per GPU, or without a GPU one per two cores, unless runtime.workers is set."""
    if not _is_stn(detector) or config.runtime.workers >= 0:
        return worker_count(config.runtime.workers)
    from ..learning.runtime import gpu_count

    return gpu_count(config.runtime.device) or worker_count(-1)


@lru_cache(maxsize=1)
def _detector(file: Path | None, config_json: str) -> "Detector":
    if file is not None and not _is_stn(file):
        from ..ingest.detector import open_yunet

        return open_yunet(file)
    from ..learning.runtime import pick_compute

    config = Config.model_validate_json(config_json)
    compute = pick_compute(config.runtime, worker_number())
    return open_stn(file or default_weights(), config.predict.face_threshold, compute)


def _within(region: Region, faces: "Faces", width: int, height: int) -> "Faces":
    """The faces with their centre in the region."""
    corners, score = faces
    x, y = (corners[:, 0] + corners[:, 2]) / 2 / width, (corners[:, 1] + corners[:, 3]) / 2 / height
    keep = (x >= region[0]) & (x <= region[2]) & (y >= region[1]) & (y <= region[3])
    return corners[keep], score[keep]
