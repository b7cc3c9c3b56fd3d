"""Search spaces of `affect tune`: YAML files of settings, each with a list of values or a range."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..pipeline.errors import ConfigError
from .schema import load

HERE = Path(__file__).parent / "search"
SECTIONS = ("clip", "head", "train", "smooth")
"""The sections whose settings training from cache reads."""


@dataclass(frozen=True)
class Range:
    """Values from low to high, both included; integers if both are integers. log: uniform on a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = Mapping[str, tuple[Any, ...] | Range]
"""The values to try, by `section.key`."""


def names() -> tuple[str, ...]:
    """Names of the shipped search spaces."""
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def read_space(name_or_path: str, base: Path) -> Space:
    """Reads a search space by name or by path. base: the config that must allow the values. Raises ConfigError, which
    names the file and the key."""
    path = HERE / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        near = difflib.get_close_matches(name_or_path, names(), n=1)
        known = f"Use {', '.join(names())}, or the path of a YAML file."
        raise ConfigError(
            f"search space {name_or_path!r} does not exist", f"Did you mean {near[0]}?" if near else known
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not valid YAML: {' '.join(str(error).split())}", "Correct the file, or give another --space."
        ) from error
    if not isinstance(values, dict) or not values:
        raise ConfigError(f"{path}: has no settings to try", "For example: head.hidden: [64, 128]")
    return {key: _allowed(path, base, str(key), given) for key, given in values.items()}


def overrides(values: Mapping[str, Any]) -> list[str]:
    """The values as arguments of `--set`."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _allowed(path: Path, base: Path, key: str, given: Any) -> tuple[Any, ...] | Range:
    if key.partition(".")[0] not in SECTIONS:
        raise ConfigError(
            f"{path}: {key} has no effect on training from cache", f"Use settings of {', '.join(SECTIONS)}."
        )
    found = _read(path, key, given)
    for value in (found.low, found.high) if isinstance(found, Range) else found:
        try:
            load(str(base), overrides({key: value}))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.problem.removeprefix('--set: ')}", error.remedy) from error
    return found


def _read(path: Path, key: str, given: Any) -> tuple[Any, ...] | Range:
    if isinstance(given, list) and given:
        return tuple(tuple(value) if isinstance(value, list) else value for value in given)
    try:
        if not isinstance(given, dict):
            raise TypeError
        found = Range(**{str(name): value for name, value in given.items()})
        numbers = all(type(value) in (int, float) for value in (found.low, found.high))
        if numbers and found.low < found.high and not (found.log and (found.low <= 0 or found.step)):
            return found
    except TypeError:
        pass
    raise ConfigError(
        f"{path}: {key} is {given!r}",
        "Expected a list, or {low, high} with low below high; optionally step, or log: true if low is above 0.",
    )
