"""Commands for training: pretrain, adapt, cache-features, train and tune."""

from typing import Annotated

import typer

from .options import TRAIN, DataFolder, FerplusFolder, FramesPerSecond, RunName, Scheduler
from .session import Session, print_json, require_path, stage_command

commands = typer.Typer()

pretrain = typer.Typer(no_args_is_help=True, help="Pretrain the STN on face boxes, or the backbone on FER+.")
commands.add_typer(pretrain, name="pretrain", rich_help_panel=TRAIN)


@stage_command(pretrain, "stn", example="affect pretrain stn --data demo --work work")
def pretrain_stn(session: Session, data: DataFolder) -> None:
    """Train the STN to locate the face, on frames with boxes."""
    from ..pipeline.stages.pretrain_stn import pretrain_stn

    session.stage(pretrain_stn, session.config, data, session.work, session.reporter)


@stage_command(pretrain, "backbone", create=True, example="affect pretrain backbone --ferplus demo/ferplus --work work")
def pretrain_backbone(
    session: Session,
    ferplus: FerplusFolder,
    count: Annotated[
        bool, typer.Option("--count", help="Only print the number of faces per class and label rule.")
    ] = False,
) -> None:
    """Train the backbone on the expressions of FER+."""
    from ..pipeline.stages.pretrain_backbone import count_faces, counts_table, pretrain_backbone

    require_path(ferplus, "--ferplus")
    if not count:
        session.stage(pretrain_backbone, session.config, ferplus, session.work, session.reporter)
        return
    counts = count_faces(ferplus)
    if session.as_json:
        print_json(counts)
        return
    from rich.console import Console

    Console(emoji=False, highlight=False).print(counts_table(counts))


@stage_command(commands, "adapt", panel=TRAIN, example="affect adapt --data demo --set adapt.epochs=4")
def adapt(session: Session, data: DataFolder) -> None:
    """Fine-tune the backbone on single frames of the training split, before features are cached."""
    from ..pipeline.stages.adapt import adapt

    session.stage(adapt, session.config, data, session.work, session.reporter)


@stage_command(commands, "cache-features", panel=TRAIN, example="affect cache-features --data demo --workers 4")
def cache_features(
    session: Session,
    data: DataFolder,
    views: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="Number of views of each frame; the same as --set features.views=N."),
    ] = None,
    fps: FramesPerSecond = None,
    scheduler: Scheduler = None,
) -> None:
    """Run the STN and the backbone once on each frame, and store the features."""
    from ..pipeline.stages.cache_features import cache_features

    given = {name: value for name, value in (("views", views), ("fps", fps)) if value is not None}
    features = session.config.features.model_copy(update=given)
    session.config = session.config.model_copy(update={"features": features})
    session.stage(cache_features, session.config, data, session.work, session.reporter, scheduler=scheduler)


@stage_command(
    commands, "train", panel=TRAIN, example="affect train --data demo --run wide --set head.hidden=128", lock="beside"
)
def train(
    session: Session,
    data: DataFolder,
    run: RunName = "default",
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Train all networks on frames instead of the head on features.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--start", metavar="RUN", help="Start from the weights of this run.")
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Cross-validation: divide the subjects into N folds and validate on fold K."),
    ] = None,
) -> None:
    """Train the head on cached features, or all networks on frames."""
    from ..pipeline.stages.train import train

    session.lock(run=run)
    session.stage(
        train,
        session.config,
        data,
        session.work,
        session.reporter,
        run=run,
        end_to_end=end_to_end,
        start=start,
        fold=fold,
    )


@stage_command(commands, "tune", panel=TRAIN, example="affect tune --work work --trials 40", lock="beside")
def tune(
    session: Session,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Number of finished trials, including those of earlier calls.")
    ] = 40,
    space: Annotated[str, typer.Option("--space", metavar="NAME", help="Search space: head, or a YAML file.")] = "head",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the search. The results are in WORK/tune/NAME.")
    ] = "head",
    scheduler: Scheduler = None,
) -> None:
    """Search for the best settings of the head on the validation split. Use best.yaml with --config."""
    from ..pipeline.stages.tune import table, tune

    report = session.stage(
        tune,
        session.config,
        session.work,
        session.reporter,
        space=space,
        name=name,
        trials=trials,
        scheduler=scheduler,
    )
    if session.as_json:
        print_json(report.facts)
        session.as_json = False
    elif not session.reporter.quiet:
        from rich.console import Console

        Console(emoji=False, highlight=False).print(table(report))
