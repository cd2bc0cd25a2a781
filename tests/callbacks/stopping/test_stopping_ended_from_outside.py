"""Ctrl-C, an exception, SIGTERM: the best weights come back, and a checkpoint goes on as before."""

import pytest
import torch
from helpers.stopping_modules import Regression, Replays, data, same, tensors, trainer
from helpers.tiers import in_tiers
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay

KEY = "lightning_stab.best_weights"
VALUES = [5, 3, 4, 4.5, 2, 6, 6, 6]
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*called without a model", "ignore:.*no last checkpoint"
)
ENDINGS = [KeyboardInterrupt, RuntimeError, SIGTERMException, torch.OutOfMemoryError]


class Ends(Callback):
    def __init__(self, exception, epoch):
        self.exception, self.epoch = exception, epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 2):
            self.epoch = None
            raise self.exception


class Saves(Callback):
    """Writes what `OnExceptionCheckpoint` writes, from a place of its own in the list."""

    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path, weights_only=False)


def run(*callbacks, epochs=8, done=0, ckpt_path=None):
    saves = any(isinstance(callback, OnExceptionCheckpoint) for callback in callbacks)
    fits = trainer(*callbacks, max_epochs=epochs, enable_checkpointing=saves)
    module = Regression(*VALUES)
    module.validated = [None] * done
    try:
        resumed = {"ckpt_path": ckpt_path, "weights_only": True} if ckpt_path else {}
        fits.fit(module, Replays(data()), data(), **resumed)
    except (SystemExit, *ENDINGS):
        pass
    return fits, module


@pytest.mark.parametrize(
    "folder", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["memory", "folder"]
)
@pytest.mark.parametrize(
    "saver", in_tiers(["lightning", "before", "after"], ["lightning", "after"])
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_best_weights_come_back_and_the_checkpoint_goes_on(ending, saver, folder, tmp_path):
    def stop():
        place = str(tmp_path / "kept") if folder else None
        return BestWeightsEarlyStopping("val_loss", patience=3, folder=place)

    path, first = tmp_path / "on_exception.ckpt", stop()
    save = OnExceptionCheckpoint(tmp_path) if saver == "lightning" else Saves(path)
    order = [save, first] if saver == "before" else [first, save]
    fits, module = run(*order, Ends(ending("ended"), 3))
    assert same(tensors(module), module.validated[1])
    assert f"The run was ended by {ending.__name__}; the best was check 2" in first.summary
    assert not first._weights
    assert not folder or not list((tmp_path / "kept").iterdir())
    assert "on_exception" not in vars(fits.strategy)

    whole, again = stop(), stop()
    _, uninterrupted = run(whole)
    _, resumed = run(again, ckpt_path=path, done=3)
    assert again.state_dict() == whole.state_dict()
    assert again.summary == whole.summary
    assert same(resumed.state_dict(), uninterrupted.state_dict())


def test_the_weights_that_a_cut_reloads_are_in_the_checkpoint(tmp_path):
    def decay():
        return LearningRateDecay("plateau", monitor="val_loss", patience=2, reload_best=True)

    run(decay(), OnExceptionCheckpoint(tmp_path), Ends(KeyboardInterrupt(), 3))
    _, uninterrupted = run(decay())
    _, resumed = run(decay(), ckpt_path=tmp_path / "on_exception.ckpt", done=3)
    assert same(resumed.state_dict(), uninterrupted.state_dict())
    assert resumed.rates == uninterrupted.rates[-len(resumed.rates) :]


@pytest.mark.parametrize("callback", ["stop", "decay"])
def test_a_resumed_run_that_ends_before_its_first_step_loses_nothing(callback, tmp_path):
    class Fails(Callback):
        def on_sanity_check_start(self, trainer, pl_module):
            raise RuntimeError

    def make():
        if callback == "stop":
            return BestWeightsEarlyStopping("val_loss", patience=3)
        return LearningRateDecay("plateau", monitor="val_loss", patience=2, reload_best=True)

    path = tmp_path / "on_exception.ckpt"
    run(make(), OnExceptionCheckpoint(tmp_path), Ends(KeyboardInterrupt(), 3))
    first = torch.load(path, weights_only=True)
    fits = trainer(
        make(),
        OnExceptionCheckpoint(tmp_path),
        Fails(),
        num_sanity_val_steps=1,
        max_epochs=8,
        enable_checkpointing=True,
    )
    with pytest.raises(RuntimeError):
        fits.fit(Regression(*VALUES), data(), data(), ckpt_path=path, weights_only=True)
    second = torch.load(path, weights_only=True)
    (first_best,), (second_best,) = (c[KEY].values() for c in (first, second))
    assert second["callbacks"] == first["callbacks"]
    assert same(second_best, first_best)


def test_the_last_weights_stay_on_request_after_an_interrupt():
    stop = BestWeightsEarlyStopping("val_loss", patience=9, restore_best=False)
    _, module = run(stop, Ends(KeyboardInterrupt(), 3))
    assert not same(tensors(module), module.validated[1])


def test_a_fit_after_an_interrupt_keeps_the_best_and_a_new_trainer_forgets_it():
    stop = BestWeightsEarlyStopping("val_loss", patience=2)
    fits, module = run(stop, Ends(KeyboardInterrupt(), 3))
    best = module.validated[1]
    module.values = [9]
    fits.fit(module, data(), data())
    assert same(tensors(module), best)
    assert stop.best_score == 3
    _, module = run(stop, epochs=2)
    assert stop.best_position.check == 2
    assert same(tensors(module), module.validated[1])
