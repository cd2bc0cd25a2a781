"""What a callback was asked for: shown by its `repr`, kept unchanged, readable as attributes."""

import math
from dataclasses import fields
from functools import partial

import pytest

from lightning_stab import (
    ActivationMonitor,
    BestWeightsEarlyStopping,
    GradientCheck,
    GradientClipping,
    GradientMonitor,
    LearningRateDecay,
    StabilityReport,
    StepGuard,
    TrainingDoctor,
    WeightInitialization,
)
from lightning_stab.data import DigitsDataModule, MNISTDataModule
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.gradcheck.check import CheckSettings
from lightning_stab.models import ConvClassifier, MLPClassifier

CALLBACKS = {each.__name__: each for each in (GradientClipping, GradientMonitor, StepGuard)}
CALLS = [
    "GradientClipping()",
    "GradientClipping(rule='adaptive', exclude=('head.*', '*.bias'), exclude_output=False)",
    "GradientClipping(threshold={0: 10.0, 1000: 1.0}, per_parameter_group=True)",
    "GradientClipping(rule='history', threshold=25, method='percentile', every_n_steps=10)",
    "GradientMonitor()",
    "GradientMonitor(every_n_steps=10, dense_steps=0, per_parameter=('net.*',))",
    "GradientMonitor(statistics=('rms',), histogram_every_n_steps=5, progress_bar=True)",
    "StepGuard()",
    "StepGuard(on_nonfinite='skip', on_spike='rewind', deviations=5, lr_factor=0.1)",
    "StepGuard(window=32, min_window=16, forensics=True)",
]


@pytest.mark.parametrize("call", CALLS)
def test_the_repr_is_the_call(call):
    callback = eval(call, CALLBACKS)
    assert repr(callback) == call
    assert eval(repr(callback), CALLBACKS).options == callback.options


@pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS)
def test_options_are_read_as_attributes_and_never_written(make):
    callback = make()
    for field in fields(callback.options):
        if (make, field.name) != (GradientClipping, "threshold"):  # read with its default filled in
            assert getattr(callback, field.name) == getattr(callback.options, field.name)
        with pytest.raises(AttributeError):
            setattr(callback, field.name, None)
        with pytest.raises(AttributeError):
            setattr(callback.options, field.name, None)


STOPPING = partial(BestWeightsEarlyStopping, "val_loss")
JUST_ABOVE_0, JUST_BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)
JUST_ABOVE_1 = math.nextafter(1, 2)
# the least and the greatest number that is taken, None where there is no bound; an integer's
# neighbours are refused, and of a real number the very next ones
LIMITS = [
    *((make, name, 1, None) for make, names in {
        ActivationMonitor: ("every_n_steps", "window"),
        GradientMonitor: ("every_n_steps", "histogram_every_n_steps"),
        GradientClipping: ("every_n_steps",),
        TrainingDoctor: ("every_n_steps",),
        StepGuard: ("max_consecutive", "rewind_after", "snapshot_every_n_steps"),
        GradientCheck: ("every_n_epochs", "num_directions", "coordinates", "max_samples"),
        STOPPING: ("rising_checks", "check_every_n_steps"),
        LearningRateDecay: ("every", "growth", "patience", "check_every_n_steps"),
        MLPClassifier: ("in_features", "depth", "width"),
        ConvClassifier: ("in_channels", "depth", "width"),
        DigitsDataModule: ("batch_size",),
        MNISTDataModule: ("batch_size",),
    }.items() for name in names),
    *((make, name, 0, None) for make, names in {
        GradientMonitor: ("dense_steps",),
        StabilityReport: ("every_n_epochs",),
        GradientCheck: ("seed",),
        WeightInitialization: ("seed",),
        STOPPING: ("patience", "warmup_checks", "warmup_steps"),
        LearningRateDecay: ("warmup_steps",),
        DigitsDataModule: ("seed", "num_workers"),
        MNISTDataModule: ("seed", "num_workers"),
    }.items() for name in names),
    (StepGuard, "window", 64, None),  # the least window holds `min_window`
    (StepGuard, "min_window", 2, 128),
    (STOPPING, "oscillation_window", 4, None),
    (LearningRateDecay, "window", 4, None),
    (MLPClassifier, "num_classes", 2, None),
    *((make, name, 0.0, None) for make, names in {
        StepGuard: ("loss_jump",),
        STOPPING: ("min_delta", "oscillation_amplitude"),
        LearningRateDecay: ("min_delta", "amplitude", "ceiling"),
        MLPClassifier: ("weight_decay",),
    }.items() for name in names),
    *((make, name, JUST_ABOVE_0, None) for make, names in {
        StepGuard: ("deviations",),
        GradientClipping: ("threshold",),
        WeightInitialization: ("gain", "embedding_std"),
        LearningRateDecay: ("power",),
        MLPClassifier: ("learning_rate",),
    }.items() for name in names),
    (StepGuard, "gradient_factor", 1.0, None),
    (StepGuard, "early_factor", JUST_ABOVE_1, None),
    (StepGuard, "lr_factor", JUST_ABOVE_0, 1.0),
    (LearningRateDecay, "gamma", JUST_ABOVE_0, JUST_BELOW_1),
    (LearningRateDecay, "floor", 0.0, 1.0),
    (LearningRateDecay, "smoothing", 0.0, JUST_BELOW_1),
    (MLPClassifier, "dropout", 0.0, JUST_BELOW_1),
    (MLPClassifier, "momentum", 0.0, JUST_BELOW_1),
    (CheckSettings, "tolerance", 1e-10, 1e-2),
    (DigitsDataModule, "val_fraction", JUST_ABOVE_0, math.nextafter(0.85, 0)),
    (DigitsDataModule, "test_fraction", JUST_ABOVE_0, math.nextafter(0.85, 0)),
    (MNISTDataModule, "val_fraction", JUST_ABOVE_0, JUST_BELOW_1),
]  # fmt: skip


def name_of(value):
    return getattr(value, "__name__", "BestWeightsEarlyStopping") if callable(value) else None


@pytest.mark.parametrize(("make", "argument", "least", "greatest"), LIMITS, ids=name_of)
def test_the_limits_of_an_argument_are_taken_and_what_is_beyond_is_refused(
    make, argument, least, greatest
):
    for limit, beyond in ((least, -math.inf), (greatest, math.inf)):
        if limit is None:
            continue
        step = 1 if type(limit) is int else None
        outside = limit + math.copysign(step, beyond) if step else math.nextafter(limit, beyond)
        make(**{argument: limit})
        with pytest.raises(InvalidArgumentError, match=f"`{argument}`|fraction"):
            make(**{argument: int(outside) if step else outside})
    wrong = ["a", True, math.nan] if type(least) is int else ["a", True, math.nan, math.inf]
    for value in wrong:
        with pytest.raises(InvalidArgumentError, match=argument):
            make(**{argument: value})
