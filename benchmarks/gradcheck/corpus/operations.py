"""The operations of the corpus, each with a right hand-written backward."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.gradcheck.corpus import dense, losses, recurrent, spatial
from benchmarks.gradcheck.corpus.case import Built
from benchmarks.gradcheck.corpus.custom import Backward, Forward, custom

BATCH, WIDTH = 12, 8


@dataclass(frozen=True)
class Operation:
    """An operation inside a small net: Linear, the operation, a fixed read-out, a square.

    Args:
        name: of the operation.
        pair: its forward and its right backward.
        function: the Function made of both.
        weights: shapes of its own parameters, by name.
        shape: to which the hidden row of each sample is folded before.
    """

    name: str
    pair: tuple[Forward, Backward]
    function: type[torch.autograd.Function]
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    shape: tuple[int, ...] = (WIDTH,)

    def build(self, seed: int, function: type[torch.autograd.Function] | None = None) -> Built:
        """Return the net with ``function`` in place of the operation's own, batch and loss."""
        torch.manual_seed(seed)
        module = Sandwich(self, function or self.function)
        return module, torch.randn(BATCH, WIDTH), _loss


class Sandwich(nn.Module):
    """A linear layer, the operation with its own weights, and a fixed random read-out."""

    def __init__(self, operation: Operation, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        size = 1
        for length in operation.shape:
            size *= length
        self.before = nn.Linear(WIDTH, size)
        self.own = nn.ParameterDict(
            {
                name: nn.Parameter(0.5 * torch.randn(shape))
                for name, shape in operation.weights.items()
            }
        )
        self._function = function
        self._shape = operation.shape
        self._names = tuple(operation.weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number for each sample."""
        hidden = self.before(x).reshape(len(x), *self._shape)
        result = self._function.apply(hidden, *(self.own[name] for name in self._names))
        flat = result.reshape(len(x), -1) if result.dim() else result.reshape(1, 1)
        read_out = torch.linspace(-1, 2, flat.shape[1], dtype=flat.dtype).cos()
        return (flat * read_out).sum(1) + 0.5


def _loss(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch).square().mean()


def _operation(
    name: str,
    pair: tuple[Forward, Backward],
    weights: dict[str, tuple[int, ...]] | None = None,
    shape: tuple[int, ...] = (WIDTH,),
) -> Operation:
    title = "".join(part.capitalize() for part in name.split("_"))
    return Operation(name, pair, custom(title, *pair), weights or {}, shape)


OPERATIONS: tuple[Operation, ...] = (
    _operation("linear", dense.LINEAR, {"weight": (5, 8), "bias": (5,)}),
    _operation("bilinear", dense.BILINEAR, {"weight": (8, 8)}),
    _operation("relu", dense.RELU),
    _operation("tanh", dense.TANH),
    _operation("silu", dense.SILU),
    _operation("gelu", dense.GELU),
    _operation("prelu", dense.PRELU, {"slope": (8,)}),
    _operation("softmax", dense.SOFTMAX),
    _operation("log_sum_exp", dense.LOG_SUM_EXP),
    _operation("layer_norm", dense.LAYER_NORM, {"weight": (8,), "bias": (8,)}),
    _operation("rms_norm", dense.RMS_NORM, {"weight": (8,)}),
    _operation("batch_norm", dense.BATCH_NORM, {"weight": (8,), "bias": (8,)}),
    _operation("unit_length", dense.UNIT_LENGTH),
    _operation("running_sum", dense.RUNNING_SUM),
    _operation("convolution", spatial.CONVOLUTION, {"weight": (3, 2, 3)}, (2, 6)),
    _operation("convolution_2d", spatial.CONVOLUTION_2D, {"weight": (3, 2, 3, 3)}, (2, 5, 5)),
    _operation("max_pool", spatial.MAX_POOL, shape=(2, 6)),
    _operation("average_pool", spatial.AVERAGE_POOL, shape=(2, 6)),
    _operation("embedding", spatial.EMBEDDING, {"weight": (7, 8)}),
    _operation("attention", spatial.ATTENTION, {"query": (4, 4), "key": (4, 4)}, (5, 4)),
    _operation("rotary", spatial.ROTARY, shape=(5, 4)),
    _operation("recurrent_cell", recurrent.RNN, {"weight": (4, 4)}, (3, 4)),
    _operation("gated_cell", recurrent.GATED, {"weight": (4, 4)}, (3, 4)),
    _operation("cross_entropy", losses.CROSS_ENTROPY),
    _operation("huber", losses.HUBER),
    _operation("contrastive", losses.CONTRASTIVE),
)
