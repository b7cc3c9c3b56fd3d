"""Waiting for something that another thread or process does, without sleeping for a fixed time."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.01
"""Seconds between two checks of a condition that has no event of its own, such as a new file."""


def wait_until(
    condition: Callable[[], object], process: "subprocess.Popen[Any] | None" = None, seconds: float = 60
) -> None:
    """Returns as soon as the condition is true. Fails after `seconds`, or when the process ends before that."""
    end = time.monotonic() + seconds
    nothing_happens = threading.Event()
    while not condition():
        assert process is None or process.poll() is None, f"the process ended first: {process.communicate()}"
        assert time.monotonic() < end, f"still not true after {seconds} s: {condition}"
        nothing_happens.wait(INTERVAL)


def wait_for_exit(pid: int, seconds: float = 60) -> None:
    """Returns as soon as the process, which need not be a child of this one, has ended. Fails after `seconds`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], seconds)[0], f"process {pid} is still there after {seconds} s"
    finally:
        os.close(handle)
