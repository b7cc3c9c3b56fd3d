"""Training in several processes: sharing of batches, outputs and gradients.

`torchrun` starts the processes. Each has the whole network and computes its share of each batch. Outputs are gathered
before the loss, because the CCC needs the whole batch. Gradients are added after it; the sum equals the gradient of a
single process. In a single process these functions do nothing.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DeviceError, ProcessError
from ..processes import RankInfo, rank_info

TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others. The slowest may be validating or writing."""
JOIN_TIMEOUT = timedelta(minutes=10)
"""How long a process waits at the start until all have started."""
Item = TypeVar("Item")
_group: Any = None
"""All processes, with the longer timeout."""


def own_device(device: torch.device, requested: str) -> torch.device:
    """The GPU of this process: one per process on a machine. Raises DeviceError."""
    rank = rank_info()
    if rank.world == 1 or device.type != "cuda":
        return device
    if ":" in requested:
        raise DeviceError(
            f"runtime.device is {requested!r} for {rank.world} processes",
            "Use auto or cuda: each process then uses its own GPU.",
        )
    if rank.local >= torch.cuda.device_count():
        raise DeviceError(
            f"process {rank.local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}",
            "Start no more processes than GPUs: torchrun --nproc-per-node.",
        )
    return torch.device("cuda", rank.local)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[RankInfo]:
    """Context in which the processes can communicate, by NCCL between GPUs and gloo between CPUs. Waits for all."""
    rank = rank_info()
    if rank.world == 1:
        yield rank
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    global _group
    with _connected():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=JOIN_TIMEOUT)
        _group = dist.new_group(timeout=TIMEOUT)
    try:
        yield rank
    finally:
        _group = None
        dist.destroy_process_group()


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Raises ProcessError if the processes cannot communicate in the block."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise ProcessError(
            f"the connection to another process of this training was lost ({reason})",
            "Its own output says why it ended. Start the same command again on all nodes: the training continues from "
            "its last state.",
        ) from error


def need_agreement(text: str, device: torch.device, what: str) -> None:
    """Raises ProcessError in all processes if they do not all pass the same text. what: the text is about."""
    own = torch.tensor([list(hashlib.sha256(text.encode()).digest())], dtype=torch.uint8)
    different = [rank for rank, part in enumerate(gather_all(own, device)) if not torch.equal(part, own)]
    if different:
        processes = ", ".join(map(str, different))
        raise ProcessError(
            f"process {rank_info().rank} and process {processes} of this training see different {what}",
            "Use the same command, the same affect, and a work folder that all nodes share.",
        )


def own_share(windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """This process's part of the rows of a batch, and whether it counts. With fewer rows than processes, the remaining
    processes get the first row, which must not count in the loss."""
    rank = rank_info()
    own = np.array_split(windows, rank.world)[rank.rank]
    return (own, True) if len(own) else (windows[:1], False)


def gather_rows(tensor: Tensor) -> Tensor:
    """The rows of all processes, [sum of n, ...], by rank. Gradients flow to this process's rows only; the other
    processes compute theirs. tensor: [n, ...]; n may differ between processes."""
    rank = rank_info()
    if rank.world == 1:
        return tensor
    parts = _all_parts(tensor.detach())
    parts[rank.rank] = tensor
    return torch.cat(parts)


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over all processes, with one message per dtype.

    All processes have gradients for the same parameters, because they ran the same network."""
    if rank_info().world == 1:
        return
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in found}, key=str):
        some = [gradient for gradient in found if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in some])
        with _connected():
            dist.all_reduce(flat, group=_group)
        for gradient, total in zip(some, flat.split([gradient.numel() for gradient in some]), strict=True):
            gradient.copy_(total.view_as(gradient))


def broadcast_flag(flag: bool, device: torch.device) -> bool:
    """The flag of rank 0, in all processes."""
    if rank_info().world == 1:
        return flag
    message = torch.tensor([flag], dtype=torch.uint8, device=device)
    with _connected():
        dist.broadcast(message, 0, group=_group)
        return bool(message.item())


def gather_all(tensor: Tensor, device: torch.device) -> list[Tensor]:
    """The tensor of each process, on the CPU. tensor: [n, ...], on the CPU."""
    return [tensor] if rank_info().world == 1 else [part.cpu() for part in _all_parts(tensor.to(device))]


def map_across_ranks(
    items: Sequence[Item], compute: Callable[[Item], NDArray[np.float32]], width: int, device: torch.device
) -> list[NDArray[np.float32]]:
    """compute(item) of each item, in order, float32 [n, width] each. Each process computes a part of them."""
    rank = rank_info()
    if rank.world == 1:
        return [compute(item) for item in items]
    own = [compute(item) for item in items[rank.rank :: rank.world]]
    sizes = torch.tensor([len(values) for values in own], dtype=torch.int64)
    values = torch.from_numpy(np.concatenate([np.empty((0, width), np.float32), *own]))
    results: list[Any] = [None] * len(items)
    for number, (rows, counts) in enumerate(zip(gather_all(values, device), gather_all(sizes, device), strict=True)):
        results[number :: rank.world] = [piece.numpy() for piece in rows.split(counts.tolist())]
    return results


def _all_parts(tensor: Tensor) -> list[Tensor]:
    """The tensor of each process. all_gather needs equal sizes, so shorter parts are padded and then cut."""
    world = rank_info().world
    count = torch.tensor([len(tensor)], device=tensor.device)
    counts = [torch.empty_like(count) for _ in range(world)]
    with _connected():
        dist.all_gather(counts, count, group=_group)
        sizes = [int(it.item()) for it in counts]
    padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(world)]
    with _connected():
        dist.all_gather(parts, padded, group=_group)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
