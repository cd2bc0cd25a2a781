"""`GradientClipping`: each rule bounds what it says, tells what it did, and survives a resume."""

import json
import math
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_optimizers, same_state
from helpers.events import events, packed_events
from helpers.lightning_twins import Classifier, SmallGAN, batches, built, fit, half_precision
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from lightning_stab import GradientClipping, StepGuard
from lightning_stab.errors import ConflictError, InvalidArgumentError
from lightning_stab.functional.clipping import unit_norms


class Watch(lightning.Callback):
    """Keeps the gradients before the suite and, from the module's own hook, after it."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.before.append(gradients(module))


class Recording(Classifier):
    """Lightning calls a module's hook after all callbacks."""

    def on_before_optimizer_step(self, optimizer):
        self.__dict__.setdefault("clipped", []).append(gradients(self))


def gradients(module):
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).double().norm().item()


def clipped(*arguments, data=None, module=None, trainer=None, **keywords):
    """Fit with one clipper; return the gradients before and after it, and the Trainer."""
    watch = Watch()
    module = built(Recording) if module is None else module
    clipping = GradientClipping(*arguments, **{"every_n_steps": 1, **keywords})
    done = fit(module, [watch, clipping], data or batches(6), **(trainer or {}))
    return list(zip(watch.before, module.clipped, strict=True)), done


# --- the rules ------------------------------------------------------------------------------------


def test_the_norm_rule_bounds_the_whole_and_keeps_the_direction():
    steps, _ = clipped("norm", 0.3)
    for before, after in steps:
        assert norm(after.values()) == pytest.approx(min(0.3, norm(before.values())), rel=1e-4)
        factor = norm(after.values()) / norm(before.values())
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], factor * gradient, rtol=1e-4, atol=1e-8)


def test_the_value_rule_bounds_every_entry():
    steps, _ = clipped("value", 0.02)
    for before, after in steps:
        for name, gradient in before.items():
            assert torch.equal(after[name], gradient.clamp(-0.02, 0.02))


def test_the_adaptive_rule_bounds_each_unit_and_spares_the_output_layer():
    module = built(Recording)
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    ((before, after), *_), _ = clipped("adaptive", 0.02, module=module)
    for name in ("net.0.weight", "net.0.bias", "net.1.weight"):
        limit = 0.02 * unit_norms(weights[name]).clamp(min=1e-3)
        assert bool((unit_norms(after[name]) <= limit * (1 + 1e-5)).all()), name
    assert not torch.equal(before["net.0.weight"], after["net.0.weight"])
    for name in ("net.4.weight", "net.4.bias"):
        assert torch.equal(before[name], after[name])
    steps, _ = clipped("adaptive", 0.02, exclude_output=False)
    assert not torch.equal(steps[0][0]["net.4.weight"], steps[0][1]["net.4.weight"])


class HeadFirst(Recording):
    """The output layer is declared first and runs last."""

    def __init__(self):
        super().__init__()
        body = self.net
        del self.net
        self.head = nn.Linear(3, 3)
        self.net = body

    def forward(self, x):
        return self.head(self.net(x))


def test_the_output_layer_is_found_by_execution_not_by_declaration():
    ((before, after), *_), _ = clipped("adaptive", 0.001, module=built(HeadFirst))
    assert torch.equal(before["head.weight"], after["head.weight"])
    assert not torch.equal(before["net.4.weight"], after["net.4.weight"])


