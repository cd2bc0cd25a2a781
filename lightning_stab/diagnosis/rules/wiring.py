"""What is wrong by its form, or with the scale of the data: faults that others follow from."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import (
    Fault,
    error,
    error_at_once,
    info,
    warning,
    warning_at_once,
)

_NAN_WEIGHTS = (
    "Weights are NaN or infinite: {layers}. Everything that is computed from them is lost."
)
_NAN_VALIDATION = "The validation loss is NaN or infinite, although training goes on."
_INDEPENDENT = (
    "The targets look independent of the inputs: rows that lie closest together agree in them no"
    " more than by chance ({neighbour_agreement:.1f} standard errors), and"
)

WIRING_FAULTS = (
    Fault("non-finite", 0, "the loss or a weight is NaN or infinite").found_by(
        error("nonfinite_weights > flag_set and no_cause_at_start", _NAN_WEIGHTS, persistence=1),
        error_at_once("nonfinite_weights > flag_set and loss_ratio not> no_loss", _NAN_WEIGHTS),
        error_at_once(
            "nonfinite_gradients > flag_set",
            "The run failed with gradients that are NaN or infinite: {layers}.",
        ),
        error_at_once("validation_nonfinite > flag_set and no_cause_at_start", _NAN_VALIDATION),
        error_at_once(
            "validation_nonfinite > flag_set and learnt > nothing_learnt", _NAN_VALIDATION
        ),
        error_at_once(
            "nonfinite_inputs > none_at_all and not_well and some_steps",
            "{nonfinite_inputs:.0%} of the batches hold NaN or infinite values, and little is"
            " learnt.",
        ),
        error_at_once(
            "nonfinite_inputs > none_at_all and failed > flag_set and learnt not> hardly_learnt",
            "The run failed, and {nonfinite_inputs:.0%} of the batches hold NaN or infinite"
            " values.",
        ),
        error_at_once(
            "nonfinite_losses > any_nonfinite_loss and loss_ratio not> no_loss",
            "The loss is NaN or infinite from the first step.",
        ),
        error_at_once(
            "nonfinite_losses > any_nonfinite_loss and no_cause_at_start"
            " and skill_reached not> as_simple_models",
            "The loss is NaN or infinite.",
        ),
        info(
            "nonfinite_losses > any_nonfinite_loss and skill_reached > as_simple_models",
            "A loss was NaN or infinite; the run learns what simple models do all the same.",
            persistence=1,
        ),
    ),
    Fault("output-activation", 1, "the last activation does not belong to the loss").found_by(
        error_at_once(
            "doubled_softmax > flag_set",
            "The cross-entropy receives probabilities, but applies a softmax itself:"
            " its loss cannot fall below ln(1 + (C-1)/e), and its gradients are weak.",
        ),
        error_at_once(
            "doubled_sigmoid > flag_set",
            "The loss applies a sigmoid to what is a sigmoid's output already:"
            " its gradients are weak, and no probability below 1/2 can be predicted.",
        ),
        error_at_once(
            "unreachable_targets > many_unreachable",
            "The activation at the end of the network cannot reach {unreachable_targets:.0%}"
            " of the targets: they lie outside its range.",
        ),
        error_at_once(
            "softmax_of_one > flag_set",
            "A softmax over a single unit is always 1: every row gets the same prediction.",
        ),
        error_at_once(
            "softmax_of_batch > flag_set",
            "The softmax before the loss runs over the rows of the batch, not over the classes.",
        ),
        error_at_once(
            "squashed_logits > flag_set",
            "The cross-entropy receives the output of a sigmoid or tanh: its logits are bounded, so"
            " that no class can become likely.",
        ),
        warning(
            "rectified_logits > many_rectified and a_while and not_well",
            "The logits that enter the cross-entropy come out of a ReLU:"
            " {rectified_logits:.0%} of them are zero and receive no gradient.",
        ),
        warning(
            "rectified_logits > many_rectified and validation_skill < high_skill and a_while"
            " and skill_reached not> as_simple_models and progress > half_the_run",
            "The logits that enter the cross-entropy come out of a ReLU:"
            " {rectified_logits:.0%} of them are zero and receive no gradient.",
        ),
    ),
    Fault("shape-mismatch", 1, "predictions and targets meet in shapes that broadcast").found_by(
        error_at_once(
            "broadcast > flag_set",
            "Predictions and targets meet in the shapes [N] and [N, 1]: every prediction is"
            " compared with every target.",
        )
    ),
    Fault("labels", 1, "targets from which nothing can be learnt").found_by(
        error_at_once(
            "class_out_of_range > flag_set",
            "The run failed because a target is no class of the network's outputs.",
        ),
        error_at_once(
            "impossible_targets > many_impossible",
            "{impossible_targets:.0%} of the targets of a binary cross-entropy lie outside 0 to 1.",
        ),
        error(
            "constant_targets > flag_set and epoch > one_epoch and samples not< early_samples"
            " and meant_to_learn",
            "All targets that the loss has seen are the same ({samples:.0f} rows).",
        ),
        warning(
            "neighbour_agreement < no_agreement and validation_learnt < nothing_learnt"
            " and learnt > hardly_learnt and long_enough and meant_to_learn"
            " and validation_shift not> unlike and input_peak not> outlying",
            _INDEPENDENT + " what is learnt in training has never helped in validation.",
            source="Schilling 1986 (nearest neighbours)",
        ),
        warning(
            "neighbour_agreement < no_sign and validation_learnt < hardly_learnt"
            " and learnt not> hardly_learnt and travelled > somewhere and a_while"
            " and progress > half_the_run and ordinary_data and ordinary_steps and ordinary_flow"
            " and meant_to_learn and validation_shift not> unlike and dropout not> strong_dropout",
            _INDEPENDENT + " nothing is learnt, although the weights have moved.",
            source="Schilling 1986 (nearest neighbours)",
        ),
        warning(
            "neighbour_agreement < no_sign and validation_skill < hardly_learnt"
            " and travelled > somewhere and a_while and progress > half_the_run"
            " and meant_to_learn and validation_shift not> unlike and constant_rows not> flag_set",
            _INDEPENDENT + " the validation metric is hardly better than a constant prediction's.",
            source="Schilling 1986 (nearest neighbours)",
        ),
        warning(
            "constant_rows > flag_set and improvement > half_learnt and epoch > one_epoch"
            " and samples not< early_samples and meant_to_learn",
            "The targets of all batches seen are the same, and the loss has come down by"
            " {improvement:.0%}: that is no knowledge.",
        ),
    ),
    Fault("unused-parameters", 1, "trainable parameters without optimizer or gradient").found_by(
        error_at_once(
            "unregistered > flag_set",
            "The loss depends on {unregistered:.0f} parameters that the module does not know,"
            " so that no optimizer holds them.",
        ),
        warning_at_once(
            "unoptimized > flag_set",
            "{number} trainable parameters are in no optimizer and never change: {layers}.",
        ),
        warning(
            "without_gradient > never_a_gradient and step > enough_steps",
            "{number} parameters of the optimizer have never had a gradient: {layers}.",
        ),
        warning(
            "frozen_held > flag_set and learnt not> half_learnt and a_while and not_falling"
            " and skill_reached not> as_simple_models and validation_skill not> well_learnt",
            "{number} parameters that the optimizer was given are frozen, and little is learnt:"
            " {layers}.",
        ),
        warning(
            "frozen_held > flag_set and validation_skill < some_skill and a_while"
            " and skill_reached not> as_simple_models and progress > half_the_run",
            "{number} parameters that the optimizer was given are frozen, and little is learnt:"
            " {layers}.",
        ),
        warning_at_once(
            "frozen_held > flag_set and skill_reached < near_simple_models and a_while"
            " and progress > whole_run",
            "{number} parameters that the optimizer was given are frozen, and less is learnt than"
            " simple models learn: {layers}.",
        ),
    ),
)
