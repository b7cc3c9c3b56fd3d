"""affect all: runs all stages in one process."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..pipeline.ingest.catalog import find_catalog
from ..pipeline.storage.shard import FRAMES, Shard

if TYPE_CHECKING:
    from ..pipeline.records import Catalog
    from .session import Session

MAX_VIDEOS = 2
"""Validation videos to predict at the end."""


def run_all(session: "Session", data: Path, ferplus: Path | None, *, run: str, scheduler: str | None) -> None:
    """Runs the stages from audit to report. A stage without its input (FER+, boxes) is skipped with a warning."""
    from ..pipeline.stages.adapt import adapt
    from ..pipeline.stages.audit import audit
    from ..pipeline.stages.cache_features import cache_features
    from ..pipeline.stages.evaluate import evaluate
    from ..pipeline.stages.extract_frames import extract_frames
    from ..pipeline.stages.predict import predict
    from ..pipeline.stages.pretrain_backbone import pretrain_backbone
    from ..pipeline.stages.pretrain_stn import pretrain_stn
    from ..pipeline.stages.report import report
    from ..pipeline.stages.train import train

    config, work, reporter = session.config, session.work, session.reporter
    session.stage(audit, config, data, work, reporter, scheduler=scheduler)
    catalog = find_catalog(data)
    session.stage(extract_frames, config, data, work, reporter, scheduler=scheduler)
    if config.stn.localiser == "stn":
        session.stage(pretrain_stn, config, data, work, reporter)
    if config.backbone.weights == "work":
        if ferplus is not None:
            session.stage(pretrain_backbone, config, ferplus, work, reporter)
        elif not work.weights("backbone").is_file():
            reporter.warning("no --ferplus: the backbone is not pretrained on expressions")
    if config.adapt.epochs > 0:
        session.stage(adapt, config, data, work, reporter)
    session.stage(cache_features, config, data, work, reporter, scheduler=scheduler)
    session.stage(train, config, data, work, reporter, run=run)
    session.stage(evaluate, config, data, work, reporter, run=run, split="validation")
    session.stage(predict, config, shown_videos(session, catalog), work.run(run), work.root / "predict", reporter)
    session.stage(report, config, work, reporter)
    reporter.info(f"report: {work.report / 'index.html'}")


def shown_videos(session: "Session", catalog: "Catalog") -> list[Path]:
    """The first videos of the validation split, if possible without lost frames."""
    names = {
        subject.video: None
        for subject in catalog.of_split("validation")
        if session.work.features(subject.name).is_file()
    }
    whole = [name for name in names if not lost_frames(session.work.frames(name))]
    return [catalog.video(name).path for name in (whole or list(names))[:MAX_VIDEOS]]


def lost_frames(path: Path) -> int:
    """How many frames of a video could not be decoded. path: its frame shard."""
    if not path.is_file():
        return 0
    with Shard(path, FRAMES) as shard:
        return len(shard.attributes["lost"])
