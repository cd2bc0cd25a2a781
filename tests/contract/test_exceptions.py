"""A checkpoint that is written when a run ends in an exception: no callback loses its state."""

from pathlib import Path

import pytest
import torch
from helpers.contract import BUSY, CALLBACKS, KINDS, Net, end_of, fit, same
from helpers.loaders import KeepsItsPlace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import OnExceptionCheckpoint

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
every = pytest.mark.parametrize("name", CALLBACKS)
NAN = float("nan")
SETTINGS = BUSY | {
    "StepGuard": {"on_nonfinite": "rewind", "snapshot_every_n_steps": 2},
    "TrainingDoctor": {"every_n_steps": 1},
}


def made(name):
    return KINDS[name](**SETTINGS[name]) if name in SETTINGS else CALLBACKS[name]()


class BreakError(Exception):
    pass


class Saves(Callback):
    """Writes what `OnExceptionCheckpoint` writes, from a place of its own in the list."""

    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path, weights_only=False)


class Ends(OnExceptionCheckpoint):
    """Ends the run behind the fifth step, when every other callback is through with it."""

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step == 5:
            raise BreakError


def in_a_step(step):
    if step == 5:
        raise BreakError


def files_of(callback, module, *more):
    """Return the checkpoints of a run that breaks, written by all who can, and the callback."""
    callbacks = [Saves("before.ckpt"), callback, Saves("after.ckpt"), *more]
    with pytest.raises(BreakError):
        fit(callbacks, module, [KeepsItsPlace()], enable_checkpointing=bool(more))
    return {file.name: torch.load(file, weights_only=True) for file in Path().glob("*.ckpt")}


class Poisoned(Net):
    """Its loss is NaN in the step before the last: there is something to say at the end."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (NAN if self.num_steps == 5 else 1.0)


@every
@pytest.mark.parametrize("kind", [Net, Poisoned])
def test_it_is_whole_in_a_checkpoint_from_any_place_in_the_list(name, kind):
    callback = made(name)
    files = files_of(callback, kind(in_a_step))
    assert same(files["after.ckpt"], files["before.ckpt"])
    state = files["before.ckpt"]["callbacks"].get(callback.state_key, {})
    assert bool(state) == bool(callback.state_dict())  # what the ended fit remembers is there


@every
@pytest.mark.nightly
def test_from_such_a_checkpoint_a_run_goes_on_bit_for_bit(name):
    whole = made(name)
    expected = end_of(fit([whole], Net(), [KeepsItsPlace()]))
    files = files_of(made(name), Net(), Ends(".", "last"))
    assert set(files) == {"before.ckpt", "after.ckpt", "last.ckpt"}
    for file in files:
        resumed = made(name)
        trainer = fit([resumed], Net(), [KeepsItsPlace()], ckpt_path=file)
        assert same(end_of(trainer), expected), file
        if name != "TrainingDoctor":  # which does not save the batch before, for its comparisons
            assert same(resumed.state_dict(), whole.state_dict()), file
