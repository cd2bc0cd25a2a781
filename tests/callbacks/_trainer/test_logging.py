"""What is logged where, and what is said of a metric that is not there."""

import lightning.pytorch as lightning
import pytest
import torch
from helpers.lightning_twins import RecordingLogger
from helpers.quiet import QUIET

from lightning_stab.callbacks._trainer.exceptions import call_after_exception
from lightning_stab.callbacks._trainer.logging import log_scalars, require_metrics
from lightning_stab.errors import ConflictError


@pytest.fixture
def trainer():
    return lightning.Trainer(**{**QUIET, "logger": [RecordingLogger(), RecordingLogger()]})


@pytest.mark.parametrize("as_metrics", [True, False])
def test_every_logger_gets_the_values_and_the_metrics_get_them_where_asked(trainer, as_metrics):
    log_scalars(trainer, {"a/b": 2.0}, step=7, as_metrics=as_metrics)
    assert [logger.steps for logger in trainer.loggers] == [{7: {"a/b": 2.0}}] * 2
    assert {n: float(v) for n, v in trainer.callback_metrics.items()} == (
        {"a/b": 2.0} if as_metrics else {}
    )


@pytest.mark.parametrize(
    ("logged", "hint"),
    [
        (["val_loss/dataloader_idx_0", "val_lost"], r"Did you mean 'val_loss/dataloader_idx_0'\?"),
        (["val_losses"], r"Did you mean 'val_losses'\?"),
        (["accuracy"], r"available: 'accuracy'\. Call `self.log\('val_loss', ...\)`"),
        ([], "available: no metric"),
    ],
)
def test_a_missing_metric_is_answered_with_the_likeliest_name(trainer, logged, hint):
    trainer.callback_metrics.update({name: torch.ones(()) for name in logged})
    with pytest.raises(ConflictError, match=hint):
        require_metrics(trainer, ["val_loss"], strict=True, verbose=False)
    with pytest.warns(RuntimeWarning, match=hint):
        assert not require_metrics(trainer, ["val_loss"], strict=False, verbose=True)
    assert not require_metrics(trainer, ["val_loss"], strict=False, verbose=False)


def test_a_missing_metric_is_an_error_unless_it_may_be_missing_and_is_then_passed_over(trainer):
    with pytest.raises(ConflictError, match="got 'val_loss'"):
        require_metrics(trainer, ["val_loss"])
    assert not require_metrics(trainer, ["val_loss"], strict=False)  # a warning would be an error


def test_a_metric_that_is_there_is_enough(trainer):
    trainer.callback_metrics["val_loss"] = torch.ones(())
    assert require_metrics(trainer, ["val_loss"], strict=True, verbose=True)
    with pytest.raises(ConflictError, match="got 'other'"):
        require_metrics(trainer, ["val_loss", "other"], strict=True, verbose=True)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("overridden", [False, True])
def test_what_comes_after_an_exception_comes_once_and_last(trainer, monkeypatch, fails, overridden):
    calls, strategy = [], trainer.strategy

    def seen(exception):
        calls.append(exception)
        if fails:
            raise RuntimeError("on purpose")

    monkeypatch.setattr(type(strategy), "on_exception", lambda self, exception: seen(exception))
    if overridden:
        strategy.on_exception = seen
    call_after_exception(trainer, lambda: calls.append("act"))
    for count in (1, 2):  # the second exception is nobody's
        try:
            strategy.on_exception(count)
        except RuntimeError:
            assert fails
    assert calls == [1, "act", 2]
    assert vars(strategy).get("on_exception") is (seen if overridden else None)
