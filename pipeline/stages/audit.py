"""Looks at everything in the data folder once, and writes down what can be used and why the rest cannot."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...configs.schema import Config
from ..errors import AffectError, InputError, MissingStageError, WorkError
from ..ingest.align import TOLERANCE, check
from ..ingest.annotations import arousal_beside, is_affwild, read_labels
from ..ingest.boxes import read_boxes
from ..ingest.catalog import find_catalog
from ..ingest.lines import short
from ..ingest.video import probe
from ..progress import Talk
from ..records import Catalog, Problem, StageReport, Subject, Video, Work
from ..storage.fingerprint import content_digest, fingerprint, source_digest

if TYPE_CHECKING:
    from rich.table import Table

FORMAT, VERSION = "affect-audit", 1
ACCEPTED = ("ok", "note")
THREADS = min(8, 2 * (os.cpu_count() or 1))
REMEDY = "Run: affect audit --data D --work W"

Item = TypeVar("Item")
Entry = dict[str, Any]


def audit(config: Config, data: Path, work: Work, talk: Talk) -> StageReport:
    """Counts every video's frames and every subject's rows, and decides which subjects the later stages use.

    Writes W/audit.json. What a file held is remembered by its digest, so a second audit looks only at what changed.
    Raises CatalogError and WorkError; trouble with single files is in `failed` and in the audit.
    """
    catalog = find_catalog(data)
    old = _remembered(work)
    annotated = {subject.video for subject in catalog.subjects}
    videos = [video for video in catalog.videos if video.name in annotated]
    with talk.track("audit", len(videos) + len(catalog.subjects), "files") as tracker:
        facts: dict[str, Entry] = {}
        for entry in _in_threads(lambda video: _look_at_video(video, data, old), videos):
            facts[entry["name"]] = entry
            tracker.advance(1, "" if entry["digest"] in old else f"{entry['name']}: {_brief(entry, 'frames')}")
        subjects: list[Entry] = []
        for entry in _in_threads(lambda subject: _look_at_subject(subject, data, old), catalog.subjects):
            subjects.append(_judge(entry, facts[entry["video"]]))
            tracker.advance(1, "" if entry["digest"] in old else f"{entry['name']}: {_brief(entry, 'rows')}")
    result = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(data),
        "tolerance": TOLERANCE,
        "videos": list(facts.values()),
        "subjects": subjects,
        "problems": [asdict(problem) for problem in catalog.problems],
    }
    _write(work, result)
    new = [entry["name"] for entry in subjects if not {entry["digest"], facts[entry["video"]]["digest"]} <= old.keys()]
    return StageReport(
        "audit",
        work.audit,
        made=tuple(new),
        kept=tuple(entry["name"] for entry in subjects if entry["name"] not in set(new)),
        failed=failures(result),
        facts=_totals(result),
    )


def load_audit(work: Work) -> dict[str, Any]:
    """What the last audit wrote. Raises MissingStageError."""
    try:
        result = json.loads(work.audit.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingStageError(f"{work.audit} does not exist", REMEDY) from error
    except (OSError, ValueError) as error:
        raise MissingStageError(f"{work.audit} cannot be read ({error})", REMEDY) from error
    if not isinstance(result, dict) or (result.get("format"), result.get("version")) != (FORMAT, VERSION):
        raise MissingStageError(f"{work.audit} was not written by this version of affect", REMEDY)
    return result


def accepted(audit: dict[str, Any]) -> list[dict[str, Any]]:
    """The subjects that later stages use: those whose rows and frames belong together."""
    return [entry for entry in audit["subjects"] if entry["status"] in ACCEPTED]


def accepted_subjects(work: Work, catalog: Catalog) -> tuple[Subject, ...]:
    """The subjects of a catalogue that the audit accepted. Raises MissingStageError where it saw other ones."""
    entries = {entry["name"]: entry for entry in load_audit(work)["subjects"]}
    changed = sorted(entries.keys() ^ {subject.name for subject in catalog.subjects})
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise MissingStageError(f"{changed[0]}{more} came or went since the audit", REMEDY)
    return tuple(subject for subject in catalog.subjects if entries[subject.name]["status"] in ACCEPTED)


def failures(audit: dict[str, Any]) -> tuple[Problem, ...]:
    """What an audit found refused, damaged or missing."""
    found = [Problem(**problem) for problem in audit["problems"] if problem["kind"] != "note"]
    found += [
        Problem(entry["status"], entry["name"], entry["reason"], entry["remedy"])
        for entry in audit["subjects"]
        if entry["status"] not in ACCEPTED
    ]
    return tuple(found)


def table(audit: dict[str, Any]) -> "Table":
    """The audit for a terminal: a line per split, then what is not plainly well; equal notes are counted together."""
    from rich.table import Table
    from rich.text import Text

    summary = Table("split", box=None)
    for title in ("subjects", "used", "frames", "rows", "annotated", "with boxes", "with crops"):
        summary.add_column(title, justify="right")
    for split, line in _totals(audit)["splits"].items():
        summary.add_row(split, *(f"{value:,}" for value in line.values()))
    notes: dict[str, list[str]] = {}
    for entry in audit["subjects"]:
        if entry["status"] == "note":
            notes.setdefault(entry["reason"], []).append(entry["name"])
    for problem in audit["problems"]:
        if problem["kind"] == "note":
            notes.setdefault(problem["message"], []).append(problem["name"])
    rows = Table("", "which", "what", "what to do", box=None)
    for problem in failures(audit):
        cells = (problem.kind, problem.name, problem.message, problem.remedy)
        rows.add_row(*(Text(cell, style="red" if cell is problem.kind else "") for cell in cells))
    for reason, names in sorted(notes.items(), key=lambda pair: -len(pair[1])):
        which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        rows.add_row("note", Text(which), Text(reason), "")
    both = Table.grid(padding=(1, 0, 0, 0))
    both.add_row(summary)
    if rows.row_count:
        both.add_row(rows)
    return both


def _look_at_video(video: Video, data: Path, old: dict[str, Entry]) -> Entry:
    entry: Entry = {"name": video.name, "path": video.path.relative_to(data).as_posix(), "digest": ""}
    try:
        entry["digest"] = source_digest(video.path)
        if entry["digest"] in old:
            seen = old[entry["digest"]]
            return entry | {key: seen[key] for key in ("width", "height", "frames", "seconds", "codec")} | _ok()
        return entry | asdict(probe(video.path)) | _ok()
    except AffectError as error:
        nothing = dict.fromkeys(("width", "height", "frames", "seconds", "codec"))
        return entry | nothing | {"status": "damaged", "reason": error.problem, "remedy": error.remedy}


def _look_at_subject(subject: Subject, data: Path, old: dict[str, Entry]) -> Entry:
    """What a subject's own files hold; its video is looked at elsewhere."""
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
            found["boxes"] = _count(subject.boxes, ".pts")  # a file per frame: read where they are used, not here
        elif subject.boxes:
            boxes = read_boxes(subject.boxes)
            found |= {"boxes": len(boxes), "last_box": int(boxes.frame[-1]) + 1 if len(boxes) else 0}
    except AffectError as error:
        return entry | dict.fromkeys(found) | {"status": "refused", "reason": error.problem, "remedy": error.remedy}
    return entry | found | _ok()


