"""affect verify: checks all files of a work folder against their checksums, and lists each fault with its remedy."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...configs.schema import Config, load
from ..errors import AffectError, ShardError, WorkError
from ..learning.model_file import NAME, read_model_info
from ..progress import Reporter
from ..records import Problem, StageReport, Work
from ..runs.folder import read_run
from ..storage.atomic import leftovers
from ..storage.audit_file import load_audit
from ..storage.checkpoint import load_weights
from ..storage.corruption import clear_mark
from ..storage.shard import FEATURES, FRAMES, MADE_BY, Shard

STAGE = "verify"
REMEDY = "Delete it and run its stage again."
ROWS = ("index", "pts")
"""The datasets of every shard that have one row per frame."""


def verify(config: Config, work: Work, reporter: Reporter, *, remove: bool = False) -> StageReport:
    """Checks all shards, weights and runs of a work folder. `failed` has the faults, `kept` the valid files.

    Damaged shards are marked, so that no stage uses them and their own stage writes them again. remove: deletes damaged
    files that a stage can write again. Nothing else is changed. Raises WorkError.
    """
    checks = list(_checks(work))
    sound: list[str] = []
    faults: list[Problem] = []
    size = 0
    with reporter.progress(STAGE, len(checks), "files") as bar:
        for path, check in checks:
            name = path.relative_to(work.root).as_posix()
            try:
                check(path)
                size += path.stat().st_size
                sound.append(name)
                bar.advance()
            except AffectError as error:
                faults.append(Problem("damaged", name, _without(error.problem, path), error.remedy))
                bar.advance(item=f"{name}: {error.problem}")
                if remove and path.suffix in (".h5", ".safetensors"):
                    _remove(path, reporter)
    left = [path for folder in _folders(work) for path in leftovers(folder)]
    if left:
        reporter.info(f"{len(left)} temporary files of killed runs; the next run deletes them")
    facts = {"files": len(checks), "bytes": size, "leftovers": len(left)}
    return StageReport(STAGE, work.root, kept=tuple(sound), failed=tuple(faults), facts=facts)


def _checks(work: Work) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """The files to check, each with a check that raises an AffectError."""
    for path, check in ((work.config, _config), (work.audit, lambda _: load_audit(work)), (work.failures, _json)):
        if path.is_file():
            yield path, check
    for folder, kind in ((work.frames("").parent, FRAMES), (work.features("").parent, FEATURES)):
        for path in sorted(folder.glob("[!.]*.h5")):
            yield path, partial(_shard, kind)
    for path in sorted(work.weights("").parent.glob("[!.]*.safetensors")):
        yield path, load_weights
    for run in sorted(folder for folder in (work.root / "train").glob("[!.]*") if folder.is_dir()):
        for path in sorted(run.glob("[!.]*")):
            check = _of_run(path)
            if check is not None:
                yield path, check


def _of_run(path: Path) -> Callable[[Path], object] | None:
    if path.name == NAME:
        return _model
    if path.name == "run.json":
        return lambda path: read_run(path.parent)
    if path.suffix == ".jsonl":
        return _json_lines
    return {".json": _json, ".yaml": _config}.get(path.suffix)


def _shard(kind: str, path: Path) -> None:
    with Shard(path, kind) as shard:
        shard.verify()
        rows = [name for name in shard.names if name not in ("jpeg", "offset")]
        lengths = {name: shard.count(name) for name in rows} | {"index": len(shard)}
        trouble = ""
        if set(lengths.values()) != {len(shard)} or not set(ROWS) <= lengths.keys():
            trouble = f"its datasets have {lengths} rows"
        elif any(len(shard) > 1 and (np.diff(shard.read(name)) <= 0).any() for name in ROWS):
            trouble = "its frames are not in time order"
        elif kind == FRAMES and not _lies_end_to_end(shard):
            trouble = "its pictures are not stored without gaps"
    if trouble:
        shard.mark_corrupt()
        raise ShardError(f"{path}: {trouble}", f"Run `{MADE_BY[kind]}` again to write a new one.")


def _lies_end_to_end(shard: Shard) -> bool:
    offset = shard.read("offset")
    ends = len(offset) == len(shard) + 1 and offset[0] == 0 and offset[-1] == shard.count("jpeg")
    return bool(ends and (np.diff(offset) > 0).all())


def _model(path: Path) -> None:
    read_model_info(path)
    load_weights(path)


def _config(path: Path) -> None:
    load(str(path))


def _json(path: Path) -> None:
    _parse(path, [_text(path)])


def _json_lines(path: Path) -> None:
    _parse(path, _text(path).splitlines())


def _parse(path: Path, texts: Sequence[str]) -> None:
    try:
        for text in texts:
            json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WorkError(f"{path}: is damaged ({error})", REMEDY) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise WorkError(f"{path}: cannot be read ({error})", REMEDY) from error


def _remove(path: Path, reporter: Reporter) -> None:
    try:
        path.unlink()
        clear_mark(path)
    except OSError as error:
        raise WorkError(f"{path}: cannot be removed ({error.strerror})", "Check its permissions.") from error
    reporter.info(f"{STAGE}: removed {path}")


def _folders(work: Work) -> list[Path]:
    runs = [path for path in (work.root / "train").glob("*") if path.is_dir()]
    return [work.root, work.frames("").parent, work.features("").parent, work.weights("").parent, *runs]


def _without(problem: str, path: Path) -> str:
    """The problem without the path, which is printed separately."""
    return problem.removeprefix(f"{path}: ")
