"""Commands that use a trained model: predict, live, app, submit and export."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    USE,
    AsJson,
    DataFolder,
    FramesPerSecond,
    Quiet,
    Settings,
    Verbose,
    config_names,
)
from .session import Session, require_path, stage_command

if TYPE_CHECKING:
    from ..pipeline.records import Problem

commands = typer.Typer()

RunFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="Folder of a run: work/train/NAME. Default: the base model. Repeat to average several.",
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--model", metavar="DIR", help="Folder of a run: work/train/NAME. Default: the base model."),
]
ModelConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="NAME",
        autocompletion=config_names,
        help="demo, affwild2, base, seed, or a YAML file. Default: the config of the run.",
    ),
]
HOST = "127.0.0.1"


@commands.command(
    "predict",
    rich_help_panel=USE,
    epilog="Example: affect predict talk.mp4 --overlay",
)
def predict(
    videos: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Videos, pictures, folders of them, or glob patterns.")
    ],
    model: RunFolders = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the output files.")] = Path("out"),
    format: Annotated[  # noqa: A002
        str, typer.Option("--format", metavar="NAME", help="Format of the tables: csv, json or parquet.")
    ] = "csv",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the video or picture with box and values drawn on it.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot/--no-plot", help="Write a plot of valence and arousal over time for each video.")
    ] = True,
    page: Annotated[
        bool, typer.Option("--report", help="Also write an HTML page that plays each video next to its values.")
    ] = False,
    people: Annotated[
        int, typer.Option("--people", min=1, max=4, help="Number of people to follow in each video.")
    ] = 1,
    emotions: Annotated[
        bool, typer.Option("--emotions", help="Also write probabilities of the eight FER+ expressions.")
    ] = False,
    fps: FramesPerSecond = None,
    config: ModelConfig = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Predict valence and arousal of videos and pictures. Writes a table per frame, a table per clip and a plot of each
    video, and one table of all pictures."""
    from ..pipeline.errors import InputError
    from ..pipeline.inference.load import named_or_base, settings_for
    from ..pipeline.progress import Reporter
    from ..pipeline.records import Work
    from ..pipeline.stages.predict import PredictOptions, predict

    models = [require_path(named_or_base(path), "--model") for path in model or [None]]
    sampling = [] if fps is None else [f"predict.fps={fps}"]
    chosen = settings_for(models[0], [*(settings or ()), *sampling], config)
    session = Session(chosen, Work(out), Reporter(quiet, verbose), as_json)
    if page and format != "csv":
        raise InputError(f"--report needs CSV tables, but --format is {format}", "Remove one of the two options.")
    options = PredictOptions(emotions=emotions, people=people, format=format, plot=plot, overlay=overlay)
    pages: dict[str, list[Problem]] | None = {} if page else None
    done = session.stage(predict, chosen, videos, models, out, session.reporter, options, pages=pages)
    if page:
        from ..pipeline.inference.picture_table import PICTURES
        from ..pipeline.visualization.clip_page import player_pages

        names = [name for name in (*done.made, *done.kept) if PICTURES not in done.facts[name]]
        if len(names) < len(done.facts):
            session.reporter.warning("--report: there is a page for each video, but not for pictures")
        session.stage(player_pages, chosen, names, out, session.reporter, pages)
    session.finish()


@commands.command("live", rich_help_panel=USE, epilog="Example: affect live 0 --json")
def live(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Camera number, URL of a stream, or video file.")],
    model: RunFolder = None,
    overlay: Annotated[
        Path | None,
        typer.Option("--overlay", metavar="FILE", help="Also write the video with box and values drawn on it (MP4)."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="Stop after this time, in seconds of the source.")
    ] = None,
    config: ModelConfig = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per frame.")] = False,
) -> None:
    """Predict valence and arousal from a camera or stream in real time. It skips late frames. Ctrl-C stops it."""
    from ..pipeline.inference.load import named_or_base, settings_for
    from ..pipeline.progress import Reporter
    from ..pipeline.stages.live import live

    path = require_path(named_or_base(model), "--model")
    chosen = settings_for(path, settings or (), config)
    limit = float("inf") if seconds is None else seconds
    reporter = Reporter(quiet, verbose)
    live(chosen, source, path, reporter, as_json=as_json, overlay=overlay, seconds=limit, emit=_print_now)


def _print_now(line: str) -> None:
    """Prints and flushes a line. Raises BrokenPipeError if the reader of stdout has ended."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Python flushes stdout at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@commands.command("app", rich_help_panel=USE, epilog="Example: affect app --open")
def app_command(
    model: RunFolder = None,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="Address to listen on. Not loopback: others can use the page without a password.",
        ),
    ] = HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port. 0: any free port.")] = 8000,
    allowed: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another host name to accept in requests. Repeatable."),
    ] = None,
    most_mib: Annotated[int, typer.Option("--most-mib", min=1, metavar="MIB", help="Largest upload, in MiB.")] = 1024,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    config: ModelConfig = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve a local web page that predicts uploaded videos and shows their values."""
    from ..pipeline.app.server import ServerOptions, serve
    from ..pipeline.inference.load import named_or_base, settings_for
    from ..pipeline.progress import Reporter

    path = require_path(named_or_base(model), "--model")
    chosen = settings_for(path, settings or (), config)
    options = ServerOptions(host, port, most_mib * 2**20, allowed or (), typer.launch if browse else None)
    serve(chosen, path, options, Reporter(quiet, verbose))


@stage_command(
    commands,
    "submit",
    panel=USE,
    lock="none",
    example="affect submit --data affwild2 --template test.txt --out predictions.txt",
)
def submit(
    session: Session,
    data: DataFolder,
    template: Annotated[
        Path, typer.Option("--template", metavar="FILE", help="Template of the challenge: the rows to write.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Output file.")],
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="NAME", help="Name of the run. Default: default. Repeat to average several."),
    ] = None,
) -> None:
    """Write a challenge submission: a line for each row of the template, in the same order."""
    from ..pipeline.stages.submit import submit

    require_path(template, "--template")
    runs = run or ["default"]
    session.stage(submit, session.config, data, session.work, session.reporter, template=template, out=out, runs=runs)


@commands.command(
    "export",
    rich_help_panel=USE,
    epilog="Example: affect export --model work/train/default --out exported --check talk.mp4",
)
def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the exported files.")],
    model: RunFolder = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            "--check",
            metavar="VIDEO",
            help="Video for the comparison with the original model. Default: random pictures. Repeatable.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="NAME", help="onnx or pt2. Default: both. Repeatable.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Export a model to ONNX and torch.export, and compare the result with the original model."""
    from ..pipeline.inference.load import named_or_base, settings_for
    from ..pipeline.progress import Reporter
    from ..pipeline.records import Work
    from ..pipeline.stages.export import FORMATS, export

    path = require_path(named_or_base(model), "--model")
    config = settings_for(path)
    session = Session(config, Work(out), Reporter(quiet, verbose), as_json)
    session.stage(export, config, path, out, session.reporter, check=check or (), formats=tuple(formats or FORMATS))
    session.finish()
