"""A video through the network, batch by batch: of each frame only numbers are kept, so memory hardly grows with it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..ingest.video import Decoding, decoded
from ..learning.network import Network
from ..learning.people import follow_people, regions
from ..progress import Talk
from .arrivals import Arrivals, Watch
from .prediction import Prediction

MORE = 2
"""Faces looked at in each frame beyond the people asked for: some of them are things that look like faces."""


def watch(
    path: Path,
    network: Network,
    talk: Talk,
    title: str,
    *,
    people: int = 1,
    emotions: bool = False,
    told: Watch | None = None,
) -> list[Prediction]:
    """What the network says of each person in a video, from left to right; of one, it looks where its STN does.

    people: more than one are followed first, in a pass of their own, and the list holds as many as were found, at least
    one. told: of the first person's values as they become final. Raises VideoError.
    """
    options = {"batch": network.config.features.batch, "deadline": network.config.runtime.decode_seconds}

    def whole(decoding: Decoding) -> list[Prediction]:
        return _read(decoding, network, talk, title, emotions, told, None)

    if people == 1:
        return decoded(path, network.size, whole, **options)

    def both(decoding: Decoding) -> list[Prediction]:
        numbers, parts = _find(decoding, network, talk, f"{title}: people", people)
        if not parts:
            return decoded(path, network.size, whole, **options)
        return decoded(
            path,
            network.size,
            lambda again: _read(again, network, talk, title, emotions, told, (numbers, parts)),
            **options,
        )

    return decoded(path, network.size, both, **options)


def _find(
    decoding: Decoding, network: Network, talk: Talk, title: str, people: int
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """The numbers of the frames [n], and of each person the part of the picture they are in [n, 4]."""
    facts = decoding.facts
    index, time, box, presence = [], [], [], []
    with talk.track(title, facts.frames, "frames") as tracker:
        for batch in decoding:
            places, likely = network.faces(batch.pixels, people + MORE)
            box.append(places * np.array([facts.width, facts.height] * 2, np.float32))
            presence.append(likely)
            index.append(batch.index)
            time.append(batch.time)
            tracker.advance(len(batch))
    if not index:
        return np.zeros(0, np.int64), []
    numbers, seconds, boxes, likely = (np.concatenate(parts) for parts in (index, time, box, presence))
    return numbers, regions(follow_people(boxes, likely, seconds, people), facts.width, facts.height)


def _read(
    decoding: Decoding,
    network: Network,
    talk: Talk,
    title: str,
    emotions: bool,
    told: Watch | None,
    known: tuple[NDArray[np.int64], list[NDArray[np.float32]]] | None,
) -> list[Prediction]:
    """A prediction of each person. known: frames' numbers and each person's part of them; None: one person anywhere."""
    facts = decoding.facts
    parts = known[1] if known else [None]
    averages = [network.average() for _ in parts]
    index, time = [], []
    seen: list[list[tuple[NDArray[np.float32], ...]]] = [[] for _ in parts]
    values: list[list[NDArray[np.float32]]] = [[] for _ in parts]
    arrivals = Arrivals(told, facts)
    with talk.track(title, facts.frames, "frames") as tracker:
        for batch in decoding:
            # A second pass may know frames that the first did not, where another decoder had to take over.
            rows = np.searchsorted(known[0], batch.index).clip(0, len(known[0]) - 1) if known else None
            for person, part in enumerate(parts):
                region = None if part is None or rows is None else part[rows]
                feature, *rest = network.look(batch.pixels, facts.width, facts.height, region)
                seen_now = rest[0] >= network.config.predict.face_threshold
                values[person].append(averages[person].push(feature, seen_now))
                seen[person].append(tuple(rest))
            index.append(batch.index)
            time.append(batch.time)
            face, box, _ = seen[0][-1]
            arrivals.push(batch.index, batch.time, face, box, values[0][-1])
            tracker.advance(len(batch))
    if not index:
        raise VideoError(f"{decoding.path}: holds no frame", "Record it again, or leave it out.")
    numbers, seconds = np.concatenate(index), np.concatenate(time)
    predictions = []
    for person, (own, value, average) in enumerate(zip(seen, values, averages, strict=True)):
        face, box, emotion = (np.concatenate(column) for column in zip(*own, strict=True))
        last = average.finish()
        if person == 0:
            arrivals.push(numbers[:0], seconds[:0], face[:0], box[:0], last)
        affect = np.concatenate((*value, last))
        both = np.concatenate((affect, emotion), 1) if emotions else affect
        predictions.append(Prediction(numbers, seconds, face, both, box, len(decoding.lost)))
    return predictions
