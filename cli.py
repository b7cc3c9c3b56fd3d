"""The `affect` program. It joins the commands and turns errors and signals into exit codes.

Exit codes: 0 done; 1 an error that the user can fix, printed in one line; 2 wrong usage; 3 done except for the inputs
listed; 130 interrupted. Any other exception is a bug and prints its traceback. Commands import heavy libraries when
they run.
"""

import errno
import os
import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .commands import data, inference, maintenance, reports, training
from .commands.options import VERBOSE
from .pipeline.names import accept_any_text

ORDER = (
    "all", "demo-data", "audit", "extract-frames", "detect-boxes", "pretrain", "adapt", "cache-features", "train",
    "tune", "evaluate", "predict", "live", "app", "report", "submit", "export", "verify", "config", "doctor", "version",
)  # fmt: skip


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class ErrorHandlingGroup(TyperGroup):
    """Lists the commands in the order of the pipeline, and turns errors and signals into exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def main(self, *args: Any, **options: Any) -> Any:
        accept_any_text()
        return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        from .pipeline.errors import AffectError

        try:
            # SIGTERM should clean up like Ctrl-C and leave no unfinished files.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            where = error.filename or "the output"
            typer.echo(
                f"error: {where} cannot be written ({error.strerror}). Free space, or choose another place.", err=True
            )
            if sys.stdout is not None:
                # What is still in the buffer would fail again when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except AffectError as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exception(error)
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted: finished work is kept. Run the same command to continue.", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=ErrorHandlingGroup,
    help="Valence and arousal from video, frame by frame and clip by clip.",
    epilog="Example: affect demo-data demo && affect all --data demo --work work",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (data, training, inference, reports, maintenance):
    app.add_typer(module.commands)


def _print_version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...
