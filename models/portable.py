"""AffectNet for export: no branch depends on data, and the batch may have any size.

`torch.export` and ONNX need the same operations for all inputs. `Pyramid` reads each crop only from its best level.
`AllLevels` reads it from all possible levels and keeps the best, so the pixels are the same. ONNX has one operator for
an LSTM over clips of any length; torch.export fixes the length of the example.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .affect_net import AffectNet
from .head import StreamState, TemporalHead
from .localiser import MAX_SHEAR
from .lstm import Lstm
from .pyramid import Pyramid, halve_whole_numbers
from .theta import crop_scale

OPSET = 20
"""Of ONNX: the first with a GridSample and an AffineGrid that are equal to torch's."""


class AllLevels(Pyramid):
    """A Pyramid for thetas with columns of length at most `reach`; 1 is the whole picture."""

    data_dependent = False

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
    """From frames to the input of the head.

    finds: whether the STN was trained to find faces. If not, the crop is the whole picture and presence is 1.
    """

    def __init__(self, net: AffectNet, *, finds: bool) -> None:
        super().__init__()
        self.stn, self.backbone, self.finds = net.stn, net.backbone, finds

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """frames: uint8 [n, 3, s, s], RGB. Returns feature float [n, 2048], theta [n, 2, 3] of the face box, and the
        probability [n] of a face."""
        pyramid = AllLevels(frames, crop_scale(self.stn.margin) * math.hypot(1, MAX_SHEAR))
        if self.finds:
            crop, theta, presence = self.stn.find_and_crop(pyramid)
        else:
            theta = self.stn.whole(frames.shape[0])
            crop = self.stn.sample(pyramid, theta)
            presence = torch.full_like(theta[:, 0, 0], math.inf)
        return self.backbone.features(crop).float(), theta, presence.sigmoid()


def streams(head: TemporalHead) -> bool:
    """Whether a head is exported as a step with its state. Other heads are exported for whole clips, also causal
    temporal convolutions."""
    return head.kind == "lstm" and not head.bidirectional


class PortableStep(nn.Module):
    """`TemporalHead.step` with its state as tensors. The state is zero at the start of a stream."""

    def __init__(self, head: TemporalHead) -> None:
        super().__init__()
        self.head = head

    def start(self, streams: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """memory, cell: [layers, b, hidden]. total: float64 [b, 1, 2], or [b, 1, hidden] if readout is clip; float64
        because it is the sum over a whole stream. seen: [1]."""
        lstm = self.head.temporal
        assert isinstance(lstm, Lstm)
        memory = torch.zeros(lstm.num_layers, streams, lstm.hidden_size)
        width = lstm.hidden_size if self.head.readout == "clip" else 2
        return memory, memory.clone(), torch.zeros(streams, 1, width, dtype=torch.float64), torch.zeros(1)

    def forward(
        self, feature: Tensor, memory: Tensor, cell: Tensor, total: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """feature: [b, 1, 2048], the next frame of b streams. Returns valence and arousal of the frame [b, 1, 2] and of
        the stream so far [b, 2], then the state for the next call."""
        state = StreamState((memory, cell), total, seen)  # pyright: ignore[reportArgumentType]  a number, as a tensor
        (frame, clip), ((memory, cell), total, after) = self.head.step(feature, state)
        return frame, clip, memory, cell, total, torch.as_tensor(after)


class PortableClip(nn.Module):
    """`TemporalHead.forward` without padding. time_varies: replaces the LSTM by the ONNX operator, for clips of any
    length. Such a module can be exported but not run."""

    def __init__(self, head: TemporalHead, *, time_varies: bool = False) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        if time_varies and isinstance(head.temporal, Lstm):
            self.head.add_module("lstm", _OnnxLstm(head.temporal))  # replaces the module that `temporal` returns

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: [b, t, 2048]. Returns valence and arousal of each frame [b, t, 2] and of the clip [b, 2]."""
        frame, clip = self.head(features)
        return frame, clip


class _OnnxLstm(nn.Module):
    """An LSTM as the ONNX operator. Its gates have the order i, o, f, c, and time is the first dimension."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.hidden, self.directions = lstm.hidden_size, ("", "_reverse") if lstm.bidirectional else ("",)
        self.layers = nn.ParameterList()
        for layer in range(lstm.num_layers):
            for names in (("weight_ih",), ("weight_hh",), ("bias_ih", "bias_hh")):
                self.layers.append(
                    torch.stack([_gates(lstm, names, f"_l{layer}{suffix}") for suffix in self.directions])
                )

    def forward(self, x: Tensor, mask: None = None) -> Tensor:
        """[b, t, f] to [b, t, hidden * directions]."""
        x = x.transpose(0, 1)
        for layer in range(0, len(self.layers), 3):
            y = torch.onnx.ops.symbolic(
                "::LSTM",
                (x, *(self.layers[layer + part] for part in range(3))),
                {"hidden_size": self.hidden, "direction": "bidirectional" if len(self.directions) > 1 else "forward"},
                dtype=x.dtype,
                shape=(x.shape[0], len(self.directions), x.shape[1], self.hidden),
                version=OPSET,
            )  # [t, directions, b, hidden]
            x = y.transpose(1, 2).flatten(2)
        return x.transpose(0, 1)


@torch.no_grad()
def _gates(lstm: nn.LSTM, names: tuple[str, ...], which: str) -> Tensor:
    parts: list[Tensor] = []
    for name in names:
        i, f, g, o = getattr(lstm, name + which).chunk(4)
        parts += [i, o, f, g]
    return torch.cat(parts)
