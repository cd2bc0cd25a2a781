"""Every callback in other people's loops: the loop stays theirs, and what cannot work is said."""

import functools

import pytest
import torch
from helpers import contract
from helpers.contract import CALLBACKS, NEUTRAL, Net, end_of, fit, hearing, same
from helpers.loaders import LOADERS
from helpers.tiers import in_tiers
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from lightning_stab.errors import StabError

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
every = pytest.mark.parametrize("name", CALLBACKS)


class Reads(Net):
    """Notes every batch that it is given, and what happens in which order."""

    def __init__(self, data=lambda: contract.loader(4)):
        super().__init__()
        self.seen, self.given, self.num_made = [], data, 0

    def note(self, what, batch):
        self.seen.append((what, float(batch[0].sum())))

    def training_step(self, batch, batch_idx):
        batch = batch["a"] if isinstance(batch, dict) else batch
        self.note("train", batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.note("validate", batch)
        super().validation_step(batch, batch_idx)

    def train_dataloader(self):
        self.num_made += 1
        return self.given()


def refusal_or_result(action, *errors):
    """Return the sentence of a refusal and None, or an empty one and what the action returned."""
    try:
        return "", action()
    except (StabError, *errors) as error:
        return str(error), None


# --- loaders --------------------------------------------------------------------------------------


def read(callbacks, kind, **settings):
    """Return what a run reads, and how many loaders and iterators it makes."""
    data, counter = LOADERS[kind]()
    module = Reads(lambda: data)  # not the data itself, which copies of the module would copy
    limit = {"limit_train_batches": 4} if kind == "an open stream" else {}
    fit(callbacks, module, **limit, **settings)
    return module.seen, module.num_made, getattr(counter, "num_iterators", None)


@functools.cache
def bare_reads(kind):
    """Return what a run reads without callbacks; a fit of its own for each loader."""
    return read([], kind)


@every
@pytest.mark.parametrize("kind", LOADERS)
def test_a_run_reads_what_it_reads_without_it(name, kind):
    assert read([CALLBACKS[name]()], kind) == bare_reads(kind)


SETTINGS = {
    "fast_dev_run": {"fast_dev_run": 2},
    "limits": {"limit_train_batches": 2, "limit_val_batches": 1},
    "no validation": {"limit_val_batches": 0},
    "overfit_batches": {"overfit_batches": 1},
    "reload": {"reload_dataloaders_every_n_epochs": 1},
    "accumulation": {"accumulate_grad_batches": 3},
    "validation in mid-epoch": {"val_check_interval": 2},
    "no sanity check": {"num_sanity_val_steps": 0},
    "rare validation": {"check_val_every_n_epoch": 2},
}


@every
@pytest.mark.parametrize("setting", in_tiers(SETTINGS, [], list(SETTINGS)[::3]))
def test_the_trainers_settings_hold_beside_it(name, setting):
    settings = SETTINGS[setting]
    refusal, got = refusal_or_result(lambda: read([CALLBACKS[name]()], "a data loader", **settings))
    if name == "BestWeightsEarlyStopping" and setting == "no validation":
        assert "got 'val_loss'" in refusal  # the metric that it has to follow is never logged
    else:
        assert got == read([], "a data loader", **settings)


@every
def test_several_validation_loaders(name):
    class Twice(Reads):
        def val_dataloader(self):
            return [contract.loader(2, seed=1), contract.loader(2, seed=2)]

    plain, module = Twice(), Twice()
    fit([], plain)
    refusal, _ = refusal_or_result(lambda: fit([CALLBACKS[name]()], module))
    if name == "BestWeightsEarlyStopping":  # Lightning logs the metric under other names
        assert "val_loss/dataloader_idx_0" in refusal
    else:
        assert module.seen == plain.seen


# --- optimizers -----------------------------------------------------------------------------------


class Raw(Net):
    """Steps an optimizer of torch by itself, which Lightning does not announce."""

    use_pl_optimizer = False

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=self.use_pl_optimizer)
        optimizer = getattr(optimizer, "optimizer", optimizer)
        optimizer.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)


class RawOfLightnings(Raw):
    use_pl_optimizer = True


