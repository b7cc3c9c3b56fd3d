"""TemporalHead: from the features of a clip's frames to valence and arousal."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from .lstm import Lstm
from .tcn import TemporalConvolutions

Readout = Literal["frame", "clip"]
Kind = Literal["lstm", "tcn"]


@dataclass(frozen=True)
class HeadSettings:
    """The section `head` of a config (configs/schema.py), which has the defaults. A model file stores these fields.

    kind: the temporal layers. project: width of the dense layer before them, 0 for none. hidden: their width. layers:
    of an LSTM. blocks: of temporal convolutions. bidirectional: whether the values of a frame depend on later frames.
    dense: widths of the layers between the temporal layers and the output. readout: `frame` gives two values per frame,
    and their mean for the clip; `clip` gives two values for the mean output of the temporal layers, the same in each
    frame. Raises ValueError.
    """

    kind: Kind
    project: int
    hidden: int
    layers: int
    blocks: int
    bidirectional: bool
    dense: tuple[int, ...]
    dropout: float
    readout: Readout

    def __post_init__(self) -> None:
        for name, value, allowed in (("readout", self.readout, Readout), ("kind", self.kind, Kind)):
            if value not in get_args(allowed):
                raise ValueError(f"{name} is {value!r}, expected {' or '.join(get_args(allowed))}")


class HeadOutput(NamedTuple):
    """(valence, arousal) in [-1, 1]. frame: [b, t, 2]. clip: [b, 2]."""

    frame: Tensor
    clip: Tensor


class StreamState(NamedTuple):
    """What `step` needs from the step before. memory: of the temporal layers. total, seen: sum and number of the frames
    that the values of the clip are the mean of."""

    memory: tuple[Tensor, ...]
    total: Tensor
    seen: int


class TemporalLayers(Protocol):
    """The layers of a kind of head. width: of the output. mask: bool [b, t], False where padded, at the end. step: the
    next frames of a stream, for layers that do not depend on later frames; memory: from the last step, None at first.
    initialise: sets the first weights.
    """

    @property
    def width(self) -> int: ...
    def __call__(self, x: Tensor, mask: Tensor | None = None, /) -> Tensor: ...
    def step(self, x: Tensor, memory: Any, /) -> tuple[Tensor, tuple[Tensor, ...]]: ...
    def initialise(self) -> None: ...


def temporal_layers(inputs: int, settings: HeadSettings) -> Lstm | TemporalConvolutions:
    """The TemporalLayers of the kind of head: the only function to extend for a new kind."""
    both_ways, dropout = settings.bidirectional, settings.dropout
    match settings.kind:
        case "lstm":
            return Lstm(inputs, settings.hidden, settings.layers, bidirectional=both_ways, dropout=dropout)
        case "tcn":
            return TemporalConvolutions(inputs, settings.hidden, settings.blocks, causal=not both_ways, dropout=dropout)


class TemporalHead(nn.Module):
    """Standardises features [b, t, features], projects them, applies the temporal layers and reads out two values."""

    lstm: Lstm
    tcn: TemporalConvolutions

    def __init__(self, features: int, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        before: list[nn.Module] = [nn.LayerNorm(features)]
        if settings.project:
            before += [nn.Linear(features, settings.project), nn.ReLU()]
        self.before = nn.Sequential(*before, nn.Dropout(settings.dropout))
        layers = temporal_layers(settings.project or features, settings)
        self.add_module(settings.kind, layers)  # the kind is part of the weights' names
        after: list[nn.Module] = []
        width = layers.width
        for dense in settings.dense:
            after += [nn.Dropout(settings.dropout), nn.Linear(width, dense), nn.ReLU()]
            width = dense
        self.after = nn.Sequential(*after, nn.Dropout(settings.dropout), nn.Linear(width, 2))
        self._initialise()

    @property
    def kind(self) -> Kind:
        return self.settings.kind

    @property
    def readout(self) -> Readout:
        return self.settings.readout

    @property
    def bidirectional(self) -> bool:
        return self.settings.bidirectional

    @property
    def temporal(self) -> TemporalLayers:
        return getattr(self, self.settings.kind)

    @torch.no_grad()
    def calibrate(self, mean: Tensor, spread: Tensor) -> None:
        """Sets the mean and standard deviation [features] of the training set, which standardise the features.

        The means of pooled ReLU features are far above their deviations. Without this, the temporal layers see mostly
        the means."""
        self.mean.copy_(mean)
        self.spread.copy_(spread.clamp(min=1e-3 * float(spread.mean()) + 1e-8))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """features: [b, t, features]. mask: bool [b, t], False where the clip is padded, at its end; None: no padding.

        Values at padded frames have no meaning. They change neither the other frames' values nor the clip's."""
        hidden = self.temporal(self._prepare(features), mask)
        if self.readout == "clip":
            clip = self._read(_mean(hidden, mask))
            return HeadOutput(clip[:, None].expand(-1, hidden.shape[1], -1), clip)
        frame = self._read(hidden)
        return HeadOutput(frame, _mean(frame, mask))

    def step(self, features: Tensor, state: StreamState | None = None) -> tuple[HeadOutput, StreamState]:
        """The next frames of a stream: features [b, t, features], t at least 1, and the state that the last step
        returned, None at first.

        Frames get the values that `forward` gives them. With readout clip, a frame gets the values of the stream up to
        it. The clip is the stream so far. Raises ValueError if bidirectional."""
        if self.bidirectional:
            raise ValueError("a bidirectional head needs the whole clip; use head.bidirectional=false for streams")
        hidden, memory = self.temporal.step(self._prepare(features), state.memory if state else None)
        new = hidden if self.readout == "clip" else self._read(hidden)
        sums, seen = new.double().cumsum(1), 0
        if state:
            sums, seen = sums + state.total, state.seen
        counts = torch.arange(1, new.shape[1] + 1, device=new.device)[:, None] + seen
        means = (sums / counts).to(new.dtype)
        frame = self._read(means) if self.readout == "clip" else new
        clip = frame[:, -1] if self.readout == "clip" else means[:, -1]
        return HeadOutput(frame, clip), StreamState(memory, sums[:, -1:], seen + new.shape[1])

    def _prepare(self, features: Tensor) -> Tensor:
        return self.before((features.float() - self.mean) / self.spread)

    def _read(self, hidden: Tensor) -> Tensor:
        return self.after(hidden).float().tanh()

    @torch.no_grad()
    def _initialise(self) -> None:
        self.temporal.initialise()
        last = self.after[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(0.1)
        last.bias.zero_()


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """[b, t, d] over t, where mask is True."""
    if mask is None:
        return values.mean(1)
    weight = mask[:, :, None].to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)
