#!/usr/bin/env python3
"""The lesson's eight claims about deep networks that fail to train, as measured results.

    python -m examples.lesson.run                 about four minutes on two cores
    python -m examples.lesson.run --small         under a minute

Writes lesson.png, lesson.json and TensorBoard runs into the output folder, prints a table, and
ends with status 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from examples.lesson import (
    batch_norm,
    decay_and_stop,
    depth,
    input_dimension,
    learning_rates,
    own_net,
    quartic,
    wrong_backward,
)
from examples.lesson.figure import save_figure
from examples.lesson.lab import Lab
from examples.lesson.results import Claim
from examples.lesson.table import print_table

CLAIMS = (
    quartic,
    depth,
    wrong_backward,
    decay_and_stop,
    input_dimension,
    learning_rates,
    own_net,
    batch_norm,
)


ADVICE = (  # of Lightning, which tiny data and a missing validation set always earn
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*no `val_dataloader`.*",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the claims that were asked for; return 0 if all of them hold."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150)
    options.out.mkdir(parents=True, exist_ok=True)
    lab = Lab(options.out, options.small)
    claims = []
    with quiet():
        for number in options.claim or range(1, len(CLAIMS) + 1):
            shutil.rmtree(options.out / "runs" / f"claim-{number}", ignore_errors=True)
            started = time.perf_counter()
            claims.append(CLAIMS[number - 1].run(lab))
            seconds = time.perf_counter() - started
            console.print(f"{claims[-1].title}: {seconds:.0f} s", style="dim")
    print_table(claims, console)
    picture = options.out / "lesson.png"
    save_figure(claims, picture)
    write_json(claims, options.json or options.out / "lesson.json")
    failed = [row.case for claim in claims for row in claim.rows if not row.holds]
    console.print(f"Picture: {picture}\nTensorBoard: tensorboard --logdir {options.out / 'runs'}")
    console.print(f"Not borne out: {'; '.join(failed)}" if failed else "All claims hold.")
    return 1 if failed else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/lesson"), help="output folder")
    parser.add_argument("--json", type=Path, help="where the numbers go; <out>/lesson.json")
    parser.add_argument("--small", action="store_true", help="smaller nets and fewer epochs")
    parser.add_argument(
        "--claim", type=int, action="append", choices=range(1, 9), help="only this one (repeatable)"
    )
    return parser.parse_args(arguments)


@contextmanager
def quiet() -> Iterator[None]:
    """Let the Trainer say only what went wrong, for as long as the lesson runs."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, threads = [logger.level for logger in loggers], torch.get_num_threads()
    torch.set_num_threads(1)  # the nets are small: more threads only wait for each other
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for advice in ADVICE:
            warnings.filterwarnings("ignore", message=advice)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def write_json(claims: list[Claim], path: Path) -> None:
    """Write all numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([claim.as_dict() for claim in claims], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
