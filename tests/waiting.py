"""Waiting for something that another thread or process does.

Nothing here limits the time: `timeout` in pyproject.toml ends a test that hangs.
"""

import os
import select
import subprocess
import threading
from collections.abc import Callable
from typing import Any

INTERVAL = 0.01
"""Seconds between two checks of a condition that has no event of its own, such as a new file."""


def wait_until(condition: Callable[[], object], process: "subprocess.Popen[Any] | None" = None) -> None:
    """Returns as soon as the condition is true. Fails if the process ends before that."""
    nothing_happens = threading.Event()
    while not condition():
        assert process is None or process.poll() is None, f"the process ended first: {process.communicate()}"
        nothing_happens.wait(INTERVAL)


def wait_for_exit(pid: int) -> None:
    """Returns as soon as the process, which need not be a child of this one, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)
