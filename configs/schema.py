"""Every setting, its unit and its default, once.

A config is a YAML file with some of these keys; what it leaves out is the default here. `load` reads one by name
(`demo`, `affwild2`, `seed`) or path, applies `section.key=value` overrides, and names the nearest known key where
one is unknown. Defaults are those of the real set at full size; `demo.yaml` makes everything small.
"""

import difflib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..pipeline.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Frames(Section):
    size: int = Field(default=448, ge=32, le=1024)
    """Side in pixels of the stored square frame; the decoder resizes to it, the aspect ratio is not kept."""
    jpeg_quality: int = Field(default=95, ge=50, le=100)
    """JPEG quality of frame shards."""


class Stn(Section):
    localiser: Literal["stn", "box", "aligned", "none"] = "stn"
    """Where the crop comes from: the network, the box files, the provided 112 x 112 crops, or the whole picture."""
    kind: Literal["crop", "similarity", "affine"] = "crop"
    """What the transform may do: scale and shift; and roll; or all six parameters."""
    view: int = Field(default=96, ge=32, le=256, multiple_of=16)
    """Side in pixels of the low-resolution view the localiser looks at."""
    crop: int = Field(default=224, ge=32, le=512)
    """Side in pixels of the crop the backbone gets."""
    margin: float = Field(default=0.1, ge=0.0, le=1.0)
    """Context around the face box, as a fraction of its half side, that the crop takes in."""


class DetectBoxes(Section):
    gap_seconds: float = Field(default=1.0, ge=0)
    """Holes in a face's track up to this long are filled by straight lines."""


class PretrainStn(Section):
    start: str = "drawn"
    """Weights to start from: `drawn`, an STN that comes with affect and has seen 800 drawn people (with a view below 64
    or above 160 it is of no use, and `scratch` is taken); `scratch`; or a path of weights that this stage wrote."""
    frames: int = Field(default=20000, ge=16)
    """Training frames, drawn evenly over the subjects of the training split that have boxes. They are held in memory:
    0.26 MB each at a view of 96."""
    validation_frames: int = Field(default=2000, ge=1)
    """Validation frames, drawn likewise, on which the best epoch is chosen."""
    epochs: int = Field(default=20, ge=0)
    """0: the start as it is."""
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is measured and kept; 0: none."""


class Backbone(Section):
    weights: str = "work"
    """`work`: what the earlier stages left in WORK/weights (adapted, if adapt.epochs > 0); `scratch`: random, seeded;
    `imagenet`: torchvision's download; or the path of a .safetensors or of resnet50_ferplus_dag.pth."""


class PretrainBackbone(Section):
    start: str = "imagenet"
    """Weights to start from: `imagenet`, `scratch`, or a path."""
    size: int = Field(default=224, ge=32, le=512)
    """Side in pixels to which the 48 x 48 faces are resized."""
    labels: Literal["majority", "distribution"] = "distribution"
    epochs: int = Field(default=30, ge=0)
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target that is spread over all classes."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running average of the weights that is evaluated and kept; 0: none."""


class Adapt(Section):
    """Fine-tuning of the backbone on single frames of the training split, before features are cached."""

    epochs: int = Field(default=0, ge=0)
    """0: no adaptation, features come from the backbone as pretrained."""
    epochs_from_scratch: int | None = Field(default=None, ge=1)
    """Epochs where the backbone was not pretrained, which takes longer; none: as many as else."""
    frames: int = Field(default=40000, ge=16)
    """Training frames, drawn evenly over the subjects and over time. Their crops are held in memory, a fifth wider
    than stn.crop: 0.2 MB each at 224."""
    validation_frames: int = Field(default=2000, ge=2)
    """Validation frames, drawn likewise, by which the best epoch is chosen."""
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running average of the weights that is evaluated and kept; 0: none."""


class Features(Section):
    views: int = Field(default=1, ge=1, le=8)
    """Views of each frame to cache: the plain one, then flipped and jittered ones for training."""
    batch: int = Field(default=64, ge=1)
    """Frames through the network at once."""


class Clip(Section):
    length: int = Field(default=32, ge=1)
    """Frames in a clip."""
    hop: int = Field(default=16, ge=1)
    """Frames from one window to the next at evaluation and prediction; overlapping predictions are averaged."""
    carry: bool = False
    """At evaluation and prediction, carry the head's memory through the whole video and see each frame once, instead of
    averaging windows. For heads that look back only (head.bidirectional false)."""


class Head(Section):
    kind: Literal["lstm", "tcn"] = "lstm"
    """What looks along time: an LSTM, or temporal convolutions."""
    project: int = Field(default=256, ge=0)
    """Width of the dense layer before it; 0: none."""
    hidden: int = Field(default=256, ge=1)
    """Width of the LSTM, each direction, or of the convolutions."""
    layers: int = Field(default=1, ge=1)
    """Of the LSTM."""
    blocks: int = Field(default=4, ge=1, le=10)
    """Of the convolutions: each sees twice as far as the one before, all together 4 x (2^blocks - 1) frames: 60."""
    bidirectional: bool = True
    """Whether it looks ahead too; a stream needs one that looks back only."""
    dense: tuple[int, ...] = (128,)
    """Widths of the dense layers between it and the two outputs."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    readout: Literal["frame", "clip"] = "frame"
    """`frame`: two values a frame, the clip's is their mean; `clip`: two values a clip, given to each of its frames."""


