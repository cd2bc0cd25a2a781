"""What is wrong by its form, or with the scale of the data: faults that others follow from."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Fault, error, warning

_SKIP = (
    'Add `StepGuard(on_nonfinite="skip")`: a bad step is not taken;'
    " with `forensics=True` the batch is kept for inspection."
)
_SAFE_LOSS = (
    "Look for log(0), 0/0, the root of 0 and exp of large numbers in the loss;"
    " add a small epsilon, or use the `_with_logits` forms."
)
_NAN_WEIGHTS = (
    "Weights are NaN or infinite: {layers}. Everything that is computed from them is lost.",
    "Go back to an earlier checkpoint, or start again.",
    'Add `StepGuard(on_nonfinite="skip")`: a bad step is then not taken.',
    (
        "Lower the learning rate from {learning_rate} to {learning_rate:/10},"
        ' or clip: `GradientClipping(rule="norm", threshold=1.0)`.'
    ),
)
_NAN_VALIDATION = (
    "The validation loss is NaN or infinite, although training goes on.",
    (
        "Look for what differs in validation: `eval` mode, masks that hide everything,"
        " empty classes, samples of length 0."
    ),
    "Compare one validation batch in `train` and in `eval` mode.",
)
_END_LINEAR = "End the network in its last linear layer, without an activation."
_FREEZE = "If they are meant to stay as they are, say so with `requires_grad_(False)`."
_STANDARDISE = "Standardise every feature with the training set's mean and standard deviation."
_LARGE_START = (
    "The first loss is {start_loss_ratio} times that of a blind prediction:"
    " the outputs start far too large."
)
_SMALLER_START = (
    "Add `WeightInitialization()`, or make the output layer's weights smaller.",
    "Give the loss logits, and let it apply the softmax: there it has no flat places.",
)
_INDEPENDENT = (
    "The targets look independent of the inputs: rows that lie closest together agree in them no"
    " more than by chance ({neighbour_agreement:.1f} standard errors), and"
)
_CHECK_PAIRS = (
    (
        "Check that inputs and labels belong together: a join, a sort or a shuffle of one of the"
        " two breaks the pairs."
    ),
    "Check that there is something to learn: fit a simple model to the same data.",
)
_SMALLER_TARGETS = (
    (
        "Standardise the targets with the training set's mean and standard deviation, and undo it"
        " where you predict."
    ),
    "Or start the output layer's bias at the targets' mean.",
)
_HUGE_INPUT = "Features enter the network at a size of {input_size}, and little is learnt."
_NONFINITE_FROM_INPUT = (
    "Features enter the network at a size of {input_size}, and loss or weights are NaN or infinite."
)
_NONFINITE_FROM_TARGETS = (
    "The targets are large ({target_size}), and loss or weights are NaN or infinite."
)
_NONFINITE_FROM_START = (
    "The weights start {start_scale:.0f} times as large as what keeps a signal's size, and loss or"
    " weights are NaN or infinite."
)
_FITTED_START = "Add `WeightInitialization()`, which fits each layer to the activation before it."
_NORMALISE = "Or put a normalisation layer in front of the first layer."
_SMALLER_INPUT = (_STANDARDISE, _NORMALISE)

WIRING_FAULTS = (
    Fault("non-finite", 0, "the loss or a weight is NaN or infinite").found_by(
        error(
            "nonfinite_weights > flag_set and no_cause_at_start",
            *_NAN_WEIGHTS,
            persistence=1,
        ),
        error(
            "nonfinite_weights > flag_set and loss_ratio not> no_loss",
            *_NAN_WEIGHTS,
            persistence=1,
        ),
        error(
            "nonfinite_gradients > flag_set",
            "The run failed with gradients that are NaN or infinite: {layers}.",
            _SKIP,
            "Look for roots of 0, logarithms of 0 and divisions by 0:"
            " their values may be finite where their derivatives are not.",
            persistence=1,
        ),
        error(
            "validation_nonfinite > flag_set and no_cause_at_start",
            *_NAN_VALIDATION,
            persistence=1,
        ),
        error(
            "validation_nonfinite > flag_set and learnt > nothing_learnt",
            *_NAN_VALIDATION,
            persistence=1,
        ),
        error(
            "nonfinite_losses > any_nonfinite_loss and loss_ratio not> no_loss",
            "The loss is NaN or infinite from the first step.",
            _SKIP,
            _SAFE_LOSS,
            persistence=1,
        ),
        error(
            "nonfinite_losses > any_nonfinite_loss and no_cause_at_start",
            "The loss is NaN or infinite.",
            _SKIP,
            _SAFE_LOSS,
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
            persistence=1,
        ),
    ),
    Fault("output-activation", 1, "the last activation does not belong to the loss").found_by(
        error(
            "doubled_softmax > flag_set",
            "The cross-entropy receives probabilities, but applies a softmax itself:"
            " its loss cannot fall below ln(1 + (C-1)/e), and its gradients are weak.",
            "Remove the softmax at the end of the network; give the loss the raw logits.",
            "Where probabilities are needed, apply the softmax to the logits outside the loss.",
            persistence=1,
        ),
        error(
            "doubled_sigmoid > flag_set",
            "The loss applies a sigmoid to what is a sigmoid's output already:"
            " its gradients are weak, and no probability below 1/2 can be predicted.",
            "Remove the sigmoid at the end of the network, or use `BCELoss` on its output.",
            "Where probabilities are needed, apply the sigmoid outside the loss.",
            persistence=1,
        ),
        error(
            "unreachable_targets > many_unreachable",
            "The activation at the end of the network cannot reach {unreachable_targets:.0%}"
            " of the targets: they lie outside its range.",
            _END_LINEAR,
            "Or scale the targets into the activation's range.",
            persistence=1,
        ),
        error(
            "softmax_of_one > flag_set",
            "A softmax over a single unit is always 1: every row gets the same prediction.",
            "Use a sigmoid for a single unit, best inside the loss: `BCEWithLogitsLoss`.",
            persistence=1,
        ),
        error(
            "softmax_of_batch > flag_set",
            "The softmax before the loss runs over the rows of the batch, not over the classes.",
            "Give it the dimension of the classes: `softmax(x, dim=-1)`; before `cross_entropy`"
            " leave it out.",
            persistence=1,
        ),
        error(
            "squashed_logits > flag_set",
            "The cross-entropy receives the output of a sigmoid or tanh: its logits are bounded, so"
            " that no class can become likely.",
            _END_LINEAR,
            persistence=1,
        ),
        warning(
            "rectified_logits > many_rectified and a_while and learnt not> well_learnt",
            "The logits that enter the cross-entropy come out of a ReLU:"
            " {rectified_logits:.0%} of them are zero and receive no gradient.",
            _END_LINEAR,
        ),
    ),
    Fault("shape-mismatch", 1, "predictions and targets meet in shapes that broadcast").found_by(
        error(
            "broadcast > flag_set",
            "Predictions and targets meet in the shapes [N] and [N, 1]: every prediction is"
            " compared with every target.",
            "Give both one shape: `prediction.squeeze(-1)` or `target.unsqueeze(-1)`.",
            persistence=1,
        ),
    ),
    Fault("labels", 1, "targets from which nothing can be learnt").found_by(
        error(
            "class_out_of_range > flag_set",
            "The run failed because a target is no class of the network's outputs.",
            "Count classes from 0, and make the output layer as wide as their number.",
            persistence=1,
        ),
        error(
            "impossible_targets > many_impossible",
            "{impossible_targets:.0%} of the targets of a binary cross-entropy lie outside 0 to 1.",
            "Code the labels as 0 and 1.",
            persistence=1,
        ),
        error(
            "constant_targets > flag_set and epoch > one_epoch and samples not< early_samples"
            " and meant_to_learn",
            "All targets that the loss has seen are the same ({samples:.0f} rows).",
            "Look at the labels: a filter, a join or an encoding has left one value.",
        ),
        warning(
            "neighbour_agreement < no_agreement and validation_learnt < nothing_learnt"
            " and learnt > hardly_learnt and long_enough and meant_to_learn"
            " and validation_shift not> unlike and input_peak not> outlying",
            _INDEPENDENT + " what is learnt in training has never helped in validation.",
            *_CHECK_PAIRS,
            source="Schilling 1986 (nearest neighbours)",
        ),
        warning(
            "neighbour_agreement < no_sign and validation_learnt < hardly_learnt"
            " and learnt not> hardly_learnt and travelled > somewhere and a_while"
            " and progress > half_the_run and ordinary_data and ordinary_steps and ordinary_flow"
            " and meant_to_learn and validation_shift not> unlike and dropout not> strong_dropout",
            _INDEPENDENT + " nothing is learnt, although the weights have moved.",
            *_CHECK_PAIRS,
            source="Schilling 1986 (nearest neighbours)",
        ),
        warning(
            "constant_rows > flag_set and improvement > half_learnt and epoch > one_epoch"
            " and samples not< early_samples and meant_to_learn",
            "The targets of all batches seen are the same, and the loss has come down by"
            " {improvement:.0%}: that is no knowledge.",
            "Look at the labels: a filter, a join or an encoding has left one value.",
        ),
    ),
    Fault("unused-parameters", 1, "trainable parameters without optimizer or gradient").found_by(
        error(
            "unregistered > flag_set",
            "The loss depends on {unregistered:.0f} parameters that the module does not know,"
            " so that no optimizer holds them.",
            "Keep layers in `nn.ModuleList` or `nn.ModuleDict`, not in a plain list or dict.",
            "Assign them to `self` in `__init__`, after `super().__init__()`.",
            persistence=1,
        ),
        warning(
            "unoptimized > flag_set",
            "{number} trainable parameters are in no optimizer and never change: {layers}.",
            "Give `self.parameters()` to the optimizer, after all layers have been made.",
            _FREEZE,
            persistence=1,
        ),
        warning(
            "without_gradient > never_a_gradient and step > enough_steps",
            "{number} parameters of the optimizer have never had a gradient: {layers}.",
            "Look for a `.detach()`, `torch.no_grad()`, `.data` or `.item()` between them and the"
            " loss, or a layer that `forward` does not call.",
            _FREEZE,
        ),
        warning(
            "frozen_held > flag_set and learnt not> half_learnt and a_while and not_falling",
            "{number} parameters that the optimizer was given are frozen, and little is learnt:"
            " {layers}.",
            "Train them too (`requires_grad_(True)`), unless they were trained before.",
        ),
    ),
    Fault("target-scale", 2, "targets so large that a regression does not reach them").found_by(
        warning(
            "target_size > large_target and prediction_size < small_prediction and some_steps",
            "The targets are large ({target_size}),"
            " and the predictions have reached {prediction_size:.1%} of their size.",
            *_SMALLER_TARGETS,
        ),
        error(
            "nonfinite_weights > flag_set and target_size > large_target and loss_ratio > no_loss",
            _NONFINITE_FROM_TARGETS,
            *_SMALLER_TARGETS,
            persistence=1,
        ),
        error(
            "nonfinite_losses > any_nonfinite_loss and target_size > large_target"
            " and loss_ratio > no_loss",
            _NONFINITE_FROM_TARGETS,
            *_SMALLER_TARGETS,
            persistence=1,
        ),
    ),
    Fault("input-scale", 3, "features enter unscaled, and it does harm").found_by(
        warning(
            "input_size > large_input and a_while and learnt not> little_learnt and not_falling",
            "Features enter the network at a size of {input_size}, and it does not learn.",
            *_SMALLER_INPUT,
        ),
        error(
            "input_size > large_input and loss_ratio > enormous_rise"
            " and unexplained > worse_than_constant",
            "Features enter the network at a size of {input_size},"
            " and the loss has risen to {loss_ratio} times its start.",
            *_SMALLER_INPUT,
            persistence=1,
        ),
        error(
            "nonfinite_weights > flag_set and input_size > huge_input and loss_ratio > no_loss",
            _NONFINITE_FROM_INPUT,
            *_SMALLER_INPUT,
            persistence=1,
        ),
        error(
            "nonfinite_losses > any_nonfinite_loss and input_size > huge_input"
            " and loss_ratio > no_loss",
            _NONFINITE_FROM_INPUT,
            *_SMALLER_INPUT,
            persistence=1,
        ),
        warning(
            "input_size > huge_input and learnt not> well_learnt and epoch > some_epochs"
            " and step > tens_of_steps and samples not< hundreds_of_samples"
            " and progress > half_the_run and meant_to_learn and unknown_loss",
            _HUGE_INPUT,
            *_SMALLER_INPUT,
        ),
        warning(
            "input_size > huge_input and validation_learnt < well_learnt and epoch > some_epochs"
            " and step > tens_of_steps and samples not< hundreds_of_samples"
            " and progress > half_the_run and meant_to_learn and unknown_loss",
            _HUGE_INPUT,
            *_SMALLER_INPUT,
        ),
        warning(
            "input_size < small_input and a_while and learnt not> hardly_learnt and not_falling",
            "Features enter the network at a size of only {input_size}, and it does not learn.",
            _STANDARDISE,
        ),
    ),
    Fault("bad-initialization", 4, "units start alike, or outputs start far too large").found_by(
        error(
            "identical_units > all_identical",
            "The units of {layers} have the same weights and the same gradients:"
            " no step can tell them apart.",
            "Add `WeightInitialization()`, or draw these weights at random.",
            "A layer may start at zero only where nothing but the loss or a sum follows.",
            source="Goodfellow, Bengio & Courville 2016, section 8.4",
            persistence=1,
        ),
        warning(
            "start_loss_ratio > large_start_loss and long_enough"
            " and learnt not> hardly_learnt and input_size not> large_input and not_falling"
            " and early_update_ratio not> large_update",
            _LARGE_START,
            *_SMALLER_START,
            persistence=1,
        ),
        warning(
            "start_loss_ratio > enormous_start_loss and a_while"
            " and unexplained > worse_than_constant and input_size not> large_input"
            " and early_update_ratio not> large_update",
            _LARGE_START,
            *_SMALLER_START,
        ),
        warning(
            "start_scale < small_start and some_steps and learnt not> little_learnt and moving"
            " and ordinary_inputs",
            "The weights start at {start_scale:.2g} of the size that keeps a signal's:"
            " what passes through the layers fades, and little is learnt.",
            _FITTED_START,
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        warning(
            "start_scale > large_start and some_steps and learnt not> little_learnt and moving"
            " and ordinary_inputs",
            "The weights start {start_scale:.0f} times as large as what keeps a signal's size,"
            " and little is learnt.",
            _FITTED_START,
            source="Glorot & Bengio 2010; He et al. 2015",
        ),
        error(
            "nonfinite_weights > flag_set and start_scale > large_start"
            " and input_size not> huge_input and loss_ratio > no_loss",
            _NONFINITE_FROM_START,
            _FITTED_START,
            persistence=1,
        ),
        error(
            "nonfinite_losses > any_nonfinite_loss and start_scale > large_start"
            " and input_size not> huge_input and loss_ratio > no_loss",
            _NONFINITE_FROM_START,
            _FITTED_START,
            persistence=1,
        ),
        error(
            "zero_gradient > all_identical and travelled < nowhere and most_dead < dead_layer"
            " and step > enough_steps and ordinary_values and constant_targets not> flag_set"
            " and softmax_of_one not> flag_set and highest_rate not< no_rate",
            "Every gradient has been exactly 0 since the start, and no unit is to blame:"
            " the outputs start where the loss is flat.",
            *_SMALLER_START,
        ),
    ),
)
