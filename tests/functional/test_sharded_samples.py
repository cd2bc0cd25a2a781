"""Samples of tensors that ranks share say on each rank what those of whole tensors say."""

import pytest
import torch
from helpers.ranks import report, run_ranks

from lightning_stab.functional.gradient_statistics import (
    change_and_size,
    copy_entries,
    cosine,
)
from lightning_stab.functional.sampling import sample_sizes

pytestmark = pytest.mark.nightly

SHAPES = [(8, 3), (5, 4), (6,), (12, 2)]


def gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def placed(tensors):
    """Share the first over all four ranks, the second over two of them, twice, the last by both."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    flat = init_device_mesh("cpu", (4,))
    pairs = init_device_mesh("cpu", (2, 2))
    return [
        distribute_tensor(tensors[0], flat, [Shard(0)]),
        distribute_tensor(tensors[1], pairs, [Replicate(), Shard(0)]),  # of 3 rows and of 2
        tensors[2],
        distribute_tensor(tensors[3], pairs, [Shard(0), Shard(1)]),
    ]


def measured():
    before, after = placed(gradients(0)), placed(gradients(1))
    sizes = sample_sizes(before)
    kept = copy_entries(before, sizes)
    change, size = change_and_size(kept, after, sizes)
    found = cosine(kept, copy_entries(after, sizes), after)
    report(cosine=found.item(), change=change.tolist(), size=size.tolist())


def test_tensors_on_several_meshes_and_replicated_shards_count_once(tmp_path):
    before, after = gradients(0), gradients(1)
    change, size = change_and_size(before, after)
    for (row,) in run_ranks(measured, tmp_path, world=4):
        assert row["cosine"] == pytest.approx(cosine(before, after).item(), rel=1e-6)
        assert row["change"] == pytest.approx(change.tolist(), rel=1e-6)
        assert row["size"] == pytest.approx(size.tolist(), rel=1e-6)
