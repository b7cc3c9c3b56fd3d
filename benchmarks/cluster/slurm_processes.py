"""SLURM on this machine: two nodes, started without the system's configuration and without root.

    python -m affect.benchmarks.cluster.slurm_processes

starts it, prints the variable that `sbatch` and `squeue` need, and stops it when you press Enter. All files are in a
temporary folder. Containers without cgroups and systemd are enough.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .checks import CheckError, UnavailableError
from .processes import begin, ended, until

NODES = ("node1", "node2")
CPUS, MEMORY = 4, 32_000
"""Of each node, in MB. SLURM believes them (config_overrides), whatever this machine has."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
KILL_WAIT = 5
"""Seconds from SIGTERM to SIGKILL when a job has reached its time limit."""

CONFIGURATION = """\
ClusterName=affect
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={kill_wait}
NodeName={first} NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs={cpus} RealMemory={memory}
NodeName={second} NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs={cpus} RealMemory={memory}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """folder: for its files. env: the variables with which its commands find it."""

    folder: Path
    env: dict[str, str]

    def call(self, *words: str | Path, cwd: Path | None = None) -> str:
        """Runs a command of SLURM and returns what it prints. Raises CheckError."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CheckError(f"{words[0]}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout.strip()

    def submit(self, *words: str | Path, cwd: Path) -> str:
        """Submits a job with `sbatch` and returns its number. cwd: where the job runs and writes its log."""
        return self.call("sbatch", "--parsable", *words, cwd=cwd).split(";")[0]

    def state(self, job: str) -> str:
        """The state of a job, such as RUNNING, COMPLETED or TIMEOUT."""
        text = self.call("scontrol", "show", "job", job)
        return text.partition("JobState=")[2].split()[0]

    def jobs(self, state: str) -> list[str]:
        """The numbers of all jobs in this state."""
        return self.call("squeue", "--noheader", "--format=%i", f"--states={state}").split()


@contextmanager
def local_slurm(folder: Path) -> Iterator[Slurm]:
    """Starts SLURM, yields when its nodes are idle, and ends it together with its jobs.

    Raises UnavailableError if it is not installed, and CheckError if it does not start.
    """
    own = str(Path(sys.executable).parent)  # torchrun and affect are beside Python
    path = os.pathsep.join((own, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=path)]:
        raise UnavailableError(f"there is no {missing[0]}. Install SLURM: apt-get install slurm-wlm")
    env = {"PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    slurm = Slurm(folder, env)
    _configure(folder)
    munged = [
        "munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log",
    ]  # fmt: skip
    processes = [begin(munged, folder / "munged.out", env=env)]
    with ended(processes):
        until(lambda: (folder / "munge.socket").exists(), "munged starts", *processes)
        processes.append(begin(["slurmctld", "-D"], folder / "slurmctld.log", env=env))
        processes += [begin(["slurmd", "-D", "-N", node], folder / f"{node}.log", env=env) for node in NODES]
        until(lambda: _idle(slurm), "the nodes of SLURM are idle", *processes)
        try:
            yield slurm
        finally:
            with suppress(CheckError):  # slurmctld may have died
                slurm.call("scancel", "--user", getpass.getuser())
                until(lambda: not slurm.call("squeue", "--noheader"), "the jobs end", *processes)


def _configure(folder: Path) -> None:
    (folder / "state").mkdir(parents=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller, port1, port2 = _free_ports(3)
    text = CONFIGURATION.format(
        folder=folder, host=socket.gethostname().split(".")[0], user=getpass.getuser(), controller=controller,
        first=NODES[0], second=NODES[1], port1=port1, port2=port2, cpus=CPUS, memory=MEMORY, kill_wait=KILL_WAIT,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(text, encoding="utf-8")


def _idle(slurm: Slurm) -> bool:
    try:
        return slurm.call("sinfo", "--noheader", "--Node", "--format=%t").split() == ["idle"] * len(NODES)
    except CheckError:  # slurmctld does not listen yet
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="affect-slurm-") as temporary, local_slurm(Path(temporary)) as slurm:
        print(f"export SLURM_CONF={slurm.env['SLURM_CONF']}", flush=True)
        input("Press Enter to stop SLURM\n")


if __name__ == "__main__":
    main()
