"""The global random states: taken, put back, and never consumed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_DEVICES = ("cuda", "xpu")


def get_random_states() -> dict[str, Any]:
    """Return the states of the global random generators: Python, NumPy, torch on every device.

    NumPy's only where it has been imported: nobody has drawn from it otherwise.
    """
    states: dict[str, Any] = {"python": random.getstate(), "cpu": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state()
    for device in _DEVICES:
        if getattr(torch, device).is_available():
            states[device] = getattr(torch, device).get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put the global random generators back to ``states``."""
    random.setstate(states["python"])
    torch.set_rng_state(states["cpu"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    for device in _DEVICES:
        if device in states:
            getattr(torch, device).set_rng_state_all(states[device])
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])


@contextmanager
def preserve_random_states() -> Iterator[dict[str, Any]]:
    """Leave every global random generator as it was, also when the body raises.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserve_random_states():
        ...     _ = torch.rand(3)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    states = get_random_states()
    try:
        yield states
    finally:
        set_random_states(states)
