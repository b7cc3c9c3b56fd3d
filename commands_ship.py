"""Commands for what leaves the workshop: a challenge's file, a model for other programs; and for the machine itself."""

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, DataFolder, Quiet, Verbose
from .session import Session, need, print_json, stage_command

USE, ABOUT = "Use", "About"

commands = typer.Typer()


@stage_command(
    commands,
    "submit",
    panel=USE,
    lock="none",
    example="affect submit --data affwild2 --template test.txt --out predictions.txt",
)
def submit(
    here: Session,
    data: DataFolder,
    template: Annotated[Path, typer.Option("--template", metavar="FILE", help="Which rows the challenge wants.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to hand in.")],
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="NAME", help="The training run; of several the mean. Repeatable."),
    ] = None,
) -> None:
    """Write a challenge's file: a line per row of its template, in its order."""
    from .pipeline.stages.submit import submit

    here.stage(submit, data, here.work, template=need(template, "--template"), out=out, runs=run or ["default"])


@commands.command(
    "export",
    rich_help_panel=USE,
    epilog="Example: affect export --model work/train/default --out exported --check talk.mp4",
)
def export(
    model: Annotated[Path, typer.Option("--model", metavar="DIR", help="The folder of a run: work/train/NAME.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")],
    check: Annotated[
        list[Path] | None,
        typer.Option("--check", metavar="VIDEO", help="Compare and time on this; else on random pictures. Repeatable."),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="NAME", help="onnx or pt2; else both. Repeatable.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, as ONNX and torch.export, and hold it to the one it came from."""
    from .pipeline.progress import Talk
    from .pipeline.records import Work
    from .pipeline.stages.export import FORMATS, export
    from .session import resolve_config

    folder = model if need(model, "--model").is_dir() else model.parent
    config, _ = resolve_config(folder / "config.yaml", None, ())
    here = Session(config, Work(out), Talk(quiet, verbose), as_json)
    here.stage(export, model, out, check=check or (), formats=tuple(formats or FORMATS))
    here.finish()


@commands.command("doctor", rich_help_panel=ABOUT, epilog="Example: affect doctor --json")
def doctor(
    work: Annotated[Path, typer.Option("--work", metavar="DIR", help="Whose disk is measured.")] = Path("work"),
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Look the machine over: what is there, what is missing, and the command that mends it."""
    from .pipeline.progress import Talk
    from .pipeline.stages.doctor import examine, show

    checks = examine(work)
    if as_json:
        print_json([check.as_json() for check in checks])
    elif not quiet:
        show(checks)
    broken = [check for check in checks if check.status == "missing"]
    for check in broken:
        Talk(quiet, verbose).warn(f"{check.name}: {check.found}. {check.remedy}")
    if broken:
        raise typer.Exit(1)
