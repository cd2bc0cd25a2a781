"""Programs that are sick in one way, small enough for many fits in one test."""

import torch
from helpers.quiet import QUIET
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

KWARGS = {**QUIET, "max_epochs": 5}


class Classifier(LightningModule):
    """Two hidden layers; all weights zero where it is sick."""

    def __init__(self, sick=True, rate=0.02):
        super().__init__()
        self.rate = rate
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2)
        )
        if sick:
            for parameter in self.parameters():
                nn.init.zeros_(parameter)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def make_loaders():
    """Build 256 rows to train on, shuffled, and 64 to validate with."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(320, 4, generator=generator)
    data = TensorDataset(x, (x.sum(1) > 0).long())
    train, val = (torch.utils.data.Subset(data, r) for r in (range(256), range(256, 320)))
    return DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=64)


def make_zero():
    """Build the sick module."""
    return Classifier()


def make_healthy():
    """Build its healthy twin."""
    return Classifier(sick=False)
