"""Starts and ends the processes of a check. Each stands for a machine: killing it kills all that it has started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from .checks import CheckError

TIMEOUT = 600
"""Seconds after which a check that waits for something fails."""

Process = subprocess.Popen[bytes]


def begin(
    command: Sequence[str | Path], log: Path, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> Process:
    """Starts a command in its own process group. It writes stdout and stderr to `log`. env: more variables."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(word) for word in command], cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def kill(process: Process, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process and to all that it has started, also in other groups, as torchrun does."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


@contextmanager
def ended(processes: list[Process]) -> Iterator[None]:
    """Kills the processes at the end of the block, also those added to the list in it."""
    try:
        yield
    finally:
        for process in processes:
            kill(process)
        for process in processes:
            process.wait()


def until(condition: Callable[[], object], what: str, *processes: Process) -> None:
    """Returns as soon as the condition is true. Raises CheckError after TIMEOUT, or when one of the processes ends."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > end:
            raise CheckError(f"waited {TIMEOUT} s in vain: {what}")
        if any(process.poll() is not None for process in processes) and not condition():
            raise CheckError(f"a process ended before: {what}")
        time.sleep(0.02)


def code_of(process: Process) -> int:
    """The exit code of a process, when it has ended. Raises CheckError after TIMEOUT."""
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"still running after {TIMEOUT} s: {process.args}") from error


def affect(command: str, *words: str | Path) -> list[str | Path]:
    """The command line of `affect COMMAND …`."""
    return [sys.executable, "-m", "affect", command, *words]
