"""Steps that Lightning does not announce, and optimizers that evaluate several times in a step."""

import warnings
from itertools import product

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import same_state
from helpers.lightning_twins import Classifier, RecordingLogger, batches, built, fit
from torch import nn
from torch.optim import optimizer as torch_optimizer

from lightning_stab import GradientClipping, GradientMonitor, StepGuard, TrainingDoctor
from lightning_stab.callbacks._trainer.step_watch import StepWatch, watch_of


def num_hooks():
    return len(torch_optimizer._global_optimizer_pre_hooks) + len(
        torch_optimizer._global_optimizer_post_hooks
    )


def test_the_hooks_come_off_and_go_on_again():
    watch = StepWatch(lightning.Trainer(logger=False, accelerator="cpu"), lambda trainer: [])
    counts = []
    for act in (watch.start, watch.start, watch.stop, watch.stop, watch.start, watch.stop):
        act()
        counts.append(num_hooks())
    assert counts == [2, 2, 0, 0, 2, 0]


class Sam(torch.optim.Optimizer):
    """Climbs, evaluates again, comes back and steps; ``inner`` has the moments, as published."""

    def __init__(self, params, lr=0.05, rho=0.05, first=True):
        super().__init__(params, {"lr": lr, "rho": rho})
        self.inner = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.first = first  # whether it evaluates before it climbs, or relies on what is there

    @torch.no_grad()
    def first_step(self):
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        size = torch.stack([p.grad.norm() for p in params]).norm() + 1e-12  # fails without any
        for p in params:
            self.state[p]["old"] = p.clone()
            p.add_(p.grad / size, alpha=self.param_groups[0]["rho"])

    @torch.no_grad()
    def second_step(self):
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.grad is not None:
                p.copy_(self.state[p]["old"])
        self.inner.step()

    def step(self, closure):
        closure = torch.enable_grad()(closure)
        loss = closure() if self.first else None
        self.first_step()
        loss = closure()
        self.second_step()
        return loss


class Bad(Classifier):
    """Its loss is multiplied at chosen evaluations, counted from 1."""

    calls, bad, factor = 0, (), float("nan")

    def training_step(self, batch, batch_idx):
        self.calls += 1
        loss = super().training_step(batch, batch_idx)
        return loss * self.factor if self.calls in self.bad else loss

    def configure_optimizers(self):
        return Sam(self.parameters())


class Keep(lightning.Callback):
    def __init__(self):
        self.kept = []

    def on_train_batch_end(self, trainer, module, *rest):
        state = {k: v.clone() for k, v in module.state_dict().items()}
        inner = [o.inner.state for o in trainer.optimizers if isinstance(o, Sam)]
        moments = [v["momentum_buffer"].clone() for s in inner for v in s.values() if v]
        self.kept.append((state, moments))


def same(first, second):
    (state, moments), (other, others) = first, second
    tensors = zip([*state.values(), *moments], [*other.values(), *others], strict=True)
    return all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.parametrize(
    ("evaluation", "factor", "order"),
    list(product((1, 2), (float("nan"), 1e6), ((0, 1, 2), (2, 1, 0)))),
)
def test_a_bad_evaluation_of_sam_leaves_no_trace_and_counts_once(evaluation, factor, order):
    module, keep = built(Bad), Keep()
    module.bad, module.factor = (10 + evaluation,), factor  # of the sixth batch
    guard = StepGuard("skip", "skip", early_factor=20)
    members = [guard, GradientClipping("norm", 1.0), GradientMonitor(1)]
    fit(module, [*(members[i] for i in order), keep])
    assert guard.num_skipped == 1
    assert guard.num_consecutive == 0
    assert same(keep.kept[5], keep.kept[4])
    assert not same(keep.kept[6], keep.kept[5])


def test_a_step_that_climbs_before_it_evaluates_is_put_back():
    class Early(Bad):
        def configure_optimizers(self):
            return Sam(self.parameters(), first=False)

        def optimizer_step(self, epoch, batch_idx, optimizer, closure):
            closure()
            optimizer.step(closure)

    module, keep, guard = built(Early), Keep(), StepGuard("skip")
    module.bad = (12,)
    fit(module, [guard, keep])
    assert guard.num_skipped == 1
    assert same(keep.kept[5], keep.kept[4])


def test_bad_second_evaluations_in_a_row_stop_the_fit():
    module = built(Bad)
    module.bad = (4, 6, 8)
    with pytest.raises(Exception, match="3 bad steps in a row"):
        fit(module, [StepGuard("skip", max_consecutive=3)])


