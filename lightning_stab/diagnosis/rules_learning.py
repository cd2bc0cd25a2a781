"""What is wrong in the course of the run: learning rate, loss and validation."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Rule, when

_LOWER = (
    "Lower the learning rate from {learning_rate} to {learning_rate:/10}, and start again.",
    'Add `GradientClipping(rule="norm", threshold=1.0)`, and a warm-up over the first steps.',
)
_REGULARISE = (
    'Stop at the best epoch: `BestWeightsEarlyStopping(monitor="val_loss")` keeps its weights.',
    "Add data, augmentation, dropout or weight decay, or make the network smaller.",
)

LEARNING_RULES = (
    Rule(
        "learning-rate-too-high",
        "error",
        when("loss_ratio > risen_loss and unexplained > worse_than_constant"),
        "The loss has risen to {loss_ratio} times its start.",
        _LOWER,
        persistence=2,
    ),
    Rule(
        "learning-rate-too-high",
        "warning",
        when("early_update_ratio > large_update and epoch > early and learnt not> little_learnt"),
        "The first steps changed the weights by {early_update_ratio:.0%} of their size"
        " each, and the"
        " run has not learnt since.",
        _LOWER,
        persistence=2,
    ),
    Rule(
        "learning-rate-too-low",
        "warning",
        when(
            "update_ratio < small_update and improvement < small_improvement"
            " and epoch > an_epoch and warming_up < present"
        ),
        "A step changes the weights by {update_ratio:.1e} of their size, and the loss has come down"
        " by {improvement:.1%} since the start.",
        (
            "Raise the learning rate from {learning_rate} to {learning_rate:*10}.",
            "Or use Adam, whose steps do not shrink with the gradient.",
        ),
        persistence=2,
    ),
    Rule(
        "loss-spike",
        "info",
        when("spike_height > large_spike"),
        "The loss jumped to {spike_height} times its median.",
        (
            'Add `StepGuard(on_spike="skip")`, which passes over such a step.',
            "Look at the batch: `StepGuard(forensics=True)` keeps it.",
        ),
        is_event=True,
    ),
    Rule(
        "plateau",
        "warning",
        when("learnt < nothing_learnt and epoch > some_epochs"),
        "After {epoch:.1f} epochs the loss is still that of a constant prediction.",
        (
            (
                "Fit one batch alone first: a network that cannot do that has a fault in its data,"
                " loss or architecture."
            ),
            "Check that inputs and labels belong together.",
            "Raise the learning rate from {learning_rate} to {learning_rate:*10}.",
        ),
        persistence=2,
    ),
    Rule(
        "plateau",
        "info",
        when("recent_improvement < standing_still and epoch > some_epochs"),
        "The loss has not come down within the last epoch.",
        (
            'If the metric is good enough, stop: `BestWeightsEarlyStopping(monitor="val_loss")`.',
            "If not, lower the learning rate: `LearningRateDecay()`.",
        ),
        persistence=3,
    ),
    Rule(
        "oscillating-loss",
        "info",
        when("oscillation > swinging_loss and epoch > an_epoch"),
        "The loss swings by {oscillation:.0%} of its level from step to step.",
        (
            (
                "Lower the learning rate from {learning_rate} to {learning_rate:/3}, or let it"
                " decay:"
                " `LearningRateDecay()`."
            ),
            "Make the batches larger.",
        ),
        persistence=3,
    ),
    Rule(
        "overfitting",
        "warning",
        when("validation_fall > fallen_metric"),
        "The validation metric has fallen by {validation_fall:.0%} from its best.",
        _REGULARISE,
        persistence=2,
    ),
    Rule(
        "overfitting",
        "info",
        when("validation_rise > risen_validation_loss and learnt > half_learnt"),
        "The validation loss has risen by {validation_rise:.0%} of what had been gained, while the"
        " training loss went on falling.",
        _REGULARISE,
        persistence=2,
    ),
)
