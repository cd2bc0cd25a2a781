"""What is wrong inside the network: dead and saturated units, gradients over depth and time."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Fault, error, error_at_once, info, warning

_STALE = (
    "The gradients of earlier steps are still there when new ones come: they add up, step by step"
)
_VANISHING = (
    "The gradient shrinks by 10^{gradient_depth_log10:a.1f} from the last hidden layer"
    " to the first of {depth:.0f} layers: the first layers do not learn."
)
_EXPLODING = (
    "The gradient grows by 10^{gradient_depth_log10:a.1f} from the last hidden layer"
    " to the first of {depth:.0f} layers."
)
_DEPTH_SOURCE = "Glorot & Bengio 2010; thresholds measured, see docs/training_doctor.md"

NETWORK_FAULTS = (
    Fault("dead-units", 5, "units that are zero on every sample").found_by(
        error(
            "dead_fraction > dead_layer and not_well and dropout not> strong_dropout"
            " and ordinary_steps and input_size not> large_input and not_falling",
            "{dead_fraction:.0%} of the units of {layers} are zero on every sample:"
            " no gradient passes.",
            source="Lu et al. 2019 (dying ReLU)",
        ),
        error(
            "dead_fraction > dead_layer and travelled < nowhere and highest_rate not< no_rate"
            " and learns_half and some_steps and input_size not> large_input"
            " and dropout not> strong_dropout",
            "{dead_fraction:.0%} of the units of {layers} are zero on every sample,"
            " and most weights have never changed.",
            source="Lu et al. 2019 (dying ReLU)",
        ),
        warning(
            "dead_fraction > many_dead and learns_half and a_while and dropout not> strong_dropout"
            " and ordinary_steps and input_size not> large_input and not_falling",
            "{dead_fraction:.0%} of the units of {layers} are zero on every sample.",
            source="Lu et al. 2019 (dying ReLU)",
        ),
        error(
            "zero_gradient > all_identical and learns_half and step > enough_steps"
            " and ordinary_steps and ordinary_values and constant_targets not> flag_set"
            " and softmax_of_one not> flag_set",
            "Every gradient is exactly 0: the weights cannot change any more.",
        ),
    ),
    Fault("saturated-units", 5, "saturated activations, or attention to one place only").found_by(
        warning(
            "saturated_fraction > many_saturated and saturated_at_start > half_saturated"
            " and learns_half and ordinary_steps and relapse not> much_lost"
            " and input_size not> large_input",
            "{saturated_fraction:.0%} of the outputs of {layers} stand where the activation"
            " is flat.",
            source="Glorot & Bengio 2010",
        ),
        warning(
            "attention_logits > large_attention_logits and not_well"
            " and ordinary_steps and relapse not> much_lost",
            "The attention logits of {layers} have grown to a spread of {attention_logits}:"
            " its softmax looks at one position only.",
            source="Dehghani et al. 2023 (attention entropy and logit growth)",
        ),
    ),
    Fault("vanishing-gradient", 6, "gradients shrink over depth or over time steps").found_by(
        error(
            "gradient_depth_log10 < severe_vanishing_depth"
            " and gradient_depth_start_log10 not> vanishing_depth"
            " and kept_weights and most_dead not> dead_layer and ordinary_inputs"
            " and zero_gradient not> flag_set and learns_half and at_full_rate",
            _VANISHING,
            source=_DEPTH_SOURCE,
        ),
        warning(
            "gradient_depth_log10 < vanishing_depth"
            " and gradient_depth_start_log10 not> joint_shrinkage and a_while"
            " and learns_half and kept_weights and ordinary_inputs and at_full_rate",
            _VANISHING,
            source=_DEPTH_SOURCE,
        ),
        warning(
            "gradient_time_log10 < vanishing_time and a_while and learns_little and kept_weights"
            " and at_full_rate",
            "Over the time steps of a recurrent layer the gradient shrinks by"
            " 10^{gradient_time_log10:a.1f}:"
            " what stands at the beginning of a sequence is not learnt.",
            source="Bengio, Simard & Frasconi 1994",
        ),
        warning(
            "gradient_depth_log10 < joint_shrinkage and activation_depth_log10 < joint_shrinkage"
            " and gradient_depth_start_log10 < joint_shrinkage and some_steps"
            " and learns_little and kept_weights and ordinary_inputs",
            "From layer to layer both shrink:"
            " the signal by 10^{activation_depth_log10:a.1f} on its way to the last hidden layer,"
            " the gradient by 10^{gradient_depth_log10:a.1f} on its way back.",
            source=_DEPTH_SOURCE,
        ),
    ),
    Fault("exploding-gradient", 6, "gradients grow over depth, time steps or training").found_by(
        error(
            "gradient_depth_log10 > severe_exploding_depth"
            " and gradient_depth_start_log10 not< exploding_depth and ordinary_inputs",
            _EXPLODING,
            source=_DEPTH_SOURCE,
        ),
        warning(
            "gradient_depth_log10 > exploding_depth and a_while and learns_half and ordinary_steps",
            _EXPLODING,
            source=_DEPTH_SOURCE,
        ),
        warning(
            "gradient_time_log10 > exploding_time and learns_half",
            "Over the time steps of a recurrent layer the gradient grows by"
            " 10^{gradient_time_log10:a.1f} on its way back.",
            source="Pascanu, Mikolov & Bengio 2013",
        ),
        error(
            "stale_gradients > flag_set and some_steps and learnt not> half_learnt"
            " and validation_skill not> some_skill",
            _STALE + ", and little is learnt.",
        ),
        error(
            "stale_gradients > flag_set and some_steps and validation_skill < some_skill"
            " and progress > half_the_run",
            _STALE + ", and little is learnt.",
        ),
        error_at_once(
            "stale_gradients > flag_set and some_steps and falls_behind",
            _STALE + ", and the run has not come to what simple models learn.",
        ),
        info("stale_gradients > flag_set", _STALE + "."),
        warning(
            "gradient_growth_log10 > exploding_growth and learns_half"
            " and ordinary_values and not_falling",
            "The gradient's norm has grown 10^{gradient_growth_log10:.1f} times"
            " since the first steps.",
            source="Pascanu, Mikolov & Bengio 2013",
        ),
    ),
)
