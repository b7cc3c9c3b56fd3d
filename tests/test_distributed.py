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
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.train import train

QUIET = Talk(quiet=True)
FEATURES = 2048


def changed(config: Config, **train: Any) -> Config:
    """The settings without anything drawn at random in the network."""
    settings = {"noise": 0.0, "ema": 0.0, "state_minutes": 10.0, **train}
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
    both = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
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
        told = [process.communicate() for process in both]
    finally:
        for process in both:
            process.kill()
    assert all(process.returncode == 0 for process in both), "\n".join(errors for _, errors in told)
    return [json.loads(text) for text, _ in told]


def gradients(text: str, data: str, root: str) -> None:
    """Loss and gradient of the first three batches, from cache and end to end, each process with its share."""
    from affect.pipeline.learning.distributed import add_gradients, joined

    config = Config.model_validate_json(text)
    with joined(torch.device("cpu")) as here:
        found = {}
        for end_to_end in (False, True):
            road = _road(config, Path(data), Work(Path(root)), end_to_end)
            road.model.train()
            for number, batch in zip(range(3), road.batches(1), strict=False):
                road.model.zero_grad()
                value, _ = road.loss(batch)
                value.backward()
                add_gradients(road.model.parameters())
                found[f"{end_to_end} {number}"] = [value.item(), *_norms(road.model)]
    print(json.dumps({"rank": here.rank, "found": found}))


def _norms(model: torch.nn.Module) -> list[float]:
    """Something of each gradient that no two different ones are likely to share."""
    found = []
    for parameter in model.parameters():
        if parameter.grad is not None:
            way = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            found += [parameter.grad.norm().item(), (parameter.grad * way).sum().item()]
    return found


def _road(config: Config, data: Path, work: Work, end_to_end: bool) -> Any:
    from affect.models.affect_net import AffectNet
    from affect.models.head import TemporalHead
    from affect.pipeline.learning.end_to_end import EndToEnd
    from affect.pipeline.learning.from_cache import FromCache
    from affect.pipeline.learning.tracks import FeatureTracks, read_track
    from affect.pipeline.stages.encoder import build_encoder, plan_encoder
    from affect.pipeline.stages.frames_of import frame_tracks, subjects_with_frames

    torch.manual_seed(0)
    head = TemporalHead(FEATURES, **config.head.model_dump())
    cpu, fp32 = torch.device("cpu"), torch.float32
    if end_to_end:
        net = AffectNet(*build_encoder(config, plan_encoder(config, work)), head)
        tracks, _ = frame_tracks(config, [*subjects_with_frames(data, work).values()][:3], work)
        return EndToEnd(net, tracks, tracks[:1], config, cpu, fp32, calibrate=True)
    shards = sorted((work.root / "features").glob("*.h5"))
    held = FeatureTracks([read_track(path) for path in shards], cpu)
    return FromCache(head, held, held, config, cpu, fp32, calibrate=True)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(seen: tuple[Work, Config], tree: Path) -> None:
    """Batches of one, three and more windows: also where there is less than a window for each process."""
    work, config = seen
    config = changed(config, batch=3, batch_end_to_end=1)
    together = in_two("gradients", config.model_dump_json(), str(tree), str(work.root))
    assert together[0]["found"].keys() == {f"{road} {number}" for road in (False, True) for number in range(3)}
    for end_to_end in (False, True):
        road = _road(config, tree, work, end_to_end)
        road.model.train()
        for number, batch in zip(range(3), road.batches(1), strict=False):
            road.model.zero_grad()
            value, _ = road.loss(batch)
            value.backward()
            alone = np.array([value.item(), *_norms(road.model)])
            for other in together:
                found = np.array(other["found"][f"{end_to_end} {number}"])
                assert found.shape == alone.shape
                np.testing.assert_allclose(found, alone, rtol=2e-3, atol=2e-5 * np.abs(alone).max())


@pytest.mark.slow
def test_torchrun_trains_as_one_process_does(seen: tuple[Work, Config], tree: Path, tmp_path: Path) -> None:
    work, config = seen
    config = changed(config)
    work = Work(tmp_path)
    for name in ("frames", "features", "audit.json"):
        (tmp_path / name).symlink_to(seen[0].root / name)
    train(config, tree, work, QUIET, run="one")
    work.config.write_text(dump(config), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    words = ["affect", "train", "--data", str(tree), "--work", str(tmp_path), "--run", "two", "--json"]
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


def trainings(text: str, data: str, root: str, port: str, *runs: str) -> None:
    """Trains these runs, one after the other; those called stopped! are interrupted in their second epoch."""

    class Impatient(Talk):
        def say(self, text: str) -> None:
            if "epoch 2/3" in text:
                raise KeyboardInterrupt

    for number, run in enumerate(runs):
        os.environ["MASTER_PORT"] = str(int(port) + number)
        talk = Impatient() if run.endswith("!") else QUIET
        with contextlib.suppress(KeyboardInterrupt):
            train(Config.model_validate_json(text), Path(data), Work(Path(root)), talk, run=run.rstrip("!"))
    print("{}")


@pytest.mark.slow
def test_two_processes_that_were_stopped_end_as_if_they_had_not_been(
    seen: tuple[Work, Config], tree: Path, tmp_path: Path
) -> None:
    """Each has its own dropout and noise, and goes on with it."""
    work, config = Work(tmp_path), seen[1]
    (tmp_path / "features").symlink_to(seen[0].root / "features")
    words = [config.model_dump_json(), str(tree), str(tmp_path)]
    in_two("trainings", *words, str(free_port()), "whole", "stopped!")
    assert (work.run("stopped") / "state.pt").is_file()
    assert not (work.run("stopped") / "model.safetensors").exists()
    in_two("trainings", *words, str(free_port()), "stopped")
    whole, stopped = (load_model(work.run(name))[0].state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
