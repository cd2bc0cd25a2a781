"""What enters a loss by its form, and what a constant prediction would lose."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_stab.callbacks.doctor.loss_functions import LossFunctions
from lightning_stab.callbacks.doctor.targets import LEAST_CONSTANT, Targets
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
    losses.note_targets()
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


def flags(step, *tensors):
    """Return the names of the facts that are 1."""
    return {name for name, value in seen(step, *tensors)[0].items() if value == 1.0}


def test_over_which_dimension_a_softmax_goes():
    z, y = rows()
    entropy, square = functional.cross_entropy, functional.mse_loss
    along = [
        lambda z, y: entropy(functional.softmax(z, 0), y),
        lambda z, y: entropy(torch.softmax(z, dim=-2), y),
        lambda z, y: functional.nll_loss(functional.log_softmax(z, 0), y),
        lambda z, y: functional.nll_loss(functional.log_softmax(input=z, dim=0), y),
    ]
    for step in along:
        assert "softmax_of_batch" in flags(step, z, y)
        assert "softmax_of_one" not in flags(step, z, y)
    of_one = [
        lambda z, y: square(functional.softmax(z[:, :1], 1), z[:, 1:2].detach()),
        lambda z, y: square(z[:, None, :1].softmax(dim=2), z[:, None, 1:2].detach()),
        lambda z, y: square(z[:, None].softmax(1), z[:, None].detach()),
    ]
    for step in of_one:
        assert "softmax_of_one" in flags(step, z, y)
        assert "softmax_of_batch" not in flags(step, z, y)
    sound = [
        lambda z, y: square(z.softmax(1), z.detach()),
        lambda z, y: square(z[None].softmax(1), z[None].detach()),  # of a sequence
        lambda z, y: square(z.reshape(2, 32, 4).softmax(0), z.detach().reshape(2, 32, 4)),
        lambda z, y: square(z[:1, 0].softmax(0), z[1:2, 0].detach()),  # a single number
    ]
    for step in sound:
        assert not flags(step, z, y) & {"softmax_of_one", "softmax_of_batch"}


def test_logits_that_are_probabilities_already_went_through_a_softmax():
    def doubled(*chances, dtype=torch.float32):
        z = torch.tensor(chances, dtype=dtype).requires_grad_()
        y = torch.zeros(len(z), dtype=torch.long)
        return seen(functional.cross_entropy, z, y)[0]["doubled_softmax"]

    assert doubled([0.25, 0.75], [0.0, 1.0]) == 1.0
    assert doubled([0.25, 0.7509]) == 1.0  # within a thousandth
    assert doubled([0.25, 0.7515]) == 0.0
    assert doubled([0.25, 0.75], [0.6, 0.6]) == 0.0  # each row
    assert doubled([-0.25, 1.25]) == 0.0
    assert doubled([0.25, 0.75390625], dtype=torch.bfloat16) == 1.0  # a rounding of its own
    assert doubled([0.25, 0.765625], dtype=torch.bfloat16) == 0.0


def test_which_shapes_give_every_pair():
    z = torch.zeros(6, 1, requires_grad=True)
    for shape, other, pairs in (
        ((6, 1), (6,), True), ((6,), (6, 1), True), ((2, 1), (2,), True), ((1, 1), (1,), False),
        ((6, 1), (6, 1), False), ((6, 2), (2,), False), ((6, 1), (5,), False), ((6,), (6,), False),
        ((6, 1, 1), (6,), False),
    ):  # fmt: skip
        a, b = z.new_zeros(shape).requires_grad_(), z.new_zeros(other)
        for step in (lambda a, b: (a - b).sum(), lambda a, b: torch.sub(b, a).sum()):
            assert ("broadcast" in flags(step, a, b)) == pairs, (shape, other)


def test_pairs_of_a_nets_own_numbers_are_no_mismatch():
    """Distances between places or time steps, kernels, margins: [N] meets [N, 1] on purpose."""
    steps, rates = torch.arange(6.0), torch.zeros(6, requires_grad=True)
    others, other_rates = torch.arange(5.0), torch.zeros(5, requires_grad=True)
    for step, pairs in (
        (lambda: steps - steps[:, None], False),  # nothing is learnt
        (lambda: rates - rates[:, None], False),  # both are
        (lambda: other_rates - others[:, None], False),  # not as many as the batch has rows
        (lambda: rates - steps[:, None], True),
    ):
        known = seen(lambda step=step: step().sum(), of_batch=torch.zeros(6))[0]
        assert known.get("broadcast", 0.0) == pairs


def test_a_difference_may_be_written_in_any_way_torch_takes():
    z, y = torch.zeros(6, requires_grad=True), torch.zeros(6, 1)
    for step, pairs in (
        (lambda: torch.sub(z, other=y), True),
        (lambda: torch.sub(input=z, other=y), True),
        (lambda: torch.sub(other=z, input=y), True),
        (lambda: z.sub(other=y), True),
        (lambda: torch.sub(z, y, alpha=2), True),
        (lambda: 1 - z, False),
        (lambda: z - 1, False),
        (lambda: torch.sub(z, other=1), False),
        (lambda: z.sub(other=torch.zeros(())), False),
    ):
        known = seen(lambda step=step: step().sum())[0]
        assert known.get("broadcast", 0.0) == pairs


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_squared_error_of_every_pair_has_no_baseline():
    z, y = rows(1)
    facts, (best, blind), _ = seen(functional.mse_loss, z, y.float())
    assert facts["broadcast"] == 1.0
    assert best != best
    assert blind != blind
    facts, (best, _), _ = seen(functional.mse_loss, z, y.float()[:, None])
    assert facts["broadcast"] == 0.0
    assert best == best


def test_the_commonest_class_leaves_three_others_or_chance_decides():
    for count, rare, known in ((16, 2, False), (24, 3, True)):  # eighths, without rounding
        facts = seen(functional.cross_entropy, torch.zeros(count, 2, requires_grad=True),
                     torch.tensor([0] * (count - rare) + [1] * rare))[0]  # fmt: skip
        assert (facts["batch_variety"] == facts["batch_variety"]) == known
    chance = functional.binary_cross_entropy_with_logits
    for count, known in ((7, False), (8, False), (11, False), (13, True)):  # a variance of 1/4
        labels = torch.arange(count) % 2.0
        facts = seen(chance, torch.zeros(count, requires_grad=True), labels)[0]
        assert (facts.get("batch_variety", 0.0) > 0) == known


def test_the_variety_of_several_losses_is_unknown():
    z, y = rows()

    def two(z, y):
        return functional.cross_entropy(z, y) + functional.mse_loss(z[:, 0], y.float())

    assert "batch_variety" in seen(functional.cross_entropy, z, y)[0]
    assert "batch_variety" not in seen(two, z, y)[0]
    assert seen(two, z, y, of_batch=y)[0]["batch_variety"] == pytest.approx(1.0, abs=0.05)


def by_hand(z, y):
    return -z.log_softmax(-1).gather(1, y[:, None]).mean()


def divergence(z, y):
    return functional.kl_div(z.log_softmax(-1), one_hot(y), reduction="batchmean")


def distance(z, y):
    return (z[:, 0] - y.reshape(-1)).abs().add(1.0).log().mean()


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        (functional.cross_entropy, None),
        (by_hand, lambda y: y),
        (by_hand, lambda y: y + 70_000),
        (by_hand, lambda y: y.to(torch.int8)),
        (divergence, None),
        (distance, lambda y: y.float()),
        (distance, lambda y: y.double()[:, None]),
    ],
)
def test_the_variety_of_a_batch_is_known_of_each_loss_from_its_targets(loss, of):
    """Half of a batch's classes are all there is within it: by hand, log 2 over log 4."""
    known, z = Targets(), torch.zeros(64, 4, requires_grad=True)

    def variety(y):
        losses = LossFunctions(known, of_batch=None if of is None else of(y))
        mode = FunctionMode(lambda f, args, kwargs: noted(losses, f, args, kwargs))
        mode.enter()
        loss(z, y)
        mode.leave()
        losses.note_targets()
        return float(losses.measured["batch_variety"])

    mixed = torch.arange(4).repeat(16)
    for _ in range(60):
        assert variety(mixed) == pytest.approx(1.0, abs=0.05)
    few = variety(torch.tensor([0, 1]).repeat(32))
    assert few == pytest.approx(0.2 if loss is distance else 0.5, abs=0.05)  # 1/4 over 5/4
    assert variety(torch.full((64,), 2)) == pytest.approx(0.0, abs=0.02)


