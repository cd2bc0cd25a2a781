"""Scales of inputs and targets, and weights that start where nothing can be learnt."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import (
    Fault,
    Rule,
    error,
    error_at_once,
    warning,
    warning_at_once,
)

_LARGE_START = (
    "The first loss is {start_loss_ratio} times that of a blind prediction:"
    " the outputs start far too large."
)
_LARGE_WEIGHTS = "The weights start {start_scale:.0f} times as large as what keeps a signal's size,"
_SMALL_WEIGHTS = (
    "The weights start at {start_scale:.2g} of the size that keeps a signal's:"
    " what passes through the layers fades,"
)
_HUGE_INPUT = "Features enter the network at a size of {input_size}, and little is learnt."


def _nonfinite(at_start: str, clause: str) -> tuple[Rule, ...]:
    """Return the rules that name what showed at the start as the cause of what is NaN."""
    signs = ("nonfinite_weights > flag_set", "nonfinite_losses > any_nonfinite_loss")
    said = f"{clause}, and loss or weights are NaN or infinite."
    texts = (f"{sign} and {at_start} and loss_ratio > no_loss" for sign in signs)
    return tuple(error(text, said, persistence=1) for text in texts)


SCALE_FAULTS = (
    Fault("target-scale", 2, "targets so large that a regression does not reach them").found_by(
        warning(
            "target_size > large_target and prediction_size < small_prediction and some_steps",
            "The targets are large ({target_size}),"
            " and the predictions have reached {prediction_size:.1%} of their size.",
        ),
        warning(
            "target_size > large_target and learnt not> nothing_learnt and a_while"
            " and without_skill and not_falling and progress > half_the_run and meant_to_learn"
            " and with_gradient",
            "The targets are large ({target_size}), and nothing is learnt.",
        ),
        warning_at_once(
            "target_size > large_target and falls_behind and a_while",
            "The targets are large ({target_size}), and simple models do better.",
        ),
        *_nonfinite("target_size > large_target", "The targets are large ({target_size})"),
    ),
    Fault("input-scale", 3, "features enter unscaled, and it does harm").found_by(
        warning(
            "input_size > large_input and a_while and learnt not> little_learnt and not_falling"
            " and without_skill and input_peak not> outlying and start_scale not> large_start",
            "Features enter the network at a size of {input_size}, and it does not learn.",
        ),
        error_at_once(
            "input_size > large_input and loss_ratio > enormous_rise"
            " and unexplained > worse_than_constant",
            "Features enter the network at a size of {input_size},"
            " and the loss has risen to {loss_ratio} times its start.",
        ),
        *_nonfinite(
            "input_size > huge_input", "Features enter the network at a size of {input_size}"
        ),
        warning(
            "input_size > huge_input and epoch > some_epochs and step > tens_of_steps"
            " and samples not< hundreds_of_samples and progress > half_the_run and meant_to_learn"
            " and unknown_loss and not_well and input_peak not> outlying",
            _HUGE_INPUT,
        ),
        warning(
            "input_size > huge_input and validation_skill < well_learnt and a_while"
            " and skill_reached not> as_simple_models"
            " and progress > half_the_run and meant_to_learn and input_peak not> outlying",
            _HUGE_INPUT,
        ),
        warning_at_once(
            "input_size > huge_input and skill_reached < as_simple_models and progress > whole_run"
            " and a_while and meant_to_learn and input_peak not> outlying",
            _HUGE_INPUT,
        ),
        warning(
            "input_size < small_input and a_while and learnt not> hardly_learnt and not_falling"
            " and start_scale not< small_start",
            "Features enter the network at a size of only {input_size}, and it does not learn.",
        ),
        warning_at_once(
            "input_size < small_input and falls_short and a_while and start_scale not< small_start",
            "Features enter the network at a size of only {input_size}, and the run has not come to"
            " what simple models learn.",
        ),
        warning_at_once(
            "input_size > large_input and falls_short and a_while and start_scale not> large_start"
            " and input_peak not> outlying",
            "Features enter the network at a size of {input_size}, and the run has not come to what"
            " simple models learn.",
        ),
    ),
    Fault("bad-initialization", 4, "units start alike, or outputs start far too large").found_by(
        error_at_once(
            "identical_units > all_identical",
            "The units of {layers} have the same weights and the same gradients:"
            " no step can tell them apart.",
            source="Goodfellow, Bengio & Courville 2016, section 8.4",
        ),
        warning_at_once(
            "start_loss_ratio > large_start_loss and long_enough"
            " and learnt not> hardly_learnt and input_size not> large_input and not_falling"
            " and early_update_ratio not> large_update and dropout not> strong_dropout"
            " and without_skill",
            _LARGE_START,
        ),
        warning(
            "start_loss_ratio > enormous_start_loss and a_while"
            " and unexplained > worse_than_constant and input_size not> large_input"
            " and early_update_ratio not> large_update and dropout not> strong_dropout"
            " and without_skill",
            _LARGE_START,
        ),
        warning(
            "start_scale < small_start and some_steps and learnt not> little_learnt and moving"
            " and input_size not> large_input and without_skill",
            _SMALL_WEIGHTS + " and little is learnt.",
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning_at_once(
            "start_scale < small_start and skill_reached < as_simple_models and a_while"
            " and progress > whole_run and meant_to_learn and input_size not> large_input",
            _SMALL_WEIGHTS + " and the run has not come to what simple models learn.",
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning(
            "start_scale > large_start and some_steps and learnt not> little_learnt"
            " and highest_rate not< no_rate and ordinary_inputs and without_skill",
            _LARGE_WEIGHTS + " and little is learnt.",
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning(
            "start_scale > large_start and a_while and unexplained > worse_than_constant"
            " and highest_rate not< no_rate and input_size not> huge_input and without_skill",
            _LARGE_WEIGHTS + " and the loss is still above that of a constant prediction.",
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning(
            "start_scale > large_start and a_while and prediction_size > enormous_rise"
            " and highest_rate not< no_rate and input_size not> huge_input and without_skill",
            _LARGE_WEIGHTS + " and predictions are {prediction_size:.0f} times the targets' size.",
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning_at_once(
            "start_scale > large_start and skill_reached < as_simple_models and a_while"
            " and progress > whole_run and meant_to_learn and input_size not> large_input",
            _LARGE_WEIGHTS + " and simple models do better.",
        ),
        *_nonfinite(
            "start_scale > large_start and input_size not> huge_input",
            "The weights start {start_scale:.0f} times as large as what keeps a signal's size",
        ),
        error(
            "zero_gradient > all_identical and travelled < nowhere and most_dead < dead_layer"
            " and step > enough_steps and ordinary_values and constant_targets not> flag_set"
            " and softmax_of_one not> flag_set and highest_rate not< no_rate",
            "Every gradient has been exactly 0 since the start, and no unit is to blame:"
            " the outputs start where the loss is flat.",
        ),
    ),
)
