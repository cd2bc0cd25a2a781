"""What is wrong in the course of the run: learning rate, loss and validation."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import (
    Fault,
    error,
    error_at_once,
    info,
    warning,
    warning_at_once,
)

_ERROR_OF_PROBABILITIES = (
    "A squared or absolute error compares probabilities with classes, and learns little:"
    " its gradient vanishes where a prediction is sure and wrong."
)
_EXCLUSIVE = (
    "Each row has exactly one label, but each class gets a sigmoid of its own, and little is"
    " learnt."
)

_NO_REACH = "In the whole run the weights can change by no more than {reach:.1%} of their size,"
_STILL_RISING = (
    "After {progress:.0%} of the run the learning rate is still rising,"
    " from a value at which little is learnt."
)

LEARNING_FAULTS = (
    Fault("learning-rate-too-high", 7, "the updates destroy what the weights had learnt").found_by(
        error(
            "loss_ratio > risen_loss and gain_noise not> clear_trend"
            " and unexplained > worse_than_constant and moving and ordinary_values"
            " and without_skill",
            "The loss has risen to {loss_ratio} times its start.",
        ),
        error_at_once(
            "loss_ratio > enormous_rise and unexplained > worse_than_constant and moving"
            " and without_skill and ordinary_values and start_loss_ratio not> large_start_loss",
            "The loss has risen to {loss_ratio} times its start.",
        ),
        warning(
            "early_update_ratio > large_update and a_while and learns_little"
            " and dropout not> strong_dropout"
            " and ordinary_data and not_falling and kept_weights and start_scale not< small_start",
            "The first steps changed the weights by {early_update_ratio:.0%} of their size each,"
            " and the run has not learnt since.",
        ),
        warning(
            "early_update_ratio > total_update and a_while and learns_little"
            " and dropout not> strong_dropout and input_size not> large_input and kept_weights"
            " and start_scale not< small_start and not_falling",
            "The first steps changed the weights by {early_update_ratio:.1f} times their size each,"
            " and the run has not learnt since.",
        ),
        warning(
            "weight_growth > grown_weights and early_update_ratio not< notable_update"
            " and some_steps and learns_little and ordinary_data and not_falling",
            "The weights have grown {weight_growth:.0f} times, and the run has not learnt.",
        ),
        warning(
            "early_rise > sudden_rise and early_update_ratio not< notable_update and some_steps"
            " and learns_little and dropout not> strong_dropout and ordinary_values"
            " and start_loss_ratio not> large_start_loss and moving and not_falling",
            "Within the first steps the loss rose to {early_rise} times its start,"
            " and the run has not learnt since.",
        ),
        warning(
            "highest_rise > enormous_rise and some_steps and learns_little"
            " and dropout not> strong_dropout"
            " and ordinary_values and moving and batch_variety not< one_class_batches",
            "The loss has been at {highest_rise:.0f} times its start, and little is learnt.",
        ),
        warning(
            "gradient_depth_start_log10 > joint_shrinkage"
            " and gradient_depth_log10 < severe_vanishing_depth and learns_little"
            " and kept_weights and ordinary_start and moving and some_steps",
            "The gradient reached the first layers when the run began; now it shrinks by"
            " 10^{gradient_depth_log10:a.1f} on its way: the updates have ruined the network.",
        ),
        warning(
            "saturated_fraction > many_saturated and saturated_at_start < half_saturated"
            " and learns_half and ordinary_start and moving and some_steps and not_falling",
            "The units of {layers} were not saturated when the run began, and are now:"
            " the updates have saturated them.",
        ),
        warning(
            "relapse > much_lost and relapse_noise > clear_trend and improvement < half_learnt"
            " and weight_decay not> strong_decay and without_skill and a_while"
            " and input_peak not> outlying and target_size not> large_target"
            " and batch_variety not< one_class_batches and moving",
            "The loss has lost {relapse:.0%} of what it had gained:"
            " the updates have become too large.",
        ),
        warning_at_once(
            "early_update_ratio > total_update and highest_rise > enormous_rise"
            " and skill_reached < as_simple_models and progress > whole_run and a_while"
            " and ordinary_values and start_scale not< small_start and meant_to_learn",
            "The first steps changed the weights by {early_update_ratio:.1f} times their size each,"
            " and the run has never come to what simple models learn.",
        ),
        warning_at_once(
            "weight_growth > huge_growth and falls_behind and a_while and ordinary_data"
            " and start_scale not< small_start",
            "The weights have grown {weight_growth:.0f} times, and simple models do better.",
        ),
        warning_at_once(
            "relapse > notable_relapse and validation_rise > risen_validation_loss and a_while"
            " and skill_reached < as_simple_models and progress > whole_run and meant_to_learn"
            " and ordinary_data and stale_gradients not> flag_set",
            "Towards the end both losses have risen again, the training loss by {relapse:.0%} of"
            " what it had gained, and simple models do better.",
        ),
    ),
    Fault("learning-rate-too-low", 7, "the updates are too small to move the loss").found_by(
        warning(
            "highest_rate < no_rate and step > enough_steps",
            "The learning rate is 0, and has been since the run began: nothing can be learnt.",
        ),
        warning(
            "update_ratio < small_update and improvement < small_improvement"
            " and a_while and warming_up < flag_set and with_gradient and early_update_ratio"
            " not> notable_update and highest_rise not> sudden_rise and ordinary_values"
            " and rate_left not< nearly_gone and ordinary_flow"
            " and error_of_probabilities not> flag_set",
            "A step changes the weights by {update_ratio:.1e} of their size,"
            " and the loss has come down by {improvement:.1%} since the start.",
        ),
        warning(
            "reach < short_reach and learns_little and a_while"
            " and start_loss_ratio not> large_start_loss"
            " and warming_up < flag_set and with_gradient and highest_rise not> sudden_rise"
            " and ordinary_values and input_size not< small_input and meant_to_learn"
            " and ordinary_flow and error_of_probabilities not> flag_set",
            _NO_REACH + " and little is learnt.",
        ),
        warning_at_once(  # with losses of single rows nothing is said of their rise
            "reach < little_reach and falls_behind and a_while and warming_up < flag_set"
            " and with_gradient and start_loss_ratio not> large_start_loss and ordinary_values"
            " and error_of_probabilities not> flag_set and exclusive_labels not> flag_set",
            _NO_REACH + " and simple models do better.",
        ),
        warning(
            "reach < limited_reach and straightness > straight and learns_little"
            " and epoch > some_epochs and step > tens_of_steps"
            " and samples not< hundreds_of_samples and warming_up < flag_set and with_gradient"
            " and highest_rise not> sudden_rise and ordinary_values and meant_to_learn"
            " and input_size not< small_input and recent_fall < notable_fall and ordinary_flow"
            " and error_of_probabilities not> flag_set",
            "The steps all go the same way ({straightness:.0%} of their length is covered), but in"
            " the whole run they change the weights by no more than {reach:.0%} of their size.",
        ),
        warning_at_once(
            "warming_up > flag_set and progress > far_into_the_run and learnt not> hardly_learnt"
            " and step > enough_steps",
            _STILL_RISING,
        ),
        warning_at_once(
            "warming_up > flag_set and falls_short and step > enough_steps", _STILL_RISING
        ),
        warning(
            "rate_left < nearly_gone and progress < half_the_run and learns_half",
            "The learning rate has fallen to {rate_left:.1e} of its highest"
            " within the first half of the run, long before the loss has come down.",
        ),
        warning(
            "rate_left < nearly_gone and progress < most_of_the_run"
            " and skill_reached < below_simple_models",
            "The learning rate has fallen to {rate_left:.1e} of its highest long before the end"
            " of the run, and simple models do better.",
        ),
    ),
    Fault("over-regularized", 7, "weight decay or dropout leaves nothing to learn with").found_by(
        warning(
            "weight_growth < shrunk_weights and learns_little and some_steps",
            "The weights have shrunk to {weight_growth:.1%} of what they were,"
            " and little is learnt.",
        ),
        warning(
            "weight_decay > strong_decay and learns_half and a_while and not_falling"
            " and meant_to_learn",
            "The weight decay is {weight_decay}, and little is learnt.",
        ),
        warning(
            "dropout > strong_dropout and learnt not> half_learnt and some_steps"
            " and skill_reached not> near_simple_models"
            " and validation_skill not> high_skill and validation_learnt not> well_learnt",
            "Dropout sets {dropout:.0%} of the values to zero, and little is learnt.",
        ),
        warning(
            "dropout > nearly_all_dropped and learnt not> half_learnt and generalization_gap"
            " < worse_in_training and a_while and validation_skill not> high_skill",
            "Dropout sets {dropout:.0%} of the values to zero, and little is learnt.",
        ),
        warning_at_once(
            "dropout > nearly_all_dropped and validation_skill < half_learnt"
            " and progress > whole_run and meant_to_learn and a_while",
            "Dropout sets {dropout:.0%} of the values to zero, and little is learnt.",
        ),
    ),
    Fault("batch-size", 7, "batch normalisation over too few values").found_by(
        warning(
            "norm_values < few_values and not_well and some_steps",
            "Batch normalisation has only {norm_values:.0f} values per channel:"
            " what it subtracts and divides by is mostly noise.",
        ),
        warning(
            "norm_rows < few_norm_rows and learns_half and a_while",
            "Batch normalisation sees only {norm_rows:.0f} rows at a time, and little is learnt.",
            source="Wu & He 2018 (group normalisation)",
        ),
    ),
    Fault("loss-function", 8, "the loss does not suit what the network predicts").found_by(
        warning(
            "error_of_probabilities > flag_set and learnt not> little_learnt"
            " and validation_skill not> high_skill and long_enough"
            " and not_falling and not_improving",
            _ERROR_OF_PROBABILITIES,
        ),
        warning_at_once(
            "error_of_probabilities > flag_set and learnt not> half_learnt"
            " and validation_skill not> high_skill and progress > whole_run"
            " and skill_reached not> near_simple_models and epoch > some_epochs"
            " and step > tens_of_steps and meant_to_learn and warming_up not> flag_set",
            _ERROR_OF_PROBABILITIES,
        ),
        warning_at_once(
            "error_of_probabilities > flag_set and learnt not> little_learnt"
            " and validation_skill not> high_skill and skill_reached not> near_simple_models"
            " and progress > whole_run and long_by_steps and falling not> faint_trend"
            " and meant_to_learn and moving",
            _ERROR_OF_PROBABILITIES,
        ),
        warning(
            "error_of_probabilities > flag_set and validation_skill < little_learnt"
            " and epoch > one_epoch and step > many_steps and samples not< hundreds_of_samples"
            " and progress > half_the_run and meant_to_learn and highest_rate not< no_rate",
            _ERROR_OF_PROBABILITIES,
        ),
        warning(
            "exclusive_labels > flag_set and useful_skill < half_learnt"
            " and progress > half_the_run and long_enough and meant_to_learn and moving",
            _EXCLUSIVE,
        ),
        warning_at_once(
            "exclusive_labels > flag_set and falls_short and warming_up not> flag_set and moving",
            _EXCLUSIVE,
        ),
        warning_at_once(
            "exclusive_labels > flag_set and learnt not> little_learnt and skill_reached"
            " < near_simple_models and progress > whole_run and long_by_steps and meant_to_learn"
            " and moving and warming_up not> flag_set",
            _EXCLUSIVE,
        ),
        warning_at_once(
            "exclusive_labels > flag_set and learns_little and progress > whole_run"
            " and long_by_steps and falling not> faint_trend and meant_to_learn and moving",
            _EXCLUSIVE,
        ),
        warning(
            "exclusive_labels > flag_set and learns_little and long_enough"
            " and not_falling and not_improving",
            _EXCLUSIVE,
        ),
    ),
    Fault("loss-spike", 8, "one loss far above the run's own recent past").found_by(
        warning(
            "target_peak > outlying and target_size > flag_set and some_steps",
            "The largest batch holds targets {target_peak:.0f} times those of an ordinary one:"
            " a few samples decide the loss.",
        ),
        warning(
            "input_peak > outlying and some_steps and learns_half",
            "The largest rows hold values {input_peak:.0f} times those of an ordinary one,"
            " and the run learns little: a few samples decide it.",
        ),
        warning(
            "spiky_epochs > flag_set and weight_growth > grown_weights"
            " and early_update_ratio < notable_update and learns_little",
            "The loss jumped far above its usual level, and the weights,"
            " which had taken steps of ordinary size, are {weight_growth:.0f} times as large:"
            " a few samples have ruined the run.",
        ),
        warning(
            "spiky_epochs > recurring and learnt not> little_learnt and not_falling"
            " and validation_learnt not> little_learnt and improvement not> half_learnt"
            " and without_skill",
            "The loss has jumped far above its usual level in {spiky_epochs:.0f} epochs,"
            " and the run learns little.",
        ),
        info(
            "spike_height > large_spike",
            "The loss jumped to {spike_height} times its median.",
            is_event=True,
            persistence=1,
        ),
    ),
    Fault("oscillating-loss", 8, "the loss swings from step to step").found_by(
        warning(
            "batch_variety < one_class_batches and some_steps and not_well",
            "Batches hold nearly one class each ({batch_variety:.0%} of the variety of all"
            " targets): the loss swings from one to the next.",
        ),
        info(
            "oscillation > swinging_loss and a_while",
            "The loss swings by {oscillation:.0%} of its start from step to step.",
            persistence=3,
        ),
    ),
)
