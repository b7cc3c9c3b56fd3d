"""The state of the process: rank under torchrun, environment, standard descriptors, and what it must not share with a
fork. No heavy imports."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ProcessError

SPIN_COUNT = "GOMP_SPINCOUNT"
SPINS = "1000"
"""Spins of a GNU OpenMP thread before it sleeps. By default it spins for milliseconds, which makes a network five times
as slow when another process is busy."""

SPINS_BY_USER = (SPIN_COUNT, "OMP_WAIT_POLICY")
"""Variables with which users set the same. Their values are kept."""

OPENCV = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 26),  # the largest picture that OpenCV decodes
    "OPENCV_LOG_LEVEL": "SILENT",  # affect reports errors itself
}
"""Environment of affect's own programs. `import affect` does not set it: users may use OpenCV themselves."""


@dataclass(frozen=True)
class RankInfo:
    """rank: number of this process among `world` processes. local: among those on this machine. Only rank 0 writes
    files and messages."""

    rank: int = 0
    world: int = 1
    local: int = 0


def rank_info() -> RankInfo:
    """Reads the environment variables of torchrun. Without them, there is one process."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return RankInfo()
    rank = int(os.environ["RANK"])
    return RankInfo(rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", rank)))


def limit_spinning() -> None:
    """Sets GOMP_SPINCOUNT for this process and those it starts, unless the user has set it or OMP_WAIT_POLICY.

    OpenMP reads it when torch is loaded. If torch is loaded already, `spins_unlimited` returns True afterwards, and
    runtime.limit_spinning_late is needed.
    """
    global _spins_unlimited
    if not any(name in os.environ for name in SPINS_BY_USER):
        os.environ[SPIN_COUNT] = SPINS
        _spins_unlimited = "torch" in sys.modules


_spins_unlimited = False


def spins_unlimited() -> bool:
    """Whether torch was loaded before `limit_spinning` could set how long its threads spin."""
    return _spins_unlimited


def prepare_program() -> None:
    """Prepares a process of affect: the command or a worker."""
    limit_spinning()
    for name, value in OPENCV.items():
        os.environ.setdefault(name, value)
    fill_standard_descriptors()


def fill_standard_descriptors() -> None:
    """Opens the null device as stdin, stdout and stderr if they are closed. Otherwise a file or pipe could get one of
    their numbers, and any library that prints would write into it."""
    with contextlib.suppress(OSError):  # no null device, or no free descriptor
        # The system gives the lowest free number, so this never replaces a descriptor of another thread.
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(opened, True)
        os.close(opened)


def own_networks() -> None:
    """Records that this process uses networks. Raises ProcessError if its parent did so before the fork: threads do not
    survive a fork, and OpenMP would wait for them forever."""
    global _networks_of
    pid = os.getpid()
    if _networks_of not in (None, pid):
        raise ProcessError(
            f"this process ({pid}) was forked from process {_networks_of} after it had loaded a model",
            "Call affect.load in each process after the fork: do not use --preload of gunicorn, or use "
            'multiprocessing.get_context("spawn").',
        )
    _networks_of = pid


_networks_of: int | None = None


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Creates many lasting objects faster: while torch is imported, the search for unused ones takes a tenth of the
    time and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def need_same_process(pid: int, what: str) -> None:
    """Raises ProcessError unless this process is `pid`, which opened `what`."""
    if os.getpid() != pid:
        raise ProcessError(
            f"{what} was opened by process {pid} and is used in the forked process {os.getpid()}",
            "Open it in the process that reads it.",
        )


def free_memory() -> int:
    """Bytes of memory free on this machine, or in the container that limits this process."""
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return 4 << 30  # unknown; a conservative value
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit, used in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free.append(int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
    return max(0, min(free))


_MEMORY_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
