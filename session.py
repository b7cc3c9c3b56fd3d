"""One invocation of a command: its settings, how it talks, and the end of each stage it runs."""

import inspect
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from .options import AsJson, ConfigName, Quiet, Settings, Verbose, Workers, WorkFolder

if TYPE_CHECKING:
    from .configs.schema import Config
    from .pipeline.processes import Place
    from .pipeline.progress import Talk
    from .pipeline.records import Problem, StageReport, Work

Lock = Literal["alone", "beside", "none"]

FIRST_CONFIG = "demo"
EXIT_PARTLY = 3


@dataclass
class Session:
    """The settings in force, and what the stages run so far have left. Opened by `open_session`.

    locks: what is held in the work folder until the command ends.
    """

    config: "Config"
    work: "Work"
    talk: "Talk"
    as_json: bool = False
    listing: bool = True
    reports: list["StageReport"] = field(default_factory=list)
    locks: ExitStack = field(default_factory=ExitStack)

    def lock(self, *, shared: bool = False, run: str | None = None) -> None:
        """Keeps other runs out of the work folder, or out of one run in it. Raises WorkError where one is there."""
        from .pipeline.storage.lock import NAME, hold

        if _processes().rank:
            return  # the first of the processes has it for all
        name = NAME if run is None else f"{NAME}.{self.work.run(run).name}"
        if not self.locks.enter_context(hold(self.work.root, shared=shared, name=name)):
            self.talk.detail(f"{self.work.root}: its file system has no locks; see to it that one run works there")

    def stage(self, function: Callable[..., "StageReport"], /, *args: Any, **options: Any) -> "StageReport":
        """Runs one stage, says in a line what it made, and records and lists what it had to give up."""
        from .pipeline.errors import WorkError

        together = _processes()
        if together.world > 1 and function.__name__ != "train":
            raise _one_process(function.__name__)
        start = time.perf_counter()
        report = function(self.config, *args, talk=self.talk, **options)
        counts = f"{len(report.made)} made, {len(report.kept)} kept"
        if report.failed:
            counts += f", {len(report.failed)} failed"
        self.talk.say(f"{report.stage:<18}{counts}  ({time.perf_counter() - start:.1f} s) → {report.output}")
        told = {str(problem) for earlier in self.reports for problem in earlier.failed}
        for problem in report.failed:
            if self.listing and str(problem) not in told:
                self.talk.warn(f"  {problem.kind}  {problem}")
        self.reports.append(report)
        if not together.rank:
            try:
                record_failures(self.work.failures, report)
            except (OSError, WorkError) as error:
                self.talk.warn(f"{self.work.failures}: cannot be written ({error})")
        return report

    def finish(self) -> None:
        """Prints the JSON that was asked for. Exit code 3 where some inputs were given up."""
        if self.as_json and self.reports:
            shown = [report.as_json() for report in self.reports]
            print_json(shown if len(shown) > 1 else shown[0])
        failed = sum(len(report.failed) for report in self.reports)
        if failed:
            self.talk.warn(f"{failed} failed, listed above and in {self.work.failures}; all others are done")
            raise typer.Exit(EXIT_PARTLY)


def open_session(
    *,
    work: WorkFolder = Path("work"),
    config: ConfigName = None,
    settings: Settings = None,
    workers: Workers = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    create: bool = False,
    lock: Lock = "alone",
) -> Session:
    """The session of a command that works in `work`, whose config is remembered there; these are the options that
    all stages share. create: the command may be the first one there. Raises WorkError, ConfigError."""
    from .pipeline.errors import WorkError
    from .pipeline.progress import Talk
    from .pipeline.records import Work

    place = Work(work)
    if not create and not work.is_dir():
        remedy = "Check --work; `affect audit --data DIR --work W` is the first stage."
        raise WorkError(f"work folder {work} does not exist", remedy)
    overrides = list(settings or ())
    if workers is not None:
        overrides.append(f"runtime.workers={workers}")
    chosen, remembered = resolve_config(place.config, config, overrides)
    follows = _processes().rank > 0
    here = Session(chosen, place, Talk(quiet or follows, verbose, follows), as_json and not follows)
    if follows:
        return here
    try:
        if lock != "none":
            work.mkdir(parents=True, exist_ok=True)
            here.lock(shared=lock == "beside")
            if remembered is not None:
                write_text(place.config, remembered)
    except OSError as error:
        raise WorkError(f"{work} cannot be written: {error.strerror}", "Choose another --work.") from error
    return here


