"""Which STN and which backbone the frames go through, and their digest. The plan needs no torch; the building does."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.schema import Config
from ..errors import MissingStageError, WeightsError
from ..records import Work
from ..storage.checkpoint import load_weights, read_metadata
from ..storage.fingerprint import content_digest, fingerprint

if TYPE_CHECKING:
    from ...models.backbone import Backbone
    from ...models.stn import SpatialTransformer

BACKBONE_FORMAT = "affect-backbone"
STN_FORMAT = "affect-stn"
IMAGENET = "imagenet"
SCRATCH = "scratch"


@dataclass(frozen=True)
class EncoderPlan:
    """What turns frames into features. stn: None where the crop comes from elsewhere. backbone: a file, or the words
    `scratch` or `imagenet`. digest: of the weights' content and of all settings that shape a feature."""

    stn: Path | None
    backbone: Path | str
    digest: str
    warnings: tuple[str, ...] = ()


def plan_encoder(config: Config, work: Work) -> EncoderPlan:
    """The encoder that features are cached with. Raises MissingStageError where an earlier stage has not run."""
    stn = plan_stn(config, work)
    backbone, warnings = _plan_backbone(config, work)
    if stn is None and config.stn.localiser == "stn":
        warnings += (f"{work.weights('stn')} is missing: the STN is the identity, every crop the whole picture.",)
    return EncoderPlan(stn, backbone, _digest(config, stn, backbone), warnings)


def plan_start(config: Config, work: Work) -> EncoderPlan:
    """The encoder that `adapt` starts from: as plan_encoder, but before adaptation, and random where nothing is
    pretrained."""
    stn = plan_stn(config, work)
    if config.backbone.weights != "work":
        backbone: Path | str = _named_weights(config.backbone.weights)
        return EncoderPlan(stn, backbone, _digest(config, stn, backbone))
    pretrained = work.weights("backbone")
    if pretrained.is_file():
        return EncoderPlan(stn, pretrained, _digest(config, stn, pretrained))
    warning = (
        f"{pretrained} is missing: adaptation starts from random weights, and will be the poorer for it. "
        "Run `affect pretrain backbone`, or set backbone.weights to imagenet or a path."
    )
    return EncoderPlan(stn, SCRATCH, _digest(config, stn, SCRATCH), (warning,))


def plan_stn(config: Config, work: Work) -> Path | None:
    """The STN's weights; None where config.stn.localiser asks for another source of the crop, or where there are none
    and the backbone is random too: then it is the identity, and the pipeline can be tried without any training."""
    if config.stn.localiser != "stn":
        return None
    path = work.weights("stn")
    if not path.is_file() and config.backbone.weights == SCRATCH:
        return None
    if not path.is_file():
        raise MissingStageError(
            f"{path} is missing",
            "Run `affect pretrain stn` (and `affect detect-boxes` before it where the data has no boxes), "
            "or set stn.localiser to box, aligned or none.",
        )
    return path


def build_encoder(config: Config, plan: EncoderPlan) -> tuple["SpatialTransformer", "Backbone"]:
    """The two networks of the plan, on the CPU, in eval mode. Raises WeightsError."""
    stn = build_stn(config, plan.stn).eval()
    backbone = build_backbone(plan.backbone, config.runtime.seed).eval()
    return stn, backbone


def build_backbone(weights: Path | str, seed: int) -> "Backbone":
    """A backbone from `scratch`, `imagenet`, a .safetensors of ours, or resnet50_ferplus_dag.pth."""
    from ...models import backbone as models

    if weights == SCRATCH:
        return models.scratch("torchvision", seed)
    if weights == IMAGENET:
        return models.load_imagenet()
    path = Path(weights)
    if path.suffix != ".safetensors":
        return models.load_ferplus_dag(path)
    state, metadata = load_weights(path)
    check_format(path, metadata, BACKBONE_FORMAT)
    backbone = models.from_metadata(metadata["backbone"])
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: {_first_line(error)}", "Remove the file and run its stage again.") from error
    return backbone


def check_format(path: Path, metadata: dict[str, object], expected: str) -> None:
    """Raises WeightsError where the metadata are not of that format."""
    found = metadata.get("format")
    if found != expected:
        raise WeightsError(f"{path}: holds {found!r}, expected {expected!r}", "Name a file that affect wrote.")


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint in a weights file, None where it is missing or damaged: then the stage runs again."""
    try:
        return read_metadata(path).get("fingerprint")
    except (WeightsError, OSError):
        return None


def asked_precision(config: Config) -> dict[str, str]:
    """For the fingerprint of weights: the precision that was asked for. `auto` asks for none; what it came to is in the
    weights' environment."""
    wish = config.runtime.precision
    return {} if wish == "auto" else {"precision": wish}


def weights_digest(weights: Path | str) -> str:
    """Of the content of a weights file, or the word that names built-in weights."""
    return content_digest(weights) if isinstance(weights, Path) else weights


def stn_digest(config: Config, work: Work) -> str:
    """Of where the crop comes from: weights and settings."""
    stn = plan_stn(config, work)
    return fingerprint(weights=weights_digest(stn) if stn else None, settings=config.stn.model_dump(mode="json"))


def build_stn(config: Config, path: Path | None) -> "SpatialTransformer":
    from ...models.stn import SpatialTransformer

    shape = config.stn.model_dump(include={"kind", "view", "crop", "margin"})
    if path is None:
        stn = SpatialTransformer(**shape)
        stn.look_everywhere()
        return stn
    state, metadata = load_weights(path)
    check_format(path, metadata, STN_FORMAT)
    trained = metadata["stn"]
    for key in ("kind", "view"):
        if trained[key] != shape[key]:
            raise WeightsError(
                f"{path}: trained with stn.{key} {trained[key]}, the config says {shape[key]}",
                "Run `affect pretrain stn` again.",
            )
    stn = SpatialTransformer(**shape)
    try:
        stn.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: {_first_line(error)}", "Run `affect pretrain stn` again.") from error
    return stn


def _plan_backbone(config: Config, work: Work) -> tuple[Path | str, tuple[str, ...]]:
    if config.backbone.weights == SCRATCH and config.adapt.epochs == 0:
        return SCRATCH, ("backbone.weights is scratch: the features come from a random backbone.",)
    if config.adapt.epochs > 0:
        adapted = work.weights("adapted")
        if not adapted.is_file():
            raise MissingStageError(f"{adapted} is missing", "Run `affect adapt`, or set adapt.epochs to 0.")
        if read_metadata(adapted).get("stn_digest") != stn_digest(config, work):
            return adapted, (f"{adapted} was trained on another STN's crops. Run `affect adapt` again.",)
        return adapted, ()
    if config.backbone.weights != "work":
        return _named_weights(config.backbone.weights), ()
    pretrained = work.weights("backbone")
    if not pretrained.is_file():
        raise MissingStageError(
            f"{pretrained} is missing",
            "Run `affect pretrain backbone --ferplus DIR`, or set backbone.weights to imagenet or a path.",
        )
    return pretrained, ()


def _named_weights(name: str) -> Path | str:
    if name in (SCRATCH, IMAGENET):
        return name
    path = Path(name).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"backbone.weights is {name!r}, which does not exist", "Use work, scratch, imagenet or a path."
        )
    return path


def _digest(config: Config, stn: Path | None, backbone: Path | str) -> str:
    return fingerprint(
        stn=weights_digest(stn) if stn else None,
        settings=config.stn.model_dump(mode="json"),
        backbone=weights_digest(backbone),
        seed=config.runtime.seed if backbone == SCRATCH else None,
    )


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
