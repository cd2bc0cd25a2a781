"""What a bad batch does to running statistics is seen, named and put back."""

import pytest
import torch
from torch import nn

from lightning_stab.callbacks.guard.restoring import BufferKeeper, StepBackup


def net():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.1))


def test_the_first_statistic_that_is_no_number_is_named():
    module = net()
    keeper = BufferKeeper(module)
    assert keeper.first_nonfinite() == ""
    for name, number in (("2.running_var", float("inf")), ("0.running_var", float("nan"))):
        module.get_buffer(name)[1] = number
        assert keeper.first_nonfinite() == name
    assert BufferKeeper(nn.Linear(2, 2)).first_nonfinite() == ""


def test_the_norm_is_that_of_all_running_statistics():
    module = net()
    module[0].running_mean.fill_(2.0)
    module[2].running_var.fill_(3.0)
    module(torch.randn(8, 3))  # counts batches, which is no statistic
    buffers = [module.get_buffer(f"{i}.running_{n}") for i in (0, 2) for n in ("mean", "var")]
    expected = torch.cat(buffers).double().norm()
    assert float(BufferKeeper(module).running_norm()) == pytest.approx(float(expected))
    assert BufferKeeper(nn.Linear(2, 2)).running_norm() is None


class Counting(nn.Module):
    """Buffers that are written in place, exchanged, and left alone."""

    def __init__(self):
        super().__init__()
        for name in ("written", "exchanged", "still"):
            self.register_buffer(name, torch.zeros(2))


def test_buffers_come_back_as_they_were_at_the_last_keep():
    module = Counting()
    keeper, objects = BufferKeeper(module), dict(module.named_buffers())
    for value in (1.0, 2.0):
        module.written.fill_(value)
        module.exchanged = torch.full((2,), value)
        kept = module.exchanged
        keeper.keep()
    module.written.fill_(9.0)
    module.exchanged = torch.full((2,), 9.0)
    keeper.restore()
    assert [b.tolist() for b in module.buffers()] == [[2.0, 2.0], [2.0, 2.0], [0.0, 0.0]]
    assert module.written is objects["written"]
    assert module.exchanged is kept


def test_a_backup_knows_what_has_moved_and_what_is_ruined():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = [p.detach().clone() for p in layer.parameters()]
    momentum = optimizer.state[layer.weight]["momentum_buffer"].clone()
    backup = StepBackup(optimizer)
    assert not backup.has_moved()
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.step()
    assert backup.has_moved()
    assert not backup.is_ruined()
    with torch.no_grad():
        layer.bias[0] = float("nan")
    assert backup.is_ruined()
    backup.restore()
    assert not backup.has_moved()
    assert all(map(torch.equal, before, layer.parameters()))
    assert torch.equal(optimizer.state[layer.weight]["momentum_buffer"], momentum)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert layer.weight.grad is None
