"""Every callback on a device without double precision: right, or its sentence comes first."""

import inspect
import math

import pytest
import torch
from helpers import mps
from helpers.contract import BUSY, CALLBACKS, KINDS, WITHOUT_DEFAULT, Net, fit, loader
from helpers.loaders import KeepsItsPlace
from lightning.pytorch.loggers.logger import Logger
from torch import nn

from lightning_stab import check_gradients
from lightning_stab.callbacks import GradientCheck, StepGuard
from lightning_stab.callbacks._trainer.device_values import named, to_host
from lightning_stab.errors import GradientCheckError
from lightning_stab.functional.gradient_statistics import copy_entries, cosine
from lightning_stab.functional.norms import exact_total_norm, in_double, wide_dtype

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NAN = float("nan")


def made(name, **settings):
    """Return a callback that measures at every step."""
    given = inspect.signature(KINDS[name]).parameters
    often = {"every_n_steps": 1} if "every_n_steps" in given else {}
    needed = {key: value for key, value in WITHOUT_DEFAULT.items() if key in given}
    return KINDS[name](**{**needed, **often, **BUSY.get(name, {}), **settings})


class Remembers(Logger):
    """Keeps what is logged, by step and tag."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.values = {}

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.values |= {(step, tag): float(value) for tag, value in metrics.items()}


def run(callbacks, kind=Net, **settings):
    """Return what a fit logs and leaves behind, of the module and of the callbacks."""
    logger = Remembers()
    trainer = fit(callbacks, kind(), logger=logger, **settings)
    weights = {name: t.cpu() for name, t in trainer.lightning_module.state_dict().items()}
    states = [callback.state_dict() for callback in callbacks]
    return {"logged": logger.values, "weights": weights, "states": states}


def differences(first, second, path=""):
    """Return where two nested values differ by more than the rounding of float32."""
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return [f"{path}: {set(first) ^ set(second)}"]
        pairs = [(first[key], second[key], f"{path}/{key}") for key in first]
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return [f"{path}: {len(first)} and {len(second)}"]
        pairs = [(*pair, f"{path}/{i}") for i, pair in enumerate(zip(first, second, strict=True))]
    elif isinstance(first, torch.Tensor):
        first, second = first.cpu().nan_to_num(), second.cpu().nan_to_num()
        rounding = 1e-6 * max(1.0, float(first.abs().max())) if first.numel() else 0.0
        return [] if torch.allclose(first, second, rtol=1e-5, atol=rounding) else [path]
    elif isinstance(first, float) and isinstance(second, float):
        both_nan = math.isnan(first) and math.isnan(second)
        alike = both_nan or math.isclose(first, second, rel_tol=1e-5, abs_tol=1e-7)
        return [] if alike else [f"{path}: {first} and {second}"]
    else:
        return [] if first == second else [f"{path}: {first!r} and {second!r}"]
    return [each for pair in pairs for each in differences(*pair)]


def emulated(callbacks, kind=Net, **settings):
    with mps.emulated():
        return run(callbacks, kind, **mps.on_device(), **settings)


def is_the_same_on_the_device(make, kind=Net, **settings):
    expected = run(make(), kind, **settings)
    assert expected["logged"]
    assert differences(expected, emulated(make(), kind, **settings)) == []


# --- the emulated device --------------------------------------------------------------------------

REFUSED = {
    "double": lambda x: x.double(),
    "to double": lambda x: x.to(torch.float64),
    "on the way to the host": lambda x: x.to("cpu", torch.float64),
    "complex": lambda x: x.to(torch.complex128),
    "made there": lambda x: torch.zeros(2, dtype=torch.float64, device="mps"),
    "made of data": lambda x: torch.tensor([1.0], dtype=torch.float64, device="mps"),
    "moved there": lambda x: torch.ones(2).double().to("mps"),
    "copied to the host": lambda x: torch.zeros(2, dtype=torch.float64).copy_(x),
    "numpy": lambda x: x.numpy(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_device_raises_what_mps_raises(what):
    with mps.emulated(), pytest.raises(TypeError, match=r"float64|numpy"):
        REFUSED[what](torch.ones(2, device="mps"))


def test_the_device_keeps_its_tensors_apart_and_has_no_kernel_for_everything():
    with mps.emulated():
        x = torch.arange(4.0, device="mps")
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(4)
        with pytest.raises(NotImplementedError, match="segment_reduce"):
            torch.segment_reduce(x, "sum", lengths=torch.tensor([4], device="mps"))
        assert x.sum().item() == 6
        assert x.tolist() == x.cpu().numpy().tolist() == [0, 1, 2, 3]
        assert (x + 1).device.type == torch.zeros(1, device="mps").device.type == "mps"


# --- functions ------------------------------------------------------------------------------------


def test_counts_that_float32_cannot_hold_reach_the_host_exactly():
    numbers = {"a": 2**24 + 1, "b": 0.5, "c": 2**40 + 1, "d": 1 / 3}
    with mps.emulated():
        tensors = {name: torch.tensor(number, device="mps") for name, number in numbers.items()}
        assert wide_dtype(tensors["b"].device) is torch.float32
        found = to_host(named(name, tensor) for name, tensor in tensors.items())
    assert found == {**numbers, "d": float(torch.tensor(1 / 3))}


def test_what_needs_double_precision_has_it():
    first, second = torch.randn(2, 500, generator=torch.Generator().manual_seed(0)) * 1e30
    expected = cosine(*(copy_entries([t], [100]) for t in (first, second)), [second]).item()
    norm = exact_total_norm([first, second])
    with mps.emulated():
        a, b = first.to("mps"), second.to("mps")
        assert cosine(*(copy_entries([t], [100]) for t in (a, b)), [b]).item() == expected
        assert exact_total_norm([a, b]) == norm
        assert in_double(a).dtype is torch.float64


# --- callbacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLBACKS)
def test_it_does_there_what_it_does_on_the_cpu(name):
    is_the_same_on_the_device(lambda: [made(name)], limit_train_batches=2)


class Deep(Net):
    """Convolution, normalisation, activations with and without weights; Adam; an accuracy."""

    def __init__(self):
        super().__init__()
        convolution = (nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 6, 3, padding=1), nn.BatchNorm1d(6))
        middle = (nn.PReLU(), nn.Flatten(), nn.Linear(24, 8), nn.Sigmoid(), nn.LayerNorm(8))
        self.net = nn.Sequential(*convolution, *middle, nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)
        self.log("val_acc", (self.net(batch[0]).argmax(-1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


class Sequences(Net):
    """Embedding, attention, a recurrent layer; the loss is of numbers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Linear(1, 8)
        self.mix = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.cell, self.last = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 1)

    def loss(self, batch):
        steps, _ = self.cell(self.mix(self.table(batch[0][..., None])))
        return nn.functional.mse_loss(self.last(steps[:, -1])[:, 0], batch[0].sum(-1))