class Train(Section):
    epochs: int = Field(default=30, ge=1)
    batch: int = Field(default=32, ge=1)
    """Windows in a batch, from cache."""
    batch_end_to_end: int = Field(default=2, ge=1)
    """Windows in a batch, from raw frames."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged for one step. The CCC is that of each batch: where memory allows, a larger
    batch is better."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the head."""
    started_rate: float = Field(default=0.1, gt=0)
    """Share of learning_rate for a head that was started from another run (--start)."""
    learning_rate_backbone: float = Field(default=1e-5, ge=0)
    """Of the backbone, end to end; 0 freezes it."""
    learning_rate_stn: float = Field(default=1e-5, ge=0)
    """Of the STN, end to end; 0 freezes it."""
    unfreeze_backbone: int = Field(default=1, ge=1)
    """End to end: the epoch, from 1, from which the backbone learns."""
    unfreeze_stn: int = Field(default=1, ge=1)
    """End to end: the epoch, from 1, from which the STN learns."""
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "one-cycle", "plateau", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    loss: Literal["ccc", "mse", "mae", "ccc+mse"] = "ccc+mse"
    valence_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of valence in the loss; arousal has the rest."""
    box_weight: float = Field(default=1.0, ge=0)
    """End to end: the pull of the STN towards the boxes, or where there are none towards its pretrained self."""
    gradient_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0: no clipping."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation CCC before training stops."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is evaluated and kept; 0: none."""
    balance: Literal["none", "subject", "plane"] = "none"
    """Training windows: as they come; as many of each subject; or the more of a kind, the rarer its place in the
    valence-arousal plane. Their number stays the same."""
    state_minutes: float = Field(default=10.0, gt=0)
    """How often, within an epoch, the state is kept from which a stopped training goes on. After an epoch it always
    is. It changes nothing else."""
    noise: float = Field(default=0.05, ge=0)
    """From cache: Gaussian noise on training features, as a share of their standard deviation; 0: none."""
    time_mask: float = Field(default=0.2, ge=0, lt=1)
    """From cache: longest span of a training window whose features are hidden, as a share of its length; 0: none."""
    speed: float = Field(default=0.0, ge=0, le=1)
    """From cache: a training window is played up to this much faster or slower, labels along (0.25: from 1/1.25 to 1.25
    times as fast); 0: as it is."""
    tensorboard: bool = False
    """Also writes TensorBoard's event files into the run's folder. Needs `pip install 'affect[tensorboard]'`."""


