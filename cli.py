"""The commands, one a stage: parse, call, print. The only place where an error becomes an exit code.

Exit codes: 0 done; 1 an error the user can mend, in one line; 2 wrong usage; 3 done but for the inputs listed;
130 interrupted. Whatever else is raised is a bug and shows its traceback. Heavy imports wait for the command that
needs them.
"""

import os
import signal
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

# OpenMP threads that spin while they wait take the cores from those that work. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# What OpenCV decodes at most, in pixels; read when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))

# What goes wrong in it is said by affect, in its own words.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

from . import __version__, commands_keep, commands_learn, commands_ship, commands_use
from .commands_app import app_command
from .options import (
    VERBOSE,
    AsJson,
    ConfigName,
    DataFolder,
    FerplusFolder,
    Quiet,
    RunName,
    RunNames,
    Scheduler,
    Settings,
    Verbose,
)
from .session import Session, need, print_json, print_metrics, resolve_config, stage_command

SplitName = Literal["train", "validation", "test"]
START, PREPARE, LEARN, USE, ABOUT = "Start", "Prepare", "Learn", "Use", "About"
ORDER = (
    "all", "demo-data", "audit", "extract-frames", "detect-boxes", "pretrain", "adapt", "cache-features", "train",
    "tune", "evaluate", "predict", "live", "app", "report", "submit", "export", "verify", "config", "doctor", "version",
)  # fmt: skip


class Road(TyperGroup):
    """Lists the commands in the order of the road, and turns an AffectError into one line and exit code 1."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        from .pipeline.errors import AffectError

        try:
            # Whoever stops it from afar wants the same as Ctrl-C: an end without anything half-written.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            return super().invoke(ctx)
        except AffectError as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exception(error)
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted: what is done is kept, and the same command goes on from there", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=Road,
    help="Valence and arousal from video, frame by frame and clip by clip.",
    epilog="Example: affect demo-data demo && affect all --data demo --work work",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


pretrain = typer.Typer(no_args_is_help=True, help="Teach the STN to find faces, or the backbone to read them.")
config_group = typer.Typer(no_args_is_help=True, help="The settings.")
commands_learn.register(app, LEARN)
app.add_typer(pretrain, name="pretrain", rich_help_panel=LEARN)
app.add_typer(config_group, name="config", rich_help_panel=ABOUT)
app.add_typer(commands_ship.commands)
commands_keep.register(app, ABOUT)


@stage_command(app, "all", panel=START, create=True, example="affect all --data demo --work work")
def whole_road(
    here: Session,
    data: DataFolder,
    ferplus: Annotated[
        Path | None, typer.Option("--ferplus", metavar="DIR", help="FER and FER+; else DATA/ferplus, if it is there.")
    ] = None,
    run: RunName = "default",
    scheduler: Scheduler = None,
) -> None:
    """The whole road in one go, from audit to report. What is up to date is kept."""
    from .road import run_road

    if ferplus is None and (data / "ferplus").is_dir():
        ferplus = data / "ferplus"
    run_road(here, data, ferplus and need(ferplus, "--ferplus"), run=run, scheduler=scheduler)


@app.command("demo-data", rich_help_panel=START, epilog="Example: affect demo-data demo --videos 40 --seed 7")
def demo_data(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to draw it in.")],
    videos: Annotated[int, typer.Option("--videos", min=1, help="How many videos.")] = 60,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of a video, about.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same data.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that draw; else one a core.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Draw a data set shaped like Aff-Wild2, quirks and all, to try affect on."""
    from .pipeline.ingest.synthetic import draw_tree
    from .pipeline.progress import Talk

    talk = Talk(quiet, verbose)
    count = workers or os.cpu_count() or 1
    facts = draw_tree(out, videos=videos, frames=frames, seed=seed, workers=count, talk=talk)
    talk.say(f"{'demo-data':<18}{videos} videos → {out}")
    if as_json:
        print_json(facts)


@stage_command(app, "audit", panel=PREPARE, create=True, example="affect audit --data demo --work work")
def audit(here: Session, data: DataFolder) -> None:
    """Look through the data: what pairs with what, and what is missing, damaged or refused, and why."""
    from .pipeline.stages.audit import audit
    from .pipeline.stages.audit_record import load_audit, table

    tabled = not (here.as_json or here.talk.quiet)
    here.listing = not tabled
    here.stage(audit, data, here.work)
    if tabled:
        from rich.console import Console

        Console(highlight=False).print(table(load_audit(here.work)))


@stage_command(
    app, "extract-frames", panel=PREPARE, create=True, example="affect extract-frames --data demo --workers 4"
)
def extract_frames(here: Session, data: DataFolder, scheduler: Scheduler = None) -> None:
    """Decode every video once, into frame shards."""
    from .pipeline.stages.extract_frames import extract_frames

    here.stage(extract_frames, data, here.work, scheduler=scheduler)


