import logging
import math
import pickle

import pytest
import torch
from helpers.stopping_modules import Regression, fit, same, tensors, trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_stab import BestWeightsEarlyStopping
from lightning_stab.callbacks.stopping import best_weights_early_stopping
from lightning_stab.errors import ConflictError, InvalidArgumentError

NAN = math.nan


def stopping(*args, monitor="val_loss", **settings):
    return BestWeightsEarlyStopping(monitor, *args, **settings)


def checks(callback):
    return callback._record.now.check


# What Lightning's class does too.


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        ([6, 5, 5, 5, 5, 5, 5], 3, 5),
        ([6, 5, 4, 4, 3, 3, 3], 1, 4),
        ([6, 5, 6, 5, 5, 5, 5], 3, 5),
        ([6, 5, 4, 3, 2, 1, 0], 2, 7),
    ],
)
def test_it_stops_where_lightnings_class_stops(values, patience, expected):
    lightnings, _ = fit(values, EarlyStopping("val_loss", patience=patience))
    ours, _ = fit(values, stopping(patience=patience))
    assert lightnings.current_epoch == ours.current_epoch == expected


@pytest.mark.parametrize(
    ("settings", "values", "reason", "name", "words"),
    [
        ({"stopping_threshold": 2.5}, [9, 3, 2, 9], "STOPPING_THRESHOLD", "threshold", "threshold"),
        (
            {"divergence_threshold": 20},
            [9, 3, 21, 9],
            "DIVERGENCE_THRESHOLD",
            "divergence",
            "threshold",
        ),
        ({}, [9, 3, NAN, 9], "NON_FINITE_METRIC", "not_finite", "is not finite"),
        ({"patience": 1}, [9, 3, 4, 9], "PATIENCE_EXHAUSTED", "patience", "did not improve"),
    ],
)
def test_lightnings_reasons(settings, values, reason, name, words):
    callback = stopping(**settings)
    run, _ = fit(values, callback)
    assert run.current_epoch == 3
    assert callback.stopping_reason is EarlyStoppingReason[reason]
    assert callback.stopped_epoch == 2
    assert callback.stop_reason == name
    assert words in callback.stopping_reason_message


def test_the_trainer_finds_it_as_an_early_stopping_callback():
    callback = stopping()
    assert trainer(callback).early_stopping_callback is callback


def test_it_sees_metrics_that_the_module_logs_at_the_end_of_the_epoch():
    class Late(Regression):
        def on_train_epoch_end(self):
            self.log("late", torch.tensor(float(self.current_epoch)))

    callback = stopping(monitor="late", patience=2)
    run, _ = fit([1] * 9, callback, module=Late(1), limit_val_batches=0)
    assert run.current_epoch == 3


def test_pickling_keeps_everything():
    callback = stopping(patience=5, folder="somewhere")
    assert vars(pickle.loads(pickle.dumps(callback))) == vars(callback)


def test_fast_dev_run_checks_nothing():
    callback = stopping(monitor="missing")
    fit([1], callback, fast_dev_run=True)
    assert checks(callback) == 0


def test_a_metric_that_may_be_missing():
    callback = stopping(monitor="missing", strict=False)
    run, _ = fit([1, 2, 3], callback)
    assert run.current_epoch == 3
    with pytest.warns(RuntimeWarning, match="got 'missing'; available: 'train_loss', 'val_loss'"):
        fit([1], stopping(monitor="missing", strict=False, verbose=True))


def test_improvements_and_the_reason_are_reported_on_request(monkeypatch):
    lines = []
    log = logging.getLogger("lightning.pytorch.callbacks.early_stopping")
    monkeypatch.setattr(log, "info", lines.append)
    fit([5, 3, 4], stopping(patience=1, verbose=True))
    assert lines == [
        "Metric val_loss improved. New best score: 5.000",
        "Metric val_loss improved by 2.000 >= min_delta = 0.0. New best score: 3.000",
        "val_loss did not improve for 1 check",
    ]


