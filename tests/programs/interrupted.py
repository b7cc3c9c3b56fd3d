"""Trains a head several times, and kills all but one of the trainings at chosen moments, as `kill -9` does."""

import json
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affect.pipeline.progress import Reporter, Tracker

if TYPE_CHECKING:
    from affect.configs.schema import Config


@dataclass(frozen=True)
class Moment:
    """When a training is killed: at this step, before this operation on a file of its run, or when a file that it
    writes has this many bytes. 0: not."""

    step: int = 0
    operation: int = 0
    size: int = 0


class KillingReporter(Reporter):
    """Kills its own process at the step of that number."""

    def __init__(self, step: int) -> None:
        super().__init__(quiet=True, silent=True)
        self.left = step

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "") -> Iterator[Tracker]:
        reporter = self

        class Counting(Tracker):
            def note(self, text: str) -> None:
                reporter.left -= 1
                if reporter.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        yield Counting(self, title, total, unit, None)


def kill_before_operation(number: int, folder: Path) -> None:
    """Kills this process before it opens, renames or removes a file of the folder for the time of that number."""
    left = number

    def count(event: str, values: tuple[object, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove") and str(values[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def train_in_fork(config: "Config", data: Path, work: Path, run: str, end_to_end: bool, moment: Moment) -> int:
    """Trains in a forked process. Returns the signal that ended it, 0 if none did."""
    from affect.pipeline.records import Work
    from affect.pipeline.stages.train import train

    child = os.fork()
    if child == 0:
        code = 1
        try:
            if moment.operation:
                kill_before_operation(moment.operation, Work(work).run(run))
            if moment.size:
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_FSIZE, (moment.size, resource.RLIM_INFINITY))
            train(config, data, Work(work), KillingReporter(moment.step), run=run, end_to_end=end_to_end)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def compare_with_uninterrupted(settings: str, data: str, work: str, end_to_end: str, kills: str) -> None:
    """Trains the run `whole` without a kill and the run `killed` with so many. This process computes nothing itself, so
    it can fork. Prints the signals, and whether the weights and metrics of both runs are the same, as JSON.

    settings: a config as JSON. end_to_end: "yes" or "no".
    """
    import torch
    from affect.configs.schema import Config
    from affect.pipeline.records import Work
    from affect.pipeline.storage.checkpoint import load_weights

    torch.set_num_threads(1)
    config, root, chance = Config.model_validate_json(settings), Path(work), random.Random(1)
    state = Work(root).run("killed") / "state.pt"

    def train(run: str, moment: Moment) -> int:
        return train_in_fork(config, Path(data), root, run, end_to_end == "yes", moment)

    assert train("whole", Moment()) == 0
    signals = []
    for number in range(int(kills)):
        if number % 3 == 0:
            moment = Moment(step=chance.randint(1, 6))
        elif number % 3 == 1:
            moment = Moment(operation=chance.randint(1, 30))
        else:
            moment = Moment(size=chance.randrange(4096, state.stat().st_size))
        signals.append(train("killed", moment))
        if not signals[-1]:
            break
    if signals[-1]:
        signals.append(train("killed", Moment()))
    same = {}
    for name in ("model.safetensors", "last.safetensors"):
        (whole, about), (killed, about_killed) = (
            load_weights(Work(root).run(run) / name) for run in ("whole", "killed")
        )
        same[name] = all(torch.equal(whole[it], killed[it]) for it in whole)
        same[f"metrics of {name}"] = _untimed(about["metrics"]) == _untimed(about_killed["metrics"])
    print(json.dumps({"signals": signals, "same": same}))


def _untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: it for name, it in metrics.items() if "second" not in name}
