"""All settings, with their units, ranges and defaults.

A config is a YAML file with some of these keys; the others have the default given here. `load` reads a config by name
(`demo`, `affwild2`, `base`, `seed`) or by path and applies `section.key=value` overrides. For an unknown key it
suggests the nearest known one. The defaults are for Aff-Wild2 at full size; `demo.yaml` makes everything small.
"""

import difflib
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..pipeline.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Frames(Section):
    size: int = Field(default=448, ge=32, le=1024)
    """Side of the stored square frames, in pixels. The aspect ratio of the video is not kept."""
    jpeg_quality: int = Field(default=95, ge=50, le=100)
    """JPEG quality of the stored frames."""


class Stn(Section):
    localiser: Literal["stn", "box", "aligned", "none"] = "stn"
    """What the face crop is taken from: `stn` the network, `box` the box files, `aligned` the 112 x 112 crops of the
    data set, `none` the whole picture."""
    kind: Literal["crop", "similarity", "affine"] = "crop"
    """Parameters of the transform: `crop` has scale and shift, `similarity` also rotation, `affine` all six."""
    view: int = Field(default=96, ge=32, le=256, multiple_of=16)
    """Side of the low-resolution input of the localiser, in pixels."""
    crop: int = Field(default=224, ge=32, le=512)
    """Side of the crop that the backbone gets, in pixels."""
    margin: float = Field(default=0.1, ge=0.0, le=1.0)
    """Context around the face box in the crop, as a share of half the side of the box."""


class DetectBoxes(Section):
    gap_seconds: float = Field(default=1.0, ge=0)
    """Gaps in a face track up to this length are filled by linear interpolation."""


class PretrainStn(Section):
    start: str = "drawn"
    """Initial weights: `base`, the STN of the base model, trained on real people; `drawn`, an STN that was trained on
    800 synthetic people (if stn.view is below 64 or above 160, `scratch` is used instead); `scratch`, random; or the
    path of weights that this stage wrote."""
    frames: int = Field(default=20000, ge=16)
    """Number of training frames, sampled evenly from the training subjects that have boxes. They are kept in memory:
    0.26 MB each if stn.view is 96."""
    validation_frames: int = Field(default=2000, ge=1)
    """Number of validation frames, sampled in the same way. The best epoch is chosen on them."""
    pictures: tuple[str, ...] = ()
    """Folders of pictures with a `boxes.csv` (docs/formats.md), relative to the current folder: `[faces, more]`. The
    STN learns from them and from the frames. A tenth of their people is for validation. They are kept in memory as
    files; longer sides than 512 pixels are reduced."""
    epochs: int = Field(default=20, ge=0)
    """0: the initial weights are kept as they are."""
    batch: int = Field(default=64, ge=1)
    """Frames per batch."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0: no average."""


class Backbone(Section):
    weights: str = "work"
    """`work`: the weights of the earlier stages in WORK/weights (the adapted ones if adapt.epochs > 0); `scratch`:
    random; `imagenet`: downloaded by torchvision; `base`: those of the base model; or the path of a .safetensors file
    or of resnet50_ferplus_dag.pth."""


class PretrainBackbone(Section):
    start: str = "imagenet"
    """Initial weights: `imagenet`, `scratch`, `base` (those of the base model), or a path."""
    size: int = Field(default=224, ge=32, le=512)
    """Side to which the 48 x 48 faces are resized, in pixels."""
    labels: Literal["majority", "distribution"] = "distribution"
    """Target of a face: the class with the most votes, or the distribution of all votes."""
    epochs: int = Field(default=30, ge=0)
    """Number of epochs."""
    batch: int = Field(default=64, ge=1)
    """Faces per batch."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Weight decay."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of each target that is spread evenly over all classes."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0: no average."""


class Adapt(Section):
    """Fine-tuning of the backbone on single frames of the training split, before the features are cached."""

    epochs: int = Field(default=0, ge=0)
    """0: no adaptation; the features come from the pretrained backbone."""
    epochs_from_scratch: int | None = Field(default=None, ge=1)
    """Number of epochs if the backbone was not pretrained; null: the same as adapt.epochs."""
    frames: int = Field(default=40000, ge=16)
    """Number of training frames, sampled evenly over the subjects and over time. Their crops are kept in memory, a
    fifth wider than stn.crop: 0.2 MB each at 224."""
    validation_frames: int = Field(default=2000, ge=2)
    """Number of validation frames, sampled in the same way. The best epoch is chosen on them."""
    batch: int = Field(default=64, ge=2)
    """Frames per batch."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Weight decay."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout before the output layer."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0: no average."""


