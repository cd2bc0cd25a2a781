"""Initialisation and the gradient check of large nets: seconds, and memory at the peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.nets import GPT, Task, device, mlp, synchronize, tokens
from lightning_stab import check_gradients, initialize

SAMPLES = 64  # of a forward pass with which the memory is compared


def size_rows(settings: dict[str, int], samples: int) -> list[dict[str, Any]]:
    """Return rows of initialisation.

    Args:
        settings: those of the language model.
        samples: of the batch.
    """
    torch.manual_seed(0)
    with torch.device(device()):
        net = GPT(**settings)
    task = Task(net, keeps=False)
    context = settings.get("context", 512)
    batch = tokens(1, samples, context, settings.get("vocabulary", 50304))[0]
    weights = [p for p in net.parameters() if p.ndim > 1]

    def forward() -> None:
        with torch.no_grad():
            task.training_step([t[:SAMPLES] for t in batch], 0)

    ways: list[tuple[str, Callable[[], Any]]] = [
        ("a forward pass", forward),
        ("xavier_uniform_ of each weight", lambda: [nn.init.xavier_uniform_(w) for w in weights]),
        ("initialize, auto", lambda: initialize(task, batch)),
        ("initialize, auto, again", lambda: initialize(task, batch)),
        ("initialize, auto, no batch", lambda: initialize(task)),
        ("initialize, orthogonal", lambda: initialize(task, batch, "orthogonal")),
    ]
    return [{"what": name, **_measured(act)} for name, act in ways]


def check_rows(width: int) -> list[dict[str, Any]]:
    """Return a row of the gradient check of a net, in steps of AdamW."""
    torch.manual_seed(0)
    task = Task(mlp(width, 4, 64, norm=False).to(device()), keeps=False)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 64, generator=generator).to(device())
    batch = [inputs, inputs[:, :10].argmax(-1)]
    step = _steps(task, batch)
    check_gradients(task, batch)
    found = _measured(lambda: check_gradients(task, batch))
    return [{"what": "check_gradients", **found, "AdamW_steps": found["seconds"] / step}]


def _steps(task: Task, batch: Sequence[Any], num: int = 50) -> float:
    optimizer = torch.optim.AdamW(task.parameters(), 1e-9)

    def step() -> None:
        optimizer.zero_grad()
        task.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(5):
        step()
    return float(_measured(lambda: [step() for _ in range(num)])["seconds"]) / num


def _measured(act: Callable[[], Any]) -> dict[str, float]:
    synchronize()
    on_gpu, before = device().type == "cuda", 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    act()
    synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else 0
    return {"seconds": seconds, "peak_MiB": peak / 2**20}
