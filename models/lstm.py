"""An LSTM as temporal layers of the head."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Lstm(nn.LSTM):
    """An nn.LSTM with the interface of TemporalLayers (head.py). It is a subclass, so its weights keep their names."""

    def __init__(self, inputs: int, hidden: int, layers: int, *, bidirectional: bool, dropout: float) -> None:
        between = dropout if layers > 1 else 0.0
        super().__init__(inputs, hidden, layers, batch_first=True, bidirectional=bidirectional, dropout=between)

    @property
    def width(self) -> int:
        return self.hidden_size * (2 if self.bidirectional else 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """x: [b, t, inputs]. mask: bool [b, t], False where padded, at the end. Returns [b, t, width]."""
        if mask is None or mask.all():
            return super().forward(x)[0]
        lengths = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).clamp(min=1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def step(self, x: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next frames of a stream: x [b, t, inputs], and the memory that the last step returned, None at first."""
        return super().forward(x, memory)

    @torch.no_grad()
    def initialise(self) -> None:
        """Orthogonal recurrent weights, and a forget gate that is open at first."""
        for name, parameter in self.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                parameter.zero_()
                if name.startswith("bias_ih"):  # the two biases are added, so only one is 1
                    parameter.chunk(4)[1].fill_(1.0)
