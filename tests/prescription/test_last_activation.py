"""A loss gets what its last activation received, and the module is as it was afterwards."""

import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab.callbacks._trainer.isolated import isolated_copy, run_training_step
from lightning_stab.errors import ConflictError
from lightning_stab.prescription import LogitsForLoss, WithoutLastActivation

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = TensorDataset(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)),
                     torch.arange(16) % 3)  # fmt: skip


class Net(LightningModule):
    def __init__(self, activation, loss=functional.cross_entropy):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.activation, self.loss = nn.Linear(4, 3), activation, loss
        self.losses, self.given = [], None

    def step(self, batch):
        self.given = self.activation(self.layer(batch[0]))
        return self.loss(self.given, batch[1])

    def training_step(self, batch, batch_idx):
        self.losses.append(loss := self.step(batch))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def one_hot_loss(logits, classes):
    target = functional.one_hot(classes, 3).float()
    return functional.binary_cross_entropy_with_logits(input=logits, target=target)


def fitted(module, *callbacks):
    trainer = Trainer(**{**QUIET, "max_epochs": 2}, callbacks=list(callbacks))
    loader = DataLoader(ROWS, batch_size=8)
    trainer.fit(module, loader, loader)
    return torch.stack(module.losses), trainer.callback_metrics["val_loss"]


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        (lambda x: x.softmax(-1), functional.cross_entropy),
        (nn.Softmax(dim=-1), nn.CrossEntropyLoss()),
        (lambda x: functional.softmax(x, dim=1), functional.cross_entropy),
        (torch.relu, functional.cross_entropy),
        (lambda x: torch.tanh(input=x), functional.cross_entropy),
        (torch.sigmoid, one_hot_loss),
    ],
)
def test_the_loss_is_that_of_the_logits_in_training_and_validation(activation, loss):
    plain, doubled = Net(lambda x: x, loss), Net(activation, loss)
    losses, metric = fitted(plain)
    treated, treated_metric = fitted(doubled, LogitsForLoss())
    assert torch.equal(treated, losses)
    assert torch.equal(treated_metric, metric)
    assert not torch.equal(fitted(Net(activation, loss))[0], losses)
    # what the network gives is what it gave, and the steps are its own again
    assert torch.equal(doubled.given, activation(plain.given))
    assert not {"training_step", "validation_step", "test_step"} & vars(doubled).keys()


def test_where_no_loss_receives_an_activation_it_says_so():
    with pytest.raises(ConflictError, match=r"the first batch had none\. Leave it out\."):
        fitted(Net(lambda x: x), LogitsForLoss())
    with pytest.raises(ConflictError, match="the first batch had none"):  # another value
        fitted(Net(lambda x: x.softmax(-1) * 2), LogitsForLoss())


@pytest.mark.nightly
def test_compiled_code_is_refused():
    module = Net(torch.relu)
    module.layer = torch.compile(module.layer)
    with pytest.raises(ConflictError, match="cannot see into compiled code, got layer"):
        fitted(module, LogitsForLoss())


def test_a_step_of_the_modules_own_comes_back_after_a_failure():
    module = Net(lambda x: x)
    own = module.training_step
    vars(module)["training_step"] = own
    with pytest.raises(ConflictError):
        fitted(module, LogitsForLoss())
    assert vars(module)["training_step"] is own


def test_what_is_run_besides_the_training_has_the_same_loss_and_weights_of_its_own():
    """The doctor's exchanged pairs and the gradient check run the step on a copy."""
    module, callback = Net(torch.sigmoid), LogitsForLoss()
    batch = next(iter(DataLoader(ROWS, batch_size=8)))
    plain = module.training_step(batch, 0).detach()
    module.losses.clear()
    callback.on_fit_start(None, module)
    copied = isolated_copy(module)
    with torch.no_grad():
        copied.layer.weight.mul_(2)
        expected = functional.cross_entropy(copied.layer(batch[0]), batch[1])
        (alone,) = run_training_step(copied, batch)
    assert torch.equal(alone, expected)
    assert not torch.equal(alone, plain)
    assert module.losses == []  # the copy has run, and nothing else


class Regression(LightningModule):
    """Learns numbers beyond 1 through hidden layers and, maybe, a last activation."""

    def __init__(self, last=None, loss=functional.mse_loss, squeeze=True):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 8)])
        self.head, self.last, self.loss, self.squeeze = nn.Linear(8, 1), last, loss, squeeze
        self.losses = []

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        y = self.head(x)
        if self.squeeze is True:
            y = y.squeeze(-1)
        y = self.last(y) if self.last else y
        return y.squeeze(-1) if self.squeeze == "afterwards" else y

    def training_step(self, batch, batch_idx):
        self.losses.append(loss := self.loss(self(batch[0]), batch[1]))
        return loss

    def validation_step(self, batch, batch_idx):
        z = self(batch[0])
        self.log("val_loss", self.loss(z, batch[1]))
        self.log("val_error", (z - batch[1]).abs().mean())  # no loss function sees this one

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


NUMBERS = TensorDataset(ROWS.tensors[0], 3 * ROWS.tensors[0].sum(1))


