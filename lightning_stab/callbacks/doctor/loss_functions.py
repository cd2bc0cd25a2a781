"""What enters the loss: predictions, targets, and which activation made the predictions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_stab.functional import loss_baselines as baselines
from lightning_stab.functional.activation_kinds import CATALOGUE, FUNCTIONS
from lightning_stab.functional.sampling import few_rows

REGRESSION = (
    functional.mse_loss,
    functional.l1_loss,
    functional.smooth_l1_loss,
    functional.huber_loss,
)
SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)
LEAST_SAMPLES, LEAST_OTHERS = 8, 3  # of a batch, below which its variety is left to chance
UNWEIGHTED = {"weight": None, "pos_weight": None, "reduction": "mean"}
Pair = tuple[Tensor, Tensor]


class Targets:
    """What was seen of a run's targets: how often each class, the mean of each column."""

    def __init__(self) -> None:
        self._counts: dict[int, Tensor] = {}
        self._means: dict[torch.Size, tuple[Tensor, int]] = {}
        self._moments: deque[Tensor] = deque(maxlen=50)

    def counts(self, new: Tensor) -> Tensor:
        """Return the class counts so far, with the new ones."""
        known = self._counts.get(new.numel())
        self._counts[new.numel()] = new if known is None else known.to(new.device) + new
        return self._counts[new.numel()]

    def variance(self, target: Tensor) -> Tensor:
        """Return the variance of all targets so far, with these."""
        moments = torch.stack([target.mean(), target.square().mean()])
        self._moments.append(moments)
        mean, square = torch.stack([m.to(target.device) for m in self._moments]).mean(0)
        variance: Tensor = square - mean.square()
        return variance

    def mean(self, target: Tensor) -> tuple[Tensor, int]:
        """Return the mean of each column so far, with these rows, and how many rows it is of."""
        rows = len(target) if target.dim() else 1
        new = target.float().mean(0) if target.dim() else target.float()
        known, seen = self._means.get(new.shape, (torch.zeros_like(new), 0))
        mean = known.to(new.device) + (new - known.to(new.device)) * (rows / (seen + rows))
        self._means[new.shape] = (mean, seen + rows)
        return mean, seen + rows


