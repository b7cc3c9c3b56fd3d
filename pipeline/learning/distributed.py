"""Training in several processes: who this one is, and how they share batches, outputs and gradients.

`torchrun` starts the processes. Every one holds the whole network and computes its share of each batch. Outputs are
gathered before the loss, so that a loss over the batch (the CCC) is that of the whole batch, and gradients are added
up after it: the sum is the gradient that one process would have. In a single process all of this does nothing.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DeviceError
from ..processes import Place, place

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: as long as the slowest may take to validate or to write."""
Given = TypeVar("Given")


def own_device(device: torch.device, wish: str) -> torch.device:
    """The GPU of this process: each on a machine takes one of its own. Raises DeviceError."""
    here = place()
    if here.world == 1 or device.type != "cuda":
        return device
    if ":" in wish:
        raise DeviceError(f"runtime.device is {wish!r} for {here.world} processes", "Use auto or cuda: one GPU each.")
    if here.local >= torch.cuda.device_count():
        raise DeviceError(
            f"process {here.local} of this machine finds {torch.cuda.device_count()} GPUs",
            "Start no more processes than GPUs: torchrun --nproc-per-node.",
        )
    return torch.device("cuda", here.local)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Place]:
    """Waits for all processes and lets them talk, by NCCL between GPUs and gloo between CPUs, while it lasts."""
    here = place()
    if here.world == 1:
        yield here
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield here
    finally:
        dist.destroy_process_group()


def own_share(windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """This process's part of a batch's rows, and whether it counts: where there are fewer rows than processes, those
    left over compute the first one, and nothing is to come of it."""
    here = place()
    own = np.array_split(windows, here.world)[here.rank]
    return (own, True) if len(own) else (windows[:1], False)


def gathered(tensor: Tensor) -> Tensor:
    """The rows of all processes, [sum of n, ...], in the order of rank. Gradients go to the own rows only: the others
    are theirs to compute. tensor: [n, ...]; n may differ between processes."""
    here = place()
    if here.world == 1:
        return tensor
    parts = _all_parts(tensor.detach())
    parts[here.rank] = tensor
    return torch.cat(parts)


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The sum over all processes in the place of each gradient, in one message for each type of number.

    Each process has gradients for the same parameters, as all have run the same network."""
    if place().world == 1:
        return
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in found}, key=str):
        some = [gradient for gradient in found if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in some])
        dist.all_reduce(flat)
        for gradient, total in zip(some, flat.split([gradient.numel() for gradient in some]), strict=True):
            gradient.copy_(total.view_as(gradient))


def agreed(wish: bool, device: torch.device) -> bool:
    """What rank 0 wishes."""
    if place().world == 1:
        return wish
    told = torch.tensor([wish], dtype=torch.uint8, device=device)
    dist.broadcast(told, 0)
    return bool(told.item())


def all_of(tensor: Tensor, device: torch.device) -> list[Tensor]:
    """The tensor of each process, on the CPU. tensor: [n, ...], on the CPU."""
    return [tensor] if place().world == 1 else [part.cpu() for part in _all_parts(tensor.to(device))]


def shared_out(
    items: Sequence[Given], compute: Callable[[Given], NDArray[np.float32]], width: int, device: torch.device
) -> list[NDArray[np.float32]]:
    """compute(item) of every item, in order, float32 [n, width] each; every process computes some of them."""
    here = place()
    if here.world == 1:
        return [compute(item) for item in items]
    own = [compute(item) for item in items[here.rank :: here.world]]
    sizes = torch.tensor([len(values) for values in own], dtype=torch.int64)
    values = torch.from_numpy(np.concatenate([np.empty((0, width), np.float32), *own]))
    results: list[Any] = [None] * len(items)
    for rank, (rows, counts) in enumerate(zip(all_of(values, device), all_of(sizes, device), strict=True)):
        results[rank :: here.world] = [piece.numpy() for piece in rows.split(counts.tolist())]
    return results


def _all_parts(tensor: Tensor) -> list[Tensor]:
    """Messages are of one size, so shorter parts are padded and cut again."""
    world = place().world
    count = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    sizes = [int(it.item()) for it in counts]
    padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