class Poisoned(Net):
    """A loss that is not finite, and one that overflows float32."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * {3: NAN, 5: 1e25}.get(self.num_steps, 1.0)


SETTINGS = {
    "GradientClipping": [{"rule": rule} for rule in ("value", "norm", "adaptive", "history")],
    "LearningRateDecay": [{}, {"schedule": "cosine", "monitor": None, "reload_best": False}],
    "StepGuard": [{"on_nonfinite": "rewind", "snapshot_every_n_steps": 2}, {"on_spike": "skip"}],
    "WeightInitialization": [{"scheme": scheme} for scheme in ("auto", "orthogonal", "lsuv")],
}
CASES = [(name, settings) for name in CALLBACKS for settings in SETTINGS.get(name, [{}])]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [Deep, Sequences])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_other_nets_and_settings_are_the_same_there(name, settings, kind):
    is_the_same_on_the_device(lambda: [made(name, **settings)], kind)


@pytest.mark.nightly
def test_all_together_are_the_same_there():
    is_the_same_on_the_device(lambda: [made(name) for name in CALLBACKS], Deep)


@pytest.mark.nightly
@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_bad_step_is_passed_over_there(policy):
    is_the_same_on_the_device(lambda: [StepGuard(on_nonfinite=policy)], Poisoned)


@pytest.mark.nightly
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_run_goes_on_there_from_its_checkpoint(name):
    def parts():
        fit([made(name)], Net(), [KeepsItsPlace()], max_epochs=1, **where).save_checkpoint("a.ckpt")
        return fit([made(name)], Net(), [KeepsItsPlace()], ckpt_path="a.ckpt", **where)

    where = {}
    expected = parts().lightning_module.state_dict()
    with mps.emulated():
        where = mps.on_device()
        found = {n: t.cpu() for n, t in parts().lightning_module.state_dict().items()}
    assert differences(expected, found) == []


# --- the gradient check, on the CPU ---------------------------------------------------------------


class MakesTensors(Net):
    """Makes tensors where it stands, as a module should."""

    def loss(self, batch):
        ones = torch.ones(len(batch[0]), 1, device=self.device)
        return super().loss([batch[0] * ones, batch[1]])


class Insists(Net):
    """Makes tensors on a device of its own choice."""

    def loss(self, batch):
        where = "mps" if self.device.type == "mps" or self.training else "cpu"
        return super().loss([batch[0] * torch.ones(len(batch[0]), 1, device=where), batch[1]])


def test_gradients_are_checked_on_the_cpu_and_the_module_stays_where_it_is():
    module, batch = MakesTensors(), next(iter(loader(1)))
    expected = [record.relative_error for record in check_gradients(module, batch).parameters]
    with mps.emulated():
        module, batch = module.to("mps"), [each.to("mps") for each in batch]
        report = check_gradients(module, batch)
        places = {each.device.type for each in (*module.parameters(), *batch, module)}
    assert report.passed
    assert [record.relative_error for record in report.parameters] == expected
    assert report.notes == ("Checked on the CPU, because the device has no double precision.",)
    assert places == {"mps"}


def test_a_module_that_cannot_leave_the_device_is_told_before_its_first_step():
    callback, module = GradientCheck(), Insists()
    with mps.emulated(), pytest.raises(GradientCheckError, match="could not be checked"):
        fit([callback], module, **mps.on_device())
    assert module.num_steps == 0
