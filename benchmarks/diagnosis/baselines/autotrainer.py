"""The detection rules of AUTOTRAINER, from the paper's words and formulas.

Zhang, Zhai, Ma, Shen: "AUTOTRAINER: An Automatic DNN Training Problem Detection and Repair
System", ICSE 2021. Symptoms in section II-B to II-D, formulas in table I and section IV-B, default
thresholds in section V-D, frequency of checking in section V-C. An iteration of the paper is an
epoch here: its figures count both up to the same 50.

| problem | symptom (table I), k the current iteration | thresholds (V-D) |
|---|---|---|
| vanishing gradient | G2/G3 ... G(n-1)/Gn <= b1 and G2 <= b2, max accuracy <= T | 1e-3, 1e-4 |
| exploding gradient | the same product >= b3, or a NaN, max accuracy <= T | 70 |
| dying ReLU | share of neurons whose gradient is 0 >= g, max accuracy <= T | 0.7 |
| oscillating loss | number of i with A[i] - B[i] >= z, over k, >= e | 0.03, 0.2 |
| slow convergence | every change of accuracy so far <= d | 0.01 |

G is the l2 norm of the gradient of a layer's parameters; the product telescopes to the first layer
over the last. A and B are the local maxima and minima of the accuracy in time order. The windows a1
to a3 are 0 (V-D): the current iteration alone. Checked every 3 iterations (V-C).

What the paper leaves open, and what was chosen:
- T, the accuracy that is good enough, is said to depend on the task (V-D). 0.6 is the default of
  the authors' repository (shiningrain/AUTOTRAINER), whose README says that its parameters are those
  of the paper.
- The formula of slow convergence has no T, but section II-D describes it as an accuracy that "holds
  a low value": it is asked for T too, or every run that starts well would be accused.
- Table I counts oscillation in accuracy, section IV-B speaks of loss values. Accuracy is used where
  there is one, else the mean training loss of the epoch.
- Accuracy is the logged training accuracy, else the validation accuracy. Where none is logged, T
  is taken as not reached, and slow convergence cannot be judged.
- A neuron is a row of the weight of a linear or convolution layer. l2 is the first layer with
  weights, as Keras counts the input as l1. With several optimizers each one's layers are a net.
- Slow convergence is reported as `learning-rate-too-low`, the suite's nearest name.
- A run of less than 3 epochs is checked once, at its end.
"""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from benchmarks.diagnosis.baselines.findings import Baseline, RunningMean, loss_of, metric_of

VANISHING_PRODUCT = 1e-3
VANISHING_NORM = 1e-4
EXPLODING_PRODUCT = 70.0
DEAD_SHARE = 0.7
SWING = 0.03
SWING_SHARE = 0.2
SLOW_CHANGE = 0.01
GOOD_ACCURACY = 0.6
CHECK_EVERY = 3


class AutoTrainerRules(Baseline):
    """Judges the run every `check_every` epochs from gradients, accuracies and losses.

    Args:
        check_every: epochs between two checks; 3 is the paper's default.
    """

    def __init__(self, check_every: int = CHECK_EVERY) -> None:
        super().__init__()
        self.check_every = check_every
        self.accuracies: list[float] = []
        self.losses: list[float] = []
        self._epoch_loss = RunningMean()
        self._gradients: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._checked = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the gradients of the epoch before."""
        self._gradients = {}

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Measure the gradients of the epoch's last step."""
        if trainer.is_last_batch or trainer.global_step + 1 >= trainer.max_steps > 0:
            owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
            self._gradients[id(optimizer)] = _measure(pl_module, owned)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Add the loss to the epoch's mean."""
        self._epoch_loss.add(loss_of(outputs))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch's figures, and judge them when it is time."""
        accuracy = metric_of(trainer, "train_acc", "train_accuracy", "val_acc", "val_accuracy")
        if accuracy is not None:
            self.accuracies.append(accuracy)
        loss = self._epoch_loss.take()
        if loss is not None:
            self.losses.append(loss)
        if (trainer.current_epoch + 1) % self.check_every == 0:
            self._check(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge a run that was too short to be judged before."""
        if not self._checked:
            self._check(trainer.global_step)

    def _check(self, step: int) -> None:
        self._checked = True
        good = bool(self.accuracies) and max(self.accuracies) > GOOD_ACCURACY
        if not good:
            for norms, dead in self._gradients.values():
                for id in gradient_problems(_values(norms), _values(dead)):
                    self.report(id, id, step)
        series = self.accuracies or self.losses
        if series and swings(series) >= SWING_SHARE * len(series):
            self.report("oscillating-loss", "oscillating loss", step)
        changes = [abs(b - a) for a, b in zip(self.accuracies, self.accuracies[1:], strict=False)]
        if not good and changes and max(changes) <= SLOW_CHANGE:
            self.report("learning-rate-too-low", "slow convergence", step)


def gradient_problems(norms: list[float], dead: list[float]) -> list[str]:
    """Return the ids that table I gives to gradients of layers and shares of dead neurons.

    Args:
        norms: the l2 norm of each layer's gradient, from the input to the output.
        dead: the neurons with a gradient of zero, and all neurons.
    """
    problems = []
    if any(math.isnan(norm) for norm in norms):
        problems.append("exploding-gradient")
    elif len(norms) > 1 and norms[0] + norms[-1] > 0:
        if norms[0] <= min(VANISHING_PRODUCT * norms[-1], VANISHING_NORM):
            problems.append("vanishing-gradient")
        if norms[0] >= EXPLODING_PRODUCT * norms[-1]:
            problems.append("exploding-gradient")
    if dead and dead[1] and dead[0] >= DEAD_SHARE * dead[1]:
        problems.append("dead-units")
    return problems


def swings(series: list[float]) -> int:
    """Return how often a local maximum stands 0.03 or more above the minimum of the same rank."""
    maxima, minima = [], []
    for before, here, after in zip(series, series[1:], series[2:], strict=False):
        if before < here >= after:
            maxima.append(here)
        elif before > here <= after:
            minima.append(here)
    return sum(high - low >= SWING for high, low in zip(maxima, minima, strict=False))


@torch.no_grad()
def _measure(module: nn.Module, owned: set[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the norm of each layer's gradient, and the counts of dead and of all neurons."""
    norms, dead, total = [], [], 0
    for layer in module.modules():
        parameters = [p for p in layer.parameters(recurse=False) if id(p) in owned]
        gradients = [_dense(p.grad) for p in parameters if p.grad is not None]
        if not any(p.dim() > 1 for p in parameters) or not gradients:
            continue
        norms.append(torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm())
        if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            continue
        if not isinstance(layer.weight, Tensor) or layer.weight.grad is None:
            continue
        transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        rows = layer.weight.grad.transpose(0, 1) if transposed else layer.weight.grad
        dead.append((rows.flatten(1) == 0).all(dim=1).sum())
        total += len(rows)
    counts = [torch.stack(dead).sum(), torch.tensor(total)] if dead else []
    return norms, counts


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return gradient.detach().float()


def _values(tensors: list[Tensor]) -> list[float]:
    return [float(tensor) for tensor in tensors]
