"""Temporal convolutions as temporal layers of the head: residual blocks, each with twice the reach of the block before
(Bai et al., 2018)."""

from torch import Tensor, cat, nn

KERNEL = 3
"""Frames that a convolution reads."""


class TemporalConvolutions(nn.Module):
    """Causal or symmetric TemporalLayers (head.py). If causal, a frame depends on itself and on the
    4 * (2 ** blocks - 1) frames before it.

    inputs, width: of a frame, before and after. blocks: two convolutions each, of dilation 1, 2, 4, … frames.
    """

    def __init__(self, inputs: int, width: int, blocks: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.width = width
        widths = [inputs] + [width] * (blocks - 1)
        self.blocks = nn.ModuleList(
            _Block(before, width, 2**number, causal=causal, dropout=dropout) for number, before in enumerate(widths)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: [b, t, inputs]. mask: bool [b, t], False where padded, at the end. Returns [b, t, width]."""
        for block in self.blocks:
            x = block(x, mask)
        return x

    def step(self, x: Tensor, memory: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next frames of a stream: x [b, t, inputs], and the memory that the last step returned, None at first.

        Only if causal. The size of the memory is constant."""
        memories: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            x, pair = block.step(x, None if memory is None else memory[2 * number : 2 * number + 2])
            memories += pair
        return x, tuple(memories)

    def initialise(self) -> None:
        """Keeps the first weights of torch."""


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, dilation: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.first = _Convolution(inputs, width, dilation, causal)
        self.second = _Convolution(width, width, dilation, causal)
        self.dropout = nn.Dropout(dropout)
        self.past = nn.Linear(inputs, width) if inputs != width else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.dropout(self.first(x, mask))
        return self.past(x) + self.dropout(self.second(y, mask))

    def step(self, x: Tensor, memory: tuple[Tensor, ...] | None) -> tuple[Tensor, list[Tensor]]:
        y, first = self.first.step(x, None if memory is None else memory[0])
        z, second = self.second.step(self.dropout(y), None if memory is None else memory[1])
        return self.past(x) + self.dropout(z), [first, second]


class _Convolution(nn.Module):
    """A convolution along time. The norm is per frame, so a stream has the same output as the clip."""

    def __init__(self, inputs: int, width: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, width, KERNEL, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.reach = dilation * (KERNEL - 1)
        self.padding = (self.reach, 0) if causal else (self.reach // 2, self.reach // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask[:, :, None]
        return self._convolve(nn.functional.pad(x, (0, 0, *self.padding)))

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """memory: [b, reach, inputs], the frames before; None: zeros, as the padding of a clip."""
        joined = nn.functional.pad(x, (0, 0, self.reach, 0)) if memory is None else cat((memory, x), 1)
        return self._convolve(joined), joined[:, -self.reach :]

    def _convolve(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.norm(self.convolution(x.transpose(1, 2)).transpose(1, 2)))
