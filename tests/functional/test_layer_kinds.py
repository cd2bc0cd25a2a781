"""Every layer that `torch.nn` exports is of the kind that its name says."""

import re

import pytest
from torch import nn

from lightning_stab.functional import layer_kinds
from lightning_stab.functional.layer_kinds import is_norm

CLASSES = {
    name: each
    for name, each in vars(nn).items()
    if isinstance(each, type) and issubclass(each, nn.Module)
}
KINDS = {
    r"(Lazy)?Conv\dd": "CONVOLUTIONS",
    r"(Lazy)?ConvTranspose\dd": "TRANSPOSED_CONVOLUTIONS",
    r"(RNN|LSTM|GRU)(Cell)?(Base)?": "RECURRENT",
    r"Embedding(Bag)?": "EMBEDDINGS",
    r"(Lazy)?(Batch|Instance)Norm\dd|SyncBatchNorm": "CHANNEL_NORMS",
    r"(Lazy)?(Linear|Bilinear|Conv(Transpose)?\dd)|NonDynamically.*": "WEIGHT_LAYERS",
    r"(Lazy)?(Linear|Conv(Transpose)?\dd)|MultiheadAttention|NonDynamically.*": "SCHEME_LAYERS",
}


@pytest.mark.parametrize(("pattern", "kind"), KINDS.items())
def test_no_layer_of_torch_is_forgotten_or_of_another_kind(pattern, kind):
    found = {n for n, each in CLASSES.items() if issubclass(each, getattr(layer_kinds, kind))}
    assert found == {name for name in CLASSES if re.fullmatch(pattern, name)}


def test_what_consumes_an_activation_is_every_layer_with_weights():
    assert issubclass(nn.MultiheadAttention, layer_kinds.CONSUMERS)
    for kind in ("WEIGHT_LAYERS", "RECURRENT", "SCHEME_LAYERS"):
        assert set(getattr(layer_kinds, kind)) <= set(layer_kinds.CONSUMERS)


def test_norms_are_known_by_their_class_or_the_end_of_its_name():
    class RMSNorm(nn.Module):
        pass

    class NormedLinear(nn.Linear):
        pass

    norms = [nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.LocalResponseNorm(2), nn.LazyBatchNorm1d()]
    assert all(is_norm(each) for each in [*norms, RMSNorm()])
    assert not is_norm(NormedLinear(2, 2))
