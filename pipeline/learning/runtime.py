"""What the networks run on: device, precision, seed, and a record of all three."""

import contextlib
import ctypes
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import DeviceError
from ..storage.versions import versions

PIECE = 16
"""Frames that a CPU computes at once: its caches hold no more."""

KEPT = 1 << 30
"""Bytes: of free memory at the end of the heap, and of a block that comes from it, that a process keeps."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def pick_device(wish: str, number: int = 0) -> torch.device:
    """`auto` is a GPU, or the CPU where there is none. Any other wish is granted or a DeviceError. number: of this
    process among those that share the GPUs, which take them in turn where none is named."""
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    kind, colon, named = wish.partition(":")
    if kind == "cpu" and not colon:
        return torch.device("cpu")
    if kind != "cuda" or (colon and not named.isdigit()):
        raise DeviceError(f"runtime.device is {wish!r}", "Allowed: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(
            f"runtime.device is {wish!r}, and this torch ({torch.__version__}) sees no GPU",
            "Use --set runtime.device=auto or cpu, or install a driver and a CUDA build of torch.",
        )
    index = int(named) if colon else number % count
    if index >= count:
        raise DeviceError(f"runtime.device is {wish!r}, and there are {count} GPUs, from cuda:0", "Name one of them.")
    return torch.device("cuda", index)


def gpu_count(wish: str) -> int:
    """How many GPUs processes with this wish take in turn; 0: they take the CPU. Raises DeviceError."""
    if pick_device(wish).type == "cpu":
        return 0
    return 1 if ":" in wish else torch.cuda.device_count()


def pick_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """The dtype for `autocast`. auto: bfloat16 only where the hardware computes in it, for emulation is slower."""
    if precision == "fp32":
        return torch.float32
    if precision == "bf16" or _computes_bf16(device):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """The context in which networks run; float32 switches it off."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def pieces(n: int, device: torch.device) -> list[slice]:
    """How n frames are cut to go through the networks one piece at a time: by PIECE on a CPU, not at all on a GPU."""
    step = max(1, n if device.type == "cuda" else PIECE)
    return [slice(start, start + step) for start in range(0, max(n, 1), step)]


def keep_freed_memory(device: torch.device) -> None:
    """Lets this process keep what networks free on a CPU. glibc would hand large blocks back to the system, and to get
    and clear them again for every layer takes a tenth of the time of a ResNet-50. Elsewhere it does nothing."""
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # no glibc
            mallopt = ctypes.CDLL(None).mallopt
            for most in (KEPT, 32 << 20):  # the most that older ones take
                if mallopt(_M_MMAP_THRESHOLD, most):
                    break
            mallopt(_M_TRIM_THRESHOLD, KEPT)
            mallopt(_M_ARENA_MAX, 1)  # or threads to come get heaps of their own, too small for any of this


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy's legacy generator and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def environment(
    device: torch.device | None = None, dtype: torch.dtype | None = None, packages: Sequence[str] = ()
) -> dict[str, Any]:
    """What a result was computed with, to be recorded beside it: versions (of `packages` too), device, precision. JSON
    values only."""
    device = device or pick_device("auto")
    dtype = dtype or pick_dtype("auto", device)
    return {
        **versions("torch", "torchvision", "numpy", "h5py", *packages),
        "device": device_name(device),
        "precision": "bf16" if dtype == torch.bfloat16 else "fp32",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 1,
    }


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch says what the processor can do only by these two; an older torch that lacks one gets fp32.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and bool(check()) for check in checks)


def device_name(device: torch.device) -> str:
    """The GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_memory(device: torch.device) -> int:
    """Bytes free on the device; for the CPU, in this machine or in the container that limits this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return 4 << 30  # a system that does not say; a modest guess
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit, used in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, min(free))


_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
