"""affect detect-boxes: detects faces in every frame, follows one face over time, and writes one CSV file per subject.

`affect detect-boxes --data D` writes D/bounding_boxes/<subject>.csv, or into --out. `affect detect-boxes VIDEO… --out
DIR` reads videos outside a data set. Existing box files are kept, unless --overwrite is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..cluster import run_tasks, worker_count
from ..errors import InputError, WorkError
from ..faults import one_input, worker_died
from ..inference.inputs import find_videos
from ..inference.outputs import output_names
from ..ingest.boxes import write_boxes
from ..ingest.catalog import find_catalog
from ..progress import Reporter
from ..records import WHOLE, Problem, Region, StageReport


@dataclass(frozen=True)
class Search:
    """The search for the boxes of one subject."""

    name: str
    video: Path
    out: Path
    region: Region
    model: Path | None
    gap_seconds: float
    deadline: float


@dataclass(frozen=True)
class Found:
    """frames: decoded; boxes: frames with a box; problem: why there are none."""

    frames: int
    boxes: int
    problem: Problem | None = None


def detect_boxes(
    config: Config,
    reporter: Reporter,
    *,
    data: Path | None = None,
    videos: Sequence[Path] = (),
    out: Path | None = None,
    model: Path | None = None,
    overwrite: bool = False,
    scheduler: str | None = None,
) -> StageReport:
    """Writes a box file for each subject of `data`, and for each of `videos`.

    Raises InputError if there is no input, WorkError if no file can be written.
    """
    if data is None and (not videos or out is None):
        raise InputError("no videos given", "Give --data DIR, or videos and --out DIR.")
    folder = out if out is not None else Path(data or ".") / "bounding_boxes"
    found, failed = _named(videos, reporter)
    if data is not None:
        catalog = find_catalog(data)
        found += [(subject.name, catalog.video(subject.video).path, subject.region) for subject in catalog.subjects]
    settings = config.detect_boxes
    searches = [
        Search(name, path, folder / f"{name}.csv", region, model, settings.gap_seconds, config.runtime.decode_seconds)
        for name, path, region in found
    ]
    pending = [search for search in searches if overwrite or not search.out.is_file()]
    results: dict[str, Found] = {}
    sizes: dict[str, int] = {}
    for search in pending:
        problems: list[Problem] = []
        with one_input(search.name, problems, kind="missing"):
            sizes[search.name] = search.video.stat().st_size
        results |= {problem.name: Found(0, 0, problem) for problem in problems}
    pending = sorted((it for it in pending if it.name in sizes), key=lambda it: (-sizes[it.name], it.name))
    if pending:
        _detector(model)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(f"{folder}: cannot be written ({error.strerror})", "Choose another --out.") from error
        with reporter.progress("detect-boxes", len(pending), "subjects") as bar:

            def done(search: Search, result: Found) -> None:
                results[search.name] = result
                share = f"{result.boxes} of {result.frames} frames have a face"
                bar.advance(item=f"{search.name}: {result.problem.message if result.problem else share}")

            def died(search: Search, reason: str) -> None:
                done(search, Found(0, 0, worker_died(search.name, reason)))

            workers = 0 if len(pending) == 1 and scheduler is None else worker_count(config.runtime.workers)
            run_tasks(search_video, pending, workers=workers, scheduler=scheduler, on_result=done, on_error=died)
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


def search_video(search: Search) -> Found:
    """Decodes the video, detects faces in the subject's region, follows one face and writes its boxes."""
    from ..ingest.detector import Faces, no_faces, track_one_face
    from ..ingest.video.decode import Decoding, decoded

    detect = _detector(search.model)

    def search_frames(decoding: Decoding) -> tuple[list[Faces], float]:
        faces: list[Faces] = []
        first, last = 0.0, 0.0
        for batch in decoding:
            for number, picture in zip(batch.index.tolist(), batch.pixels, strict=True):
                faces += [no_faces()] * (number - len(faces))  # frames that were lost
                faces.append(_within(search.region, picture, detect(picture)))
            first, last = (first if len(faces) > len(batch) else float(batch.time[0])), float(batch.time[-1])
        return faces, (len(faces) - 1) / (last - first) if last > first else 1.0

    failed: list[Problem] = []
    frames = 0
    with one_input(search.name, failed):
        faces, rate = decoded(search.video, None, search_frames, batch=8, deadline=search.deadline)
        frames = len(faces)
        boxes = track_one_face(faces, gap=round(search.gap_seconds * rate))
        if not len(boxes):
            problem = Problem(
                "missing", search.name, "no face found in any frame", "Try a YuNet model with --detector."
            )
            return Found(frames, 0, problem)
        write_boxes(search.out, boxes)
        return Found(frames, len(boxes))
    return Found(frames, 0, failed[0])


@lru_cache(maxsize=1)
def _detector(model: Path | None) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    from ..ingest.detector import open_detector

    return open_detector(model)


def _within(
    region: Region, picture: NDArray[np.uint8], faces: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The faces with their centre in the region."""
    corners, score = faces
    height, width = picture.shape[:2]
    x, y = (corners[:, 0] + corners[:, 2]) / 2 / width, (corners[:, 1] + corners[:, 3]) / 2 / height
    keep = (x >= region[0]) & (x <= region[2]) & (y >= region[1]) & (y <= region[3])
    return corners[keep], score[keep]
