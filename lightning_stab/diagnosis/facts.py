"""The facts of one moment of a training run: everything that rules may see, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

UNKNOWN = math.nan  # compares false with everything, so a rule never fires on what nobody measured


@dataclass(frozen=True)
class Facts:
    """What was measured up to one moment. A number that is not known is NaN; a layer is absent.

    Numbers that change with the units of loss, weights or gradients are ratios or logarithms of
    ratios, so that no rule needs an absolute threshold.

    Attributes:
        moment: ``start`` before the first step, ``look``, ``validation`` or ``end``: what was
            measured anew. Rules about validation count validations, the others looks.
        step: optimizer steps taken.
        epoch: epochs done, with fractions.
        warming_up: 1 while the learning rate still rises, else 0.
        learning_rate: of the first parameter group.
        rate_left: the learning rate over its highest so far.
        progress: how much of the planned run is done.

        identical_units: by layer, the fraction of units whose incoming weights equal another's AND
            whose gradients do too, so that no step can tell them apart. In [0, 1], at the start.
        start_loss_ratio: the first loss over that of a prediction that knows nothing of the
            targets: the same probability for each class, zero in a regression.
        input_size: the largest root mean square of a feature that enters the first weight layer.
        input_spread: log10 of the largest over the smallest such root mean square.
        target_size: root mean square of a regression's targets.
        prediction_size: root mean square of its predictions over that of the targets.
        doubled_softmax: 1 where the rows that enter a cross-entropy are probabilities, else 0.
        doubled_sigmoid: 1 where a sigmoid's output enters a loss that applies a sigmoid, else 0.
        unreachable_targets: the fraction of a regression's targets that lie outside the range of
            the activation that makes its predictions (below 0 for ReLU, beyond 1 for tanh).
        rectified_logits: the fraction of zeros among logits that a ReLU makes for a cross-entropy.
        batch_variety: how far the targets differ within a batch, over how far they differ in all:
            near 0 where each batch holds one class.
        target_peak: the same as the next for the second tensor of a batch alone, its targets.
        input_peak: the largest magnitude in any batch over that of the median batch.
        unregistered: how many parameters the loss depends on that the module does not know.
        stale_gradients: 1 where the gradient of an earlier step is still there when new ones are
            added to it, else 0.
        unoptimized: by parameter, 1 for one that is trainable and in no optimizer.
        without_gradient: by parameter, the fraction of the steps seen at which one that is in an
            optimizer had no gradient at all.

        depth: linear and convolution layers in a row, the output layer among them.
        gradient_depth_start_log10: the same as the next, before the first step.
        gradient_depth_log10: log10 of the gradient's RMS at the first over that at the last hidden
            layer's pre-activations. Far below 0 where gradients vanish, far above where they
            explode.
        activation_depth_log10: log10 of the standard deviation (over samples) of the last over that
            of the first hidden layer's pre-activations.
        gradient_time_log10: log10 of the gradient's RMS at the first over that at the last time
            steps of a recurrent layer, the worst layer's.
        gradient_growth_log10: log10 of the gradient's norm over its median in the first steps.

        most_dead: the largest fraction of units, in any layer, that were zero on the samples seen
            so far of the window.
        dead_fraction: by layer, the fraction of units that were zero on every sample of the window.
        saturated_at_start: by layer, the next, before the first step.
        saturated_fraction: by layer, the fraction of entries at which the activation is flat.
        attention_logits: by layer, the standard deviation of attention's logits over the keys.
        output_logits: root mean square of what enters a cross-entropy.

        early_update_ratio: the median layer's ratio of update to weight, the largest of the first
            steps after the warm-up.
        update_ratio: the same, the median of the recent steps that were looked at.
        weight_growth: the norm of all weights over what it was at the start.

        loss_ratio: the recent loss over the first.
        early_rise: the largest of the first losses over the very first.
        improvement: how far the loss has come down from its start, relative to its start.
        recent_improvement: how far it has come down within the last epoch, the same way.
        unexplained: the recent loss over that of the best constant prediction, 1 where nothing
            was learnt. Known for cross-entropies, squared and absolute errors.
        learnt: 1 - ``unexplained`` where that is known, else ``improvement``: 0 where nothing was
            learnt, 1 for a perfect fit.
        spikes: losses in the latest interval that lie far above the run's own recent past.
        spike_height: the largest rise of one over the median loss before it.
        spiky_epochs: in how many epochs there were any.
        relapse: how much of what the loss had come down at best it has lost again.
        oscillation: the size of the loss's swings from step to step over its recent level.
        nonfinite_losses: how many of the losses in the latest interval are NaN or infinite.
        nonfinite_gradients: by parameter, 1 for one whose gradient had a NaN or an infinite entry
            when the run failed.
        nonfinite_weights: by parameter, 1 for one that has a NaN or an infinite entry.

        validation_nonfinite: 1 where the latest validation loss is NaN or infinite.
        validation_learnt: 1 - the best validation loss over that of the best constant prediction.
        generalization_gap: the best validation loss minus the recent training loss, over that of
            the best constant prediction.
        validation_fall: how far the validation metric has fallen from its best, relative to its
            best; of an error, how far it has risen from its best, relative to its start.
        validation_rise: how far the validation loss has risen from its best, relative to the
            distance that it had come down.
        epochs_since_best: epochs since the validation loss was best.
    """

    moment: str = ""
    step: int = 0
    epoch: float = 0.0
    warming_up: float = UNKNOWN
    learning_rate: float = UNKNOWN
    rate_left: float = UNKNOWN
    progress: float = UNKNOWN

    identical_units: Mapping[str, float] = field(default_factory=dict)
    start_loss_ratio: float = UNKNOWN
    input_size: float = UNKNOWN
    input_spread: float = UNKNOWN
    target_size: float = UNKNOWN
    prediction_size: float = UNKNOWN
    doubled_softmax: float = UNKNOWN
    doubled_sigmoid: float = UNKNOWN
    unreachable_targets: float = UNKNOWN
    rectified_logits: float = UNKNOWN
    batch_variety: float = UNKNOWN
    target_peak: float = UNKNOWN
    input_peak: float = UNKNOWN
    unregistered: float = UNKNOWN
    stale_gradients: float = UNKNOWN
    unoptimized: Mapping[str, float] = field(default_factory=dict)
    without_gradient: Mapping[str, float] = field(default_factory=dict)

    depth: float = UNKNOWN
    gradient_depth_start_log10: float = UNKNOWN
    gradient_depth_log10: float = UNKNOWN
    activation_depth_log10: float = UNKNOWN
    gradient_time_log10: float = UNKNOWN
    gradient_growth_log10: float = UNKNOWN

    most_dead: float = UNKNOWN
    dead_fraction: Mapping[str, float] = field(default_factory=dict)
    saturated_at_start: Mapping[str, float] = field(default_factory=dict)
    saturated_fraction: Mapping[str, float] = field(default_factory=dict)
    attention_logits: Mapping[str, float] = field(default_factory=dict)
    output_logits: float = UNKNOWN

    early_update_ratio: float = UNKNOWN
    update_ratio: float = UNKNOWN
    weight_growth: float = UNKNOWN

    loss_ratio: float = UNKNOWN
    early_rise: float = UNKNOWN
    improvement: float = UNKNOWN
    recent_improvement: float = UNKNOWN
    unexplained: float = UNKNOWN
    learnt: float = UNKNOWN
    spikes: float = UNKNOWN
    spike_height: float = UNKNOWN
    spiky_epochs: float = UNKNOWN
    relapse: float = UNKNOWN
    oscillation: float = UNKNOWN
    nonfinite_losses: float = UNKNOWN
    nonfinite_gradients: Mapping[str, float] = field(default_factory=dict)
    nonfinite_weights: Mapping[str, float] = field(default_factory=dict)

    validation_nonfinite: float = UNKNOWN
    validation_learnt: float = UNKNOWN
    generalization_gap: float = UNKNOWN
    validation_fall: float = UNKNOWN
    validation_rise: float = UNKNOWN
    epochs_since_best: float = UNKNOWN


BY_LAYER = frozenset(f.name for f in fields(Facts) if "Mapping" in str(f.type))
NAMES = frozenset(f.name for f in fields(Facts))
OF_VALIDATION = frozenset(
    n
    for n in NAMES
    if n.startswith("validation_") or n in ("generalization_gap", "epochs_since_best")
)
