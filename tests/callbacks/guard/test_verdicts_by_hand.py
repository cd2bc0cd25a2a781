"""What a guard says of a step, which values are spikes, and what a rewind scales, by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_stab.callbacks.guard import verdicts
from lightning_stab.callbacks.guard.options import GuardOptions
from lightning_stab.callbacks.guard.restoring import (
    SchedulerHold,
    _load_optimizer,
    fits_into_checkpoint,
    num_groups,
    scale_learning_rates,
)
from lightning_stab.callbacks.guard.verdicts import (
    OptimizerSpikeDetector,
    StepFacts,
    Verdict,
    gather_facts,
    nonfinite_verdict,
    packed,
)

nan, inf = math.nan, math.inf


def facts(loss=1.0, norm=2.0, running=0.0, *, has_loss=True, line=False):
    return StepFacts(loss, norm, running, has_loss, line)


def test_the_first_quantity_that_is_no_number_is_named_the_loss_before_the_gradient():
    for given, quantity in (
        (facts(), None), (facts(nan, inf), "loss"), (facts(norm=inf, running=nan), "norm"),
        (facts(running=inf), "running"), (facts(nan, has_loss=False), None),
    ):  # fmt: skip
        found = nonfinite_verdict(given)
        assert (found and found.quantity) == quantity
        assert found is None or (not found.is_spike and found.limit == inf)


def test_an_overflow_is_one_of_the_gradient_alone():
    for given, quantity, known in (
        (facts(norm=inf), "norm", True), (facts(nan, inf), "norm", False),
        (facts(norm=inf, running=inf), "norm", False), (facts(nan), "loss", False),
    ):  # fmt: skip
        assert Verdict(quantity, inf).is_overflow(given) == known


def test_a_verdict_in_words():
    assert Verdict("loss", nan).describe(facts(nan, 3.5), "step 7", "; in `a`") == (
        "non-finite loss at step 7 (loss nan, gradient norm 3.5); in `a`"
    )
    assert Verdict("norm", 90.0, 12.5).describe(facts(1.0, 90.0), "step 7", "; in `a`") == (
        "gradient spike at step 7: the gradient norm is 90, and the run's own past allows up to"
        " 12.5 (loss 1, gradient norm 90)"
    )
    hidden = Verdict("running", inf).describe(facts(has_loss=False, running=inf), "step 7")
    assert hidden == "non-finite running statistics at step 7 (gradient norm 2)"


def detector(**settings):
    return OptimizerSpikeDetector(GuardOptions(**settings))


def test_each_quantity_has_its_own_past_and_its_own_rule():
    found = detector(window=8, min_window=4, deviations=6.0, loss_jump=0.2, gradient_factor=5.0)
    for _ in range(4):
        found.learn(facts(1.0, 2.0, 3.0))
    assert found.is_filled
    limits = found.limits()
    assert limits == {"loss": pytest.approx(1.2), "norm": 10.0, "running": 300.0}
    for given, quantity in (
        (facts(1.2, 10.0, 300.0), None), (facts(1.21, 11.0), "loss"), (facts(1.0, 10.1), "norm"),
        (facts(1.0, 2.0, 301.0), "running"), (facts(9.0, has_loss=False), None),
        (facts(1.0, 2.0, 301.0, line=True), None), (facts(1.3, 2.0, 301.0, line=True), "loss"),
    ):  # fmt: skip
        verdict = found.verdict(given)
        assert (verdict and verdict.quantity) == quantity
        if verdict:
            assert (verdict.value, verdict.limit) == (
                given.quantities()[quantity],
                limits[quantity],
            )
    again = detector(window=8, min_window=4)
    again.load_state_dict(found.state_dict())
    assert again.limits() == limits


def test_a_window_is_filled_where_each_that_has_begun_is():
    found = detector(window=8, min_window=3)
    assert not found.is_filled
    for count in range(1, 4):
        found.learn(facts(has_loss=False))
        assert found.is_filled == (count == 3)  # of losses nothing has been seen
    found.learn(facts())
    assert not found.is_filled  # of one loss little is known
    found.learn(facts())
    found.learn(facts())
    assert found.is_filled


def step(total, exact=None, optimizer=None, rank=0, ranks=1):
    trainer = SimpleNamespace(global_rank=rank, world_size=ranks)
    return SimpleNamespace(total=torch.tensor(total), total_value=exact, optimizer=optimizer,
                           trainer=trainer)  # fmt: skip


def test_the_facts_of_one_rank_and_of_several(monkeypatch):
    alone = gather_facts(step(3.0), {"loss": torch.tensor(0.5), "norm": torch.tensor(3.0)})
    assert alone == StepFacts(0.5, 3.0, 0.0, True, False)
    hidden = gather_facts(step(3.0), {"running": torch.tensor(4.0), "norm": torch.tensor(3.0)})
    assert hidden == StepFacts(0.0, 3.0, 4.0, False, False)
    line = torch.optim.LBFGS([nn.Parameter(torch.zeros(1))])
    assert gather_facts(step(3.0, optimizer=line), {"norm": torch.tensor(3.0)}).is_line_search
    large = gather_facts(step(inf, 1e25), {"norm": torch.tensor(inf)})
    assert large.norm == pytest.approx(1e25)  # whose entries are finite
    others = [[0.5, 4.0, 3.0], [1.5, 2.0, 5.0]]  # by rank: loss, running, norm
    monkeypatch.setattr(verdicts, "gather_rows", lambda trainer, own: torch.tensor(others))
    quantities = {"loss": torch.tensor(0.5), "norm": torch.tensor(3.0)}
    assert gather_facts(step(3.0, ranks=2), quantities) == StepFacts(1.0, 5.0, 4.0, True, False)
    others[1][2] = inf
    asked = []

    def gather_numbers(trainer, own, device):
        asked.append(own)
        return [own, own]

    monkeypatch.setattr(verdicts, "gather_numbers", gather_numbers)
    assert gather_facts(step(3.0, 7.0, rank=1, ranks=2), quantities).norm == 7.0
    assert asked == [[1.5, 2.0, 7.0]]  # this rank's own


def test_scalars_are_packed_in_the_widest_of_their_precisions():
    single, double = torch.tensor([1.0]), torch.tensor(2.0, dtype=torch.float64)
    assert packed([single, torch.tensor(3.0, dtype=torch.bfloat16)]).dtype is torch.float32
    assert packed([single, double]).dtype is torch.float64
    assert packed([single, double]).tolist() == [1.0, 2.0]


def test_schedulers_are_held_for_their_own_optimizers_step():
    mine, other = object(), object()
    configs = [
        SimpleNamespace(interval=interval, scheduler=SimpleNamespace(optimizer=optimizer),
                        reduce_on_plateau=plateau)
        for interval, optimizer, plateau in (
            ("step", mine, False), ("step", mine, True), ("step", other, False),
            ("epoch", mine, False))
    ]  # fmt: skip
    hold = SchedulerHold()
    hold.hold(SimpleNamespace(lr_scheduler_configs=configs), mine)
    assert [c.interval for c in configs] == ["held", "held", "step", "epoch"]
    hold.release(plateaus=False)
    assert [c.interval for c in configs] == ["step", "held", "step", "epoch"]
    hold.release(plateaus=True)
    assert [c.interval for c in configs] == ["step", "step", "step", "epoch"]


def sgd(*rates, **settings):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0, **settings)


def test_a_rewind_cuts_every_rate_and_what_schedulers_begin_with():
    optimizer, told = sgd(1.0, 2.0, 4.0), []
    optimizer.param_groups[0] |= {"initial_lr": 8.0, "max_lr": 16.0, "min_lr": 0.5}
    optimizer.param_groups[1]["lr"] = None
    inner = SimpleNamespace(base_lrs=[4.0])
    outer = SimpleNamespace(_schedulers=[inner, SimpleNamespace()], base_lrs=[2.0, 6.0])
    trainer = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=outer)],
        callbacks=[SimpleNamespace(scale_learning_rates=told.append), SimpleNamespace()],
    )  # fmt: skip
    scale_learning_rates(trainer, 0.5, 2, [2])
    first, second, third = optimizer.param_groups
    assert [first[n] for n in ("lr", "initial_lr", "max_lr", "min_lr")] == [0.25, 2.0, 4.0, 0.125]
    assert second["lr"] is None
    assert third["lr"] == 2.0  # added later: once
    assert (outer.base_lrs, inner.base_lrs, told) == ([0.5, 1.5], [1.0], [0.25])
    scale_learning_rates(trainer, 0.5)
    assert third["lr"] == 1.0


def test_an_optimizer_is_put_back_where_its_groups_are_those_of_before_and_later_ones():
    optimizer = sgd(1.0, momentum=0.9)
    state = optimizer.state_dict()
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.param_groups[0]["added"] = "here"
    assert _load_optimizer(optimizer, state)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert optimizer.param_groups[0]["added"] == "here"
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 5.0})
    assert _load_optimizer(optimizer, state)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 5.0]
    assert not _load_optimizer(sgd(3.0), optimizer.state_dict())  # fewer than before
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1)) for _ in range(2)], lr=3.0)
    assert not _load_optimizer(other, state)
    assert other.param_groups[0]["lr"] == 3.0
    assert num_groups({"optimizers": [state, optimizer.state_dict()]}) == [1, 2]
    assert fits_into_checkpoint({"module": {"a": torch.zeros(1)}})


def test_which_policies_put_something_back():
    for nonfinite, spike, rewinds, undoes in (
        ("raise", "ignore", False, False), ("skip", "ignore", False, True),
        ("raise", "skip", False, True), ("rewind", "ignore", True, True),
        ("ignore", "rewind", True, True),
    ):  # fmt: skip
        options = GuardOptions(on_nonfinite=nonfinite, on_spike=spike)
        assert (options.rewinds, options.undoes) == (rewinds, undoes)
    GuardOptions(min_window=8, window=8)
    GuardOptions(on_spike="rewind", rewind_after=9)
    GuardOptions(rewind_after=99)  # nothing rewinds
    GuardOptions(loss_jump=0.0, gradient_factor=1.0, lr_factor=1.0, min_window=2, window=2)
