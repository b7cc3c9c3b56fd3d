"""One run of a command: its settings, its locks, and what happens after each stage."""

import inspect
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

import typer

from .options import AsJson, ConfigName, Quiet, Settings, Verbose, Workers, WorkFolder

if TYPE_CHECKING:
    from ..configs.schema import Config
    from ..pipeline.processes import RankInfo
    from ..pipeline.progress import Reporter
    from ..pipeline.records import Problem, StageReport, Work

P = ParamSpec("P")
Lock = Literal["alone", "beside", "none"]
"""alone: no other command may use the work folder. beside: others with `beside` may. none: the command changes nothing
there that another one could miss."""

FIRST_CONFIG = "demo"
EXIT_PARTLY = 3


@dataclass
class Session:
    """The settings of a command, and the reports of the stages it has run. `open_session` makes one.

    listing: whether to print the problems of each stage. locks: held in the work folder until the command ends.
    """

    config: "Config"
    work: "Work"
    reporter: "Reporter"
    as_json: bool = False
    listing: bool = True
    reports: list["StageReport"] = field(default_factory=list)
    locks: ExitStack = field(default_factory=ExitStack)

    def lock(self, *, shared: bool = False, run: str | None = None) -> None:
        """Locks the work folder, or one run in it. Raises WorkError if another process holds the lock."""
        from ..pipeline.storage.lock import NAME, lock_folder

        if _rank_info().rank:
            return  # rank 0 holds it for all processes
        name = NAME if run is None else f"{NAME}.{self.work.run(run).name}"
        if not self.locks.enter_context(lock_folder(self.work.root, shared=shared, name=name)):
            self.reporter.debug(
                f"{self.work.root}: the file system has no locks. Run only one command at a time there."
            )

    def stage(self, function: "Callable[P, StageReport]", /, *args: P.args, **options: P.kwargs) -> "StageReport":
        """Runs one stage, prints a line on what it made, lists its problems and writes them to failures.json."""
        from ..pipeline.errors import WorkError

        process = _rank_info()
        if process.world > 1 and function.__name__ != "train":
            raise _one_process(function.__name__)
        start = time.perf_counter()
        report = function(*args, **options)
        counts = f"{len(report.made)} made, {len(report.kept)} kept"
        if report.failed:
            counts += f", {len(report.failed)} failed"
        self.reporter.info(f"{report.stage:<18}{counts}  ({time.perf_counter() - start:.1f} s) → {report.output}")
        listed = {str(problem) for earlier in self.reports for problem in earlier.failed}
        for problem in report.failed:
            if self.listing and str(problem) not in listed:
                self.reporter.warning(f"  {problem.kind}  {problem}")
        self.reports.append(report)
        if not process.rank:
            try:
                record_failures(self.work.failures, report)
            except (OSError, WorkError) as error:
                self.reporter.warning(f"{self.work.failures}: cannot be written ({error})")
        return report

    def finish(self) -> None:
        """Prints the reports with --json. Ends with exit code 3 if a stage could not use some of its inputs."""
        if self.as_json and self.reports:
            shown = [report.as_json() for report in self.reports]
            print_json(shown if len(shown) > 1 else shown[0])
        failed = sum(len(report.failed) for report in self.reports)
        if failed:
            self.reporter.warning(
                f"{failed} failed: listed above and in {self.work.failures}. All other inputs are done."
            )
            raise typer.Exit(EXIT_PARTLY)


@dataclass(frozen=True)
class SessionOptions:
    """The options that all stages share. `stage_command` adds its fields to the options of each command."""

    work: WorkFolder = Path("work")
    config: ConfigName = None
    settings: Settings = None
    workers: Workers = None
    quiet: Quiet = False
    verbose: Verbose = False
    as_json: AsJson = False


def open_session(options: SessionOptions, *, create: bool = False, lock: Lock = "alone") -> Session:
    """Opens the work folder for a command and saves the config there. create: make the folder if it does not exist.
    Raises WorkError, ConfigError."""
    from ..pipeline.errors import WorkError
    from ..pipeline.progress import Reporter
    from ..pipeline.records import Work
    from ..pipeline.storage.atomic import sweep, write_text

    work = Work(options.work)
    if not create and not work.root.is_dir():
        remedy = f"Check --work, or start with: affect audit --data DIR --work {work.root}"
        raise WorkError(f"the work folder {work.root} does not exist", remedy)
    overrides = list(options.settings or ())
    if options.workers is not None:
        overrides.append(f"runtime.workers={options.workers}")
    config, new_text = resolve_config(work.config, options.config, overrides)
    silent = _rank_info().rank > 0  # only rank 0 writes files and messages
    reporter = Reporter(options.quiet or silent, options.verbose, silent)
    session = Session(config, work, reporter, options.as_json and not silent)
    if silent:
        return session
    try:
        if lock != "none":
            work.root.mkdir(parents=True, exist_ok=True)
            session.lock(shared=lock == "beside")
            sweep(work.root)
            if new_text is not None:
                write_text(work.config, new_text)
    except OSError as error:
        raise WorkError(f"{work.root} cannot be written: {error.strerror}", "Choose another --work.") from error
    return session


