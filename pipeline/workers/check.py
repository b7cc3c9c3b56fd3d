"""Checks that a Dask worker can do the work of this process: same affect, same weights, same folders.

requirements.py sends these functions to the workers by value, because a worker may have another affect or none. So this
module imports only the standard library, and its functions take and return plain values.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDERS = ("configs", "models", "pipeline")
"""Folders of affect whose code a task can run."""
PACKAGES = ("torch", "torchvision", "numpy", "h5py", "av", "decord", "decord2", "opencv-python-headless")
"""Packages that can change the last bits of a result."""
SAMPLES = 8
"""Input files that each worker must find. All would take long for 100,000 videos."""
ADMITTED, FOUND = "_affect_admitted", "_affect_code"
"""Attributes of a Dask worker: the commands that may use it, and its code when it was first checked."""


def needed(probe: Path, reads: Iterable[Path], weights: Iterable[Path]) -> dict[str, Any]:
    """What this process has, and each worker must have too.

    probe: a file that this process has just written to the shared folder. reads: input files. weights: compared by
    content; those that come with affect may have another path on a worker.
    """
    root, files = own_root(), sorted(reads)
    step = max(1, (len(files) - 1) // (SAMPLES - 1))
    return {
        "id": uuid.uuid4().hex,
        "affect": [own_version(root), code_digest(root)],
        "packages": package_versions(),
        "weights": [[_below(path, root), str(path), content(path)] for path in weights],
        "reads": [[str(path), path.stat().st_size] for path in files[::step] if path.is_file()],
        "probe": [str(probe), probe.read_text(encoding="ascii")],
    }


def check_process(needs: dict[str, Any], dask_scheduler: Any) -> dict[str, Any]:
    """What is wrong with the affect of this process: {"problems", "notes"}, lists of texts that continue its name.

    dask_scheduler: the scheduler, which Dask passes by this name, or a worker.
    """
    problems: list[str] = []
    root = own_root()
    if not root:
        return {"problems": ["has no affect"], "notes": []}
    release, code = own_version(root), code_digest(root)
    if release != needs["affect"][0]:
        problems.append(f"has affect {release}, this command is {needs['affect'][0]}")
    elif code != needs["affect"][1]:
        problems.append(f"has affect {release} with other code ({root})")
    elif vars(dask_scheduler).setdefault(FOUND, code) != code:
        problems.append("was started with other code of affect and must be restarted")
    own = package_versions()
    changed = {name: number for name, number in needs["packages"].items() if own.get(name) != number}
    notes = [f"has {name} {own.get(name, 'not at all')}, this command {number}" for name, number in changed.items()]
    return {"problems": problems, "notes": notes}


def check_worker(needs: dict[str, Any], dask_worker: Any) -> dict[str, Any]:
    """What is wrong with this worker: {"name", "problems", "notes"}. See check_process."""
    found = check_process(needs, dask_worker)
    problems, root = found["problems"], own_root()
    for below, path, digest in needs["weights"]:
        place = Path(root, below) if below and root else Path(path)
        try:
            if content(place) != digest:
                problems.append(f"has other weights in {place}")
        except OSError as error:
            problems.append(f"does not see the weights {place} ({error.strerror})")
    for path, size in needs["reads"]:
        try:
            if Path(path).stat().st_size != size:
                problems.append(f"sees another file at {path}")
        except OSError as error:
            problems.append(f"does not see {path} ({error.strerror})")
            break
    problems += folder_problem(*needs["probe"])
    return {"name": str(dask_worker.name), **found}


def folder_problem(probe: str, text: str) -> list[str]:
    """Whether this process sees the folder in which the other process wrote the file `probe`, and can write there."""
    path = Path(probe)
    try:
        if path.read_text(encoding="ascii") != text:
            return [f"sees another folder at {path.parent}"]
        own = path.with_name(f".{uuid.uuid4().hex[:8]}{path.name}")
        own.touch(exist_ok=False)
        own.unlink()
    except FileNotFoundError:
        return [f"sees another folder at {path.parent}" if path.parent.is_dir() else f"does not see {path.parent}"]
    except OSError as error:
        return [f"cannot write to {path.parent} ({error.strerror})"]
    return []


def admitted(
    needs: dict[str, Any] | None, threads: int, task: Callable[[Any], Any]
) -> Callable[[Any], tuple[dict[str, Any] | None, Any]]:
    """The task for a worker. It returns (None, task(item)), or (what check_worker found and the address, None) if the
    worker cannot be used.

    needs: of the workers of a scheduler, which may have joined late; None for the command's own workers. threads: of
    torch. It is a function in a function, because plain pickle would send one of a module by name.
    """

    def run(item: Any) -> tuple[dict[str, Any] | None, Any]:
        from distributed import get_worker

        worker = get_worker()
        checked = vars(worker).setdefault(ADMITTED, set())
        token = needs["id"] if needs else ""
        if token not in checked:
            found = check_worker(needs, worker) if needs else {}
            if found.get("problems"):
                return {**found, "address": worker.address}, None
            prepare(threads)
            checked.add(token)
        return None, task(item)

    return run


def prepare(threads: int) -> None:
    """Prepares this process for the tasks of affect. threads: of torch."""
    from ..processes import prepare_program

    prepare_program()
    # Dask sets one thread in its workers. If torch is imported later, it reads these variables.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def own_root() -> str:
    """The folder of the affect that this process can import, or an empty text."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec("affect")
        if spec and spec.submodule_search_locations:
            return str(Path(next(iter(spec.submodule_search_locations))).absolute())
    return ""


def own_version(root: str) -> str:
    try:
        text = Path(root, "pipeline", "version.py").read_text(encoding="utf-8")
    except OSError:
        return "of an unknown version"
    found = re.search(r'__version__ = "(.+)"', text)
    return found[1] if found else "of an unknown version"


def code_digest(root: str) -> str:
    """Hex digest of the modules in FOLDERS."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in Path(root, folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """The versions of those PACKAGES that are installed, without the build (`+cpu`)."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name).split("+")[0]
    return found


def content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _below(path: Path, root: str) -> str:
    """The path within the folder of affect; an empty text if it is not there."""
    return path.absolute().relative_to(root).as_posix() if path.absolute().is_relative_to(root) else ""
