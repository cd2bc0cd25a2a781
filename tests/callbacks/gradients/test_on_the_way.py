"""What a monitor has sent on its way to the host, and when it is logged."""

from types import SimpleNamespace

import pytest
import torch

from lightning_stab import GradientMonitor
from lightning_stab.callbacks._trainer import device_values
from lightning_stab.callbacks._trainer.device_values import Leaving, named
from lightning_stab.callbacks.gradients import gradient_monitor as module


@pytest.fixture
def monitor(monkeypatch):
    """Return a monitor of a run on a device, with a list of what it has logged, by step."""
    monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", True)
    made = GradientMonitor(progress_bar=True)
    made.logged = []
    monkeypatch.setattr(
        module, "log_scalars",
        lambda trainer, values, step, as_metrics: made.logged.append((step, values, as_metrics)),
    )  # fmt: skip
    monkeypatch.setattr(module, "log_step", lambda trainer: 7)
    return made


def scalar(name, value):
    return named(name, torch.tensor(value))


class Trainer(SimpleNamespace):
    __hash__ = object.__hash__


TRAINER = Trainer(progress_bar_metrics={}, callbacks=[])
EARLIER = (3, {"grad_norm/total": 1.0}, True)


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_start"])
def test_it_is_logged_once_at_its_own_step_before_an_epoch_or_a_validation(monitor, hook):
    monitor._leaving = Leaving([scalar("grad_norm/total", 1.0)], 3)
    for _ in range(2):
        getattr(monitor, hook)(TRAINER, None)
        assert monitor.logged == [EARLIER]
    assert TRAINER.progress_bar_metrics == {"grad_norm/total": 1.0}


def test_after_a_failure_all_is_logged_that_was_read(monitor):
    monitor._leaving = Leaving([scalar("grad_norm/total", 1.0)], 3)
    monitor._pending = [scalar("grad_rms/net", 2.0)]
    monitor.on_exception(TRAINER, None, ValueError())
    assert monitor.logged == [EARLIER, (7, {"grad_rms/net": 2.0}, True)]
    assert monitor._leaving is None
    assert monitor._pending == []


def test_numbers_of_a_device_wait_for_the_next_batch_and_those_of_the_host_do_not(
    monitor, monkeypatch
):
    for is_remote in (True, False):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", is_remote)
        monitor.logged.clear()
        monitor._pending = [scalar("grad_rms/net", 2.0)]
        monitor._leave(TRAINER)
        assert len(monitor.logged) == (0 if is_remote else 1)
        monitor._emit(TRAINER)
        assert monitor.logged == [(7, {"grad_rms/net": 2.0}, True)]
    monitor._leave(TRAINER)
    assert monitor._leaving is None
