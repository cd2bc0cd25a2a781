"""What a callback was asked for: shown by its `repr`, kept unchanged, readable as attributes."""

from dataclasses import fields

import pytest

from lightning_stab import GradientClipping, GradientMonitor, StepGuard

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
