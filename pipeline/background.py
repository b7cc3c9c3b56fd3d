"""Runs functions in a child process, one after the other, while this process goes on with its own work.

A thread would not do: Python code in it would hold up the networks, which need the interpreter between two layers.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Self


class BackgroundDied(Exception):  # noqa: N818
    """The child process ended before its task. The text is the reason."""


class Background:
    """A child process that runs tasks in order. Use it in a `with` block, which ends the process.

    Functions, arguments and results must be picklable. A task that raises ends the process. Ctrl-C does not reach it.
    At the end of the block, an unfinished task is interrupted and cleans up, and the other tasks are dropped.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        with _without_interrupts():
            self._process.start()
        other.close()

    def submit(self, function: Callable[..., Any], *args: Any) -> None:
        """Adds a task. May wait until the tasks before it are done."""
        with contextlib.suppress(OSError):  # `result` reports it
            self._pipe.send((function, args))

    def is_ready(self) -> bool:
        """Whether `result` would return at once."""
        return self._pipe.poll()

    def result(self) -> Any:
        """Waits for the oldest task whose result was not fetched, and returns its result.

        Raises what the task raised, and BackgroundDied if the process ended before.
        """
        try:
            result, error = self._pipe.recv()
        except (EOFError, OSError) as failure:
            self._process.join()
            code = self._process.exitcode or 0
            reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise BackgroundDied(f"its process ended ({reason})") from failure
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._pipe.close()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Connection) -> None:
    """Runs in the child process until the parent closes the pipe or ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that unfinished files are removed
    try:
        while True:
            function, args = pipe.recv()
            try:
                result = function(*args)
            except Exception as error:  # noqa: BLE001 - sent to the parent
                pipe.send((None, error))
                raise SystemExit from None
            pipe.send((result, None))
    except (EOFError, OSError, KeyboardInterrupt):
        pass


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started in the block ignore Ctrl-C, already while they start."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
