"""Predicts a whole video, batch by batch. Memory use hardly depends on the length of the video."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import VideoError
from ..ingest.video.decode import Decoding
from ..ingest.video.decoders import Decoders
from ..ingest.video.frame_sampling import FrameChunk, frame_chunks
from ..progress import Reporter
from .ensemble import AveragingReader
from .intervals import evidence_of
from .partial_results import OnFrames, ResultAligner
from .prediction import Prediction
from .predictor import Predictor
from .sampled_encoder import SampledEncoder
from .trace import Certainty, TraceData, make_trace
from .tracking import regions, track_faces

EXTRA_FACES = 2
"""Candidates per frame in addition to the requested people, because some candidates are not faces."""

TRACKING_FPS = 5.0
"""Smallest rate of the first pass over a video of several people. The tracks of a slower one would end at each gap."""


@dataclass(frozen=True)
class PersonRegions:
    """Where to search for each person. index: frame numbers [n]. regions: [n, 4] per person, as fractions."""

    index: NDArray[np.int64]
    regions: list[NDArray[np.float32]]


@dataclass(frozen=True)
class VideoReader:
    """Predicts one video after the other. title: label of the progress bar. emotions: also predict the emotions.
    on_frames: gets the values of the first person as soon as they are final."""

    predictor: Predictor
    decoders: Decoders
    reporter: Reporter
    title: str
    emotions: bool = False
    on_frames: OnFrames | None = None

    def read(self, path: Path, people: int = 1) -> list[Prediction]:
        """A prediction for each person, from left to right. Raises VideoError.

        With people=1, the STN searches the whole picture. With more, a first pass over the video tracks the faces; the
        list has as many people as were found, at least one.
        """

        def read_one(decoding: Decoding) -> list[Prediction]:
            return self._predict(decoding, None)

        def read_several(decoding: Decoding) -> list[Prediction]:
            persons = self._find_people(decoding, people)
            if not persons.regions:
                return self.decoders.decoded(path, read_one)
            return self.decoders.decoded(path, lambda again: self._predict(again, persons))

        return self.decoders.decoded(path, read_one if people == 1 else read_several)

    def _find_people(self, decoding: Decoding, people: int) -> PersonRegions:
        """Tracks the faces of a video."""
        facts = decoding.facts
        index, time, boxes, presence = [], [], [], []
        with self.reporter.progress(f"{self.title}: people", facts.frames, "frames") as tracker:
            for chunk in self._chunks(decoding, least=TRACKING_FPS):
                due = np.flatnonzero(chunk.due)
                candidates, probability = self.predictor.detect(chunk.pixels(due), people + EXTRA_FACES)
                boxes.append(candidates * np.array([facts.width, facts.height] * 2, np.float32))
                presence.append(probability)
                index.append(chunk.index[due])
                time.append(chunk.time[due])
                tracker.advance(len(chunk))
        if not index:
            return PersonRegions(np.zeros(0, np.int64), [])
        tracks = track_faces(np.concatenate(boxes), np.concatenate(presence), np.concatenate(time), people)
        return PersonRegions(np.concatenate(index), regions(tracks, facts.width, facts.height))

    def _predict(self, decoding: Decoding, persons: PersonRegions | None) -> list[Prediction]:
        """persons: the tracked people; None means one person anywhere in the picture."""
        facts, threshold = decoding.facts, self.predictor.config.predict.face_threshold
        tracks = [
            _PersonValues(self.predictor.offline_reader(), SampledEncoder(self.predictor, facts))
            for _ in (persons.regions if persons else [None])
        ]
        aligner = ResultAligner(self.on_frames, facts)
        index, time = [], []
        with self.reporter.progress(self.title, facts.frames, "frames") as tracker:
            for chunk in self._chunks(decoding):
                for number, track in enumerate(tracks):
                    region = None if persons is None else _regions_of(persons, number, chunk.index)
                    outputs, sampled = track.encoder.push(chunk, region)
                    track.values.append(track.reader.push(outputs.feature, outputs.face >= threshold))
                    track.outputs.append((outputs.face, outputs.box, outputs.emotion, outputs.traits, outputs.distance))
                    if sampled is not None:
                        track.sampled.append(sampled)
                index.append(chunk.index)
                time.append(chunk.time)
                face, box, *_ = tracks[0].outputs[-1]
                aligner.push(chunk.index, chunk.time, face, box, tracks[0].values[-1])
                tracker.advance(len(chunk))
        if not index:
            raise VideoError(f"{decoding.path}: has no frames", "Record it again, or remove it from the inputs.")
        numbers, seconds = np.concatenate(index), np.concatenate(time)
        predictions = []
        for person, track in enumerate(tracks):
            face, box, emotion, traits, distance = (
                np.concatenate(column) for column in zip(*track.outputs, strict=True)
            )
            track.values.append(track.reader.finish())
            if person == 0:
                aligner.push(numbers[:0], seconds[:0], face[:0], box[:0], track.values[-1])
            value = np.concatenate(track.values)
            if self.emotions:
                value = np.concatenate((value, emotion), 1)
            evidence = None
            if self.predictor.intervals is not None:
                evidence = evidence_of(seconds, face, face >= threshold, traits)
            known = None if self.predictor.reference is None else distance
            sampled = np.concatenate(track.sampled) if track.sampled else None
            lost = len(decoding.lost)
            predictions.append(Prediction(numbers, seconds, face, value, box, lost, evidence, known, sampled))
        return predictions

    def _chunks(self, decoding: Decoding, least: float = 1.0) -> Iterator[FrameChunk]:
        """The frames of the video, of which those are due that predict.fps says, but at least so many per second."""
        fps = self.predictor.config.predict.fps
        frames = ((batch.index, batch.time, batch.pixels) for batch in decoding)
        return frame_chunks(frames, None if fps is None else max(fps, least))


def trace_video(
    reader: VideoReader, path: Path, *, name: str = "", classes: Sequence[str] = (), people: int = 1
) -> list[TraceData]:
    """The traces of the people in a video, from left to right, as many as were found. Raises VideoError.

    classes: names of the emotions, if the reader predicts them.
    """
    predictor = reader.predictor
    return [
        make_trace(
            prediction, predictor.config, path, name=name, classes=classes, clip=predictor.clip,
            person=number if people > 1 else None, certainty=Certainty(predictor.intervals, predictor.reference),
        )
        for number, prediction in enumerate(reader.read(path, people))
    ]  # fmt: skip


def trace_one(
    predictor: Predictor, path: Path, reporter: Reporter, *, classes: Sequence[str] = (), people: int = 1
) -> list[TraceData]:
    """`trace_video` for a single video, with decoders of its own."""
    config = predictor.config
    with Decoders(predictor.size, config.features.batch, config.runtime.decode_seconds) as decoders:
        reader = VideoReader(predictor, decoders, reporter, path.stem, bool(classes))
        return trace_video(reader, path, classes=classes, people=people)


@dataclass(eq=False)
class _PersonValues:
    """What was computed for one person so far, chunk by chunk. outputs: (face, box, emotion, traits,
    distance) of each chunk. sampled: which frames the networks have seen; empty if all."""

    reader: AveragingReader
    encoder: SampledEncoder
    outputs: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)
    sampled: list[NDArray[np.bool_]] = field(default_factory=list)


def _regions_of(persons: PersonRegions, number: int, index: NDArray[np.int64]) -> NDArray[np.float32]:
    """The regions of these frames, float32 [n, 4]. Between two frames of the first pass, they are interpolated."""
    sides = [np.interp(index, persons.index, side) for side in persons.regions[number].T]
    return np.stack(sides, 1).astype(np.float32)
