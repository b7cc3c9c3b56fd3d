"""The networks of a training run: initial weights and saving."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs import schema
from ...configs.schema import Config
from ..errors import WeightsError
from ..features.encoder import EncoderPlan, build_encoder
from ..learning.calibration import Calibration, to_state
from ..learning.model_file import LAST, NAME, load_model, save_model
from ..learning.reference import Reference
from ..learning.reference import to_state as reference_state
from ..storage.atomic import write_text
from .folder import plain
from .model_card import CARD, model_card

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...models.affect_net import AffectNet
    from ...models.head import TemporalHead

REMEDY = "Use the config of that training."


def init_head(config: Config, begin: Path | None, width: int) -> "TemporalHead":
    """The head of the config for features of this width, with new weights or those of the model `begin`.

    Raises WeightsError."""
    from ...models.head import HeadSettings, TemporalHead

    head = TemporalHead(width, HeadSettings(**config.head.model_dump()))
    if begin:
        try:
            head.load_state_dict(load_model(begin)[0].head.state_dict())
        except RuntimeError as error:
            raise WeightsError(f"{begin}: its head does not match head.* of this config", REMEDY) from error
    return head


def whole_network(
    config: Config, encoder: EncoderPlan, head: "TemporalHead", *, begin: Path | None = None
) -> "AffectNet":
    """The head with STN and backbone of the plan, or of the model `begin`. Raises WeightsError."""
    from ...models.affect_net import AffectNet

    stn, backbone = build_encoder(config, encoder)
    if begin:
        before, _ = load_model(begin)
        backbone = before.backbone
        try:
            stn.load_state_dict(before.stn.state_dict())
        except RuntimeError as error:
            raise WeightsError(f"{begin}: its STN does not match stn.* of this config", REMEDY) from error
    return AffectNet(stn, backbone, head)


@dataclass(frozen=True)
class Trained:
    """The result of a training. net: the whole network. module: the trained module, `net` or its head, with the weights
    of the best epoch. calibration: of the intervals, by the way to run the model. reference: of the training faces, if
    there are enough people."""

    net: "AffectNet"
    module: "nn.Module"
    calibration: Mapping[str, Calibration]
    reference: Reference | None = None


def save_run(
    config: Config,
    folder: Path,
    trained: Trained,
    last: "dict[str, Tensor]",
    last_line: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Writes config.yaml, run.json, the model card, last.safetensors and model.safetensors, and removes the state.

    last: the weights of the last epoch, whose metrics are `last_line`; this model has no intervals. The best model is
    written last: until it exists, the run is not up to date.
    """
    write_text(folder / "config.yaml", schema.dump(config))
    write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")
    settings = config.model_dump(mode="json")
    metadata = {"config": settings, "run": facts["run"], "metrics": facts["metrics"]}
    metadata |= {"reference": reference_state(trained.reference)[1]}
    write_text(folder / CARD, model_card(metadata, facts))
    net, module = trained.net, trained.module
    best = {name: value.detach().clone() for name, value in module.state_dict().items()}
    known = {name: facts[name] for name in ("fingerprint", "encoder", "run", "best_epoch", "environment")}
    known["smoothing"] = {name: facts["smoothing"][name] for name in ("kind", "width")}
    module.load_state_dict(last)
    save_model(folder / LAST, net, config=settings, **known, epoch=facts["epochs"], metrics=plain(last_line))
    module.load_state_dict(best)
    extras, calibration = to_state(trained.calibration)
    known |= {"epoch": facts["best_epoch"], "metrics": facts["metrics"], "calibration": calibration}
    tensors, reference = reference_state(trained.reference)
    known |= {"reference": reference} if reference else {}
    save_model(folder / NAME, net, config=settings, extras={**extras, **tensors}, **known)
    (folder / "state.pt").unlink(missing_ok=True)
