"""How many operators a step dispatches beyond a bare one: on a GPU each is at least one kernel.

    python -m benchmarks.gpu.calls [--small] [--json calls.json]

Runs on a CPU, on a narrow net with as many tensors as the language model of 124 million parameters
and with the ways that a GPU and large tensors take. A fused call over many tensors counts once.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import _script
from benchmarks.gpu import costs
from benchmarks.gpu.nets import GPT, tokens
from lightning_stab.callbacks._trainer import device_values
from lightning_stab.functional import sampling

PLACES = {"quiet": 20, "after a logging step": 30, "logging": 29, "every 200th": 79}
FIRST, LAST = costs.START - 20, costs.START + 62


class Calls(TorchDispatchMode):
    """Counts operators by the step in which they are called."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.clock, self.steps = clock, dict[int, Counter[str]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a call."""
        step = self.clock.number
        self.steps.setdefault(step, Counter())[str(func._schema.name)] += 1
        return func(*args, **(kwargs or {}))


def count(make: Any, layers: int) -> dict[str, Counter[str]]:
    """Return the operators of single steps of one way of training, by the kind of the step."""
    net = {"layers": layers, "width": 16, "heads": 2, "context": 8, "vocabulary": 64}
    data = tokens(4, 8, 8, 64)
    with (
        mock.patch.object(device_values, "CPU_COUNTS_AS_DEVICE", True),
        mock.patch.object(sampling, "WHOLE", 2**10),
    ):
        calls = costs.calls_of(make, lambda: GPT(**net), data, Calls, FIRST, LAST)
    return {kind: calls.steps[FIRST + place] for kind, place in PLACES.items()}


def main(argv: list[str] | None = None) -> int:
    """Print a row for each way of training."""
    parser = _script.parser(__doc__)
    options = parser.parse_args(argv)
    layers = 1 if options.small else 12
    rows, found = [], {}
    with _script.silence():
        for name, make in costs.WAYS.items():
            found[name] = count(make, layers)
    for name, kinds in found.items():
        bare = found[costs.PLAIN]
        rows.append({"way": name, **{k: (c - bare[k]).total() for k, c in kinds.items()}})
    _script.print_table(rows, "operators beyond a bare step")
    _script.write_json(options.json, {"layers": layers, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