def test_an_optimizer_that_begins_to_evaluate_twice_late_is_not_left_climbed_in_silence():
    class Late(Sam):
        count = 0

        def step(self, closure):
            self.count += 1
            return super().step(closure) if self.count > 5 else self.once(closure)

        def once(self, closure):
            loss = torch.enable_grad()(closure)()
            self.inner.step()
            return loss

    module = built(Bad)
    module.configure_optimizers = lambda: Late(module.parameters())
    module.bad = (7,)
    with pytest.raises(Exception, match="a further evaluation of a `Late`"):
        fit(module, [StepGuard("skip")])


def test_the_update_ratio_of_sam_is_the_real_change():
    module, keep = built(Bad), Keep()
    trainer = fit(module, [GradientMonitor(1), keep])
    (before, _), (after, _) = keep.kept[-2:]
    names = ("net.0.weight", "net.0.bias")
    change = sum(float((after[n] - before[n]).square().sum()) for n in names) ** 0.5
    size = sum(float(before[n].square().sum()) for n in names) ** 0.5
    assert trainer.logger.latest["update_ratio/net.0"] == pytest.approx(change / size, rel=1e-4)


class Manual(lightning.LightningModule):
    """Manual optimisation that steps in one of several ways; the batches of ``bad`` are NaN."""

    def __init__(self, how, bad=()):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        self.how, self.bad = how, bad
        self.own = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def loss(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        return loss * float("nan") if batch_idx in self.bad else loss

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers() if self.how != "own" else self.own
        optimizer.zero_grad()
        if self.how == "closure":
            self.optimizers().optimizer.step(lambda: self.backward_once(batch, batch_idx))
            return
        self.backward_once(batch, batch_idx)
        if self.how == "sam":
            optimizer.first_step()
            optimizer.zero_grad()
            self.backward_once(batch, batch_idx)
            optimizer.second_step()
        elif self.how == "plain":
            self.optimizers(use_pl_optimizer=False).step()
        elif self.how == "inner":
            optimizer.optimizer.step()
        elif self.how == "by hand":
            with torch.no_grad():
                for p in self.parameters():
                    p.sub_(p.grad, alpha=0.1)
        else:
            optimizer.step()

    def backward_once(self, batch, batch_idx):
        loss = self.loss(batch, batch_idx)
        self.manual_backward(loss)
        return loss

    def configure_optimizers(self):
        if self.how == "own":
            return None
        if self.how == "sam":
            return Sam(self.parameters(), lr=0.1)
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def suite():
    return [
        TrainingDoctor(print_findings=False),
        GradientMonitor(1, statistics=["update_ratio"]),
        GradientClipping("norm", 0.05, every_n_steps=1),
    ]


UNANNOUNCED = ("plain", "inner", "closure", "own")


@pytest.mark.filterwarnings("ignore:`LightningModule.configure_optimizers` returned")
@pytest.mark.parametrize("how", UNANNOUNCED)
def test_an_unannounced_step_is_guarded_clipped_and_logged_as_an_announced_one(how):
    first, second = built(Manual, "announced", bad=(3,)), built(Manual, how, bad=(3,))
    guard = StepGuard("skip")
    one = fit(first, [*suite(), StepGuard("skip")], batches(8)).logger.latest
    other = fit(second, [*suite(), guard], batches(8)).logger.latest
    assert guard.num_skipped == 1
    assert same_state(first, second)
    assert all(bool(torch.isfinite(p).all()) for p in second.parameters())
    seen = {n for n in one if not n.startswith("diagnosis") or how != "own"}  # no rate is known
    seen -= {"diagnosis_facts/progress"}  # which the Trainer's own count has moved on already
    assert {"clip/norm_before", "grad_norm/net.0", "update_ratio/net.0"} <= seen
    assert {n: repr(one[n]) for n in seen} == {n: repr(other[n]) for n in seen}


def test_the_two_steps_of_sam_under_manual_optimisation_are_one():
    guard, module = StepGuard("skip"), built(Manual, "sam", bad=(3,))
    before = []

    class Remember(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            before.append([p.clone() for p in module.parameters()])

    trainer = fit(module, [guard, GradientMonitor(1), Remember()], batches(8))
    assert guard.num_skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before[2], before[3], strict=True))
    assert "grad_norm/total" in trainer.logger.latest


def test_monitors_change_nothing_in_a_run_with_unannounced_steps():
    for how in ("inner", "closure", "sam"):
        plain, watched = built(Manual, how), built(Manual, how)
        fit(plain)
        fit(watched, [GradientMonitor(1), TrainingDoctor(print_findings=False)])
        assert same_state(plain, watched)


def test_weights_that_change_without_an_optimizer_are_reported_once():
    with pytest.warns(RuntimeWarning, match="`GradientMonitor`, `StepGuard`: a batch has") as heard:
        fit(built(Manual, "by hand"), [GradientMonitor(), StepGuard("skip")])
    assert len([w for w in heard if "no optimizer was seen" in str(w.message)]) == 1


