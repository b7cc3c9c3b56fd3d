"""The options that commands share, and what the shell completes them with."""

from pathlib import Path
from typing import Annotated

import typer

VERBOSE = "affect.verbose"


def _remember(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


def _config_names(incomplete: str) -> list[str]:
    from .configs.schema import names

    return [name for name in names() if name.startswith(incomplete)]


def _setting_keys(incomplete: str) -> list[str]:
    from .configs.schema import Config, Section

    sections = [(name, it.annotation) for name, it in Config.model_fields.items()]
    keys = [
        f"{name}.{key}="
        for name, section in sections
        if isinstance(section, type) and issubclass(section, Section)
        for key in section.model_fields
    ]
    return [key for key in keys if key.startswith(incomplete)]


def _run_names(ctx: typer.Context, incomplete: str) -> list[str]:
    found = Path(ctx.params.get("work") or "work").glob("train/*/model.safetensors")
    return sorted(path.parent.name for path in found if path.parent.name.startswith(incomplete))


def _run_name(value: str) -> str:
    from .pipeline.records import is_name

    if not is_name(value):
        raise typer.BadParameter(f"{value!r} is not the name of a run: letters, digits and . _ + - make one.")
    return value


def _each_run_name(values: list[str] | None) -> list[str] | None:
    return [_run_name(value) for value in values] if values else values


DataFolder = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="The data set: videos, annotations, boxes, wherever below it.")
]
WorkFolder = Annotated[Path, typer.Option("--work", metavar="DIR", help="Where every stage leaves its output.")]
FerplusFolder = Annotated[
    Path, typer.Option("--ferplus", metavar="DIR", help="Where fer2013.csv and fer2013new.csv lie.")
]
ConfigName = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME",
        autocompletion=_config_names,
        help="demo, affwild2, seed, or a YAML file. The work folder remembers it; at first it is demo.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        autocompletion=_setting_keys,
        help="Overrides one setting, this time only. Repeatable.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=-1,
        metavar="N",
        help="Dask processes; 0: none; -1: one for every two cores, to extract frames for every core.",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler, tcp://host:port.")
]
RunName = Annotated[
    str,
    typer.Option("--run", metavar="NAME", callback=_run_name, autocompletion=_run_names, help="The training run."),
]
RunNames = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="NAME",
        callback=_each_run_name,
        autocompletion=_run_names,
        help="The training run; else default. Repeatable: averaged.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings, failures and errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_remember, help="Say more, and show where an error came from.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
