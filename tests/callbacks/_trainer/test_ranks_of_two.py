"""What two ranks agree on, with the other rank's part given by hand."""

from types import SimpleNamespace

import pytest
import torch

from lightning_stab.callbacks._trainer import loop_trainer, ranks

CPU = torch.device("cpu")


@pytest.fixture
def second(monkeypatch):
    """Let this process be the first of two; what the other one has is put into `theirs`."""
    given = SimpleNamespace(theirs=None, ops=[], sources=[])
    distributed = torch.distributed

    def all_gather_object(values, mine):
        values[:] = [mine, given.theirs]

    def all_gather(values, mine):
        values[0].copy_(mine)
        values[1].copy_(torch.as_tensor(given.theirs))

    def all_reduce(total, op):
        given.ops.append(op)
        theirs = torch.as_tensor(given.theirs)
        total.copy_(total + theirs if op == distributed.ReduceOp.SUM else total.minimum(theirs))

    def broadcast(tensor, source):
        given.sources.append(source)
        tensor.copy_(torch.as_tensor(given.theirs))

    def broadcast_object_list(values, source, device):
        given.sources.append(source)
        values[0] = given.theirs

    for function in (all_gather_object, all_gather, all_reduce, broadcast, broadcast_object_list):
        monkeypatch.setattr(distributed, function.__name__, function)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda *_: 0)
    strategy = loop_trainer.LoopStrategy([], CPU)
    given.trainer = SimpleNamespace(world_size=2, global_rank=0, strategy=strategy)
    return given


ALONE = SimpleNamespace(world_size=1, global_rank=0, strategy=loop_trainer.LoopStrategy([], CPU))


def test_every_rank_gets_all_values_in_the_order_of_the_ranks(second):
    second.theirs = "b"
    assert ranks.gather(second.trainer, "a") == ["a", "b"]
    second.theirs = [3.0, 4.0]
    assert ranks.gather_numbers(second.trainer, [1.0, 2.0], CPU) == [[1, 2], [3, 4]]
    rows = ranks.gather_rows(second.trainer, torch.tensor([1.0, 2.0]))
    assert rows.tolist() == [[1, 2], [3, 4]]


def test_one_rank_asks_nobody():
    assert ranks.gather(ALONE, "a") == ["a"]
    assert ranks.gather_numbers(ALONE, [1.0], CPU) == [[1.0]]
    assert ranks.gather_rows(ALONE, torch.tensor([1.0, 2.0])).shape == (1, 2)
    assert ranks.broadcast(ALONE, "a") == "a"
    assert ranks.mean(ALONE, torch.tensor(3.0)) == 3.0
    assert [ranks.any_rank(ALONE, flag) for flag in (True, False)] == [True, False]
    assert [ranks.first_rank_with(ALONE, flag) for flag in (True, False)] == [0, None]


@pytest.mark.parametrize(
    ("mine", "theirs", "any_", "all_"),
    [(1, 1, True, True), (1, 0, True, False), (0, 1, True, False), (0, 0, False, False)],
)
def test_a_decision_is_that_of_any_or_of_all(second, mine, theirs, any_, all_):
    second.theirs = theirs
    assert ranks.any_rank(second.trainer, bool(mine)) == any_
    assert second.trainer.strategy.reduce_boolean_decision(bool(mine)) == all_


@pytest.mark.parametrize(("mine", "theirs", "first"), [(True, 2, 0), (False, 1, 1)])
def test_the_first_rank_with_a_flag(second, mine, theirs, first):
    second.theirs = theirs  # a vote, then a rank: 2 where the other has no flag
    assert ranks.first_rank_with(second.trainer, mine) == first
    assert second.ops == [torch.distributed.ReduceOp.SUM, torch.distributed.ReduceOp.MIN]


def test_mean_sum_and_the_first_ranks_values(second):
    second.theirs = 4.0
    one = torch.tensor(1.0)
    assert ranks.mean(second.trainer, one) == 2.5
    assert second.trainer.strategy.reduce(one, "sum") == 5.0
    assert one == 1.0
    assert ranks.broadcast(second.trainer, 1.0, source=1) == 4.0
    ranks.broadcast_(second.trainer, [one])
    assert one == 4.0
    assert second.sources == [1, 0]


def test_a_plain_loop_knows_its_rank(second):
    module = torch.nn.Linear(1, 1)
    trainer = loop_trainer.LoopTrainer(module, [], [])
    assert (trainer.world_size, trainer.global_rank, trainer.is_global_zero) == (2, 0, True)
