"""What is wrong by its form, whatever the numbers do: non-finite values, loss, data, optimizer."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Rule, when

WIRING_RULES = (
    Rule(
        "non-finite",
        "error",
        when("nonfinite_weights > present"),
        "Weights are NaN or infinite: {layers}. Everything that is computed from them is lost.",
        (
            "Go back to a checkpoint from before, or start again.",
            'Add `StepGuard(on_nonfinite="skip")`: a bad step is then not taken.',
            (
                "Lower the learning rate from {learning_rate} to {learning_rate:/10}, or clip:"
                ' `GradientClipping(rule="norm", threshold=1.0)`.'
            ),
        ),
    ),
    Rule(
        "non-finite",
        "error",
        when("nonfinite_gradients > present"),
        "The run failed with gradients that are NaN or infinite: {layers}.",
        (
            (
                'Add `StepGuard(on_nonfinite="skip")`: a bad step is not taken; with'
                " `forensics=True` the"
                " batch is kept for a look."
            ),
            (
                "Look for roots of 0, logarithms of 0 and divisions by 0: their values may be"
                " finite where"
                " their derivatives are not."
            ),
        ),
    ),
    Rule(
        "non-finite",
        "error",
        when("validation_nonfinite > present"),
        "The validation loss is NaN or infinite, although training goes on.",
        (
            (
                "Look for what differs in validation: `eval` mode, masks that hide everything,"
                " empty"
                " classes, samples of length 0."
            ),
            "Compare one validation batch in `train` and in `eval` mode.",
        ),
    ),
    Rule(
        "non-finite",
        "error",
        when("nonfinite_losses > no_loss_lost"),
        "The loss is NaN or infinite.",
        (
            (
                'Add `StepGuard(on_nonfinite="skip")`: a bad step is not taken, and the batch is'
                " kept"
                " for a look with `forensics`."
            ),
            (
                "Look for log(0), 0/0, the root of 0 and exp of large numbers in the loss; add a"
                " small"
                " epsilon, or use the `_with_logits` forms."
            ),
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
        ),
    ),
    Rule(
        "output-activation",
        "error",
        when("doubled_softmax > present"),
        "The cross-entropy receives probabilities, but applies a softmax itself: its loss cannot"
        " fall below ln(1 + (C-1)/e), and its gradients are weak.",
        (
            "Remove the softmax at the end of the network; give the loss the raw logits.",
            "Where probabilities are needed, apply the softmax to the logits outside the loss.",
        ),
    ),
    Rule(
        "output-activation",
        "error",
        when("doubled_sigmoid > present"),
        "The loss applies a sigmoid to what is a sigmoid's output already: its gradients are weak,"
        " and no probability below 1/2 can be said.",
        (
            "Remove the sigmoid at the end of the network, or use `BCELoss` on its output.",
            "Where probabilities are needed, apply the sigmoid outside the loss.",
        ),
    ),
    Rule(
        "output-activation",
        "error",
        when("unreachable_targets > many_unreachable"),
        "The activation at the end of the network cannot reach {unreachable_targets:.0%} of the"
        " targets: they lie outside its range.",
        (
            "End the network in its last linear layer, without an activation.",
            "Or scale the targets into the activation's range.",
        ),
    ),
    Rule(
        "output-activation",
        "warning",
        when("rectified_logits > many_rectified and epoch > an_epoch and learnt not> well_learnt"),
        "The logits that enter the cross-entropy come out of a ReLU: {rectified_logits:.0%} of them"
        " are zero and receive no gradient.",
        ("End the network in its last linear layer, without an activation.",),
        persistence=2,
    ),
    Rule(
        "unused-parameters",
        "error",
        when("unregistered > present"),
        "The loss depends on {unregistered:.0f} parameters that the module does not"
        " know, so that no"
        " optimizer holds them.",
        (
            "Keep layers in `nn.ModuleList` or `nn.ModuleDict`, not in a plain list or dict.",
            "Assign them to `self` in `__init__`, after `super().__init__()`.",
        ),
    ),
    Rule(
        "unused-parameters",
        "warning",
        when("unoptimized > present"),
        "{number} trainable parameters are in no optimizer and never change: {layers}.",
        (
            "Give `self.parameters()` to the optimizer, after all layers have been made.",
            "If they are meant to stay as they are, say so with `requires_grad_(False)`.",
        ),
    ),
    Rule(
        "unused-parameters",
        "warning",
        when("without_gradient > never_a_gradient and step > enough_steps"),
        "{number} parameters of the optimizer have never had a gradient: {layers}.",
        (
            (
                "Look for a `.detach()`, `torch.no_grad()`, `.data` or `.item()` between them"
                " and the"
                " loss, or a layer that `forward` does not call."
            ),
            "If they are meant to stay as they are, say so with `requires_grad_(False)`.",
        ),
        persistence=2,
    ),
    Rule(
        "target-scale",
        "warning",
        when("target_size > large_target and prediction_size < small_prediction and epoch > early"),
        "The targets are large ({target_size}), and the predictions have reached"
        " {prediction_size:.1%} of their size.",
        (
            (
                "Standardise the targets with the training set's mean and standard deviation,"
                " and undo"
                " it where you predict."
            ),
            "Or start the output layer's bias at the targets' mean.",
        ),
        persistence=2,
    ),
    Rule(
        "input-scale",
        "warning",
        when("input_size > large_input and epoch > some_epochs and learnt not> half_learnt"),
        "Features enter the network at a size of {input_size}, and it does not learn.",
        (
            "Standardise every feature with the training set's mean and standard deviation.",
            "Or put a normalisation layer in front of the first layer.",
        ),
        persistence=2,
    ),
    Rule(
        "input-scale",
        "error",
        when(
            "input_size > large_input and loss_ratio > risen_loss"
            " and unexplained > worse_than_constant"
        ),
        "Features enter the network at a size of {input_size}, and the loss has risen"
        " to {loss_ratio}"
        " times its start.",
        (
            "Standardise every feature with the training set's mean and standard deviation.",
            "Or put a normalisation layer in front of the first layer.",
        ),
        persistence=2,
    ),
    Rule(
        "input-scale",
        "warning",
        when("input_size < small_input and epoch > some_epochs and learnt not> hardly_learnt"),
        "Features enter the network at a size of only {input_size}, and it does not learn.",
        ("Standardise every feature with the training set's mean and standard deviation.",),
        persistence=2,
    ),
    Rule(
        "bad-initialization",
        "error",
        when("identical_units > all_identical"),
        "The units of {layers} have the same weights and the same gradients: no step can tell them"
        " apart.",
        (
            "Add `WeightInitialization()`, or draw these weights at random.",
            "A layer may start at zero only where nothing but the loss or a sum follows.",
        ),
        source="Goodfellow, Bengio & Courville 2016, section 8.4",
    ),
    Rule(
        "bad-initialization",
        "warning",
        when(
            "start_loss_ratio > large_start_loss and epoch > some_epochs"
            " and learnt not> hardly_learnt and input_size not> large_input"
        ),
        "The first loss is {start_loss_ratio} times that of a blind prediction: the"
        " outputs start"
        " far too large.",
        (
            (
                "Add `WeightInitialization()`, or divide the output layer's weights by"
                " {start_loss_ratio:.0f}."
            ),
        ),
    ),
)