# Bad input.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patience": -1}, "`patience` must be an integer >= 0, got -1"),
        ({"patience": 1.5}, "`patience`"),
        ({"patience_unit": "check"}, "Did you mean 'checks'"),
        ({"min_delta": -0.1}, "`min_delta` must be >= 0"),
        ({"stall": "none"}, "`stall`"),
        ({"warmup_checks": -1}, "`warmup_checks`"),
        ({"warmup_steps": -1}, "`warmup_steps`"),
        ({"rising_checks": 0}, "`rising_checks`"),
        ({"oscillation_window": 3}, "`oscillation_window`"),
        ({"oscillation_amplitude": -1}, "`oscillation_amplitude`"),
        ({"check_every_n_steps": 0}, "`check_every_n_steps`"),
        ({"monitor": []}, "`monitor` must be"),
        ({"monitor": ["a", "a"]}, "`monitor` must be"),
        ({"monitor": ["a", "b"], "mode": ["min"]}, "`mode` must be"),
    ],
)
def test_an_argument_that_breaks_its_rule(settings, words):
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        stopping(**settings)
    assert str(caught.value).count("\n") == 0


def test_an_unknown_mode_is_refused_in_lightnings_words():
    with pytest.raises(MisconfigurationException, match="`mode` can be"):
        stopping(mode="least")


def test_an_unknown_mode_of_a_further_metric_is_refused_too():
    with pytest.raises(
        InvalidArgumentError, match=r"`mode` must be one of 'min', 'max', got 'mix'"
    ):
        stopping(monitor=["a", "b"], mode=["min", "mix"])


def test_repr_shows_what_was_given_and_makes_the_same_callback():
    callback = stopping(monitor=["a", "b"], mode=["min", "max"], patience=5, warmup_checks=2)
    assert repr(callback) == (
        "BestWeightsEarlyStopping(monitor=['a', 'b'], patience=5, mode=['min', 'max'],"
        " warmup_checks=2)"
    )
    assert eval(repr(callback)).options == callback.options


def test_a_missing_metric_is_told_with_those_that_there_are():
    with pytest.raises(ConflictError, match=r"got 'val_los'.*'val_loss'.*Did you mean 'val_loss'"):
        fit([1, 2], stopping(monitor="val_los"))


# Beyond Lightning: when to stop.


def test_a_burn_in_counts_nothing_against_the_metric():
    values = [1, 5, 5, 5, 5, 5, 5, 5]
    assert fit(values, stopping(patience=2))[0].current_epoch == 3
    assert fit(values, stopping(patience=2, warmup_checks=3))[0].current_epoch == 5
    assert fit(values, stopping(patience=2, warmup_steps=13))[0].current_epoch == 5


@pytest.mark.parametrize(("unit", "patience"), [("checks", 4), ("epochs", 2), ("steps", 8)])
def test_patience_in_checks_epochs_and_steps(unit, patience):
    callback = stopping(patience=patience, patience_unit=unit)
    run, _ = fit([9, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8], callback, val_check_interval=2)
    assert (run.current_epoch, run.global_step) == (3, 12)
    assert f"for {patience} {unit}" in callback.stopping_reason_message


def test_checks_within_an_epoch():
    callback = stopping(monitor="train_loss", patience=1, check_every_n_steps=3)
    run, _ = fit([1] * 50, callback, module=Regression(1, lr=0.0), max_epochs=50)
    assert checks(callback) == run.global_step // 3
    assert callback.stop_reason == "patience"


@pytest.mark.parametrize(
    ("relative", "expected"),
    [(True, 4), (False, 6)],
)
def test_a_relative_margin_of_a_negative_metric(relative, expected):
    # Each value is 5 % better than the first; as a fraction 0.1 is not met, as a number it is.
    values = [-10, -10.4, -10.8, -10.9, -11.2, -11.3]
    settings = {"patience": 3, "min_delta": 0.1, "relative_min_delta": relative}
    assert fit(values, stopping(**settings))[0].current_epoch == expected


@pytest.mark.parametrize(("stall", "expected"), [("any", 4), ("all", 6)])
def test_several_metrics(stall, expected):
    accuracy = [1, 2, 3, 4, 4, 4, 4, 4]
    losses = [5, 4, 4, 4, 4, 4, 4, 4]
    values = [{"loss": a, "accuracy": b} for a, b in zip(losses, accuracy, strict=True)]
    callback = stopping(monitor=["loss", "accuracy"], mode=["min", "max"], patience=2, stall=stall)
    run, module = fit(values, callback)
    assert run.current_epoch == expected
    assert same(tensors(module), module.validated[1])  # the first metric decides which are best


