"""The measurement: how much is found, how much is accused, what it costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gradcheck.corpus.case import Case
from benchmarks.gradcheck.corpus.gate import one_entry_of_many
from benchmarks.gradcheck.corpus.large import LARGE
from benchmarks.gradcheck.corpus.low_precision import low_precision_cases
from benchmarks.gradcheck.corpus.peers import passes_gradcheck
from benchmarks.gradcheck.corpus.right import right_cases
from benchmarks.gradcheck.corpus.wrong import wrong_cases
from lightning_stab import check_gradients

_ONE_IN = 12  # of the cases, in the small size
_ENTRIES = 12  # single entries of a large matrix that are zeroed, one at a time
_STEPS = 20  # of AdamW, to measure one
_MODES = ("tensor", "group", "model")


def measured(seeds: Sequence[int], *, small: bool) -> dict[str, Any]:
    """Return all numbers."""
    wrong, right = wrong_cases(), right_cases()
    every = _ONE_IN if small else 1
    result: dict[str, Any] = {
        "seeds": list(seeds),
        "num_wrong": len(wrong),
        "num_right": len(right),
        "num_operations": len({case.operation for case in wrong}),
        "check": _check_rates(wrong[::every], right[::every], seeds),
        "low_precision": [_low_precision(case, seeds) for case in low_precision_cases()],
    }
    if not small:
        result["gradcheck_fast"] = _peer_rates(wrong, right, seeds[0], fast=True)
        result["gradcheck_slow"] = _peer_rates(wrong, right, seeds[0], fast=False)
        result["one_entry"] = _one_entry(seeds[0])
        result["cost"] = [_cost(name, mode) for name in LARGE for mode in _MODES]
    return result


def _check_rates(
    wrong: Sequence[Case], right: Sequence[Case], seeds: Sequence[int]
) -> dict[str, Any]:
    start = time.process_time()
    outcomes = [(seed, case, _outcome(case, seed)) for seed in seeds for case in wrong]
    accused = [
        f"{case.name} (seed {seed})"
        for seed in seeds
        for case in right
        if not check_gradients(*case.build(seed), seed=seed).passed
    ]
    seconds = time.process_time() - start
    return {
        "wrong_tried": len(outcomes),
        "wrong_found": sum(found for _, _, (found, _, _) in outcomes),
        "function_named": sum(named for _, _, (_, named, _) in outcomes),
        "others_accused": sum(others for _, _, (_, _, others) in outcomes),
        "missed": [
            f"{case.name} (seed {seed})" for seed, case, (found, _, _) in outcomes if not found
        ],
        "right_tried": len(seeds) * len(right),
        "right_accused": len(accused),
        "accused": accused,
        "seconds_per_seed": seconds / len(seeds),
    }


def _outcome(case: Case, seed: int) -> tuple[bool, bool, bool]:
    """Return whether a wrong parameter was named, its Function too, and a right one accused."""
    truth = case.wrong_parameters(seed)
    report = check_gradients(*case.build(seed), seed=seed)
    hit = [record for record in report.wrong if record.name in truth]
    named = bool(hit) and all(record.function == case.function for record in hit)
    return bool(hit), named, len(hit) < len(report.wrong)


def _low_precision(case: Case, seeds: Sequence[int]) -> dict[str, Any]:
    reports = [check_gradients(*case.build(seed), seed=seed) for seed in seeds]
    return {
        "case": case.name,
        "tried": len(reports),
        "precision_limited": sum(
            report.passed
            and any(
                r.verdict == "precision-limited" and r.function == case.function
                for r in report.parameters
            )
            for report in reports
        ),
    }


def _peer_rates(
    wrong: Sequence[Case], right: Sequence[Case], seed: int, *, fast: bool
) -> dict[str, Any]:
    start = time.process_time()
    found = sum(not passes_gradcheck(case, seed, fast=fast) for case in wrong)
    accused = sum(not passes_gradcheck(case, seed, fast=fast) for case in right)
    return {
        "wrong_tried": len(wrong),
        "wrong_found": found,
        "right_tried": len(right),
        "right_accused": accused,
        "seconds_per_seed": time.process_time() - start,
    }


def _one_entry(seed: int) -> dict[str, Any]:
    size = 768 * 1024
    indices = [(2 * k + 1) * size // (2 * _ENTRIES) + 37 * k for k in range(_ENTRIES)]
    found = located = 0
    for index in indices:
        report = check_gradients(*one_entry_of_many(index).build(seed), seed=seed)
        hit = [record for record in report.wrong if record.name == "weight"]
        found += bool(hit)
        located += bool(hit) and hit[0].coordinate == (index // 1024, index % 1024)
    return {"tried": len(indices), "found": found, "located": located}


def _cost(name: str, mode: str) -> dict[str, Any]:
    """Return CPU time and forward passes of a check, in steps of AdamW in float32."""
    module, batch, loss = LARGE[name](0)
    step = _seconds_of_a_step(module, batch, loss)
    module, batch, loss = LARGE[name](0)
    start = time.process_time()
    report = check_gradients(module, batch, loss, mode=mode)
    seconds = time.process_time() - start
    return {
        "model": name,
        "mode": mode,
        "parameters": sum(p.numel() for p in module.parameters()),
        "tensors": len(report.parameters),
        "forwards": report.num_forwards,
        "seconds": seconds,
        "steps": seconds / step,
        "verdicts": dict(Counter(record.verdict for record in report.parameters)),
    }


def _seconds_of_a_step(module: torch.nn.Module, batch: Any, loss: Any) -> float:
    optimizer = torch.optim.AdamW(module.parameters())
    for count in range(_STEPS + 5):
        if count == 5:
            start = time.process_time()
        loss(module, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - start) / _STEPS