class ClimbsFirst(torch.optim.Optimizer):
    """Sharpness-aware: up along the gradient, once more through the loss, back, and down."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        closure = torch.enable_grad()(closure)
        loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"]]
        old = [p.clone() for p in parameters]
        for p in parameters:
            if p.grad is not None:
                p.add_(p.grad, alpha=0.05)
        closure()
        for p, before in zip(parameters, old, strict=True):
            p.copy_(before)
            if p.grad is not None:
                p.sub_(p.grad, alpha=self.param_groups[0]["lr"])
        return loss


class NoRate(torch.optim.Optimizer):
    """Chooses its steps by itself."""

    def __init__(self, parameters, **defaults):
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad.sign(), alpha=1e-3)
        return loss


class TunesLate(Net):
    """Has a backbone that is trained from the second epoch on."""

    @property
    def backbone(self):
        return self.net[0]

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], self.lr)


class ExchangesItsSchedule(Net):
    """Gets a scheduler in mid-run, as weight averaging does."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            new = torch.optim.lr_scheduler.ConstantLR(self.trainer.optimizers[0], 0.5, 9)
            config = lightning_config(new)
            self.trainer.strategy.lr_scheduler_configs = [config]


def lightning_config(scheduler):
    from lightning.pytorch.utilities.types import LRSchedulerConfig

    return LRSchedulerConfig(scheduler, interval="epoch")


def with_optimizer(make):
    class Own(Net):
        def configure_optimizers(self):
            return make(self.parameters())

    return Own


MODULES = {
    "use_pl_optimizer=False": Raw,
    "optimizer.optimizer": RawOfLightnings,
    "a closure evaluated twice": with_optimizer(ClimbsFirst),
    "no lr": with_optimizer(NoRate),
    "lr=None": with_optimizer(lambda parameters: NoRate(parameters, lr=None)),
    "groups added": TunesLate,
    "a schedule exchanged": ExchangesItsSchedule,
    "LBFGS": with_optimizer(lambda parameters: torch.optim.LBFGS(parameters, max_iter=3)),
    "a learned rate": with_optimizer(lambda p: torch.optim.Adam(p, torch.tensor(0.01))),
    "two groups": with_optimizer(
        lambda p: torch.optim.SGD([{"params": [q], "lr": 0.1 / (i + 1)} for i, q in enumerate(p)])
    ),
}


GATE = ("use_pl_optimizer=False", "a closure evaluated twice", "no lr", "groups added")
kinds = pytest.mark.parametrize(  # the others are long tests
    "kind", [pytest.param(n, marks=() if n in GATE else pytest.mark.nightly) for n in MODULES]
)


def end_with(callbacks, kind):
    own = [BackboneFinetuning(1, verbose=False)] if kind == "groups added" else []
    return fit([*own, *callbacks], MODULES[kind](), max_epochs=3)


@functools.cache
def bare_end(kind):
    """Return how a run without callbacks ends; a fit of its own for each kind."""
    return end_of(end_with([], kind))


@pytest.mark.parametrize("name", NEUTRAL)
@kinds
def test_a_healthy_run_is_left_alone(name, kind):
    assert same(end_of(end_with([CALLBACKS[name]()], kind)), bare_end(kind))


@pytest.mark.parametrize("name", [n for n in CALLBACKS if n not in NEUTRAL])
@kinds
def test_what_trains_without_it_trains_with_it_or_it_says_why_not(name, kind):
    refusal, trainer = refusal_or_result(lambda: end_with([CALLBACKS[name]()], kind))
    if refusal:
        assert name in refusal  # the sentence says who cannot work
        return
    assert all(torch.isfinite(p).all() for p in trainer.lightning_module.parameters())
    assert trainer.current_epoch == 3


# --- callbacks from elsewhere ---------------------------------------------------------------------


@every
def test_one_that_the_module_brings_takes_the_place_of_the_trainers(name):
    class Brings(Net):
        def configure_callbacks(self):
            return [CALLBACKS[name]()]

    trainer = fit([CALLBACKS[name]()], Brings())
    assert sum(type(c).__name__ == name for c in trainer.callbacks) == 1
    assert same(end_of(trainer), end_of(fit([CALLBACKS[name]()])))


@every
def test_two_of_a_kind_have_a_state_each_or_are_refused(name, folder):
    pair = [CALLBACKS[name](), CALLBACKS[name]()]
    refusal, trainer = refusal_or_result(lambda: fit(pair), RuntimeError)
    if refusal:
        assert name in refusal
        return
    assert len({c.state_key for c in pair}) == 2 or not any(c.state_dict() for c in pair)
    trainer.save_checkpoint("two.ckpt")
    fit([CALLBACKS[name](), CALLBACKS[name]()], ckpt_path="two.ckpt", max_epochs=3)


@every
def test_a_module_may_clip_by_itself(name):
    class Clips(Net):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, *rest, **more):
            nn.utils.clip_grad_norm_(self.parameters(), 0.01)

    with hearing() as said:
        trainer = fit([CALLBACKS[name]()], Clips())
    assert ("configure_gradient_clipping" in said.text) == (name == "GradientClipping")
    if name in NEUTRAL:
        assert same(end_of(trainer), end_of(fit([], Clips())))
