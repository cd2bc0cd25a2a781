"""Small runs of which one version writes checkpoints and endings, for later versions to repeat.

    python make_artifacts.py --out FOLDER           write the artifacts of every run
    python make_artifacts.py --out FOLDER --only X  of one run

``RUNS`` maps a name to a function that returns a fresh `Definition`. For each run there are

* ``run_<name>.ckpt``: the checkpoint at the end of the second of four epochs (one run: within it),
* ``run_<name>_final.pt``: the ending of the run that was resumed from it,
* ``run_<name>_whole.pt``: the ending of the run that was never interrupted,

and ``runs.json``, which says how both endings compare. An ending is what `ending` returns: plain
values and tensors, which ``torch.load(..., weights_only=True)`` reads.

Run ``plain`` holds no callback of the suite. Where it does not end as ``run_plain_whole.pt`` bit
for bit, the machine or torch computes differently, and the others need not do so either.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab import (
    ActivationMonitor,
    BestWeightsEarlyStopping,
    GradientCheck,
    GradientClipping,
    GradientMonitor,
    LearningRateDecay,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
    __version__,
)

SEED = 7
MAX_EPOCHS = 4
SAVED_EPOCH = 1  # the second one
BATCH_SIZE = 8
FEATURES = 4


class Definition(NamedTuple):
    """A fresh run: ``Trainer(callbacks=..., **trainer_kwargs).fit(module, *loaders)``."""

    module: LightningModule
    loaders: tuple[DataLoader, DataLoader]
    callbacks: list[Any]
    trainer_kwargs: dict[str, Any]


def data(
    num_batches: int, *, seed: int = 0, bad: Mapping[int, float] | None = None
) -> tuple[DataLoader, DataLoader]:
    """Return loaders of a small regression; ``bad`` multiplies the targets of whole batches."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, 1, generator=generator)

    def drawn(size: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(size, FEATURES, generator=generator)
        noise = torch.randn(size, 1, generator=generator)
        return x, torch.sin(x @ mixing) + 0.3 * (x[:, :1] * x[:, 1:2]) + 0.1 * noise

    x, y = drawn(num_batches * BATCH_SIZE)
    for index, factor in (bad or {}).items():
        y[index * BATCH_SIZE : (index + 1) * BATCH_SIZE] *= factor
    train = DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE, shuffle=False)
    validation = DataLoader(TensorDataset(*drawn(40)), batch_size=20, shuffle=False)
    return train, validation


def net(activation: type[nn.Module], width: int = 8, *, norm: bool = False) -> nn.Sequential:
    """Return a multi-layer perceptron with two hidden layers, drawn by a private generator."""
    sizes = (FEATURES, width, width)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers.append(nn.Linear(before, after))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    whole = nn.Sequential(*layers, nn.Linear(width, 1))
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for layer in whole:
            if isinstance(layer, nn.Linear):
                bound = (3.0 / layer.in_features) ** 0.5
                for parameter in layer.parameters():
                    drawn = torch.rand(parameter.shape, generator=generator)
                    parameter.copy_((2 * drawn - 1) * bound)
    return whole


