"""Bounds from the norm's own past: the papers' formulas, outliers bounded, nothing poisoned."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_stab.functional.norm_history import PercentileHistory, ZScoreHistory

NORMS = st.lists(st.floats(1e-3, 1e3), min_size=25, max_size=60)


def taught(history, norms):
    """Learn as clipping does: bound each norm, and learn what it was and what was left."""
    allowed = []
    for norm in norms:
        left = min(norm, history.limit(norm))
        history.learn(norm, left)
        allowed.append(left)
    return allowed


def zclip(norms, threshold=2.5, alpha=0.97, warmup=25):
    """ZClip, written out from its paper."""
    first = torch.tensor(norms[:warmup], dtype=torch.float64)
    mean, variance = first.mean().item(), first.var(correction=0).item()
    allowed = list(norms[:warmup])
    for norm in norms[warmup:]:
        z = (norm - mean) / (math.sqrt(variance) + 1e-6)
        left = mean + threshold**2 / z * math.sqrt(variance) if z > threshold else norm
        mean = alpha * mean + (1 - alpha) * left
        variance = alpha * variance + (1 - alpha) * (left - mean) ** 2
        allowed.append(left)
    return allowed


@settings(max_examples=50)
@given(NORMS)
def test_the_z_score_rule_is_the_papers(norms):
    assert taught(ZScoreHistory(), norms) == pytest.approx(zclip(norms), rel=1e-6)


@given(NORMS, st.floats(1.0, 5.0))
def test_a_reduced_norm_lies_within_the_threshold(norms, threshold):
    history = ZScoreHistory(threshold)
    taught(history, norms)
    mean, deviation = history.statistics.mean, history.statistics.deviation
    outlier = mean + 10 * threshold * (deviation + 1e-6)
    assert mean <= history.limit(outlier) <= mean + threshold * deviation
    assert history.limit(mean + 0.9 * threshold * deviation) == math.inf
    farther = mean + 100 * threshold * (deviation + 1e-6)
    assert history.limit(farther) <= history.limit(outlier)


def test_an_outlier_cannot_raise_its_own_bound():
    history = ZScoreHistory()
    taught(history, [1.0 + 0.1 * (i % 2) for i in range(30)])
    limits = []
    for _ in range(20):
        limits.append(history.limit(1e6))
        history.learn(1e6, min(1e6, limits[-1]))
    assert max(limits) < 1.2


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40), st.floats(1.0, 99.0))
def test_the_percentile_rule_is_torchs_quantile(norms, percentile):
    history = PercentileHistory(percentile)
    for norm in norms:
        history.learn(norm, 0.0)
    expected = torch.quantile(torch.tensor(norms, dtype=torch.float64), percentile / 100).item()
    assert history.limit(1e9) == pytest.approx(expected, rel=1e-9)


def test_the_percentile_rule_forgets_what_is_older_than_its_window():
    history = PercentileHistory(50.0, size=3)
    for norm in (100.0, 1.0, 2.0, 3.0):
        history.learn(norm, norm)
    assert history.limit(9.0) == 2.0


@pytest.mark.parametrize("history", [ZScoreHistory(), PercentileHistory(warmup=25)])
def test_too_little_past_bounds_nothing(history):
    for _ in range(24):
        assert history.limit(1e9) == math.inf
        history.learn(1.0, 1.0)
    history.learn(1.0, 1.0)
    assert history.limit(1e9) < math.inf


@pytest.mark.parametrize("kind", [ZScoreHistory, PercentileHistory])
@given(bad=st.sampled_from([math.nan, math.inf]))
def test_nonfinite_norms_never_enter(kind, bad):
    history, clean = kind(), kind()
    norms = [1.0 + 0.01 * i for i in range(30)]
    for norm in norms:
        history.learn(norm, norm)
        history.learn(bad, bad)
        clean.learn(norm, norm)
    assert history.limit(50.0) == clean.limit(50.0) < math.inf


def test_the_z_score_rule_leaves_a_nonfinite_norm_alone():
    history = ZScoreHistory()
    taught(history, [1.0, 1.1] * 15)
    assert history.limit(math.nan) == history.limit(math.inf) == math.inf


@pytest.mark.parametrize("kind", [ZScoreHistory, PercentileHistory])
def test_a_past_of_zero_gradients_does_not_freeze_the_run(kind):
    history = kind()
    for _ in range(30):
        history.learn(0.0, 0.0)
    assert history.limit(1.0) > 0.0


@pytest.mark.parametrize("kind", [ZScoreHistory, PercentileHistory])
@settings(max_examples=25)
@given(before=NORMS, after=NORMS)
def test_a_restored_history_bounds_alike(kind, before, after):
    whole, first, restored = kind(), kind(), kind()
    expected = taught(whole, before + after)
    got = taught(first, before)
    restored.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert got + taught(restored, after) == expected
