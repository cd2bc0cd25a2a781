"""Sequences made from a seed: symbols to remember, a sum to keep, a grammar, short texts."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.diagnosis.corpus.data import Split, real

ROWS, HELD_OUT = 1500, 400


def generator() -> torch.Generator:
    """Return the source of all the data here."""
    return torch.Generator().manual_seed(7)


def halves(inputs: Tensor, targets: Tensor) -> Split:
    """Hold the last rows out."""
    return Split(inputs[:-HELD_OUT], targets[:-HELD_OUT], inputs[-HELD_OUT:], targets[-HELD_OUT:])


def digit_rows() -> Split:
    """Return the digits as eight steps of eight pixels."""
    split = real("digits")
    shape = (-1, 8, 8)
    return replace(
        split, inputs=split.inputs.reshape(shape), val_inputs=split.val_inputs.reshape(shape)
    )


@lru_cache
def first_symbol(length: int, symbols: int = 6) -> Split:
    """Return noise of some steps whose first shows the class: it must be kept to the end."""
    source = generator()
    total = ROWS + HELD_OUT
    y = torch.randint(symbols, (total,), generator=source)
    x = torch.randn(total, length, symbols, generator=source) * 0.1
    x[:, 0] += torch.nn.functional.one_hot(y, symbols) * 2.0
    return halves(x, y)


@lru_cache
def moving_sum(length: int) -> Split:
    """Return noise and, for every row, its sum with weights that fall by a tenth per step."""
    source = generator()
    x = torch.randn(ROWS + HELD_OUT, length, 1, generator=source)
    weights = 0.9 ** torch.arange(length - 1, -1, -1.0)
    target = (x[..., 0] * weights).sum(1)
    return halves(x, target / target.std())


@lru_cache
def marked_token(length: int, symbols: int = 8) -> Split:
    """Return tokens in which a marker precedes the one that is the answer."""
    source = generator()
    total = ROWS + HELD_OUT
    tokens = torch.randint(symbols, (total, length), generator=source)
    place = torch.randint(length - 1, (total,), generator=source)
    rows = torch.arange(total)
    answer = tokens[rows, place + 1]
    tokens[rows, place] = symbols
    return halves(tokens, answer)


@lru_cache
def texts(vocabulary: int, length: int) -> Split:
    """Return bags of words of four subjects; common words say nothing, rare ones the subject."""
    source = generator()
    total = ROWS + HELD_OUT
    y = torch.randint(4, (total,), generator=source)
    common = vocabulary // 2
    words = (torch.rand(total, length, generator=source) ** 3 * common).long()
    own = (torch.rand(total, length, generator=source) ** 2 * (common // 4)).long()
    topical = common + own * 4 + y[:, None]
    return halves(torch.where(torch.rand(total, length, generator=source) < 0.3, topical, words), y)


@lru_cache
def grammar(length: int, symbols: int = 12) -> Split:
    """Return sentences of two dialects; the first token says which table the next tokens follow.

    Nine in ten tokens follow the table, so that about nine in ten can be predicted.
    """
    source = generator()
    total = ROWS + HELD_OUT
    tables = torch.stack([torch.randperm(symbols, generator=source) for _ in range(2)])
    dialect = torch.randint(2, (total,), generator=source)
    sentence = [dialect + symbols, torch.randint(symbols, (total,), generator=source)]
    for _ in range(length - 1):
        follows = tables[dialect, sentence[-1]]
        random = torch.randint(symbols, (total,), generator=source)
        slip = torch.rand(total, generator=source) < 0.1
        sentence.append(torch.where(slip, random, follows))
    tokens = torch.stack(sentence, 1)
    return halves(tokens[:, :-1], tokens[:, 1:])
