"""Temporal convolutions: residual blocks, each of which sees twice as far as the one before (Bai et al., 2018)."""

from torch import Tensor, cat, nn

KERNEL = 3
"""Frames that a convolution looks at."""


class TemporalConvolutions(nn.Module):
    """Causal or symmetric. Causal, a frame depends on itself and on the 4 * (2 ** blocks - 1) frames before.

    inputs, width: of a frame, before and after. blocks: two convolutions each, `dilation` 1, 2, 4, … frames apart.
    """

    def __init__(self, inputs: int, width: int, blocks: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        widths = [inputs] + [width] * (blocks - 1)
        self.blocks = nn.ModuleList(
            _Block(wide, width, 2**number, causal=causal, dropout=dropout) for number, wide in enumerate(widths)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: [b, t, inputs]. mask: bool [b, t], False where padded, at the end. Returns [b, t, width]."""
        for block in self.blocks:
            x = block(x, mask)
        return x

    def step(self, x: Tensor, memory: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next frames of a stream: x [b, t, inputs], and what the step before returned as memory, None at first.

        Only for causal ones, whose memory does not grow."""
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            x, more = block.step(x, None if memory is None else memory[2 * number : 2 * number + 2])
            kept += more
        return x, tuple(kept)


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
    """A convolution along time, normalised frame by frame, so that a stream gives what the clip gives."""

    def __init__(self, inputs: int, width: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, width, KERNEL, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.far = dilation * (KERNEL - 1)
        self.padding = (self.far, 0) if causal else (self.far // 2, self.far // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            x = x * mask[:, :, None]
        return self._along(nn.functional.pad(x, (0, 0, *self.padding)))

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """memory: [b, far, inputs], the frames before; None: nothing was, as the padding of a clip says."""
        seen = nn.functional.pad(x, (0, 0, self.far, 0)) if memory is None else cat((memory, x), 1)
        return self._along(seen), seen[:, -self.far :]

    def _along(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.norm(self.convolution(x.transpose(1, 2)).transpose(1, 2)))
