"""The tiers of tests: what runs in the gate, in `scripts/nightly --ci`, and at full size alone."""

import pytest

FULL = (pytest.mark.nightly, pytest.mark.full)


def in_tiers(values, gate, ci=None):
    """Return the cases of a parametrised test, of which those in ``gate`` run in the gate.

    Args:
        values: all of them, each its own id.
        gate: those that differ most from each other; the others are marked ``nightly``.
        ci: those of the others that `scripts/nightly --ci` runs; None for all of them.
    """
    values = list(values)
    assert {*gate, *(ci or ())} < set(values), "a case of a tier does not exist"

    def marks(value):
        if value in gate:
            return ()
        return pytest.mark.nightly if ci is None or value in ci else FULL

    return [pytest.param(value, id=str(value), marks=marks(value)) for value in values]
