"""Several processes train as one does: the same loss and gradient at the same batch, and so the same network."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, dump
from affect.pipeline.learning.model_file import load_model
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.train import train

QUIET = Reporter(quiet=True)
FEATURES = 2048


def changed(config: Config, **train: Any) -> Config:
    """The settings without anything drawn at random in the network."""
    settings = {"noise": 0.0, "time_mask": 0.0, "ema": 0.0, "state_minutes": 10.0, **train}
    return config.model_copy(
        update={
            "head": config.head.model_copy(update={"dropout": 0.0}),
            "train": config.train.model_copy(update=settings),
        }
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def in_two(function: str, *words: str) -> list[dict[str, Any]]:
    """Calls a function of this file in two processes that know of each other; what each prints."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('there', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        f"module.{function}(*sys.argv[1:])\n"
    )
    both, port = [], free_port()
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        both.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *words],
                env=os.environ | place,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    try:
        outputs = [process.communicate() for process in both]
    finally:
        for process in both:
            process.kill()
    assert all(process.returncode == 0 for process in both), "\n".join(errors for _, errors in outputs)
    return [json.loads(text) for text, _ in outputs]


def gradients(text: str, root: str) -> None:
    """Loss and gradient of the first three batches, from cache and end to end, each process with its share."""
    from affect.pipeline.learning.distributed import process_group

    with process_group(torch.device("cpu")):
        print(json.dumps(_gradients(Config.model_validate_json(text), Path(root))))


def _gradients(config: Config, root: Path) -> dict[str, list[float]]:
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_gradient_of_one(cached_work: Work, whole_frame_config: Config) -> None:
    """Also where a batch has less than a window for each process, and where they differ in boxes and lengths."""
    config = changed(whole_frame_config, batch=3, batch_end_to_end=2)
    together = in_two("gradients", config.model_dump_json(), str(cached_work.root))
    alone = _gradients(config, cached_work.root)
    assert len(alone) == 5
    for other in together:
        assert other.keys() == alone.keys()
        for name, figures in alone.items():
            np.testing.assert_allclose(other[name], figures, rtol=2e-3, atol=2e-5 * np.abs(figures).max(), err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_trains_as_one_process_does(cached_work: Work, whole_frame_config: Config) -> None:
    work, config = cached_work, changed(whole_frame_config)
    train(config, Path("nowhere"), work, QUIET, run="one")
    work.config.write_text(dump(config), encoding="utf-8")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "--",
    ]  # else it takes --run for its own
    words = ["affect", "train", "--data", str(work.root), "--work", str(work.root), "--run", "two", "--json"]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == ["two"]
    assert done.stderr.count("subjects (") == 2, "only one process speaks"
    runs = {name: json.loads((work.run(name) / "run.json").read_text()) for name in ("one", "two")}
    assert runs["two"]["environment"]["processes"] == 2
    assert runs["one"]["metrics"].keys() == runs["two"]["metrics"].keys()
    for name, figure in runs["one"]["metrics"].items():
        if "second" not in name:
            assert runs["two"]["metrics"][name] == pytest.approx(figure, rel=1e-2, abs=1e-3), name
    one, two = (load_model(work.run(name))[0].state_dict() for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=2e-3, msg=name)


def lost() -> None:
    """The second process ends without a word, as if its machine had lost power."""
    from affect.pipeline.errors import ProcessError
    from affect.pipeline.learning.distributed import gather_all, process_group
    from affect.pipeline.processes import rank_info

    cpu, message = torch.device("cpu"), ""
    with contextlib.suppress(ProcessError), process_group(cpu):
        gather_all(torch.zeros(1), cpu)
        if rank_info().rank:
            print("{}", flush=True)
            os._exit(0)
        try:
            gather_all(torch.zeros(1), cpu)
        except ProcessError as error:
            message = str(error)
            raise
    print(json.dumps({"message": message}))


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_with_the_remedy() -> None:
    found, _ = in_two("lost")
    assert "connection to another process of this training was lost" in found["message"]
    assert "Start the same command again on all nodes" in found["message"]


def differ() -> None:
    from affect.pipeline.errors import ProcessError
    from affect.pipeline.learning.distributed import need_agreement, process_group

    cpu = torch.device("cpu")
    with process_group(cpu) as rank:
        need_agreement("equal", cpu, "settings")
        with pytest.raises(
            ProcessError, match=f"process {rank.rank} and process {1 - rank.rank} .* different settings"
        ):
            need_agreement(str(rank.rank), cpu, "settings")
    print("{}")


@pytest.mark.slow
def test_processes_that_see_different_files_say_so() -> None:
    in_two("differ")


def trainings(text: str, root: str, port: str, *runs: str) -> None:
    """Trains these runs, one after the other; those called stopped! are interrupted in their second epoch."""

    class Impatient(Reporter):
        def info(self, text: str) -> None:
            if "epoch 2/3" in text:
                raise KeyboardInterrupt

    for number, run in enumerate(runs):
        os.environ["MASTER_PORT"] = str(int(port) + number)
        reporter = Impatient() if run.endswith("!") else QUIET
        with contextlib.suppress(KeyboardInterrupt):
            train(Config.model_validate_json(text), Path("nowhere"), Work(Path(root)), reporter, run=run.rstrip("!"))
    print("{}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_were_stopped_end_as_if_they_had_not_been(
    cached_work: Work, whole_frame_config: Config
) -> None:
    """Each has its own dropout and noise, and goes on with it."""
    words = [whole_frame_config.model_dump_json(), str(cached_work.root)]
    in_two("trainings", *words, str(free_port()), "whole", "stopped!")
    folder = cached_work.run("stopped")
    assert (folder / "state.pt").is_file()
    assert not (folder / "model.safetensors").exists()
    in_two("trainings", *words, str(free_port()), "stopped")
    never, stopped = (load_model(cached_work.run(name))[0].state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(never[name], stopped[name]) for name in never)
