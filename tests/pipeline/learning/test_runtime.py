"""A device or precision that is asked for is granted or refused, never replaced."""

import json
import platform

import pytest
import torch
from affect.pipeline.errors import DeviceError
from affect.pipeline.learning.runtime import (
    Compute,
    environment,
    free_memory,
    gpu_count,
    pick_device,
    pick_dtype,
    seed_everything,
)
from affect.tests.child import output
from affect.tests.programs.memory import page_faults_of_layers

CPU = torch.device("cpu")


def test_the_cpu_is_always_available() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("wish", ["gpu", "cuda:", "cuda:x", "cpu:0", "CUDA", ""])
def test_what_is_no_device_is_refused_with_what_is_allowed(wish: str) -> None:
    with pytest.raises(DeviceError, match=r"Allowed: auto, cpu, cuda, cuda:N"):
        pick_device(wish)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("wish", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_not_silently_the_cpu(wish: str) -> None:
    with pytest.raises(DeviceError, match="finds no GPU"):
        pick_device(wish)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_beyond_the_last_is_refused() -> None:
    assert pick_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(DeviceError, match="there are"):
        pick_device("cuda:99")


def test_processes_take_the_gpus_in_turn_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [pick_device(wish, 4) for wish in ("auto", "cuda", "cuda:2", "cpu")] == [
        torch.device("cuda", 1), torch.device("cuda", 1), torch.device("cuda", 2), CPU,
    ]  # fmt: skip
    assert [gpu_count(wish) for wish in ("auto", "cuda", "cuda:2", "cpu")] == [3, 3, 1, 0]


def test_the_requested_precision_is_used() -> None:
    assert pick_dtype("fp32", CPU) == torch.float32
    assert pick_dtype("bf16", CPU) == torch.bfloat16
    assert pick_dtype("auto", CPU) in (torch.float32, torch.bfloat16)
    x = torch.ones(4, 4)
    with Compute(CPU).autocast():
        assert (x @ x).dtype == torch.float32
    with Compute(CPU, torch.bfloat16).autocast():
        assert (x @ x).dtype == torch.bfloat16


def test_the_same_seed_gives_the_same_numbers() -> None:
    seed_everything(7)
    first = torch.rand(3)
    seed_everything(7)
    assert torch.equal(first, torch.rand(3))


def test_the_environment_can_be_written_down() -> None:
    facts = json.loads(json.dumps(environment(Compute(CPU, torch.bfloat16))))
    assert (facts["device"], facts["precision"]) == ("cpu", "bf16")
    assert facts["torch"]
    assert facts["affect"]


def test_free_memory_is_a_sensible_number_of_bytes() -> None:
    assert 1 << 20 < free_memory(CPU) < 1 << 50


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back and can be told not to"
)
def test_freed_memory_is_kept_for_the_next_layer() -> None:
    faults = [int(word) for word in output(page_faults_of_layers).split()]
    assert faults[0] > 1000
    assert max(faults[10:]) < faults[0] / 10
