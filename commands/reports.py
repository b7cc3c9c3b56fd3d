"""Commands that measure and show results: evaluate and report."""

from typing import Annotated, Literal

import typer

from .options import USE, DataFolder, RunNames
from .session import Session, print_json, print_metrics, stage_command

commands = typer.Typer()

SplitName = Literal["train", "validation", "test"]


@stage_command(commands, "evaluate", panel=USE, example="affect evaluate --data demo --run default --json", lock="none")
def evaluate(
    session: Session,
    data: DataFolder,
    run: RunNames = None,
    split: Annotated[
        SplitName, typer.Option("--split", metavar="NAME", help="Split to evaluate: train, validation or test.")
    ] = "validation",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="First calibrate the intervals of the run on its validation subjects, for models without intervals.",
        ),
    ] = False,
) -> None:
    """Compute CCC and other metrics of a run on a split, and write all predictions as CSV."""
    from ..pipeline.stages.evaluate import evaluate

    report = session.stage(
        evaluate, session.config, data, session.work, session.reporter,
        run=run or "default", split=split, calibrate=calibrate,
    )  # fmt: skip
    if session.as_json:
        print_json(report.facts)
        session.as_json = False
    elif not session.reporter.quiet:
        print_metrics(report.facts)


@stage_command(commands, "report", panel=USE, example="affect report --work work", lock="none")
def report(session: Session) -> None:
    """Write an HTML report: training curves, face crops, predictions against labels."""
    from ..pipeline.stages.report import report

    session.stage(report, session.config, session.work, session.reporter)
