"""Jobs of SLURM: Dask workers, and training on two nodes. The scripts are those of docs/howto/cluster.md."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .checks import Check, CheckError, UnavailableError, expect
from .demo import Demo, draw
from .processes import begin, code_of, ended, until
from .slurm_processes import NODES, Slurm, local_slurm

SCRIPTS = Path(__file__).parents[2] / "docs" / "examples" / "slurm"
STAGES = ("extract-frames", "cache-features")
EPOCHS = 40
PLAIN = ("head.dropout=0", "train.noise=0", "train.time_mask=0", "train.ema=0")
"""Nothing random in the network: two processes draw other numbers than one."""
HELD_AFTER = 2
"""Epochs after which the training is stopped until its job has reached the time limit."""
TOLERANCE = 1e-2
"""Largest relative difference of a loss. Two processes add gradients in another order than one, and the difference
grows from step to step."""
DONE = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")


def slurm(folder: Path) -> Iterator[Check]:
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise UnavailableError("there is no dask-jobqueue. Install it: pip install dask-jobqueue")
    with local_slurm(folder / "slurm") as running:
        demo = draw(folder, STAGES)
        for stage in STAGES:
            yield Check(f"{stage}: workers are jobs (dask-jobqueue)", partial(stages, running, demo, stage))
        yield Check("train: torchrun in a job, two nodes", partial(training, running, demo))
        yield Check("train: time limit, then the same job again", partial(resumed, running, demo))


def stages(running: Slurm, demo: Demo, stage: str) -> str:
    own = demo.folder / f"jobs-{stage}"
    work = demo.work(own.name, stage)
    # Loopback: the nodes are on this machine.
    env = {**running.env, "DASK_JOBQUEUE__SLURM__INTERFACE": "lo"}
    log = own / "cluster.log"
    with log.open("w") as file, subprocess.Popen(
        [sys.executable, SCRIPTS / "cluster.py", str(len(NODES))], cwd=own, stdin=subprocess.PIPE, stdout=file,
        stderr=subprocess.STDOUT, env=os.environ | env,
    ) as cluster:  # fmt: skip
        try:
            until(lambda: "tcp://" in log.read_text(), "dask-jobqueue starts a scheduler")
            until(lambda: len(running.jobs("RUNNING")) == len(NODES), "the jobs of the workers run")
            address = next(line for line in log.read_text().splitlines() if line.startswith("tcp://"))
            command = begin([*demo.words(stage, work), "--scheduler", address], own / "command.log")
            with ended([command]):
                code = code_of(command)
                expect(code in (0, 3), f"exit code {code}: {(own / 'command.log').read_text()[-500:]}")
            cluster.communicate(b"\n", timeout=60)
        finally:
            cluster.kill()
    until(lambda: not running.jobs("RUNNING"), "the jobs of the workers end")
    return f"{len(NODES)} jobs: {demo.same(stage, work)}"


def training(running: Slurm, demo: Demo) -> str:
    """The job on two nodes, compared with one process."""
    one = demo.work("train-one", "")
    command = begin([*demo.words("train", one), *_settings()], one.parent / "command.log")
    with ended([command]):
        expect(code_of(command) == 0, (one.parent / "command.log").read_text()[-500:])
    two = demo.work("train-two", "")
    job = _submit(running, demo, two)
    _finish(running, job, "COMPLETED", two.parent)
    return f"{len(NODES)} nodes: {_same_losses(two, one)}"


def resumed(running: Slurm, demo: Demo) -> str:
    """The training is stopped in its middle, so that the job reaches its time limit. Then it is submitted again."""
    work = demo.work("train-limit", "")
    job = _submit(running, demo, work)
    until(lambda: len(_losses(work)) >= HELD_AFTER or running.state(job) in DONE, "epochs are finished")
    running.call("scancel", "--signal=STOP", job)
    running.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    held = len(_losses(work))
    _finish(running, job, "TIMEOUT", work.parent)
    again = _submit(running, demo, work)
    _finish(running, again, "COMPLETED", work.parent)
    log = next(work.parent.glob(f"*-{again}.log")).read_text()
    expect("resuming after epoch" in log, f"the second job did not continue: {log[-500:]}")
    undisturbed = demo.folder / "train-two" / "work"
    return f"stopped by SLURM after epoch {held} of {EPOCHS}, went on: {_same_losses(work, undisturbed, 0.0)}"


def _submit(running: Slurm, demo: Demo, work: Path, *options: str) -> str:
    """Submits train.sbatch. The options replace those in its #SBATCH lines."""
    words = [*demo.words("train", work), *_settings()]
    small = ("--cpus-per-task=1", "--mem=4G", *options)
    return running.submit(*small, SCRIPTS / "train.sbatch", *words[words.index("train") + 1 :], cwd=work.parent)


def _settings() -> list[str]:
    settings = (*PLAIN, f"train.epochs={EPOCHS}", f"train.patience={EPOCHS}")
    return [word for setting in settings for word in ("--set", setting)]


def _finish(running: Slurm, job: str, expected: str, folder: Path) -> None:
    until(lambda: running.state(job) in DONE, f"job {job} ends")
    state = running.state(job)
    if state != expected:
        log = next(folder.glob(f"*-{job}.log"), None)
        raise CheckError(f"the job is {state} instead of {expected}: {log.read_text()[-500:] if log else ''}")


def _losses(work: Path) -> list[float]:
    """The training loss of each epoch so far."""
    path = work / "train" / "default" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line)["train_loss"] for line in lines]


def _same_losses(work: Path, other: Path, tolerance: float = TOLERANCE) -> str:
    own, expected = _losses(work), _losses(other)
    expect(len(own) == len(expected) == EPOCHS, f"{len(own)} and {len(expected)} epochs instead of {EPOCHS}")
    gap = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(own, expected, strict=True))
    expect(gap <= tolerance and math.isfinite(gap), f"the losses differ by {gap:.1e}: {own} and {expected}")
    return f"{EPOCHS} epochs, losses " + ("equal" if gap == 0 else f"differ by at most {gap:.0e}")
