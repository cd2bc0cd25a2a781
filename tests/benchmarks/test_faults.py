"""The benchmark of poisoned batches runs in a small size, and poisons what it says."""

import pytest
import torch
from helpers.small_runs import numbers

from benchmarks.faults import run as bench_faults

pytestmark = pytest.mark.nightly


def test_poison_is_put_between_the_good_batches_once_early():
    good, _ = bench_faults.digit_batches(seed=0, steps=100)
    for kind in bench_faults.KINDS:
        sequence = bench_faults.poisoned(good, kind, 0.05, seed=0)
        kept = [b for b in sequence if any(b is g for g in good)]
        bad = [i for i, b in enumerate(sequence) if not any(b is g for g in good)]
        assert len(kept) == 100
        assert len(bad) == 5
        assert min(bad) < 30
        assert all(a is b for a, b in zip(kept, good, strict=True))


def test_poisoned_runs_end_like_their_twins():
    runs = numbers("benchmarks.faults.run")["runs"]
    nonfinite = [r for r in runs if r["kind"] in ("nan", "inf")]
    assert all(r["bit_identical"] and r["skipped"] == r["planted"] for r in nonfinite)
    assert all(r["finite"] and not r["raised"] for r in runs)
    assert all(r["points"] >= -2 for r in runs)


def test_an_unguarded_poisoned_run_is_ruined():
    torch.set_num_threads(1)
    good, test = bench_faults.digit_batches(seed=0, steps=60)
    bad = bench_faults.poisoned(good, "nan", 0.05, seed=0)
    module, _ = bench_faults.fit("Adam", 0, bad, 60, guard=None)
    assert not all(bool(torch.isfinite(t.double()).all()) for t in bench_faults.state_of(module))
    assert bench_faults.accuracy(module, test) < 0.2