def test_transposed_convolutions_have_their_units_second():
    class Transposed(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose1d(2, 3, 2)
            self.head = nn.Linear(3, 3)

        def training_step(self, batch, batch_idx):
            x = self.up(batch[0].reshape(16, 2, 4)).mean(2)
            return nn.functional.cross_entropy(self.head(x), batch[1])

        on_before_optimizer_step = Recording.on_before_optimizer_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    module = built(Transposed)
    weight = module.up.weight.detach().clone()
    ((_, after), *_), _ = clipped("adaptive", 0.01, module=module, data=batches(1))
    limit = 0.01 * unit_norms(weight, 1)
    torch.testing.assert_close(unit_norms(after["up.weight"], 1), limit, rtol=1e-4, atol=0)


def test_compiled_modules_fall_back_to_the_last_declared_layer():
    class Compiled(Recording):
        def __init__(self):
            super().__init__()
            self.net = torch.compile(self.net, backend="eager")

    ((before, after), *_), _ = clipped("adaptive", 0.001, module=built(Compiled))
    assert torch.equal(before["net._orig_mod.4.weight"], after["net._orig_mod.4.weight"])
    assert not torch.equal(before["net._orig_mod.0.weight"], after["net._orig_mod.0.weight"])
    torch._dynamo.reset()


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_the_history_rule_bounds_a_norm_by_those_before(method):
    class Kick(Recording):
        def on_after_backward(self):
            if len(self.losses) == 36:
                for p in self.parameters():
                    p.grad.mul_(100.0)

    steps, trainer = clipped(
        "history", method=method, module=built(Kick), data=batches(40), every_n_steps=1
    )
    norms = [norm(before.values()) for before, _ in steps]
    left = [norm(after.values()) for _, after in steps]
    assert norms[35] > 20 * max(norms[:35])
    if method == "zscore":
        assert left[:25] == pytest.approx(norms[:25])  # the warm-up only learns
        assert left[35] < 1.5 * max(norms[:35])
    else:
        for step in range(1, 40):
            past = torch.tensor(norms[:step], dtype=torch.float64)
            limit = torch.quantile(past, 0.1).item()
            assert left[step] == pytest.approx(min(norms[step], limit), rel=1e-4)
    assert trainer.logger.steps[35]["clip/fraction"] == 1.0


def test_parameter_groups_are_clipped_apart():
    class Groups(Recording):
        def configure_optimizers(self):
            groups = [{"params": self.net[0].parameters()}, {"params": self.net[4].parameters()}]
            return torch.optim.SGD(groups, 0.1)

    steps, trainer = clipped("norm", 0.1, per_parameter_group=True, module=built(Groups))
    for before, after in steps:
        for layer in ("net.0", "net.4"):
            own = [norm([g for n, g in d.items() if n.startswith(layer)]) for d in (before, after)]
            assert own[1] == pytest.approx(min(0.1, own[0]), rel=1e-4)
        assert torch.equal(before["net.1.weight"], after["net.1.weight"])  # in no optimizer
    assert {"clip/norm_before_group0", "clip/norm_before_group1"} <= set(trainer.logger.latest)


def test_excluded_parameters_are_neither_clipped_nor_counted():
    steps, trainer = clipped("norm", 0.1, exclude=["net.0.*", "*.bias"])
    for before, after in steps:
        kept = [n for n in before if not n.startswith("net.0") and not n.endswith("bias")]
        assert all(torch.equal(before[n], after[n]) for n in before if n not in kept)
        own = [norm([d[n] for n in kept]) for d in (before, after)]
        assert own[1] == pytest.approx(min(0.1, own[0]), rel=1e-4)
    assert trainer.logger.latest["clip/norm_before"] == pytest.approx(own[0], rel=1e-5)


# --- thresholds that change -----------------------------------------------------------------------


def schedule(step):
    return 0.5 / (1 + step)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        ({0: 0.5, 2: 0.1, 4: 0.05}, [0.5, 0.5, 0.1, 0.1, 0.05, 0.05]),
        (schedule, [schedule(step) for step in range(6)]),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_threshold_may_be_a_schedule_over_optimizer_steps(threshold, expected, accumulate):
    steps, _ = clipped(
        "norm",
        threshold,
        data=batches(6 * accumulate),
        trainer={"accumulate_grad_batches": accumulate},
    )
    for (before, after), limit in zip(steps, expected, strict=True):
        assert norm(after.values()) == pytest.approx(min(limit, norm(before.values())), rel=1e-4)


def test_a_function_that_returns_nonsense_is_told():
    with pytest.raises(InvalidArgumentError, match=r"`threshold` must be > 0, got -1\.0\."):
        fit(built(Classifier), [GradientClipping("norm", lambda step: -1.0)])


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["norm", "history", "adaptive", "value"])
def test_a_nan_is_spread_to_no_other_entry(rule):
    class OneNan(Recording):
        def on_after_backward(self):
            self.net[0].weight.grad[0, 0] = float("nan")

    ((_, after), *_), _ = clipped(rule, module=built(OneNan), data=batches(1))
    assert sum(int(g.isnan().sum()) for g in after.values()) == 1


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_nonfinite_norms_never_enter_the_history(method):
    make = partial(built, Classifier)
    poisoned, clean = (GradientClipping("history", method=method) for _ in range(2))
    fit(make(), [poisoned, StepGuard("skip")], batches(40, poison=[0, 9, 33]))
    fit(make(), [clean], batches(40, drop=[0, 9, 33]))
    assert poisoned.state_dict() == clean.state_dict()
    alone = GradientClipping("history", method=method)
    fit(make(batch_norm=False), [alone], batches(12, poison=[3]))  # every norm from then on is NaN
    (history,) = alone.state_dict()["histories"].values()
    numbers = history.get("values") or [history["mean"], history["variance"]]
    assert all(map(math.isfinite, numbers))


