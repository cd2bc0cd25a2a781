"""The facts of one moment of a training run: everything that rules may see, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import cleandoc
from typing import Any

from lightning_stab.arguments import did_you_mean, one_of
from lightning_stab.diagnosis.thresholds import THRESHOLDS
from lightning_stab.errors import InvalidArgumentError

UNKNOWN = math.nan  # compares false with everything, so a rule never fires on what nobody measured
SAMPLED_STEP = "sampled step"
LEAST_SKILL = 0.3  # of simple models, below which they say nothing of what can be learnt
MOMENTS = ("start", SAMPLED_STEP, "validation", "end")


@dataclass(frozen=True)
class Facts:
    """What was measured up to one moment. A number that is not known is NaN; a layer is absent.

    Numbers that change with the units of loss, weights or gradients are ratios or logarithms of
    ratios, so that no rule needs an absolute threshold.

    Raises:
        InvalidArgumentError: for a fact or a moment that does not exist.

    Attributes:
        moment: `start` before the first step, `sampled step`, `validation` or `end`: what was
            measured last. Rules about validation count validations, the others sampled steps.
        step: optimizer steps taken.
        epoch: epochs done, with fractions.
        samples: rows of the batches seen, about.
        warming_up: 1 while the learning rate still rises, else 0.
        learning_rate: of the first parameter group.
        rate_left: the learning rate over its highest so far.
        progress: how much of the planned run is done.
        on_purpose: 1 for a run that is not meant to train well: `overfit_batches`, `fast_dev_run`.
        highest_rate: the highest learning rate so far.
        identical_units: by layer, the fraction of units whose incoming weights equal another's AND
            whose gradients do too, so that no step can tell them apart. In [0, 1], at the start.
        start_scale: the root mean square, at the start, of a linear or convolution layer's weights
            times the root of the number of a unit's inputs; the median layer's: 0.6 to 1.4 with
            the usual initialisations.
        start_loss_ratio: the first loss over that of a blind prediction: equal probabilities, in a
            regression zero.
        input_size: the largest root mean square of a feature that enters the first weight layer.
        input_spread: log10 of the largest over the smallest such root mean square.
        target_size: root mean square of a regression's targets.
        prediction_size: root mean square of predictions over that of targets.
        doubled_softmax: 1 where a cross-entropy receives probabilities, else 0.
        doubled_sigmoid: 1 where a loss with a sigmoid receives a sigmoid's output.
        unreachable_targets: the fraction of a regression's targets that lie outside the range of
            the activation that makes its predictions (below 0 for ReLU, beyond 1 for tanh).
        rectified_logits: the fraction of zeros among logits that a ReLU makes for a cross-entropy.
        softmax_of_one: 1 where the softmax before the loss runs over a single unit, else 0.
        softmax_of_batch: 1 where it runs over the rows of the batch, else 0.
        squashed_logits: 1 where a cross-entropy receives the output of a sigmoid or tanh, else 0.
        exclusive_labels: 1 where each row of a binary cross-entropy has exactly one label of three
            or more, else 0.
        error_of_probabilities: 1 where a squared or absolute error compares probabilities with
            targets that are 0 or 1, else 0.
        reconstructs: 1 where a loss compares with the batch's own inputs, as an autoencoder's does,
            else 0.
        broadcast: 1 where predictions and targets meet in the shapes [N] and [N, 1], else 0.
        epoch_rows: how many rows an epoch has, about.
        neighbour_agreement: by how many standard errors the targets of rows that lie closest
            together agree more than chance has it: about 0 where targets do not depend on inputs.
            Unknown for inputs that are symbols.
        simple_skill: how well nearest neighbours or ridge regression predict each of some rows of
            the first epoch from the others, measured as `validation_skill` is.
        constant_targets: 1 where all targets seen are the same, else 0; unknown for few.
        constant_rows: the same of the targets in the batches, where the loss function is not known.
        impossible_targets: the fraction of a binary cross-entropy's targets outside [0, 1].
        failed: 1 where an error has ended the run, 0 where it was interrupted.
        class_out_of_range: 1 where the run failed because a target is no class of the outputs.
        batch_variety: how far the targets differ within a batch, over how far they differ overall:
            near 0 where each batch holds one class.
        target_peak: the largest magnitude of any batch's second tensor, its targets, over the
            median batch's.
        input_peak: the largest magnitude of any batch's first two tensors over the median batch's,
            or the size of the largest row of a sampled batch over its median row's, if that is
            more.
        nonfinite_inputs: the fraction of the batches seen whose first tensor of real numbers holds
            NaN or infinite values.
        unregistered: how many parameters the loss depends on that the module does not know.
        stale_gradients: 1 where an earlier step's gradient is still there when new ones are added,
            else 0.
        unoptimized: by parameter, 1 for a trainable one in no optimizer.
        without_gradient: by parameter of an optimizer, the fraction of sampled steps at which it
            had no gradient.
        frozen_held: by parameter, 1 for a frozen one that an optimizer holds.
        norm_rows: how many rows the batches have that batch normalisation sees; of fewer than 16
            only.
        norm_values: how many values batch normalisation has for each channel, the least of all
            layers; only those of fewer than 16 rows are counted.
        dropout: the largest probability of a dropout layer in training.
        weight_decay: the largest of the optimizer's groups.
        depth: linear and convolution layers in a row, the output layer among them.
        gradient_depth_start_log10: `gradient_depth_log10` before the first step.
        gradient_depth_log10: log10 of the gradient's RMS at the first over that at the last hidden
            layer's pre-activations. Far below 0 where gradients vanish, far above where they
            explode.
        activation_depth_log10: log10 of the standard deviation (over samples) of the last over that
            of the first hidden layer's pre-activations.
        gradient_time_log10: log10 of the gradient's RMS at the first over that at the last time
            steps of a recurrent layer, the worst layer's.
        zero_gradient: the fraction of the recent sampled steps at which every gradient was 0.
        gradient_growth_log10: log10 of the gradient's norm over its median in the first steps.
        most_dead: the largest fraction of units, in any layer, that were zero on the samples of the
            window so far.
        dead_fraction: by layer, the fraction of units that were zero on every sample of the window.
        saturated_at_start: by layer, `saturated_fraction` before the first step.
        saturated_fraction: by layer, the fraction of entries at which the activation is flat.
        attention_logits: by layer, the standard deviation of attention's logits over the keys.
        output_logits: root mean square of what enters a cross-entropy.
        early_update_ratio: the median layer's ratio of update to weight: the largest in the first
            steps after warm-up.
        update_ratio: the median layer's ratio of update to weight: the median of the recent sampled
            steps.
        travelled: how far the median layer's weights are from where they started, over their size.
        reach: how far the largest step so far would carry them in the planned run, if all steps
            went one way.
        straightness: the distance covered between two sampled steps over the length of the path:
            near 1 where each step goes the way of the one before, near 0 where they cancel.
        weight_growth: the norm of all weights over what it was at the start.
        loss_ratio: the recent loss over the first.
        early_rise: the largest of the first losses over the very first.
        highest_rise: the largest level of the loss so far over its start, in medians of several.
        improvement: how far the loss has come down, relative to its start.
        gain_noise: `improvement` in standard errors.
        falling: how far the loss fell from the first to the second half of the latest losses, in
            standard errors.
        recent_fall: the same relative to what nothing learnt loses, the start where that is
            unknown.
        recent_improvement: the same within the last epoch, relative to the loss's start.
        unexplained: the recent loss over that of the best constant prediction, 1 where nothing was
            learnt. Known for torch's losses; for others the least loss of shuffled pairs of inputs
            and targets stands for it.
        learnt: 1 - `unexplained` where that is known, else `improvement`: 0 where nothing was
            learnt, 1 for a perfect fit.
        spikes: losses in the latest interval far above the run's own recent past.
        spike_height: the largest rise of a spike over the median loss before it.
        spiky_epochs: how many epochs had spikes.
        relapse: how much of what the loss had come down at best it has lost again.
        relapse_noise: the same loss in standard errors.
        oscillation: the loss's swings from step to step, relative to its start.
        nonfinite_losses: losses in the latest interval that are NaN or infinite.
        nonfinite_gradients: by parameter, 1 for one whose gradient had a NaN or an infinite entry
            when the run failed.
        nonfinite_weights: by parameter, 1 for one with a NaN or infinite entry.
        validation_nonfinite: 1 where the latest validation loss is NaN or infinite.
        validation_shift: how far the validation rows' features lie from the training rows', in
            standard deviations: the root mean square over the features.
        validation_skill: how much better the latest validation metric is than a constant
            prediction's: 0 where it is no better, 1 where it is perfect. Of an accuracy
            (a - m) / (1 - m), with the share m of the commonest class; of a mean absolute or
            squared error 1 minus the square of its ratio, as R2 has it; unknown for other metrics.
        skill_reached: `validation_skill` over `simple_skill`; unknown where the latter is low, and
            where the loss is about the inputs. Follows from these where it is not given.
        useful_skill: `validation_skill`, but 0 where `skill_reached` is below 0.65: a metric may
            stand far above a constant prediction's where much more is easily learnt. Follows from
            both where it is not given.
        validation_stuck: 1 where the validation metric has not moved while the validation loss
            came down by half, else 0.
        validation_learnt: 1 - the best validation loss over that of the best constant prediction.
        generalization_gap: the best validation loss minus the recent training loss, over that of
            the best constant prediction.
        validation_fall: how far the validation metric has fallen from its best, relative to its
            best; of an error, how far it has risen from its best, relative to its start.
        validation_rise: how far the validation loss has risen from its best, relative to the
            distance that it had come down.
        epochs_since_best: validations since the loss was best.
    """

    moment: str = ""
    step: int = 0
    epoch: float = 0.0
    samples: float = UNKNOWN
    warming_up: float = UNKNOWN
    learning_rate: float = UNKNOWN
    rate_left: float = UNKNOWN
    progress: float = UNKNOWN
    on_purpose: float = UNKNOWN
    highest_rate: float = UNKNOWN
    identical_units: Mapping[str, float] = field(default_factory=dict)
    start_scale: float = UNKNOWN
    start_loss_ratio: float = UNKNOWN
    input_size: float = UNKNOWN
    input_spread: float = UNKNOWN
    target_size: float = UNKNOWN
    prediction_size: float = UNKNOWN
    doubled_softmax: float = UNKNOWN
    doubled_sigmoid: float = UNKNOWN
    unreachable_targets: float = UNKNOWN
    rectified_logits: float = UNKNOWN
    softmax_of_one: float = UNKNOWN
    softmax_of_batch: float = UNKNOWN
    squashed_logits: float = UNKNOWN
    exclusive_labels: float = UNKNOWN
    error_of_probabilities: float = UNKNOWN
    reconstructs: float = UNKNOWN
    broadcast: float = UNKNOWN
    epoch_rows: float = UNKNOWN
    neighbour_agreement: float = UNKNOWN
    simple_skill: float = UNKNOWN
    constant_targets: float = UNKNOWN
    constant_rows: float = UNKNOWN
    impossible_targets: float = UNKNOWN
    failed: float = UNKNOWN
    class_out_of_range: float = UNKNOWN
    batch_variety: float = UNKNOWN
    target_peak: float = UNKNOWN
    input_peak: float = UNKNOWN
    nonfinite_inputs: float = UNKNOWN
    unregistered: float = UNKNOWN
    stale_gradients: float = UNKNOWN
    unoptimized: Mapping[str, float] = field(default_factory=dict)
    without_gradient: Mapping[str, float] = field(default_factory=dict)
    frozen_held: Mapping[str, float] = field(default_factory=dict)
    norm_rows: float = UNKNOWN
    norm_values: float = UNKNOWN
    dropout: float = UNKNOWN
    weight_decay: float = UNKNOWN
    depth: float = UNKNOWN
    gradient_depth_start_log10: float = UNKNOWN
    gradient_depth_log10: float = UNKNOWN
    activation_depth_log10: float = UNKNOWN
    gradient_time_log10: float = UNKNOWN
    zero_gradient: float = UNKNOWN
    gradient_growth_log10: float = UNKNOWN
    most_dead: float = UNKNOWN
    dead_fraction: Mapping[str, float] = field(default_factory=dict)
    saturated_at_start: Mapping[str, float] = field(default_factory=dict)
    saturated_fraction: Mapping[str, float] = field(default_factory=dict)
    attention_logits: Mapping[str, float] = field(default_factory=dict)
    output_logits: float = UNKNOWN
    early_update_ratio: float = UNKNOWN
    update_ratio: float = UNKNOWN
    travelled: float = UNKNOWN
    reach: float = UNKNOWN
    straightness: float = UNKNOWN
    weight_growth: float = UNKNOWN
    loss_ratio: float = UNKNOWN
    early_rise: float = UNKNOWN
    highest_rise: float = UNKNOWN
    improvement: float = UNKNOWN
    gain_noise: float = UNKNOWN
    falling: float = UNKNOWN
    recent_fall: float = UNKNOWN
    recent_improvement: float = UNKNOWN
    unexplained: float = UNKNOWN
    learnt: float = UNKNOWN
    spikes: float = UNKNOWN
    spike_height: float = UNKNOWN
    spiky_epochs: float = UNKNOWN
    relapse: float = UNKNOWN
    relapse_noise: float = UNKNOWN
    oscillation: float = UNKNOWN
    nonfinite_losses: float = UNKNOWN
    nonfinite_gradients: Mapping[str, float] = field(default_factory=dict)
    nonfinite_weights: Mapping[str, float] = field(default_factory=dict)
    validation_nonfinite: float = UNKNOWN
    validation_shift: float = UNKNOWN
    validation_skill: float = UNKNOWN
    skill_reached: float = UNKNOWN
    useful_skill: float = UNKNOWN
    validation_stuck: float = UNKNOWN
    validation_learnt: float = UNKNOWN
    generalization_gap: float = UNKNOWN
    validation_fall: float = UNKNOWN
    validation_rise: float = UNKNOWN
    epochs_since_best: float = UNKNOWN

    def __new__(cls, *_: Any, **known: Any) -> Facts:
        """Refuse a fact that does not exist, which would switch its rules off."""
        for name in known:
            check_fact(name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.moment:
            one_of("moment", self.moment, MOMENTS)
        reached, useful = self.skill_reached, self.useful_skill
        # an autoencoder's metric is not about the targets of which simple models have their skill
        if math.isnan(reached) and self.simple_skill > LEAST_SKILL and not self.reconstructs > 0:
            reached = self.validation_skill / self.simple_skill
        if math.isnan(useful):
            below = THRESHOLDS["below_simple_models"]
            useful = 0.0 if reached < below else self.validation_skill
        self.__dict__.update(skill_reached=reached, useful_skill=useful)


_ATTRIBUTES = cleandoc(Facts.__doc__ or "").partition("Attributes:\n")[2]
MEANINGS = {
    name: " ".join(text.split()).removesuffix(".")
    for name, text in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", _ATTRIBUTES, re.MULTILINE)
}
NAMES = frozenset(f.name for f in fields(Facts))
BY_LAYER = frozenset(f.name for f in fields(Facts) if f.type == "Mapping[str, float]")
OF_VALIDATION = frozenset(name for name in NAMES if name.startswith("validation_")) | {
    "useful_skill",
    "generalization_gap",
    "epochs_since_best",
}


def check_fact(name: str) -> None:
    """Refuse a name that is not a fact, and say which one is nearest."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise InvalidArgumentError(f"`fact` must be a field of `Facts`, got {name!r}.{hint}")
