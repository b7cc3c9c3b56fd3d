"""Trainings in processes that know of each other (torchrun)."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import Config
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.train import train

FEATURES = 2048


def print_gradients(text: str, root: str) -> None:
    """Loss and gradient of the first three batches, from cache and end to end, each process with its share."""
    from affect.pipeline.learning.distributed import process_group

    with process_group(torch.device("cpu")):
        print(json.dumps(gradients(Config.model_validate_json(text), Path(root))))


def gradients(config: Config, root: Path) -> dict[str, list[float]]:
    from affect.pipeline.learning.distributed import add_gradients

    found = {}
    for end_to_end in (False, True):
        task = _task(config, root, end_to_end)
        task.model.train()
        for number, batch in zip(range(3), task.batches(1), strict=False):
            task.model.zero_grad()
            value, _ = task.loss(batch)
            value.backward()
            add_gradients(task.model.parameters())
            found[f"{'end to end' if end_to_end else 'cache'} {number}"] = [value.item(), *_norms(task.model)]
    return found


def _norms(model: torch.nn.Module) -> list[float]:
    """Something of each gradient that no two different ones are likely to share."""
    found = []
    for parameter in model.parameters():
        if parameter.grad is not None:
            way = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            found += [parameter.grad.norm().item(), (parameter.grad * way).sum().item()]
    return found


def _task(config: Config, root: Path, end_to_end: bool) -> Any:
    from affect.models.affect_net import AffectNet
    from affect.models.backbone import scratch
    from affect.models.head import HeadSettings, TemporalHead
    from affect.models.stn import SpatialTransformer
    from affect.pipeline.learning.end_to_end import EndToEnd
    from affect.pipeline.learning.from_cache import FromCache
    from affect.pipeline.learning.tracks import FeatureTracks, read_track

    torch.manual_seed(0)
    head = TemporalHead(FEATURES, HeadSettings(**config.head.model_dump()))
    cpu = Compute(torch.device("cpu"))
    if end_to_end:
        tracks = [_frame_track(seed, n) for seed, n in enumerate((16, 11, 5))]
        net = AffectNet(SpatialTransformer("crop", 32, 32, 0.1), scratch(), head)
        return EndToEnd(net, tracks, tracks[:1], config, cpu, calibrate=True)
    held = FeatureTracks([read_track(path) for path in sorted((root / "features").glob("*.h5"))], cpu.device)
    return FromCache(head, held, held, config, cpu, calibrate=True)


def _frame_track(seed: int, n: int) -> Any:
    """Noise; the first one has boxes."""
    from affect.pipeline.learning.frame_tracks import FrameTrack

    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(rng.integers(0, 255, (n, 3, 40, 40), dtype=np.uint8))
    target = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    boxes = np.tile(np.array([[0.5, 0, 0.2], [0, 0.4, 0]], np.float32), (n, 1, 1))
    return FrameTrack(
        str(seed), lambda rows: frames[torch.from_numpy(rows)], (0.0, 0.0, 1.0, 1.0), np.arange(n), np.arange(n) / 25,
        target, np.ones(n, np.bool_), boxes=None if seed else boxes, boxed=None if seed else np.arange(n) % 3 > 0,
    )  # fmt: skip


def train_runs(text: str, root: str, port: str, *runs: str) -> None:
    """Trains these runs, one after the other; those called stopped! are interrupted in their second epoch."""

    class Impatient(Reporter):
        def info(self, text: str) -> None:
            if "epoch 2/3" in text:
                raise KeyboardInterrupt

    for number, run in enumerate(runs):
        os.environ["MASTER_PORT"] = str(int(port) + number)
        reporter = Impatient() if run.endswith("!") else Reporter(quiet=True)
        with contextlib.suppress(KeyboardInterrupt):
            train(Config.model_validate_json(text), Path("nowhere"), Work(Path(root)), reporter, run=run.rstrip("!"))


def lose_a_process() -> None:
    """The second process ends without a word, as if its machine had lost power. The other one prints its error."""
    from affect.pipeline.errors import ProcessError
    from affect.pipeline.learning.distributed import gather_all, process_group
    from affect.pipeline.processes import rank_info

    cpu, message = torch.device("cpu"), ""
    with contextlib.suppress(ProcessError), process_group(cpu):
        gather_all(torch.zeros(1), cpu)
        if rank_info().rank:
            os._exit(0)
        try:
            gather_all(torch.zeros(1), cpu)
        except ProcessError as error:
            message = str(error)
            raise
    print(message)


def refuse_to_differ() -> None:
    from affect.pipeline.errors import ProcessError
    from affect.pipeline.learning.distributed import need_agreement, process_group

    cpu = torch.device("cpu")
    with process_group(cpu) as rank:
        need_agreement("equal", cpu, "settings")
        expected = f"process {rank.rank} and process {1 - rank.rank} .* different settings"
        with pytest.raises(ProcessError, match=expected):
            need_agreement(str(rank.rank), cpu, "settings")
