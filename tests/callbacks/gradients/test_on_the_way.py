"""What a monitor holds and has sent on its way to the host, and when it is logged."""

from types import SimpleNamespace

import pytest
import torch
from helpers.lightning_twins import Classifier, RecordingLogger, batches, built, fit
from lightning.pytorch import Callback

from lightning_stab import GradientMonitor
from lightning_stab.callbacks._trainer import device_values
from lightning_stab.callbacks._trainer.device_values import Leaving, named
from lightning_stab.callbacks.gradients import gradient_monitor as module

STATISTICS = [*module.STATISTICS]


@pytest.fixture
def monitor(monkeypatch):
    """Return a monitor of a run on a device, with a list of what it has logged, by step."""
    monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", True)
    made = GradientMonitor(progress_bar=True)
    made.logged, made.kept = [], {}
    monkeypatch.setattr(module, "log_events", lambda trainer, events: made.logged.extend(events))
    monkeypatch.setattr(module, "keep_metrics", lambda trainer, values: made.kept.update(values))
    monkeypatch.setattr(module, "log_step", lambda trainer: 7)
    return made


def scalar(name, value):
    return named(name, torch.tensor(value))


class Trainer(SimpleNamespace):
    __hash__ = object.__hash__


TRAINER = Trainer(progress_bar_metrics={}, callbacks=[])
EARLIER = (3, {"grad_norm/total": 1.0})
SENT = (5, {"grad_norm/total": 2.0})


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_start"])
def test_it_is_logged_once_at_its_own_step_before_an_epoch_or_a_validation(monitor, hook):
    monitor._unwritten = [EARLIER]
    monitor._leaving = Leaving([scalar("grad_norm/total", 2.0)], 5)
    for _ in range(2):
        getattr(monitor, hook)(TRAINER, None)
        assert monitor.logged == [EARLIER, SENT]
    assert TRAINER.progress_bar_metrics == monitor.kept == {"grad_norm/total": 2.0}


def test_after_a_failure_all_is_logged_that_was_read(monitor):
    monitor._unwritten = [EARLIER]
    monitor._leaving = Leaving([scalar("grad_norm/total", 2.0)], 5)
    monitor._pending = [scalar("grad_rms/net", 2.0)]
    monitor.on_exception(TRAINER, None, ValueError())
    assert monitor.logged == [EARLIER, SENT, (7, {"grad_rms/net": 2.0})]
    assert monitor._leaving is None
    assert monitor._unwritten == monitor._pending == []


class Fresh(Callback):
    """Keep of each batch which step's norm is among the metrics that can be monitored."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append(trainer.callback_metrics.get("grad_norm/total"))


class Written(RecordingLogger):
    """Keep also the step of each event of the monitor."""

    def __init__(self):
        super().__init__()
        self.events = []

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        if any(name.startswith("grad_") for name in metrics):
            self.events.append(step)


def logged_by(monitor, seconds, monkeypatch, callbacks=()):
    """Return the logger of a fit, the norm among the metrics at each batch, and the Trainer."""
    monkeypatch.setattr(module, "HELD_SECONDS", seconds)
    fresh, logger = Fresh(), Written()
    callbacks = [monitor, fresh, *callbacks]
    trainer = fit(
        built(Classifier), callbacks, batches(8), accumulate_grad_batches=2, logger=logger
    )
    return logger, fresh.seen, trainer


def test_what_is_held_is_logged_as_what_is_written_at_once(monkeypatch):
    class Counts(Callback):
        def on_train_batch_end(self, trainer, *args):
            self.events = len(trainer.logger.events)

    runs = []
    for seconds in (0.0, 1e6):
        counts = Counts()
        logger, seen, trainer = logged_by(
            GradientMonitor(1, statistics=STATISTICS), seconds, monkeypatch, [counts]
        )
        assert logger.events == [0, 1, 2, 3]  # each once, under its own step
        assert counts.events == (4 if seconds == 0.0 else 1)  # the first is not held
        runs.append((logger.steps, seen, trainer.callback_metrics))
    (steps, seen, metrics), (held, late, held_metrics) = runs
    for step, values in steps.items():
        assert held[step] == pytest.approx(values, nan_ok=True, rel=0, abs=0)
    assert len({float(value) for value in seen if value is not None}) == 4
    for one, other in ((dict(enumerate(seen)), dict(enumerate(late))), (metrics, held_metrics)):
        assert one.keys() == other.keys()
        for key, value in one.items():  # what can be monitored is never held
            torch.testing.assert_close(other[key], value, rtol=0, atol=0, equal_nan=True)


def test_numbers_of_a_device_wait_for_the_next_batch_and_those_of_the_host_do_not(monkeypatch):
    numbers = {}
    for is_remote in (False, True):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", is_remote)
        _, seen, _ = logged_by(GradientMonitor(1), 0.0, monkeypatch)
        numbers[is_remote] = [None if value is None else float(value) for value in seen]
    assert numbers[True][2::2] == numbers[False][1:-1:2]  # of eight batches every second one steps
    assert numbers[True][:2] == [None, None]


@pytest.mark.parametrize("goes_back", [False, True])
def test_the_noise_scale_learns_what_is_on_its_way_before_it_is_saved_or_replaced(
    monkeypatch, goes_back
):
    states = []
    for is_remote in (False, True):
        monkeypatch.setattr(device_values, "CPU_COUNTS_AS_DEVICE", is_remote)
        monitor = GradientMonitor(1, statistics=["noise_scale"])
        saved = SimpleNamespace(state=None)

        class Saves(Callback):
            def on_train_batch_end(self, trainer, *args, monitor=monitor, saved=saved):
                if goes_back and trainer.global_step == 3 and saved.state is not None:
                    monitor.load_state_dict(saved.state)
                elif trainer.global_step != 2:
                    saved.state = monitor.state_dict()

        logged_by(monitor, 0.0, monkeypatch, [Saves()])
        states.append(saved.state)
    assert states[0] == states[1]
    assert states[0]["noise_scale"]["noise"]["count"] == (2 if goes_back else 4)
