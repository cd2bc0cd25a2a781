"""The exceptions of the suite.

::

    StabError
    ├── InvalidArgumentError  (also a ValueError)    an argument breaks its rule
    ├── ConflictError         (also a RuntimeError)  two settings would fight, or cannot work here
    ├── DatasetError          (also a RuntimeError)  a data file is missing or damaged
    ├── UnstableStepError     (also a RuntimeError)  a training step is not worth taking
    └── GradientCheckError    (also a RuntimeError)  a backward pass disagrees with its forward

Each message names the argument or the place, the rule, what was got, and what to do.
"""

from __future__ import annotations


class StabError(Exception):
    """Base of everything that the suite raises on purpose."""


class InvalidArgumentError(StabError, ValueError):
    """An argument breaks its rule; raised where the object is constructed."""


class ConflictError(StabError, RuntimeError):
    """Two settings would fight, or a feature cannot work here; raised before the first step."""


class DatasetError(StabError, RuntimeError):
    """A data file is missing, truncated or not what its header says."""


class UnstableStepError(StabError, RuntimeError):
    """A training step has a non-finite or wildly large loss or gradient."""


class GradientCheckError(StabError, RuntimeError):
    """A backward pass disagrees with the numerical derivative of its forward pass."""
