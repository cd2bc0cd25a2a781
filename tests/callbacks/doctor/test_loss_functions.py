"""What enters a loss by its form, and what a constant prediction would lose."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_stab.callbacks.doctor.loss_functions import (
    LEAST_CONSTANT,
    LossFunctions,
    Targets,
)
from lightning_stab.functional.function_mode import FunctionMode


def seen(step, *rows, of_batch=None):
    """Return the facts, the baselines and the loss of a function of two tensors."""
    losses = LossFunctions(of_batch=of_batch)

    def watch(function, args, kwargs):
        result = function(*args, **kwargs)
        losses(function, args, kwargs, result)
        return result

    mode = FunctionMode(watch)
    mode.enter()
    try:
        loss = step(*rows)
    finally:
        mode.leave()
    facts = {name: float(value) for name, value in losses.measured.items()}
    return facts, losses.baseline_of(loss.detach()).tolist(), float(loss.detach())


def rows(columns=4, count=64):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, columns, generator=generator).requires_grad_()
    return z, torch.randint(columns, (count,), generator=generator)


def one_hot(y):
    return functional.one_hot(y, 4).float()


FORMS = [
    ("softmax_of_one", lambda z, y: functional.mse_loss(z[:, :1].softmax(-1), y[:, None].float())),
    ("softmax_of_batch", lambda z, y: functional.cross_entropy(z.softmax(0), y)),
    ("squashed_logits", lambda z, y: functional.cross_entropy(z.sigmoid(), y)),
    ("squashed_logits", lambda z, y: functional.cross_entropy(z.tanh(), y)),
    ("squashed_logits", lambda z, y: functional.nll_loss(z.tanh().log_softmax(-1), y)),
    ("exclusive_labels", lambda z, y: functional.binary_cross_entropy(z.sigmoid(), one_hot(y))),
    ("error_of_probabilities", lambda z, y: functional.mse_loss(z.softmax(-1), one_hot(y))),
    ("error_of_probabilities", lambda z, y: functional.l1_loss(z.sigmoid(), one_hot(y))),
    ("broadcast", lambda z, y: ((z[:, 0] - y[:, None]) ** 2).mean()),
    ("constant_targets", lambda z, y: functional.cross_entropy(z, y * 0 + 2)),
    ("constant_targets", lambda z, y: functional.mse_loss(z, torch.ones_like(z))),
    (
        "impossible_targets",
        lambda z, y: functional.binary_cross_entropy_with_logits(z, 3 * one_hot(y) - 1),
    ),
]
SOUND = [
    lambda z, y: functional.cross_entropy(z, y),
    lambda z, y: functional.nll_loss(nn.LogSoftmax(1)(z), y),
    lambda z, y: functional.mse_loss(z, one_hot(y) - 0.3),
    lambda z, y: functional.binary_cross_entropy_with_logits(z, (z > 0).float()),
    lambda z, y: ((z[:, 0] - y) ** 2).mean(),
]


@pytest.mark.parametrize(("name", "step"), FORMS)
def test_a_wrong_form_is_seen(name, step):
    assert seen(step, *rows())[0][name] > 0.5


@pytest.mark.parametrize("step", SOUND)
def test_sound_forms_are_left_alone(step):
    facts = seen(step, *rows())[0]
    assert not {name for name, _ in FORMS if facts.get(name, 0.0) > 0}


LOSSES = {
    "nll": lambda z, y: functional.nll_loss(z.log_softmax(-1), y),
    "weighted": lambda z, y: functional.cross_entropy(z, y, weight=torch.tensor([1.0, 2, 1, 5])),
    "summed": lambda z, y: functional.cross_entropy(z, y, reduction="sum"),
    "kl": lambda z, y: functional.kl_div(z.log_softmax(-1), one_hot(y), reduction="batchmean"),
    "binary": lambda z, y: functional.binary_cross_entropy(z.sigmoid(), one_hot(y)),
    "weighted binary": lambda z, y: functional.binary_cross_entropy_with_logits(
        z, one_hot(y), pos_weight=torch.tensor(3.0)
    ),
    "multilabel": lambda z, y: functional.multilabel_soft_margin_loss(z, one_hot(y)),
    "signs": lambda z, y: functional.soft_margin_loss(z, 2 * one_hot(y) - 1),
    "squares": lambda z, y: functional.mse_loss(z, one_hot(y)),
    "summed squares": lambda z, y: functional.mse_loss(z, one_hot(y), reduction="sum"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_baseline_is_what_the_best_constant_loses(name):
    """Found here by training one row of outputs that is the same for all."""
    z, y = rows(count=400)
    _, (best, blind), _ = seen(LOSSES[name], z, y)
    constant = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([constant], 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        found = LOSSES[name](constant.expand(400, 4), y)
        found.backward()
        optimizer.step()
    assert best == pytest.approx(float(found.detach()), rel=0.03)
    assert blind >= best * 0.99


def test_the_baseline_of_a_sum_is_the_sum_of_the_baselines():
    """A bound from below: each part has its own best constant, and they differ."""
    z, y = rows(count=400)

    def both(z, y):
        return functional.mse_loss(z, one_hot(y)) + functional.l1_loss(z, one_hot(y))

    best, blind = seen(both, z, y)[1]
    parts = [seen(LOSSES["squares"], z, y)[1][0], functional.l1_loss(0 * z, one_hot(y)).item()]
    assert best == pytest.approx(sum(parts), rel=1e-3)
    reached = min(both((0 * z + c / 100), y).item() for c in range(101))  # any one constant
    assert 0.8 * reached < best <= reached
    assert blind >= best * 0.99


def test_a_loss_of_ones_own_has_no_such_baseline():
    _, (best, blind), _ = seen(lambda z, y: (z - one_hot(y)).abs().pow(1.5).mean(), *rows())
    assert best != best
    assert blind != blind


def test_the_variety_of_real_targets_is_their_variance_over_that_of_all():
    known, found = LossFunctions(), []
    for target in (torch.arange(10.0), torch.arange(20.0)):
        known = LossFunctions(targets=known.targets)
        z = torch.zeros(len(target), requires_grad=True)
        known(functional.mse_loss, (z, target), {}, functional.mse_loss(z, target))
        found.append(float(known.measured["batch_variety"]))
    # of n rows the variance is estimated by n - 1; all targets are those of both batches alike
    assert found[0] == pytest.approx(10 / 9, rel=1e-5)
    everything = (28.5 + 123.5) / 2 - ((4.5 + 9.5) / 2) ** 2
    assert found[1] == pytest.approx(35 / everything, rel=1e-5)


def test_sizes_of_targets_and_predictions_in_numbers():
    z = torch.tensor([[3.0], [-3.0]], requires_grad=True)
    facts, _, _ = seen(functional.mse_loss, z, torch.tensor([[3.0], [4.0]]))
    assert facts["target_size"] == pytest.approx(12.5**0.5)
    assert facts["prediction_size"] == pytest.approx(3 / 12.5**0.5)
    assert facts["unreachable_targets"] == 0.0
    facts, _, _ = seen(
        lambda z, y: functional.mse_loss(z.tanh(), y), z, torch.tensor([[3.0], [0.5]])
    )
    assert facts["unreachable_targets"] == 0.5


def test_the_spread_of_logits_in_numbers():
    z = torch.tensor([[1.0, 3.0], [5.0, 5.0]], requires_grad=True)
    facts, _, _ = seen(functional.cross_entropy, z, torch.tensor([0, 1]))
    assert facts["output_logits"] == pytest.approx((2 / 3) ** 0.5)  # of -1, 1, 0 and 0
    facts, _, _ = seen(functional.binary_cross_entropy_with_logits, z, torch.zeros(2, 2))
    assert facts["output_logits"] == pytest.approx(15**0.5)
    facts, _, _ = seen(
        lambda z, y: functional.cross_entropy((z - 3).relu(), y), z, torch.tensor([0, 1])
    )
    assert facts["rectified_logits"] == 0.5


@pytest.mark.parametrize(("off", "known"), [(0.0009, True), (0.0011, False)])
def test_the_calls_add_up_to_the_loss_within_a_thousandth(off, known):
    losses, (z, y) = LossFunctions(), rows()
    result = functional.cross_entropy(z, y)
    losses(functional.cross_entropy, (z, y), {}, result)
    found = losses.baseline_of(result.detach() * (1 + off))
    assert bool(found.isfinite().all()) == known
    assert bool(LossFunctions().baseline_of(result.detach()).isnan().all())


def test_what_is_known_of_all_targets_so_far():
    targets = Targets()
    first, second = torch.tensor([[1.0, 8.0]] * 2), torch.tensor([[4.0, 2.0]] * 6)
    mean, seen = targets.mean(first)
    assert (mean.tolist(), seen) == ([1.0, 8.0], 2)
    mean, seen = targets.mean(second)
    assert (mean.tolist(), seen) == ([(2 + 24) / 8, (16 + 12) / 8], 8)
    assert targets.mean(torch.tensor(3.0))[1] == 1  # of another shape nothing was seen
    assert targets.counts(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert targets.counts(torch.tensor([3.0, 0.0])).tolist() == [4.0, 2.0]
    assert targets.counts(torch.tensor([3.0, 0.0, 1.0])).tolist() == [3.0, 0.0, 1.0]


def test_targets_are_constant_where_all_rows_so_far_equal_the_first():
    half = LEAST_CONSTANT // 2
    targets, rows_ = Targets(), torch.ones(half, 2)
    assert targets.are_constant(rows_).isnan()  # of few rows it is not known
    assert targets.are_constant(rows_) == 1.0
    assert targets.are_constant(torch.full((half, 2), 2.0)) == 0.0
    assert targets.are_constant(rows_) == 0.0  # once they differed
    assert Targets().are_constant(torch.ones(LEAST_CONSTANT - 1)).isnan()
    assert Targets().are_constant(torch.ones(LEAST_CONSTANT)) == 1.0


def test_a_relu_before_a_log_softmax_is_seen():
    z, y = rows()
    facts, *_ = seen(lambda z, y: functional.nll_loss(z.relu().log_softmax(-1), y), z, y)
    assert facts["rectified_logits"] == pytest.approx(float((z <= 0).float().mean()))


@pytest.mark.parametrize("turned", [False, True])
def test_a_squared_error_written_by_hand_is_known_by_the_batchs_targets(turned):
    z, _ = rows(1)
    y = torch.linspace(-3, 3, 64)[:, None]

    def loss(z, y):
        prediction = z.tanh()
        return ((y - prediction if turned else prediction - y) ** 2).mean()

    facts, *_ = seen(loss, z, y, of_batch=y)
    assert facts["unreachable_targets"] == pytest.approx(
        float((y.abs() > 1).float().mean()), abs=0.02
    )
    assert facts["target_size"] == pytest.approx(float(y.square().mean().sqrt()), rel=1e-5)
    # what is not the batch's targets may be anything, such as the inputs of a residual net
    assert "unreachable_targets" not in seen(loss, z, y)[0]
    assert "unreachable_targets" not in seen(loss, z, y, of_batch=y.clone())[0]


def test_an_absolute_error_of_probabilities_is_judged_against_constant_probabilities():
    """No softmax predicts zero for each class, which would lose least."""
    z, y = rows()
    step = lambda z, y: functional.l1_loss(z.softmax(-1), one_hot(y))  # noqa: E731
    _, (best, blind), _ = seen(step, z, y)
    most = float(y.bincount().max()) / len(y)
    assert best == pytest.approx(2 * (1 - most) / 4)
    assert blind == pytest.approx(2 * (1 - 1 / 4) / 4)
