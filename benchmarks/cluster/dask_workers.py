"""Stages on the workers of a Dask scheduler: the same files as one process writes, also when a worker dies or joins."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import affect
from distributed import Security

from .checks import Check, UnavailableError, expect
from .dask_processes import HOSTS, DaskCluster, dask_cluster
from .demo import FOLDERS, Demo, draw
from .processes import Process, begin, code_of, ended, until

TRIALS = 6
ROOT = Path(affect.__file__).parent


def dask_workers(folder: Path) -> Iterator[Check]:
    demo = draw(folder)
    for name, check in CHECKS.items():
        yield Check(name, partial(check, demo))


def killed(demo: Demo, stage: str) -> str:
    """One of two workers is stopped in the middle of its first task, and killed when the other has finished one."""
    own = demo.folder / f"killed-{stage}"
    work = demo.work(own.name, stage)
    with dask_cluster(own, "one", "two") as cluster:
        running = begin([*demo.words(stage, work), "--scheduler", cluster.address], own / "command.log")
        with ended([running]):
            until(lambda: cluster.is_busy("two"), "worker two gets a task", running)
            cluster.hold("two")
            until(lambda: any((work / FOLDERS[stage]).glob("[!.]*")), "worker one finishes a task", running)
            expect(cluster.is_busy("two"), "worker two had no task when it was killed")
            cluster.signal("two", signal.SIGKILL)
            check_exit(running, own)
    return f"killed within its task, the other finished: {demo.same(stage, work)}"


@contextlib.contextmanager
def paused(demo: Demo, own: Path, stage: str, work: Path) -> Iterator[tuple[DaskCluster, Process]]:
    """A stage whose only worker is stopped within a task, so that another one can join. At the end of the block, the
    worker continues and the command ends."""
    with dask_cluster(own, "one") as cluster:
        running = begin([*demo.words(stage, work), "--scheduler", cluster.address], own / "command.log")
        with ended([running]):
            until(lambda: cluster.is_busy("one"), "worker one gets a task", running)
            cluster.hold("one")
            yield cluster, running
            cluster.signal("one", signal.SIGCONT)
            check_exit(running, own)


def late(demo: Demo) -> str:
    """Only the second worker, which joins while the first one is stopped, can continue."""
    own, stage = demo.folder / "late", "cache-features"
    work = demo.work(own.name, stage)
    with paused(demo, own, stage, work) as (cluster, running):
        cluster.start("two", HOSTS[1])
        until(lambda: any((work / FOLDERS[stage]).glob("[!.]*")), "the late worker finishes a task", running)
    return f"the late worker made files: {demo.same(stage, work)}"


def two(demo: Demo, stage: str) -> str:
    own = demo.folder / f"two-{stage}"
    work = demo.work(own.name, stage)
    with dask_cluster(own, "one", "two") as cluster:
        running = begin([*demo.words(stage, work), "--scheduler", cluster.address], own / "command.log")
        with ended([running]):
            check_exit(running, own)
    return demo.same(stage, work)


def search(demo: Demo) -> str:
    """One of two workers is killed within a trial of `tune`."""
    own = demo.folder / "tune"
    work = demo.work(own.name, "tune")
    with dask_cluster(own, "one", "two") as cluster:
        words = [*demo.words("tune", work), "--trials", str(TRIALS), "--scheduler", cluster.address]
        running = begin(words, own / "command.log")
        with ended([running]):
            until(lambda: cluster.is_busy("two"), "worker two gets a task", running)
            cluster.hold("two")
            journal = work / "tune" / "head" / "journal.log"
            until(lambda: journal.is_file() and '"state":1' in journal.read_text(), "a trial is finished", running)
            cluster.signal("two", signal.SIGKILL)
            check_exit(running, own)
    rows = (work / "tune" / "head" / "trials.csv").read_text(encoding="utf-8").splitlines()[1:]
    expect(rows, "no trial finished")
    return f"killed within a trial, the other went on: {len(rows)} trials finished"


def refused(demo: Demo, stage: str, other: Callable[[Path], dict[str, str]], problem: str) -> str:
    """A worker with something else than this process. other: makes it and returns variables for the worker."""
    own = demo.folder / f"refused-{other.__name__}"
    work = demo.work(own.name, stage)
    with dask_cluster(own, "one") as cluster:
        cluster.start("odd", HOSTS[1], env=other(own))
        running = begin([*demo.words(stage, work), "--scheduler", cluster.address], own / "command.log")
        with ended([running]):
            return check_refusal(running, own, "worker odd", problem, work / FOLDERS[stage])


def unseen(demo: Demo) -> str:
    """The two workers have different current folders. The paths of the command begin with /proc/self/cwd, the current
    folder of the process that opens them, so one worker finds the files and the other does not."""
    own, stage = demo.folder / "unseen", "extract-frames"
    work = demo.work(own.name, stage)
    elsewhere = own / "elsewhere"
    elsewhere.mkdir()
    words = [str(word).replace(str(demo.folder), "/proc/self/cwd") for word in demo.words(stage, work)]
    with dask_cluster(own) as cluster:
        cluster.start("one", HOSTS[0], cwd=demo.folder)
        cluster.start("odd", HOSTS[1], cwd=elsewhere)
        running = begin([*words, "--scheduler", cluster.address], own / "command.log", cwd=demo.folder)
        with ended([running]):
            return check_refusal(running, own, "worker odd", "does not see", work / FOLDERS[stage])


def late_and_other(demo: Demo) -> str:
    """A worker with other code joins in the middle. It must not make any file."""
    own, stage = demo.folder / "late-other", "extract-frames"
    work = demo.work(own.name, stage)
    with paused(demo, own, stage, work) as (cluster, running):
        cluster.start("odd", HOSTS[1], env=other_code(own))
        until(lambda: "is not used" in log(own), "the late worker is refused", running)
        expect(not any((work / FOLDERS[stage]).glob("*.h5")), "the late worker wrote a file")
    line = next(line for line in log(own).splitlines() if "is not used" in line)
    expect("worker odd" in line and "other code" in line, line)
    return f"refused by name, the other finished: {demo.same(stage, work)}"


def encrypted(demo: Demo) -> str:
    """All connections use TLS. A command without the certificate is refused."""
    own, stage = demo.folder / "tls", "extract-frames"
    work = demo.work(own.name, stage)
    certificate, key = own / "cert.pem", own / "key.pem"
    if not shutil.which("openssl"):
        raise UnavailableError("there is no openssl (Debian: apt-get install openssl)")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=affect"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    start = "DASK_DISTRIBUTED__COMM__"
    variables = {f"{start}REQUIRE_ENCRYPTION": "True", f"{start}TLS__CA_FILE": str(certificate)}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        variables |= {f"{start}TLS__{role}__CERT": str(certificate), f"{start}TLS__{role}__KEY": str(key)}
    own_security = Security(tls_ca_file=str(certificate), tls_client_cert=str(certificate), tls_client_key=str(key))
    options = ("--protocol", "tls")
    with dask_cluster(own, "one", "two", words=options, env=variables, security=own_security) as cluster:
        expect(cluster.address.startswith("tls://"), f"the scheduler has the address {cluster.address}")
        command = [*demo.words(stage, work), "--scheduler", cluster.address]
        without = begin(command, own / "command.log")
        with ended([without]):
            expect(code_of(without) == 1, f"without a certificate: {log(own)[-300:]}")
        line = log(own).splitlines()[-1]
        expect("needs a certificate" in line, f"without a certificate: {line}")
        running = begin(command, own / "command.log", env=variables)
        with ended([running]):
            check_exit(running, own)
    return f"refused without the certificate; with it, {demo.same(stage, work)}"


def other_version(own: Path) -> dict[str, str]:
    text = (ROOT / "pipeline" / "version.py").read_text(encoding="utf-8")
    return copied(own, "pipeline/version.py", text.replace('__version__ = "', '__version__ = "0.'))


def other_code(own: Path) -> dict[str, str]:
    text = (ROOT / "models" / "theta.py").read_text(encoding="utf-8")
    return copied(own, "models/theta.py", f"{text}\n# changed\n")


def other_weights(own: Path) -> dict[str, str]:
    """The base model of the worker's affect has the content of another file."""
    variables = copied(own)
    pretrained = own / "other" / "affect" / "models" / "pretrained"
    shutil.copy(pretrained / "stn.safetensors", pretrained / "base.safetensors")
    return variables


