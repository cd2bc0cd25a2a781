"""The suite on a GPU: is it right in every regime, and what does it cost? Five minutes at most.

    python -m benchmarks.gpu.check [--small] [--only costs] [--limit 290] [--json gpu.json]

Its regimes: runs that are watched or guarded end like those that are not, bit for bit, and a
batch that is skipped leaves no trace. Then the waits for the device in single steps; the cost of a
step of a language model of 124 million parameters, side by side in one process; initialisation and
the gradient check. What is not there (a GPU, TensorBoard, a compiler) is left out, and what there
is no time for is said. The code is 1 if a regime is wrong. `--small` takes a minute on a CPU.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import lightning
import torch

from benchmarks import _script
from benchmarks.gpu import costs, regimes, sizes
from benchmarks.gpu.nets import GPT, device, mlp, tokens

TINY = {"layers": 2, "width": 32, "heads": 2, "context": 16, "vocabulary": 128}
PARTS = {
    "regimes": ["regimes"],
    "costs": [
        "waits for the device in a step",
        "waits for the device, batch normalisation",
        "cost of a step",
    ],
    "init": ["initialisation", "gradient check"],
}
FEW = {"layers": 8, "width": 256, "heads": 4, "context": 64, "vocabulary": 1024}


def main(argv: list[str] | None = None) -> int:
    """Run everything, print the tables, and say by the code whether the regimes are right."""
    began = time.perf_counter()
    parser = _script.parser(__doc__)
    parser.add_argument("--limit", type=float, default=290.0, help="seconds, 290 by default")
    parser.add_argument("--only", choices=sorted(PARTS), help="one group of the parts")
    options = parser.parse_args(argv)
    small, kind = options.small, device().type
    name = torch.cuda.get_device_name() if kind == "cuda" else "CPU"
    results: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": sys.version.split()[0],
    }
    print(*results.values(), sep=", ", flush=True)

    def left(share: float) -> Callable[[], float]:
        return lambda: began + share * options.limit - time.perf_counter()

    settings: dict[str, int] = TINY if small or kind == "cpu" else {}
    few = TINY if small else FEW
    with _script.silence():
        data = tokens(4, 2 if small else 16, few["context"], few["vocabulary"])
        large = data if settings else tokens(8, 8, 512, 50304)
        turns, steps = (1, 64) if small else (6, 24)
        parts: list[tuple[str, Callable[[], list[dict[str, Any]]]]] = [
            ("waits for the device in a step", lambda: costs.wait_rows(lambda: GPT(**few), data)),
            (
                "waits for the device, batch normalisation",
                lambda: costs.wait_rows(lambda: mlp(64, 3, 64), _features(64)),
            ),
            (
                "cost of a step",
                lambda: costs.cost_rows(lambda: GPT(**settings), large, turns, steps, left(0.45)),
            ),
            ("initialisation", lambda: sizes.size_rows(settings, 2 if small else 8)),
            ("gradient check", lambda: sizes.check_rows(64 if small else 512)),
            ("regimes", lambda: _regimes(24 if small else 47, left(1.0))),
        ]
        chosen = PARTS.get(options.only, [title for title, _ in parts])
        for title, measure in ((t, m) for t, m in parts if t in chosen):
            results[title] = _part(title, measure)
            results.setdefault("seconds", {})[title] = time.perf_counter() - began
            _script.write_json(options.json, results)  # also where the rest is cut off
    tried = results.get("regimes", [])
    print(f"{time.perf_counter() - began:.0f} s")
    wrong = [row for row in tried if set(row.values()) - {row["regime"], *ALLOWED}]
    return int(bool(wrong) or ("regimes" in chosen and not tried))


ALLOWED = ("ok", "no time")


def _regimes(num: int, left: Callable[[], float]) -> list[dict[str, Any]]:
    if device().type == "cuda":  # kernels that add in the same order each time
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    return regimes.rows(num, left)


def _features(inputs: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, inputs, generator=generator).to(device())
    return [(each, each[:, :10].argmax(-1)) for each in x]


def _part(title: str, measure: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    try:
        rows = measure()
    except Exception as error:  # the other parts are to be seen all the same
        traceback.print_exc()
        rows = [{"error": f"{type(error).__name__}: {error}"[:300]}]
    if rows:
        keys = list(dict.fromkeys(key for row in rows for key in row))
        _script.print_table([{key: row.get(key, "") for key in keys} for row in rows], title, 150)
    else:
        print(f"{title}: needs a GPU")
    sys.stdout.flush()
    return rows


if __name__ == "__main__":
    # before the device is used: cuBLAS adds in the same order each time
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sys.exit(main())
