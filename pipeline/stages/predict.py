"""predict: valence and arousal of any video, a row per frame, a row per clip, and a picture of both."""

import glob
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...configs.schema import Config
from ..errors import InputError, MissingStageError, VideoError, WeightsError, WorkError
from ..ingest.catalog import VIDEO_SUFFIXES
from ..ingest.video import Decoding, decoded
from ..learning.model_file import model_path, read_model_metadata
from ..progress import Talk
from ..records import Problem, StageReport
from ..storage.fingerprint import fingerprint, source_digest
from .plots import draw_video
from .prediction import Prediction, clip_table, fill, frame_table, summary
from .runs import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.affect_net import AffectNet

STAGE = "predict"
VERSION = 1
SUFFIXES = (".csv", ".clips.csv", ".png", ".facts.json")
"""Of what a video leaves, in the order of writing: the last says that all are there, and what they were made from."""
EMOTIONS = 8
REMEDY = "Name a run folder, W/train/NAME; `affect train --data D --work W` makes one."


def predict(
    config: Config, videos: Sequence[Path], model: Path, out: Path, talk: Talk, *, emotions: bool = False
) -> StageReport:
    """Writes <video>.csv, <video>.clips.csv, <video>.png and <video>.facts.json into `out` for each video.

    videos: files, folders (all videos below them) or glob patterns. model: a run folder or its model file; it says how
    large the frames and how long the clips are, the config says the rest. emotions: adds the backbone's eight classes.
    A video that cannot be read is in `failed`. Raises MissingStageError, WeightsError, DeviceError, WorkError.
    """
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", REMEDY)
    metadata = read_model_metadata(model)
    its_config = Config.model_validate(metadata["config"])
    classes = tuple(metadata["backbone"]["classes"]) if emotions else ()
    if emotions and len(classes) != EMOTIONS:
        raise WeightsError(
            f"{model}: its backbone knows {len(classes)} classes, expected {EMOTIONS} emotions",
            "Leave out emotions, or train on a backbone of `affect pretrain backbone`.",
        )
    if its_config.stn.localiser in ("box", "aligned"):
        talk.warn(
            f"{model} was trained with stn.localiser {its_config.stn.localiser} and cannot find faces by itself: "
            "it looks at the whole picture, and will be the poorer for it"
        )
    files, failed = find_videos(videos)
    made, kept, facts = [], [], {}
    network: _Network | None = None
    for number, (name, path) in enumerate(output_names(files, out), 1):
        try:
            key = fingerprint(
                version=VERSION, model=metadata["fingerprint"], source=source_digest(path), predict=config.predict,
                hop=config.clip.hop, carry=config.clip.carry, precision=config.runtime.precision, emotions=emotions,
            )  # fmt: skip
            found = _kept(out, name, key)
            if found is None:
                network = network or _Network(config, its_config, model, classes)
                began = time.perf_counter()
                prediction = network.predict(path, name, talk)
                rate = len(prediction) / (time.perf_counter() - began)
                found = _write(config, metadata["clip"]["length"], classes, prediction, out, name)
                found["frames_per_second"] = round(rate, 2)
                told = {"fingerprint": key, "source": str(path.resolve()), "facts": found}
                _write_file(out / f"{name}{SUFFIXES[-1]}", json.dumps(told, indent=1) + "\n")
                talk.say(f"{STAGE} {number}/{len(files)}  {name}: {len(prediction)} frames, {rate:,.1f} frames/s")
                made.append(name)
            else:
                kept.append(name)
            _remark(name, found, talk)
            facts[name] = found
        except InputError as error:
            failed.append(Problem("damaged", name, error.problem, error.remedy))
            _forget(out, name)
    return StageReport(STAGE, out, tuple(made), tuple(kept), tuple(failed), facts)


