"""How a fit began, whatever else restores a checkpoint beside the Trainer."""

import lightning.pytorch as lightning
import pytest
from helpers.lightning_twins import Classifier, batches, built
from helpers.tiers import in_tiers
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from lightning_stab.callbacks._trainer.fit_state import (
    FitStart,
    begin_fit,
    fit_start,
    forgets_earlier_run,
    is_validating_fit,
    note_restore,
)


class Asking(lightning.Callback):
    """Notes how each fit began, as it is seen when it starts and when it trains."""

    def __init__(self):
        self.starts, self.forgets, self.validations, self.loaded = [], [], [], False

    def setup(self, trainer, module, stage):
        begin_fit(trainer, stage)

    def on_load_checkpoint(self, trainer, module, checkpoint):
        note_restore(trainer, checkpoint)

    def on_fit_start(self, trainer, module):
        self.starts.append(fit_start(trainer))

    def on_train_start(self, trainer, module):
        assert fit_start(trainer) is self.starts[-1]
        self.forgets.append(forgets_earlier_run(trainer, loaded=self.loaded))
        self.loaded = False

    def on_validation_end(self, trainer, module):
        self.validations.append(is_validating_fit(trainer))

    def state_dict(self):
        return {"asked": len(self.starts)}

    def load_state_dict(self, state):
        self.loaded = True


class Tunable(Classifier):
    """Has what the finders change."""

    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 0.05, 2

    def train_dataloader(self):
        return batches(8)

    def configure_optimizers(self):
        import torch

        return torch.optim.SGD(self.parameters(), lr=self.lr)


def trainer(callbacks, folder, **settings):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 1,
        "default_root_dir": folder,
    }
    return lightning.Trainer(callbacks=callbacks, **(quiet | settings))


FINDERS = {
    "LearningRateFinder": lambda: LearningRateFinder(num_training_steps=6),
    "BatchSizeFinder": lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("finder", in_tiers(FINDERS, ["LearningRateFinder"]))
@pytest.mark.parametrize("first", [True, False], ids=["finder-first", "finder-last"])
def test_a_finders_restore_is_no_resume(finder, first, tmp_path):
    asking = Asking()
    for _ in range(2):  # the callback is used again, as in cross-validation
        callbacks = [FINDERS[finder](), asking] if first else [asking, FINDERS[finder]()]
        trainer(callbacks, tmp_path).fit(built(Tunable))
    assert asking.starts == [FitStart.FRESH, FitStart.FRESH]
    assert asking.forgets == [True, True]


def test_a_second_fit_of_a_trainer_continues_and_a_second_trainer_starts_fresh(tmp_path):
    asking = Asking()
    module = built(Classifier)
    one = trainer([asking], tmp_path)
    one.fit(module, batches(4))
    one.fit_loop.max_epochs = 2
    one.fit(module, batches(4))
    trainer([asking], tmp_path).fit(module, batches(4))
    assert asking.starts == [FitStart.FRESH, FitStart.CONTINUED, FitStart.FRESH]
    assert asking.forgets == [True, False, True]


def test_another_module_of_the_same_trainer_starts_fresh(tmp_path):
    asking = Asking()
    one = trainer([asking], tmp_path)
    for epochs, module in enumerate(map(built, [Classifier] * 2), start=1):
        one.fit_loop.max_epochs = epochs
        one.fit(module, batches(4))
    one.fit_loop.max_epochs = 3
    one.fit(module, batches(4))
    assert asking.starts == [FitStart.FRESH, FitStart.FRESH, FitStart.CONTINUED]


@pytest.mark.parametrize("knows", [True, False], ids=["with-its-state", "without-its-state"])
def test_a_checkpoint_of_the_user_is_a_resume(knows, tmp_path):
    first = trainer([Asking()] if knows else [], tmp_path)
    first.fit(built(Classifier), batches(4))
    path = tmp_path / "run.ckpt"
    first.save_checkpoint(path)
    asking = Asking()
    trainer([asking], tmp_path, max_epochs=2).fit(built(Classifier), batches(4), ckpt_path=path)
    assert asking.starts == [FitStart.RESUMED]
    assert asking.forgets == [not knows]


def test_a_checkpoint_of_weights_alone_is_a_resume(tmp_path):
    first = trainer([], tmp_path)
    first.fit(built(Classifier), batches(4))
    path = tmp_path / "weights.ckpt"
    first.save_checkpoint(path, weights_only=True)
    asking = Asking()
    with pytest.raises(KeyError, match="optimizer"):  # Lightning wants the optimizers' state too
        trainer([asking], tmp_path).fit(built(Classifier), batches(4), ckpt_path=path)
    assert asking.starts == [FitStart.RESUMED]


def test_the_sanity_check_and_validate_are_no_validations_of_a_fit(tmp_path):
    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)

    asking = Asking()
    one = trainer([asking], tmp_path, num_sanity_val_steps=1)
    module = built(Validated)
    one.fit(module, batches(4), batches(2))
    one.validate(module, batches(2), verbose=False)
    assert asking.validations == [False, True, False]
