"""Starts child processes that do not end with the thread that started them.

On Linux, a child that asks for a parent death signal gets it when the thread that started it ends. So a thread that
lives as long as this process starts all of them.
"""

import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any


class _Launcher:
    """Starts processes in a thread that lives as long as this process."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[list[str], dict[str, Any], Future[subprocess.Popen[bytes]]]]
        self._requests = queue.SimpleQueue()
        # Not a ThreadPoolExecutor: at exit, it ends before other threads that still decode.
        self._thread = threading.Thread(target=self._run, name="affect-launcher", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self, command: list[str], options: dict[str, Any]) -> "subprocess.Popen[bytes]":
        started: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((command, options, started))
        return started.result()

    def _run(self) -> None:
        while True:
            command, options, started = self._requests.get()
            try:
                started.set_result(_popen(command, options))
            except OSError as error:
                started.set_exception(error)
            except BaseException as error:
                started.set_exception(error)
                raise
            del started  # the caller has the only reference to the process


def _popen(command: list[str], options: dict[str, Any]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen[bytes](command, **options)


_launcher: _Launcher | None = None
_launcher_lock = threading.Lock()


def _reset_launcher() -> None:
    global _launcher, _launcher_lock
    _launcher, _launcher_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_launcher)  # threads do not survive a fork


def start_process(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Like subprocess.Popen, but the process does not end with the calling thread."""
    global _launcher
    if sys.platform != "linux":
        return _popen(command, options)
    with _launcher_lock:
        if _launcher is None or not _launcher.is_alive():
            try:
                _launcher = _Launcher()
            except RuntimeError:  # no thread can be started: a limit is reached, or the program ends
                return _popen(command, options)
        launcher = _launcher
    return launcher.start(command, options)
