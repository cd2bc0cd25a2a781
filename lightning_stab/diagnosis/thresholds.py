"""Every number that a rule compares with, by name, and the guards that several rules share.

Each number can be replaced by ``thresholds=``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType

THRESHOLDS = MappingProxyType(
    {
        # what is a fault by its form
        "flag_set": 0.5,  # facts that are 0 or 1
        "all_identical": 0.7,  # of a layer's units
        "large_start_loss": 6.0,  # times the loss of the best constant prediction
        "enormous_start_loss": 50.0,
        "small_start": 0.05,  # of `start_scale`
        "large_start": 5.0,
        "nowhere": 1e-7,  # far from the start, of the weights' size
        "no_agreement": 2.0,  # standard errors
        "no_sign": 1.0,
        "somewhere": 0.01,
        "never_a_gradient": 0.99,  # of the sampled steps
        "enough_steps": 8.0,  # optimizer steps before "never" is said
        "early_steps": 15.0,
        "tens_of_steps": 40.0,
        "many_steps": 95.0,
        "hundreds_of_steps": 190.0,
        "early_samples": 60.0,  # rows of the batches seen
        "hundreds_of_samples": 150.0,
        "many_rectified": 0.2,  # of the logits
        "one_class_batches": 0.6,
        "many_unreachable": 0.05,  # of the targets
        "many_impossible": 0.02,
        "few_values": 3.5,  # that batch normalisation has for each channel
        "few_norm_rows": 3.5,
        "strong_dropout": 0.85,
        "strong_decay": 0.3,
        # depth and time, log10 of a ratio
        "vanishing_depth": -3.0,
        "severe_vanishing_depth": -6.0,
        "exploding_depth": 3.0,
        "joint_shrinkage": -2.0,  # of the signal forward and of the gradient back
        "severe_exploding_depth": 6.0,
        "vanishing_time": -6.0,
        "exploding_time": 3.0,
        "exploding_growth": 3.0,
        # units
        "dead_layer": 0.95,
        "many_dead": 0.8,
        "half_saturated": 0.5,
        "many_saturated": 0.7,
        "large_attention_logits": 30.0,
        # learning rate
        "large_update": 0.2,
        "notable_update": 0.05,
        "total_update": 1.0,
        "nearly_gone": 0.01,  # of the highest learning rate
        "small_update": 1e-4,
        "no_rate": 1e-30,
        "no_loss": 1e-30,
        "short_reach": 0.03,  # of the weights' size, in the whole run
        "little_reach": 0.1,
        "limited_reach": 0.2,
        "straight": 0.5,  # distance over path
        "risen_at_all": 1.1,
        "risen_loss": 3.0,
        "sudden_rise": 3.0,
        "enormous_rise": 10.0,
        "worse_than_constant": 1.5,
        "small_improvement": 0.05,
        "clear_trend": 4.0,  # standard errors
        "faint_trend": 2.0,
        "notable_fall": 0.02,
        "clear_fall": 0.05,
        "steep_fall": 0.1,
        # loss
        "outlying": 30.0,
        "large_spike": 3.0,
        "recurring": 2.5,  # epochs with spikes
        "notable_relapse": 0.3,  # of the best gain
        "much_lost": 0.5,
        "grown_weights": 6.0,
        "huge_growth": 30.0,
        "shrunk_weights": 0.2,
        "swinging_loss": 0.5,
        "any_nonfinite_loss": 0.5,  # losses in an interval
        "standing_still": 0.01,
        "some_progress": 0.05,  # within an epoch, of the start
        "few_rows": 50.0,  # of an epoch
        "very_few_rows": 20.0,
        "nothing_learnt": 0.03,
        "none_at_all": 0.0,
        "poor_skill": 0.2,
        "some_skill": 0.65,
        "high_skill": 0.9,
        "hardly_learnt": 0.15,
        "little_learnt": 0.33,
        "half_learnt": 0.5,
        "well_learnt": 0.8,
        "nearly_all_dropped": 0.95,
        "worse_in_training": -0.2,
        "notable_gap": 0.2,
        "small_gap": 0.1,
        "all_learnt": 0.9,
        "level_with_simple_models": 0.9,  # of what simple models learn
        "as_simple_models": 0.85,
        "near_simple_models": 0.8,
        "below_simple_models": 0.65,
        "far_from_simple_models": 0.55,
        # scales
        "large_input": 10.0,
        "huge_input": 50.0,
        "small_input": 0.02,
        "large_target": 30.0,
        "small_prediction": 0.3,
        # validation
        "fallen_metric": 0.2,
        "some_shift": 0.4,  # standard deviations between validation and training rows
        "notable_shift": 0.5,
        "unlike": 1.5,
        "wide_gap": 0.35,
        "risen_validation_loss": 0.2,
        # time
        "early": 0.3,  # epochs
        "one_epoch": 0.95,
        "half_the_run": 0.5,
        "most_of_the_run": 0.75,
        "whole_run": 0.99,
        "short_run": 1000.0,  # optimizer steps
        "far_into_the_run": 0.4,
        "some_epochs": 2.95,
    }
)

# conditions that rule out other causes, by the name under which rules ask for them together
GUARDS = MappingProxyType(
    {
        "not_falling": "falling not> clear_trend",  # a slow start is no fault
        "not_improving": "recent_improvement not> some_progress",
        "moving": "reach not< short_reach and highest_rate not< no_rate",
        "at_full_rate": "warming_up not> flag_set and highest_rate not< no_rate",
        "with_gradient": "zero_gradient not> flag_set",
        "ordinary_flow": "most_dead not> dead_layer and gradient_depth_log10 not< vanishing_depth",
        "meant_to_learn": "on_purpose not> flag_set",
        "ordinary_steps": (
            "early_update_ratio not> large_update and highest_rise not> sudden_rise"
        ),
        "ordinary_inputs": "input_size not> large_input and input_size not< small_input",
        "ordinary_start": (
            "input_peak not> outlying and start_loss_ratio not> large_start_loss"
            " and input_size not> large_input"
        ),
        "ordinary_data": "ordinary_start and target_size not> large_target",
        "ordinary_values": "input_peak not> outlying and input_size not> large_input",
        "kept_weights": "weight_growth not< shrunk_weights and weight_decay not> strong_decay",
        # a metric far above that of a constant prediction: then a symptom does no harm
        "without_skill": "useful_skill not> half_learnt and skill_reached not> as_simple_models",
        "learns_little": "learnt not> little_learnt and without_skill",
        "learns_half": "learnt not> half_learnt and without_skill",
        # what is wrong by its form is said unless the run does well in spite of it
        "not_well": (
            "learnt not> well_learnt and validation_skill not> high_skill"
            " and skill_reached not> as_simple_models"
        ),
        # the baseline is that of shuffled pairs, which large outputs make too large
        "unknown_loss": "start_loss_ratio not> flag_set",
        # what is NaN has another cause where one of these shows it from the start
        "no_cause_at_start": (
            "input_size not> huge_input and target_size not> large_target"
            " and start_scale not> large_start"
        ),
    }
)
# how long a run has lasted, in epochs, steps and rows: epochs may have one step, batches one row
TIMES = MappingProxyType(
    {
        "some_steps": "epoch > early and step > early_steps and samples not< early_samples",
        "a_while": (
            "epoch > one_epoch and step > tens_of_steps and samples not< hundreds_of_samples"
        ),
        "long_by_steps": (
            "epoch > one_epoch and step > hundreds_of_steps and samples not< hundreds_of_samples"
        ),
        "long_enough": (
            "epoch > some_epochs and step > many_steps and samples not< hundreds_of_samples"
        ),
    }
)
# how a run ends: short of simple models without a sign of one fault, or behind them with one
ENDS = MappingProxyType(
    {
        name: f"skill_reached < {level} and progress > whole_run and on_purpose not> flag_set"
        for name, level in (
            ("falls_short", "far_from_simple_models"),
            ("falls_behind", "level_with_simple_models"),
        )
    }
)
_RENAMED = {
    "present": "flag_set",
    "both_shrink": "joint_shrinkage",
    "no_loss_lost": "any_nonfinite_loss",
    "an_epoch": "one_epoch",
}


def current_names(thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return the thresholds by the names that they have now; an old name earns a warning.

    Example:
        >>> current_names({"plateau.some_epochs": 5.0})
        {'plateau.some_epochs': 5.0}
    """
    renamed = {}
    for name, value in thresholds.items():
        start, dot, own = name.rpartition(".")
        new = f"{start}{dot}{_RENAMED.get(own, own)}"
        if new != name:
            warnings.warn(
                f"The threshold {name!r} is now called {new!r}; the old name will be refused in a"
                " later version.",
                FutureWarning,
                stacklevel=2,
            )
        renamed[new] = value
    return renamed
