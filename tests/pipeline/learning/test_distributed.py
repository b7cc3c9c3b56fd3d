"""Several processes train as one does: the same loss and gradient at the same batch, and so the same network."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from affect.configs.schema import Config, dump
from affect.pipeline.learning.model_file import load_model
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Work
from affect.pipeline.stages.train import train
from affect.tests.child import command
from affect.tests.programs.distributed import gradients, lose_a_process, print_gradients, refuse_to_differ, train_runs

QUIET = Reporter(quiet=True)


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


def in_two(function: Callable[..., None], *words: object) -> list[str]:
    """Calls a function of tests/programs in two processes that know of each other. Returns what each prints."""
    both, port = [], free_port()
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        both.append(
            subprocess.Popen(
                command(function, *words),
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
    return [text for text, _ in outputs]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_gradient_of_one(cached_work: Work, whole_frame_config: Config) -> None:
    """Also where a batch has less than a window for each process, and where they differ in boxes and lengths."""
    config = changed(whole_frame_config, batch=3, batch_end_to_end=2)
    together = [json.loads(text) for text in in_two(print_gradients, config.model_dump_json(), cached_work.root)]
    alone = gradients(config, cached_work.root)
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


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_with_the_remedy() -> None:
    message, _ = in_two(lose_a_process)
    assert "connection to another process of this training was lost" in message
    assert "Start the same command again on all nodes" in message


@pytest.mark.slow
def test_processes_that_see_different_files_say_so() -> None:
    in_two(refuse_to_differ)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_were_stopped_end_as_if_they_had_not_been(
    cached_work: Work, whole_frame_config: Config
) -> None:
    """Each has its own dropout and noise, and goes on with it."""
    words = [whole_frame_config.model_dump_json(), cached_work.root]
    in_two(train_runs, *words, free_port(), "whole", "stopped!")
    folder = cached_work.run("stopped")
    assert (folder / "state.pt").is_file()
    assert not (folder / "model.safetensors").exists()
    in_two(train_runs, *words, free_port(), "stopped")
    never, stopped = (load_model(cached_work.run(name))[0].state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(never[name], stopped[name]) for name in never)
