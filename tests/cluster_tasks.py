"""Tasks for test_cluster.py. Dask workers import them, so they are in a module of their own."""

import os
import threading
from pathlib import Path
from typing import NoReturn

from affect.pipeline.cluster import run_tasks, worker_number

from .waiting import wait_until


def wait_for_two(folder: Path) -> None:
    """Returns when two workers have a task with this folder: each leaves a file there."""
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(list(folder.iterdir())) == 2)


def number_of_one_of_two(folder: Path) -> int:
    """The number of this worker, as soon as two are at work."""
    wait_for_two(folder)
    return worker_number()


def pid_of_one_of_two(folder: Path) -> int:
    """The process id of this worker, as soon as two are at work."""
    wait_for_two(folder)
    return os.getpid()


def torch_threads(_: object) -> int:
    import torch

    return torch.get_num_threads()


def reciprocal(number: int) -> float:
    return 1 / number


def exit_if_negative(number: int) -> int:
    """Ends its worker process if the number is negative."""
    if number < 0:
        os._exit(3)
    return number


def pid_or_block(block: bool) -> int:
    """The process id of this worker, or a task that never ends."""
    if block:
        threading.Event().wait()
    return os.getpid()


def run_blocked() -> NoReturn:
    """Prints the process id of a worker whose next task never ends."""
    run_tasks(pid_or_block, [False, True, True], workers=1, on_result=lambda _, pid: print(pid, flush=True))
    raise AssertionError("the blocked tasks ended")
