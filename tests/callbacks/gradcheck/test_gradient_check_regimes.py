"""Every regime in which Lightning is used: checked, and the fit is the same bit for bit."""

import json
import random

import numpy as np
import pytest
import torch
from helpers.gradcheck_modules import Net, batch, loader
from helpers.tiers import in_tiers
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics.aggregation import MeanMetric

from lightning_stab.callbacks.gradcheck.check_gradients import check_gradients
from lightning_stab.callbacks.gradcheck.gradient_check import GradientCheck
from lightning_stab.errors import GradientCheckError


class Plain(LightningModule):
    """No custom function, nothing logged: what compilation and low precision can run."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class WithMetrics(Net):
    def __init__(self):
        super().__init__(dropout=0.3)
        self.mean = MeanMetric()

    def training_step(self, batch, batch_idx):
        output = self.net(batch[0])
        self.cached = output
        loss = F.cross_entropy(output, batch[1])
        self.mean.update(loss.detach())
        self.log("mean", self.mean, on_epoch=True)
        self.log("rate", self.optimizers().param_groups[0]["lr"])
        self.logger.log_metrics({"direct": 1.0}, step=self.global_step)
        print("a step")  # noqa: T201
        return {"loss": loss}


class Adversarial(LightningModule):
    def __init__(self, toggle, factor=1.0):
        super().__init__()
        self.automatic_optimization = False
        self.toggle = toggle
        self.generator, self.critic = nn.Linear(4, 6), Net(factor).net

    def _step(self, optimizer, loss_of):
        if self.toggle:
            self.toggle_optimizer(optimizer)
        loss = loss_of()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if self.toggle:
            self.untoggle_optimizer(optimizer)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        noise = torch.randn(len(batch[0]), 4)
        self._step(first, lambda: F.softplus(-self.critic(self.generator(noise))).mean())
        self._step(
            second,
            lambda: (
                F.softplus(-self.critic(batch[0])).mean()
                + F.softplus(self.critic(self.generator(noise).detach())).mean()
            ),
        )
        for parameter in self.critic.parameters():
            parameter.data.clamp_(-0.3, 0.3)
        self.lr_schedulers().step()

    def configure_optimizers(self):
        first = torch.optim.Adam(self.generator.parameters(), 1e-3)
        second = torch.optim.SGD(self.critic.parameters(), 1e-2, momentum=0.9)
        return [first, second], [torch.optim.lr_scheduler.StepLR(first, 1)]


class Recurrent(Plain):
    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(6, 3, batch_first=True)
        self.state = None

    def training_step(self, batch, batch_idx):
        rows = batch[0].reshape(4, 4, 6)
        output, state = self.net(rows, self.state)
        self.state = tuple(part.detach() for part in state)
        self.last = output
        return output.square().mean()


class OwnRandomness(Plain):
    def __init__(self):
        super().__init__()
        self.source = torch.Generator().manual_seed(1)

    def on_train_batch_start(self, batch, batch_idx):
        self.weight = random.random() + np.random.random()  # noqa: NPY002

    def training_step(self, batch, batch_idx):
        noise = torch.randn(batch[0].shape, generator=self.source)
        return self.weight * super().training_step((batch[0] + 0.1 * noise, batch[1]), batch_idx)


class Newton(Plain):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=2)


class Sparse(Plain):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 6, sparse=True, padding_idx=0)
        self.turn = nn.Parameter(torch.randn(6, dtype=torch.complex64))

    def training_step(self, batch, batch_idx):
        rows = self.table(batch[1]) * batch[0]
        turned = torch.view_as_real(torch.fft.fft(rows) * self.turn).square().mean()
        return turned + super().training_step((rows, batch[1]), batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2)


def part_compiled():
    module = Plain()
    module.net = torch.compile(module.net, backend="eager")
    return module


REGIMES = {
    "plain": (Plain, {}),
    "metrics": (WithMetrics, {}),
    "accumulation": (Plain, {"accumulate_grad_batches": 2}),
    "bf16 mixed": (Plain, {"precision": "bf16-mixed"}),
    "bf16 true": (Plain, {"precision": "bf16-true"}),
    "fp16 true": (Plain, {"precision": "16-true"}),
    "double": (Plain, {"precision": "64-true"}),
    "two optimizers": (lambda: Adversarial(toggle=False), {}),
    "two optimizers, toggled": (lambda: Adversarial(toggle=True), {}),
    "recurrent with cached state": (Recurrent, {}),
    "randomness of its own": (OwnRandomness, {}),
    "LBFGS": (Newton, {}),
    "sparse and complex": (Sparse, {}),
    "compiled": (lambda: torch.compile(Plain(), backend="eager"), {}),
    "partly compiled": (part_compiled, {}),
}


def fit(folder, make, *callbacks, logger=None, max_epochs=1, **options):
    seed_everything(3, verbose=False)
    module = make()
    trainer = Trainer(
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=CSVLogger(folder) if logger is None else logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(module, loader())
    return module, trainer


def trace(module, trainer, folder):
    """Return everything that a check might have changed."""
    metrics = folder / "lightning_logs/version_0/metrics.csv"
    return {
        "weights and buffers": module.state_dict(),
        "optimizers": [optimizer.state_dict()["state"] for optimizer in trainer.optimizers],
        "randomness": (torch.rand(2), np.random.random(), random.random()),  # noqa: NPY002
        "logged": metrics.read_text() if metrics.exists() else "",
        "metrics": dict(trainer.callback_metrics),
    }


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first.nan_to_num(7.7), second.nan_to_num(7.7))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


IN_THE_GATE = [
    *("metrics", "accumulation", "bf16 mixed", "fp16 true", "two optimizers, toggled"),
    *("recurrent with cached state", "randomness of its own", "LBFGS", "partly compiled"),
]


@pytest.mark.filterwarnings("ignore:.*recompile.*", "ignore:.*Found .* module.* in eval mode.*")
@pytest.mark.parametrize("name", in_tiers(REGIMES, IN_THE_GATE))
def test_the_check_passes_and_leaves_no_trace(tmp_path, name):
    make, options = REGIMES[name]
    check = GradientCheck()
    without = trace(*fit(tmp_path / "without", make, **options), tmp_path / "without")
    checked = trace(*fit(tmp_path / "checked", make, check, **options), tmp_path / "checked")
    for what, expected in without.items():
        assert same(expected, checked[what]), what
    assert not check.report.skipped, str(check.report)
    assert check.report.passed
    assert {record.verdict for record in check.report.parameters} <= {"ok", "zero"}
    assert ("compiled" in name) == ("Compiled parts" in str(check.report))


def test_each_loss_of_manual_optimisation_is_checked_apart(tmp_path):
    check = GradientCheck(on_fail="warn")
    with pytest.warns(UserWarning, match="have a wrong gradient"):
        fit(tmp_path, lambda: Adversarial(toggle=True, factor=3.0), check)
    (record,) = check.report.wrong
    assert (record.name, record.loss, record.function) == ("critic.4.weight", 1, "ScaledMatmul")


class Breaks(Plain):
    """Cannot run in double precision."""

    def training_step(self, batch, batch_idx):
        if self.net[0].weight.dtype == torch.float64:
            torch.rand(3)
            raise RuntimeError("only float32 here")
        return super().training_step(batch, batch_idx)


def test_a_check_that_raises_inside_leaves_no_trace_either(tmp_path):
    check = GradientCheck(on_fail="warn")
    without = trace(*fit(tmp_path / "without", Breaks), tmp_path / "without")
    with pytest.warns(UserWarning, match="could not run this module in double precision"):
        fitted = fit(tmp_path / "checked", Breaks, check)
    assert same(without, trace(*fitted, tmp_path / "checked"))
    assert check.report.skipped
    assert torch.get_default_dtype() == torch.float32


def test_the_result_goes_to_tensorboard_and_to_json(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    with pytest.raises(GradientCheckError, match="Suspect: ScaledMatmul"):
        fit(tmp_path, lambda: Net(factor=-1.0), GradientCheck(), logger=logger)
    found = json.loads((tmp_path / "lightning_logs/version_0/gradient_check.json").read_text())
    assert found["passed"] is False
    assert found["epoch"] == 0
    assert {"net.4.weight"} == {p["name"] for p in found["parameters"] if p["verdict"] == "wrong"}
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    (text,) = events.Tensors("gradient_check/text_summary")
    assert "net.4.weight" in text.tensor_proto.string_val[0].decode()


def test_every_n_epochs_checks_again(tmp_path):
    check, seen = GradientCheck(every_n_epochs=2, mode="model"), []
    check._announce = lambda _, report: seen.append(report.passed)
    fit(tmp_path, Plain, check, max_epochs=5)
    assert seen == [True] * 3


def test_a_sharded_module_is_skipped_with_a_sentence(tmp_path):
    module = Plain()
    module.net[0].weight.full_tensor = lambda: None  # what a DTensor can do and others cannot
    check = GradientCheck(on_fail="warn")
    with pytest.warns(UserWarning, match="sharded over processes"):
        fit(tmp_path, lambda: module, check)
    assert check.report.skipped


def test_a_part_of_the_batch_is_enough():
    report = check_gradients(Net(factor=2.0), batch(16), max_samples=4)
    assert [record.name for record in report.wrong] == ["net.4.weight"]


def test_manual_optimisation_works_without_a_trainer():
    report = check_gradients(Adversarial(toggle=False), batch())
    assert report.passed
    assert {record.verdict for record in report.parameters} <= {"ok", "zero"}
