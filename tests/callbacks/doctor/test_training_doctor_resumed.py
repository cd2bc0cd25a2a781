"""A run that ended in the middle of an epoch and goes on is diagnosed like the whole one."""

import json

import pytest
import torch
from helpers.doctor_programs import Program, doctor, hopeless, initialized, learnable, mlp, numbers
from helpers.lightning_twins import fit
from helpers.stopping_modules import Replays
from helpers.tiers import in_tiers
from lightning.pytorch import Callback
from torch import nn

BATCHES = 20
SICK = {
    "zeros": (lambda: Program(initialized(mlp(3), lambda e: nn.init.zeros_(e.weight))), learnable),
    "doubled softmax": (lambda: Program(nn.Sequential(mlp(3), nn.Softmax(1))), learnable),
    "nothing to learn": (lambda: Program(mlp()), hopeless),
    "too high": (lambda: Program(mlp(), optimizer=lambda p: torch.optim.SGD(p, 30.0)), learnable),
    "large targets": (
        lambda: Program(mlp(outputs=1), nn.functional.mse_loss),
        lambda: numbers(scale=1e4),
    ),
}


class EndsAfter(Callback):
    """Saves after a batch, the last in the list, and ends the run there."""

    def __init__(self, batch, path):
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.batch:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def run(name, *more, **arguments):
    make, data = SICK[name]
    torch.manual_seed(0)
    watcher, module = doctor(), make()
    torch.manual_seed(1)
    fit(module, [watcher, *more], Replays(data()), epochs=3, **arguments)
    return watcher


@pytest.mark.parametrize("batch", in_tiers([7, BATCHES + 13], [BATCHES + 13]))
@pytest.mark.parametrize("name", in_tiers(SICK, ["zeros", "too high"]))
def test_a_run_cut_in_mid_epoch_is_diagnosed_like_the_whole(name, batch, tmp_path):
    whole = run(name)
    assert bool(whole.findings) == (name != "nothing to learn")
    path = tmp_path / "cut.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(name, EndsAfter(batch, path))
    resumed = run(name, ckpt_path=path)
    assert resumed.findings == whole.findings
    assert state(resumed) == state(whole)
    assert str(facts(resumed)) == str(facts(whole))  # NaN equals NaN


def state(watcher):
    """Return what it knows as text, without what only an uninterrupted run has measured."""
    kept = watcher.state_dict()
    del kept["patient"]["steps"]["travelled"]  # from the weights of the start
    del kept["patient"]["neighbours"]  # rows of the whole first epoch
    return json.dumps(kept)


def facts(watcher):
    """Return the facts that are measured once, at the start."""
    source = watcher._state.steps
    return {name: source.facts()[name] for name in source.SAVED_FACTS}


def test_weights_that_have_moved_are_not_taken_for_those_of_the_start(tmp_path):
    path = tmp_path / "cut.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run("large targets", EndsAfter(BATCHES + 13, path))
    saved = torch.load(path)["callbacks"][doctor().state_key]
    before = saved["patient"]["steps"]["travelled"]
    resumed = run("large targets", ckpt_path=path)
    assert resumed._state.steps.facts()["travelled"] >= before > 0.1
