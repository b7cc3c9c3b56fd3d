"""A training that is killed at any moment and started again ends in the weights that it would have had anyway."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from affect.configs.schema import Config
from affect.pipeline.progress import Reporter, Tracker
from affect.pipeline.records import Work
from affect.pipeline.stages.audit import audit
from affect.pipeline.stages.extract_frames import extract_frames

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


class Deadly(Reporter):
    """Kills its own process, as `kill -9` does, at the step of that number, or after that many seconds."""

    def __init__(self, step: int = -1) -> None:
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


def in_child(config: Config, root: Path, data: Path, run: str, *, end_to_end: bool, step: int, seconds: float) -> int:
    """Trains in a forked process; returns the signal that ended it, 0 if none did."""
    from affect.pipeline.stages.train import train

    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # at its end the process is gone, in the middle of whatever
            train(config, data, Work(root), Deadly(step), run=run, end_to_end=end_to_end)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(text: str, root: Path, data: Path, end_to_end: bool, kills: int) -> None:
    """In a process of its own, which computes nothing itself, so that it can fork. Prints kills and digests as JSON."""
    import torch
    from affect.pipeline.storage.checkpoint import load_weights

    torch.set_num_threads(1)
    config = Config.model_validate_json(text)
    chance = random.Random(1)
    assert in_child(config, root, data, "whole", end_to_end=end_to_end, step=-1, seconds=0) == 0
    seen: list[int] = []
    while True:
        by_step = len(seen) % 2 == 0 and len(seen) < kills
        by_time = len(seen) % 2 == 1 and len(seen) < kills
        seen.append(
            in_child(
                config,
                root,
                data,
                "killed",
                end_to_end=end_to_end,
                step=chance.randint(1, 6) if by_step else -1,
                seconds=chance.uniform(0.02, 0.5) if by_time else 0,
            )
        )
        if not seen[-1]:
            break
    same = []
    for name in ("model.safetensors", "last.safetensors"):
        (whole, of_whole), (other, of_other) = (load_weights(root / "train" / it / name) for it in ("whole", "killed"))
        same.append(all(torch.equal(whole[it], other[it]) for it in whole))
        same.append(_untimed(of_whole["metrics"]) == _untimed(of_other["metrics"]))
    print(json.dumps({"signals": seen, "same": same}))


def _untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: it for name, it in metrics.items() if "second" not in name}


def killed(config: Config, root: Path, data: Path, *, end_to_end: bool, kills: int) -> list[int]:
    code = (
        "import importlib.util, sys; from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('resume', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "module.main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == 'True', int(sys.argv[5]))\n"
    )
    words = [config.model_dump_json(), str(root), str(data), str(end_to_end), str(kills)]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["same"] == [True] * 4
    assert not list((root / "train" / "killed").glob("state*"))
    return result["signals"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_at_random_moments_gives_the_same_weights(
    cached_work: Work, whole_frame_config: Config
) -> None:
    """Ten times: half of them at a random step, half at a random moment, be it while the state is written."""
    signals = killed(whole_frame_config, cached_work.root, Path("nowhere"), end_to_end=False, kills=10)
    assert signals[0] == signal.SIGKILL
    assert len(signals) > 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_end_to_end_training_killed_at_random_moments_gives_the_same_weights(
    write_data: Callable[[Path], Path], whole_frame_config: Config, tmp_path: Path
) -> None:
    shorter = whole_frame_config.train.model_copy(update={"epochs": 2, "accumulate": 2, "batch_end_to_end": 1})
    config = whole_frame_config.model_copy(update={"train": shorter})
    data, work, reporter = write_data(tmp_path / "data"), Work(tmp_path / "work"), Reporter(quiet=True)
    audit(config, data, work, reporter)
    extract_frames(config, data, work, reporter)
    signals = killed(config, work.root, data, end_to_end=True, kills=3)
    assert signals[0] == signal.SIGKILL
