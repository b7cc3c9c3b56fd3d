"""The encoder: which STN and backbone to use, their digest, and how to build them. Planning needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...configs.schema import Config
from ..errors import MissingStageError, WeightsError
from ..records import BASE, BASE_MODEL, MODEL_FORMAT, Work
from ..storage.checkpoint import load_weights, read_metadata
from ..storage.fingerprint import content_digest, fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.backbone import Backbone
    from ...models.stn import SpatialTransformer

BACKBONE_FORMAT = "affect-backbone"
STN_FORMAT = "affect-stn"
IMAGENET = "imagenet"
SCRATCH = "scratch"
FORMATS = {"backbone": BACKBONE_FORMAT, "stn": STN_FORMAT}


@dataclass(frozen=True)
class EncoderPlan:
    """The networks that turn frames into features.

    stn: weights file; None if the crops do not come from an STN. backbone: weights file, `scratch` or `imagenet`.
    digest: of the content of the weights and of all settings that affect the features.
    """

    stn: Path | None
    backbone: Path | str
    digest: str
    warnings: tuple[str, ...] = ()


def plan_encoder(config: Config, work: Work) -> EncoderPlan:
    """The encoder that computes the cached features. Raises MissingStageError if an earlier stage has not run."""
    stn = plan_stn(config, work)
    backbone, warnings = _plan_backbone(config, work)
    if stn is None and config.stn.localiser == "stn":
        warnings += (f"{work.weights('stn')} is missing: each crop is the whole picture.",)
    return EncoderPlan(stn, backbone, _digest(config, stn, backbone), warnings)


def plan_start(config: Config, work: Work) -> EncoderPlan:
    """The encoder that `adapt` starts from: not adapted, and random if nothing is pretrained."""
    stn = plan_stn(config, work)
    if config.backbone.weights != "work":
        backbone: Path | str = _named_weights(config)
        return EncoderPlan(stn, backbone, _digest(config, stn, backbone))
    pretrained = work.weights("backbone")
    if pretrained.is_file():
        return EncoderPlan(stn, pretrained, _digest(config, stn, pretrained))
    warning = (
        f"{pretrained} is missing: adaptation starts from random weights, so the result will be worse. "
        "Run `affect pretrain backbone`, or set backbone.weights to imagenet or a path."
    )
    return EncoderPlan(stn, SCRATCH, _digest(config, stn, SCRATCH), (warning,))


def plan_stn(config: Config, work: Work) -> Path | None:
    """The STN's weights; None if stn.localiser uses another source of crops.

    Also None if there are no weights and the backbone is random too. Then every crop is the whole picture, and the
    pipeline can be tried without any training. Raises MissingStageError.
    """
    if config.stn.localiser != "stn":
        return None
    path = work.weights("stn")
    if not path.is_file() and config.backbone.weights == SCRATCH:
        return None
    if not path.is_file():
        raise MissingStageError(
            f"{path} is missing",
            "Run `affect pretrain stn` (before it `affect detect-boxes` if the data has no boxes), "
            "or set stn.localiser to box, aligned or none.",
        )
    return path


def build_encoder(config: Config, plan: EncoderPlan) -> tuple["SpatialTransformer", "Backbone"]:
    """Builds the networks of the plan, on the CPU, in eval mode. Raises WeightsError."""
    stn = build_stn(config, plan.stn).eval()
    backbone = build_backbone(plan.backbone, config.runtime.seed).eval()
    return stn, backbone


def build_backbone(weights: Path | str, seed: int) -> "Backbone":
    """Builds a backbone. weights: `scratch`, `imagenet`, resnet50_ferplus_dag.pth, or a .safetensors file of affect: a
    backbone or a whole model.

    Raises WeightsError.
    """
    from ...models import backbone as models

    if weights == SCRATCH:
        return models.scratch("torchvision", seed)
    if weights == IMAGENET:
        return models.load_imagenet()
    path = Path(weights)
    if path.suffix != ".safetensors":
        return models.load_ferplus_dag(path)
    state, metadata = load_part(path, "backbone")
    backbone = models.from_metadata(metadata["backbone"])
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: {_brief(error)}", "Remove the file and run its stage again.") from error
    return backbone


def load_part(path: Path, part: Literal["backbone", "stn"]) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The weights and the metadata of an STN or a backbone, from its own file or from the file of a whole model.

    Raises WeightsError.
    """
    state, metadata = load_weights(path)
    if metadata.get("format") == MODEL_FORMAT:
        prefix = f"{part}."
        return {name.removeprefix(prefix): it for name, it in state.items() if name.startswith(prefix)}, metadata
    check_format(path, metadata, FORMATS[part])
    return state, metadata


