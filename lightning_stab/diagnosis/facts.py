"""The facts of one moment of a training run: everything that rules may see, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from textwrap import fill
from typing import Any

from lightning_stab.arguments import one_of
from lightning_stab.errors import InvalidArgumentError

UNKNOWN = math.nan  # compares false with everything, so a rule never fires on what nobody measured
SAMPLED_STEP = "sampled step"
MOMENTS = ("start", SAMPLED_STEP, "validation", "end")


def _number(meaning: str, default: Any = UNKNOWN, *, of_validation: bool = False) -> Any:
    metadata = {"meaning": meaning, "of_validation": of_validation}
    return field(default=default, metadata=metadata)


def _of_validation(meaning: str) -> Any:
    return _number(meaning, of_validation=True)


def _by_layer(meaning: str) -> Any:
    return field(default_factory=dict, metadata={"meaning": meaning, "of_validation": False})


@dataclass(frozen=True)
class Facts:
    """What was measured up to one moment. A number that is not known is NaN; a layer is absent.

    Numbers that change with the units of loss, weights or gradients are ratios or logarithms of
    ratios, so that no rule needs an absolute threshold.

    Raises:
        InvalidArgumentError: for a fact or a moment that does not exist.
    """

    moment: str = _number(
        "`start` before the first step, `sampled step`, `validation` or `end`: what was measured"
        " last. Rules about validation count validations, the others sampled steps",
        default="",
    )
    step: int = _number("optimizer steps taken", default=0)
    epoch: float = _number("epochs done, with fractions", default=0.0)
    warming_up: float = _number("1 while the learning rate still rises, else 0")
    learning_rate: float = _number("of the first parameter group")
    rate_left: float = _number("the learning rate over its highest so far")
    progress: float = _number("how much of the planned run is done")

    identical_units: Mapping[str, float] = _by_layer(
        "by layer, the fraction of units whose incoming weights equal another's AND whose gradients"
        " do too, so that no step can tell them apart. In [0, 1], at the start"
    )
    start_loss_ratio: float = _number(
        "the first loss over that of a blind prediction: equal probabilities, in a regression zero"
    )
    input_size: float = _number(
        "the largest root mean square of a feature that enters the first weight layer"
    )
    input_spread: float = _number("log10 of the largest over the smallest such root mean square")
    target_size: float = _number("root mean square of a regression's targets")
    prediction_size: float = _number("root mean square of predictions over that of targets")
    doubled_softmax: float = _number("1 where a cross-entropy receives probabilities, else 0")
    doubled_sigmoid: float = _number("1 where a loss with a sigmoid receives a sigmoid's output")
    unreachable_targets: float = _number(
        "the fraction of a regression's targets that lie outside the range of the activation that"
        " makes its predictions (below 0 for ReLU, beyond 1 for tanh)"
    )
    rectified_logits: float = _number(
        "the fraction of zeros among logits that a ReLU makes for a cross-entropy"
    )
    batch_variety: float = _number(
        "how far the targets differ within a batch, over how far they differ overall: near 0 where"
        " each batch holds one class"
    )
    target_peak: float = _number(
        "the largest magnitude of any batch's second tensor, its targets, over the median batch's"
    )
    input_peak: float = _number(
        "the largest magnitude of any batch's first two tensors over the median batch's"
    )
    unregistered: float = _number(
        "how many parameters the loss depends on that the module does not know"
    )
    stale_gradients: float = _number(
        "1 where an earlier step's gradient is still there when new ones are added, else 0"
    )
    unoptimized: Mapping[str, float] = _by_layer(
        "by parameter, 1 for a trainable one in no optimizer"
    )
    without_gradient: Mapping[str, float] = _by_layer(
        "by parameter of an optimizer, the fraction of sampled steps at which it had no gradient"
    )

    depth: float = _number("linear and convolution layers in a row, the output layer among them")
    gradient_depth_start_log10: float = _number("`gradient_depth_log10` before the first step")
    gradient_depth_log10: float = _number(
        "log10 of the gradient's RMS at the first over that at the last hidden layer's"
        " pre-activations. Far below 0 where gradients vanish, far above where they explode"
    )
    activation_depth_log10: float = _number(
        "log10 of the standard deviation (over samples) of the last over that of the first hidden"
        " layer's pre-activations"
    )
    gradient_time_log10: float = _number(
        "log10 of the gradient's RMS at the first over that at the last time steps of a recurrent"
        " layer, the worst layer's"
    )
    gradient_growth_log10: float = _number(
        "log10 of the gradient's norm over its median in the first steps"
    )

    most_dead: float = _number(
        "the largest fraction of units, in any layer, that were zero on the samples of the window"
        " so far"
    )
    dead_fraction: Mapping[str, float] = _by_layer(
        "by layer, the fraction of units that were zero on every sample of the window"
    )
    saturated_at_start: Mapping[str, float] = _by_layer(
        "by layer, `saturated_fraction` before the first step"
    )
    saturated_fraction: Mapping[str, float] = _by_layer(
        "by layer, the fraction of entries at which the activation is flat"
    )
    attention_logits: Mapping[str, float] = _by_layer(
        "by layer, the standard deviation of attention's logits over the keys"
    )
    output_logits: float = _number("root mean square of what enters a cross-entropy")

    early_update_ratio: float = _number(
        "the median layer's ratio of update to weight: the largest in the first steps after warm-up"
    )
    update_ratio: float = _number(
        "the median layer's ratio of update to weight: the median of the recent sampled steps"
    )
    weight_growth: float = _number("the norm of all weights over what it was at the start")

    loss_ratio: float = _number("the recent loss over the first")
    early_rise: float = _number("the largest of the first losses over the very first")
    improvement: float = _number("how far the loss has come down, relative to its start")
    recent_improvement: float = _number(
        "the same within the last epoch, relative to the loss's start"
    )
    unexplained: float = _number(
        "the recent loss over that of the best constant prediction, 1 where nothing was learnt."
        " Known for cross-entropies, squared and absolute errors"
    )
    learnt: float = _number(
        "1 - `unexplained` where that is known, else `improvement`: 0 where nothing was learnt, 1"
        " for a perfect fit"
    )
    spikes: float = _number("losses in the latest interval far above the run's own recent past")
    spike_height: float = _number("the largest rise of a spike over the median loss before it")
    spiky_epochs: float = _number("how many epochs had spikes")
    relapse: float = _number("how much of what the loss had come down at best it has lost again")
    oscillation: float = _number("the loss's swings from step to step, relative to its start")
    nonfinite_losses: float = _number("losses in the latest interval that are NaN or infinite")
    nonfinite_gradients: Mapping[str, float] = _by_layer(
        "by parameter, 1 for one whose gradient had a NaN or an infinite entry when the run failed"
    )
    nonfinite_weights: Mapping[str, float] = _by_layer(
        "by parameter, 1 for one with a NaN or infinite entry"
    )

    validation_nonfinite: float = _of_validation(
        "1 where the latest validation loss is NaN or infinite"
    )
    validation_learnt: float = _of_validation(
        "1 - the best validation loss over that of the best constant prediction"
    )
    generalization_gap: float = _of_validation(
        "the best validation loss minus the recent training loss, over that of the best constant"
        " prediction"
    )
    validation_fall: float = _of_validation(
        "how far the validation metric has fallen from its best, relative to its best; of an error,"
        " how far it has risen from its best, relative to its start"
    )
    validation_rise: float = _of_validation(
        "how far the validation loss has risen from its best, relative to the distance that it had"
        " come down"
    )
    epochs_since_best: float = _of_validation("validations since the loss was best")

    def __new__(cls, *_: Any, **known: Any) -> Facts:
        """Refuse a fact that does not exist, which would switch its rules off."""
        for name in known:
            check_fact(name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.moment:
            one_of("moment", self.moment, MOMENTS)


MEANINGS = {f.name: f.metadata["meaning"] for f in fields(Facts)}
NAMES = frozenset(MEANINGS)
BY_LAYER = frozenset(f.name for f in fields(Facts) if f.type == "Mapping[str, float]")
OF_VALIDATION = frozenset(f.name for f in fields(Facts) if f.metadata["of_validation"])
Facts.__doc__ = f"{Facts.__doc__}\n    Attributes:\n" + "\n".join(
    fill(f"{n}: {m}.", 100, initial_indent=" " * 8, subsequent_indent=" " * 12)
    for n, m in MEANINGS.items()
)


def check_fact(name: str) -> None:
    """Refuse a name that is not a fact.

    Raises:
        InvalidArgumentError: with the nearest name.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidArgumentError(f"`fact` must be a field of `Facts`, got {name!r}.{hint}")
