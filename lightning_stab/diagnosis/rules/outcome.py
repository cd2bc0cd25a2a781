"""What is wrong with how a run ends: a plateau, too few steps, and what validation shows."""

from __future__ import annotations

from lightning_stab.diagnosis.rule import Fault, info, warning, warning_at_once

_UNLIKE = (
    "The validation rows lie {validation_shift:.1f} standard deviations away from the training rows"
)

_TOO_SHORT = (
    "The run ends after {step} steps while the loss is still falling: by"
    " {recent_fall:.1%} of what a constant prediction loses, over its latest part."
)

OUTCOME_FAULTS = (
    Fault("plateau", 9, "the loss stands still, or stays that of a constant prediction").found_by(
        warning(
            "learnt < nothing_learnt and long_enough"
            " and warming_up not> flag_set and ordinary_inputs and not_falling and without_skill",
            "After {epoch:.1f} epochs the loss is still that of a constant prediction.",
        ),
        warning(
            "validation_learnt < nothing_learnt and learnt not> half_learnt and long_enough"
            " and ordinary_inputs and without_skill",
            "After {epoch:.1f} epochs the validation loss has never been better"
            " than that of a constant prediction.",
        ),
        warning(
            "validation_skill < poor_skill and learnt not> half_learnt"
            " and validation_learnt not> little_learnt and a_while and progress > half_the_run"
            " and meant_to_learn and ordinary_inputs and not_falling and moving"
            " and generalization_gap not> wide_gap",
            "After {epoch:.1f} epochs the validation metric is hardly better than that of a"
            " constant prediction.",
        ),
        warning(
            "validation_fall > fallen_metric and validation_rise > risen_validation_loss"
            " and learnt not> hardly_learnt and relapse not> much_lost and long_enough",
            "After {epoch:.1f} epochs little is learnt, and validation has only become worse.",
        ),
        info(
            "recent_improvement < standing_still and long_enough",
            "The loss hardly comes down: {recent_improvement:.2%} of its start within an epoch.",
            persistence=3,
        ),
    ),
    Fault("too-short", 9, "the run ends while the loss still falls").found_by(
        warning_at_once(
            "progress > whole_run and falling > clear_trend and recent_fall > notable_fall"
            " and learnt not> little_learnt and validation_learnt not> half_learnt"
            " and improvement not> half_learnt and validation_rise not> risen_validation_loss"
            " and step not> short_run and warming_up not> flag_set and meant_to_learn"
            " and ordinary_values and without_skill",
            _TOO_SHORT,
        ),
        warning_at_once(
            "progress > whole_run and falling > faint_trend and recent_fall > steep_fall"
            " and step not> tens_of_steps and learnt not> half_learnt"
            " and warming_up not> flag_set and meant_to_learn and ordinary_values",
            _TOO_SHORT,
        ),
        warning_at_once(
            "progress > whole_run and falling > clear_trend and recent_fall > steep_fall"
            " and skill_reached < near_simple_models and step not> short_run"
            " and warming_up not> flag_set and meant_to_learn and ordinary_values",
            _TOO_SHORT,
        ),
        warning_at_once(
            "progress > whole_run and falling > clear_trend and recent_fall > clear_fall"
            " and skill_reached < as_simple_models and generalization_gap < small_gap"
            " and long_enough and epoch_rows > few_rows"
            " and warming_up not> flag_set and meant_to_learn and ordinary_values",
            _TOO_SHORT,
        ),
        warning_at_once(
            "falls_behind and step not> early_steps and warming_up not> flag_set"
            " and ordinary_values",
            "The run ends after {step} steps, before it has come to what simple models learn.",
        ),
        warning_at_once(
            "progress > whole_run and step not> tens_of_steps and learnt not> half_learnt"
            " and loss_ratio not> risen_at_all and warming_up not> flag_set and meant_to_learn"
            " and ordinary_values and without_skill",
            "The run ends after {step} steps: too few for the loss to come down.",
        ),
    ),
    Fault("validation-data", 8, "validation rows that are unlike the training rows").found_by(
        warning(
            "validation_shift > unlike and validation_learnt not> half_learnt and a_while"
            " and meant_to_learn and input_peak not> outlying and without_skill",
            _UNLIKE + ".",
        ),
        warning(
            "validation_shift > notable_shift and generalization_gap > wide_gap"
            " and learnt > half_learnt and validation_skill < little_learnt and a_while"
            " and meant_to_learn and input_peak not> outlying"
            " and skill_reached not> as_simple_models",
            _UNLIKE + ", and what is learnt in training does not hold for them.",
        ),
        warning_at_once(
            "validation_shift > some_shift and generalization_gap > notable_gap and falls_behind"
            " and learnt > half_learnt and a_while and input_peak not> outlying",
            _UNLIKE + ", and what is learnt in training holds less well for them.",
        ),
    ),
    Fault("metric", 10, "a metric that does not follow the loss").found_by(
        info(
            "validation_stuck > flag_set and meant_to_learn",
            "The validation loss has come down by half, and the validation metric has not moved.",
        ),
    ),
    Fault("overfitting", 10, "validation gets worse while training gets better").found_by(
        warning(
            "validation_fall > fallen_metric and learnt > half_learnt and relapse not> much_lost"
            " and validation_skill not> well_learnt and validation_rise not< risen_validation_loss"
            " and meant_to_learn and validation_shift not> unlike",
            "The validation metric has fallen by {validation_fall:.0%} from its best.",
        ),
        warning(
            "validation_skill < hardly_learnt and learnt > little_learnt and a_while"
            " and generalization_gap > wide_gap and progress > half_the_run and meant_to_learn"
            " and validation_shift not> unlike",
            "The training rows are learnt by heart: the validation metric is hardly better than"
            " that of a constant prediction.",
        ),
        warning_at_once(
            "generalization_gap > small_gap and learnt > half_learnt and epoch_rows < very_few_rows"
            " and validation_skill < well_learnt and progress > whole_run and meant_to_learn"
            " and validation_shift not> unlike",
            "The validation loss stands above the training loss of {epoch_rows:.0f} rows by"
            " {generalization_gap:.0%} of the loss of a constant prediction.",
        ),
        warning(
            "generalization_gap > notable_gap and learnt > all_learnt and meant_to_learn"
            " and epoch_rows < few_rows and validation_shift not> unlike"
            " and validation_skill not> well_learnt",
            "{epoch_rows:.0f} rows have been learnt by heart: the validation loss stands above the"
            " training loss by {generalization_gap:.0%} of the loss of a constant prediction.",
        ),
        warning(
            "generalization_gap > wide_gap and learnt > half_learnt and epoch_rows < few_rows"
            " and validation_learnt < hardly_learnt and validation_skill not> well_learnt"
            " and progress > half_the_run and a_while and meant_to_learn"
            " and validation_shift not> unlike",
            "{epoch_rows:.0f} rows are being learnt by heart: the training loss is"
            " {generalization_gap:.0%} of a constant prediction's loss below the best validation"
            " loss, which is hardly better than that.",
        ),
        warning(
            "validation_skill < half_learnt and learnt > all_learnt and epoch_rows < few_rows"
            " and progress > half_the_run and a_while and meant_to_learn"
            " and validation_shift not> unlike",
            "{epoch_rows:.0f} rows have been learnt by heart: the validation metric stands"
            " {validation_skill:.0%} of the way from a constant prediction to a perfect one.",
        ),
        warning_at_once(
            "skill_reached < far_from_simple_models and learnt > well_learnt"
            " and progress > whole_run and generalization_gap > wide_gap and a_while"
            " and meant_to_learn and validation_shift not> some_shift",
            "The training rows are learnt, and the validation metric has no more than"
            " {skill_reached:.0%} of the skill that nearest neighbours or ridge regression have.",
        ),
        info(
            "generalization_gap > wide_gap and learnt > all_learnt and meant_to_learn",
            "The validation loss stands far above the training loss: the gap is"
            " {generalization_gap:.0%} of the loss of a constant prediction.",
        ),
        info(
            "validation_rise > risen_validation_loss and learnt > half_learnt and meant_to_learn",
            "The validation loss has risen by {validation_rise:.0%} of what had been gained,"
            " while the training loss went on falling.",
        ),
    ),
    Fault("underfitting", 10, "less is learnt than simple models learn").found_by(
        warning_at_once(
            "skill_reached < far_from_simple_models and progress > whole_run and a_while"
            " and warming_up not> flag_set and meant_to_learn",
            "The run has learnt less than simple models do: its validation metric has no more than"
            " {skill_reached:.0%} of the skill that nearest neighbours or ridge regression have on"
            " training rows.",
        ),
    ),
)
