"""Calibrates the intervals of a model on people that it was not trained on.

The model runs as `predict` runs it: `offline` over whole videos, `stream` with earlier frames only, and `picture` on
single frames. Each way has intervals of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...configs.schema import Clip, Config
from ...models.theta import corners_from_theta
from ..errors import InputError
from ..inference.ensemble import AveragingReader
from ..inference.intervals import COVARIATES, MODES, Evidence, covariates, deviation_of, entropy
from ..inference.prediction import fill
from ..inference.predictor import Predictor
from ..learning.calibration import Calibration
from ..learning.fit_calibration import Person, calibrate
from ..learning.from_cache import FromCache
from ..learning.model_file import add_calibration, load_model
from ..learning.runtime import Compute, pick_compute
from ..learning.smoothing import Smoother
from ..learning.windows import head_predictor, track_reader
from ..progress import Reporter
from ..storage.shard import FEATURES, Shard

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.affect_net import AffectNet
    from ...models.head import TemporalHead
    from ..learning.end_to_end import EndToEnd
    from ..learning.frame_tracks import FrameTrack
    from ..learning.tracks import Track

STRETCHES = 4
STRETCH_ROWS = 150
"""Of each person, streams are computed on this many stretches of this many frames: a bidirectional head reads a window
for each frame."""


@dataclass(frozen=True)
class Recording:
    """One person in one video. feature: [n, 2048]. evidence: of the n frames. target: [n, 2]. valid: bool [n]."""

    subject: str
    feature: Tensor
    evidence: Evidence
    target: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class HeadRun:
    """A head and how it runs. smoothing: {kind, width}."""

    head: "TemporalHead"
    clip: Clip
    smoothing: Mapping[str, Any]
    compute: Compute
    no_face: str


def calibrate_task(
    task: "FromCache | EndToEnd", net: "AffectNet", config: Config, smoothing: Mapping[str, Any], reporter: Reporter
) -> dict[str, Calibration]:
    """The intervals of a trained model, calibrated on its validation subjects. net: the whole network."""
    compute = task.compute
    net = net.to(compute.device).eval()
    if isinstance(task, FromCache):
        found = cached_recordings(net, {track.subject: track.path for track in task.validation_tracks}, config)
    else:
        found = frame_recordings(net, task.validation_tracks, config, compute)
    policy = "hold" if config.predict.no_face == "empty" else config.predict.no_face
    modes = calibrate_model(HeadRun(net.head, config.clip, smoothing, compute, policy), found)
    reporter.info(f"train: {describe(modes, config.predict.level)}")
    return modes


def calibrate_run(folder: "Path", shards: Mapping[str, "Path"]) -> dict[str, Calibration]:
    """Calibrates the intervals of a saved model on feature shards by subject, and writes them into its file.

    Raises WeightsError, ShardError, WorkError, and InputError if no frame is annotated.
    """
    net, info = load_model(folder)
    config = info.config
    compute = pick_compute(config.runtime)
    net = net.to(compute.device)
    policy = "hold" if config.predict.no_face == "empty" else config.predict.no_face
    run = HeadRun(net.head, config.clip, info.smoothing, compute, policy)
    modes = calibrate_model(run, cached_recordings(net, shards, config))
    if not modes:
        raise InputError("no frame of the validation subjects is annotated", "See `affect audit`.")
    add_calibration(folder, modes)
    return modes


def track_ends(predictor: Predictor, track: "Track", value: NDArray[np.float32]) -> NDArray[np.float64]:
    """The ends of the intervals of a cached track, [n, 2, 2]. predictor: of one model with intervals."""
    assert predictor.intervals is not None
    (recording,) = cached_recordings(predictor.net, {track.subject: track.path}, predictor.config)
    evidence = replace(recording.evidence, deviation=recording.evidence.deviation[:, None])
    return predictor.intervals.bounds("offline", evidence, value)


def describe(modes: Mapping[str, Calibration], level: float) -> str:
    """The result of a calibration in one line."""
    offline = modes["offline"]
    half = offline.quantile(level)
    if not np.isfinite(half).all():
        return (
            f"intervals calibrated on {offline.people} people, too few for the level {level:g}: "
            f"the highest is {np.floor(offline.highest_level * 100) / 100:g}"
        )
    return (
        f"intervals calibrated on {offline.people} people: about ±{half[0]:.2f} in valence, ±{half[1]:.2f} in arousal"
    )


def calibrate_model(run: HeadRun, recordings: Iterable[Recording]) -> dict[str, Calibration]:
    """The intervals of a model, by the way to run it. Empty if no frame is annotated.

    recordings: of people that the model was not trained on, read one after the other. Recordings of one subject are
    one person.
    """
    people: dict[str, dict[str, list[Person]]] = {mode: {} for mode in MODES}
    for recording in recordings:
        for mode, person in residuals(run, recording).items():
            if len(person.residual):
                people[mode].setdefault(recording.subject, []).append(person)
    return {
        mode: calibrate([_joined(parts) for parts in found.values()], tuple(COVARIATES), tuple(COVARIATES.values()))
        for mode, found in people.items() if found
    }  # fmt: skip


def residuals(run: HeadRun, recording: Recording) -> dict[str, Person]:
    """The residuals and covariates of the annotated frames of a recording, by the way to run the model."""
    evidence = recording.evidence
    found = {"offline": _person(recording, evidence, offline_values(run, recording), causal=False)}
    parts = [
        _person(_part(recording, rows), _rows_of(evidence, rows), _stream_values(run, recording, rows), causal=True)
        for rows in _stretches(len(recording.valid))
    ]
    found["stream"] = _joined(parts)
    apart = replace(evidence, time=np.arange(len(evidence.time)) * 1e6)  # no frame is near another
    single = _picture_values(run, recording)
    single[~evidence.seen] = np.nan
    found["picture"] = _person(recording, apart, single, causal=True)
    return found


def offline_values(run: HeadRun, recording: Recording) -> NDArray[np.float64]:
    """The values [n, 2] that `predict` gives to the frames of a video; NaN without any face."""
    reader = AveragingReader(
        [
            (
                slice(None),
                track_reader(run.head, run.clip, run.compute),
                Smoother(run.smoothing["kind"], run.smoothing["width"]),
            )
        ]
    )
    seen = recording.evidence.seen
    parts = [
        reader.push(rows, seen[at : at + len(rows)])
        for at, rows in zip(range(0, len(seen), 4096), recording.feature.split(4096), strict=True)
    ]
    value = np.concatenate([*parts, reader.finish()])
    return fill(value, seen, recording.evidence.time, run.no_face)


def _stream_values(run: HeadRun, recording: Recording, rows: slice) -> NDArray[np.float64]:
    """The values of the rows if only earlier frames are known."""
    if run.head.bidirectional:
        predict, length = head_predictor(run.head, run.compute), run.clip.length
        feature = recording.feature
        ends = range(rows.start, rows.stop)
        early = [predict(feature[None, : end + 1])[0, -1] for end in ends if end + 1 < length]
        whole = [end for end in ends if end + 1 >= length]
        later = [
            predict(torch.stack([feature[end + 1 - length : end + 1] for end in part]))[:, -1]
            for part in (whole[at : at + 64] for at in range(0, len(whole), 64))
        ]
        value = torch.cat([*(it[None] for it in early), *later]).float().cpu().numpy()
    else:
        carried = run.clip.model_copy(update={"carry": True})
        reader = track_reader(run.head, carried, run.compute)
        start = max(0, rows.start - 10 * run.clip.length)  # the state of earlier frames hardly counts
        value = np.concatenate((reader.push(recording.feature[start : rows.stop]), reader.finish()))[
            rows.start - start :
        ]
    seen = recording.evidence.seen[rows]
    return fill(value, seen, recording.evidence.time[rows], "hold")


def _picture_values(run: HeadRun, recording: Recording) -> NDArray[np.float64]:
    predict = head_predictor(run.head, run.compute)
    parts = [predict(rows[:, None])[:, 0].cpu().numpy() for rows in recording.feature.split(1024)]
    return np.concatenate(parts).astype(np.float64)


def _stretches(n: int) -> list[slice]:
    if n <= STRETCHES * STRETCH_ROWS:
        return [slice(0, n)]
    starts = np.linspace(0, n - STRETCH_ROWS, STRETCHES).astype(int).tolist()
    return [slice(start, start + STRETCH_ROWS) for start in starts]


def _rows_of(evidence: Evidence, rows: slice) -> Evidence:
    return Evidence(**{name: column[rows] for name, column in vars(evidence).items()})


def _part(recording: Recording, rows: slice) -> Recording:
    return replace(recording, target=recording.target[rows], valid=recording.valid[rows])


def _person(recording: Recording, evidence: Evidence, value: NDArray[np.float64], *, causal: bool) -> Person:
    covariate = covariates(evidence, value, causal=causal)
    rows = recording.valid & np.isfinite(value).all(1)
    return Person(np.abs(recording.target[rows].astype(np.float64) - value[rows]), covariate[rows])


def _joined(parts: list[Person]) -> Person:
    return Person(np.concatenate([it.residual for it in parts]), np.concatenate([it.covariate for it in parts]))


def cached_recordings(net: "AffectNet", paths: Mapping[str, "Path"], config: Config) -> Iterator[Recording]:
    """Recordings from feature shards that the encoder of `net` computed. paths: by subject. Raises ShardError."""
    for subject, path in paths.items():
        with Shard(path, FEATURES) as shard:
            feature, time, target, valid = (shard.read(name) for name in ("feature", "pts", "target", "valid"))
            whole = np.tile(np.eye(2, 3, dtype=np.float32), (len(time), 1, 1))  # if no face was located
            theta = shard.read("theta") if "theta" in shard.names else whole
            face = shard.read("presence") if "presence" in shard.names else np.ones(len(time), np.float32)
            height = int(shard.attributes.get("height", config.frames.size))
        yield _recording(net, config, subject, torch.from_numpy(feature), (theta, face, time, target, valid), height)


def frame_recordings(
    net: "AffectNet", tracks: Iterable["FrameTrack"], config: Config, compute: Compute
) -> Iterator[Recording]:
    """Recordings from raw frames. net: on the device, in eval mode."""
    for track in tracks:
        region = torch.tensor([track.region], device=compute.device)
        parts: list[tuple[Tensor, ...]] = []
        for at in range(0, len(track), config.features.batch):
            rows = np.arange(at, min(at + config.features.batch, len(track)))
            known = None if track.theta is None else torch.from_numpy(track.theta[rows]).to(compute.device)
            with torch.no_grad(), compute.autocast():
                found = net.encode(track.frames(rows).to(compute.device), region.expand(len(rows), 4), known)
            parts.append((found.feature.half().cpu(), found.theta.float().cpu(), found.presence.float().cpu()))
        feature, theta, face = (torch.cat(column) for column in zip(*parts, strict=True))
        arrays = (theta.numpy(), face.numpy(), track.time, track.target, track.valid)
        yield _recording(net, config, track.subject, feature, arrays, config.frames.size)


def _recording(
    net: "AffectNet",
    config: Config,
    subject: str,
    feature: Tensor,
    arrays: tuple[NDArray[Any], ...],
    height: int,
) -> Recording:
    """arrays: theta, presence, time, target and valid. height: of the video, in pixels."""
    theta, face, time, target, valid = arrays
    corners = corners_from_theta(torch.from_numpy(theta).float(), 1.0, 1.0).clamp(0, 1).numpy()
    pixels = (corners[:, 3] - corners[:, 1]) * min(height, config.frames.size)
    device = next(net.parameters()).device
    with torch.no_grad():
        doubt = [
            entropy(net.backbone.network.fc(rows.to(device, torch.float32)).softmax(1).cpu().numpy())
            for rows in feature.split(4096)
        ]
        deviation = [deviation_of(net.head, rows.to(device)).cpu().numpy() for rows in feature.split(4096)]
    evidence = Evidence(
        time.astype(np.float64), face, face >= config.predict.face_threshold, np.minimum(pixels, config.stn.crop),
        np.concatenate(doubt), np.concatenate(deviation),
    )  # fmt: skip
    return Recording(subject, cast("Tensor", feature), evidence, target, valid)
