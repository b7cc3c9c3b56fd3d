"""The whole road in one process: every stage in its order, each keeping what is up to date."""

from pathlib import Path
from typing import TYPE_CHECKING

from .pipeline.ingest.catalog import find_catalog
from .pipeline.storage.shard import FRAMES, Shard

if TYPE_CHECKING:
    from .pipeline.records import Catalog
    from .session import Session

SHOWN = 2
"""Validation videos to predict at the end of the road."""


def run_road(here: "Session", data: Path, ferplus: Path | None, *, run: str, scheduler: str | None) -> None:
    """From audit to report. What cannot be done for want of FER+ or of boxes is said, and left out."""
    from .pipeline.stages.adapt import adapt
    from .pipeline.stages.audit import audit
    from .pipeline.stages.cache_features import cache_features
    from .pipeline.stages.evaluate import evaluate
    from .pipeline.stages.extract_frames import extract_frames
    from .pipeline.stages.predict import predict
    from .pipeline.stages.pretrain_backbone import pretrain_backbone
    from .pipeline.stages.pretrain_stn import pretrain_stn
    from .pipeline.stages.report import report
    from .pipeline.stages.train import train

    config, work = here.config, here.work
    here.stage(audit, data, work)
    catalog = find_catalog(data)
    here.stage(extract_frames, data, work, scheduler=scheduler)
    if config.stn.localiser == "stn":
        here.stage(pretrain_stn, data, work)
    if config.backbone.weights == "work":
        if ferplus is not None:
            here.stage(pretrain_backbone, ferplus, work)
        elif not work.weights("backbone").is_file():
            here.talk.warn("no FER+ given (--ferplus): the backbone is not pretrained on expressions")
    if config.adapt.epochs > 0:
        here.stage(adapt, data, work)
    here.stage(cache_features, data, work, scheduler=scheduler)
    here.stage(train, data, work, run=run)
    here.stage(evaluate, data, work, run=run, split="validation")
    here.stage(predict, shown_videos(here, catalog), work.run(run), work.root / "predict")
    here.stage(report, work)
    here.talk.say(f"the report: {work.report / 'index.html'}")


def shown_videos(here: "Session", catalog: "Catalog") -> list[Path]:
    """The first videos of the validation split that came through whole."""
    names = {
        subject.video: None for subject in catalog.of_split("validation") if here.work.features(subject.name).is_file()
    }
    whole = [name for name in names if not lost_frames(here.work.frames(name))]
    return [catalog.video(name).path for name in (whole or list(names))[:SHOWN]]


def lost_frames(path: Path) -> int:
    """How many frames of a video could not be decoded."""
    if not path.is_file():
        return 0
    with Shard(path, FRAMES) as shard:
        return len(shard.attributes["lost"])
