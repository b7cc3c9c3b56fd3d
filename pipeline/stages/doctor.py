"""doctor: checks the installation and the machine, and names the command that fixes each problem."""

import contextlib
import importlib
import io
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import AffectError
from ..installation import DISTRIBUTION, PYPROJECT, find_conflicts, installed_version, requirements
from ..processes import free_memory

INSTALL = "Run in the source folder: pip install -c constraints.txt -e ."
REINSTALL = "Run: pip uninstall affect. Then run in the source folder: pip install --force-reinstall --no-deps -e ."
MODULES = {
    "dask": "dask.distributed", "decord2": "decord", "opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml",
}  # fmt: skip
"""The module to import, for packages whose module has another name."""
CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
"""Usual video codecs. Without the first one, affect is of no use."""
TEST_FRAMES = 12
"""Length of the video that the decoders are tested with."""
DISK_MB = 64
MIN_MEMORY = 4 << 30
MIN_DISK = 5 << 30
MIN_DISK_RATE = 50.0
"""MB/s. On a slower disk, reading the shards takes longer than training the head."""


@dataclass(frozen=True)
class Check:
    """status: `ok`; `note`: affect runs, but something could be better; `missing`: something will not run."""

    name: str
    status: Literal["ok", "note", "missing"]
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(work: Path) -> list[Check]:
    """Runs every check, in the order of the table. work: the speed of its disk is measured; it need not exist."""
    checks: list[Check] = []
    groups = (_python, _installation, _packages, _torch, _decoding, _machine, lambda: iter((_disk(work),)), _extras)
    for group in groups:
        try:
            for check in group():  # if a group fails, its earlier checks are kept
                if not any(check.name == it.name and it.status == "missing" for it in checks):
                    checks.append(check)
        except (ImportError, OSError, AttributeError, RuntimeError, AffectError) as error:
            found = f"the check failed ({_brief(error)})"
            checks.append(Check(group.__name__.strip("_"), "missing", found, INSTALL))
    return checks