@dataclass
class LossFunctions:
    """Listens to the loss functions of a training step."""

    targets: Targets = field(default_factory=Targets)  # of the run so far
    values: list[Tensor] = field(default_factory=list)  # what each call returned
    # for each call, the losses of the best constant and of the blind prediction
    baselines: list[Pair | None] = field(default_factory=list)
    measured: dict[str, Tensor] = field(default_factory=dict)  # by the name of the fact
    _made_by: dict[int, tuple[str, Tensor]] = field(default_factory=dict)

    def __call__(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note one call of a torch function."""
        if not isinstance(result, Tensor) or not torch.is_grad_enabled():
            return
        made_by = "softmax" if function in SOFTMAX else FUNCTIONS.get(function, "")
        if _range_of(made_by) is not None:
            # held, so that nothing else is put into its memory meanwhile
            self._made_by[_memory(result)] = (made_by, result)
        elif function in _MEASURES and not result.dim():
            call = _Call(function, args, kwargs)
            if isinstance(call.input, Tensor) and isinstance(call.target, Tensor):
                call.made_by = self._made_by.get(_memory(call.input), ("", result))[0]
                with torch.no_grad():
                    self.values.append(result.detach())
                    self.baselines.append(_MEASURES[function](self, call))

    def baseline_of(self, loss: Tensor) -> Tensor:
        """Return the two baselines ``[2]`` of ``loss`` if the calls add up to it, else NaN."""
        unknown = torch.full((2,), torch.nan, device=loss.device)
        known = [torch.stack(pair) for pair in self.baselines if pair is not None]
        if not known or len(known) < len(self.values):
            return unknown
        total = torch.stack([v.to(loss.device, loss.dtype) for v in self.values]).sum()
        is_whole = (total - loss).abs() <= 1e-3 * loss.abs()
        return torch.where(is_whole, torch.stack(known).sum(0).to(loss.device), unknown)

    def forget(self) -> None:
        """Let go of what the forward pass made."""
        self._made_by.clear()

    def _cross_entropy(self, call: _Call) -> Pair | None:
        logits = few_rows(call.input.detach()).float()
        dim = 1 if logits.dim() > 1 else 0
        slack = max(1e-3, torch.finfo(call.input.dtype).eps)
        is_probability = (logits >= 0).all() & ((logits.sum(dim) - 1).abs() <= slack).all()
        self._note("doubled_softmax", is_probability)
        self._note("output_logits", (logits - logits.mean(dim, keepdim=True)).std())
        rectified = (logits == 0).float().mean() if call.made_by == "relu" else logits.new_zeros(())
        self._note("rectified_logits", rectified)
        ignored = call.options.get("ignore_index", -100)
        new = baselines.class_frequencies(call.input, call.target, ignored)
        counts = self.targets.counts(new)
        size = new.sum()  # so many samples have so much variety at most
        most = torch.minimum(baselines.cross_entropy(counts)[0], size.log() + (size - 1) / 2 / size)
        others = size * (1 - counts.max() / counts.sum())  # to be expected of the rarer classes
        self._note_variety(baselines.cross_entropy(new)[0] / most, (size, others))
        smoothing = call.options.get("label_smoothing", 0.0)
        return baselines.cross_entropy(counts, smoothing) if call.is_plain else None

    def _with_logits(self, call: _Call) -> Pair | None:
        logits = few_rows(call.input.detach()).float()
        doubled = float(call.made_by == "sigmoid")
        self._note("doubled_sigmoid", torch.full((), doubled, device=logits.device))
        self._note("output_logits", logits.square().mean().sqrt())
        return self._probabilities(call)

    def _probabilities(self, call: _Call) -> Pair | None:
        target = call.target.detach()
        self._note_spread(target.float(), is_probability=True)
        return baselines.binary_cross_entropy(*self.targets.mean(target)) if call.is_plain else None

    def _regression(self, call: _Call) -> Pair | None:
        target, prediction = call.target.detach().float(), call.input.detach().float()
        low, high = _range_of(call.made_by) or (-torch.inf, torch.inf)
        slack = 1e-3 * target.abs().amax()
        outside = (target < low - slack) | (target > high + slack)
        self._note("unreachable_targets", outside.float().mean())
        size = target.square().mean().sqrt()
        self._note("target_size", size)
        self._note("prediction_size", prediction.square().mean().sqrt() / size)
        self._note_spread(target)
        if not call.is_plain:
            return None
        mean, rows = self.targets.mean(target)
        return baselines.regression(call.function, target, mean, rows, call.options)

    def _note_spread(self, target: Tensor, *, is_probability: bool = False) -> None:
        rows, variance = len(target) if target.dim() else 1, self.targets.variance(target)
        if rows >= LEAST_SAMPLES:
            size = torch.full_like(variance, rows)
            others = variance * target.numel() if is_probability else size
            value = target.var(correction=0) * (rows / (rows - 1)) / variance
            self._note_variety(value, (size, others))

    def _note_variety(self, value: Tensor, counts: Pair) -> None:
        """Note it where there is one call; the targets of several make up a batch together."""
        # of few samples, or few that are not of the commonest class, chance decides
        is_reliable = (counts[0] >= LEAST_SAMPLES) & (counts[1] >= LEAST_OTHERS)
        self._note("batch_variety", torch.where(is_reliable, value, torch.nan))
        if len(self.values) > 1:
            del self.measured["batch_variety"]

    def _note(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        known = self.measured.get(name)
        self.measured[name] = value if known is None else torch.maximum(known, value)


class _Call:
    """The arguments of a loss function, and which activation made its input."""

    def __init__(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        options = {k: v for k, v in kwargs.items() if k not in ("size_average", "reduce")}
        self.function = function
        self.input: Any = args[0] if args else options.pop("input", None)
        self.target: Any = args[1] if len(args) > 1 else options.pop("target", None)
        self.options = options
        self.made_by = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is a mean without weights, whose baseline is known."""
        return all(self.options.get(name, plain) == plain for name, plain in UNWEIGHTED.items())


_MEASURES: dict[Any, Callable[[LossFunctions, _Call], Pair | None]] = {
    functional.cross_entropy: LossFunctions._cross_entropy,
    functional.binary_cross_entropy_with_logits: LossFunctions._with_logits,
    functional.binary_cross_entropy: LossFunctions._probabilities,
    **dict.fromkeys(REGRESSION, LossFunctions._regression),
}


def _range_of(function: str) -> tuple[float, float] | None:
    """Return the bounds of what a function gives, None where they are not known."""
    row = CATALOGUE.get(function)
    return (0.0, 1.0) if function == "softmax" else row.range if row is not None else None


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
