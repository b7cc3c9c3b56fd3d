"""One trial: a head trained on cached features and judged, that leaves nothing behind. For searches and comparisons."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..progress import Talk
from ..records import Work
from ..storage.fingerprint import fingerprint
from .fitting import SCORE, fit_way, smoothing_of
from .splits import divide
from .train import annotated, cached_shards

if TYPE_CHECKING:
    import torch

    from ..learning.tracks import FeatureTracks


@dataclass(frozen=True)
class Features:
    """The tracks of a work folder, read once for many trials. digest: of what they were made from and how divided."""

    learned: "FeatureTracks"
    judged: "FeatureTracks"
    device: "torch.device"
    digest: str


@dataclass(frozen=True)
class Trial:
    """score: the best epoch's mean CCC. figures: its line of metrics. smoothing: as choose_smoothing gives it."""

    score: float
    figures: dict[str, Any]
    smoothing: dict[str, Any]
    seconds: float


def load_features(config: Config, work: Work) -> Features:
    """Raises MissingStageError where there are none, or those of another encoder."""
    from ..learning.runtime import pick_device
    from ..learning.tracks import FeatureTracks, read_track

    shards = cached_shards(config, work)
    training, validation, _ = divide({name: shard.split for name, shard in shards.items()})
    device = pick_device(config.runtime.device)
    learned, judged = (
        FeatureTracks(annotated([read_track(shards[name].path) for name in names]), device)
        for names in (training, validation)
    )
    digest = fingerprint(made={name: shard.fingerprint for name, shard in shards.items()}, validation=validation)
    return Features(learned, judged, device, digest)


def try_head(
    config: Config, features: Features, talk: Talk, on_epoch: Callable[[dict[str, Any]], None] = lambda _: None
) -> Trial:
    """Trains as `affect train` does from cache, to the same figures. What on_epoch raises, this raises."""
    from ...models.head import TemporalHead
    from ..learning.from_cache import FromCache
    from ..learning.runtime import pick_dtype, seed_everything

    started = time.perf_counter()
    seed_everything(config.runtime.seed)
    dtype = pick_dtype(config.runtime.precision, features.device)
    head = TemporalHead(features.learned.width, **config.head.model_dump())
    way = FromCache(head, features.learned, features.judged, config, features.device, dtype, calibrate=True)
    result = fit_way(way, config, talk, on_epoch=on_epoch)
    smoothing = smoothing_of(way, config, talk)
    figures = next(line for line in result.history if line["epoch"] == result.best_epoch)
    return Trial(float(figures[SCORE]), figures, smoothing, time.perf_counter() - started)
