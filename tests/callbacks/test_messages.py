"""What callbacks say on the way: each sentence, and how often."""

from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from helpers.lightning_twins import Classifier, batches, built, fit
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import nn

from lightning_stab import (
    ActivationMonitor,
    BestWeightsEarlyStopping,
    GradientCheck,
    LearningRateDecay,
    StabilityReport,
    StepGuard,
)
from lightning_stab.callbacks.activations import activation_monitor
from lightning_stab.callbacks.clipping import output_layer
from lightning_stab.callbacks.decay import state as decay_state
from lightning_stab.callbacks.gradcheck import gradient_check
from lightning_stab.callbacks.gradients import statistics
from lightning_stab.callbacks.guard import restoring, step_guard
from lightning_stab.callbacks.report import stability_report
from lightning_stab.callbacks.stopping import best_weights_early_stopping as stopping
from lightning_stab.errors import ConflictError, GradientCheckError
from lightning_stab.functional.gradcheck.report import GradientReport, ParameterRecord


@pytest.fixture
def said(monkeypatch):
    """Collect what is said, in all of these modules."""
    lines = []
    for module in (activation_monitor, output_layer, decay_state, gradient_check, statistics,
                   step_guard, restoring, stability_report, stopping):  # fmt: skip
        for name in ("rank_zero_info", "rank_zero_warn"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda line, **_: lines.append(line))
        if hasattr(module, "say"):
            monkeypatch.setattr(module, "say", lambda trainer, line, **_: lines.append(line))
    return lines


def test_a_guard_says_its_first_skip_and_each_rewind(said):
    fit(built(Classifier), [StepGuard("skip")], batches(8, poison=[2, 5]))
    assert len(said) == 1
    assert said[0].startswith("`StepGuard` passed over a step: non-finite loss")
    assert said[0].endswith("Later ones are counted.")
    said.clear()
    guard = StepGuard("rewind", rewind_after=2, snapshot_every_n_steps=1, lr_factor=0.25)
    fit(built(Classifier), [guard], batches(8, poison=[3, 4]))
    assert guard.num_rewound == 1
    assert said[-1] == (
        "`StepGuard` went back to an earlier snapshot of the weights after 2 bad steps in a row and"
        " multiplied the learning rates by 0.25."
    )


def test_a_snapshot_of_other_parameters_is_no_secret(said):
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    trainer = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[], callbacks=[],
        precision_plugin=SimpleNamespace(scaler=None),
    )  # fmt: skip
    snapshot = restoring.take_snapshot(trainer, module, None)
    restoring.restore_snapshot(trainer, module, None, snapshot)
    assert said == []
    trainer.optimizers = [torch.optim.SGD([module.weight], lr=0.1)]
    restoring.restore_snapshot(trainer, module, None, snapshot)
    trainer.optimizers = []
    restoring.restore_snapshot(trainer, module, None, snapshot)
    assert len(said) == 2
    assert all("whose optimizers have other parameters than the present ones" in s for s in said)


def report_of(verdict):
    return GradientReport((ParameterRecord("a", "ok", ()), ParameterRecord("b", verdict, ())))


def test_a_check_says_what_it_found_as_loudly_as_it_is_asked_to(said):
    GradientCheck()._announce(None, report_of("kink"))
    assert said == [report_of("kink").short()]
    said.clear()
    with pytest.raises(GradientCheckError, match="`b`"):
        GradientCheck()._announce(None, report_of("wrong"))
    assert said == []
    GradientCheck(on_fail="warn")._announce(None, report_of("wrong"))
    (line,) = said
    assert "`b`" in line


def test_a_monitor_of_no_steps_says_why_nothing_was_logged(said):
    for steps, number in ((13, 1), (12, 0)):
        fit(built(Classifier), [ActivationMonitor(every_n_steps=steps)])
        lines = [line for line in said if "nothing was logged" in line]
        assert len(lines) == number
        said.clear()
    fit(built(Classifier), [ActivationMonitor(every_n_steps=500)], batches(2))
    assert "ended an interval of 500. Lower `every_n_steps`." in said[0]


