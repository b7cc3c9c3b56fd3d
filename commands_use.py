"""The commands that use a model on videos: predict and live. Registered by cli.py."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, ConfigName, Quiet, Settings, Verbose
from .session import Session, need

RunFolders = Annotated[
    list[Path],
    typer.Option("--model", metavar="DIR", help="The folder of a run: work/train/NAME. Repeatable: averaged."),
]
RunFolder = Annotated[Path, typer.Option("--model", metavar="DIR", help="The folder of a run: work/train/NAME.")]


def register(app: typer.Typer, panel: str) -> None:
    """Adds the commands to `app`."""
    example = "Example: affect predict talk.mp4 --model work/train/default --out out --overlay"
    app.command("predict", rich_help_panel=panel, epilog=example)(predict)
    example = "Example: affect live 0 --model work/train/default --json"
    app.command("live", rich_help_panel=panel, epilog=example)(live)


def predict(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO…", help="Videos, folders of them, or patterns.")],
    model: RunFolders,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where tables, plots and films go.")],
    format: Annotated[str, typer.Option("--format", metavar="NAME", help="csv, json or parquet.")] = "csv",  # noqa: A002
    overlay: Annotated[bool, typer.Option("--overlay", help="Also the video with all that drawn over it.")] = False,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="A picture of both traces.")] = True,
    page: Annotated[bool, typer.Option("--report", help="Also a page that plays each video in step.")] = False,
    people: Annotated[int, typer.Option("--people", min=1, max=4, help="Follow so many people in each video.")] = 1,
    emotions: Annotated[bool, typer.Option("--emotions", help="Also the eight expressions of FER+.")] = False,
    config: ConfigName = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Valence and arousal of any video: a row per frame, a row per clip, a plot, and the video with an overlay."""
    from .pipeline.errors import InputError
    from .pipeline.progress import Talk
    from .pipeline.records import Work
    from .pipeline.stages.predict import predict, settings_for

    first, *_ = (need(path, "--model") for path in model)
    chosen = settings_for(first, settings or (), config)
    here = Session(chosen, Work(out), Talk(quiet, verbose), as_json)
    wishes = {"format": format, "overlay": overlay, "plot": plot, "people": people, "emotions": emotions}
    if page and format != "csv":
        raise InputError(f"--report reads the CSV, and --format is {format}", "Leave one of them out.")
    done = here.stage(predict, videos, model, out, **wishes)
    if page:
        from .pipeline.stages.player_page import player_pages

        here.stage(player_pages, [*done.made, *done.kept], out)
    here.finish()


def live(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A camera's number, a stream's URL, or a video.")],
    model: RunFolder,
    overlay: Annotated[Path | None, typer.Option("--overlay", metavar="FILE", help="An MP4 of what was seen.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="Stop after so many seconds of the source.")
    ] = None,
    config: ConfigName = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON per frame, on stdout.")] = False,
) -> None:
    """Valence and arousal as it happens. Frames that come too fast are passed over, never queued; Ctrl-C ends it."""
    from .pipeline.progress import Talk
    from .pipeline.stages.live import live
    from .pipeline.stages.predict import settings_for

    chosen = settings_for(need(model, "--model"), settings or (), config)
    most = float("inf") if seconds is None else seconds
    live(chosen, source, model, Talk(quiet, verbose), as_json=as_json, overlay=overlay, seconds=most, emit=_print_now)


def _print_now(line: str) -> None:
    """To stdout, at once. Raises BrokenPipeError where nobody reads."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # What Python still wants to write when it ends goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
