"""What lies between two weights, run again: the names it gets, and what is random in it."""

import copy

import pytest
import torch
from helpers.initialization_programs import X, preceding
from torch import nn

from lightning_stab.functional.initialization import InitializationSettings, Program, initialize_


class Swish(nn.Module):
    """x sigmoid(x) in two operators, as it was written before torch had SiLU."""

    def forward(self, x):
        return x * torch.sigmoid(x)


def test_an_activation_of_several_operators_has_the_name_of_its_class():
    net = nn.Sequential(nn.Linear(8, 8), Swish(), nn.Linear(8, 2))
    assert preceding(net, X) == {"0.weight": "input", "2.weight": "Swish"}


def test_several_activations_in_a_row_have_the_names_of_their_operators():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Sigmoid(), nn.Linear(8, 2))
    assert preceding(net, X)["3.weight"] == "tanh+sigmoid"


def test_a_random_slope_counts_as_its_mean():
    torch.manual_seed(0)
    parts = [part for _ in range(6) for part in (nn.Linear(16, 16), nn.RReLU(0.1, 0.9))]
    net = nn.Sequential(*parts, nn.Linear(16, 4)).double()  # in training mode: each slope is drawn
    batch = torch.randn(32, 16).double()
    step = Program(lambda: copy.deepcopy(net), lambda twin: twin(batch).square().mean())
    records = initialize_(net, InitializationSettings("auto"), 0, step)
    assert {record.preceding for record in records[1:]} == {"RReLU"}
    # f(x) - f(-x) = (1 + slope) x; two mirrored halves share it
    assert [record.gain for record in records[1:]] == pytest.approx([1 / 1.5] * 6)
    net.eval()  # with the mean slope 0.5 the whole net is linear, which only that slope gives
    a, b = torch.randn(2, 5, 16).double()
    assert torch.allclose(net(2 * a - 3 * b), 2 * net(a) - 3 * net(b), atol=1e-10)