def noted(losses, function, args, kwargs):
    result = function(*args, **kwargs)
    losses(function, args, kwargs, result)
    return result


@pytest.mark.parametrize(
    "of_batch",
    [
        torch.zeros(64, 3),
        torch.zeros(64, 3).long(),
        torch.arange(64).to_sparse(),
        torch.zeros(64, dtype=torch.complex64),
        torch.zeros(0),
        torch.zeros(0).long(),
    ],
)
def test_the_variety_of_masks_and_of_several_labels_is_left_unknown(of_batch):
    z, y = rows()
    assert "batch_variety" not in seen(by_hand, z, y, of_batch=of_batch)[0]


def test_what_lies_a_thousandth_outside_can_be_reached():
    def unreachable(activation, *targets):
        z = torch.zeros(len(targets), 1, requires_grad=True)
        y = torch.tensor(targets)[:, None]
        return seen(lambda z, y: functional.mse_loss(activation(z), y), z, y)[0][
            "unreachable_targets"
        ]

    assert unreachable(torch.tanh, 1.0009, -1.0009) == 0.0
    assert unreachable(torch.tanh, 1.0012, 0.0) == 0.5
    assert unreachable(torch.tanh, 0.0, -1.0012) == 0.5
    assert unreachable(torch.sigmoid, -0.5, 0.5) == 0.5
    assert unreachable(functional.relu, -0.5, 500.0) == 0.0  # a thousandth of the largest
    assert unreachable(functional.relu, -0.5, 499.0) == 0.5


