"""What is wrong inside the network: dead and saturated units, gradients over depth and time."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Rule, when

_CURE_DEPTH = (
    'Add `WeightInitialization(scheme="auto")`: it fits each layer to the activation before it.',
    (
        "Add a normalisation layer before each activation, or a skip connection around every two"
        " layers."
    ),
)
_VANISHING = (
    "The gradient shrinks by 10^{gradient_depth_log10:a.1f} from the last hidden layer to the first"
    " of {depth:.0f} layers: the first layers do not learn."
)
_EXPLODING = (
    "The gradient grows by 10^{gradient_depth_log10:a.1f} from the last hidden layer to the first"
    " of {depth:.0f} layers."
)
_DEPTH_SOURCE = "Glorot & Bengio 2010; thresholds measured, see docs/training_doctor.md"

NETWORK_RULES = (
    Rule(
        "dead-units",
        "error",
        when(
            "dead_fraction > dead_layer and learnt not> well_learnt"
            " and early_update_ratio not> large_update and input_size not> large_input"
        ),
        "{dead_fraction:.0%} of the units of {layers} are zero on every sample: no"
        " gradient passes.",
        (
            "Add `WeightInitialization()` and start again: dead units do not come back.",
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
            "Use LeakyReLU or GELU instead of ReLU.",
        ),
        persistence=2,
        source="Lu et al. 2019 (dying ReLU)",
    ),
    Rule(
        "dead-units",
        "warning",
        when(
            "dead_fraction > many_dead and learnt not> half_learnt and epoch > an_epoch"
            " and early_update_ratio not> large_update and input_size not> large_input"
        ),
        "{dead_fraction:.0%} of the units of {layers} are zero on every sample.",
        (
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
            "Add `WeightInitialization()`, or use LeakyReLU or GELU instead of ReLU.",
        ),
        persistence=2,
        source="Lu et al. 2019 (dying ReLU)",
    ),
    Rule(
        "saturated-units",
        "warning",
        when(
            "saturated_fraction > many_saturated and saturated_at_start > half_saturated"
            " and learnt not> half_learnt and early_update_ratio not> large_update"
            " and relapse not> much_lost"
        ),
        "{saturated_fraction:.0%} of the outputs of {layers} stand where the activation is flat.",
        (
            "Standardise the inputs.",
            "Add `WeightInitialization()`, or make the weights before these layers smaller.",
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
        ),
        persistence=2,
        source="Glorot & Bengio 2010",
    ),
    Rule(
        "saturated-units",
        "warning",
        when(
            "attention_logits > large_attention_logits and learnt not> well_learnt"
            " and early_update_ratio not> large_update and relapse not> much_lost"
        ),
        "The attention logits of {layers} have grown to a spread of {attention_logits}: its softmax"
        " looks at one position only.",
        (
            "Normalise queries and keys, or divide the logits by the root of the head's width.",
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}, with a warm-up.",
        ),
        persistence=2,
        source="Dehghani et al. 2023 (attention entropy and logit growth)",
    ),
    Rule(
        "vanishing-gradient",
        "error",
        when(
            "gradient_depth_log10 < severe_vanishing_depth"
            " and gradient_depth_start_log10 not> vanishing_depth"
            " and weight_growth not< shrunk_weights and most_dead not> dead_layer"
        ),
        _VANISHING,
        _CURE_DEPTH,
        persistence=2,
        source=_DEPTH_SOURCE,
    ),
    Rule(
        "vanishing-gradient",
        "warning",
        when(
            "gradient_depth_log10 < vanishing_depth"
            " and gradient_depth_start_log10 not> both_shrink and epoch > an_epoch"
            " and learnt not> half_learnt and weight_growth not< shrunk_weights"
            " and input_size not> large_input and input_size not< small_input"
        ),
        _VANISHING,
        _CURE_DEPTH,
        persistence=2,
        source=_DEPTH_SOURCE,
    ),
    Rule(
        "vanishing-gradient",
        "warning",
        when(
            "gradient_time_log10 < vanishing_time and epoch > an_epoch and learnt not>"
            " little_learnt"
        ),
        "Over the time steps of a recurrent layer the gradient shrinks by"
        " 10^{gradient_time_log10:a.1f}: what stands at the beginning of a sequence is not learnt.",
        (
            "Use an LSTM or GRU with a forget bias of 1: `WeightInitialization()` sets it.",
            "Make sequences shorter, or let attention or pooling reach the early steps.",
        ),
        persistence=2,
        source="Bengio, Simard & Frasconi 1994",
    ),
    Rule(
        "vanishing-gradient",
        "warning",
        when(
            "gradient_depth_log10 < both_shrink and activation_depth_log10 < both_shrink"
            " and gradient_depth_start_log10 < both_shrink and epoch > early"
            " and learnt not> little_learnt and weight_growth not< shrunk_weights"
            " and input_size not> large_input and input_size not< small_input"
        ),
        "From layer to layer both shrink: the signal by 10^{activation_depth_log10:a.1f} on its way"
        " to the last hidden layer, the gradient by 10^{gradient_depth_log10:a.1f} on"
        " its way back.",
        _CURE_DEPTH,
        persistence=2,
        source=_DEPTH_SOURCE,
    ),
    Rule(
        "exploding-gradient",
        "error",
        when(
            "gradient_depth_log10 > severe_exploding_depth"
            " and gradient_depth_start_log10 not< exploding_depth"
        ),
        _EXPLODING,
        _CURE_DEPTH,
        persistence=2,
        source=_DEPTH_SOURCE,
    ),
    Rule(
        "exploding-gradient",
        "warning",
        when(
            "gradient_depth_log10 > exploding_depth and epoch > an_epoch"
            " and learnt not> half_learnt and early_update_ratio not> large_update"
        ),
        _EXPLODING,
        _CURE_DEPTH,
        persistence=2,
        source=_DEPTH_SOURCE,
    ),
    Rule(
        "exploding-gradient",
        "warning",
        when("gradient_time_log10 > exploding_time and learnt not> half_learnt"),
        "Over the time steps of a recurrent layer the gradient grows by"
        " 10^{gradient_time_log10:a.1f} on its way back.",
        (
            'Clip: `GradientClipping(rule="norm", threshold=1.0)`.',
            "Add `WeightInitialization()`: it makes recurrent weights orthogonal.",
        ),
        persistence=2,
        source="Pascanu, Mikolov & Bengio 2013",
    ),
    Rule(
        "exploding-gradient",
        "error",
        when("stale_gradients > present"),
        "The gradients of earlier steps are still there when new ones come: they add"
        " up, step by step.",
        (
            "Call `optimizer.zero_grad()` before each `self.manual_backward(loss)`.",
            "Leave `optimizer_zero_grad` as it is, where you override it.",
        ),
        persistence=2,
    ),
    Rule(
        "exploding-gradient",
        "warning",
        when("gradient_growth_log10 > exploding_growth and learnt not> half_learnt"),
        "The gradient's norm has grown 10^{gradient_growth_log10:.1f} times since the first steps.",
        (
            'Clip: `GradientClipping(rule="norm", threshold=1.0)`.',
            "Lower the learning rate from {learning_rate} to {learning_rate:/10}.",
        ),
        persistence=2,
        source="Pascanu, Mikolov & Bengio 2013",
    ),
)