def test_one_callback_alone_reports_them_too():
    with pytest.warns(RuntimeWarning, match="`StepGuard`: a batch has changed the weights"):
        fit(built(Manual, "by hand"), [StepGuard("skip")])


MEMBERS = (GradientClipping, GradientMonitor, StepGuard, TrainingDoctor)


def test_each_member_alone_sees_and_reports_all_that_a_step_may_be():
    class Seen(lightning.Callback):
        def on_train_end(self, trainer, module):
            self.seen = watch_of(trainer, list).has_seen_step
            self.hooks = num_hooks()

    for make in MEMBERS:
        with pytest.warns(RuntimeWarning, match=f"`{make.__name__}`: a batch has changed the weig"):
            fit(built(Manual, "by hand"), [make()], batches(3))
        seen = Seen()
        fit(built(Manual, "plain"), [make(), seen], batches(3))
        assert (seen.seen, seen.hooks, num_hooks()) == (True, 2, 0), make


def test_accumulation_by_hand_is_no_blind_step():
    class Accumulating(Manual):
        def training_step(self, batch, batch_idx):
            self.backward_once(batch, batch_idx)
            if batch_idx % 4 == 3:
                self.optimizers().optimizer.step()
                self.optimizers().zero_grad()

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", RuntimeWarning)
        fit(built(Accumulating, "announced"), [GradientMonitor(), StepGuard("skip")])
    assert [w for w in heard if "no optimizer was seen" in str(w.message)] == []


def test_an_auxiliary_optimizer_inside_of_a_training_step_is_a_step_of_its_own():
    class Auxiliary(Classifier):
        def __init__(self):
            super().__init__()
            self.extra = nn.Linear(8, 1)
            self.own = torch.optim.SGD(self.extra.parameters(), lr=0.1)
            self.stranger = nn.Linear(2, 2)

        def training_step(self, batch, batch_idx):
            self.own.zero_grad()
            loss = self.extra(batch[0]).square().mean()
            loss = loss * float("nan") if batch_idx == 4 else loss
            loss.backward()
            self.own.step()
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

    guard, logger = StepGuard("skip"), RecordingLogger()
    module = built(Auxiliary)
    fit(module, [guard, GradientMonitor(1)], logger=logger)
    assert guard.num_skipped == 1
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())
    assert {"grad_norm/total", "grad_norm/total_opt1", "grad_norm/extra"} <= set(logger.latest)


def test_the_step_of_a_foreign_module_is_nobodys():
    class Foreign(Classifier):
        def training_step(self, batch, batch_idx):
            layer = nn.Linear(2, 2)
            layer(torch.ones(1, 2)).sum().backward()
            torch.optim.SGD(layer.parameters(), lr=0.1).step()
            return super().training_step(batch, batch_idx)

    with torch.random.fork_rng():
        trainer = fit(built(Foreign), [GradientMonitor(1)])
    assert "grad_norm/total_opt1" not in trainer.logger.latest


@pytest.mark.parametrize("ending", ["success", "exception", "interrupt"])
def test_the_hooks_on_steps_are_gone_after_the_fit(ending):
    class Ending(lightning.Callback):
        def on_train_batch_end(self, *_):
            if ending != "success":
                raise KeyboardInterrupt if ending == "interrupt" else RuntimeError("enough")

    before = num_hooks()
    try:
        fit(built(Classifier), [*suite(), StepGuard("skip"), Ending()])
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert ending != "success"
    assert num_hooks() == before


@pytest.mark.parametrize("ending", ["success", "exception", "interrupt", "in a step"])
def test_members_that_were_used_before_begin_as_new(ending):
    class Ending(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if ending in ("exception", "interrupt") and trainer.global_step >= 5:
                raise KeyboardInterrupt if ending == "interrupt" else RuntimeError("enough")

    class Failing(Bad):
        def training_step(self, batch, batch_idx):
            if ending == "in a step" and self.calls == 11:  # the second evaluation of a step
                raise RuntimeError("enough")
            return super().training_step(batch, batch_idx)

    def members():
        clipping = GradientClipping("history", method="percentile", every_n_steps=1)
        return [GradientMonitor(1), clipping, StepGuard("rewind", "skip", rewind_after=1)]

    used, new = members(), members()
    try:
        fit(built(Failing), [*used, Ending()], batches(poison=[2]))
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        assert ending != "success"
    outcomes = []
    for callbacks in (used, new):
        module = built(Bad)
        trainer = fit(module, callbacks, batches(poison=[4]))
        states = [repr(callback.state_dict()) for callback in callbacks]
        logged = {s: {k: repr(v) for k, v in at.items()} for s, at in trainer.logger.steps.items()}
        outcomes.append((module, states, logged))
    assert same_state(outcomes[0][0], outcomes[1][0])
    assert outcomes[0][1:] == outcomes[1][1:]
