"""Commands for maintenance: verify, config, doctor and version."""

from pathlib import Path
from typing import Annotated

import typer

from .options import MAINTAIN, AsJson, ConfigName, Quiet, Settings, Verbose
from .session import Session, print_json, resolve_config, stage_command

commands = typer.Typer()

config_group = typer.Typer(no_args_is_help=True, help="Show the settings.")
commands.add_typer(config_group, name="config", rich_help_panel=MAINTAIN)


@stage_command(commands, "verify", panel=MAINTAIN, example="affect verify --work work", lock="none")
def verify(
    session: Session,
    remove: Annotated[
        bool,
        typer.Option(
            "--remove", help="Delete damaged shards and weights. The next run of their stages writes them again."
        ),
    ] = False,
) -> None:
    """Check all shards, weights and runs of a work folder against their checksums."""
    from ..pipeline.stages.verify import verify

    if remove:
        session.lock()
    session.stage(verify, session.config, session.work, session.reporter, remove=remove)


@config_group.command("show", epilog="Example: affect config show --config affwild2 --set train.epochs=5")
def config_show(
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Work folder whose saved config is shown.")
    ] = Path("work"),
    config: ConfigName = None,
    settings: Settings = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Print the current settings as YAML."""
    from ..configs.schema import dump
    from ..pipeline.records import Work

    chosen, _ = resolve_config(Work(work).config, config, settings or ())
    if as_json:
        print_json(chosen.model_dump(mode="json"))
    else:
        print(dump(chosen), end="")


@commands.command("doctor", rich_help_panel=MAINTAIN, epilog="Example: affect doctor --json")
def doctor(
    work: Annotated[Path, typer.Option("--work", metavar="DIR", help="Folder on the disk to measure.")] = Path("work"),
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine: packages, GPU, video decoders and disk, with a remedy for each fault."""
    from ..pipeline.progress import Reporter
    from ..pipeline.stages.doctor import examine, show

    checks = examine(work)
    if as_json:
        print_json([check.as_json() for check in checks])
    elif not quiet:
        show(checks)
    broken = [check for check in checks if check.status == "missing"]
    for check in broken:
        Reporter(quiet, verbose).warning(f"{check.name}: {check.found}. {check.remedy}")
    if broken:
        raise typer.Exit(1)


@commands.command("version", rich_help_panel=MAINTAIN, epilog="Example: affect version")
def version() -> None:
    """Print the version of affect."""
    from .. import __version__

    print(__version__)
