"""The two tiers of tests: what runs in the gate, and what waits for the long tests."""

import pytest


def in_tiers(values, gate):
    """Return the cases of a parametrised test, of which those in ``gate`` run in the gate.

    Args:
        values: all of them, each its own id.
        gate: those that differ most from each other; the others are marked ``nightly``.
    """
    values = list(values)
    assert set(gate) < set(values), "a case of the gate does not exist"
    return [
        pytest.param(value, id=str(value), marks=() if value in gate else pytest.mark.nightly)
        for value in values
    ]
