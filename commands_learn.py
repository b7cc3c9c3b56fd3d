"""The command that searches settings. Registered by cli.py."""

from typing import Annotated

import typer

from .options import Scheduler
from .session import Session, print_json, stage_command


def register(app: typer.Typer, panel: str) -> None:
    """Adds the command to `app`."""
    stage_command(app, "tune", panel=panel, example="affect tune --work work --trials 40", lock="beside")(tune)


def tune(
    here: Session,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Finished ones, with those of earlier calls.")] = 40,
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="What to try: head, or a YAML file.")] = "head",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the search: W/tune/NAME.")] = "head",
    scheduler: Scheduler = None,
) -> None:
    """Search the settings for the head that does best on validation, from cache; best.yaml is for --config."""
    from .pipeline.stages.tune import table, tune

    report = here.stage(tune, here.work, space=space, name=name, trials=trials, scheduler=scheduler)
    if here.as_json:
        print_json(report.facts)
        here.as_json = False
    elif not here.talk.quiet:
        from rich.console import Console

        Console(highlight=False).print(table(report))
