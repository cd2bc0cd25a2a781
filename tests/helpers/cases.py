"""Many small cases of one law as one test: pytest spends more on a case than most laws do."""

import inspect
from functools import wraps


def for_each(values, name=str):
    """Run a test once per value, a tuple's items as its arguments; a failure names its value.

    For laws that take milliseconds and need no state of pytest's per case; what of the test's
    arguments is left over is a fixture, shared by all cases. ``name`` turns a value into its name.
    """
    values = list(values)
    assert values, "a law without a case holds nothing"

    def decorate(test):
        arguments = list(inspect.signature(test).parameters.values())
        count = len(values[0]) if isinstance(values[0], tuple) else 1

        @wraps(test)
        def run(**fixtures):
            for value in values:
                try:
                    test(*(value if count > 1 else (value,)), **fixtures)
                except Exception as error:
                    error.add_note(f"The case: {name(value)}")
                    raise

        run.__signature__ = inspect.Signature(arguments[count:])
        return run

    return decorate
