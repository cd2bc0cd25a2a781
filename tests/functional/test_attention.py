"""The spread of attention's logits is that of q k^T as torch itself computes it."""

import pytest
import torch
from helpers.laws import FEW, SEEDS
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lightning_stab.functional.attention import (
    SAMPLES,
    logit_spread,
    logit_spread_of_call,
    packed_logit_spread,
)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits_of(query, key):
    """Return the logits in float64, scaled as torch scales them."""
    return torch.einsum("...td,...sd->...ts", query.double(), key.double()) / query.shape[-1] ** 0.5


@given(SEEDS, st.sampled_from([(), (2,), (3, 2), (SAMPLES, 2)]), st.integers(1, 9),
       st.integers(2, 9), st.integers(1, 8))  # fmt: skip
@example(0, (), 6, 9, 3)  # no batch: neither queries nor keys are samples
@FEW
def test_the_spread_is_the_mean_over_queries_of_the_deviation_over_keys(seed, lead, t, s, width):
    query, key = normal(seed, *lead, t, width), normal(seed + 1, *lead, s, width)
    expected = logits_of(query, key).std(-1, correction=0).mean().item()
    assert logit_spread(query, key).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(SEEDS, st.floats(0.01, 100))
@FEW
def test_it_grows_with_the_logits_and_forgets_what_a_softmax_forgets(seed, factor):
    query, key = normal(seed, 2, 3, 5, 8), normal(seed + 1, 2, 3, 6, 8)
    spread = logit_spread(query, key).item()
    assert logit_spread(query * factor, key).item() == pytest.approx(factor * spread, rel=1e-3)
    shifted = key + normal(seed + 2, 8)  # adds the same to every logit of a query
    assert logit_spread(query, shifted).item() == pytest.approx(spread, rel=1e-3)
    mixed = key[..., torch.randperm(6, generator=torch.Generator().manual_seed(seed)), :]
    assert logit_spread(query, mixed).item() == pytest.approx(spread, rel=1e-4)
    assert logit_spread(query, key, scale=1.0).item() == pytest.approx(spread * 8**0.5, rel=1e-4)


def test_of_a_large_batch_the_first_samples_are_looked_at():
    query, key = normal(0, 3 * SAMPLES, 2, 5, 8), normal(1, 3 * SAMPLES, 2, 6, 8)
    first = logit_spread(query[:SAMPLES], key[:SAMPLES])
    assert torch.equal(logit_spread(query, key), first)


def test_equal_keys_have_no_spread_and_one_hot_attention_has_a_large_one():
    query = normal(0, 2, 5, 8)
    assert logit_spread(query, torch.ones(2, 4, 8)).item() == pytest.approx(0, abs=1e-6)
    sharp = 1e3 * torch.eye(4).expand(2, 4, 4)
    weights = (sharp @ sharp.mT / 2).softmax(-1)
    assert (weights.amax(-1) > 0.999).all()
    assert logit_spread(sharp, sharp).item() > 100


def packed_call(layer, query, key=None):
    """Return what ``nn.MultiheadAttention`` passes to the function, as torch calls it."""
    calls = []

    class Record(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is functional.multi_head_attention_forward:
                calls.append((args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Record():
        key = query if key is None else key
        layer(query, key, key, average_attn_weights=False)
    (call,) = calls
    return call


def spread_of_weights(layer, query, key):
    """Return the spread from the layer's own attention weights: logits up to a constant.

    The logarithm of a softmax is the logits minus one number per query.
    """
    _, weights = layer(query, key, key, average_attn_weights=False)
    return weights.double().log()[:SAMPLES].std(-1, correction=0).mean().item()


@given(SEEDS, st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(), st.booleans())
@FEW
def test_packed_projections_are_those_of_multihead_attention(seed, heads, bias, first, cross):
    torch.manual_seed(seed)
    layer = nn.MultiheadAttention(8, heads, bias=bias, batch_first=first)
    if bias:
        nn.init.normal_(layer.in_proj_bias)
    lead = (lambda n, t: (n, t, 8)) if first else (lambda n, t: (t, n, 8))
    query, key = torch.randn(lead(6, 5)), torch.randn(lead(6, 7)) if cross else None
    spread = packed_logit_spread(*packed_call(layer, query, key))
    expected = spread_of_weights(layer, query, query if key is None else key)
    assert spread.item() == pytest.approx(expected, rel=1e-3)
    assert not spread.requires_grad


def test_what_is_not_packed_is_passed_over():
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=6)
    call = packed_call(separate, torch.randn(5, 2, 8), torch.randn(7, 2, 6))
    assert packed_logit_spread(*call) is None
    unbatched = packed_call(nn.MultiheadAttention(8, 2), torch.randn(5, 8))
    assert packed_logit_spread(*unbatched) is None


@given(SEEDS, st.sampled_from([(4, 2), (4, 1), (6, 3), (3, 3)]))
@FEW
def test_grouped_heads_share_a_key(seed, heads):
    many, few = heads
    query, key = normal(seed, 2, many, 5, 8), normal(seed + 1, 2, few, 7, 8)
    whole = key.repeat_interleave(many // few, 1)
    assert torch.equal(logit_spread(query, key), logit_spread(query, whole))


def test_a_call_may_name_its_arguments():
    query, key, scale = normal(0, 2, 3, 5, 8), normal(1, 2, 3, 7, 8), 0.3
    expected = logit_spread(query, key, scale)
    named = {"query": query, "key": key, "value": key}
    for count in range(4):
        rest = dict(list(named.items())[count:])
        spread = logit_spread_of_call(list(named.values())[:count], {**rest, "scale": scale})
        assert torch.equal(spread, expected)
    plain = logit_spread_of_call([query, key, key], {})
    assert torch.equal(plain, logit_spread(query, key))


@pytest.mark.filterwarnings("ignore:.*nested.*")
def test_nested_batches_are_passed_over():
    nested = torch.nested.nested_tensor([normal(0, 5, 8), normal(1, 3, 8)], layout=torch.jagged)
    assert logit_spread_of_call([nested, nested, nested], {}) is None


def test_it_draws_no_random_number_and_needs_no_graph():
    state = torch.get_rng_state()
    query = torch.ones(2, 3, 4, requires_grad=True)
    assert not logit_spread(query, query).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
