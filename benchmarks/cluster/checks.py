"""A check of `make cluster`: what is tried, and what happened."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


class CheckError(Exception):
    """A check has failed. The text says what happened."""


class UnavailableError(Exception):
    """A part or a check cannot run on this machine. The text says what is missing, and how to install it."""


@dataclass(frozen=True)
class Check:
    """run: does it and returns what happened, in a few words; raises CheckError if that is wrong."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Outcome:
    """A row of the table. happened: in a few words. status: passed, failed or skipped."""

    part: str
    check: str
    happened: str
    seconds: float
    status: str


Part = Callable[[Path], Iterable[Check]]
"""A part gets an empty folder and yields its checks. They run in this order, each before the next one is taken, so a
part can start servers before a check and stop them after it. It raises UnavailableError if it cannot run here."""


def outcomes(part: str, checks: Iterable[Check], only: str = "") -> Iterator[Outcome]:
    """Runs the checks of a part one after the other. only: those with this text in their name."""
    try:
        for check in checks:
            if only not in check.name:
                continue
            start = time.perf_counter()
            try:
                happened, status = check.run(), "passed"
            except CheckError as error:
                happened, status = str(error), "failed"
            except UnavailableError as error:
                happened, status = str(error), "skipped"
            yield Outcome(part, check.name, happened, time.perf_counter() - start, status)
    except UnavailableError as error:
        yield Outcome(part, "all", str(error), 0.0, "skipped")


def expect(condition: object, otherwise: str) -> None:
    """Raises CheckError with the text `otherwise` unless the condition is true."""
    if not condition:
        raise CheckError(otherwise)