def stage_command(
    group: typer.Typer,
    name: str,
    *,
    panel: str | None = None,
    example: str,
    create: bool = False,
    lock: Lock = "alone",
) -> Any:
    """Makes a command of a function: its first parameter is the open session, the others are options of its own.
    The shared options are added behind them (--workers where there is a --scheduler), and the session is finished.

    lock: whether the command wants the work folder alone, beside others that say so, or (`none`) changes nothing that
    another could miss."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        names = {parameter.name for parameter in own}
        shared = [
            parameter
            for parameter in inspect.signature(open_session).parameters.values()
            if parameter.name not in ("create", "lock") and (parameter.name != "workers" or "scheduler" in names)
        ]

        def command(**values: Any) -> None:
            mine = {key: values.pop(key) for key in names}
            if mine.get("data"):
                need_folder(mine["data"], "--data")
            here = open_session(**values, create=create, lock=lock)
            with here.locks:
                function(here, **mine)
                here.finish()

        both = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
        vars(command)["__signature__"] = inspect.Signature(both)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
        command.__doc__ = function.__doc__
        group.command(name, rich_help_panel=panel, epilog=f"Example: {example}")(command)
        return function

    return decorate


def resolve_config(remembered: Path, name: str | None, overrides: Sequence[str]) -> tuple["Config", str | None]:
    """The settings in force: of `name`, else the remembered ones, else demo; and the text to remember from now on,
    None where nothing changes. Overrides are not remembered."""
    from .configs.schema import dump, load
    from .pipeline.errors import ConfigError

    if name is None and remembered.is_file():
        try:
            return load(str(remembered), overrides), None
        except ConfigError as error:
            if error.problem.startswith(str(remembered)):
                remedy = f"{error.remedy} Or replace it: --config NAME.".strip()
                raise ConfigError(error.problem, remedy) from error
            raise
    base = load(name or FIRST_CONFIG)
    text = dump(base)
    if remembered.is_file() and remembered.read_text(encoding="utf-8") == text:
        return load(name or FIRST_CONFIG, overrides), None
    return load(name or FIRST_CONFIG, overrides), text


def need(path: Path, option: str) -> Path:
    """The path the user named. Raises InputError where nothing is there."""
    from .pipeline.errors import InputError

    if not path.exists():
        more = "; `affect demo-data DIR` draws a data set to try." if option == "--data" else "."
        raise InputError(f"{option} {path} does not exist", f"Check the path{more}")
    return path


def need_folder(path: Path, option: str) -> Path:
    """The folder the user named. Raises InputError where it is not there, or no folder."""
    from .pipeline.errors import InputError

    if not need(path, option).is_dir():
        raise InputError(f"{option} {path} is a file, not a folder", "Name the folder that holds it.")
    return path


def record_failures(path: Path, report: "StageReport") -> None:
    """Puts the stage's failures into the list at `path`, in the place of those of its last run. Raises OSError."""
    from .pipeline.storage.lock import hold

    def listed() -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    failed = [_problem(problem) for problem in report.failed]
    if listed().get(report.stage, []) == failed:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path.parent, name=".failures.lock", wait=True):  # two trainings may end at the same time
        known = {stage: own for stage, own in listed().items() if stage != report.stage}
        if failed:
            known[report.stage] = failed
        if known:
            write_text(path, json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def print_json(value: Any) -> None:
    """To stdout. Numpy's scalars become numbers, paths text."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_metrics(metrics: dict[str, Any]) -> None:
    """A line for each measure, a column for each dimension. To stdout."""
    print(f"{'':<6}{'valence':>9}{'arousal':>9}{'mean':>9}")
    for name in ("ccc", "pcc", "rmse", "mse", "mae", "sign"):
        values = [metrics.get(f"{name}_{column}") for column in ("valence", "arousal", "mean")]
        cells = "".join(f"{'':>9}" if value is None else f"{value:>9.3f}" for value in values)
        if cells.strip():
            print(f"{name:<6}{cells}")


def _processes() -> "Place":
    from .pipeline.processes import place

    return place()


def _one_process(stage: str) -> Exception:
    from .pipeline.errors import InputError

    command = stage.replace("_", "-")
    return InputError(
        f"{command} runs in one process", f"Start it without torchrun, which is for `affect train`: affect {command}"
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _problem(problem: "Problem") -> dict[str, str]:
    return {
        "kind": problem.kind, "name": problem.name, "message": problem.message, "remedy": problem.remedy,
    }  # fmt: skip