class Features(Section):
    views: int = Field(default=1, ge=1, le=8)
    """Number of views of each frame to cache. The first is the frame itself; the others are flipped and jittered, for
    training."""
    batch: int = Field(default=64, ge=1)
    """Frames per batch of the networks."""
    fps: float | None = Field(default=None, ge=1)
    """How many frames per second of a video the networks see. The features of the frames between are interpolated, and
    more frames are used where the picture changes. null: all frames."""


class Clip(Section):
    length: int = Field(default=32, ge=1)
    """Frames per clip."""
    hop: int = Field(default=16, ge=1)
    """Frames between the starts of two windows in evaluation and prediction. Overlapping predictions are averaged."""
    carry: bool = False
    """In evaluation and prediction, run the head once over the whole video and keep its state, instead of averaging
    windows. Needs head.bidirectional=false."""


class Head(Section):
    kind: Literal["lstm", "tcn"] = "lstm"
    """Temporal layers: an LSTM, or temporal convolutions."""
    project: int = Field(default=256, ge=0)
    """Width of the dense layer before the temporal layers; 0: no such layer."""
    hidden: int = Field(default=256, ge=1)
    """Width of the LSTM in each direction, or of the convolutions."""
    layers: int = Field(default=1, ge=1)
    """Number of LSTM layers."""
    blocks: int = Field(default=4, ge=1, le=10)
    """Number of convolution blocks. The receptive field doubles with each; it is 4 x (2^blocks - 1) frames, 60 for 4
    blocks."""
    bidirectional: bool = True
    """Whether the head also uses later frames. For streams, set it to false."""
    dense: tuple[int, ...] = (128,)
    """Widths of the dense layers after the temporal layers."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout between the layers."""
    readout: Literal["frame", "clip"] = "frame"
    """`frame`: two values per frame, and the values of a clip are their mean; `clip`: two values per clip, used for
    each of its frames."""


class Train(Section):
    epochs: int = Field(default=30, ge=1)
    """Maximum number of epochs."""
    batch: int = Field(default=32, ge=1)
    """Windows per batch, for training from cache."""
    batch_end_to_end: int = Field(default=2, ge=1)
    """Windows per batch, for training end to end."""
    accumulate: int = Field(default=1, ge=1)
    """Number of batches whose gradients are averaged for one step. The loss computes the CCC of each batch, so a larger
    batch is better if memory allows it."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of the head."""
    started_rate: float = Field(default=0.1, gt=0)
    """Factor on learning_rate for a head that starts from another run (--start)."""
    learning_rate_backbone: float = Field(default=1e-5, ge=0)
    """End to end: learning rate of the backbone; 0 freezes it."""
    learning_rate_stn: float = Field(default=1e-5, ge=0)
    """End to end: learning rate of the STN; 0 freezes it."""
    unfreeze_backbone: int = Field(default=1, ge=1)
    """End to end: the first epoch in which the backbone is trained, counted from 1."""
    unfreeze_stn: int = Field(default=1, ge=1)
    """End to end: the first epoch in which the STN is trained, counted from 1."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay."""
    schedule: Literal["cosine", "one-cycle", "plateau", "constant"] = "cosine"
    """How the learning rate changes during the training."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps in which the learning rate rises."""
    loss: Literal["ccc", "mse", "mae", "ccc+mse"] = "ccc+mse"
    """Loss: 1 - CCC, the mean squared or absolute error, or the sum of the first two."""
    valence_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of valence in the loss. The weight of arousal is 1 minus this."""
    box_weight: float = Field(default=1.0, ge=0)
    """End to end: weight of the loss that keeps the STN near the boxes, or near its pretrained output for subjects
    without boxes."""
    gradient_clip: float = Field(default=1.0, ge=0)
    """Maximum norm of the gradient; 0: no clipping."""
    patience: int = Field(default=10, ge=1)
    """Early stopping: number of epochs without a better validation CCC."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0: no average."""
    balance: Literal["none", "subject", "plane"] = "none"
    """Sampling of training windows. `none`: each window once; `subject`: equally many from each subject; `plane`: more
    from rare regions of the valence-arousal plane. The number of windows is the same."""
    state_minutes: float = Field(default=10.0, gt=0)
    """Minutes between two saves of the training state within an epoch. It is also saved after each epoch. An
    interrupted training continues from it. No influence on the result."""
    noise: float = Field(default=0.05, ge=0)
    """From cache: Gaussian noise on the training features, as a share of their standard deviation; 0: no noise."""
    time_mask: float = Field(default=0.2, ge=0, lt=1)
    """From cache: maximum length of the masked span in a training window, as a share of the window; 0: no mask."""
    speed: float = Field(default=0.0, ge=0, le=1)
    """From cache: maximum change of the speed of a training window and its labels (0.25: from 1/1.25 to 1.25 times as
    fast); 0: no change."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the folder of the run. Needs `pip install -e '.[tensorboard]'`."""