def copied(own: Path, changed: str = "", text: str = "") -> dict[str, str]:
    """Copies affect, with another text in one file. Returns the variables with which a process imports the copy."""
    copy = own / "other" / "affect"
    for name in ("configs", "models", "pipeline"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__init__.py", copy)
    if changed:
        (copy / changed).write_text(text, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(copy.parent), os.environ.get("PYTHONPATH"))))}


def check_exit(running: Process, own: Path) -> None:
    """Raises CheckError unless the command ends as it does in one process: the demo has inputs that are refused."""
    code = code_of(running)
    expect(code in (0, 3), f"exit code {code}: {log(own)[-500:]}")


def check_refusal(running: Process, own: Path, name: str, problem: str, output: Path) -> str:
    code = code_of(running)
    line = next((line for line in log(own).splitlines() if line.startswith("error: ")), "")
    expect(code == 1, f"exit code {code} instead of 1: {log(own)[-500:]}")
    expect(name in line and problem in line and "worker one" not in line, f"the error is: {line}")
    expect(not any(output.glob("*")), "files were written before")
    return line[line.index(name) :].split("; ")[0].split(". Install")[0]


def log(own: Path) -> str:
    return (own / "command.log").read_text(encoding="utf-8", errors="replace")


CHECKS: dict[str, Callable[[Demo], str]] = {
    "extract-frames: one of two workers is killed": partial(killed, stage="extract-frames"),
    "cache-features: one of two workers is killed": partial(killed, stage="cache-features"),
    "cache-features: a worker joins late": late,
    "detect-boxes: two workers": partial(two, stage="detect-boxes"),
    "tune: one of two workers is killed": search,
    "a worker has another version of affect": partial(
        refused, stage="extract-frames", other=other_version, problem="this command is"
    ),
    "a worker has other code": partial(refused, stage="cache-features", other=other_code, problem="other code"),
    "a worker has other weights": partial(
        refused, stage="detect-boxes", other=other_weights, problem="has other weights"
    ),
    "a worker does not see the folders": unseen,
    "a worker with other code joins late": late_and_other,
    "extract-frames: two workers, over TLS": encrypted,
}
