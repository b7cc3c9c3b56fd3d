"""A trial: trains and validates a head on cached features and writes no files. For searches and comparisons."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..progress import Reporter
from ..records import Work
from ..storage.fingerprint import fingerprint
from .fit import SCORE, fit_task, smoothing_of
from .splits import annotated, cached_shards, divide

if TYPE_CHECKING:
    from ..learning.runtime import Compute
    from ..learning.tracks import FeatureTracks


@dataclass(frozen=True)
class Features:
    """The tracks of a work folder, read once for many trials. digest: of the features and their split."""

    train_tracks: "FeatureTracks"
    validation_tracks: "FeatureTracks"
    compute: "Compute"
    digest: str


@dataclass(frozen=True)
class Trial:
    """score: mean CCC of the best epoch. figures: its metrics. smoothing: the result of choose_smoothing."""

    score: float
    figures: dict[str, Any]
    smoothing: dict[str, Any]
    seconds: float


def load_features(config: Config, work: Work) -> Features:
    """Raises MissingStageError if there are no features, or if other networks computed them."""
    from ..learning.runtime import pick_compute
    from ..learning.tracks import FeatureTracks, read_track

    shards = cached_shards(config, work)
    training, validation, _ = divide({name: shard.split for name, shard in shards.items()})
    compute = pick_compute(config.runtime)
    train_tracks, validation_tracks = (
        FeatureTracks(annotated([read_track(shards[name].path) for name in names]), compute.device)
        for names in (training, validation)
    )
    digest = fingerprint(made={name: shard.fingerprint for name, shard in shards.items()}, validation=validation)
    return Features(train_tracks, validation_tracks, compute, digest)


def try_head(
    config: Config, features: Features, reporter: Reporter, on_epoch: Callable[[dict[str, Any]], None] = lambda _: None
) -> Trial:
    """Trains as `affect train` does from cache, with the same metrics. Exceptions in on_epoch are raised here."""
    from ...models.head import HeadSettings, TemporalHead
    from ..learning.from_cache import FromCache
    from ..learning.runtime import seed_everything

    started = time.perf_counter()
    seed_everything(config.runtime.seed)
    head = TemporalHead(features.train_tracks.width, HeadSettings(**config.head.model_dump()))
    task = FromCache(head, features.train_tracks, features.validation_tracks, config, features.compute, calibrate=True)
    result = fit_task(task, config, reporter, on_epoch=on_epoch)
    smoothing = smoothing_of(task, config, reporter)
    figures = next(line for line in result.history if line["epoch"] == result.best_epoch)
    return Trial(float(figures[SCORE]), figures, smoothing, time.perf_counter() - started)
