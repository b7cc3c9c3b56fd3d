"""Fits the reference of a model to the people of its training split; see pipeline/learning/reference.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import Config
from ..learning.from_cache import FromCache
from ..learning.reference import Reference, fit_reference, frames_per_person, sample_rows
from ..learning.runtime import Compute
from ..progress import Reporter
from ..storage.shard import FEATURES, Shard

if TYPE_CHECKING:
    from ...models.affect_net import AffectNet
    from ..learning.end_to_end import EndToEnd
    from ..learning.frame_tracks import FrameTrack
    from ..learning.tracks import Track

MAX_ENCODED = 2_000
"""Frames of all people that are encoded after a training end to end."""


def reference_of_task(
    task: "FromCache | EndToEnd", net: "AffectNet", config: Config, reporter: Reporter
) -> Reference | None:
    """The reference of a trained model; None if it has too few training people. net: the whole network."""
    if isinstance(task, FromCache):
        splits = (task.train_tracks, task.validation_tracks)
        people = [cached_people(tracks, config.predict.face_threshold) for tracks in splits]
    else:
        net = net.to(task.compute.device).eval()
        people = [
            encoded_people(net, tracks, config, task.compute) for tracks in (task.train_tracks, task.validation_tracks)
        ]
    reference = fit_reference(*people)
    if reference is None:
        reporter.debug("train: too few training people to tell videos that are unlike them")
    return reference


def cached_people(tracks: "Sequence[Track]", threshold: float) -> list[Tensor]:
    """Features [n, f] of evenly spaced frames with a face, for each track, from its shard. Raises ShardError."""
    limit = frames_per_person(len(tracks))
    people = []
    for track in tracks:
        with Shard(track.path, FEATURES) as shard:
            rows = sample_rows(shard.read("presence") >= threshold, limit)
            people.append(torch.from_numpy(shard.read("feature")[rows]))
    return people


def encoded_people(net: "AffectNet", tracks: "Sequence[FrameTrack]", config: Config, compute: Compute) -> list[Tensor]:
    """Features [n, f] of evenly spaced frames with a face, for each track. net: on the device, in eval mode."""
    limit = frames_per_person(len(tracks), MAX_ENCODED)
    people = []
    for track in tracks:
        region = torch.tensor([track.region], device=compute.device)
        parts = []
        chosen = sample_rows(np.ones(len(track), bool), limit)
        for rows in np.split(chosen, range(config.features.batch, len(chosen), config.features.batch)):
            known = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(compute.device)
            with torch.no_grad(), compute.autocast():
                found = net.encode(track.frames(rows).to(compute.device), region.expand(len(rows), 4), known)
            parts.append(found.feature.float()[found.presence >= config.predict.face_threshold].cpu())
        people.append(torch.cat(parts))
    return people