def test_a_norm_that_overflows_float32_is_clipped_by_its_true_size():
    class Huge(Recording):
        def on_after_backward(self):
            for p in self.parameters():
                p.grad.fill_(1e25)

    for rule in ("norm", "history"):
        steps, _ = clipped(rule, module=built(Huge), data=batches(2))
        if rule == "norm":
            assert norm(steps[0][1].values()) == pytest.approx(1.0, rel=1e-4)
        assert all(bool(g.isfinite().all()) for _, after in steps for g in after.values())


def test_gradients_below_the_bound_are_left_alone_bit_for_bit():
    plain, loose = built(Classifier), built(Classifier)
    fit(plain)
    for rule, threshold in (("norm", 1e6), ("value", 1e6), ("adaptive", 1e9)):
        loose = built(Classifier)
        fit(loose, [GradientClipping(rule, threshold)])
        assert same_state(plain, loose)


# --- what it says ---------------------------------------------------------------------------------


def test_the_logged_statistics_of_the_norm_rule():
    steps, trainer = clipped("norm", 0.5)
    for at, (before, after) in enumerate(steps):
        logged = trainer.logger.steps[at]
        assert logged["clip/norm_before"] == pytest.approx(norm(before.values()), rel=1e-5)
        assert logged["clip/norm_after"] == pytest.approx(norm(after.values()), rel=1e-5)
        coefficient = min(1.0, 0.5 / (norm(before.values()) + 1e-6))
        assert logged["clip/coefficient"] == pytest.approx(coefficient, rel=1e-5)
        assert logged["clip/fraction"] == float(norm(before.values()) > 0.5)


def test_fractions_of_steps_elements_and_units():
    steps, trainer = clipped("norm", 0.5, every_n_steps=6)
    share = sum(norm(before.values()) > 0.5 for before, _ in steps) / 6
    assert trainer.logger.steps[5]["clip/fraction"] == pytest.approx(share)
    assert [s for s, v in trainer.logger.steps.items() if "clip/fraction" in v] == [5]

    steps, trainer = clipped("value", 0.02)
    for at, (before, _) in enumerate(steps):
        entries = torch.cat([g.flatten() for g in before.values()])
        beyond = (entries.abs() > 0.02).float().mean().item()
        assert trainer.logger.steps[at]["clip/fraction"] == pytest.approx(beyond, rel=1e-5)
        assert "clip/coefficient" not in trainer.logger.steps[at]

    steps, trainer = clipped("adaptive", 0.05)
    before, after = steps[0]
    names = [n for n in before if not n.startswith("net.4")]
    units = sum(unit_norms(before[n]).numel() for n in names)
    hit = sum(int((unit_norms(before[n]) > unit_norms(after[n])).sum()) for n in names)
    assert trainer.logger.steps[0]["clip/fraction"] == pytest.approx(hit / units)


