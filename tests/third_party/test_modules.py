"""Other people's modules with the suite: monitors change nothing, the doctor is quiet, runs resume.

Install the extra group `third-party`; what is missing is skipped.
"""

import signal
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from helpers.contract import CALLBACKS, end_of, same
from helpers.processes import run_code
from helpers.quiet import QUIET
from helpers.third_party import PROGRAMS

from lightning_stab import (
    ActivationMonitor,
    GradientMonitor,
    LearningRateDecay,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
)

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore"),  # their warnings are theirs; the results are compared
]
TESTS = [Path(__file__).parents[1], Path(__file__).parents[2]]
every = pytest.mark.parametrize("program", PROGRAMS)


def fit(program, callbacks, *, max_epochs=2, ckpt_path=None, event=None, **settings):
    """Fit a program on a shuffled loader with a state; return the Trainer."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    torch.manual_seed(0)
    module, data, collate = PROGRAMS[program]()
    loaders = [
        stateful(data, batch_size=16, collate_fn=collate, shuffle=shuffle, drop_last=shuffle)
        for shuffle in (True, False)
    ]
    extra = [] if event is None else [event]
    settings = {**QUIET, "num_sanity_val_steps": 0, "log_every_n_steps": 1, **settings}
    trainer = lightning.Trainer(max_epochs=max_epochs, callbacks=[*callbacks, *extra], **settings)
    torch.manual_seed(1)
    # some modules keep objects among their hyperparameters, which a safe load would refuse
    trainer.fit(module, *loaders, ckpt_path=ckpt_path, weights_only=False)
    return trainer


def monitors():
    return [
        GradientMonitor(every_n_steps=2),
        ActivationMonitor(every_n_steps=2),
        TrainingDoctor(print_findings=False),
        StepGuard(),
    ]


@every
def test_monitors_doctor_and_guard_leave_it_as_it_is_bit_for_bit(program):
    without = end_of(fit(program, []))
    assert without["steps"] >= 4
    assert same(end_of(fit(program, monitors())), without)


@every
@pytest.mark.parametrize("first", [[], [WeightInitialization]], ids=["as it is", "initialised"])
def test_the_doctor_is_quiet_while_it_learns(program, first):
    doctor = TrainingDoctor(print_findings=False)
    trainer = fit(program, [*(make() for make in first), doctor], max_epochs=12)
    assert trainer.global_step >= 30
    assert [f.id for f in doctor.findings if f.severity != "info"] == []


def whole_suite():
    """Every callback, with the defaults; the decay beside the schedules that the modules bring."""
    every_one = {**CALLBACKS, "LearningRateDecay": lambda: LearningRateDecay(combine="multiply")}
    return [*(make() for make in every_one.values()), KeepsRandomNumbers()]


class KeepsRandomNumbers(lightning.Callback):
    """Goes on with the random numbers of the checkpoint, which Lightning leaves to its users."""

    restored = None

    def state_dict(self):
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state):
        self.restored = state["torch"]

    def on_train_batch_start(self, *_):
        if self.restored is not None:
            torch.set_rng_state(self.restored)
            self.restored = None


class Dies(lightning.Callback):
    """Ends the process at a batch in mid-epoch, without a word."""

    def on_train_batch_start(self, trainer, *rest):
        if trainer.global_step == 5:
            signal.raise_signal(signal.SIGKILL)


KILLED = """
import warnings
warnings.simplefilter("ignore")
from lightning.pytorch.callbacks import ModelCheckpoint
from third_party.test_modules import *
torch.set_num_threads(1)
save = ModelCheckpoint(".", filename="{{step}}", every_n_train_steps=1, save_top_k=-1)
fit({program!r}, [save, *whole_suite()], event=Dies(), max_epochs=3, enable_checkpointing=True)
"""


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p != "molecules"])
def test_killed_in_mid_epoch_with_the_whole_suite_it_goes_on_bit_for_bit(program, folder):
    expected = end_of(fit(program, whole_suite(), max_epochs=3))
    run_code(KILLED.format(program=program), folder, TESTS, code=-signal.SIGKILL)
    assert torch.load("step=5.ckpt", weights_only=False)["global_step"] == 5
    resumed = fit(
        program, whole_suite(), max_epochs=3, ckpt_path=str(Path("step=5.ckpt").resolve())
    )
    assert same(end_of(resumed), expected)
