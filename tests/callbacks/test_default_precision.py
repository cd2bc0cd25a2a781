"""What is measured does not depend on torch's default precision, which plugins change in steps."""

import pytest
import torch

from lightning_stab.callbacks.clipping.rules import ClipResult, ClipSummary
from lightning_stab.callbacks.doctor.probe import DoctorProbe
from lightning_stab.callbacks.doctor.targets import Targets
from lightning_stab.functional.dependence import neighbour_agreement, simple_skill


@pytest.fixture(params=[torch.float16, torch.bfloat16], autouse=True)
def low_precision(request):
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


def test_small_gradients_of_a_recurrence_are_read():
    """Their squares are 0 in half precision."""
    probe = DoctorProbe(Targets())
    states = [torch.ones(4, 3, dtype=torch.float32, requires_grad=True) for _ in range(10)]
    for state in states:
        probe.watch_cell("cell", state)
    torch.stack(states).backward(torch.full((10, 4, 3), 1e-6, dtype=torch.float32))
    (ends,) = probe.time_ratios().values()
    assert ends.tolist() == pytest.approx([1e-6, 1e-6], rel=1e-5)


def test_a_coefficient_of_clipping_is_logged_as_it_is():
    summary = ClipSummary(per_step=False)
    norm = torch.tensor(3.0, dtype=torch.float32)
    scalars = summary.scalars("", norm, norm, ClipResult(0.123456, 0.3333333))
    logged = scalars.update(scalars.values.tolist())
    assert sorted(logged.values()) == pytest.approx([0.123456, 0.3333333, 3.0, 3.0], rel=1e-6)


def test_rows_are_compared_as_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator, dtype=torch.float32)
    y = (x[:, 0] > 0).long()
    symbols = torch.randint(0, 9, (300, 20), generator=generator)
    pairs = [(x, y), (x, x.sum(1)), (symbols, symbols[:, 0])]
    low = [(float(simple_skill(*pair)), float(neighbour_agreement(*pair))) for pair in pairs]
    torch.set_default_dtype(torch.float32)
    whole = [(float(simple_skill(*pair)), float(neighbour_agreement(*pair))) for pair in pairs]
    assert low == whole
