"""What an audit wrote, read back: which subjects to use, what failed, and a table of it for a terminal."""

import json
from typing import TYPE_CHECKING, Any

from ..errors import MissingStageError
from ..records import Catalog, Problem, Subject, Work

if TYPE_CHECKING:
    from rich.table import Table

FORMAT, VERSION = "affect-audit", 1
ACCEPTED = ("ok", "note")
REMEDY = "Run: affect audit --data D --work W"


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
    for split, line in totals(audit)["splits"].items():
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


def totals(audit: dict[str, Any]) -> dict[str, Any]:
    """Counts over all, and per split over the subjects that are used."""
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
