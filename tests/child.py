"""Runs a function of tests/programs in a process of its own.

The functions take strings and print their result. Most import affect inside, so that they can report what it imports.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable


def command(function: Callable[..., object], *arguments: object) -> list[str]:
    """The command line of a process that calls a function with these arguments, as strings."""
    name = f"affect.tests.programs.{function.__module__.rpartition('.')[2]}"
    return [sys.executable, "-W", "ignore", "-m", "affect.tests.child", name, function.__name__, *map(str, arguments)]


def run(
    function: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Calls the function in a process of its own and waits for its end. environment: instead of that of the tests."""
    return subprocess.run(
        command(function, *arguments), capture_output=True, text=True, env=environment or os.environ, check=False
    )


def output(function: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None) -> str:
    """As `run`, for a function that must not fail. Returns what it prints."""
    done = run(function, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


if __name__ == "__main__":
    getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:])
