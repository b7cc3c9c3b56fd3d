"""TemporalHead: from the features of a clip's frames to valence and arousal, by an LSTM or temporal convolutions, and
dense layers."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .tcn import TemporalConvolutions

Readout = Literal["frame", "clip"]
Kind = Literal["lstm", "tcn"]


class HeadOutput(NamedTuple):
    """(valence, arousal) in [-1, 1]. frame: [b, t, 2]. clip: [b, 2]."""

    frame: Tensor
    clip: Tensor


class StreamState(NamedTuple):
    """What `step` carries on: the memory of what looks along time, and the sum and number of what the clip is the mean
    of."""

    memory: tuple[Tensor, ...]
    total: Tensor
    seen: int


class TemporalHead(nn.Module):
    """Standardises features, projects them, runs an LSTM or convolutions along the clip, and reads out two values.

    features, project, hidden: widths; project 0 leaves the dense layer before the LSTM out. dense: widths of the layers
    between the LSTM and the outputs. readout: `frame` gives two values a frame, of which the clip's are the mean;
    `clip` gives two values for the mean of the LSTM's outputs, and every frame has them. kind: lstm, of `layers`, or
    tcn, temporal convolutions of `blocks`. bidirectional: whether a frame's values depend on the frames after it.
    """

    def __init__(
        self,
        features: int = 2048,
        project: int = 256,
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = True,
        dense: tuple[int, ...] = (128,),
        dropout: float = 0.3,
        readout: Readout = "frame",
        kind: Kind = "lstm",
        blocks: int = 4,
    ) -> None:
        if readout not in ("frame", "clip"):
            raise ValueError(f"readout is {readout!r}, expected frame or clip")
        if kind not in ("lstm", "tcn"):
            raise ValueError(f"kind is {kind!r}, expected lstm or tcn")
        super().__init__()
        self.readout: Readout = readout
        self.kind: Kind = kind
        self.bidirectional = bidirectional
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        before: list[nn.Module] = [nn.LayerNorm(features)]
        if project:
            before += [nn.Linear(features, project), nn.ReLU()]
        self.before = nn.Sequential(*before, nn.Dropout(dropout))
        if kind == "lstm":
            self.lstm = nn.LSTM(
                project or features, hidden, layers, batch_first=True, bidirectional=bidirectional,
                dropout=dropout if layers > 1 else 0.0,
            )  # fmt: skip
        else:
            self.tcn = TemporalConvolutions(
                project or features, hidden, blocks, causal=not bidirectional, dropout=dropout
            )
        after: list[nn.Module] = []
        width = hidden * (2 if kind == "lstm" and bidirectional else 1)
        for wide in dense:
            after += [nn.Dropout(dropout), nn.Linear(width, wide), nn.ReLU()]
            width = wide
        self.after = nn.Sequential(*after, nn.Dropout(dropout), nn.Linear(width, 2))
        self._initialise()

    @torch.no_grad()
    def calibrate(self, mean: Tensor, spread: Tensor) -> None:
        """Sets what features are standardised by: their mean and standard deviation [features] over the training set.

        Pooled ReLU features have means far above their deviations; without this the LSTM sees mostly the means."""
        self.mean.copy_(mean)
        self.spread.copy_(spread.clamp(min=1e-3 * float(spread.mean()) + 1e-8))

    def forward(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """features: [b, t, features]. mask: bool [b, t], False where the clip is padded, at its end; None: nowhere.

        Values at padded frames have no meaning; they change neither the other frames' nor the clip's."""
        hidden = self._recur(self._prepare(features), mask)
        if self.readout == "clip":
            clip = self._read(_mean(hidden, mask))
            return HeadOutput(clip[:, None].expand(-1, hidden.shape[1], -1), clip)
        frame = self._read(hidden)
        return HeadOutput(frame, _mean(frame, mask))

    def step(self, features: Tensor, state: StreamState | None = None) -> tuple[HeadOutput, StreamState]:
        """The next frames of a stream: features [b, t, features], t at least 1, and the state of the step before, None
        at first.

        Frames come out as `forward` gives them, with readout clip as the stream up to each; the clip is the stream so
        far. Raises ValueError if bidirectional."""
        if self.bidirectional:
            raise ValueError("a bidirectional head needs the whole clip; streams need head.bidirectional: false")
        along = self.lstm if self.kind == "lstm" else self.tcn.step
        hidden, memory = along(self._prepare(features), state.memory if state else None)
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

    def _recur(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.kind == "tcn":
            return self.tcn(x, mask)
        if mask is None or mask.all():
            return self.lstm(x)[0]
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).clamp(min=1)
        packed = pack_padded_sequence(x, last.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def _read(self, hidden: Tensor) -> Tensor:
        return self.after(hidden).float().tanh()

    @torch.no_grad()
    def _initialise(self) -> None:
        for name, parameter in self.lstm.named_parameters() if self.kind == "lstm" else ():
            if name.startswith("weight_hh"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                parameter.zero_()
                if name.startswith("bias_ih"):  # the two biases add up; the forget gate starts open
                    parameter.chunk(4)[1].fill_(1.0)
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
