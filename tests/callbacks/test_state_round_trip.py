"""The state of each callback, loaded into a new one and asked for again, is the same state."""

import copy

import pytest
import torch
from helpers.lightning_twins import Classifier, batches, built, fit

import lightning_stab
from lightning_stab import callbacks

MADE = {
    "ActivationMonitor": lambda: lightning_stab.ActivationMonitor(3),
    "BestWeightsEarlyStopping": lambda: lightning_stab.BestWeightsEarlyStopping(
        "loss", patience=50, check_every_n_steps=2, rising_checks=30, oscillation_window=30
    ),
    "GradientCheck": lightning_stab.GradientCheck,
    "GradientClipping": lambda: lightning_stab.GradientClipping("history"),
    "GradientMonitor": lambda: lightning_stab.GradientMonitor(2),
    "LearningRateDecay": lambda: lightning_stab.LearningRateDecay("exponential", interval="step"),
    "StepGuard": lambda: lightning_stab.StepGuard("rewind", "skip"),
    "TrainingDoctor": lambda: lightning_stab.TrainingDoctor(every_n_steps=3, print_findings=False),
    "WeightInitialization": lightning_stab.WeightInitialization,
}


def flat(value, at=""):
    """Return the plain values of a state by their places."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{at}.{key}").items()}
    if isinstance(value, (list, tuple)):
        pairs = (flat(each, f"{at}[{i}]") for i, each in enumerate(value))
        return {at: len(value)} | {k: v for found in pairs for k, v in found.items()}
    return {at: repr(value.tolist() if isinstance(value, torch.Tensor) else value)}


@pytest.fixture(scope="module")
def states():
    used = {name: make() for name, make in MADE.items()}
    module = built(Classifier, "adam", batch_norm=True)
    fit(module, used.values(), batches(18, poison=[15]), accumulate_grad_batches=2, epochs=2)
    return {name: callback.state_dict() for name, callback in used.items()}


def test_every_callback_is_here():
    assert set(MADE) == {n for n in callbacks.__all__ if isinstance(getattr(callbacks, n), type)}


@pytest.mark.parametrize("name", MADE)
def test_a_state_that_is_loaded_is_the_state_that_is_saved(name, states):
    restored = MADE[name]()
    saved = copy.deepcopy(states[name])
    restored.load_state_dict(saved)
    assert flat(saved) == flat(states[name])  # what was loaded is left alone
    assert flat(restored.state_dict()) == flat(states[name])
