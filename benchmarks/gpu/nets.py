"""Nets, data and fits, on whichever device there is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, 3e-3),
    "foreach": lambda p: torch.optim.AdamW(p, 3e-3, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, 3e-3, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4),
}


def device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    """Wait for the device."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def mlp(width: int = 64, depth: int = 3, inputs: int = 32, *, norm: bool = True) -> nn.Sequential:
    """Return a classifier of ten classes with batch normalisation."""
    layers: list[nn.Module] = [nn.Linear(inputs, width)]
    for i in range(depth):
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers += [nn.ReLU(), nn.Linear(width, width if i < depth - 1 else 10)]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """One block of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.act, self.back = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then transform each place."""
        batch, time, width = x.shape
        parts = self.qkv(self.norms[0](x)).split(width, 2)
        shape = (batch, time, self.heads, width // self.heads)
        q, k, v = (t.view(shape).transpose(1, 2) for t in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.back(self.act(self.wide(self.norms[1](x))))


class GPT(nn.Module):
    """A language model; the default has 124 million parameters."""

    def __init__(
        self,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        context: int = 512,
        vocabulary: int = 50304,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, 0, 0.02)
        self.head.weight = self.tokens.weight
        self.register_buffer("order", torch.arange(context), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token."""
        order: Any = self.order
        x = self.tokens(tokens) + self.places(order[: tokens.shape[1]])
        return self.head(self.norm(self.blocks(x)))


class Task(pl.LightningModule):
    """Cross entropy of the first tensor's outputs with the second, and every loss kept."""

    def __init__(self, net: nn.Module, optimizer: str = "fused", *, keeps: bool = True) -> None:
        super().__init__()
        self.net, self.optimizer, self.keeps = net, optimizer, keeps
        self.losses: list[Tensor] = []

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        logits = self.net(batch[0])
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), batch[1].flatten())
        if self.keeps:
            self.losses.append(loss.detach().clone())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer that was named."""
        return OPTIMIZERS[self.optimizer](self.parameters())


class GAN(pl.LightningModule):
    """Two optimizers under manual optimisation, with batch normalisation in the generator."""

    def __init__(self, optimizer: str = "adamw") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32)
        )
        self.critic = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(), nn.Linear(32, 1))
        self.optimizer, self.losses = optimizer, list[Tensor]()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Step both."""
        makes, judges = self.optimizers()
        real, _, noise = batch
        loss = nn.functional.binary_cross_entropy_with_logits
        one = torch.ones(len(real), 1, device=real.device)
        fake = self.generator(noise).detach()
        self._step(judges, loss(self.critic(real), one) + loss(self.critic(fake), 1 - one))
        self._step(makes, loss(self.critic(self.generator(noise)), one))

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        self.losses.append(loss.detach().clone())
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the generator's and the critic's."""
        make = OPTIMIZERS[self.optimizer]
        return [make(self.generator.parameters()), make(self.critic.parameters())]


def batches(num: int, poison: Sequence[int] = (), drop: Sequence[int] = ()) -> DataLoader[Any]:
    """Return batches of 32 samples; a poisoned one holds a NaN."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(num, 32, 32, generator=generator)
    y = x.matmul(torch.randn(32, 10, generator=generator)).argmax(-1)
    z = torch.randn(num, 32, 8, generator=generator)
    for i in poison:
        x[i, 0, 0] = z[i, 0, 0] = torch.nan
    kept = [i for i in range(num) if i not in set(drop)]
    return DataLoader(TensorDataset(x[kept], y[kept], z[kept]), batch_size=None)


class Endless:
    """Batches that lie on the device already, over and over."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return 1_000_000

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.batches


def tokens(num: int, samples: int, context: int, vocabulary: int) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random tokens, each with the tokens that follow."""
    generator = torch.Generator().manual_seed(0)
    shape = (num, samples, context + 1)
    drawn = torch.randint(vocabulary, shape, generator=generator).to(device())
    return [(t[:, :-1].contiguous(), t[:, 1:].contiguous()) for t in drawn]


def trainer(callbacks: Sequence[Any], **settings: Any) -> pl.Trainer:
    """Return a Trainer for the device that only trains; fp16 has a scaler on the CPU, too."""
    kind = device().type
    if settings.get("precision") == "16-mixed":
        del settings["precision"]
        scaler = torch.amp.GradScaler(kind, init_scale=2.0**10)  # type: ignore[attr-defined]
        settings["plugins"] = [MixedPrecision("16-mixed", kind, scaler)]
    usual: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "gpu" if kind == "cuda" else "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": list(callbacks),
    }
    warnings.simplefilter("ignore")
    return pl.Trainer(**{**usual, **settings})
