"""Small modules with right and wrong backward passes, for the tests of the gradient check."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Doubled(torch.autograd.Function):
    """2 x, with the right backward pass."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class ScaledMatmul(torch.autograd.Function):
    """x W^T, whose weight gradient is multiplied by ``factor``: right only for 1."""

    @staticmethod
    def forward(ctx, x, weight, factor):
        ctx.save_for_backward(x, weight)
        ctx.factor = factor
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient @ weight, ctx.factor * gradient.T @ x, None


class ScaledLinear(nn.Linear):
    def __init__(self, in_features, out_features, factor=1.0):
        super().__init__(in_features, out_features)
        self.factor = factor

    def forward(self, x):
        return ScaledMatmul.apply(x, self.weight, self.factor) + self.bias


class Net(LightningModule):
    def __init__(self, factor=1.0, activation=nn.ReLU, dropout=0.0):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            activation(),
            nn.Dropout(dropout),
            ScaledLinear(8, 8, factor),
            nn.Tanh(),
            nn.Linear(8, 3),
        )

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def batch(size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 6, generator=generator)
    return x, torch.randint(0, 3, (size,), generator=generator)


def loader(num_batches=3):
    x, y = batch(16 * num_batches)
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
