"""The built-in rules of Amazon SageMaker Debugger, from their documentation.

AWS, "List of Debugger built-in rules" (SageMaker developer guide, debugger-built-in-rules; read in
the version of June 2023). The rules themselves run in AWS's closed containers: what follows is
built from their descriptions and the documented defaults.

- VanishingGradient: the mean absolute value of a gradient is below 1e-7 -> `vanishing-gradient`.
- ExplodingTensor: a loss, gradient or weight is NaN or infinite -> `non-finite`.
- DeadRelu: over 50 % of the ReLUs of a layer are active in under 1 % of cases -> `dead-units`.
- SaturatedActivation: over 50 % of the units of a layer get inputs within (-9.4999, 9.4999) for
  tanh, (-23, 16.99999) for sigmoid, in under 1 % of cases -> `saturated-units`.
- PoorWeightInitialization, in its first 10 steps: the largest variance of the ReLUs' inputs is over
  10 times the smallest; or the 5th to 95th percentile of a gradient spans less than 0.001; or 5
  steps bring no lower loss -> `bad-initialization`.
- WeightUpdateRatio: mean update over mean weight (plus 1e-9) above 10 -> `learning-rate-too-high`,
  below 1e-8 -> `learning-rate-too-low`.
- AllZero: 100 % of a weight are zero -> `bad-initialization`, of a gradient ->
  `vanishing-gradient`.
- UnchangedTensor: `allclose` (1e-5, 1e-8) over 3 steps for some weights -> `unused-parameters`, for
  all of them -> `learning-rate-too-low`.
- LossNotDecreasing: against 10 steps before, the loss fell by less than 0.1 % or rose by more than
  5 % -> `plateau`.
- Overfit: (validation - training loss) / training loss is above 0.1, patience 1 -> `overfitting`.
- Overtraining: no loss lower by 0.01 in 5 steps of training and 10 validations -> `overfitting`.

Left out: rules for XGBoost, for run time, for two runs, for texts and images of one kind
(ClassImbalance, CheckInputImages, NLPSequenceRatio), and TensorVariance, which has no default.

What the documentation leaves open, and what was chosen:
- Its examples save tensors every 500 steps. Runs of a few hundred steps would be seen once, so
  every 10th batch is saved here, and "steps" of a rule are saved steps where it does not say more.
- A rule ends when it fires.
- PoorWeightInitialization names three checks, and says for each of the first two that the rule
  returns True; so any of the three fires. Gradients are those of weights, at most 4,096 entries.
- LossNotDecreasing: a rise up to `increase_threshold_percent` is allowed, as its text says; losses
  are those of single batches.
- Weights are parameters with "weight" in their name, frozen ones too; updates and changes are
  counted between saved steps. A unit is a channel of an image or a last-dimension feature.
- AllZero and UnchangedTensor need a choice of tensors: gradients and weights.
- Activations are seen where they are modules, as in the documented patterns (`relu_output`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.diagnosis.baselines import sagemaker_tensors as tensors
from benchmarks.diagnosis.baselines.findings import Baseline, RunningMean, loss_of, metric_of

RULES = (
    "VanishingGradient",
    "ExplodingTensor",
    "DeadRelu",
    "SaturatedActivation",
    "PoorWeightInitialization",
    "WeightUpdateRatio",
    "AllZero",
    "UnchangedTensor",
    "LossNotDecreasing",
    "Overfit",
    "Overtraining",
)
SAVE_INTERVAL = 10


class SageMakerRules(Baseline):
    """Saves tensors at intervals and lets the rules judge them.

    Args:
        save_interval: batches between two saved steps; the documented examples have 500.
        rules: the rules that run; all by default, though AWS lets users pick.
    """

    def __init__(self, save_interval: int = SAVE_INTERVAL, rules: Collection[str] = RULES) -> None:
        super().__init__()
        self.save_interval = save_interval
        self._open = set(rules)
        self._batches = 0
        self._saved = False
        self._activations = tensors.Activations()
        self._weights = tensors.Weights()
        self._gradients: list[tensors.GradientFacts] = []
        self._saved_losses: list[tuple[int, float]] = []
        self._epoch_loss = RunningMean()
        self._validation_losses: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """On a saved step, measure the weights and watch the activations."""
        self._saved = self._batches % self.save_interval == 0
        self._gradients = []
        if self._saved:
            self._activations.watch(pl_module)
            self._judge_weights(pl_module, trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """On a saved step, measure the gradients."""
        if self._saved:
            early = "PoorWeightInitialization" in self._open
            self._gradients.append(tensors.measure_gradients(optimizer, with_range=early))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Judge what a saved step left."""
        loss = loss_of(outputs)
        self._epoch_loss.add(loss)
        if self._saved:
            self._activations.stop()
            if loss is not None:
                self._saved_losses.append((self._batches, float(loss)))
            self._judge_gradients(trainer.global_step)
            self._judge_activations(trainer.global_step)
            self._judge_start(trainer.global_step)
            if loss is not None:
                self._judge_losses(trainer.global_step)
        self._batches += 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the validation loss with the mean training loss since the last one."""
        validation = metric_of(trainer, "val_loss")
        if trainer.sanity_checking or validation is None:
            return
        self._validation_losses.append(validation)
        training = self._epoch_loss.take()
        if training is not None and training > 0 and (validation - training) / training > 0.1:
            self._fire("Overfit", "overfitting", trainer.global_step)
        losses = [loss for _, loss in self._saved_losses]
        if tensors.stale(losses) >= 5 and tensors.stale(self._validation_losses) >= 10:
            self._fire("Overtraining", "overfitting", trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Take the hooks away."""
        self._activations.stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the hooks away."""
        self._activations.stop()
        self._weights = tensors.Weights()

    def _fire(self, rule: str, id: str, step: int) -> None:
        if rule in self._open:
            self.report(id, rule, step)
            self._open.discard(rule)

    def _judge_weights(self, module: pl.LightningModule, step: int) -> None:
        if not self._open & {"WeightUpdateRatio", "UnchangedTensor", "AllZero", "ExplodingTensor"}:
            return
        facts = self._weights.measure(module)
        if not all(facts.finite):
            self._fire("ExplodingTensor", "non-finite", step)
        if any(facts.all_zero):
            self._fire("AllZero", "bad-initialization", step)
        if any(ratio > 10 for ratio in facts.update_ratio):
            self._fire("WeightUpdateRatio", "learning-rate-too-high", step)
        if any(ratio < 1e-8 for ratio in facts.update_ratio):
            self._fire("WeightUpdateRatio", "learning-rate-too-low", step)
        unchanged = [count >= 2 for count in facts.unchanged]  # twice the same: over 3 steps
        if any(unchanged):
            id = "learning-rate-too-low" if all(unchanged) else "unused-parameters"
            self._fire("UnchangedTensor", id, step)

    def _judge_gradients(self, step: int) -> None:
        means = [mean for facts in self._gradients for mean in facts.means]
        if any(mean < 1e-7 for mean in means):
            self._fire("VanishingGradient", "vanishing-gradient", step)
        if any(mean == 0 for mean in means):
            self._fire("AllZero", "vanishing-gradient", step)
        losses = [self._saved_losses[-1][1]] if self._saved_losses else []
        if not torch.tensor(means + losses).isfinite().all():
            self._fire("ExplodingTensor", "non-finite", step)

    def _judge_activations(self, step: int) -> None:
        if any(share > 0.5 for share in self._activations.dead()):
            self._fire("DeadRelu", "dead-units", step)
        if any(share > 0.5 for share in self._activations.saturated()):
            self._fire("SaturatedActivation", "saturated-units", step)

    def _judge_start(self, step: int) -> None:
        losses = [loss for _, loss in self._saved_losses]
        variances = self._activations.variances()
        ranges = [spread for facts in self._gradients for spread in facts.ranges]
        uneven = bool(variances) and max(variances) > 10 * min(variances)
        narrow = any(spread < 0.001 for spread in ranges)
        if uneven or narrow or tensors.stale(losses, delta=0.0) >= 5:
            self._fire("PoorWeightInitialization", "bad-initialization", step)
        if self._batches >= 9 * self.save_interval:
            self._open.discard("PoorWeightInitialization")

    def _judge_losses(self, step: int) -> None:
        batch, loss = self._saved_losses[-1]
        earlier = [value for at, value in self._saved_losses if batch - at >= 10]
        if not earlier or earlier[-1] == 0:
            return
        fallen = 100 * (earlier[-1] - loss) / abs(earlier[-1])
        if fallen < -5 or 0 <= fallen < 0.1:
            self._fire("LossNotDecreasing", "plateau", step)
