"""Every number that a rule compares with, by name; each can be replaced by ``thresholds=``."""

from __future__ import annotations

from types import MappingProxyType

THRESHOLDS = MappingProxyType(
    {
        # what is a fault by its form
        "present": 0.5,  # facts that are 0 or 1
        "all_identical": 0.7,  # of a layer's units
        "large_start_loss": 6.0,  # times the loss of the best constant prediction
        "never_a_gradient": 0.99,  # of the steps seen
        "enough_steps": 8.0,  # optimizer steps before "never" is said
        "many_steps": 95.0,
        "many_rectified": 0.2,  # of the logits
        "one_class_batches": 0.4,
        "many_unreachable": 0.05,  # of the targets
        # depth and time, log10 of a ratio
        "vanishing_depth": -3.0,
        "severe_vanishing_depth": -6.0,
        "exploding_depth": 3.0,
        "both_shrink": -2.0,
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
        "nearly_gone": 0.01,  # of the highest learning rate
        "small_update": 1e-4,
        "risen_loss": 3.0,
        "sudden_rise": 3.0,
        "worse_than_constant": 1.5,
        "small_improvement": 0.05,
        # loss
        "outlying": 30.0,
        "large_spike": 3.0,
        "recurring": 2.5,  # epochs with spikes
        "much_lost": 0.5,  # of the best gain
        "grown_weights": 6.0,
        "shrunk_weights": 0.2,
        "swinging_loss": 0.5,
        "no_loss_lost": 0.5,  # non-finite losses in an interval
        "standing_still": 0.01,
        "nothing_learnt": 0.03,
        "hardly_learnt": 0.15,
        "little_learnt": 0.3,
        "half_learnt": 0.5,
        "well_learnt": 0.8,
        "all_learnt": 0.95,
        # scales
        "large_input": 10.0,
        "small_input": 0.02,
        "large_target": 30.0,
        "small_prediction": 0.3,
        # validation
        "fallen_metric": 0.15,
        "wide_gap": 0.2,
        "risen_validation_loss": 0.2,
        # time
        "early": 0.3,  # epochs
        "an_epoch": 0.95,
        "half_the_run": 0.5,
        "far_into_the_run": 0.4,
        "some_epochs": 2.95,
    }
)
