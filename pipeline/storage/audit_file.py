"""Reads audit.json: the accepted subjects, the failures, and a table for the terminal."""

import json
from typing import TYPE_CHECKING, Any

from ..errors import MissingStageError
from ..records import Catalog, Problem, Subject, Work

if TYPE_CHECKING:
    from rich.console import Group

FORMAT, VERSION = "affect-audit", 1
ACCEPTED = ("ok", "note")


def load_audit(work: Work) -> dict[str, Any]:
    """The content of audit.json. Raises MissingStageError."""
    remedy = f"Run: affect audit --data DATA --work {work.root}"
    try:
        result = json.loads(work.audit.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingStageError(f"{work.audit} does not exist", remedy) from error
    except (OSError, ValueError) as error:
        raise MissingStageError(f"{work.audit} cannot be read ({error})", remedy) from error
    if not isinstance(result, dict) or (result.get("format"), result.get("version")) != (FORMAT, VERSION):
        raise MissingStageError(f"{work.audit} was not written by this version of affect", remedy)
    return result


def accepted(audit: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the subjects that later stages use."""
    return [entry for entry in audit["subjects"] if entry["status"] in ACCEPTED]


def accepted_subjects(work: Work, catalog: Catalog) -> tuple[Subject, ...]:
    """The subjects of a catalog that the audit accepted. Raises MissingStageError if it audited other subjects."""
    entries = {entry["name"]: entry for entry in load_audit(work)["subjects"]}
    changed = sorted(entries.keys() ^ {subject.name for subject in catalog.subjects})
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        remedy = f"Run: affect audit --data {catalog.root} --work {work.root}"
        raise MissingStageError(f"{changed[0]}{more} was added or removed since the audit", remedy)
    return tuple(subject for subject in catalog.subjects if entries[subject.name]["status"] in ACCEPTED)


def failures(audit: dict[str, Any]) -> tuple[Problem, ...]:
    """The inputs that the audit found refused, damaged or missing."""
    found = [Problem(**problem) for problem in audit["problems"] if problem["kind"] != "note"]
    found += [
        Problem(entry["status"], entry["name"], entry["reason"], entry["remedy"])
        for entry in audit["subjects"]
        if entry["status"] not in ACCEPTED
    ]
    return tuple(found)


def table(audit: dict[str, Any]) -> "Group":
    """The audit for a terminal: a row per split, then failures and notes. Equal notes share a line."""
    from rich.console import Group
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
            text = ". ".join(part for part in (problem["message"], problem["remedy"]) if part)
            notes.setdefault(text, []).append(problem["name"])
    # Not table cells, which would truncate or wrap the paths.
    lines = [Text.assemble((f"{it.kind}  ", "red"), str(it)) for it in failures(audit)]
    for reason, names in sorted(notes.items(), key=lambda pair: -len(pair[1])):
        which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        lines.append(Text(f"note  {which}: {reason}"))
    return Group(summary, *([Text(), *lines] if lines else []))


def totals(audit: dict[str, Any]) -> dict[str, Any]:
    """Counts of all entries, and per split the counts of the subjects that are used."""
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
