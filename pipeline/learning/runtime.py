"""Device, precision and seed of the networks, and a record of them."""

import contextlib
import ctypes
import os
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ...configs.schema import Runtime
from ..errors import DeviceError
from ..processes import free_memory as free_ram
from ..processes import spins_unlimited
from ..storage.versions import versions

CPU_BATCH = 16
"""Frames per forward pass on a CPU: more do not fit into its caches."""

MAX_KEPT_BYTES = 1 << 30
"""Limits for glibc: free bytes at the end of the heap that a process keeps, and size of a block in the heap."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def pick_device(requested: str, number: int = 0) -> torch.device:
    """`auto` is a GPU, or the CPU if there is none. Raises DeviceError if another requested device is missing. number:
    of this process; processes that share the GPUs take them in turn, unless a GPU is named."""
    if requested == "auto":
        requested = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, named = requested.partition(":")
    if kind == "cpu" and not colon:
        return torch.device("cpu")
    if kind != "cuda" or (colon and not named.isdigit()):
        raise DeviceError(f"runtime.device is {requested!r}", "Allowed: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(
            f"runtime.device is {requested!r}, but torch {torch.__version__} finds no GPU",
            "Use --set runtime.device=auto or cpu, or install a driver and a CUDA build of torch.",
        )
    index = int(named) if colon else number % count
    if index >= count:
        raise DeviceError(
            f"runtime.device is {requested!r}, but there are only {count} GPUs",
            "Use auto, or a number below that.",
        )
    return torch.device("cuda", index)


def gpu_count(requested: str) -> int:
    """Number of GPUs that processes with this setting take in turn; 0: they use the CPU. Raises DeviceError."""
    if pick_device(requested).type == "cpu":
        return 0
    return 1 if ":" in requested else torch.cuda.device_count()


def pick_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """The dtype for `autocast`. auto: bfloat16 only if the hardware supports it, because emulation is slower."""
    if precision == "fp32":
        return torch.float32
    if precision == "bf16" or _computes_bf16(device):
        return torch.bfloat16
    return torch.float32


@dataclass(frozen=True)
class Compute:
    """Device and precision of networks. dtype: float32 or bfloat16."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context for a forward pass. Autocast is off for float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def pick_compute(runtime: Runtime, number: int = 0) -> Compute:
    """The device and precision of these settings. number: see pick_device. Raises DeviceError."""
    device = pick_device(runtime.device, number)
    return Compute(device, pick_dtype(runtime.precision, device))


def pieces(n: int, device: torch.device) -> list[slice]:
    """Slices of n frames, one per forward pass: CPU_BATCH frames each on a CPU, all frames on a GPU."""
    step = max(1, n if device.type == "cuda" else CPU_BATCH)
    return [slice(start, start + step) for start in range(0, max(n, 1), step)]


def keep_freed_memory(device: torch.device) -> None:
    """On a CPU, keeps memory that networks free in this process. By default, glibc returns large blocks to the system.
    Getting and clearing them again for each layer takes a tenth of the time of a ResNet-50."""
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # no glibc
            mallopt = ctypes.CDLL(None).mallopt
            for limit in (MAX_KEPT_BYTES, 32 << 20):  # older versions accept at most 32 MiB
                if mallopt(_M_MMAP_THRESHOLD, limit):
                    break
            mallopt(_M_TRIM_THRESHOLD, MAX_KEPT_BYTES)
            mallopt(_M_ARENA_MAX, 1)  # otherwise later threads get their own heaps, which are too small


def limit_spinning_late(device: torch.device) -> None:
    """Like processes.limit_spinning, for a caller that loaded torch before affect. On a CPU with GNU OpenMP.

    GNU OpenMP spins for a short time only while it has more threads than cores. So a thread keeps a second team of
    sleeping OpenMP threads, large enough that there is one thread more than cores.
    """
    global _spare_team
    if device.type != "cpu" or not spins_unlimited() or _spare_team is not None:
        return
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads == 1:
        return  # a single thread does not spin
    spare, started = max(2, cores - threads + 2), threading.Event()

    def hold() -> None:
        torch.set_num_threads(spare)
        torch.zeros(spare << 16).add_(1)  # large enough to start every thread
        started.set()
        threading.Event().wait()

    _spare_team = threading.Thread(target=hold, name="affect-openmp", daemon=True)
    _spare_team.start()
    started.wait()
    torch.set_num_threads(threads)  # later threads inherit the last setting


_spare_team: threading.Thread | None = None


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy's legacy generator and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def environment(compute: Compute | None = None, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions (also of `packages`), device and precision of a result, as JSON values. compute: None for `auto`."""
    compute = compute or pick_compute(Runtime())
    return {
        **versions("torch", "torchvision", "numpy", "h5py", *packages),
        "device": device_name(compute.device),
        "precision": "bf16" if compute.dtype == torch.bfloat16 else "fp32",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
    }


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch has only these two private functions for it. If an older torch lacks them, precision is fp32.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


def device_name(device: torch.device) -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory(device: torch.device) -> int:
    """Free bytes on the device; for the CPU, of this machine or of the container that limits this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_ram()
