"""doctor: what the machine has of all that affect wants, and the command that mends what is missing."""

import contextlib
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import AffectError

CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "mjpeg")
"""That videos of this kind come in; the first is indispensable."""
DISK_MB = 64
LEAST_MEMORY = 4 << 30
LEAST_DISK = 5 << 30
SLOW_DISK = 50.0
"""MB/s; below it reading shards takes longer than the head's training."""


@dataclass(frozen=True)
class Check:
    """status: ok; note, affect runs but something could be better; missing, something will not run."""

    name: str
    status: Literal["ok", "note", "missing"]
    found: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(work: Path) -> list[Check]:
    """Every check, in the order of the table. work: the folder, which need not be there, whose disk is measured."""
    return [*_python(), *_packages(), *_torch(), *_decoding(), *_machine(), _disk(work), *_extras()]


def show(checks: list[Check]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    from rich.markup import escape

    for check in checks:
        table.add_row(marks[check.status], check.name, escape(check.found), escape(check.remedy))
    Console(highlight=False).print(table)


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("Python", "ok", found)  # an older one cannot install affect


def _packages() -> Iterator[Check]:
    """What affect cannot do without: that each can be imported, which an installation half done cannot."""
    gone = [name for name in _wanted("") if _version(name) is None]
    remedy = "Run: pip install -c constraints.txt -e ."
    yield Check(
        "packages",
        "missing" if gone else "ok",
        f"no {', '.join(gone)}" if gone else "all that affect needs",
        remedy if gone else "",
    )


def _torch() -> Iterator[Check]:
    try:
        import torch
        import torchvision
    except (ImportError, OSError) as error:
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
            f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB; {torch.cuda.device_count()} in all",
        )
    else:
        yield Check(
            "device",
            "note",
            "no GPU that torch can use; the CPU does all but end-to-end training at full size",
            "With one: install its driver and a CUDA build of torch.",
        )
    half = pick_dtype("auto", device) == torch.bfloat16
    yield Check("precision", "ok", "bf16" if half else "fp32 (this hardware does not compute in bf16)")


def _decoding() -> Iterator[Check]:
    """Whether a video that was just written can be read, by each decoder, and which codecs PyAV knows."""
    try:
        import av.error
    except (ImportError, OSError) as error:
        yield Check("PyAV", "missing", f"cannot be imported ({_brief(error)})", "Run: pip install av")
        return
    from ..ingest.video import DECODERS, decode

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            _write_clip(clip)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            yield Check(
                "encoder",
                "note",
                f"no MPEG-4 video can be written ({_brief(error)})",
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
            found = f"{_version(package) or _version(package + '2') or 'unknown version'}"
            if count == _CLIP and used == decoder:
                yield Check(name, "ok", found)
            else:
                status = "missing" if decoder == "pyav" else "note"
                yield Check(
                    name,
                    status,
                    f"{found} does not read a plain video (by {used}: {count} of {_CLIP} frames)",
                    f"Run: pip install --force-reinstall {package}",
                )
    known = [name for name in CODECS if _reads(name)]
    unknown = [name for name in CODECS if name not in known]
    if unknown:
        yield Check(
            "codecs",
            "missing" if CODECS[0] in unknown else "note",
            f"{', '.join(known)}; not {', '.join(unknown)}",
            "Run: pip install --force-reinstall av, or convert such videos.",
        )
    else:
        yield Check("codecs", "ok", ", ".join(known))


_CLIP = 12


def _write_clip(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(_CLIP):
            picture = np.full((64, 64, 3), number * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _reads(codec: str) -> bool:
    import av.codec

    for name in (codec, f"lib{codec}", "libdav1d" if codec == "av1" else codec):
        with contextlib.suppress(ValueError):
            av.codec.Codec(name, "r")
            return True
    return False


def _machine() -> Iterator[Check]:
    import torch

    from ..learning.runtime import free_memory

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", "ok", f"{cores}; torch uses {torch.get_num_threads()} threads")
    free = free_memory(torch.device("cpu"))
    low = free < LEAST_MEMORY
    remedy = "Close other programs, or --set features.batch=16 and fewer --workers." if low else ""
    yield Check("memory", "note" if low else "ok", f"{free / 2**30:.1f} GiB free", remedy)


def _disk(work: Path) -> Check:
    """Writes and reads DISK_MB beside where the work folder is or would be."""
    place = next(folder for folder in (work, *work.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".affect-doctor.", dir=place) as folder:
            path, block = Path(folder) / "block", os.urandom(1 << 20)
            began = time.perf_counter()
            with path.open("wb") as file:
                for _ in range(DISK_MB):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
                wrote = DISK_MB / (time.perf_counter() - began)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else it is read from memory
            began = time.perf_counter()
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass
            read = DISK_MB / (time.perf_counter() - began)
            facts = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError as error:
        return Check("disk", "missing", f"{place} cannot be written ({error.strerror})", "Choose another --work.")
    free = facts.f_bavail * facts.f_frsize if facts else None
    found = f"{place}: writes {wrote:,.0f} MB/s, reads {read:,.0f} MB/s"
    if free is not None:
        found += f", {free / 2**30:,.0f} GiB free"
    if free is not None and free < LEAST_DISK:
        return Check("disk", "note", found, "Free space: Aff-Wild2 takes some 60 GB of frames and features.")
    slow = min(wrote, read) < SLOW_DISK
    return Check("disk", "note" if slow else "ok", found, "Put --work on a local disk." if slow else "")


def _extras() -> Iterator[Check]:
    """What only some commands need: the extras of the installation, whatever they are."""
    for extra in sorted({name for _, name in _requirements() if name and name != "dev"}):
        wanted = _wanted(extra)
        gone = [name for name in wanted if _version(name) is None]
        if gone:
            yield Check(f"extra {extra}", "note", f"no {', '.join(gone)}", f"Run: pip install 'affect[{extra}]'")
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{name} {_version(name)}" for name in wanted))


def _wanted(extra: str) -> list[str]:
    return [name for name, own in _requirements() if own == extra]


def _requirements() -> list[tuple[str, str]]:
    """(package, extra or "") of each requirement that holds on this machine."""
    try:
        lines = requires("affect") or []
    except PackageNotFoundError:  # run from a checkout that is not installed
        return []
    from packaging.requirements import Requirement

    found = []
    for line in lines:
        requirement = Requirement(line)
        match = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        extra = match[1] if match else ""
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found.append((requirement.name, extra))
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
