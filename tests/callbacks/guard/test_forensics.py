"""A bad batch runs once more as it ran, and leaves no trace."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers.events import events
from helpers.lightning_twins import Classifier, batches, built, fit
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.aggregation import CatMetric

from lightning_stab import StepGuard
from lightning_stab.callbacks.guard.forensics import plain_batch
from lightning_stab.errors import UnstableStepError


class Outspoken(Classifier):
    """Goes past ``self.log`` to the logger itself, and prints."""

    def training_step(self, batch, batch_idx):
        step = len(self.losses)
        self.logger.log_metrics({"direct": 1.0}, step=step)
        self.logger.experiment.add_scalar("directer", 1.0, step)
        print("a step")  # noqa: T201
        return super().training_step(batch, batch_idx)


def test_the_second_run_is_neither_logged_nor_printed(tmp_path, capsys):
    logger = TensorBoardLogger(tmp_path)
    module = built(Outspoken)
    trainer = fit(
        module, [StepGuard("skip", forensics=True)], batches(6, poison=[3]), logger=logger
    )
    assert capsys.readouterr().out.count("a step") == 6
    scalars, _ = events(logger.log_dir)
    assert len(scalars["direct"]) == len(scalars["directer"]) == 6
    assert module.trainer is trainer
    assert len(module.losses) == 6 + 1  # the bad batch alone ran again


class Unlucky(Classifier):
    """A draw decides whether the batch is bad, after another one in the hook before the step."""

    def on_train_batch_start(self, batch, batch_idx):
        torch.rand(())

    def training_step(self, batch, batch_idx):
        scale = torch.where(torch.rand(()) < 0.1, 0.0, 1.0)
        return super().training_step([batch[0] / scale, batch[1]], batch_idx)


def test_the_second_run_draws_what_the_first_one_drew_also_before_the_step():
    with pytest.raises(UnstableStepError, match=r"first non-finite output is that of 'net\.0'"):
        fit(built(Unlucky), [StepGuard(forensics=True)], batches(60))


class Pair(NamedTuple):
    x: int
    y: int


@dataclass
class Item:
    image: torch.Tensor
    label: int


def test_a_batch_of_any_form_becomes_plain(tmp_path):
    image = torch.ones(2, requires_grad=True)
    batch = {
        1: Pair(1, 2), "item": Item(image, 3), "rows": (1.5, None, True, "a"),
        "ordered": OrderedDict(b=[Item]), "array": np.float64(2.0),
    }  # fmt: skip
    plain = plain_batch(batch)
    assert list(plain) == ["1", "item", "rows", "ordered", "array"]
    assert plain["1"] == {"x": 1, "y": 2}
    assert plain["item"]["label"] == 3
    assert plain["rows"] == [1.5, None, True, "a"]
    assert plain["ordered"] == {"b": [repr(Item)]}
    kept = plain["item"]["image"]
    assert not kept.requires_grad
    with torch.no_grad():
        image.zero_()  # what a step does in place to the batch afterwards
    assert kept.tolist() == [1.0, 1.0]
    torch.save(plain, tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=True)["array"] == 2.0


class Structured(Classifier):
    """Its parts give nested outputs; it counts in metrics and a buffer."""

    def __init__(self, output):
        super().__init__()
        self.part, self.mean, self.all = Part(output), MeanMetric(), CatMetric()
        self.register_buffer("count", torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.part(batch[0])
        self.count += 1
        loss = super().training_step(batch, batch_idx)
        self.mean.update(loss.detach())
        self.all.update(torch.ones(1))
        return loss


class Part(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    ("output", "is_named"),
    [
        (lambda x: {"a": [x.long(), (x,)]}, True),
        (lambda x: (x.to(torch.complex64), "text"), True),
        (lambda x: [x.nan_to_num().long(), None], False),
    ],
    ids=["nested", "complex", "integers"],
)
@pytest.mark.filterwarnings("ignore:Encountered `nan` values")
def test_outputs_of_any_form_are_looked_at_and_nothing_is_counted_twice(output, is_named):
    module = built(Structured, output)
    with pytest.raises(UnstableStepError) as caught:
        fit(module, [StepGuard(forensics=True)], batches(3, poison=[1]))
    assert f"that of {'part' if is_named else 'net.0'!r}" in str(caught.value)
    assert int(module.count) == 2
    assert float(module.mean.weight) == 1  # a NaN is left out
    assert len(module.all.value) == 2
