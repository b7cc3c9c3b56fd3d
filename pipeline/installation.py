"""The installed distribution of affect: its name, its requirements, and other distributions in its way."""

import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path

DISTRIBUTION = "affect-video"
"""Our name for pip. `affect` on the package index is an unrelated project with the same import name."""
ENTRY_POINT = "affect.cli:app"
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
"""Exists in a source folder, not in an installed wheel."""


@dataclass(frozen=True)
class Conflict:
    """An installed distribution with the name `affect`. ours: whether it is affect under its old name."""

    folder: Path
    version: str
    ours: bool


def find_conflicts() -> list[Conflict]:
    """The distributions with the name `affect` on the import path, at most one per folder."""
    return list(
        {
            folder: Conflict(folder, found.version, any(entry.value == ENTRY_POINT for entry in found.entry_points))
            for found in distributions(name="affect")
            if (folder := Path(str(found.locate_file(""))))
        }.values()
    )


def requirements() -> list[tuple[str, str]]:
    """(package, extra or "") of each requirement that applies to this machine."""
    from packaging.requirements import Requirement

    found = []
    for line, extra in _requirement_lines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.append((requirement.name, extra))
    return found


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirement_lines() -> list[tuple[str, str]]:
    """(requirement, extra or "") from the installed distribution, or from the source folder if none is installed."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        if not PYPROJECT.is_file():
            return []
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
        return [(line, extra) for extra, lines in groups.items() for line in lines]
    extras = [re.search(r"extra\s*==\s*['\"]([^'\"]+)", line) for line in lines]
    return [(line, extra[1] if extra else "") for line, extra in zip(lines, extras, strict=True)]