def named_file(name: str) -> Path:
    """The path of a weights file that a setting names; `base` is the base model."""
    return BASE_MODEL if name == BASE else Path(name).expanduser()


def named_backbone(setting: str, name: str, allowed: str) -> Path | str:
    """The weights file of a backbone that a setting names, `scratch` or `imagenet`. allowed: the values of the setting,
    for the remedy. Raises WeightsError if the file does not exist."""
    if name in (SCRATCH, IMAGENET):
        return name
    path = named_file(name)
    if not path.is_file():
        raise WeightsError(f"{setting} is {name!r}, which does not exist", f"Use {allowed}.")
    return path


def check_format(path: Path, metadata: dict[str, object], expected: str) -> None:
    """Raises WeightsError if the file has another format."""
    found = metadata.get("format")
    if found != expected:
        raise WeightsError(f"{path}: has the format {found!r}, expected {expected!r}", "Give a file that affect wrote.")


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a weights file; None if the file is missing or damaged, so that the stage runs again."""
    try:
        return read_metadata(path).get("fingerprint")
    except (WeightsError, OSError):
        return None


def requested_precision(config: Config) -> dict[str, str]:
    """The precision as an entry for the fingerprint of weights. `auto` adds no entry, so that another machine with
    another precision finds the weights up to date; the weights' environment records the precision."""
    precision = config.runtime.precision
    return {} if precision == "auto" else {"precision": precision}


def weights_digest(weights: Path | str) -> str:
    """The digest of a weights file, or `scratch` or `imagenet`."""
    return content_digest(weights) if isinstance(weights, Path) else weights


def stn_digest(config: Config, work: Work) -> str:
    """The digest of all that determines the crops: weights and settings of the STN."""
    stn = plan_stn(config, work)
    return fingerprint(weights=weights_digest(stn) if stn else None, settings=config.stn.model_dump(mode="json"))


def build_stn(config: Config, path: Path | None) -> "SpatialTransformer":
    from ...models.stn import FEW_CANDIDATES, SpatialTransformer

    shape = config.stn.model_dump(include={"kind", "view", "crop", "margin"})
    if path is None:
        stn = SpatialTransformer(**shape)
        stn.reset_to_whole_picture()
        return stn
    state, metadata = load_part(path, "stn")
    trained = metadata["stn"]
    for key in ("kind", "view"):
        if trained[key] != shape[key]:
            raise WeightsError(
                f"{path}: trained with stn.{key} {trained[key]}, but the config has {shape[key]}",
                "Run `affect pretrain stn` again.",
            )
    stn = SpatialTransformer(**shape, candidates=trained.get("candidates", FEW_CANDIDATES))
    try:
        stn.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: {_brief(error)}", "Run `affect pretrain stn` again.") from error
    return stn


def _plan_backbone(config: Config, work: Work) -> tuple[Path | str, tuple[str, ...]]:
    if config.backbone.weights == SCRATCH and config.adapt.epochs == 0:
        return SCRATCH, ("backbone.weights is scratch: a random backbone computes the features.",)
    if config.adapt.epochs > 0:
        adapted = work.weights("adapted")
        if not adapted.is_file():
            raise MissingStageError(f"{adapted} is missing", "Run `affect adapt`, or set adapt.epochs to 0.")
        if read_metadata(adapted).get("stn_digest") != stn_digest(config, work):
            return adapted, (f"{adapted} was trained on the crops of another STN. Run `affect adapt` again.",)
        return adapted, ()
    if config.backbone.weights != "work":
        return _named_weights(config), ()
    pretrained = work.weights("backbone")
    if not pretrained.is_file():
        raise MissingStageError(
            f"{pretrained} is missing",
            "Run `affect pretrain backbone --ferplus DIR`, or set backbone.weights to imagenet or a path.",
        )
    return pretrained, ()


def _named_weights(config: Config) -> Path | str:
    return named_backbone("backbone.weights", config.backbone.weights, "work, imagenet, scratch, base or a path")


def _digest(config: Config, stn: Path | None, backbone: Path | str) -> str:
    return fingerprint(
        stn=weights_digest(stn) if stn else None,
        settings=config.stn.model_dump(mode="json"),
        backbone=weights_digest(backbone),
        seed=config.runtime.seed if backbone == SCRATCH else None,
    )


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
