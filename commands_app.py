"""The command that serves a page on the user's own machine."""

from pathlib import Path
from typing import Annotated

import typer

from .options import ConfigName, Quiet, Settings, Verbose
from .session import need, resolve_config

HOST = "127.0.0.1"


def app_command(
    model: Annotated[Path, typer.Option("--model", metavar="DIR", help="The folder of a run: work/train/NAME.")],
    host: Annotated[str, typer.Option("--host", help="Other than loopback lets others in, without a password.")] = HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    most: Annotated[int, typer.Option("--most-mib", min=1, metavar="MIB", help="Of an upload.")] = 1024,
    browse: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    config: ConfigName = None,
    settings: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """A page on your own machine: drop a video on it, watch its values come in, download them."""
    from .pipeline.progress import Talk
    from .pipeline.stages.app import serve

    folder = model if need(model, "--model").is_dir() else model.parent
    chosen, _ = resolve_config(folder / "config.yaml", config, settings or ())
    ready = typer.launch if browse else None
    serve(chosen, model, host=host, port=port, most=most * 2**20, talk=Talk(quiet, verbose), ready=ready)