def stage_command(
    group: typer.Typer,
    name: str,
    *,
    panel: str | None = None,
    example: str,
    create: bool = False,
    lock: Lock = "alone",
) -> Any:
    """Registers a function as a command. Its first parameter is the open session; the others are its own options.

    The fields of SessionOptions become options too (--workers only if the command has --scheduler). The command ends
    with `Session.finish`. create, lock: see `open_session`.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        names = {parameter.name for parameter in own}
        shared = [
            parameter
            for parameter in inspect.signature(SessionOptions).parameters.values()
            if parameter.name != "workers" or "scheduler" in names
        ]

        def command(**values: Any) -> None:
            arguments = {key: values.pop(key) for key in names}
            if arguments.get("data"):
                require_dir(arguments["data"], "--data")
            session = open_session(SessionOptions(**values), create=create, lock=lock)
            with session.locks:
                function(session, **arguments)
                session.finish()

        both = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
        vars(command)["__signature__"] = inspect.Signature(both)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
        command.__doc__ = function.__doc__
        group.command(name, rich_help_panel=panel, epilog=f"Example: {example}")(command)
        return function

    return decorate


def resolve_config(remembered: Path, name: str | None, overrides: Sequence[str]) -> tuple["Config", str | None]:
    """(settings, text to save). The settings are those of the config `name`, or by default the file `remembered`, or
    else `demo`, with the overrides. The text is without the overrides; it is None if the file need not change."""
    from ..configs.schema import dump, load
    from ..pipeline.errors import ConfigError

    if name is None and remembered.is_file():
        try:
            return load(str(remembered), overrides), None
        except ConfigError as error:
            if error.problem.startswith(str(remembered)):
                remedy = f"{error.remedy} Or replace the file with --config NAME.".strip()
                raise ConfigError(error.problem, remedy) from error
            raise
    base = load(name or FIRST_CONFIG)
    text = dump(base)
    if remembered.is_file() and remembered.read_text(encoding="utf-8") == text:
        return load(name or FIRST_CONFIG, overrides), None
    return load(name or FIRST_CONFIG, overrides), text


def require_path(path: Path, option: str) -> Path:
    """Returns the path of an option. Raises InputError if it does not exist."""
    from ..pipeline.errors import InputError

    if not path.exists():
        remedy = (
            f"Check the path, or make demo data: affect demo-data {path}" if option == "--data" else "Check the path."
        )
        raise InputError(f"{option} {path} does not exist", remedy)
    return path


def require_dir(path: Path, option: str) -> Path:
    """Returns the folder of an option. Raises InputError if it is not an existing folder."""
    from ..pipeline.errors import InputError

    if not require_path(path, option).is_dir():
        raise InputError(f"{option} {path} is a file, not a folder", "Give the folder that contains it.")
    return path


def record_failures(path: Path, report: "StageReport") -> None:
    """Replaces the entry of a stage in failures.json. Raises OSError, WorkError."""
    from ..pipeline.names import json_text
    from ..pipeline.storage.atomic import write_text
    from ..pipeline.storage.lock import lock_folder

    def read() -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    failed = [_problem(problem) for problem in report.failed]
    if read().get(report.stage, []) == failed:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(path.parent, name=".failures.lock", wait=True):  # two trainings may end at the same time
        stages = {stage: problems for stage, problems in read().items() if stage != report.stage}
        if failed:
            stages[report.stage] = failed
        if stages:
            write_text(path, json_text(stages, indent=2) + "\n")
        else:
            path.unlink(missing_ok=True)


def print_json(value: Any) -> None:
    """Prints to stdout. NumPy scalars become numbers, and paths become text."""
    from ..pipeline.names import json_text, writes_unicode

    print(json_text(value, indent=2, default=_plain, ascii_only=not writes_unicode()))


def print_metrics(metrics: dict[str, Any]) -> None:
    """Prints a table to stdout: a row per metric, a column per dimension."""
    print(f"{'':<6}{'valence':>9}{'arousal':>9}{'mean':>9}")
    for name in ("ccc", "pcc", "rmse", "mse", "mae", "sign"):
        values = [metrics.get(f"{name}_{column}") for column in ("valence", "arousal", "mean")]
        cells = "".join(f"{'':>9}" if value is None else f"{value:>9.3f}" for value in values)
        if cells.strip():
            print(f"{name:<6}{cells}")


def _rank_info() -> "RankInfo":
    from ..pipeline.processes import rank_info

    return rank_info()


def _one_process(stage: str) -> Exception:
    from ..pipeline.errors import InputError

    command = stage.replace("_", "-")
    return InputError(
        f"{command} runs in one process",
        f"Only `affect train` runs under torchrun. Run: affect {command}",
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _problem(problem: "Problem") -> dict[str, str]:
    return {
        "kind": problem.kind, "name": problem.name, "message": problem.message, "remedy": problem.remedy,
    }  # fmt: skip