def find_videos(named: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The videos that files, folders and glob patterns stand for, each once, and what stands for none."""
    files: dict[Path, Path] = {}
    problems: list[Problem] = []
    for path in named:
        if path.is_file():
            found, message = [path], ""
        elif path.is_dir():
            below = (file for file in path.rglob("*") if not _hidden(file.relative_to(path)))
            found, message = sorted(_videos(below)), "a folder without a video"
        else:
            # Path.glob takes no absolute pattern.
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
            found = list(_videos(matches))
            message = "no video matches" if glob.has_magic(str(path)) else "there is no such file"
        for file in found:
            files.setdefault(file.resolve(), file)
        if not found:
            known = ", ".join(sorted(VIDEO_SUFFIXES))
            problems.append(Problem("missing", str(path), message, f"Name a video, or a folder of {known}."))
    return list(files.values()), problems


def output_names(files: Sequence[Path], out: Path | None = None) -> list[tuple[str, Path]]:
    """A name for what each video leaves: its stem, or <stem>-2, -3, … where another video's would be overwritten.

    A video keeps the name that it has in `out` from an earlier time, in whatever order videos are given; names there of
    other videos that still exist are taken. Upper and lower case count as the same, as to some file systems they are.
    """
    before = _sources(out) if out else {}
    known = {source: name for name, source in before.items()}
    taken = {_key(name) for name, source in before.items() if source.exists()}
    named: dict[Path, str] = {}
    for path in files:
        if path.resolve() in known:
            named[path] = known[path.resolve()]
    taken |= {_key(name) for name in named.values()}
    for path in files:
        name, count = named.get(path, path.stem), 1
        while path not in named and any(_clash(name, key) for key in taken):
            count += 1
            name = f"{path.stem}-{count}"
        taken.add(_key(name))
        named[path] = name
    return [(named[path], path) for path in files]


def _key(name: str) -> str:
    return name.casefold()


def _clash(name: str, key: str) -> bool:
    """Whether two different names would write one file: `x` and `x.clips` both write x.clips.csv."""
    return bool({f"{_key(name)}{it}" for it in SUFFIXES} & {f"{key}{it}" for it in SUFFIXES})


def _sources(out: Path) -> dict[str, Path]:
    """Which video each name in `out` stands for, as far as its facts say so."""
    found = {}
    for path in sorted(out.glob(f"*{SUFFIXES[-1]}")):
        try:
            found[path.name.removesuffix(SUFFIXES[-1])] = Path(json.loads(path.read_text(encoding="utf-8"))["source"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


class _Network:
    """The model on its device, loaded once for all videos."""

    def __init__(self, config: Config, its_config: Config, model: Path, classes: tuple[str, ...]) -> None:
        from ..learning.model_file import load_model
        from ..learning.runtime import pick_device, pick_dtype

        self.config, self.size, self.classes = config, its_config.frames.size, classes
        self.device = pick_device(config.runtime.device)
        self.dtype = pick_dtype(config.runtime.precision, self.device)
        self.finds = its_config.stn.localiser == "stn"
        net, metadata = load_model(model)
        self.net: AffectNet = net.to(self.device)
        self.clip: int = metadata["clip"]["length"]

    def predict(self, path: Path, name: str, talk: Talk) -> Prediction:
        """Raises VideoError."""
        options = {"batch": self.config.features.batch, "deadline": self.config.runtime.decode_seconds}
        return decoded(path, self.size, lambda decoding: self._watch(decoding, name, talk), **options)

    def _watch(self, decoding: Decoding, name: str, talk: Talk) -> Prediction:
        """Batch by batch: of each frame only numbers are kept."""
        from ..learning.windows import track_reader

        clip = self.config.clip
        reader = track_reader(
            self.net.head, self.clip, clip.hop, carry=clip.carry, device=self.device, dtype=self.dtype
        )
        index, times, face, box, emotion = [], [], [], [], []
        values: list[NDArray[np.float32]] = []
        with talk.track(f"{STAGE} {name}", decoding.facts.frames, "frames") as tracker:
            for batch in decoding:
                feature, *rest = self._look(batch.pixels, decoding.facts.width, decoding.facts.height)
                values.append(reader.push(feature))
                for kept, found in zip((face, box, emotion), rest, strict=True):
                    kept.append(found.float().cpu().numpy())
                index.append(batch.index)
                times.append(batch.time)
                tracker.advance(len(batch))
        if not index:
            raise VideoError(f"{decoding.path}: holds no frame", "Record it again, or leave it out.")
        values.append(reader.finish())
        value = np.concatenate((np.concatenate(values), np.concatenate(emotion)), 1)
        numbers, seconds, faces, boxes = (np.concatenate(parts) for parts in (index, times, face, box))
        return Prediction(numbers, seconds, faces, value, boxes, len(decoding.lost))

    def _look(self, pixels: NDArray[np.uint8], width: int, height: int) -> "tuple[Tensor, ...]":
        """(feature [n, 2048], face [n], box [n, 4], emotions [n, e]) of pixels uint8 [n, s, s, 3]."""
        import torch

        from ...models.theta import corners_from_theta
        from ..learning.runtime import autocast

        frames = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)  # uint8 [n, 3, s, s], RGB
        # An STN that was never trained says nothing of faces; the features were made from the whole picture.
        theta = None if self.finds else self.net.stn.whole(len(frames))
        with torch.no_grad(), autocast(self.device, self.dtype):
            seen = self.net.encode(frames, theta=theta)
        shown = seen.theta if self.finds else seen.theta * (1 + self.net.stn.margin)
        corners = corners_from_theta(shown.float(), width, height)
        box = torch.minimum(corners.clamp(min=0), corners.new_tensor([width, height, width, height]))
        emotions = seen.logits.float().softmax(1)[:, : len(self.classes)]
        return seen.feature.float(), seen.presence, box, emotions


def _write(
    config: Config, length: int, classes: tuple[str, ...], prediction: Prediction, out: Path, name: str
) -> dict[str, Any]:
    """The tables and the picture of one video; returns its facts."""
    seen = prediction.face >= config.predict.face_threshold
    (out / f"{name}{SUFFIXES[-1]}").unlink(missing_ok=True)  # else an interruption here would go unnoticed
    value = fill(prediction.value, seen, prediction.time, config.predict.no_face)
    _write_file(out / f"{name}.csv", frame_table(prediction, value, classes))
    _write_file(out / f"{name}.clips.csv", clip_table(prediction, value, length))
    try:
        draw_video(out / f"{name}.png", name, prediction.time, value[:, :2], seen)
    except OSError as error:
        raise WorkError(f"{out / name}.png: cannot be written ({error.strerror})", "Choose another --out.") from error
    return summary(prediction, value, seen)


def _remark(name: str, facts: dict[str, Any], talk: Talk) -> None:
    if not facts["face_share"]:
        talk.warn(f"{name}: no face in any frame, so there are no values. Lower predict.face_threshold to have some.")
    if facts["lost"]:
        talk.warn(f"{name}: {facts['lost']} frames cannot be decoded and have no row")


def _kept(out: Path, name: str, key: str) -> dict[str, Any] | None:
    """The facts of a video whose files are all there and made from the same."""
    if not all((out / f"{name}{suffix}").is_file() for suffix in SUFFIXES):
        return None
    try:
        found = json.loads((out / f"{name}.facts.json").read_text(encoding="utf-8"))
        return found["facts"] if found["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget(out: Path, name: str) -> None:
    """Removes what an earlier run left of a video that cannot be read now. Without our mark, nothing is ours."""
    if (out / f"{name}{SUFFIXES[-1]}").is_file():
        for suffix in SUFFIXES:
            (out / f"{name}{suffix}").unlink(missing_ok=True)


def _write_file(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except WorkError as error:
        raise WorkError(error.problem, "Free space, or choose another --out.") from error


def _videos(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