def test_an_error_of_probabilities_is_one_of_several_columns_of_0_and_1():
    def error(activation, y):
        z = torch.zeros_like(y).requires_grad_()
        return seen(lambda z, y: functional.mse_loss(activation(z), y), z, y)[0][
            "error_of_probabilities"
        ]

    binary = torch.tensor([[0.0], [1.0], [1.0]])
    assert error(torch.sigmoid, binary) == 1.0
    assert error(torch.sigmoid, binary[:, 0]) == 0.0
    assert error(torch.sigmoid, binary / 2) == 0.0
    assert error(torch.tanh, binary) == 0.0


def test_large_targets_stay_out_of_a_checkpoint_and_small_ones_go_on():
    targets = Targets()
    for width in (1000, 1001):
        targets.mean(torch.ones(4, width))
        targets.are_constant(torch.ones(8, width))
    state = targets.state_dict()
    assert [len(mean) for mean, _ in state["means"]] == [1000]
    assert [len(first[0]) for first, _, _ in state["firsts"]] == [1000]
    again = Targets()
    again.load_state_dict(state)
    assert again.mean(torch.full((4, 1000), 3.0))[0].tolist() == [2.0] * 1000
    assert again.are_constant(torch.ones(8, 1000)) == 1.0
    assert again.are_constant(torch.ones(8, 1001)).isnan()  # eight rows are few
    again.load_state_dict(again.state_dict())
    assert again.are_constant(torch.full((1, 1000), 2.0)) == 0.0


def test_the_variance_is_that_of_the_last_fifty_batches():
    targets = Targets()
    targets.variance(torch.tensor([100.0]))
    for _ in range(49):
        found = targets.variance(torch.tensor([1.0]))
    assert float(found) == pytest.approx(49 / 50 * (99 / 50) ** 2 + (99 * 49 / 50) ** 2 / 50)
    again = Targets()
    again.load_state_dict(targets.state_dict())
    for each in (targets, again):
        assert float(each.variance(torch.tensor([1.0]))) == 0.0


def test_divergence_margin_and_signs_note_targets_that_are_all_one():
    z, y = rows()
    divergence, signs = functional.kl_div, functional.soft_margin_loss
    steps = [
        lambda z, y: divergence(z.log_softmax(1), one_hot(y), reduction="batchmean"),
        lambda z, y: functional.multi_margin_loss(z, y),
        lambda z, y: signs(z, 2 * one_hot(y) - 1),
        lambda z, y: functional.binary_cross_entropy_with_logits(z, one_hot(y)),
    ]
    for step in steps:
        assert "constant_targets" in flags(step, z, y * 0)
        assert "constant_targets" not in flags(step, z, y)


def test_a_divergence_of_logarithms_is_that_of_the_probabilities_behind_them():
    z, _ = rows()
    p = torch.rand(64, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    plain = lambda z, p: functional.kl_div(z.log_softmax(1), p, reduction="batchmean")  # noqa: E731
    logs = lambda z, p: functional.kl_div(  # noqa: E731
        z.log_softmax(1), p.log(), reduction="batchmean", log_target=True
    )
    assert seen(plain, z, p)[1] == pytest.approx(seen(logs, z, p)[1], rel=1e-4)
    assert seen(plain, z, p)[1][1] > 0
    vector = lambda z, p: functional.kl_div(  # noqa: E731
        z[0].log_softmax(0), p[0], reduction="sum"
    )
    assert seen(vector, z, p)[1][0] != seen(vector, z, p)[1][0]  # of a single row it is unknown


def test_errors_of_chances_over_any_dimension_are_seen_and_end_no_fit():
    chances = torch.zeros(8, 3, 4, 4, requires_grad=True)  # of three classes, by pixel
    target = functional.one_hot(torch.arange(128).reshape(8, 4, 4) % 3).movedim(3, 1).float()
    for moved in (lambda t: t, lambda t: t.movedim(1, 3), lambda t: t.flatten(2)):
        z, y = moved(chances), moved(target)
        for loss in (functional.mse_loss, functional.l1_loss):
            dim = 3 if z.shape[1] == 4 else 1
            facts, (best, _), _ = seen(lambda z, y: loss(z.softmax(dim), y), z, y)  # noqa: B023
            assert facts["error_of_probabilities"] == 1.0
            assert best != best
    _, (best, blind), _ = seen(lambda z, y: functional.l1_loss(z.sigmoid(), y), chances, target)
    assert (best, blind) == pytest.approx((1 / 3, 0.5))  # 0 where the yes is rarer


@pytest.mark.parametrize("loss", [functional.l1_loss, functional.soft_margin_loss])
def test_a_loss_of_no_rows_or_of_a_single_number_ends_no_fit(loss):
    z, _ = rows()

    def parts(z, y):  # boxes of a batch in which there is none
        return loss(z[:0], y[:0], reduction="sum") + functional.mse_loss(z, y)

    y = torch.arange(256.0).reshape(64, 4)
    assert seen(parts, z, y)[1] == pytest.approx(seen(functional.mse_loss, z, y)[1])
    assert "constant_targets" not in seen(lambda z, y: loss(z[0, 0], y[0, 0]), z, y)[0]