class Smooth(Section):
    """Smoothing of predictions over time. Training chooses the best width, or no smoothing, on the validation split and
    stores it in the model."""

    kind: Literal["none", "median", "gaussian", "auto"] = "auto"
    """Filter; auto: the better of median and gaussian."""
    widths: tuple[Annotated[int, Field(ge=3, le=301)], ...] = (3, 5, 9, 15, 25)
    """Widths to choose from: odd numbers of frames. The standard deviation of a Gaussian is a quarter of its width."""

    @field_validator("widths")
    @classmethod
    def _odd(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if even := [width for width in widths if width % 2 == 0]:
            raise ValueError(f"{even[0]} is even, and a width must be odd")
        return widths


class Predict(Section):
    no_face: Literal["hold", "interpolate", "empty"] = "hold"
    """Values of frames without a face: `hold` the last values with a face, `interpolate` linearly between the
    neighbours, or `empty`."""
    face_threshold: float = Field(default=0.5, ge=0, le=1)
    """A frame with a lower face probability counts as having no face; also in `detect-boxes`, except with YuNet."""
    level: float = Field(default=0.9, ge=0.5, le=0.99)
    """Share of the frames of new people whose annotation should lie in the interval `valence_low` to `valence_high`,
    and likewise for arousal. Only for models with calibrated intervals."""
    fps: float | None = Field(default=None, ge=1)
    """How many frames per second of a video the networks see in `predict` and `app`. The values of the frames between
    are interpolated, and more frames are used where the picture changes. null: all frames."""


class Report(Section):
    video_mib: float = Field(default=6.0, gt=0)
    """Maximum size of all videos of a page together, in MiB; the page is a third larger. Long videos get a lower
    resolution, and are then cut."""


class Runtime(Section):
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`. A device that does not exist is an error."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the networks; auto: bf16 if the hardware computes in bf16, otherwise fp32."""
    workers: int = Field(default=-1, ge=-1)
    """Number of Dask worker processes; 0: none, all work in this process; -1: one per two cores, one per core to
    extract frames, and one per GPU to cache features on GPUs."""
    decode_seconds: float = Field(default=60.0, gt=0)
    """A decoder that returns no frame for this time is stopped, and the video is listed as failed."""


class Config(Section):
    """All settings. `name` has no effect."""

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
    """Names of the shipped configs."""
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config by name or by path, and applies `section.key=value` overrides. Raises ConfigError."""
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
        raise ConfigError(
            f"{path}: not valid YAML: {' '.join(str(error).split())}", "Correct the file, or give another --config."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: contains a {type(values).__name__}, expected sections", "For example: train: {epochs: 5}"
        )
    values.setdefault("name", path.stem)
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        given = {override.partition("=")[0].strip() for override in overrides}
        raise _explain(error, str(path), given) from error


def dump(config: Config) -> str:
    """All settings as YAML, in the order of the schema. `load` reads them back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parse(text: str) -> Any:
    """Reads YAML of plain values. Aliases are refused, because a few lines of them can expand to more than fits into
    memory."""
    if text.count("[") + text.count("{") > 1000:
        raise yaml.YAMLError("it is nested too deeply, expected sections of plain values")
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise yaml.YAMLError("it has an alias (*name), expected plain values")
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
        raise ConfigError(f"--set {override!r}: the value is not valid YAML", "Put the value in quotes.") from error


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
    """The allowed values of a Literal setting."""
    section = Config.model_fields[where[0]].annotation
    if len(where) < 2 or not (isinstance(section, type) and issubclass(section, Section)):
        return ()
    return get_args(section.model_fields[where[1]].annotation)
