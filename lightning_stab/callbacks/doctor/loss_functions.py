"""What enters the loss: predictions, targets, and which activation made the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_stab.callbacks.doctor.targets import LEAST_CONSTANT, Targets, is_plain
from lightning_stab.functional import loss_baselines as baselines
from lightning_stab.functional.activation_kinds import CATALOGUE, FUNCTIONS
from lightning_stab.functional.norms import storage_of
from lightning_stab.functional.sampling import few_rows

REGRESSION = (
    functional.mse_loss,
    functional.l1_loss,
    functional.smooth_l1_loss,
    functional.huber_loss,
)
SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)
LOG_SOFTMAX = (functional.log_softmax, torch.log_softmax, Tensor.log_softmax)
DIFFERENCES = (torch.sub, Tensor.sub)  # the second is what `-` calls
CHANCES = ("softmax", "sigmoid")
LEAST_SAMPLES, LEAST_OTHERS = 8, 3  # of a batch, below which its variety is left to chance
BINS = 256  # into which classes are counted whose number is not known
UNWEIGHTED = {"weight": None, "pos_weight": None, "reduction": "mean"}
Pair = tuple[Tensor, Tensor]


@dataclass
class LossFunctions:
    """Listens to the loss functions of a training step."""

    targets: Targets = field(default_factory=Targets)  # of the run so far
    of_batch: Tensor | None = None  # the batch's targets, where it is plain which they are
    inputs: Tensor | None = None  # its first tensor
    values: list[Tensor] = field(default_factory=list)  # what each call returned
    # for each call, the losses of the best constant and of the blind prediction
    baselines: list[Pair | None] = field(default_factory=list)
    measured: dict[str, Tensor] = field(default_factory=dict)  # by the name of the fact
    # what made a tensor, by its memory, and of a softmax what it was made of
    _made_by: dict[int, tuple[str, Tensor, Any]] = field(default_factory=dict)

    def __call__(
        self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        """Note one call of a torch function."""
        if not isinstance(result, Tensor) or not torch.is_grad_enabled():
            return
        made_by = self._maker(function, args, kwargs)
        if made_by:
            # held, so that nothing else is put into its memory meanwhile
            self._made_by[storage_of(result)] = (made_by, result, args[0] if args else None)
        elif function in _MEASURES and not result.dim():
            self._see_loss(_Call(function, args, kwargs), result)
        elif function in DIFFERENCES:
            named = (kwargs[name] for name in ("input", "other") if name in kwargs)
            self._see_difference((*args, *named)[:2])

    def _maker(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return which bounded activation a call is, nothing for other functions."""
        if function not in SOFTMAX and function not in LOG_SOFTMAX:
            made_by = FUNCTIONS.get(function, "")
            return made_by if _range_of(made_by) is not None else ""
        name = "softmax" if function in SOFTMAX else "log_softmax"
        value = args[0] if args else kwargs.get("input")
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if isinstance(value, Tensor) and value.dim() > 1 and isinstance(dim, int):
            if value.shape[dim] == 1:
                return f"{name} of one"
            if dim % value.dim() == 0 and value.dim() == 2:
                return f"{name} of batch"
        return name

    def _see_loss(self, call: _Call, result: Tensor) -> None:
        """Note a loss, what it received, and what a constant prediction would lose."""
        if not (isinstance(call.input, Tensor) and isinstance(call.target, Tensor)):
            return
        if not call.input.numel() or not call.target.numel():  # such as boxes, where there are none
            return
        maker, _, source = self._made_by.get(storage_of(call.input), ("", None, None))
        call.made_by = maker.partition(" ")[0]
        with torch.no_grad():
            self._note_flag("softmax_of_one", maker.endswith("of one"), result)
            self._note_flag("softmax_of_batch", maker.endswith("of batch"), result)
            self._note_flag("reconstructs", _is_part_of(call.target, self.inputs), result)
            if maker.startswith("log_softmax") and isinstance(source, Tensor):
                self._note_ends(source)
            self.values.append(result.detach())
            self.baselines.append(_MEASURES[call.function](self, call))

    def _see_difference(self, args: tuple[Any, Any]) -> None:
        """Note a prediction minus the batch's targets, as in a squared error written by hand."""
        if _is_every_pair(args) and args[0].requires_grad != args[1].requires_grad:
            rows = args[0] if self.of_batch is None else self.of_batch
            # other numbers are the net's own pairs, such as distances between places
            if len(args[0]) == rows.shape[:1].numel():
                self._note("broadcast", torch.ones((), device=args[0].device))
        for input_, target in (args, args[::-1]):
            is_pair = isinstance(input_, Tensor) and isinstance(target, Tensor)
            if is_pair and input_.requires_grad and self._is_of_batch(target):
                call = _Call(DIFFERENCES[0], (input_, target), {})
                call.made_by = self._made_by.get(storage_of(input_), ("",))[0].partition(" ")[0]
                if input_.shape == target.shape and target.is_floating_point():
                    with torch.no_grad():
                        self._note_regression(call)

    def _is_of_batch(self, tensor: Tensor) -> bool:
        known = self.of_batch
        if known is None or tensor.requires_grad or tensor.numel() != known.numel():
            return False
        return _is_part_of(tensor, known) and tensor.storage_offset() == known.storage_offset()

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
        self._note_ends(call.input)
        return self._classes(call)

    def _note_ends(self, value: Tensor) -> None:
        """Note which activation bounds the logits that enter a cross-entropy."""
        logits = few_rows(value.detach())
        made_by = self._made_by.get(storage_of(value), ("",))[0]
        zeros = (logits == 0).float().mean()
        self._note("rectified_logits", zeros if made_by == "relu" else torch.zeros_like(zeros))
        self._note_flag("squashed_logits", made_by in ("sigmoid", "tanh"), logits)

    def _classes(self, call: _Call) -> Pair | None:
        """Note how often each class occurs; logits or their logarithms of probabilities."""
        logits = call.input.detach()
        ignored = call.options.get("ignore_index", -100)
        target = call.target.detach()
        new = baselines.class_frequencies(logits, target, ignored)
        counts = self.targets.counts(new)
        self._note_constant(counts)
        self._note_classes(new, counts)
        if call.is_plain:
            smoothing = call.options.get("label_smoothing", 0.0)
            return baselines.cross_entropy(counts, smoothing)
        return baselines.weighted_cross_entropy(call.function, logits, target, counts, call.options)

    def _divergence(self, call: _Call) -> Pair | None:
        target = call.target.detach().float()
        chances = target.exp() if call.options.get("log_target") else target
        if chances.dim() < 2:
            return None
        mean, seen = self.targets.mean(chances)
        if chances.dim() == 2:
            self._note_classes(chances.sum(0), mean * seen)
        self._note("constant_targets", self.targets.are_constant(target))
        return baselines.divergence(call.function, target, mean, call.options)

    def _margin(self, call: _Call) -> Pair | None:
        target = call.target.detach()
        counts = self.targets.counts(baselines.class_frequencies(call.input, target))
        self._note_constant(counts)
        return baselines.margin(call.function, call.input.detach(), target, counts, call.options)

    def _signs(self, call: _Call) -> Pair | None:
        """Targets of -1 and 1, whose logistic loss is a cross-entropy."""
        target = (call.target.detach().float() + 1) / 2
        if target.dim():
            self._note("constant_targets", self.targets.are_constant(target))
        return baselines.binary_cross_entropy(*self.targets.mean(target)) if call.is_plain else None

    def _with_logits(self, call: _Call) -> Pair | None:
        logits = few_rows(call.input.detach()).float()
        self._note_flag("doubled_sigmoid", call.made_by == "sigmoid", logits)
        self._note("output_logits", logits.square().mean().sqrt())
        return self._probabilities(call)

    def _probabilities(self, call: _Call) -> Pair | None:
        target = call.target.detach().float()
        self._note_spread(target, is_probability=True)
        outside = (target < 0) | (target > 1)
        self._note("impossible_targets", outside.float().mean())
        if target.dim() == 2 and target.shape[1] > 2:
            one_each = ((target == 1).sum(1) == 1).all() & ((target == 0) | (target == 1)).all()
            self._note("exclusive_labels", one_each)
        if target.dim():
            self._note("constant_targets", self.targets.are_constant(target))
        mean, rows = self.targets.mean(target)
        if call.is_plain:
            return baselines.binary_cross_entropy(mean, rows)
        return baselines.weighted_binary(call.function, target, mean, call.options)

    def _regression(self, call: _Call) -> Pair | None:
        target, is_pairing = self._note_regression(call), _is_every_pair((call.input, call.target))
        self._note_flag("broadcast", is_pairing, target)
        mean, rows = self.targets.mean(target)
        if is_pairing or call.options.get("weight") is not None:
            return None
        if call.made_by in CHANCES and target.dim() > 1:
            exclusive = call.made_by == "softmax"
            if exclusive and target.dim() > 2:  # over which of the dimensions is not known
                return None
            return baselines.probabilities(
                call.function, target, mean, call.options, exclusive=exclusive
            )
        return baselines.regression(call.function, target, mean, rows, call.options)

    def _note_regression(self, call: _Call) -> Tensor:
        """Note targets and predictions of a regression; return the targets."""
        target: Tensor = call.target.detach().float()
        prediction: Tensor = call.input.detach().float()
        low, high = _range_of(call.made_by) or (-torch.inf, torch.inf)
        slack = 1e-3 * target.abs().amax()
        outside = (target < low - slack) | (target > high + slack)
        self._note("unreachable_targets", outside.float().mean())
        size = target.square().mean().sqrt()
        is_binary = ((target == 0) | (target == 1)).all() if target.dim() > 1 else size < 0
        is_chance = call.made_by in CHANCES
        self._note("error_of_probabilities", is_binary if is_chance else torch.zeros_like(size))
        self._note("target_size", size)
        self._note("prediction_size", prediction.square().mean().sqrt() / size)
        self._note_spread(target)
        if target.dim():
            self._note("constant_targets", self.targets.are_constant(target))
        return target

    def note_targets(self) -> None:
        """Note the variety of the batch's targets where no single call of torch received them."""
        if len(self.values) > 1:  # the targets of several calls make up a batch together
            self.measured.pop("batch_variety", None)
        target = self.of_batch
        if target is None or "batch_variety" in self.measured:
            return
        if not is_plain(target) or not target.numel():
            return
        if target.is_floating_point() and target.numel() == len(target):
            self._note_spread(target.float())
        elif target.dim() == 1 and not target.is_floating_point() and not target.is_complex():
            ones = torch.ones_like(target, dtype=torch.float32)
            new = ones.new_zeros(BINS).scatter_add_(0, target.long().remainder(BINS), ones)
            self._note_classes(new, self.targets.counts(new))

    def _note_classes(self, new: Tensor, counts: Tensor) -> None:
        """Note the variety of a batch's classes, which came so often in it and in all."""
        size = new.sum()  # so many samples have so much variety at most
        most = torch.minimum(baselines.cross_entropy(counts)[0], size.log() + (size - 1) / 2 / size)
        others = size * (1 - counts.max() / counts.sum())  # to be expected of the rarer classes
        self._note_variety(baselines.cross_entropy(new)[0] / most, (size, others))

    def _note_spread(self, target: Tensor, *, is_probability: bool = False) -> None:
        rows, variance = len(target) if target.dim() else 1, self.targets.variance(target)
        if rows >= LEAST_SAMPLES:
            size = torch.full_like(variance, rows)
            others = variance * target.numel() if is_probability else size
            value = target.var(correction=0) * (rows / (rows - 1)) / variance
            self._note_variety(value, (size, others))

    def _note_variety(self, value: Tensor, counts: Pair) -> None:
        # of few samples, or few that are not of the commonest class, chance decides
        is_reliable = (counts[0] >= LEAST_SAMPLES) & (counts[1] >= LEAST_OTHERS)
        self._note("batch_variety", torch.where(is_reliable, value, torch.nan))

    def _note_constant(self, counts: Tensor) -> None:
        """Note whether all targets are of one class, once some rows were seen."""
        total = counts.sum()
        self._note(
            "constant_targets",
            torch.where(total >= LEAST_CONSTANT, (counts.max() == total).float(), torch.nan),
        )

    def _note_flag(self, name: str, flag: bool, like: Tensor) -> None:
        self._note(name, torch.full((), float(flag), device=like.device))

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
    functional.nll_loss: LossFunctions._classes,
    functional.kl_div: LossFunctions._divergence,
    functional.multi_margin_loss: LossFunctions._margin,
    functional.soft_margin_loss: LossFunctions._signs,
    functional.multilabel_soft_margin_loss: LossFunctions._probabilities,
    functional.binary_cross_entropy_with_logits: LossFunctions._with_logits,
    functional.binary_cross_entropy: LossFunctions._probabilities,
    **dict.fromkeys(REGRESSION, LossFunctions._regression),
}


def _is_part_of(tensor: Tensor, whole: Tensor | None) -> bool:
    """Say whether a tensor is another one, or a view of it."""
    return whole is not None and storage_of(tensor) == storage_of(whole)


# the functions of which anything is noted
LISTENED = frozenset({*_MEASURES, *SOFTMAX, *LOG_SOFTMAX, *DIFFERENCES, *FUNCTIONS})


def _range_of(function: str) -> tuple[float, float] | None:
    """Return the bounds of what a function gives, None where they are not known."""
    row = CATALOGUE.get(function)
    return (0.0, 1.0) if function == "softmax" else row.range if row is not None else None


def _is_every_pair(args: Sequence[Any]) -> bool:
    """Say whether shapes [N] and [N, 1] meet, which gives all N times N pairs of rows.

    Example:
        >>> _is_every_pair((torch.zeros(4), torch.zeros(4, 1)))
        True
    """
    if len(args) < 2 or not all(isinstance(each, Tensor) for each in args[:2]):
        return False
    flat, column = sorted((each.shape for each in args[:2]), key=len)
    return len(flat) == 1 and len(column) == 2 and flat[0] > 1 and tuple(column) == (flat[0], 1)
