"""Weights that are in the module only while it is validated: what is kept is what was measured."""

import contextlib

import pytest
import torch
from helpers.stopping_modules import Regression, data, fit, same, tensors, trainer
from helpers.tiers import in_tiers
from lightning.pytorch import Callback
from torch import nn

from lightning_stab import BestWeightsEarlyStopping, LearningRateDecay


class Average(Callback):
    """An average that is in the module during validation, from an epoch on."""

    def __init__(self, start_hook, end_hook, since=0):
        self.since, self.shadow = since, None
        setattr(self, start_hook, self.swap)
        setattr(self, end_hook, self.swap)

    def on_train_batch_end(self, trainer, pl_module, *args):
        now = tensors(pl_module)
        last = self.shadow or now
        self.shadow = {n: last[n] if n == "seen" else (now[n] + last[n]) / 2 for n in now}

    @torch.no_grad()
    def swap(self, trainer, pl_module):
        if trainer.current_epoch >= self.since:
            own = dict((*pl_module.named_parameters(), *pl_module.named_buffers()))
            present = tensors(pl_module)
            for name, tensor in own.items():
                tensor.data.copy_(self.shadow[name])
            self.shadow = present


PLACES = [
    ("on_validation_start", "on_validation_end"),
    ("on_validation_epoch_start", "on_validation_epoch_end"),
    ("on_validation_start", "on_validation_epoch_end"),
]


class Measured(Regression):
    """Remembers what its last validation batch saw."""

    def validation_step(self, batch, batch_idx):
        self.at_batch = tensors(self)

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.validated[-1] = self.at_batch


@pytest.mark.parametrize("check", [None, True, False])
@pytest.mark.parametrize("since", in_tiers([0, 1, 2], [0, 2]))
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("places", PLACES)
def test_the_measured_weights_come_back(places, first, since, check, tmp_path):
    stop = BestWeightsEarlyStopping("val_loss", patience=2, check_on_train_epoch_end=check)
    pair = [Average(*places, since=since), stop]
    module = Measured(5, 3, 4, 4)
    fit([5, 3, 4, 4], *(pair if first else pair[::-1]), module=module)
    assert same(tensors(module), module.validated[1])


def test_a_module_that_swaps_its_weights_itself():
    class Swaps(Measured):
        def on_validation_model_eval(self):
            super().on_validation_model_eval()
            with torch.no_grad():
                self.net[0].weight += 1

        def on_validation_model_train(self):
            super().on_validation_model_train()
            with torch.no_grad():
                self.net[0].weight -= 1

    module = Swaps(5, 3, 4, 4)
    fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    assert same(tensors(module), module.validated[1])


def test_a_check_after_further_steps_keeps_what_was_validated():
    module = Measured(9, 5, 9, 3, 9, 4)
    stop = BestWeightsEarlyStopping("val_loss", patience=9, check_on_train_epoch_end=True)
    run = trainer(stop, max_epochs=1, val_check_interval=3)
    run.fit(module, data(), data())
    assert same(tensors(module), module.validated[0])


def test_a_metric_of_the_training_keeps_the_weights_of_the_training():
    average = Average(*PLACES[0])
    stop = BestWeightsEarlyStopping("train_loss", patience=9)
    _, module = fit([1, 1], average, stop, module=Measured(1, 1), max_epochs=1)
    assert not same(tensors(module), module.validated[0])


def test_a_cut_reloads_the_measured_weights():
    decay = LearningRateDecay("plateau", monitor="val_loss", patience=1, reload_best=True)
    module = Measured(3, 4)
    fit([3, 4], decay, Average(*PLACES[0]), module=module)
    assert same(tensors(module), module.validated[0])


def test_weights_that_are_changed_after_the_restore_are_reported():
    class Overwrites(Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.net[0].weight.data.zero_()

    stop = BestWeightsEarlyStopping("val_loss", patience=2)
    with pytest.warns(UserWarning, match="does not end with its best weights"):
        fit([5, 3, 4, 4], stop, Overwrites())
    _, module = fit([5, 3, 4, 4], Overwrites(), BestWeightsEarlyStopping("val_loss", patience=2))
    assert same(tensors(module), module.validated[1])


class Averaged(Regression):
    """Measures an average of its weights, which is there for the validation alone.

    Args:
        place: where the average comes in, or "beside" for one that runs instead of the module.
    """

    def __init__(self, place):
        super().__init__(5, 3, 4, 4)
        self.place, self.measured, self.fails = place, [], False
        average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        )
        self.hidden = [average]  # in a list, where it is no part of the module
        if place == "a submodule":
            self.average = average

    def on_train_batch_end(self, *args):
        self.hidden[0].update_parameters(self.net)

    @torch.no_grad()
    def swap(self):
        for own, other in zip(
            self.net.parameters(), self.hidden[0].module.parameters(), strict=True
        ):
            kept = own.clone()
            own.data.copy_(other)
            other.data.copy_(kept)

    def on_validation_batch_start(self, batch, batch_idx):
        if self.place == "a batch's start":
            self.swap()

    def on_validation_batch_end(self, outputs, batch, batch_idx):
        if self.place == "a batch's start":
            self.swap()

    def validation_step(self, batch, batch_idx):
        if self.fails:
            raise ZeroDivisionError
        if self.place in ("a submodule", "beside"):
            self.hidden[0](batch[0])
            return
        if self.place == "raw first":
            self.net(batch[0])
        if self.place in ("validation_step", "raw first"):
            self.swap()
        if self.place == "functional_call":
            average = dict(self.hidden[0].module.named_parameters())
            torch.func.functional_call(self.net, average, batch[0])
        else:
            self.net(batch[0])
        if self.place in ("validation_step", "raw first"):
            self.swap()

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        average = self.hidden[0].module.named_parameters()
        self.measured.append({n: p.detach().clone() for n, p in average})