class Smooth(Section):
    """Smoothing of predictions in time. Training chooses the width on the validation split and stores it in the model,
    and chooses none where none is better."""

    kind: Literal["none", "median", "gaussian", "auto"] = "auto"
    """Which filter; auto: whichever of the two is better."""
    widths: tuple[Annotated[int, Field(ge=3, le=301)], ...] = (3, 5, 9, 15, 25)
    """Widths to choose from, in frames, odd. A Gaussian's deviation is a fourth of its width."""

    @field_validator("widths")
    @classmethod
    def _odd(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if even := [width for width in widths if width % 2 == 0]:
            raise ValueError(f"{even[0]} is even, a width has a middle frame")
        return widths


class Predict(Section):
    no_face: Literal["hold", "interpolate", "empty"] = "hold"
    """Values of frames without a face: the last ones seen, a line between the neighbours, or none."""
    face_threshold: float = Field(default=0.5, ge=0, le=1)
    """A frame whose face probability is below this has no face."""


class Report(Section):
    video_mib: float = Field(default=6.0, gt=0)
    """MiB of video in a page, all its videos together; the page is a third larger. Long ones get coarser, then cut."""


class Runtime(Section):
    seed: int = 0
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`. A device that is asked for and missing is an error."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the network's arithmetic; auto: bf16 where the hardware computes in it, else fp32."""
    workers: int = Field(default=-1, ge=-1)
    """Dask worker processes; 0: none, everything in this process; -1: one for every two cores, to extract frames one
    for every core, to cache features one for each GPU where there are any."""
    decode_seconds: float = Field(default=60.0, gt=0)
    """A decoder that gives no frame for this long is killed, and the video recorded as failed."""


class Config(Section):
    """The whole of it. `name` is only for the reader."""

    name: str = "default"
    frames: Frames = Frames()
    stn: Stn = Stn()
    detect_boxes: DetectBoxes = DetectBoxes()
    pretrain_stn: PretrainStn = PretrainStn()
    backbone: Backbone = Backbone()
    pretrain_backbone: PretrainBackbone = PretrainBackbone()
    adapt: Adapt = Adapt()
    features: Features = Features()
    clip: Clip = Clip()
    head: Head = Head()
    train: Train = Train()
    smooth: Smooth = Smooth()
    predict: Predict = Predict()
    report: Report = Report()
    runtime: Runtime = Runtime()


HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The shipped configs."""
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config by shipped name or by path, with `section.key=value` overrides. Raises ConfigError."""
    path = HERE / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        near = difflib.get_close_matches(name_or_path, names(), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(names())}, or the path of a YAML file."
        raise ConfigError(f"config {name_or_path!r} does not exist", hint)
    try:
        values = _parse(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}", "Mend the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, expected sections", "See configs/demo.yaml.")
    values.setdefault("name", path.stem)
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        given = {override.partition("=")[0].strip() for override in overrides}
        raise _explain(error, str(path), given) from error


def dump(config: Config) -> str:
    """The whole config as YAML, in the order of the schema; `load` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parse(text: str) -> Any:
    """Plain values. Aliases are refused, because a few lines of them can stand for more than fits into memory."""
    if text.count("[") + text.count("{") > 1000:
        raise yaml.YAMLError("it is nested without end, expected sections of plain values")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise yaml.YAMLError("it refers to a part of itself by an alias (*name), expected plain values")
    return yaml.safe_load(text)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or not name:
        raise ConfigError(f"--set {override!r} is not section.key=value", "For example: --set train.epochs=5")
    inner = values.setdefault(section, {})
    if not isinstance(inner, dict):
        raise ConfigError(f"--set {override!r}: {section} has no keys", f"Known: {', '.join(_known(()))}")
    try:
        inner[name] = _parse(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML", "Quote it.") from error


def _known(where: tuple[str, ...]) -> list[str]:
    fields = Config.model_fields
    if where:
        annotation = fields[where[0]].annotation
        return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, Section) else []
    return list(fields)


def _explain(error: ValidationError, source: str, overridden: Set[str]) -> ConfigError:
    first = error.errors()[0]
    where = tuple(str(part) for part in first["loc"])
    key = ".".join(where)
    if any(name == key or f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.") for name in overridden):
        source = "--set"
    if first["type"] == "extra_forbidden":
        known = _known(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1)
        prefix = "".join(f"{part}." for part in where[:-1])
        hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known: {', '.join(prefix + name for name in known)}."
        return ConfigError(f"{source}: unknown setting {key}", hint)
    hint = "`affect config show` prints the settings."
    if first["type"] == "literal_error":
        allowed = [str(choice) for choice in _choices(where)]
        near = difflib.get_close_matches(str(first["input"]), allowed, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Allowed: {', '.join(allowed)}."
    return ConfigError(f"{source}: {key} is {first['input']!r}: {first['msg']}", hint)


def _choices(where: tuple[str, ...]) -> tuple[Any, ...]:
    """What a Literal setting may be."""
    section = Config.model_fields[where[0]].annotation
    if len(where) < 2 or not (isinstance(section, type) and issubclass(section, Section)):
        return ()
    return get_args(section.model_fields[where[1]].annotation)
