"""Recurrent layers, by their type: orthogonal gates, no offset, and a forget gate that is open."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_stab.functional.initialization.structured import Structure, draw_structured_

ORTHOGONAL_GATES = "orthogonal gates"
FORGET_BIAS = 1.0


def num_gates(owner: nn.Module) -> int:
    """Return how many gates a recurrent layer's weights are packed from.

    Example:
        >>> num_gates(nn.LSTM(3, 4)), num_gates(nn.GRUCell(3, 4)), num_gates(nn.RNN(3, 4))
        (4, 3, 1)
    """
    if isinstance(owner, (nn.LSTM, nn.LSTMCell)):
        return 4
    return 3 if isinstance(owner, (nn.GRU, nn.GRUCell)) else 1


def draw_gates_(owner: nn.Module, name: str, weight: Tensor, generator: torch.Generator) -> None:
    """Draw one weight of a recurrent layer with each gate's block orthogonal.

    Source: Saxe et al. 2014; Le et al. 2015.
    """
    blocks = 1 if name.startswith("weight_hr") else num_gates(owner)
    draw_structured_(weight, Structure(blocks=blocks), 1.0, generator)


def open_forget_gate_(owner: nn.Module, name: str, bias: Tensor) -> None:
    """Set a bias to 0, and the forget gate's part of an LSTM's input bias to 1.

    An LSTM adds two biases; the 1 belongs into ONE of them.

    Source: Gers et al. 2000; Jozefowicz et al. 2015.

    Example:
        >>> lstm = nn.LSTM(2, 1)
        >>> with torch.no_grad():
        ...     open_forget_gate_(lstm, "bias_ih_l0", lstm.bias_ih_l0)
        >>> lstm.bias_ih_l0.tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    bias.zero_()
    if num_gates(owner) == 4 and name.startswith("bias_ih"):
        bias.chunk(4)[1].fill_(FORGET_BIAS)