class Regression(LightningModule):
    """Least squares with one optimizer, made by ``make_optimizer`` from the net."""

    def __init__(
        self, network: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> None:
        super().__init__()
        self.net = network
        self.make_optimizer = make_optimizer

    def forward(self, x: Tensor) -> Tensor:
        """Return the net's results."""
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log and return the loss."""
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the loss and the worst error."""
        x, y = batch
        difference = self(x) - y
        self.log("val_loss", difference.square().mean(), batch_size=len(x))
        self.log("val_worst", difference.abs().max(), batch_size=len(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the one optimizer."""
        return self.make_optimizer(self.net)


class TwoOptimizers(Regression):
    """Manual optimisation: one optimizer for the hidden layers, one for the output layer."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__(network, sgd)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Take one step with each optimizer."""
        loss = super().training_step(batch, batch_idx)
        both = self.optimizers()
        for optimizer in both:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in both:
            optimizer.step()
        return loss

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return both optimizers."""
        return [
            torch.optim.SGD(self.net[:-1].parameters(), lr=0.05, momentum=0.9),
            torch.optim.Adam(self.net[-1].parameters(), lr=0.01),
        ]


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with momentum."""
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)


def adamw(network: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW."""
    return torch.optim.AdamW(network.parameters(), lr=0.01)


def two_groups(network: nn.Module) -> torch.optim.Optimizer:
    """Return SGD with momentum and two parameter groups of different rates."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    groups = [{"params": weights}, {"params": others, "lr": 0.02, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-3)


def plain() -> Definition:
    """No callback of the suite: what it ends with, torch and the machine alone decide."""
    return Definition(Regression(net(nn.ReLU, norm=True), sgd), data(24), [], {})


def all_nine() -> Definition:
    """Every callback, with BatchNorm, accumulation, and one spike per epoch that is rewound."""
    callbacks = [
        WeightInitialization(seed=3, verbose=False),
        GradientMonitor(every_n_steps=3, dense_steps=4),
        ActivationMonitor(every_n_steps=4, window=24),
        GradientClipping("history", method="zscore", threshold=1.5, every_n_steps=3),
        StepGuard(
            on_nonfinite="skip",
            on_spike="rewind",
            window=16,
            min_window=4,
            rewind_after=1,
            snapshot_every_n_steps=4,
            lr_factor=0.8,
        ),
        GradientCheck(every_n_epochs=2, num_directions=1),
        BestWeightsEarlyStopping(monitor="val_loss", patience=100),
        LearningRateDecay(
            "plateau",
            interval="step",
            patience=2,
            min_delta=0.02,
            gamma=0.7,
            smoothing=0.8,
            check_every_n_steps=3,
            reload_best=True,
        ),
        TrainingDoctor(every_n_steps=3, print_findings=False, thresholds={"large_input": 0.5}),
    ]
    module = Regression(net(nn.ReLU, norm=True), sgd)
    return Definition(module, data(24, bad={17: 30.0}), callbacks, {"accumulate_grad_batches": 2})


def nan_batch() -> Definition:
    """Two NaN batches per epoch skipped, AutoClip by group, two groups, exponential by step."""
    callbacks = [
        WeightInitialization("kaiming_uniform", seed=3, verbose=False),
        GradientMonitor(every_n_steps=5, per_parameter=["*bias"]),
        GradientClipping("history", method="percentile", per_parameter_group=True, every_n_steps=4),
        StepGuard(on_nonfinite="skip", on_spike="skip", min_window=8, window=16),
        BestWeightsEarlyStopping(
            monitor=["val_loss", "val_worst"],
            patience=300,
            patience_unit="steps",
            stall="all",
            min_delta=0.01,
            relative_min_delta=True,
            rising_checks=3,
            oscillation_window=4,
            oscillation_amplitude=5.0,
        ),
        LearningRateDecay("exponential", interval="step", gamma=0.98, warmup_steps=30),
        TrainingDoctor(every_n_steps=5, print_findings=False),
    ]
    loaders = data(24, seed=1, bad={5: float("nan"), 20: float("nan")})
    return Definition(Regression(net(nn.GELU), two_groups), loaders, callbacks, {})


def adaptive() -> Definition:
    """AGC, AdamW, cosine with restarts, checks every few steps of a metric of the training."""
    callbacks = [
        WeightInitialization("orthogonal", gain=1.2, seed=3, verbose=False),
        GradientMonitor(every_n_steps=6, dense_steps=0, statistics=["rms", "update_ratio"]),
        ActivationMonitor(every_n_steps=7, window=40, include=["*"]),
        GradientClipping("adaptive", threshold=0.02, exclude=["net.0.bias"]),
        StepGuard(on_nonfinite="rewind", on_spike="ignore", snapshot_every_n_steps=7),
        BestWeightsEarlyStopping(
            monitor="train_loss", patience=50, check_every_n_steps=5, warmup_steps=10
        ),
        LearningRateDecay("cosine_restarts", interval="step", every=20, growth=2, floor=0.1),
        TrainingDoctor(every_n_steps=4, print_findings=False, ignore=["plateau"]),
    ]
    return Definition(
        Regression(net(nn.Tanh), adamw), data(16, seed=2), callbacks, {"log_every_n_steps": 1}
    )


def by_loss() -> Definition:
    """Clipping by value with a table of thresholds, the rate by the loss, a spike skipped."""
    callbacks = [
        WeightInitialization("lsuv", seed=3, verbose=False),
        GradientClipping("value", {0: 0.5, 20: 0.2, 40: 0.1}, every_n_steps=4),
        StepGuard(
            on_nonfinite="skip", on_spike="skip", min_window=6, window=12, gradient_factor=3.0
        ),
        GradientCheck(on_fail="warn", mode="model"),
        BestWeightsEarlyStopping(monitor="val_loss", patience=9, restore_best=False),
        LearningRateDecay("loss", function="sqrt", smoothing=0.9, floor=0.05, ceiling=2.0),
        TrainingDoctor(every_n_steps=5, print_findings=False),
    ]
    loaders = data(16, seed=3, bad={11: 40.0})
    return Definition(Regression(net(nn.Sigmoid), sgd), loaders, callbacks, {})


def twins() -> Definition:
    """Two of each that may stand twice, a swing that cuts the rate, a stop after the resume."""
    callbacks = [
        GradientMonitor(every_n_steps=4),
        GradientMonitor(every_n_steps=9, dense_steps=0),
        ActivationMonitor(every_n_steps=4),
        ActivationMonitor(every_n_steps=6, window=16),
        GradientClipping("value", 0.5),
        GradientClipping("norm", {0: 2.0, 10: 0.5}, every_n_steps=5),
        StepGuard(on_nonfinite="raise", on_spike="rewind", window=20, min_window=10),
        BestWeightsEarlyStopping(monitor="val_loss", patience=90),
        BestWeightsEarlyStopping(monitor="val_loss", patience=2, min_delta=0.3, warmup_checks=0),
        LearningRateDecay(
            "oscillation", interval="step", window=4, amplitude=0.0, smoothing=0.0, monitor=None,
            check_every_n_steps=3,
        ),
    ]  # fmt: skip
    return Definition(
        Regression(net(nn.ReLU), sgd),
        data(12, seed=4),
        callbacks,
        {"accumulate_grad_batches": 3, "log_every_n_steps": 2},
    )


def plateau_by_metric() -> Definition:
    """Plateau by ``val_loss``, best weights reloaded, saved and resumed in mid-epoch."""
    callbacks = [
        WeightInitialization("xavier_normal", bias="keep", seed=3, verbose=False),
        GradientMonitor(every_n_steps=4),
        GradientClipping("history", threshold=1.0, exclude=["*bias"]),
        StepGuard(on_nonfinite="skip", on_spike="rewind", rewind_after=2, min_window=5, window=30),
        LearningRateDecay(
            "plateau", monitor="val_loss", patience=1, min_delta=0.5, gamma=0.3, reload_best=True
        ),
        BestWeightsEarlyStopping(monitor="val_loss", patience=7, rising_checks=4),
        TrainingDoctor(
            every_n_steps=3, print_findings=False, thresholds={"plateau.nothing_learnt": 0.5}
        ),
    ]
    loaders = data(14, seed=5, bad={6: 25.0, 7: 25.0})
    module = Regression(net(nn.ELU, norm=True), sgd)
    return Definition(module, loaders, callbacks, {"val_check_interval": 0.5})


def two_optimizers() -> Definition:
    """Manual optimisation with two optimizers, one history, one judge and one clock for each."""
    callbacks = [
        WeightInitialization(seed=3, verbose=False),
        GradientMonitor(every_n_steps=3),
        GradientClipping("history", threshold=1.0, every_n_steps=3),
        StepGuard(on_nonfinite="skip", on_spike="skip", min_window=5, window=20),
        BestWeightsEarlyStopping(monitor="val_loss", patience=9),
        LearningRateDecay("inverse_sqrt", interval="step", warmup_steps=12),
        TrainingDoctor(every_n_steps=5, print_findings=False),
    ]
    loaders = data(16, seed=6, bad={9: float("nan")})
    return Definition(TwoOptimizers(net(nn.ReLU)), loaders, callbacks, {})


RUNS: dict[str, Callable[[], Definition]] = {
    "plain": plain,
    "all_nine": all_nine,
    "nan_batch": nan_batch,
    "adaptive": adaptive,
    "by_loss": by_loss,
    "twins": twins,
    "plateau_by_metric": plateau_by_metric,
    "two_optimizers": two_optimizers,
}
SAVED_IN_MID_EPOCH = {"plateau_by_metric"}  # after a validation; the others at the epoch's end


class Saver(Checkpoint):
    """Write a checkpoint in the second epoch; stands last, as all of its kind."""

    def __init__(self, path: Path, *, in_mid_epoch: bool = False) -> None:
        self.path = path
        self.in_mid_epoch = in_mid_epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save in the middle of the epoch, after its first validation."""
        self._save(trainer, self.in_mid_epoch and not self.path.exists())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of the epoch."""
        self._save(trainer, not self.in_mid_epoch)

    def _save(self, trainer: Trainer, due: bool) -> None:
        if due and trainer.current_epoch == SAVED_EPOCH:
            trainer.save_checkpoint(self.path)


class Course(Checkpoint):
    """Note weights and metric at the end of each epoch, before the best weights come back."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[list[float]] = []
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take notes."""
        self.losses.append(float(trainer.callback_metrics["val_loss"]))
        rates = [[group["lr"] for group in o.param_groups] for o in trainer.optimizers]
        self.rates.append([float(rate) for each in rates for rate in each])
        self.weights = {name: t.clone() for name, t in pl_module.state_dict().items()}


def fit(
    name: str, folder: Path, *, ckpt_path: Path | None = None, save_to: Path | None = None
) -> tuple[dict[str, Any], Trainer]:
    """Train run ``name``, resumed from ``ckpt_path`` if given; return its ending and Trainer."""
    torch.set_num_threads(1)
    seed_everything(SEED, workers=True, verbose=False)
    module, loaders, callbacks, more = RUNS[name]()
    course = Course()
    saver = []
    if save_to is not None:
        saver = [Saver(save_to, in_mid_epoch=name in SAVED_IN_MID_EPOCH)]
    trainer = Trainer(
        max_epochs=MAX_EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, course, *saver],
        **more,
    )
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return ending(trainer, course), trainer


def ending(trainer: Trainer, course: Course) -> dict[str, Any]:
    """Return what a fit left behind, as plain values and tensors."""
    suite = [c for c in trainer.callbacks if type(c).__module__.startswith("lightning_stab")]
    return {
        "weights": plain_values(trainer.lightning_module.state_dict()),
        "last_weights": plain_values(course.weights),
        "optimizers": [plain_values(o.state_dict()) for o in trainer.optimizers],
        "callbacks": {c.state_key: plain_values(c.state_dict()) for c in suite},
        "val_losses": course.losses,
        "rates": course.rates,
        "global_step": trainer.global_step,
        "current_epoch": trainer.current_epoch,
    }


def plain_values(value: Any) -> Any:
    """Return a copy of ``value`` that holds nothing but plain values and tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(each) for each in value]
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values(asdict(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain value: {value!r}")


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the places where two endings differ by a bit or more; NaN equals NaN."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and torch.equal(one.nan_to_num(nan=0.125), other.nan_to_num(nan=0.125))
        return [] if same and torch.equal(one.isnan(), other.isnan()) else [at]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = [f"{at}/{key}" for key in keys if key not in one or key not in other]
        both = [key for key in keys if key in one and key in other]
        inside = [differences(one[key], other[key], f"{at}/{key}") for key in both]
        return missing + [place for places in inside for place in places]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        inside = [differences(a, b, f"{at}/{index}") for index, (a, b) in pairs]
        return [place for places in inside for place in places]
    same_nan = one != one and other != other
    return [] if same_nan or (type(one) is type(other) and one == other) else [at]


def make(name: str, out: Path) -> dict[str, Any]:
    """Write the artifacts of one run, and return how its endings compare."""
    checkpoint = out / f"run_{name}.ckpt"
    checkpoint.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, _ = fit(name, Path(folder, "whole"), save_to=checkpoint)
        again, _ = fit(name, Path(folder, "again"))
        resumed, trainer = fit(name, Path(folder, "resumed"), ckpt_path=checkpoint)
        twice, _ = fit(name, Path(folder, "twice"), ckpt_path=checkpoint)
    torch.save(whole, out / f"run_{name}_whole.pt")
    torch.save(resumed, out / f"run_{name}_final.pt")
    return {
        "about": (RUNS[name].__doc__ or "").strip(),
        "whole_run_repeats": not differences(whole, again),
        "resumed_run_repeats": not differences(resumed, twice),
        "resumed_differs_from_whole_in": sorted({_short(place) for place in apart(whole, resumed)}),
        "val_losses": {"whole": whole["val_losses"], "resumed": resumed["val_losses"]},
        "deeds": deeds(trainer),
    }


def apart(whole: dict[str, Any], resumed: dict[str, Any]) -> list[str]:
    """Return where a resumed run ended otherwise than the whole one; its course is shorter."""
    length = len(resumed["val_losses"])
    course = {key: whole[key][-length:] for key in ("val_losses", "rates")}
    return differences({**whole, **course}, resumed)


def _short(place: str) -> str:
    return "/".join(place.split("/")[:5])


def deeds(trainer: Trainer) -> dict[str, Any]:
    """Return what the callbacks of a resumed run did, by their public attributes."""
    found: dict[str, Any] = {}
    for callback in trainer.callbacks:
        if isinstance(callback, StepGuard):
            found["skipped"], found["rewound"] = callback.num_skipped, callback.num_rewound
        if isinstance(callback, TrainingDoctor):
            found["findings"] = [[f.id, f.step] for f in callback.findings]
        if isinstance(callback, BestWeightsEarlyStopping):
            found.setdefault("stopping", []).append(callback.summary)
    return found


def main() -> None:
    """Write the artifacts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=list(RUNS), action="append")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    told = {name: make(name, options.out) for name in options.only or RUNS}
    made_with = {
        "lightning_stab": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    text = json.dumps({"made_with": made_with, "runs": told}, indent=1)
    (options.out / "runs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
