"""Options that several commands share, with their shell completion."""

from pathlib import Path
from typing import Annotated

import typer

VERBOSE = "affect.verbose"
START, PREPARE, TRAIN, USE, MAINTAIN = "Get started", "Prepare data", "Train", "Use a model", "Maintain"
"""Panels of `affect --help`."""


def _set_verbose(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


def config_names(incomplete: str) -> list[str]:
    from ..configs.schema import names

    return [name for name in names() if name.startswith(incomplete)]


def _setting_keys(incomplete: str) -> list[str]:
    from ..configs.schema import Config, Section

    sections = [(name, it.annotation) for name, it in Config.model_fields.items()]
    keys = [
        f"{name}.{key}="
        for name, section in sections
        if isinstance(section, type) and issubclass(section, Section)
        for key in section.model_fields
    ]
    return [key for key in keys if key.startswith(incomplete)]


def _run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    from ..pipeline.records import Work

    runs = Work(Path(ctx.params.get("work") or "work")).runs()
    return sorted(path.name for path in runs if path.name.startswith(incomplete))


def _run_name(value: str) -> str:
    from ..pipeline.records import is_name

    if not is_name(value):
        raise typer.BadParameter(f"{value!r} cannot be the name of a run. Use letters, digits and . _ + -")
    return value


def _run_names_or_none(values: list[str] | None) -> list[str] | None:
    return [_run_name(value) for value in values] if values else values


DataFolder = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data folder with videos, annotations and boxes.")
]
WorkFolder = Annotated[Path, typer.Option("--work", metavar="DIR", help="Work folder, for the output of all stages.")]
FerplusFolder = Annotated[
    Path, typer.Option("--ferplus", metavar="DIR", help="Folder with fer2013.csv and fer2013new.csv.")
]
ConfigName = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME",
        autocompletion=config_names,
        help="demo, affwild2, base, seed, or a YAML file. Default: the config saved in the work folder, or else demo.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        autocompletion=_setting_keys,
        help="Override one setting for this call. Repeatable.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=-1,
        metavar="N",
        help="Number of worker processes. 0: none. -1: one per two cores (one per core to extract frames).",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Running Dask scheduler to use: tcp://host:port.")
]
RunName = Annotated[
    str,
    typer.Option("--run", metavar="NAME", callback=_run_name, autocompletion=_run_names, help="Name of the run."),
]
RunNames = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="NAME",
        callback=_run_names_or_none,
        autocompletion=_run_names,
        help="Name of the run. Default: default. Repeat to average several.",
    ),
]
FramesPerSecond = Annotated[
    float | None,
    typer.Option(
        "--fps",
        min=1,
        metavar="N",
        help="Run the networks on about N frames per second and interpolate the others. Default: all frames.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings, failures and errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, help="Print more, and the traceback of an error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
