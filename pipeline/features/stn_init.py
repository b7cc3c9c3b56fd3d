"""Initial weights of `pretrain stn`: the STN shipped with affect, another STN, or random weights."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.schema import Config
from ..errors import InputError, WeightsError
from .encoder import SCRATCH, load_part, named_file

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.stn import SpatialTransformer

DRAWN = "drawn"
PRETRAINED = Path(__file__).parents[2] / "models" / "pretrained"
SHIPPED = PRETRAINED / "stn.safetensors"
"""Trained on synthetic and real people by tools/make_stn.py, at a view of 96."""
DRAWN_WEIGHTS = PRETRAINED / "stn_drawn.safetensors"
"""Trained on synthetic people only. Its content is part of the fingerprints of work folders: do not replace it."""
MIN_VIEW, MAX_VIEW = 64, 160
"""Views that the shipped STN can start with. In others, faces have sizes that it was not trained on."""

_LAST_LAYER = "localiser.says.2"
"""Its rows are presence, tx, ty, log sx, log sy, and then the parameters that stn.kind=crop does not have."""


def start_weights(config: Config) -> Path | None:
    """The weights file of pretrain_stn.start; None for `scratch`, and for `drawn` if stn.view is out of its range.

    Raises InputError.
    """
    name = config.pretrain_stn.start
    if name == SCRATCH or (name == DRAWN and not MIN_VIEW <= config.stn.view <= MAX_VIEW):
        return None
    path = DRAWN_WEIGHTS if name == DRAWN else named_file(name)
    if not path.is_file():
        raise InputError(f"pretrain_stn.start is {name!r}, which does not exist", "Use drawn, scratch, base or a path.")
    return path


def init_from(stn: "SpatialTransformer", path: Path) -> None:
    """Loads the weights of another STN, which may have another view and fewer parameters.

    Parameters that the other STN lacks (roll, shear) start at zero. Raises WeightsError.
    """
    import torch

    given, metadata = load_part(path, "stn")
    given = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    own: dict[str, Tensor] = stn.state_dict()
    weight, bias = f"{_LAST_LAYER}.weight", f"{_LAST_LAYER}.bias"
    if weight in given and given[weight].shape[1:] == own[weight].shape[1:]:
        # A face has the same size in pixels, which is another fraction of another view.
        scale = metadata["stn"]["view"] / stn.view
        for name in (weight, bias):
            given[name][1:3] *= scale
        given[bias][3:5] += math.log(scale)
        for name in (weight, bias):
            rows = min(len(given[name]), len(own[name]))
            given[name] = torch.cat((given[name][:rows], torch.zeros_like(own[name][rows:])))
    try:
        stn.load_state_dict(given)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path}: {reason}", "Use drawn, base, scratch, or weights that `pretrain stn` wrote."
        ) from error
