"""One measurement per optimizer step, and the same result in whatever order the list has."""

import math
from itertools import permutations
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import same_optimizers, same_state
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from lightning.pytorch.core.optimizer import _MockOptimizer
from torch import nn

from lightning_stab import GradientClipping, GradientMonitor, StepGuard
from lightning_stab.callbacks._trainer import step as _step
from lightning_stab.callbacks._trainer.step import first_group, run_phases
from lightning_stab.callbacks.doctor.advice import momentum_of
from lightning_stab.callbacks.report.about import settings
from lightning_stab.prescription.optimizer_settings import first_rate

NAMES = ("monitor", "clip", "guard")


class Foreign(lightning.Callback):
    """Somebody else's callback, which stands among the suite's."""


def suite(order, **guard):
    members = {
        "monitor": GradientMonitor(1, statistics=("update_ratio", "cosine", "max_abs")),
        "clip": GradientClipping("history", method="percentile", every_n_steps=1),
        "guard": StepGuard("skip", "skip", **guard),
    }
    first, *others = (members[name] for name in order)
    return [first, Foreign(), *others], members


def outcome(order, make, data, arguments, **guard):
    callbacks, members = suite(order, **guard)
    module = make()
    trainer = fit(module, callbacks, data, **arguments())
    logged = {
        step: sorted((k, repr(v)) for k, v in at.items() if "loss" not in k)
        for step, at in trainer.logger.steps.items()
    }
    states = {name: repr(member.state_dict()) for name, member in members.items()}
    return module, trainer, logged, states


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (lambda: built(Classifier, "adam"), dict),
        (lambda: built(Classifier), lambda: {"accumulate_grad_batches": 3}),
        (lambda: built(SmallGAN), dict),
        (lambda: built(Classifier, "adamw_fused"), lambda: {"plugins": [half_precision()]}),
        pytest.param(lambda: built(Classifier, "lbfgs"), dict, marks=pytest.mark.nightly),
    ],
    ids=["plain", "accumulation", "gan", "fp16-fused", "lbfgs"],
)
def test_every_order_gives_the_same_weights_logs_and_states(make, arguments):
    data = batches(poison=[1, 6, 7])
    orders = list(permutations(NAMES))
    if make().__dict__.get("optimizer_name") == "lbfgs":  # slow, and three orders have each first
        orders = orders[::2]
    reference, *others = (outcome(order, make, data, arguments) for order in orders)
    for other in others:
        assert same_state(other[0], reference[0])
        assert same_optimizers(other[1], reference[1])
        assert other[2] == reference[2]
        assert other[3] == reference[3]


def test_every_order_rewinds_alike():
    def run(order):
        callbacks, members = suite(order)
        place = callbacks.index(members["guard"])
        guard = StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=3)
        callbacks[place] = guard
        module = built(Classifier)
        trainer = fit(module, callbacks, batches(poison=[6, 7, 10, 11]))
        logged = {s: {k: repr(v) for k, v in at.items()} for s, at in trainer.logger.steps.items()}
        assert guard.num_rewound == 2
        return module, logged

    reference, *others = map(run, permutations(NAMES))
    for module, logged in others:
        assert same_state(module, reference[0])
        assert logged == reference[1]


@pytest.fixture
def measurements(monkeypatch):
    """Counts the measurements before clipping; those after it are for reports only."""
    counts = []
    measure = _step.OptimizerStep.norms_now

    def counted(step):
        counts.extend([] if step.clipped else [1])
        return measure(step)

    monkeypatch.setattr(_step.OptimizerStep, "norms_now", counted)
    return counts


@pytest.mark.parametrize("order", list(permutations(NAMES)))
def test_the_gradients_are_measured_once_per_step(order, measurements):
    callbacks, _ = suite(order)
    fit(built(Classifier), callbacks, batches(5))
    assert len(measurements) == 5


def test_a_monitor_that_does_not_look_measures_nothing(measurements):
    fit(built(Classifier), [GradientMonitor(5, 0)], batches(10))
    assert len(measurements) == 2


def test_value_clipping_between_its_reports_measures_no_norm(monkeypatch):
    counts = []
    measure = _step.tensor_norms
    monkeypatch.setattr(_step, "tensor_norms", lambda g: counts.append(1) or measure(g))
    fit(built(Classifier), [GradientClipping("value", every_n_steps=5)], batches(10))
    assert len(counts) == 4  # two reports, before and after


def test_the_monitor_sees_the_gradients_before_the_clip_and_the_guard_before_both():
    for order in permutations(NAMES):
        callbacks, _ = suite(order)
        trainer = fit(built(Classifier), callbacks, batches(6))
        for values in trainer.logger.steps.values():
            if "clip/norm_before" in values:
                assert values["grad_norm/total"] == pytest.approx(values["clip/norm_before"])
                assert values["grad_norm_clipped/total"] == pytest.approx(values["clip/norm_after"])


def test_a_clipper_learns_nothing_from_a_rejected_step():
    for order in permutations(NAMES):
        callbacks, members = suite(order)
        fit(built(Classifier), callbacks, batches(12, poison=[0, 4, 5]))
        (history,) = members["clip"].state_dict()["histories"].values()
        assert len(history["values"]) == 9
        assert history["num_nonfinite"] == 0


def test_only_the_optimizers_own_parameters_are_read():
    """The other optimizer's stale gradients do not count, and are not dropped with a bad step."""
    monitor = GradientMonitor(1)
    trainer = fit(built(SmallGAN), [monitor], batches(2))
    metrics = trainer.logger.latest
    own = [v for k, v in metrics.items() if k.startswith("grad_norm/discriminator")]
    assert metrics["grad_norm/total_opt1"] == pytest.approx(torch.tensor(own).norm().item())


def test_a_callback_outside_the_list_does_nothing():
    class Calling(lightning.Callback):
        def __init__(self, outsider):
            self.outsider = outsider

        def on_before_optimizer_step(self, trainer, module, optimizer):
            run_phases(self.outsider, trainer, module, optimizer)

    plain, called = built(Classifier), built(Classifier)
    fit(plain, [GradientMonitor(1)])
    fit(called, [GradientMonitor(1), Calling(GradientClipping("norm", 1e-6))])
    assert same_state(plain, called)


def test_the_first_group_of_no_optimizer_and_of_lightnings_stand_in_is_empty():
    trainer = SimpleNamespace(optimizers=[], precision="32-true", callbacks=[])
    assert first_group([]) == first_group([_MockOptimizer()]) == {}
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    assert first_group([optimizer, _MockOptimizer()])["lr"] == 0.5
    assert math.isnan(momentum_of([_MockOptimizer()]))
    assert math.isnan(first_rate(trainer))
    trainer.optimizers = [_MockOptimizer()]
    assert math.isnan(first_rate(trainer))
    assert "learning_rate" not in settings(trainer)
    trainer.optimizers = [optimizer]
    assert settings(trainer)["learning_rate"] == 0.5
    optimizer.param_groups[0]["lr"] = None  # as an optimizer without rates has it
    assert "learning_rate" not in settings(trainer)
