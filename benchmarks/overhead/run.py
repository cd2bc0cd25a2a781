"""What watching, clipping and guarding cost: tables on the terminal, and `--json FILE`.

All ways of training run in one process and take turns of 50 steps, in a new random order each
round. A figure is the median over rounds of the difference to a step of plain Lightning, in CPU
time of the whole process. The row `nothing, again` shows the noise of the method itself.

    python -m benchmarks.overhead.run [--rounds 24] [--steps 50] [--small] [--json overhead.json]

Peers are in the table where they are installed: `pip install wandb smartclip`.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import torch

from benchmarks import _script
from benchmarks.overhead.contenders import contenders
from benchmarks.overhead.rounds import added_seconds, run_rounds
from benchmarks.overhead.scaling import scaling_rows
from benchmarks.overhead.subjects import subjects


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its tables."""
    parser = _script.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=24, help="counted turns of each way")
    parser.add_argument("--steps", type=int, default=50, help="of a turn")
    parser.add_argument("--subject", choices=["MLP", "transformer"], action="append")
    options = parser.parse_args(argv)
    rounds, steps = (10, 5) if options.small else (options.rounds, options.steps)
    results: dict[str, Any] = {"rounds": rounds, "steps": steps, "torch": torch.__version__}
    with _script.silence():
        for name in options.subject or ["MLP", "transformer"]:
            share = steps if name == "MLP" else max(1, steps // 5)
            results[name] = _subject_rows(name, rounds, share, options.small)
            title = f"{name}: added to a step, median of {rounds} paired turns of {share} steps"
            _script.print_table(results[name], title)
        counts = [10, 100] if options.small else [10, 100, 1000, 5000]
        results["scaling"] = scaling_rows(counts, [64, 4096], repeats=5 if options.small else 41)
    title = "measure and clip by norm, beside torch's clip_grad_norm_"
    _script.print_table(results["scaling"], title)
    _script.write_json(options.json, results)
    return 0


def _subject_rows(name: str, rounds: int, steps: int, small: bool) -> list[dict[str, Any]]:
    make_net, batches = subjects(small)[name]
    everyone = contenders(make_net, batches)
    run_rounds(everyone, rounds, warmup=3 if small else 20, steps=steps)
    base = everyone[0]
    step = statistics.median(base.seconds)
    added = {c.name: added_seconds(c, base, steps) for c in everyone}
    clip = added["torch clip_grad_norm_"]
    return [
        {
            "way": way,
            "added_us": seconds * 1e6,
            "percent_of_step": 100 * seconds / step,
            "times_torch_clip": seconds / clip,
        }
        for way, seconds in added.items()
        if way != base.name
    ] + [{"way": "a step of plain Lightning", "added_us": step * 1e6}]


if __name__ == "__main__":
    sys.exit(main())
