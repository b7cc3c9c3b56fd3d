"""Model files: the weights of an AffectNet and the metadata to build it again, in one file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import WeightsError
from ..records import MODEL_FILE, MODEL_FORMAT
from ..storage.checkpoint import load_weights, read_metadata, read_tensors, save_weights
from ..storage.fingerprint import fingerprint as digest
from ..storage.quantization import quantize
from . import reference as references
from .calibration import PREFIX as CALIBRATION
from .calibration import Calibration, from_state, to_state
from .smoothing import NONE

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.affect_net import AffectNet

FORMAT = MODEL_FORMAT
NAME = MODEL_FILE
LAST = "last.safetensors"
EXTRAS = (CALIBRATION, references.PREFIX)
"""Prefixes of the names of tensors that are not weights of the network."""


def save_model(
    path: Path,
    net: "AffectNet",
    *,
    fingerprint: str,
    encoder: str,
    config: dict[str, Any],
    int8: bool = False,
    extras: Mapping[str, "Tensor"] | None = None,
    **facts: Any,
) -> None:
    """Writes a model file. encoder: digest of the encoder (STN, backbone, settings). config: the whole config, as JSON.
    int8: quantize the large tensors. extras: more tensors, whose names begin with one of EXTRAS.

    Metadata: format, fingerprint, encoder, config, clip, stn, backbone, head, and `facts`.
    """
    metadata = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "encoder": encoder,
        "config": config,
        "clip": config["clip"],
        "stn": net.stn.metadata(),
        "backbone": net.backbone.metadata(),
        "head": {"features": net.head.mean.numel(), **asdict(net.head.settings)},
        **facts,
    }
    state = quantize(net.state_dict()) if int8 else net.state_dict()
    save_weights(path, {**state, **(extras or {})}, metadata)


def add_calibration(path: Path, modes: Mapping[str, Calibration]) -> None:
    """Writes intervals into an existing model file, in place of earlier ones. All other content stays.

    Raises WeightsError, WorkError.
    """
    tensors, facts = to_state(modes)
    _replace_extras(model_path(path), CALIBRATION, tensors, {"calibration": facts})


def add_reference(path: Path, reference: references.Reference) -> None:
    """Writes a reference into an existing model file, in place of an earlier one. The fingerprint of the model changes,
    so that videos are predicted again; all other content stays. Raises WeightsError, WorkError."""
    path = model_path(path)
    before = read_metadata(path)["fingerprint"]
    tensors, facts = references.to_state(reference)
    key = digest(before=before, facts=facts, tensors={name: it.tolist() for name, it in tensors.items()})
    _replace_extras(path, references.PREFIX, tensors, {"reference": facts, "fingerprint": key})


def _replace_extras(path: Path, prefix: str, tensors: "Mapping[str, Tensor]", facts: Mapping[str, Any]) -> None:
    stored, metadata = read_tensors(path)
    kept = {name: tensor for name, tensor in stored.items() if not name.startswith(prefix)}
    save_weights(path, {**kept, **tensors}, {**metadata, **facts})


def read_calibration(path: Path) -> dict[str, Calibration]:
    """The intervals of a model file or a run folder, by the way to run the model; empty if it has none.

    Raises WeightsError.
    """
    path = model_path(path)
    facts = read_metadata(path).get("calibration")
    return from_state(read_tensors(path, CALIBRATION)[0], facts) if facts else {}


def read_reference(path: Path) -> references.Reference | None:
    """The reference of a model file or a run folder, on the CPU; None if it has none. Raises WeightsError."""
    path = model_path(path)
    facts = read_metadata(path).get("reference")
    return references.from_state(read_tensors(path, references.PREFIX)[0], facts) if facts else None


def model_path(path: Path) -> Path:
    """The path of the model file, from that path or the folder of the run."""
    return path / NAME if path.is_dir() else path


@dataclass(frozen=True)
class ModelInfo:
    """The metadata of a model file. config: of the training. encoder: digest of the encoder. clip_length: frames in a
    clip. classes: of the backbone, in order. smoothing: {kind, width, ...}, see choose_smoothing. metadata: all
    metadata, as JSON values."""

    path: Path
    fingerprint: str
    encoder: str
    config: Config
    clip_length: int
    classes: tuple[str, ...]
    smoothing: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def notice(self) -> str:
        """What to tell the user of this model; empty for a model that was trained with `affect train`."""
        return str(self.metadata.get("notice", ""))

    @property
    def frame_size(self) -> int:
        """Side in pixels of the square input frames."""
        return self.config.frames.size

    @property
    def localiser(self) -> str:
        """stn.localiser of the training: `stn` if the model finds the faces itself."""
        return self.config.stn.localiser


def read_model_info(path: Path) -> ModelInfo:
    """The metadata of a model file or of a run folder. Does not import torch. Raises WeightsError."""
    path = model_path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no model", "Run `affect train` first, or give another file or run.")
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: has the format {metadata.get('format')!r}, expected {FORMAT!r}",
            "Give a model.safetensors that `affect train` wrote.",
        )
    try:
        return ModelInfo(
            path,
            metadata["fingerprint"],
            metadata["encoder"],
            Config.model_validate(metadata["config"]),
            int(metadata["clip"]["length"]),
            tuple(metadata["backbone"]["classes"]),
            metadata.get("smoothing", NONE),
            metadata,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _misfit(path, error) from error


def load_model(path: Path) -> tuple["AffectNet", ModelInfo]:
    """The model of a file or of a run folder, on the CPU, in eval mode, and its metadata. Raises WeightsError."""
    from ...models.affect_net import AffectNet
    from ...models.backbone import from_metadata
    from ...models.head import HeadSettings, TemporalHead
    from ...models.stn import SpatialTransformer
    from ...models.weightless import without_weights

    info = read_model_info(path)
    metadata = info.metadata
    stored, _ = load_weights(info.path)
    state = {name: tensor for name, tensor in stored.items() if not name.startswith(EXTRAS)}
    try:
        _check_sizes(metadata, state)
        saved = {**info.config.head.model_dump(), **metadata["head"]}  # an older file may lack newer settings
        features = saved.pop("features")
        with without_weights():
            head = TemporalHead(features, HeadSettings(**{**saved, "dense": tuple(saved["dense"])}))
            net = AffectNet(SpatialTransformer(**metadata["stn"]), from_metadata(metadata["backbone"]), head)
        net.load_state_dict(state, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _misfit(info.path, error) from error
    return net.eval(), info


def _misfit(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: the weights do not match the metadata ({' '.join(str(error).split())[:300]})",
        "Train the model again, or use the version of affect that wrote it.",
    )


def _check_sizes(metadata: Mapping[str, Any], state: "Mapping[str, Tensor]") -> None:
    """Raises ValueError before memory is allocated if the metadata describe a larger network than the file contains."""
    numbers = sum(tensor.numel() for tensor in state.values())
    head, classes = metadata["head"], metadata["backbone"]["classes"]
    sizes = (head["features"], head["project"], head["hidden"], head["layers"], *head["dense"], len(classes))
    expected = [int(size) for size in sizes]
    if max(expected) > numbers or expected[3] + len(head["dense"]) > len(state) or expected[2] ** 2 > numbers:
        raise ValueError(f"the metadata describes a head with sizes {expected}, but the file has {numbers:,} weights")
