"""Commands for the data: all, demo-data, audit, extract-frames and detect-boxes."""

import os
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    PREPARE,
    START,
    AsJson,
    DataFolder,
    Quiet,
    RunName,
    Scheduler,
    Verbose,
)
from .session import Session, print_json, require_path, stage_command

commands = typer.Typer()


@stage_command(commands, "all", panel=START, create=True, example="affect all --data demo --work work")
def run_everything(
    session: Session,
    data: DataFolder,
    ferplus: Annotated[
        Path | None,
        typer.Option("--ferplus", metavar="DIR", help="Folder of FER and FER+. Default: DATA/ferplus if it exists."),
    ] = None,
    run: RunName = "default",
    scheduler: Scheduler = None,
) -> None:
    """Run all stages, from audit to report. Files that are up to date are kept."""
    from .run_all import run_all

    if ferplus is None and (data / "ferplus").is_dir():
        ferplus = data / "ferplus"
    run_all(session, data, ferplus and require_path(ferplus, "--ferplus"), run=run, scheduler=scheduler)


@commands.command("demo-data", rich_help_panel=START, epilog="Example: affect demo-data demo --videos 40 --seed 7")
def demo_data(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the data set.")],
    videos: Annotated[int, typer.Option("--videos", min=1, help="Number of videos.")] = 60,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Approximate number of frames per video.")] = 120,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same data.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of processes. Default: one per core.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Generate a demo data set with synthetic faces. It has the layout and the irregularities of Aff-Wild2."""
    from ..pipeline.ingest.synthetic import draw_demo_data
    from ..pipeline.progress import Reporter

    reporter = Reporter(quiet, verbose)
    workers = workers or os.cpu_count() or 1
    facts = draw_demo_data(out, videos=videos, frames=frames, seed=seed, workers=workers, reporter=reporter)
    reporter.info(f"{'demo-data':<18}{videos} videos → {out}")
    if as_json:
        print_json(facts)


@stage_command(commands, "audit", panel=PREPARE, create=True, example="affect audit --data demo --work work")
def audit(session: Session, data: DataFolder, scheduler: Scheduler = None) -> None:
    """Check the data: match videos with annotations, and list files that are missing, damaged or refused."""
    from ..pipeline.stages.audit import audit
    from ..pipeline.storage.audit_file import load_audit, table

    show_table = not (session.as_json or session.reporter.quiet)
    session.listing = not show_table  # the table has the problems
    session.stage(audit, session.config, data, session.work, session.reporter, scheduler=scheduler)
    if show_table:
        from rich.console import Console

        Console(emoji=False, highlight=False, soft_wrap=True).print(table(load_audit(session.work)))


@stage_command(
    commands, "extract-frames", panel=PREPARE, create=True, example="affect extract-frames --data demo --workers 4"
)
def extract_frames(session: Session, data: DataFolder, scheduler: Scheduler = None) -> None:
    """Decode each annotated video once and store its frames."""
    from ..pipeline.stages.extract_frames import extract_frames

    session.stage(extract_frames, session.config, data, session.work, session.reporter, scheduler=scheduler)


@stage_command(
    commands, "detect-boxes", panel=PREPARE, create=True, example="affect detect-boxes --data DIR --workers 8"
)
def detect_boxes(
    session: Session,
    videos: Annotated[
        list[Path] | None, typer.Argument(metavar="VIDEO…", help="Videos outside a data set. Needs --out.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data set without face boxes.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the box files. Default: DATA/bounding_boxes."),
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YuNet model (.onnx), or weights of an STN (.safetensors). Default: the included STN."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace all existing box files.")] = False,
    scheduler: Scheduler = None,
) -> None:
    """Detect the face in each frame of a data set that has no boxes. The STN can then train on these boxes."""
    from ..pipeline.stages.detect_boxes import detect_boxes

    session.stage(
        detect_boxes,
        session.config,
        session.reporter,
        data=data,
        videos=videos or (),
        out=out,
        detector=detector,
        overwrite=overwrite,
        scheduler=scheduler,
    )
