"""One program as a LightningModule: net, loss, optimizer and schedule as its settings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.diagnosis.corpus.optimization import step_schedule
from benchmarks.diagnosis.elsewhere.nets import body_and_head

Settings = dict[str, Any]


def _one_hot(z: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    classes = z.shape[-1]
    return functional.one_hot(y, classes).float() * (1 - smoothing) + smoothing / classes


def _by_hand(z: Tensor, y: Tensor) -> Tensor:
    p = z.softmax(-1)
    return -(p.gather(1, y[:, None]) + 1e-9).log().mean()


def _focal(z: Tensor, y: Tensor) -> Tensor:
    p = z.softmax(-1).gather(1, y[:, None])
    return -((1 - p).square() * (p + 1e-9).log()).mean()


def _weighted(z: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(z, y, weight=1.0 + torch.arange(z.shape[-1]) % 3)


def _binary(y: Tensor) -> Tensor:
    return y.float()[:, None]


def _signs(y: Tensor) -> Tensor:
    return 2 * _binary(y) - 1


def _broadcast(z: Tensor, y: Tensor) -> Tensor:
    return (z.squeeze(-1) - y).square().mean()  # [N] and [N, 1]: every pair of rows


# by name: for which task, and the loss of the head's outputs and the targets
LOSSES: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross_entropy": ("classes", functional.cross_entropy),
    "smoothed": ("classes", lambda z, y: functional.cross_entropy(z, y, label_smoothing=0.1)),
    "weighted": ("classes", _weighted),
    "nll": ("classes", lambda z, y: functional.nll_loss(functional.log_softmax(z, -1), y)),
    "by_hand": ("classes", _by_hand),
    "focal": ("classes", _focal),
    "kl": (
        "classes",
        lambda z, y: functional.kl_div(
            z.log_softmax(-1), _one_hot(z, y, 0.05), reduction="batchmean"
        ),
    ),
    "margin": ("classes", functional.multi_margin_loss),
    "with_penalty": (
        "classes",
        lambda z, y: functional.cross_entropy(z, y) + 1e-3 * z.square().mean(),
    ),
    "mse_of_probabilities": (
        "squared",
        lambda z, y: functional.mse_loss(z.softmax(-1), _one_hot(z, y)),
    ),
    "mae_of_probabilities": (
        "squared",
        lambda z, y: functional.l1_loss(z.softmax(-1), _one_hot(z, y)),
    ),
    "each_class_alone": (
        "squared",
        lambda z, y: functional.binary_cross_entropy(z.sigmoid(), _one_hot(z, y)),
    ),
    "bce_logits": (
        "binary",
        lambda z, y: functional.binary_cross_entropy_with_logits(z, _binary(y)),
    ),
    "bce": ("binary", lambda z, y: functional.binary_cross_entropy(z.sigmoid(), _binary(y))),
    "soft_margin": ("binary", lambda z, y: functional.soft_margin_loss(z, _signs(y))),
    "hinge": ("binary", lambda z, y: (1 - z * _signs(y)).clamp(min=0).mean()),
    "mse": ("numbers", functional.mse_loss),
    "l1": ("numbers", functional.l1_loss),
    "huber": ("numbers", functional.huber_loss),
    "squares_by_hand": ("numbers", lambda z, y: ((z - y) ** 2).mean()),
    "log_cosh": ("numbers", lambda z, y: (z - y).cosh().clamp(max=1e9).log().mean()),
    "two_terms": ("numbers", lambda z, y: functional.mse_loss(z, y) + functional.l1_loss(z, y)),
    "summed": (
        "numbers",
        lambda z, y: functional.mse_loss(z, y, reduction="sum") / max(1, len(y)),
    ),
    "labels": ("labels", functional.binary_cross_entropy_with_logits),
    "labels_bce": ("labels", lambda z, y: functional.binary_cross_entropy(z.sigmoid(), y)),
    "labels_margin": ("labels", functional.multilabel_soft_margin_loss),
}
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(-1),
    "softmax_of_batch": lambda z: functional.softmax(z, 0),
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


class Lion(torch.optim.Optimizer):
    """Steps of one size in every entry, by the sign of a mean gradient (Chen et al. 2023)."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((0.9 * mean + 0.1 * p.grad).sign(), alpha=-group["lr"])
                mean.mul_(0.99).add_(p.grad, alpha=0.01)
        return loss


def make_optimizer(params: Any, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name."""
    name, rate = settings["optimizer"], settings["lr"]
    decay = {"weight_decay": settings.get("weight_decay", 0.0)}
    if name == "sgd":
        return torch.optim.SGD(params, rate, settings.get("momentum", 0.0), **decay)
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
        "lion": Lion,
    }
    return kinds[name](params, lr=rate, **decay)


class ElsewhereModule(LightningModule):
    """Body, head and loss; what is broken stands in the settings."""

    def __init__(self, data: Any, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.body, self.head = body_and_head(data, settings)
        self.drop = nn.Dropout(settings.get("dropout", 0.0))
        self.task, self.loss = LOSSES[settings["loss"]]
        if settings.get("broadcast"):
            self.loss = _broadcast
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Break the initial weights as the settings say."""
        init = self.settings.get("init")
        weights = [p for p in self.parameters() if p.dim() > 1]
        if init == "zeros":
            for p in self.parameters():
                p.zero_()
        elif init == "dead":
            for part in self.body.modules():
                if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d)) and part.bias is not None:
                    part.bias.fill_(-10.0)
        elif init is not None:
            for p in weights:
                p.mul_(init)
        for p in self.body.parameters() if self.settings.get("frozen") else ():
            p.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the loss receives."""
        hidden = self.body(x)
        hidden = hidden.detach() if self.settings.get("detached") else hidden
        z = self.head(self.drop(hidden))
        output = self.settings.get("output")
        return OUTPUTS[output](z) if output else z

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        x, y = batch
        z = self(x)
        if self.settings.get("log_of_zero"):
            p = (z.softmax(-1) - 0.02).clamp(min=0)
            return -(p.gather(1, y[:, None])).log().mean()
        return self.loss(z, y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and metric as a user would."""
        x, y = batch
        z = self(x)
        self.log("val_loss", self.loss(z, y))
        if self.task in ("classes", "squared"):
            self.log("val_acc", (z.argmax(-1) == y).float().mean())
        elif self.task == "numbers":
            self.log("val_mae", (z - y).abs().mean())
        else:
            right = (self.decided(z) == (y if y.dim() > 1 else y[:, None])).float()
            self.log("val_acc", right.mean())

    def decided(self, z: Tensor) -> Tensor:
        """Return which labels are on."""
        return z > (0.5 if self.settings.get("output") == "sigmoid" else 0.0)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule if there is one."""
        held = {"head": self.head, "body": self.body}.get(self.settings.get("optimize", ""), self)
        optimizer = make_optimizer(held.parameters(), self.settings)
        if "schedule" not in self.settings:
            return optimizer
        kind, *numbers = self.settings["schedule"].split(":")
        steps = int(self.trainer.estimated_stepping_batches)
        share = [float(numbers[0]) * steps, *map(float, numbers[1:])] if numbers else []
        schedule = step_schedule(kind, share, optimizer, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Clear the gradients, or do not."""
        if not self.settings.get("keeps_gradients"):
            super().optimizer_zero_grad(*args)