def show(checks: list[Check]) -> None:
    """Prints the checks as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    from rich.markup import escape

    for check in checks:
        table.add_row(marks[check.status], check.name, escape(check.found), escape(check.remedy))
    Console(emoji=False, highlight=False).print(table)


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("Python", "ok", found)  # pip refuses to install affect into an older one


def _installation() -> Iterator[Check]:
    """Whether affect-video is installed, and whether a distribution with the name `affect` is in its way."""
    for conflict in find_conflicts():
        if conflict.ours:
            found = f"{conflict.folder} also has an installation under the old name affect"
            yield Check("old name", "note", found, REINSTALL)
        else:
            found = f"the unrelated package affect {conflict.version} in {conflict.folder} has the same import name"
            yield Check("affect", "missing", found, REINSTALL)
    own = installed_version(DISTRIBUTION)
    if own is None:
        found = f"{DISTRIBUTION} is not installed; it runs from {PYPROJECT.parent}"
        yield Check(DISTRIBUTION, "note", found, INSTALL)
    else:
        yield Check(DISTRIBUTION, "ok", own)


def _packages() -> Iterator[Check]:
    """Whether each required package is installed and can be imported. One row for each that cannot."""
    required = _required_packages("")
    if not required:
        yield Check("packages", "note", f"the required packages are unknown: no {PYPROJECT}", INSTALL)
        return
    complete = True
    for name in required:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # without numpy, OpenCV prints a message to stdout
                importlib.import_module(MODULES.get(name.lower(), name.lower().replace("-", "_")))
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            complete = False
            found = "is not installed" if installed_version(name) is None else f"cannot be imported ({_brief(error)})"
            force = "" if installed_version(name) is None else "--force-reinstall "
            cause = (getattr(error, "name", None) or "").split(".")[0]  # the module that could not be imported
            package = {module: package for package, module in MODULES.items()}.get(cause, cause) or name
            yield Check(name, "missing", found, f"Run: pip install {force}-c constraints.txt {package}")
    if complete:
        yield Check("packages", "ok", "all required packages")


def _torch() -> Iterator[Check]:
    try:
        import torch
        import torchvision
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        yield Check("torch", "missing", f"cannot be imported ({_brief(error)})", "Run: pip install torch torchvision")
        return
    from ..learning.runtime import pick_device, pick_dtype

    yield Check("torch", "ok", f"{torch.__version__}, torchvision {torchvision.__version__}")
    device = pick_device("auto")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        yield Check(
            "device",
            "ok",
            f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB; number of GPUs: {torch.cuda.device_count()}",
        )
    else:
        yield Check(
            "device",
            "note",
            "torch finds no GPU; the CPU is enough for everything except end-to-end training at full size",
            "If the machine has a GPU, install its driver and a CUDA build of torch.",
        )
    half = pick_dtype("auto", device) == torch.bfloat16
    yield Check("precision", "ok", "bf16" if half else "fp32 (this hardware has no bf16)")


def _decoding() -> Iterator[Check]:
    """Whether each decoder reads a new video completely, and which codecs PyAV has."""
    try:
        import av.error
    except (ImportError, OSError) as error:
        yield Check("PyAV", "missing", f"cannot be imported ({_brief(error)})", "Run: pip install av")
        return
    from ..ingest.temporary import temporary_folder
    from ..ingest.video.decode import DECODERS, decode

    with contextlib.ExitStack() as stack:
        try:
            clip = stack.enter_context(temporary_folder("affect-doctor-")) / "clip.mp4"
        except AffectError as error:
            yield Check("temporary folder", "missing", error.problem, error.remedy)
            return
        try:
            _write_clip(clip)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            yield Check(
                "encoder",
                "note",
                f"cannot write an MPEG-4 video ({_brief(error)})",
                "Run: pip install --force-reinstall av",
            )
            return
        for decoder in DECODERS:
            name = {"pyav": "PyAV"}.get(decoder, decoder)
            try:
                with decode(clip, 32, batch=8, deadline=30.0, decoders=(decoder,)) as frames:
                    count, used = sum(len(batch) for batch in frames), frames.decoder
            except AffectError as error:
                count, used = 0, f"none: {error.problem}"
            package = "av" if decoder == "pyav" else decoder
            found = f"{installed_version(package) or installed_version(package + '2') or 'unknown version'}"
            if count == TEST_FRAMES and used == decoder:
                yield Check(name, "ok", found)
            else:
                status = "missing" if decoder == "pyav" else "note"
                yield Check(
                    name,
                    status,
                    f"{found} cannot read a plain video (decoder {used}: {count} of {TEST_FRAMES} frames)",
                    f"Run: pip install --force-reinstall {package}",
                )
    known = [name for name in CODECS if _has_codec(name)]
    unknown = [name for name in CODECS if name not in known]
    if unknown:
        yield Check(
            "codecs",
            "missing" if CODECS[0] in unknown else "note",
            f"{', '.join(known)}; missing: {', '.join(unknown)}",
            "Run: pip install --force-reinstall av. Or convert videos with these codecs.",
        )
    else:
        yield Check("codecs", "ok", ", ".join(known))


def _write_clip(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(TEST_FRAMES):
            picture = np.full((64, 64, 3), number * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _has_codec(codec: str) -> bool:
    import av.codec

    for name in (codec, f"lib{codec}", "libdav1d" if codec == "av1" else codec):
        with contextlib.suppress(ValueError):
            av.codec.Codec(name, "r")
            return True
    return False


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = ""
    with contextlib.suppress(ImportError, OSError, AttributeError, RuntimeError):  # _torch reports it
        import torch

        threads = f"; torch uses {torch.get_num_threads()} threads"
    yield Check("cores", "ok", f"{cores}{threads}")
    free = free_memory()
    low = free < MIN_MEMORY
    remedy = "Close other programs. Or use --set features.batch=16 and fewer --workers." if low else ""
    yield Check("memory", "note" if low else "ok", f"{free / 2**30:.1f} GiB free", remedy)


def _disk(work: Path) -> Check:
    """Writes and reads DISK_MB in the work folder, or in the nearest parent folder that exists."""
    parent = next(folder for folder in (work, *work.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".affect-doctor.", dir=parent) as folder:
            path, block = Path(folder) / "block", os.urandom(1 << 20)
            start = time.perf_counter()
            with path.open("wb") as file:
                for _ in range(DISK_MB):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
                wrote = DISK_MB / (time.perf_counter() - start)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read from disk, not from the cache
            start = time.perf_counter()
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
            read = DISK_MB / (time.perf_counter() - start)
            stats = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError as error:
        return Check("disk", "missing", f"cannot write to {parent} ({error.strerror})", "Choose another --work.")
    free = stats.f_bavail * stats.f_frsize if stats else None
    found = f"{parent}: writes {wrote:,.0f} MB/s, reads {read:,.0f} MB/s"
    if free is not None:
        found += f", {free / 2**30:,.0f} GiB free"
    if free is not None and free < MIN_DISK:
        return Check("disk", "note", found, "Free some space. The frames and features of Aff-Wild2 take about 60 GB.")
    slow = min(wrote, read) < MIN_DISK_RATE
    return Check("disk", "note" if slow else "ok", found, "Put --work on a local disk." if slow else "")


def _extras() -> Iterator[Check]:
    """The optional packages, one row per extra of the distribution."""
    for extra in sorted({extra for _, extra in requirements() if extra and extra != "dev"}):
        required = _required_packages(extra)
        missing = [name for name in required if installed_version(name) is None]
        if missing:
            yield Check(f"extra {extra}", "note", f"no {', '.join(missing)}", f"Run: pip install {' '.join(missing)}")
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{name} {installed_version(name)}" for name in required))


def _required_packages(extra: str) -> list[str]:
    return [name for name, own in requirements() if own == extra]


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
