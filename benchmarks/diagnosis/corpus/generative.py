"""An autoencoder, and a generative adversarial net with two optimizers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus.data import Settings, Split, real, standardised
from benchmarks.diagnosis.corpus.initial import initialise
from benchmarks.diagnosis.corpus.parts import ACTIVATIONS, Configured, Setup, setup_of


class AutoEncoder(Configured):
    """Digits through a narrow code and back."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        widths = settings["widths"]
        self.encoder = self.stack([64, *widths])
        self.decoder: Any = self.stack([*reversed(widths), 64])
        last = settings.get("output")
        self.last = ACTIVATIONS[last]() if last else nn.Identity()
        initialise(self, settings)
        if settings.get("unregistered"):
            layers = list(self.decoder)
            del self.decoder
            self.decoder = layers

    def stack(self, widths: list[int]) -> nn.Sequential:
        """Return linear layers with an activation between."""
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), ACTIVATIONS[self.settings["activation"]]()]
        return nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction."""
        code = self.encoder(x)
        for layer in self.decoder:
            code = layer(code)
        return self.last(code)

    def loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the explained variance of all pixels."""
        seen = x + torch.randn_like(x) * self.settings.get("corruption", 0.0)
        back = self(seen)
        explained = 1 - functional.mse_loss(back, x) / (x - x.mean(0)).pow(2).mean()
        return functional.mse_loss(back, x), explained

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Reconstruct one batch."""
        loss, _ = self.loss(batch[0])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure the loss and the explained variance."""
        loss, explained = self.loss(batch[0])
        self.log("val_loss", loss)
        self.log("val_r2", explained)


@lru_cache
def spots() -> Split:
    """Return points of two clouds in the plane, far from the origin."""
    source = torch.Generator().manual_seed(3)
    side = torch.randint(2, (2000, 1), generator=source).float() * 2 - 1
    points = torch.randn(2000, 2, generator=source) * 0.35
    points += side * torch.tensor([1.0, 1.0]) + torch.tensor([1.5, -0.5])
    return Split(points[:1500], side[:1500], points[1500:], side[1500:])


def energy(a: Tensor, b: Tensor) -> Tensor:
    """Return the energy distance of two samples: 0 where they are alike."""
    return 2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean()


class GAN(LightningModule):
    """A generator and a discriminator, optimised in turn by hand."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings = settings
        self.generator = self.player(4, 2)
        self.discriminator = self.player(2, 1)
        initialise(self.generator, settings)
        initialise(self.discriminator, settings)

    def player(self, inputs: int, outputs: int) -> nn.Sequential:
        """Return one of the two nets."""
        width = self.settings["width"]
        activation = ACTIVATIONS[self.settings["activation"]]
        layers: list[nn.Module] = []
        for _ in range(self.settings.get("depth", 2)):
            layers += [nn.Linear(inputs, width), activation()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def configure_optimizers(self) -> Any:
        """Return the generator's optimizer and the discriminator's."""
        rate = self.settings["lr"]
        owners = (self.generator, self.discriminator)
        if self.settings.get("same_twice"):
            owners = (self.discriminator, self.discriminator)
        betas = (self.settings.get("beta", 0.5), 0.99)
        rates = (rate * self.settings.get("generator_rate", 1.0), rate)
        return [
            torch.optim.Adam(owner.parameters(), lr=r, betas=betas)
            for owner, r in zip(owners, rates, strict=True)
        ]

    def score(self, points: Tensor, truth: float) -> Tensor:
        """Return the discriminator's loss on points that are all true or all false."""
        logit = self.discriminator(points)
        if self.settings.get("output") == "sigmoid":
            logit = logit.sigmoid()
        return functional.binary_cross_entropy_with_logits(logit, torch.full_like(logit, truth))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One step of each."""
        real, _ = batch
        g_opt, d_opt = self.optimizers()
        fake = self.generator(torch.randn(len(real), 4))
        d_loss = (self.score(real, 1.0) + self.score(fake.detach(), 0.0)) / 2
        self.clear(d_opt)
        self.manual_backward(d_loss)
        d_opt.step()
        if self.settings.get("detach"):
            fake = fake.detach().requires_grad_()
        g_loss = self.score(fake, 1.0)
        self.clear(g_opt)
        self.manual_backward(g_loss)
        g_opt.step()
        self.log_dict({"train_loss": g_loss + d_loss, "g_loss": g_loss, "d_loss": d_loss})

    def clear(self, optimizer: Any) -> None:
        """Forget the last step's gradients, unless this is what the program forgets."""
        if not self.settings.get("no_zero_grad"):
            optimizer.zero_grad()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure how far the generated points are from real ones."""
        real, _ = batch
        fake = self.generator(torch.randn(len(real), 4))
        distance = energy(fake, real) / energy(torch.randn_like(real) * 0.1, real)
        self.log("val_loss", distance)
        self.log("val_score", 1 - distance.clamp(0, 1))


def autoencoder(settings: Settings) -> Setup:
    """Build the autoencoder on digits: pixels 0 to 1, -1 to 1, or standardised."""
    split, features = real("digits"), settings.get("features")
    if features == "centred":
        split = replace(split, inputs=split.inputs * 2 - 1, val_inputs=split.val_inputs * 2 - 1)
    elif features == "standardised":
        split = standardised(split)
    elif features == "divided":  # by 0, for pixels that are always white
        std = split.inputs.std(0)
        split = replace(split, inputs=split.inputs / std, val_inputs=split.val_inputs / std)
    return setup_of(AutoEncoder(settings), split, settings, "val_r2")


def gan(settings: Settings) -> Setup:
    """Build the adversarial net on two clouds."""
    return setup_of(GAN(settings), spots(), settings, "val_score")
