"""Recurrent cells, unrolled over three steps, with hand-written gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gradcheck.corpus.custom import Gradients, Saved

Kept = tuple[Tensor, ...]


def _rnn(x: Tensor, weight: Tensor) -> Saved:
    states = [torch.zeros_like(x[:, 0])]
    for step in x.unbind(1):
        states.append((step + states[-1] @ weight).tanh())
    return states[-1], (weight, *states)


def _rnn_back(saved: Kept, g: Tensor) -> Gradients:
    weight, *states = saved
    to_weight, to_steps = torch.zeros_like(weight), []
    for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
        inner = g * (1 - after.square())
        to_steps.append(inner)
        to_weight = to_weight + before.T @ inner
        g = inner @ weight.T
    return torch.stack(to_steps[::-1], 1), to_weight


def _gated(x: Tensor, weight: Tensor) -> Saved:
    states = [torch.zeros_like(x[:, 0])]
    gates = []
    for step in x.unbind(1):
        gates.append((states[-1] @ weight + step).sigmoid())
        states.append(gates[-1] * states[-1] + (1 - gates[-1]) * step.tanh())
    return states[-1], (weight, x, torch.stack(gates), torch.stack(states))


def _gated_back(saved: Kept, g: Tensor) -> Gradients:
    weight, x, gates, states = saved
    to_weight, to_steps = torch.zeros_like(weight), []
    for time in reversed(range(x.shape[1])):
        gate, before, candidate = gates[time], states[time], x[:, time].tanh()
        inner = g * (before - candidate) * gate * (1 - gate)
        to_steps.append(inner + g * (1 - gate) * (1 - candidate.square()))
        to_weight = to_weight + before.T @ inner
        g = g * gate + inner @ weight.T
    return torch.stack(to_steps[::-1], 1), to_weight


RNN = (_rnn, _rnn_back)
GATED = (_gated, _gated_back)
