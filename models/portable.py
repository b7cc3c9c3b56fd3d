"""AffectNet in a form that can leave Python: no branch depends on data, and the batch may have any size.

`torch.export` and ONNX want the same operations for all inputs. `Pyramid` reads each crop only from the level that fits
it; `AllLevels` reads it from all that could, and keeps the fitting one, so the pixels are the same. An LSTM over a
clip of any length is one ONNX operator; torch.export knows LSTMs only of the length it is shown.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .affect_net import AffectNet
from .head import StreamState, TemporalHead
from .pyramid import Pyramid, halve_whole_numbers
from .stn import MAX_SHEAR

OPSET = 20
"""Of ONNX; the first whose GridSample and AffineGrid are torch's."""


class AllLevels(Pyramid):
    """A Pyramid for boxes whose columns are at most `reach` long, 1 being the whole picture."""

    narrows = False

    def __init__(self, frames: Tensor, reach: float) -> None:
        super().__init__(frames.float())
        self.reach = reach

    def sample(self, theta: Tensor, size: int, rows: Tensor | None = None, within: Tensor | None = None) -> Tensor:
        theta = theta.float()
        grid = F.affine_grid(theta, [theta.shape[0], 3, size, size], align_corners=False)
        levels = self._fitting(theta, size).to(theta.device)
        chosen = slice(None) if rows is None else rows
        crops = self._read(0, chosen, grid, theta, within)
        for level in range(1, self._highest(size) + 1):
            read = self._read(level, chosen, grid, theta, within)
            crops = torch.where((levels == level)[:, None, None, None], read, crops)
        return crops

    def _half(self, frames: Tensor) -> Tensor:
        return halve_whole_numbers(frames)

    def _highest(self, size: int) -> int:
        height, width = self.frames.shape[-2:]
        octaves = math.log2(max(math.sqrt(height * width) / size * self.reach, 1.0))
        return min(math.floor(octaves + 0.5), max(0, min(height, width).bit_length() - 2))


class PortableEncoder(nn.Module):
    """From frames to what the head wants.

    finds: whether the STN was taught to find faces; else the whole picture is the crop, and presence is 1.
    """

    def __init__(self, net: AffectNet, *, finds: bool) -> None:
        super().__init__()
        self.stn, self.backbone, self.finds = net.stn, net.backbone, finds

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """frames: uint8 [n, 3, s, s], RGB. Returns feature float [n, 2048], theta [n, 2, 3] of the face box, and the
        probability [n] that there is a face."""
        pyramid = AllLevels(frames, (1 + self.stn.margin) * math.hypot(1, MAX_SHEAR))
        if self.finds:
            crop, theta, presence = self.stn.look(pyramid)
        else:
            theta = self.stn.whole(frames.shape[0])
            crop = pyramid.sample(theta * (1 + self.stn.margin), self.stn.crop)
            presence = torch.full_like(theta[:, 0, 0], math.inf)
        return self.backbone.features(crop).float(), theta, presence.sigmoid()


def streams(head: TemporalHead) -> bool:
    """Whether a head leaves as a step with its state; else as a clip. Temporal convolutions leave as a clip."""
    return head.kind == "lstm" and not head.bidirectional


class PortableStep(nn.Module):
    """`TemporalHead.step`, its state in tensors: zeros at the start of a stream."""

    def __init__(self, head: TemporalHead) -> None:
        super().__init__()
        self.head = head

    def start(self, many: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """memory, cell: [layers, b, hidden]. total: float64 [b, 1, 2], or [b, 1, hidden] if readout is clip; it sums up
        all frames, of which there may be many. seen: [1]."""
        lstm = self.head.lstm
        memory = torch.zeros(lstm.num_layers, many, lstm.hidden_size)
        width = lstm.hidden_size if self.head.readout == "clip" else 2
        return memory, memory.clone(), torch.zeros(many, 1, width, dtype=torch.float64), torch.zeros(1)

    def forward(
        self, feature: Tensor, memory: Tensor, cell: Tensor, total: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """feature: [b, 1, 2048], the next frame of b streams. Returns valence and arousal of the frame [b, 1, 2] and of
        the stream so far [b, 2], then the state to hand in with the next frame."""
        state = StreamState((memory, cell), total, seen)  # pyright: ignore[reportArgumentType]  a number, as a tensor
        (frame, clip), ((memory, cell), total, after) = self.head.step(feature, state)
        return frame, clip, memory, cell, total, torch.as_tensor(after)


class PortableClip(nn.Module):
    """`TemporalHead.forward` without padding. time_varies: the LSTM becomes ONNX's own, for clips of any length; such a
    module can be exported and not run."""

    def __init__(self, head: TemporalHead, *, time_varies: bool = False) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        if time_varies and head.kind == "lstm":
            self.head.lstm = _OnnxLstm(head.lstm)  # pyright: ignore[reportAttributeAccessIssue]  stands in for it

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: [b, t, 2048]. Returns valence and arousal of each frame [b, t, 2] and of the clip [b, 2]."""
        frame, clip = self.head(features)
        return frame, clip


class _OnnxLstm(nn.Module):
    """An LSTM as ONNX's operator, whose gates come in the order i, o, f, c, and whose time comes first."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden, self.ways = lstm.hidden_size, ("", "_reverse") if lstm.bidirectional else ("",)
        self.layers = nn.ParameterList()
        for layer in range(lstm.num_layers):
            for names in (("weight_ih",), ("weight_hh",), ("bias_ih", "bias_hh")):
                self.layers.append(torch.stack([_gates(lstm, names, f"_l{layer}{way}") for way in self.ways]))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """[b, t, f] to [b, t, hidden * directions]."""
        x = x.transpose(0, 1)
        for layer in range(0, len(self.layers), 3):
            y = torch.onnx.ops.symbolic(
                "::LSTM",
                (x, *(self.layers[layer + part] for part in range(3))),
                {"hidden_size": self.hidden, "direction": "bidirectional" if len(self.ways) > 1 else "forward"},
                dtype=x.dtype,
                shape=(x.shape[0], len(self.ways), x.shape[1], self.hidden),
                version=OPSET,
            )  # [t, directions, b, hidden]
            x = y.transpose(1, 2).flatten(2)
        return x.transpose(0, 1), None


@torch.no_grad()
def _gates(lstm: nn.LSTM, names: tuple[str, ...], which: str) -> Tensor:
    parts: list[Tensor] = []
    for name in names:
        i, f, g, o = getattr(lstm, name + which).chunk(4)
        parts += [i, o, f, g]
    return torch.cat(parts)