@stage_command(app, "detect-boxes", panel=PREPARE, create=True, example="affect detect-boxes --data DIR --workers 8")
def detect_boxes(
    here: Session,
    videos: Annotated[list[Path] | None, typer.Argument(metavar="VIDEO…", help="Any videos, with --out.")] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The data set that has no boxes.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Else DATA/bounding_boxes.")] = None,
    detector: Annotated[Path | None, typer.Option(metavar="FILE", help="A YuNet .onnx; else a cascade.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the box files that are there.")] = False,
    scheduler: Scheduler = None,
) -> None:
    """Find the face in every frame of a data set without boxes, for the STN to learn from."""
    from .pipeline.stages.detect_boxes import detect_boxes

    options = {"data": data, "videos": videos or (), "out": out, "model": detector, "overwrite": overwrite}
    here.stage(detect_boxes, **options, scheduler=scheduler)


@stage_command(pretrain, "stn", example="affect pretrain stn --data demo --work work")
def pretrain_stn(here: Session, data: DataFolder) -> None:
    """Teach the STN where the face is, from frames and their boxes."""
    from .pipeline.stages.pretrain_stn import pretrain_stn

    here.stage(pretrain_stn, data, here.work)


@stage_command(pretrain, "backbone", create=True, example="affect pretrain backbone --ferplus demo/ferplus --work work")
def pretrain_backbone(
    here: Session,
    ferplus: FerplusFolder,
    count: Annotated[bool, typer.Option("--count", help="Only count the faces of each class, by each rule.")] = False,
) -> None:
    """Teach the backbone the expressions of FER+."""
    from .pipeline.stages.pretrain_backbone import count_faces, counts_table, pretrain_backbone

    if not count:
        here.stage(pretrain_backbone, need(ferplus, "--ferplus"), here.work)
        return
    counts = count_faces(need(ferplus, "--ferplus"))
    if here.as_json:
        print_json(counts)
        return
    from rich.console import Console

    Console(highlight=False).print(counts_table(counts))


@stage_command(app, "adapt", panel=LEARN, example="affect adapt --data demo --set adapt.epochs=4")
def adapt(here: Session, data: DataFolder) -> None:
    """Fine-tune the backbone on single frames of the training split, before features are cached."""
    from .pipeline.stages.adapt import adapt

    here.stage(adapt, data, here.work)


@stage_command(app, "cache-features", panel=LEARN, example="affect cache-features --data demo --workers 4")
def cache_features(
    here: Session,
    data: DataFolder,
    views: Annotated[int | None, typer.Option(min=1, max=8, help="Views of each frame; features.views.")] = None,
    scheduler: Scheduler = None,
) -> None:
    """Look at every frame once, through STN and backbone, into feature shards."""
    from .pipeline.stages.cache_features import cache_features

    if views:
        features = here.config.features.model_copy(update={"views": views})
        here.config = here.config.model_copy(update={"features": features})
    here.stage(cache_features, data, here.work, scheduler=scheduler)


@stage_command(
    app, "train", panel=LEARN, example="affect train --data demo --run wide --set head.hidden=128", lock="beside"
)
def train(
    here: Session,
    data: DataFolder,
    run: RunName = "default",
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="From raw frames through everything.")] = False,
    start: Annotated[str | None, typer.Option("--start", metavar="RUN", help="Start from this run's weights.")] = None,
    fold: Annotated[str | None, typer.Option(metavar="K/N", help="Deal subjects anew; the Kth of N judges.")] = None,
) -> None:
    """Train the LSTM head on cached features, or the whole network on frames."""
    from .pipeline.stages.train import train

    here.lock(run=run)
    here.stage(train, data, here.work, run=run, end_to_end=end_to_end, start=start, fold=fold)


@stage_command(app, "evaluate", panel=USE, example="affect evaluate --data demo --run default --json", lock="none")
def evaluate(
    here: Session,
    data: DataFolder,
    run: RunNames = None,
    split: Annotated[
        SplitName, typer.Option("--split", metavar="NAME", help="train, validation or test.")
    ] = "validation",
) -> None:
    """How well a run predicts: CCC and its kin over all frames of a split; a CSV of every prediction."""
    from .pipeline.stages.evaluate import evaluate

    metrics = here.stage(evaluate, data, here.work, run=run or "default", split=split).facts
    if here.as_json:
        print_json(metrics)
        here.as_json = False
    elif not here.talk.quiet:
        print_metrics(metrics)


commands_use.register(app, USE)


app.command("app", rich_help_panel=USE, epilog="Example: affect app --model work/train/default")(app_command)


@stage_command(app, "report", panel=USE, example="affect report --work work", lock="none")
def report(here: Session) -> None:
    """Draw what was learned: curves, what the STN sees, prediction against truth. An HTML page and its pictures."""
    from .pipeline.stages.report import report

    here.stage(report, here.work)


@config_group.command("show", epilog="Example: affect config show --config affwild2 --set train.epochs=5")
def config_show(
    work: Annotated[Path, typer.Option("--work", metavar="DIR", help="Whose remembered settings.")] = Path("work"),
    config: ConfigName = None,
    settings: Settings = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """The settings in force, as YAML."""
    from .configs.schema import dump
    from .pipeline.records import Work

    chosen, _ = resolve_config(Work(work).config, config, settings or ())
    if as_json:
        print_json(chosen.model_dump(mode="json"))
    else:
        print(dump(chosen), end="")


@app.command("version", rich_help_panel=ABOUT, epilog="Example: affect version")
def version() -> None:
    """The version of affect."""
    print(__version__)
