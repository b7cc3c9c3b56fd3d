"""A trained model on the disk: all weights of an AffectNet in one file, with all that is needed to build it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from ..storage.checkpoint import load_weights, read_metadata, save_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...models.affect_net import AffectNet

FORMAT = "affect-model"
NAME = "model.safetensors"
LAST = "last.safetensors"
_HEAD = ("kind", "project", "hidden", "layers", "blocks", "bidirectional", "dense", "dropout", "readout")


def save_model(
    path: Path, net: "AffectNet", *, fingerprint: str, encoder: str, config: dict[str, Any], **facts: Any
) -> None:
    """Writes the model. encoder: digest of what turns frames into features. config: the whole config, as JSON.

    The metadata: format, fingerprint, encoder, config, clip, stn, backbone, head, and `facts`.
    """
    metadata = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "encoder": encoder,
        "config": config,
        "clip": config["clip"],
        "stn": {name: getattr(net.stn, name) for name in ("kind", "view", "crop", "margin")},
        "backbone": net.backbone.metadata(),
        "head": {"features": net.head.mean.numel(), **{name: config["head"][name] for name in _HEAD}},
        **facts,
    }
    save_weights(path, net.state_dict(), metadata)


def model_path(path: Path) -> Path:
    """The model's file, given it or the folder of its run."""
    return path / NAME if path.is_dir() else path


def read_model_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a model file or of a run folder; needs no torch. Raises WeightsError."""
    path = model_path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no model", "Run `affect train` first, or name another file or run.")
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: holds {metadata.get('format')!r}, expected {FORMAT!r}",
            "Name a model.safetensors of `affect train`.",
        )
    return metadata


def load_model(path: Path) -> tuple["AffectNet", dict[str, Any]]:
    """The model of a file or of a run folder, on the CPU, in eval mode, and its metadata. Raises WeightsError."""
    from ...models.affect_net import AffectNet
    from ...models.backbone import from_metadata
    from ...models.head import TemporalHead
    from ...models.stn import SpatialTransformer

    metadata = read_model_metadata(path)
    path = model_path(path)
    state, _ = load_weights(path)
    try:
        _check_sizes(metadata, state)
        head = TemporalHead(**{**metadata["head"], "dense": tuple(metadata["head"]["dense"])})
        net = AffectNet(SpatialTransformer(**metadata["stn"]), from_metadata(metadata["backbone"]), head)
        net.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: its weights do not fit its description ({' '.join(str(error).split())[:300]})",
            "Train the model again, or use the version of affect that wrote it.",
        ) from error
    return net.eval(), metadata


def _check_sizes(metadata: dict[str, Any], state: "Mapping[str, Tensor]") -> None:
    """Raises ValueError where the description asks for more than the file holds, before memory is taken for it."""
    room = sum(tensor.numel() for tensor in state.values())
    head, classes = metadata["head"], metadata["backbone"]["classes"]
    sizes = (head["features"], head["project"], head["hidden"], head["layers"], *head["dense"], len(classes))
    wanted = [int(size) for size in sizes]
    if max(wanted) > room or wanted[3] + len(head["dense"]) > len(state) or wanted[2] ** 2 > room:
        raise ValueError(f"the head is said to be {wanted}, and the file holds {room:,} numbers")