def test_a_metric_that_rises():
    callback = stopping(patience=9, rising_checks=3)
    run, _ = fit([5, 1, 2, 1.5, 1.6, 1.7, 1.8, 1.9], callback)
    assert run.current_epoch == 7
    assert callback.stop_reason == "rising"
    assert "val_loss rose for 3 checks in a row" in callback.summary


def test_a_metric_that_should_rise_and_falls():
    callback = stopping(mode="max", patience=9, rising_checks=2)
    run, _ = fit([1, 5, 4, 3, 2], callback)
    assert run.current_epoch == 4
    assert "val_loss fell for 2 checks in a row" in callback.summary


def test_a_metric_that_oscillates():
    callback = stopping(patience=99, oscillation_window=6)
    run, _ = fit([9, 5, 3, *[2, 1.5] * 8], callback)
    assert callback.stop_reason == "oscillation"
    assert "swung around" in callback.summary
    assert 6 < run.current_epoch < 14


def test_a_falling_metric_never_oscillates():
    callback = stopping(patience=99, oscillation_window=6)
    run, _ = fit([10 * 0.8**i for i in range(12)], callback)
    assert run.current_epoch == 12
    assert callback.stop_reason == ""


def test_a_stop_before_the_minimum_of_epochs_is_withdrawn_when_the_metric_recovers():
    values = [5, 6, 7, 4, 3, 2, 1, 0.5]
    lightnings, _ = fit(values, EarlyStopping("val_loss", patience=2), min_epochs=5)
    callback = stopping(patience=2)
    ours, _ = fit(values, callback, min_epochs=5)
    assert lightnings.current_epoch == 5  # it remembers for ever
    assert ours.current_epoch == 8
    assert callback.stop_reason == ""
    assert callback.stopped_epoch == 0


@pytest.mark.parametrize("minimum", [{"min_epochs": 6}, {"min_steps": 22}])
def test_a_stop_that_still_holds_comes_as_soon_as_the_minimum_allows(minimum):
    callback = stopping(patience=2)
    run, _ = fit([5, *[6] * 9], callback, **minimum)
    assert run.global_step == (24 if "min_epochs" in minimum else 22)
    assert callback.stop_reason == "patience"