def regressed(module, *callbacks, epochs=2):
    arguments = {**QUIET, "max_epochs": epochs, "num_sanity_val_steps": 2}
    trainer = Trainer(**arguments, callbacks=list(callbacks))
    loader = DataLoader(NUMBERS, batch_size=8)
    trainer.fit(module, loader, loader)
    fitted = {**trainer.callback_metrics}
    tested = trainer.test(module, loader, verbose=False)[0]
    return torch.stack(module.losses), fitted, tested, trainer.predict(module, loader)


@pytest.mark.parametrize(
    ("last", "loss", "squeeze"),
    [
        (torch.tanh, functional.mse_loss, True),
        (lambda y: y.relu(), nn.MSELoss(), True),
        (functional.sigmoid, functional.l1_loss, True),
        (lambda y: functional.hardtanh(input=y, min_val=-0.01, max_val=0.01), nn.HuberLoss(), True),
        (lambda y: torch.tanh(y), lambda z, y: functional.smooth_l1_loss(input=z, target=y), True),
        (functional.softplus, functional.mse_loss, "afterwards"),
    ],
)
def test_loss_metrics_and_predictions_are_those_without_the_last_activation(last, loss, squeeze):
    plain = regressed(Regression(None, loss, squeeze))
    module = Regression(last, loss, squeeze)
    treated = regressed(module, WithoutLastActivation())
    assert torch.equal(treated[0], plain[0])
    assert treated[1] == plain[1]
    assert treated[2] == plain[2]
    assert all(torch.equal(a, b) for a, b in zip(treated[3], plain[3], strict=True))
    untreated = regressed(Regression(last, loss, squeeze))
    assert not torch.equal(untreated[0], plain[0])
    # outside a Trainer the network is what its code says
    x = NUMBERS.tensors[0]
    assert torch.equal(module(x), last(Regression.forward(_without(module), x)).reshape(16))
    assert not {"training_step", "predict_step"} & vars(module).keys()


def _without(module):
    copied = isolated_copy(module)
    copied.last, copied.squeeze = None, True
    return copied


def test_it_goes_on_from_a_checkpoint_and_refuses_to_predict_before_it_knows(tmp_path):
    module, callback = Regression(torch.tanh), WithoutLastActivation()
    trainer = Trainer(**{**QUIET, "max_epochs": 2}, callbacks=[callback])
    loader = DataLoader(NUMBERS, batch_size=8)
    trainer.fit(module, loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    expected = trainer.predict(module, loader)
    fresh = Trainer(**QUIET, callbacks=[WithoutLastActivation()])
    with pytest.raises(ConflictError, match="must have seen a loss before it predicts"):
        fresh.predict(Regression(torch.tanh), loader)
    again = Trainer(**QUIET, callbacks=[WithoutLastActivation()])
    found = again.predict(Regression(torch.tanh), loader, ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert max(p.abs().max() for p in found) > 1  # beyond what a tanh gives


@pytest.mark.parametrize("kind", [LogitsForLoss, WithoutLastActivation])
def test_given_to_another_fit_it_begins_as_new_and_says_what_is_missing_there(kind):
    callback = kind()
    if kind is LogitsForLoss:
        fitted(Net(torch.relu), callback)
        with pytest.raises(ConflictError, match="the first batch had none"):
            fitted(Net(lambda x: x), callback)
        return
    regressed(Regression(torch.tanh), callback)
    with pytest.raises(ConflictError, match="the first batch had none"):
        regressed(Regression(), callback)


def test_a_resumed_fit_leaves_the_same_calls_out_from_its_first_batch(tmp_path):
    loader = DataLoader(NUMBERS, batch_size=8)
    trainer = Trainer(**{**QUIET, "max_epochs": 1}, callbacks=[WithoutLastActivation()])
    trainer.fit(Regression(torch.tanh), loader, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    callback, places = WithoutLastActivation(), []
    resumed = Trainer(**{**QUIET, "max_epochs": 2}, callbacks=[callback, Peek(callback, places)])
    resumed.fit(Regression(torch.tanh), loader, loader, ckpt_path=tmp_path / "last.ckpt")
    assert len(places) == 1
    assert places[0].startswith("Regression.forward:")


class Peek(Callback):
    """Notes the places that are known before the first batch."""

    def __init__(self, callback, places):
        self.callback, self.places = callback, places

    def on_train_start(self, trainer, pl_module):
        self.places += self.callback._places


def test_a_place_that_serves_other_layers_too_is_refused():
    class Loop(Regression):
        def forward(self, x):
            for layer in (*self.layers, self.head):
                x = torch.tanh(layer(x))
            return x.squeeze(-1)

    with pytest.raises(ConflictError, match=r"last call in Loop\.forward:\d+ from those for other"):
        regressed(Loop(), WithoutLastActivation())


def test_where_no_error_loss_receives_an_activation_it_says_so():
    with pytest.raises(ConflictError, match="and the first batch had none"):
        regressed(Regression(), WithoutLastActivation())
    with pytest.raises(ConflictError, match="and the first batch had none"):  # another value
        regressed(Regression(lambda y: 3 * torch.tanh(y)), WithoutLastActivation())
