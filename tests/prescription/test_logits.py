"""A loss that takes logits gets them, in every step, and the module is as it was afterwards."""

import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab.callbacks._trainer.isolated import isolated_copy, run_training_step
from lightning_stab.errors import ConflictError
from lightning_stab.prescription import LogitsForLoss

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