def test_it_never_takes_back_a_stop_that_others_asked_for():
    class Other(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1

    run, _ = fit([5, 6, 7, 4, 3, 2, 1], Other(), stopping(patience=1), min_epochs=4)
    assert run.current_epoch == 4


def test_nothing_but_nan_stops_with_its_own_reason():
    callback = stopping(patience=3, check_finite=False)
    run, module = fit([NAN] * 9, callback)
    assert run.current_epoch == 3
    assert callback.stop_reason == "never_finite"
    assert "val_loss was not finite in any of 3 checks" in callback.summary
    assert same(tensors(module), module.validated[-1])


def test_a_nan_between_good_values_counts_as_no_improvement_and_poisons_nothing():
    callback = stopping(patience=3, check_finite=False)
    run, module = fit([5, NAN, 4, NAN, NAN, 3, NAN, NAN, NAN, 1], callback)
    assert run.current_epoch == 9
    assert same(tensors(module), module.validated[5])


# Beyond Lightning: the best weights.


@pytest.mark.parametrize("values", [[5, 3, 4, 4, 4], [5, 3, 4], [5, 4, 3]])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_best_weights_and_buffers_come_back(values, on_disk, tmp_path):
    callback = stopping(patience=2, folder=str(tmp_path / "best") if on_disk else None)
    _, module = fit(values, callback)
    assert same(tensors(module), module.validated[values.index(3)])
    assert not list((tmp_path / "best").glob("*"))


def test_a_value_that_reaches_the_threshold_is_the_best():
    _, module = fit([5, 4, 1, 9], stopping(stopping_threshold=2))
    assert same(tensors(module), module.validated[2])


def test_the_last_weights_stay_on_request():
    _, module = fit([5, 3, 4, 4], stopping(patience=2, restore_best=False))
    assert same(tensors(module), module.validated[3])


def test_in_memory_nothing_is_written(tmp_path):
    fit([5, 3, 4, 4], stopping(patience=2), default_root_dir=tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_the_copy_is_made_only_when_the_metric_improves(monkeypatch):
    from lightning_stab.callbacks.stopping.best_weights import BestWeights

    kept = []
    keep = BestWeights.store
    monkeypatch.setattr(
        BestWeights, "store", lambda s, t: (kept.append(t.current_epoch), keep(s, t))
    )
    fit([5, 4, 4, 3, 4, 5], stopping(patience=9))
    assert kept == [0, 1, 3]


def test_memory_and_files_are_freed_at_the_end_and_after_an_exception(tmp_path):
    class Breaks(Regression):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise RuntimeError("broken")

    callback = stopping(folder=str(tmp_path))
    with pytest.raises(RuntimeError, match="broken"):
        fit([5, 4, 3], callback, module=Breaks(5, 4, 3))
    assert not callback._weights
    assert not list(tmp_path.iterdir())


def test_it_does_not_change_the_run_before_it_ends():
    plain, with_it = Regression(5, 4, 3), Regression(5, 4, 3)
    fit([5, 4, 3], module=plain)
    fit([5, 4, 3], stopping(), module=with_it)
    assert all(same(a, b) for a, b in zip(plain.validated, with_it.validated, strict=True))


def test_a_new_run_begins_with_a_clean_record():
    callback = stopping(patience=2)
    fit([0.1, 0.2, 0.3], callback)
    _, module = fit([5, 4, 6, 7, 8], callback)
    assert same(tensors(module), module.validated[1])
    assert callback.best_position.check == 2


def test_a_run_after_one_that_was_stopped_survives_its_sanity_check():
    callback = stopping(patience=1)
    for _ in range(2):
        run, _ = fit([5, 4, 6, 7], callback, num_sanity_val_steps=1)
        assert run.current_epoch == 3


def test_when_to_check_is_decided_for_each_trainer():
    callback = stopping(patience=99)
    fit([1] * 2, callback)
    assert checks(callback) == 2
    fit([1] * 4, callback, max_epochs=2, val_check_interval=2)
    assert checks(callback) == 4


def test_two_on_one_metric_coexist():
    quick, slow = stopping(patience=2, restore_best=False), stopping(patience=4)
    assert trainer(quick, slow).early_stopping_callbacks == [quick, slow]
    run, module = fit([5, 3, 4, 4, 4, 4, 4, 4], quick, slow)
    assert run.current_epoch == 4
    assert quick.state_key != slow.state_key
    assert same(tensors(module), module.validated[1])


def test_the_sentence_is_logged(tmp_path):
    callback = stopping(patience=2)
    fit([5, 3, 4, 4, 4], callback, logger=TensorBoardLogger(tmp_path, name=""))
    assert callback.summary == (
        "Stopped after check 4 (epoch 4, step 16): val_loss did not improve for 2 checks; the best "
        "was check 2 (epoch 2, step 8) with val_loss = 3, whose weights and buffers were restored."
    )
    events = EventAccumulator(str(next(tmp_path.iterdir()))).Reload()
    assert events.Scalars("stopping/best")[0].value == 3
    assert events.Scalars("stopping/best_step")[0].value == 8
    tensor = events.Tensors("stopping/summary/text_summary")[0].tensor_proto
    assert tensor.string_val[0].decode() == callback.summary


def test_why_a_run_ended_is_said_once_and_in_one_sentence(monkeypatch):
    said = []
    monkeypatch.setattr(best_weights_early_stopping, "say", lambda _, text, **__: said.append(text))
    for values in ([5, 3, 4, 4, 4], [5, 4]):
        callback = stopping(patience=2)
        fit(values, callback)
        assert said.pop() == callback.summary
        assert said == []


def test_a_run_that_ends_by_itself_says_so():
    callback = stopping()
    fit([5, 4, 3], callback)
    assert callback.summary.startswith(
        "The run ended by itself after 3 checks; the best was check 3"
    )


@pytest.mark.parametrize(
    ("mode", "values"), [("min", [5, 4.9, 4.2, 4.1, 4.1]), ("max", [5, 5.1, 5.8, 5.9, 5.9])]
)
def test_what_can_be_read_of_it_is_what_can_be_read_of_lightnings_class(mode, values):
    given = {"mode": mode, "min_delta": 0.5, "patience": 2}
    ours, lightnings = stopping(**given), EarlyStopping("val_loss", **given)
    fit(values, ours)
    fit(values, lightnings)
    for name in ("best_score", "min_delta", "mode", "monitor", "patience", "stopped_epoch",
                 "stopping_reason", "wait_count"):  # fmt: skip
        assert getattr(ours, name) == getattr(lightnings, name), name
    assert (ours.best_score, ours.wait_count) == (values[2], 2)
