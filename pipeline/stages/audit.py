"""affect audit: examines all files of the data folder once, and writes which of them can be used, and why not the
others."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...configs.schema import Config
from ..cluster import Shared, run_tasks, worker_count
from ..errors import AffectError, InputError, MissingStageError
from ..faults import worker_died
from ..features.video_digest import video_digest
from ..ingest.align import TOLERANCE, check
from ..ingest.annotations import annotation_files, read_labels
from ..ingest.boxes import read_boxes
from ..ingest.catalog import find_catalog
from ..ingest.text_table import short
from ..ingest.video.decode import probe
from ..names import json_text
from ..progress import Reporter
from ..records import StageReport, Subject, Video, Work
from ..storage.atomic import temporary_folder, unwritable, write_text
from ..storage.audit_file import FORMAT, VERSION, failures, load_audit, totals
from ..storage.fingerprint import content_digest, fingerprint
from ..storage.versions import versions

Entry = dict[str, Any]
FACTS = ("width", "height", "frames", "seconds", "codec")
"""The fields of a video."""
PENDING = "pending"
MIN_FOR_WORKERS = 200
"""With fewer new videos, starting workers takes longer than examining the videos in this process."""


def audit(config: Config, data: Path, work: Work, reporter: Reporter, *, scheduler: str | None = None) -> StageReport:
    """Counts the frames of each video and the rows of each subject, and decides which subjects the later stages use.

    Writes W/audit.json. The results are stored with the digests of the files, so a second audit examines only changed
    files. Raises CatalogError and WorkError. Problems of single files are in `failed` and in the audit.
    """
    catalog = find_catalog(data)
    _write(work, None)  # fails before the files are read
    old = _remembered(work)
    annotated = {subject.video for subject in catalog.subjects}
    videos = [video for video in catalog.videos if video.name in annotated]
    with reporter.progress("audit", len(videos) + len(catalog.subjects), "files") as tracker:
        facts = {entry["name"]: entry for entry in (_entry_of(video, data, old) for video in videos)}
        new = [video for video in videos if facts[video.name]["status"] == PENDING]
        pending = [replace(video, path=video.path.absolute()) for video in new]  # workers may be in another folder
        tracker.advance(len(videos) - len(pending))

        def examined(video: Video, found: Entry) -> None:
            facts[video.name] |= found
            tracker.advance(1, f"{video.name}: {_brief(facts[video.name], 'frames')}")

        def died(video: Video, reason: str) -> None:
            problem = worker_died(video.name, reason)
            examined(video, _unusable("damaged", problem.message, problem.remedy))

        # Not in threads: PyAV releases the GIL at every packet, and four threads take three times as long as one.
        alone = scheduler is None and len(pending) < MIN_FOR_WORKERS
        workers = 0 if alone else worker_count(config.runtime.workers, cores=1)
        shared = Shared(work.root.absolute(), [video.path for video in pending], (), reporter.warning)
        run_tasks(
            examine_video, pending, workers=workers, scheduler=scheduler, on_result=examined, on_error=died,
            shared=shared,
        )  # fmt: skip
        subjects: list[Entry] = []
        for subject in catalog.subjects:
            entry = _examine_subject(subject, data, old)
            subjects.append(_check_subject(entry, facts[entry["video"]]))
            tracker.advance(1, "" if entry["digest"] in old else f"{entry['name']}: {_brief(entry, 'rows')}")
    result = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(data),
        "tolerance": TOLERANCE,
        "environment": versions("av", "numpy"),
        "videos": list(facts.values()),
        "subjects": subjects,
        "problems": [asdict(problem) for problem in catalog.problems],
    }
    text = json_text(result, indent=1) + "\n"
    if not work.audit.is_file() or work.audit.read_text(encoding="utf-8") != text:  # the report reads it, by its time
        _write(work, text)
    made = {entry["name"] for entry in subjects if not {entry["digest"], facts[entry["video"]]["digest"]} <= old.keys()}
    return StageReport(
        "audit",
        work.audit,
        made=tuple(entry["name"] for entry in subjects if entry["name"] in made),
        kept=tuple(entry["name"] for entry in subjects if entry["name"] not in made),
        failed=failures(result),
        facts=totals(result),
    )


def _entry_of(video: Video, data: Path, old: dict[str, Entry]) -> Entry:
    """The entry of a video. Its status is PENDING if the video must be examined first."""
    entry: Entry = {"name": video.name, "path": video.path.relative_to(data).as_posix(), "digest": ""}
    try:
        entry["digest"] = video_digest(video.path)
    except AffectError as error:
        return entry | _unusable("damaged", error.problem, error.remedy)
    seen = old.get(entry["digest"])
    if seen is None:
        return entry | dict.fromkeys(FACTS) | {"status": PENDING}
    return entry | {key: seen[key] for key in FACTS} | _ok()


def examine_video(video: Video) -> Entry:
    """The facts and the status of a video."""
    try:
        found = asdict(probe(video.path))
    except AffectError as error:
        return _unusable("damaged", error.problem, error.remedy)
    return {key: found[key] for key in FACTS} | _ok()


def _unusable(status: str, reason: str, remedy: str) -> Entry:
    return dict.fromkeys(FACTS) | {"status": status, "reason": reason, "remedy": remedy}


def _examine_subject(subject: Subject, data: Path, old: dict[str, Entry]) -> Entry:
    """The entry of a subject from its annotation, boxes and crops; its video has its own entry."""
    entry: Entry = {
        "name": subject.name,
        "split": subject.split,
        "video": subject.video,
        "side": subject.side,
        "annotation": subject.annotation.relative_to(data).as_posix(),
        "digest": "",
    }
    found: Entry = dict.fromkeys(("rows", "valid", "boxes", "last_box", "crops"))
    try:
        entry["digest"] = _digest(subject)
        if entry["digest"] in old:
            return entry | {key: old[entry["digest"]][key] for key in found} | _ok()
        found["crops"] = _count(subject.crops, ".jpg") if subject.crops else None
        labels = read_labels(subject.annotation)
        found |= {"rows": len(labels), "valid": int(labels.valid.sum())}
        if subject.boxes and subject.boxes.is_dir():
            found["boxes"] = _count(subject.boxes, ".pts")  # one file per frame: read only when used
        elif subject.boxes:
            boxes = read_boxes(subject.boxes)
            found |= {"boxes": len(boxes), "last_box": int(boxes.frame[-1]) + 1 if len(boxes) else 0}
    except AffectError as error:
        return entry | dict.fromkeys(found) | {"status": "refused", "reason": error.problem, "remedy": error.remedy}
    return entry | found | _ok()


def _check_subject(entry: Entry, video: Entry) -> Entry:
    """The entry of a subject after a comparison with its video: its status, and the reason."""
    entry = entry | {"frames": video["frames"], "difference": None}
    if entry["status"] != "ok":
        return entry
    if video["status"] != "ok":
        return entry | {key: video[key] for key in ("status", "reason", "remedy")}
    difference = entry["difference"] = entry["rows"] - entry["frames"]
    try:
        check(entry["rows"], entry["frames"])
    except AffectError as error:
        return entry | {"status": "refused", "reason": error.problem, "remedy": error.remedy}
    notes = []
    if difference > 0:
        notes.append(f"{difference} more row{'s' * (difference > 1)} than frames: the last rows are ignored")
    if difference < 0:
        notes.append(f"{-difference} more frame{'s' * (difference < -1)} than rows: the last frames have no label")
    if not entry["valid"]:
        notes.append("no row is annotated")
    if (entry["last_box"] or 0) > entry["frames"] + TOLERANCE:
        notes.append("boxes beyond the last frame")
    return entry | {"status": "note", "reason": "; ".join(notes)} if notes else entry


def _ok() -> Entry:
    return {"status": "ok", "reason": "", "remedy": ""}


def _brief(entry: Entry, unit: str) -> str:
    return f"{entry[unit]} {unit}" if entry["status"] == "ok" else f"{entry['status']}: {entry['reason']}"


def _digest(subject: Subject) -> str:
    """A digest of the content of the annotation and the boxes, and of the modification time of folders."""
    boxes, crops = subject.boxes, subject.crops
    return fingerprint(
        annotation=[content_digest(path) for path in annotation_files(subject.annotation)],
        boxes=boxes and (boxes.stat().st_mtime_ns if boxes.is_dir() else content_digest(boxes)),
        crops=crops and crops.stat().st_mtime_ns,
    )


def _count(folder: Path, suffix: str) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.lower().endswith(suffix) and not entry.name.startswith(".") for entry in entries)
    except OSError as error:
        raise InputError(f"{short(folder)}: cannot be read ({error.strerror})", "Check its permissions.") from error


def _remembered(work: Work) -> dict[str, Entry]:
    """The valid entries of the last audit, by digest. Entries with a problem are examined again."""
    try:
        old = load_audit(work)
    except MissingStageError:
        return {}
    seen = [entry for entry in old["videos"] if entry["status"] == "ok"]
    seen += [entry for entry in old["subjects"] if entry["rows"] is not None]
    return {entry["digest"]: entry for entry in seen}


def _write(work: Work, text: str | None) -> None:
    """Writes the audit atomically. Without a text, only checks that it can be written. Raises WorkError."""
    if text is not None:
        write_text(work.audit, text)
        return
    try:
        with temporary_folder(work.root, work.audit.name):
            pass
    except OSError as error:
        raise unwritable(work.audit, error) from error