class Installs(lightning.Callback):
    """Installs a scheduler for the second of three epochs."""

    def on_train_epoch_start(self, trainer, pl_module):
        scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizers[0], lambda epoch: 0.5)
        configs = [LRSchedulerConfig(scheduler)] if trainer.current_epoch == 1 else []
        trainer.strategy.lr_scheduler_configs = configs


def test_a_decay_says_that_it_leaves_the_rates_to_a_scheduler(said):
    fit(built(Classifier), [LearningRateDecay(), Installs()], batches(2), epochs=3)
    assert said == [
        "`LearningRateDecay` leaves the learning rates to LambdaLR, installed at step 2."
    ]


def test_a_decay_says_where_its_checkpoint_followed_something_else(said):
    trainer = SimpleNamespace(optimizers=[torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)])

    def made(schedule, **settings):
        options = LearningRateDecay(schedule, **settings).options
        return decay_state.DecayState(options, trainer, None)

    plateau = {**made("plateau").state_dict(), **made("plateau").circumstances()}
    for schedule, settings, says in (
        ("plateau", {}, False), ("exponential", {}, False), ("loss", {}, True),
        ("plateau", {"monitor": "val_loss"}, True), ("plateau", {"mode": "max"}, True),
    ):  # fmt: skip
        made(schedule, **settings).load_state_dict(plateau)
        assert bool(said) == says, (schedule, settings)
        assert not says or f"`schedule='{schedule}'` begins with the first rates." in said.pop()


def test_weights_that_cannot_be_restored_after_a_failure_are_a_line_and_no_error(said):
    class Weights:
        discarded = False

        def restore(self, trainer):
            raise ConflictError("they have changed.")

        def discard(self):
            self.discarded = True

    callback = BestWeightsEarlyStopping("val_loss")
    callback._weights = Weights()
    callback._end_by(KeyError("x"), None)
    assert said == ["The best weights could not be restored: they have changed."]
    assert callback._weights.discarded
    assert not callback._restored


def test_compiled_layers_are_named_once(said, monkeypatch):
    monkeypatch.setattr(statistics, "say_compiled", lambda parts: "`net` is compiled")
    profile = statistics.DepthProfile()
    for _ in range(2):
        profile.start(None, nn.Linear(1, 1))
        assert profile.is_on
    profile.stop()
    assert not profile.is_on
    assert said == [
        (
            "`GradientMonitor`: `net` is compiled; the layers inside are left out of the gradient's"
            " profile over depth."
        )
    ]


def test_an_output_layer_that_was_not_seen_is_named_once(said):
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    output, params = output_layer.OutputLayer(), list(module.parameters())

    def step(*kept, index=0):
        return SimpleNamespace(index=index, params=list(kept), module=module, trainer=None)

    assert output.parameters(step(*params)) == {id(p) for p in params[2:]}
    assert output.parameters(step(*params[:2], index=1)) == {id(p) for p in params[:2]}
    assert output.parameters(step(nn.Parameter(torch.ones(1)), index=2)) == set()
    (line,) = said
    assert "the last one declared, '1', counts as the output layer and is not clipped" in line
    said.clear()
    seen = output_layer.OutputLayer()
    seen.watch(module)
    module[0](torch.ones(1, 2))  # which alone has run
    seen.stop()
    assert seen.parameters(step(*params)) == {id(p) for p in params[:2]}
    assert said == []


def test_the_last_line_of_a_report(said):
    report = StabilityReport()
    report._headline, report.path = "Healthy", "runs/report.html"
    report._say(None, [["StepGuard", "skipped 2 steps\nand more"], ["X", "nothing"]])
    assert said == [
        (
            "lightning-stab: Healthy. The page: runs/report.html\n  StepGuard  skipped 2 steps\n"
            "  X          nothing"
        )
    ]
    said.clear()
    report._headline, report.path = "", None
    report._say(None, [])
    assert said == ["lightning-stab:"]
    said.clear()
    StabilityReport(verbose=False)._say(None, [["StepGuard", "skipped"]])
    assert said == []
