"""A Dask scheduler and workers, started by the `dask` command line on other addresses of this machine."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Security

from .processes import Process, begin, ended, kill, until

PLAIN = Security()
SCHEDULER, HOSTS = "127.0.0.1", ("127.0.0.2", "127.0.0.3")


@dataclass
class DaskCluster:
    """address: of the scheduler. workers: the processes of the `dask worker` commands, by name. client: watches them.
    env: variables of all processes."""

    folder: Path
    address: str
    client: Client
    env: dict[str, str]
    processes: list[Process]
    workers: dict[str, Process] = field(default_factory=dict)

    def start(
        self, name: str, host: str, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> None:
        """Starts a worker and returns when the scheduler knows it. words: more options of `dask worker`."""
        command = [
            sys.executable, "-m", "dask", "worker", self.address, "--host", host, "--name", name, "--nthreads", "1",
            "--memory-limit", "0", "--no-dashboard", "--local-directory", self.folder / "local", *words,
        ]  # fmt: skip
        process = begin(command, self.folder / f"worker-{name}.log", cwd=cwd, env={**self.env, **(env or {})})
        self.processes.append(process)
        self.workers[name] = process
        until(lambda: self.at(name), f"worker {name} joins", process)

    def at(self, name: str) -> str:
        """The address of a worker; an empty text if the scheduler does not know it."""
        workers = self.client.scheduler_info()["workers"]
        return next((address for address, facts in workers.items() if facts["name"] == name), "")

    def is_busy(self, name: str) -> bool:
        """Whether the worker has a task."""
        tasks: Any = self.client.processing()
        return bool(tasks.get(self.at(name)))

    def hold(self, name: str) -> None:
        """Stops a worker in the middle of its task. It keeps its connections, but does nothing."""
        self.signal(name, signal.SIGSTOP)

    def signal(self, name: str, number: int) -> None:
        kill(self.workers[name], number)


@contextmanager
def dask_cluster(
    folder: Path, *names: str, words: Sequence[str] = (), env: dict[str, str] | None = None, security: Security = PLAIN
) -> Iterator[DaskCluster]:
    """A scheduler and these workers, on HOSTS. words: more options of `dask scheduler`. security: of the client.

    All are killed at the end of the block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    command = [
        sys.executable, "-m", "dask", "scheduler", "--host", SCHEDULER, "--port", "0", "--no-dashboard",
        "--scheduler-file", file, *words,
    ]  # fmt: skip
    processes = [begin(command, folder / "scheduler.log", env=env)]
    with ended(processes):
        until(lambda: _address(file), "the scheduler starts", processes[0])
        with Client(_address(file), set_as_default=False, timeout=60, security=security) as client:
            cluster = DaskCluster(folder, _address(file), client, env or {}, processes)
            for name, host in zip(names, HOSTS, strict=False):
                cluster.start(name, host)
            yield cluster


def _address(file: Path) -> str:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError):
        return ""
