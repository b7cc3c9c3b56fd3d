"""What `pretrain stn` starts from: the STN that comes with affect, another one, or nothing."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.schema import Config
from ..errors import InputError, WeightsError
from ..storage.checkpoint import load_weights
from .encoder import SCRATCH, STN_FORMAT, check_format

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.stn import SpatialTransformer

DRAWN = "drawn"
SHIPPED = Path(__file__).parents[2] / "weights" / "stn.safetensors"
"""Made by weights/make_stn.py, at a view of 96."""
VIEWS = (64, 160)
"""Far beyond these, faces have other sizes in the view than it ever saw."""

_LAST = "localiser.says.2"
"""The layer with a row for the belief, one for each number of theta, tx, ty, log sx, log sy, and then those that `crop`
does not have."""


def start_weights(config: Config) -> Path | None:
    """The file that pretrain_stn.start names; None for `scratch`, and for `drawn` where the view is one that it cannot
    know. Raises InputError."""
    name = config.pretrain_stn.start
    if name == SCRATCH or (name == DRAWN and not VIEWS[0] <= config.stn.view <= VIEWS[1]):
        return None
    path = SHIPPED if name == DRAWN else Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"pretrain_stn.start is {name!r}, which does not exist", "Use drawn, scratch or a path.")
    return path


def begin(stn: "SpatialTransformer", path: Path) -> None:
    """Gives an STN the weights of another, which may have another view and fewer numbers: what the other does not say
    (roll, shear) begins at nothing. Raises WeightsError."""
    import torch

    given, metadata = load_weights(path)
    check_format(path, metadata, STN_FORMAT)
    given = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    own: dict[str, Tensor] = stn.state_dict()
    weight, bias = f"{_LAST}.weight", f"{_LAST}.bias"
    if weight in given and given[weight].shape[1:] == own[weight].shape[1:]:
        # As many pixels are another share of another view.
        share = metadata["stn"]["view"] / stn.view
        for name in (weight, bias):
            given[name][1:3] *= share
        given[bias][3:5] += math.log(share)
        for name in (weight, bias):
            rows = min(len(given[name]), len(own[name]))
            given[name] = torch.cat((given[name][:rows], torch.zeros_like(own[name][rows:])))
    try:
        stn.load_state_dict(given)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path}: {reason}", "Use drawn, scratch, or weights that `pretrain stn` wrote.") from error
