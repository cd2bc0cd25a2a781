"""Claim 8: BatchNorm is gamma·xhat + beta with the batch's biased variance, and it learns both."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from torch import Tensor, nn

from examples.lesson.lab import Lab, digits, seeded
from examples.lesson.results import Claim, Numbers, Panel, Row
from lightning_stab.models import MLPClassifier


class AffineLogger(Callback):
    """Log gamma and beta of every BatchNorm: means as scalars, all values as histograms."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send what the epoch has learned."""
        for name, layer in pl_module.named_modules():
            if not isinstance(layer, nn.BatchNorm1d):
                continue
            for symbol, values in (("gamma", layer.weight), ("beta", layer.bias)):
                values = values.detach()
                means = {f"{symbol}_mean/{name}": float(values.mean())}
                means[f"{symbol}_std/{name}"] = float(values.std())
                for logger in trainer.loggers:
                    logger.log_metrics(means, step=trainer.global_step)
                    if isinstance(logger, TensorBoardLogger):
                        logger.experiment.add_histogram(
                            f"{symbol}/{name}", values, trainer.global_step
                        )


def formula(x: Tensor, norm: nn.BatchNorm1d, *, biased: bool) -> Tensor:
    """Return gamma·xhat + beta, from the mean and the variance of the batch."""
    mean, variance = x.mean(0), x.var(0, correction=0 if biased else 1)
    return norm.weight * (x - mean) / torch.sqrt(variance + norm.eps) + norm.bias


def deviations(module: MLPClassifier) -> Numbers:
    """Return how far each layer's norm is from the formula, in double precision."""
    far: dict[bool, float] = {True: 0.0, False: 0.0}

    def compare(norm: nn.BatchNorm1d, inputs: tuple[Tensor], output: Tensor) -> None:
        for biased in far:
            gap = (formula(inputs[0], norm, biased=biased) - output).abs().max()
            far[biased] = max(far[biased], float(gap))

    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    hooks = [norm.register_forward_hook(compare) for norm in norms]
    images, _ = next(iter(digits().train_dataloader()))
    with torch.no_grad():
        module.double().train()(images.double())
    for hook in hooks:
        hook.remove()
    return {"biased, off by": far[True], "unbiased, off by": far[False]}


def run(lab: Lab) -> Claim:
    """Train a net with BatchNorm, read gamma and beta back, and compare with the formula."""
    depth = 4
    module = seeded(MLPClassifier, depth=depth, width=64, activation="sigmoid", learning_rate=5e-3)
    epochs = lab.size(8, 20)
    result = lab.fit(8, "batch-norm", module, digits(), [AffineLogger()], max_epochs=epochs)
    learned = {
        tag: result.scalars(f"{tag}/hidden.{depth - 1}.norm")[-1]
        for tag in ("gamma_mean", "gamma_std", "beta_mean", "beta_std")
    }
    logged = result.scalars("gamma_mean/hidden.0.norm")
    values = {
        symbol: [getattr(layer.norm, part).detach().clone() for layer in module.hidden]
        for symbol, part in (("gamma", "weight"), ("beta", "bias"))
    }
    gaps = deviations(module)
    right, wrong = float(gaps["biased, off by"]), float(gaps["unbiased, off by"])
    rows = [
        Row(
            "trained net against the formula",
            "equal with the biased variance and epsilon only",
            gaps,
            right < 1e-10 and wrong > 1e-4,
        ),
        Row(
            "learned gamma and beta, last layer",
            "both have left their start 1 and 0, and are logged each epoch",
            {**learned, "accuracy": result.scalars("val_accuracy")[-1]},
            len(logged) == epochs and learned["gamma_std"] > 0.01 and learned["beta_std"] > 0.01,
        ),
    ]
    panel = Panel(
        "8  Learned $\\gamma$ and $\\beta$ of each BatchNorm", lambda ax: draw(ax, values)
    )
    return Claim(8, "BatchNorm is gamma·xhat + beta", rows, [panel])


def draw(ax: Axes, values: dict[str, list[Tensor]]) -> None:
    """Draw the values of all units, layer by layer."""
    for shift, symbol, start, color in (
        (-0.2, "gamma", 1, "tab:blue"),
        (0.2, "beta", 0, "tab:orange"),
    ):
        data = [layer.double().numpy() for layer in values[symbol]]
        places = [k + 1 + shift for k in range(len(data))]
        parts = ax.boxplot(data, positions=places, widths=0.3, patch_artist=True, sym=".")
        for box in parts["boxes"]:
            box.set(facecolor=color, alpha=0.6, label=None)
        ax.axhline(start, color=color, ls=":", lw=1)
        ax.plot([], [], "s", color=color, alpha=0.6, label=rf"$\{symbol}$, starts at {start}")
    ax.set_xticks(range(1, len(values["gamma"]) + 1), [f"layer {k + 1}" for k in range(len(data))])
    ax.set_ylim(top=ax.get_ylim()[1] + 0.6)
    ax.legend(loc="upper left", ncols=2)
