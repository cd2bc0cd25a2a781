"""Beside every callback two ranks end alike, or both raise: none waits for the other for ever."""

import sys

import pytest
import torch
from helpers import contract
from helpers.contract import CALLBACKS, KINDS, Net, fit, samples
from helpers.ranks import ddp, process_group, rank, report, run_ranks, weights
from helpers.tiers import in_tiers
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.nightly
SECONDS = 60  # for one run, which takes one or two
NAN = float("nan")

# What does more between ranks than the defaults.
BUSY = contract.BUSY | {
    "BestWeightsEarlyStopping": {"monitor": "loss", "check_every_n_steps": 1, "patience": 20},
    "GradientCheck": {"on_fail": "warn"},
    "StepGuard": {"on_nonfinite": "rewind", "on_spike": "rewind", "forensics": True},
}


def made(name):
    """Return one callback with its defaults, or busy, or all of a kind."""
    name, _, how = name.partition(" ")
    names = list(CALLBACKS) if name == "all" else [name]
    return [KINDS[n](**BUSY[n]) if how and n in BUSY else CALLBACKS[n]() for n in names]


class StopError(Exception):
    pass


class OnOneRank(Net):
    """On rank 1 alone something happens."""

    def __init__(self, situation):
        super().__init__()
        self.situation, self.what = situation, situation if rank() == 1 else ""

    def training_step(self, batch, batch_idx):
        if self.what == "raises in a step" and self.num_steps == 5:
            raise StopError
        if self.what == "interrupted" and self.num_steps == 5:
            raise KeyboardInterrupt
        loss = super().training_step(batch, batch_idx)
        return loss * (1e6 if self.what == "a spike" and self.num_steps == 5 else 1.0)

    def on_before_optimizer_step(self, optimizer):
        if self.what == "raises after the backward pass" and self.num_steps == 5:
            raise StopError

    def validation_step(self, batch, batch_idx):
        if self.what == "raises in a validation" and self.current_epoch == 1:
            raise StopError
        loss = self.loss(batch)
        if self.what == "a bad validation" and self.current_epoch == 1:
            loss = loss * NAN
        if self.situation == "another metric":  # rank 0's falls, rank 1's rises
            loss = torch.tensor(self.current_epoch * (1.0 if rank() else -1.0))
        self.log("val_loss", loss)

    def train_dataloader(self):
        x, y = samples(4, seed=rank()).tensors
        for what, place in (("a bad first batch", 0), ("a bad batch", 2)):
            if self.what == what:
                x[place] = NAN
        return DataLoader(TensorDataset(x, y), batch_size=None)


ENDS = {  # what rank 1 has to raise
    "raises in a step": "StopError",
    "raises after the backward pass": "StopError",
    "raises in a validation": "StopError",
    "interrupted": "SystemExit",
}
SITUATIONS = [
    "a bad first batch",
    "a bad batch",
    "a bad validation",
    "a spike",
    "another metric",
    *ENDS,
]


def every_situation(name):
    for number, situation in enumerate(SITUATIONS):
        sys.stderr.write(f"{situation}\n")  # the last one is that of a deadlock
        with process_group(number, SECONDS):
            report(**outcome(name, situation))


def outcome(name, situation):
    module, error = OnOneRank(situation), ""
    both = {"strategy": ddp(), "devices": 2, "use_distributed_sampler": False, "max_epochs": 4}
    try:
        fit(made(name), module, logger=TensorBoardLogger(".", ""), **both)
    except BaseException as caught:  # as whoever starts the process sees it
        error = type(caught).__name__
    return {"situation": situation, "error": error, "end": (module.num_steps, weights(module))}


ALL = [*CALLBACKS, *(f"{n} busy" for n in BUSY), "all", "all busy"]
SOME = ("StepGuard busy", "BestWeightsEarlyStopping", "all", "all busy")


@pytest.mark.parametrize("name", in_tiers(ALL, [], SOME))
def test_two_ranks_end_alike_or_raise(name, tmp_path):
    ranks = run_ranks(every_situation, tmp_path, name)
    assert [[fact["situation"] for fact in each] for each in ranks] == [SITUATIONS, SITUATIONS]
    for first, second in zip(*ranks, strict=True):
        situation = first["situation"]
        if situation in ENDS:  # and the other rank hears of it
            assert second["error"] == ENDS[situation], situation
            assert first["error"], situation
        else:
            assert first == second
        guards = name in ("StepGuard", "all") and situation in ("a bad first batch", "a bad batch")
        assert ("UnstableStepError" in first["error"]) == guards, situation
