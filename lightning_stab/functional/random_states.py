"""The global random states: taken, put back, and never consumed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global random generators."""
    states: dict[str, Any] = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put the global random generators back to ``states``."""
    random.setstate(states["python"])
    torch.set_rng_state(states["cpu"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def kept_random_states() -> Iterator[dict[str, Any]]:
    """Leave every global random generator as it was, also when the body raises.

    Example:
        >>> before = torch.get_rng_state()
        >>> with kept_random_states():
        ...     _ = torch.rand(3)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    states = random_states()
    try:
        yield states
    finally:
        set_random_states(states)
