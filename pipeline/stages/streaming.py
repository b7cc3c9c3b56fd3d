"""Frames one by one, each looked at with no more than what came before: for live use, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..ingest.live_source import Arrival, Newest, Source, arrivals, squeeze
from ..ingest.video import DecordError, decode
from ..learning.network import Network, Seen
from .trace import Moment

Picture = NDArray[np.uint8]
Follow = Callable[[Seen, int, float, int], Moment]
BATCH = 8
"""Frames on their way from the decoder."""


def stream_file(network: Network, path: Path) -> Iterator[Moment]:
    """Every frame of a file, as fast as it goes. Raises VideoError."""
    look, follow, begun = network.look, follower(network), 0
    deadline = network.config.runtime.decode_seconds
    for decoders in (("decord", "pyav"), ("pyav",)):
        try:
            with decode(path, network.size, batch=BATCH, deadline=deadline, start=begun, decoders=decoders) as decoding:
                for batch in decoding:
                    for number, time, pixels in zip(batch.index.tolist(), batch.time, batch.pixels, strict=True):
                        seen = look(pixels[None], decoding.facts.width, decoding.facts.height)
                        begun = number + 1
                        yield follow(seen, number, float(time), 0)
            return
        except DecordError:
            if decoders == ("pyav",):
                raise


def stream_pictures(network: Network, pictures: Iterable[Picture], rate: float) -> Iterator[Moment]:
    """Every picture, uint8 [h, w, 3] RGB, `rate` a second. Raises InputError for what is none."""
    follow = follower(network)
    for number, picture in enumerate(pictures):
        yield _moment(network, follow, Arrival(number, number / rate, picture), 0)


def stream_live(network: Network, newest: Newest) -> Iterator[tuple[Moment, Picture]]:
    """The newest frame whenever the last one is done, with its picture. Raises VideoError."""
    follow = follower(network)
    for arrival, late in newest:
        yield _moment(network, follow, arrival, late), arrival.picture


def open_newest(network: Network, source: Source) -> Newest:
    """The source, to be used in a `with`. Raises VideoError."""
    return Newest(arrivals(source), network.config.runtime.decode_seconds)


def follower(network: Network) -> Follow:
    """A function from what the network saw of one frame, its number, its time, and how many came too late, to a moment.

    Frames without a face follow `predict.no_face` as far as one can without knowing what comes: `hold` and
    `interpolate` repeat the last values, and before the first face there are none.
    """
    read, settings = network.causal(), network.config.predict
    held = np.full(2, np.nan)

    def follow(seen: Seen, number: int, time: float, late: int) -> Moment:
        nonlocal held
        value = np.asarray(read(seen.feature), np.float64)
        there = bool(seen.face[0] >= settings.face_threshold)
        held = value if there else held if settings.no_face != "empty" else np.full(2, np.nan)
        x0, y0, x1, y1 = seen.box[0].tolist()
        return Moment(number, time, float(seen.face[0]), there, float(held[0]), float(held[1]), (x0, y0, x1, y1), late)

    return follow


def _moment(network: Network, follow: Follow, arrival: Arrival, late: int) -> Moment:
    picture = np.asarray(arrival.picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        given = f"picture {arrival.number} is {picture.dtype} {list(picture.shape)}"
        raise InputError(given, "Give RGB pictures, uint8 [height, width, 3].")
    height, width = picture.shape[:2]
    seen = network.look(squeeze(picture, network.size)[None], width, height)
    return follow(seen, arrival.number, arrival.time, late)
