"""Fits the reference of a model to the people of its training split; see pipeline/learning/reference.py.

The cached features lack the first stage of the backbone, so a few stored frames of each person are encoded again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import Config
from ..learning.from_cache import FromCache
from ..learning.reference import Reference, describe, fit_reference, frames_per_person, sample_rows
from ..learning.runtime import Compute
from ..progress import Reporter
from ..records import Work
from ..storage.shard import FEATURES, FrameShard, Shard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...models.affect_net import AffectNet
    from ..learning.end_to_end import EndToEnd
    from ..learning.frame_tracks import FrameTrack
    from ..learning.tracks import Track

SAME = 0.98
"""Cosine of the cached and the new features of a frame, from which on they come from the same crop."""


def reference_of_task(
    task: "FromCache | EndToEnd", net: "AffectNet", config: Config, work: Work, reporter: Reporter
) -> Reference | None:
    """The reference of a trained model; None if too few training people have stored frames. net: the whole network."""
    net = net.to(task.compute.device).eval()
    if isinstance(task, FromCache):
        splits = (task.train_tracks, task.validation_tracks)
        people = [cached_people(net, tracks, config, work, task.compute) for tracks in splits]
    else:
        people = [frame_people(net, it, config, task.compute) for it in (task.train_tracks, task.validation_tracks)]
    reference = fit_reference(*people)
    if reference is None:
        reporter.info("train: too few training people with stored frames to warn of videos that are unlike them")
    return reference


def cached_people(
    net: "AffectNet", tracks: "Sequence[Track]", config: Config, work: Work, compute: Compute
) -> list[Tensor]:
    """Descriptions [n, t + f] of evenly spaced frames with a face, for each track whose frames are still stored.

    net: on the device, in eval mode. Raises ShardError.
    """
    limit = frames_per_person(len(tracks))
    people = []
    for track in tracks:
        with Shard(track.path, FEATURES) as shard:
            if "presence" not in shard.names or "theta" not in shard.names:
                continue
            rows = sample_rows(shard.read("presence") >= config.predict.face_threshold, limit)
            theta, index, feature = (shard.read(name)[rows] for name in ("theta", "index", "feature"))
            frames = work.frames(str(shard.attributes.get("video", track.subject)))
        if not frames.is_file() or not len(rows):
            continue
        with FrameShard(frames) as shard:
            stored = shard.read("index")
            places = np.searchsorted(stored, index).clip(0, len(stored) - 1)
            pixels = shard.frames(places)
        found = _encoded(net, pixels, None, theta, (config, compute))
        cosine = torch.cosine_similarity(found[:, -feature.shape[1] :], torch.from_numpy(feature).float())
        if float(cosine.median()) >= SAME:  # else the crops came from another source
            people.append(found)
    return people


def frame_people(net: "AffectNet", tracks: "Sequence[FrameTrack]", config: Config, compute: Compute) -> list[Tensor]:
    """Descriptions [n, t + f] of evenly spaced frames with a face, for each track. net: on the device, in eval mode."""
    limit = frames_per_person(len(tracks))
    people = []
    for track in tracks:
        rows = sample_rows(np.ones(len(track), bool), limit)
        theta = None if track.theta is None else track.theta[rows]
        region = np.tile(np.array(track.region, np.float32), (len(rows), 1))
        people.append(_encoded(net, track.frames(rows), region, theta, (config, compute)))
    return people


def _encoded(
    net: "AffectNet",
    frames: Tensor,
    region: "NDArray[np.float32] | None",
    theta: "NDArray[np.float32] | None",
    settings: tuple[Config, Compute],
) -> Tensor:
    """Descriptions of the frames, uint8 [n, 3, s, s], that show a face."""
    config, compute = settings
    parts = []
    for start in range(0, len(frames), config.features.batch):
        part = slice(start, start + config.features.batch)
        given = [None if it is None else torch.from_numpy(it[part]).to(compute.device) for it in (region, theta)]
        with torch.no_grad(), compute.autocast():
            found = net.encode(frames[part].to(compute.device), *given)
        shows_face = found.presence >= config.predict.face_threshold
        parts.append(describe(found.texture, found.feature)[shows_face].cpu())
    return torch.cat(parts)