@pytest.mark.parametrize("place", ["a batch's start", "validation_step", "functional_call"])
def test_an_average_that_comes_in_within_a_batch_is_what_is_kept(place):
    module = Averaged(place)
    fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    assert same(dict(module.net.named_parameters()), module.measured[1])
    assert not same(dict(module.net.named_parameters()), module.measured[-1])


def test_an_average_that_is_a_submodule_comes_back_with_it():
    module = Averaged("a submodule")
    fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    assert same(tensors(module), module.validated[1])
    assert same(dict(module.average.module.named_parameters()), module.measured[1])


def test_two_sets_of_weights_in_one_batch_are_named():
    module = Averaged("raw first")
    with pytest.warns(UserWarning, match="two sets of weights.*those of the first run"):
        fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    assert same(tensors(module), module.validated[1])


def test_a_layer_that_runs_twice_with_one_set_of_weights_is_no_swap():
    """Also where a weight is NaN, which equals nothing."""

    class Twice(Regression):
        def validation_step(self, batch, batch_idx):
            self.net(self.net(batch[0])[:, :1].expand_as(batch[0]))

    module = Twice(5, 3)
    module.net[0].weight.data[0, 0] = float("nan")  # warnings are errors
    fit([5, 3], BestWeightsEarlyStopping("val_loss", check_finite=False), module=module)


def test_an_average_beside_the_module_cannot_be_kept():
    with pytest.warns(UserWarning, match="no part of the module, and none of its own"):
        fit([5, 3], BestWeightsEarlyStopping("val_loss"), module=Averaged("beside"))


def compiled(place, how):
    """Return a module that measures its average, compiled in one of four ways."""
    module = Averaged(place)
    if how == "in place":
        module.net.compile(backend="eager")
    elif how == "wrapped":
        module.net = torch.compile(module.net, backend="eager")
    elif how == "a layer":
        module.net[0] = torch.compile(module.net[0], backend="eager")
    elif how == "the step":
        module.validation_step = torch.compile(module.validation_step, backend="aot_eager")
    return module


@pytest.mark.parametrize("how", ["in place", "wrapped", "a layer"])
@pytest.mark.parametrize("place", ["a batch's start", "validation_step"])
def test_an_average_comes_into_a_compiled_module(place, how):
    module = compiled(place, how)
    fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    kept = [p.detach() for p in module.net.parameters()]
    assert all(map(torch.equal, kept, module.measured[1].values()))
    assert not all(map(torch.equal, kept, module.measured[-1].values()))


def test_an_average_comes_into_a_module_that_is_compiled_as_a_whole():
    class Silent(Averaged):
        def training_step(self, batch, batch_idx):  # what Lightning logs here cannot be compiled
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    module = Silent("a batch's start")
    run = trainer(BestWeightsEarlyStopping("val_loss", patience=2), max_epochs=4)
    run.fit(torch.compile(module, backend="eager"), data(), data())
    assert same(dict(module.net.named_parameters()), module.measured[1])
    assert not same(dict(module.net.named_parameters()), module.measured[-1])


@pytest.mark.parametrize("how", ["in place", "wrapped"])
def test_two_sets_of_weights_in_one_batch_of_a_compiled_module_are_named(how):
    with pytest.warns(UserWarning, match="two sets of weights.*those of the first run"):
        fit([5, 3], BestWeightsEarlyStopping("val_loss"), module=compiled("raw first", how))


@pytest.mark.nightly
def test_a_compiled_step_is_seen_from_outside():
    """What comes in before it is kept; one that writes into the weights itself is named."""
    module = compiled("a batch's start", "the step")
    fit([5, 3, 4, 4], BestWeightsEarlyStopping("val_loss", patience=2), module=module)
    assert same(dict(module.net.named_parameters()), module.measured[1])
    assert "validation_step" in vars(module)  # the compiled one, put back
    assert vars(module)["validation_step"].__name__ != "watched"
    inside = compiled("validation_step", "the step")
    with pytest.warns(UserWarning, match="two sets of weights"):
        fit([5, 3], BestWeightsEarlyStopping("val_loss"), module=inside)


@pytest.mark.parametrize("fails", [False, True])
def test_compiled_modules_are_left_as_they_were(fails):
    module = compiled("", "in place")
    call = module.net._compiled_call_impl
    module.fails = fails
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        fit([5, 3], BestWeightsEarlyStopping("val_loss"), module=module)
    assert module.net._compiled_call_impl is call
    assert "validation_step" not in vars(module)
    assert not module._forward_pre_hooks