def _judge(entry: Entry, video: Entry) -> Entry:
    """Puts a subject beside its video: is it to be used, and what is worth saying?"""
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
        notes.append(f"{difference} more row{'s' * (difference > 1)} than frames: left out at the end")
    if difference < 0:
        notes.append(f"{-difference} more frame{'s' * (difference < -1)} than rows: without a label at the end")
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
    """Changes with the content of the annotation and the boxes, and when files come to or go from a folder of them."""
    annotation = [content_digest(subject.annotation)]
    if is_affwild(subject.annotation):
        annotation.append(content_digest(arousal_beside(subject.annotation)))
    boxes, crops = subject.boxes, subject.crops
    return fingerprint(
        annotation=annotation,
        boxes=boxes and (boxes.stat().st_mtime_ns if boxes.is_dir() else content_digest(boxes)),
        crops=crops and crops.stat().st_mtime_ns,
    )


def _count(folder: Path, suffix: str) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.lower().endswith(suffix) and not entry.name.startswith(".") for entry in entries)
    except OSError as error:
        raise InputError(f"{short(folder)}: cannot be read ({error.strerror})", "Check its permissions.") from error


def _in_threads(look: Callable[[Item], Entry], items: Sequence[Item]) -> Iterator[Entry]:
    """Results in the order of the items. An interrupt drops what has not begun."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        for future in [pool.submit(look, item) for item in items]:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _remembered(work: Work) -> dict[str, Entry]:
    """What the last audit found well, by digest. What it found wrong is looked at again: it may have been mended."""
    try:
        old = load_audit(work)
    except MissingStageError:
        return {}
    seen = [entry for entry in old["videos"] if entry["status"] == "ok"]
    seen += [entry for entry in old["subjects"] if entry["rows"] is not None]
    return {entry["digest"]: entry for entry in seen}


def _write(work: Work, result: dict[str, Any]) -> None:
    temporary = work.audit.with_name(f".audit.{os.getpid()}.tmp")
    try:
        work.root.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(work.audit)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WorkError(
            f"{work.audit} cannot be written ({error.strerror})", "Give another folder with --work."
        ) from error


def _totals(audit: dict[str, Any]) -> dict[str, Any]:
    splits: dict[str, dict[str, int]] = {}
    for split in ("train", "validation", "test"):
        own = [entry for entry in audit["subjects"] if entry["split"] == split]
        used = [entry for entry in own if entry["status"] in ACCEPTED]
        if own:
            splits[split] = {
                "subjects": len(own),
                "used": len(used),
                **{key: sum(entry[key] for entry in used) for key in ("frames", "rows", "valid")},
                **{key: sum(bool(entry[key]) for entry in used) for key in ("boxes", "crops")},
            }
    return {
        "videos": len(audit["videos"]),
        "subjects": len(audit["subjects"]),
        "used": len(accepted(audit)),
        "notes": sum(entry["status"] == "note" for entry in audit["subjects"]),
        "failed": len(failures(audit)),
        "splits": splits,
    }