def test_one_event_per_interval(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    clipping = GradientClipping("norm", 0.5, every_n_steps=4)
    fit(built(Classifier), [clipping], batches(12), logger=logger)
    found = packed_events(tmp_path, "clip/")
    assert [step for step, _ in found] == [3, 7, 11]
    names = ["clip/norm_before", "clip/norm_after", "clip/coefficient", "clip/fraction"]
    assert all(tags == names for _, tags in found)
    scalars, _ = events(logger.log_dir)
    assert [step for step, _ in scalars["clip/norm_before"]] == [3, 7, 11]


def test_a_fit_after_a_failed_one_starts_anew():
    class Failing(Classifier):
        def optimizer_step(self, *arguments, **keywords):
            super().optimizer_step(*arguments, **keywords)
            raise RuntimeError("after the clip")

    clipping = GradientClipping("norm", 1e-3, every_n_steps=1)
    with pytest.raises(RuntimeError, match="after the clip"):
        fit(built(Failing), [clipping])
    trainer = fit(built(Classifier), [clipping], batches(1))
    norms = [v["clip/norm_before"] for v in trainer.logger.steps.values() if "clip/fraction" in v]
    assert len(norms) == 1


# --- optimizers, resume, hooks --------------------------------------------------------------------


def test_each_optimizer_has_its_own_history():
    clipping = GradientClipping("history", method="percentile")
    fit(built(SmallGAN), [clipping], batches(5))
    histories = clipping.state_dict()["histories"]
    assert [len(h["values"]) for h in histories.values()] == [5, 5]
    first, second = (h["values"] for h in histories.values())
    assert first != second


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_a_resumed_history_clips_bit_identically(tmp_path, method):
    def suite():
        return GradientClipping("history", method=method)

    make = partial(built, Classifier, "adam")
    whole, first, resumed = make(), make(), make()
    reference, again = suite(), suite()
    expected = fit(whole, [reference], batches(20), epochs=2)
    path = tmp_path / "half.ckpt"
    fit(first, [suite()], batches(20), epochs=1).save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["callbacks"]
    assert any("GradientClipping" in key for key in saved)
    got = fit(resumed, [again], batches(20), epochs=2, ckpt_path=path)
    assert same_state(resumed, whole)
    assert same_optimizers(got, expected)
    assert json.dumps(again.state_dict()) == json.dumps(reference.state_dict())


class SaveMidWindow(lightning.Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 5 and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before.*")
def test_a_resume_inside_an_accumulation_window(tmp_path):
    """Lightning drops the half window's gradients; the histories go on and change nothing else."""

    def run(name, suite, resume):
        path, module = tmp_path / name, built(Classifier)
        last = {"ckpt_path": path} if resume else {}
        extra = [] if resume else [SaveMidWindow(path)]
        fit(module, [*suite, *extra], accumulate_grad_batches=4, epochs=2, **last)
        return module

    def suite():
        return [GradientClipping("history", 1e9), StepGuard("skip", "skip")]

    run("plain", [], resume=False)
    run("suite", suite(), resume=False)
    torch.load(tmp_path / "suite", weights_only=True)
    again = suite()
    assert same_state(run("plain", [], resume=True), run("suite", again, resume=True))
    (history,) = again[0].state_dict()["histories"].values()
    (judge,) = again[1].state_dict()["judges"].values()
    assert history["count"] == len(judge["loss"]["window"]["values"]) > 3


def test_hooks_of_the_search_for_the_output_layer_go_after_the_first_batch():
    class Count(lightning.Callback):
        def __init__(self):
            self.counts = []

        def on_train_batch_end(self, trainer, module, *rest):
            self.counts.append(len(hooks_of(module)))

    count, module = Count(), built(Classifier)
    fit(module, [GradientClipping("adaptive"), count], batches(4), accumulate_grad_batches=2)
    assert count.counts == [0, 0, 0, 0]
    assert hooks_of(module) == []


# --- refusals -------------------------------------------------------------------------------------


def test_the_trainers_own_clipping_is_refused_before_the_first_step():
    module = built(Classifier)
    with pytest.raises(ConflictError, match=r"`gradient_clip_val=0\.5`\. Remove one of them\."):
        fit(module, [GradientClipping()], gradient_clip_val=0.5)
    assert module.losses == []
    fit(module, [GradientClipping()], batches(1), gradient_clip_val=0.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rule": "norms"}, r"`rule` must be one of .* got 'norms'\. Did you mean 'norm'\?"),
        ({"rule": "history", "method": "z"}, "`method` must be one of 'zscore', 'percentile'"),
        ({"threshold": -1.0}, r"`threshold` must be > 0, got -1\.0\. To switch clipping off"),
        ({"threshold": 0}, "`threshold` must be > 0, got 0"),
        ({"threshold": float("inf")}, "`threshold` must be > 0, got inf"),
        ({"threshold": "1"}, "`threshold` must be a number > 0, got '1'"),
        ({"threshold": {1: 1.0}}, r"needs a value for step 0, got steps \[1\]"),
        ({"threshold": {}}, r"needs a value for step 0, got steps \[\]"),
        ({"threshold": {0: 1.0, -2: 1.0}}, "`steps of threshold` must be an integer >= 0, got -2"),
        ({"threshold": {0: 1.0, "later": 1.0}}, "`steps of threshold` must be .*got 'later'"),
        ({"threshold": {0: 1.0, 2.5: 1.0}}, r"`steps of threshold` must be .*got 2\.5"),
        ({"threshold": {0: -1.0}}, r"`threshold` must be > 0, got -1\.0"),
        ({"rule": "history", "threshold": {0: 1.0}}, "must be a number.*Schedules are for"),
        (
            {"rule": "history", "method": "percentile", "threshold": 100},
            "`threshold` must be > 0 and < 100, got 100",
        ),
        ({"every_n_steps": 0}, "`every_n_steps` must be an integer >= 1, got 0"),
        ({"exclude": "head.*"}, r"`exclude` must be a list of strings, got 'head\.\*'"),
        ({"exclude": [3]}, r"`exclude` must be a list of strings, got \[3\]"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence):
        GradientClipping(**arguments)


def test_fp16_overflows_do_not_enter_the_history():
    plugin = half_precision()
    plugin.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    clipping = GradientClipping("history", method="percentile")
    fit(built(Classifier), [clipping], batches(40), plugins=[plugin])
    (history,) = clipping.state_dict()["histories"].values()
    assert 5 < len(history["values"]) < 40
    assert max(history["values"]) < 100


# --- two clippers, two parameters of one memory, two fits -----------------------------------------


class OneGradient(lightning.LightningModule):
    """The gradient of its only parameter is what it is given; one step of plain descent."""

    def __init__(self, gradient):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(gradient)))
        self.gradient = torch.tensor(gradient)

    def training_step(self, batch, batch_idx):
        return (self.weight * self.gradient).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_two_clippers_compose_in_the_order_of_the_list():
    by_value, by_norm = GradientClipping("value", 1.0), GradientClipping("norm", 1.0)
    first = OneGradient([1e6, 1.0, 1.0])
    trainer = fit(first, [by_value, by_norm], batches(1))
    assert torch.allclose(first.weight, torch.full((3,), -(3**-0.5)))
    second = OneGradient([1e6, 1.0, 1.0])
    fit(second, [by_norm, by_value], batches(1))
    assert torch.allclose(second.weight, torch.tensor([-1.0, -1e-6, -1e-6]))
    clipping = GradientClipping("value", 1.0, every_n_steps=1)
    trainer = fit(
        OneGradient([1e6, 1.0, 1.0]),
        [clipping, GradientClipping("norm", 1.0, every_n_steps=1)],
        batches(1),
    )
    logged = trainer.logger.latest
    assert logged["clip/norm_before_0_value"] == pytest.approx(1e6)
    assert logged["clip/norm_before_1_norm"] == pytest.approx(3**0.5)


def test_the_norm_after_clipping_counts_shared_memory_once():
    class Shared(OneGradient):
        def __init__(self):
            super().__init__([3.0] * 3)
            self.other = nn.Parameter(torch.zeros(3))
            self.other.data = self.weight.data

        def training_step(self, batch, batch_idx):
            return 3.0 * self.weight.sum() - 4.0 * self.other.sum()

    trainer = fit(Shared(), [GradientClipping(threshold=1.0, every_n_steps=1)], batches(1))
    logged = trainer.logger.latest
    assert logged["clip/norm_before"] == pytest.approx(3**0.5)
    assert logged["clip/norm_after"] == pytest.approx(1.0, rel=1e-4)


def test_a_second_fit_starts_with_no_history_and_a_continued_one_keeps_it():
    clipping = GradientClipping("history")
    fit(built(Classifier), [clipping], batches(6))
    fit(built(Classifier), [clipping], batches(4))
    (state,) = clipping.state_dict()["histories"].values()
    assert state["count"] == 4


def test_a_line_search_is_one_step_of_the_history():
    clipping = GradientClipping("history")
    fit(built(Classifier, "lbfgs"), [clipping], batches(6))
    (state,) = clipping.state_dict()["histories"].values()
    assert state["count"] == 6


def test_a_method_without_the_history_rule_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`method` is for `rule='history'` only"):
        GradientClipping("norm", method="percentile")


def test_the_output_layer_is_that_of_each_optimizer():
    """The generator runs first; its last layer is spared as well as the discriminator's."""

    class Norms(lightning.Callback):
        def __init__(self):
            self.seen = {}

        def on_before_optimizer_step(self, trainer, module, optimizer):
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for name, p in module.named_parameters():
                if id(p) in own:
                    self.seen[name] = float(p.grad.norm())

    norms = Norms()
    fit(built(SmallGAN), [GradientClipping("adaptive", threshold=1e-9), norms], batches(1))
    for part in ("generator", "discriminator"):
        assert norms.seen[f"{part}.0.weight"] < 1e-7
        assert norms.seen[f"{part}.2.weight"] > 1e-4


@pytest.mark.parametrize(
    ("arguments", "threshold"),
    [
        ({}, 1.0),
        ({"rule": "value"}, 100.0),
        ({"rule": "adaptive"}, 0.01),
        ({"rule": "history"}, 2.5),
        ({"rule": "history", "method": "percentile"}, 10.0),
        ({"threshold": 3}, 3),
    ],
)
def test_the_threshold_is_the_default_of_the_rule_unless_it_is_given(arguments, threshold):
    clipping = GradientClipping(**arguments)
    assert clipping.threshold == clipping.options.threshold_at(7) == threshold
    assert clipping.options.threshold == arguments.get("threshold")


def test_a_table_of_thresholds_does_not_follow_the_users():
    table = {0: 2.0}
    clipping = GradientClipping(threshold=table)
    table[0] = -1.0
    assert clipping.options.threshold_at(0) == 2.0
