"""Modules, data and losses as they come: the doctor watches them and is never in the way."""

import copy
import math
from functools import partial

import lightning.pytorch as lightning
import pytest
import torch
from helpers.comparing import hooks_of, same_state
from helpers.doctor_programs import (
    CLASSES,
    FEATURES,
    Program,
    alarms,
    doctor,
    ids,
    learnable,
    loader,
    mlp,
    modes_left,
    numbers,
    samples,
)
from helpers.lightning_twins import fit
from helpers.small_modules import FromParts
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

double = torch.compile(lambda x: 2 * torch.relu(x), backend="eager")  # known by its name


def watched(make, data=None, epochs=1, **options):
    """Fit with and without a doctor; the results are the same. Return the findings."""
    data = learnable(160) if data is None else data
    modules = []
    for watcher in (None, doctor(2)):
        torch.manual_seed(0)
        module = make()
        callbacks = [] if watcher is None else [watcher]
        trainer = fit(module, callbacks, data, epochs=epochs, **options)
        modules.append(trainer.lightning_module)
    assert same_state(*modules)
    assert hooks_of(modules[1]) == []
    assert modes_left() == 0
    return watcher.findings


class Attention(nn.Module):
    """Calls torch's attention function in one of the forms that it takes."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.query = nn.Linear(FEATURES, 16)
        self.key = nn.Linear(FEATURES, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = torch.stack([x, x.roll(1, 1), x.roll(2, 1)], 1)
        query = self.query(x).unflatten(-1, (4, 4)).transpose(1, 2)
        key = self.key(x)[:, None]
        attend = functional.scaled_dot_product_attention
        if self.form == "grouped":
            out = attend(query, key.repeat(1, 2, 1, 1), key.repeat(1, 2, 1, 1), enable_gqa=True)
        elif self.form == "named":
            out = attend(query=query, key=key, value=key, scale=0.3)
        elif self.form == "flat":
            out = attend(query[:, 0].flatten(0, 1), key.flatten(0, 2), key.flatten(0, 2))
            out = out.unflatten(0, (len(x), 3))[:, None]
        else:
            out = attend(query, key, key, is_causal=self.form == "causal")
        return self.head(out.mean((1, 2)))


@pytest.mark.parametrize("form", ["grouped", "named", "flat", "causal", "broadcast"])
def test_attention_in_every_form(form):
    assert alarms(watched(lambda: Program(Attention(form)))) == set()


class Transformed(nn.Module):
    """Uses ``torch.func`` in its forward pass."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = mlp(), kind

    def forward(self, x):
        one = lambda row: self.net(row[None])[0]  # noqa: E731
        if self.kind == "vmap":
            return torch.func.vmap(one)(x)
        if self.kind == "jacobian":
            return self.net(x) + torch.func.vmap(torch.func.jacrev(one))(x).mean(-1)
        if self.kind == "relu":
            return torch.func.vmap(lambda row: functional.relu(one(row)) + one(row))(x)
        truth = torch.zeros(len(x)).long()
        loss = torch.func.vmap(lambda row, y: functional.cross_entropy(one(row)[None], y[None]))
        return self.net(x) + loss(x, truth)[:, None]


@pytest.mark.parametrize("kind", ["vmap", "jacobian", "relu", "loss"])
def test_what_runs_under_a_function_transform_is_left_alone(kind):
    watched(lambda: Program(Transformed(kind)))


def test_a_gradient_penalty():
    class Penalised(Program):
        def training_step(self, batch, batch_idx):
            x = batch[0].requires_grad_()
            loss = self.loss(self(x), batch[1])
            (slope,) = torch.autograd.grad(loss, x, create_graph=True)
            return loss + slope.square().sum()

    watched(lambda: Penalised(mlp(activation=nn.Tanh)))


class Copies(Program):
    """Copies its net behind the forward pass, as target networks and averages do."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        copied = copy.deepcopy(self.net)
        copied(batch[0]).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in copied.parameters())
        return loss


class Mixed(nn.Module):
    """Everything that is watched in its own way."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(1, 4, batch_first=True)
        self.cell = nn.GRUCell(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, x):
        x = x[..., None]
        seen, _ = self.recurrent(x)
        seen = seen + self.attention(seen, seen, seen)[0]
        return self.head(seen.mean(1) + self.cell(x[:, 0]))


def test_a_module_may_be_copied_while_it_is_watched():
    watched(lambda: Copies(Mixed()))


class Prompted(nn.Module):
    """A parameter is itself the input of the recurrent layer."""

    def __init__(self):
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(16, 12, 4))
        self.recurrent = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.head(
            self.recurrent(self.prompt[: len(x)] if len(x) < 16 else self.prompt)[0][:, -1]
        )


def test_no_hook_is_left_on_a_parameter():
    watched(lambda: Program(Prompted()))


def test_packed_and_unbatched_sequences():
    def forward(net, x):
        lengths = torch.arange(len(x)) % FEATURES + 1
        pack = nn.utils.rnn.pack_padded_sequence
        packed = pack(x[..., None], lengths, batch_first=True, enforce_sorted=False)
        alone = net.recurrent(x[:1].T.repeat(2, 1))[1]
        return net.head(net.recurrent(packed)[1][0] + alone)

    def net():
        recurrent, head = nn.GRU(1, 6, batch_first=True), nn.Linear(6, CLASSES)
        return FromParts(forward, recurrent=recurrent, head=head)

    watched(lambda: Program(net()))


class Unmade(Program):
    """Has parameters that the first batch makes."""

    def __init__(self, error=None):
        net = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(CLASSES))
        super().__init__(net, optimizer=partial(torch.optim.SGD, lr=0.1))
        self.error = error

    def training_step(self, batch, batch_idx):
        if self.error:
            raise self.error
        return super().training_step(batch, batch_idx)


def test_lazy_modules():
    watched(Unmade)
    with pytest.raises(KeyError, match="mine"):
        fit(Unmade(KeyError("mine")), [doctor()], learnable())


def test_sparse_gradients():
    def forward(net, x):
        return net.head(net.words((3 * x.abs()).long().clamp(max=9)).mean(1))

    def program():
        words, head = nn.Embedding(10, 6, sparse=True), nn.Linear(6, CLASSES)
        net = FromParts(forward, words=words, head=head)
        return Program(net, optimizer=partial(torch.optim.SGD, lr=0.1))

    assert alarms(watched(program, epochs=3)) == set()


def test_parameters_of_no_two_dimensions():
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(FEATURES) / 8)
            self.offset = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return (x @ self.weight + self.offset)[:, None]

    make = lambda: Program(Vector(), functional.mse_loss)  # noqa: E731
    assert alarms(watched(make, numbers(160), epochs=2)) == set()


def test_parameters_that_are_no_floats_or_empty():
    class Quantised(Program):
        def __init__(self):
            super().__init__(mlp())
            self.codes = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
            self.mask = nn.Parameter(torch.ones(4, dtype=torch.bool), requires_grad=False)
            self.phase = nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))
            self.nothing = nn.Parameter(torch.zeros(0, 4))

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss + 0.01 * self.phase.abs().square().mean() + self.nothing.sum()

    assert alarms(watched(Quantised)) == set()


def test_shared_parameters_and_layers_that_run_twice():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.twice = nn.Linear(FEATURES, 8), nn.Linear(8, 8)
            self.also = self.twice
            self.last = nn.Linear(8, 8)
            self.last.weight = self.first.weight
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = torch.relu(self.also(torch.relu(self.twice(x))))
            return self.head(torch.relu(self.last(x)))

    assert alarms(watched(lambda: Program(Tied()), epochs=2)) == set()


def test_frozen_layers_adapters_and_parametrizations():
    def make():
        net = mlp(3)
        net[0].requires_grad_(False)
        nn.utils.parametrizations.weight_norm(net[2])
        nn.utils.parametrizations.orthogonal(net[4])
        return Program(net)

    assert alarms(watched(make, epochs=2)) == set()


class Endless(IterableDataset):
    """Batches whose number nobody knows."""

    def __iter__(self):
        return iter(list(learnable(320)))


def test_data_without_a_length():
    findings = watched(lambda: Program(mlp()), DataLoader(Endless(), batch_size=None), epochs=2)
    assert alarms(findings) == set()
    watched(lambda: Program(mlp()), DataLoader(Endless(), batch_size=None), epochs=-1, max_steps=9)


def test_batches_of_one_sample_and_a_short_last_one():
    x, y = samples(21)
    watched(lambda: Program(mlp()), loader(x, y, 1))
    watched(lambda: Program(mlp()), loader(x, y, 5), epochs=3)


@pytest.mark.filterwarnings("ignore:.*returned `None`.*")
def test_steps_without_a_loss():
    class Sometimes(Program):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return None if batch_idx in (0, 1, 4, 9) else loss

    watched(lambda: Sometimes(mlp()), learnable(320))
    watched(lambda: Sometimes(mlp()), learnable(320), accumulate_grad_batches=2)


@pytest.mark.filterwarnings("ignore:.*returned `None`.*", "ignore:.*with no optimizer.*")
def test_an_epoch_without_any_loss_and_a_module_without_an_optimizer():
    class Never(Program):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)

    class Manual(Program):
        def __init__(self, net):
            super().__init__(net)
            self.automatic_optimization = False

        def configure_optimizers(self):
            return None

    watched(lambda: Never(mlp()))
    watched(lambda: Manual(mlp()))


class Named(Program):
    """Logs metrics under any names."""

    names = ()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log_dict({name: loss.detach() for name in self.names})
        return loss

    def validation_step(self, batch, batch_idx):
        self.log_dict({f"{name} again": torch.tensor(float("nan")) for name in self.names})
        self.log("val_loss", math.inf)
        self.log("val_acc", math.nan)


class Both(lightning.LightningDataModule):
    def train_dataloader(self):
        return learnable(160)

    def val_dataloader(self):
        return learnable(32)


def test_metrics_of_odd_names_and_values():
    class Odd(Named):
        names = ("", "val", "val_", "VAL/Loss", "{epoch}", "loss:val", "acc%", "ünï", "diagnosis/x")

    # its validation loss is NaN at times, and that is reported
    assert alarms(watched(lambda: Odd(mlp()), Both(), epochs=3)) <= {"non-finite"}


def test_dictionaries_several_losses_and_tuples():
    class Several(Program):
        def training_step(self, batch, batch_idx):
            x, y = batch["x"], batch["y"]
            logits = self(x)
            loss = functional.cross_entropy(logits, y, label_smoothing=0.1)
            loss = loss + 0.1 * functional.mse_loss(logits, torch.zeros_like(logits))
            loss = loss + functional.nll_loss(logits.log_softmax(1), y, weight=torch.ones(CLASSES))
            return {"loss": loss, "logits": logits.detach()}

    x, y = samples(160)
    data = DataLoader([{"x": a, "y": b} for a, b in zip(x, y, strict=True)], batch_size=16)
    assert alarms(watched(lambda: Several(mlp()), data, epochs=2)) == set()


def test_losses_with_weights_probabilities_and_ignored_targets():
    x, y = samples(160)
    soft = functional.one_hot(y, CLASSES).float()
    masked = torch.where(torch.arange(len(y)) % 3 == 0, -100, y)
    weights = torch.tensor([1.0, 2.0, 3.0])
    for loss, target in (
        (nn.CrossEntropyLoss(weight=weights), y),
        (lambda z, t: functional.cross_entropy(z, t, weights), y),
        (nn.CrossEntropyLoss(reduction="sum"), y),
        (lambda z, t: functional.cross_entropy(z, t, reduction="none").mean(), y),
        (nn.CrossEntropyLoss(), soft),
        (nn.CrossEntropyLoss(), masked),
        (nn.BCEWithLogitsLoss(pos_weight=weights), soft),
        (nn.MultiMarginLoss(), y),
        (lambda z, t: functional.cross_entropy(target=t, input=z), y),
    ):
        findings = watched(partial(Program, mlp(), loss), loader(x, target))
        assert alarms(findings) == set(), loss


def test_logits_over_time_and_space():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv1d(1, CLASSES, 3, padding=1)

        def forward(self, x):
            return self.net(x[:, None])

    x, _ = samples(160)
    y = torch.where(x > 0.5, 2, torch.where(x < -0.5, 1, 0))
    assert alarms(watched(lambda: Program(Sequence()), loader(x, y), epochs=3)) == set()


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor.*")  # torch's own, in compiling
def test_compiled_functions_are_not_compiled_again():
    watched(lambda: Program(FromParts(lambda m, x: double(m.net(x)), net=mlp())))
    torch._dynamo.reset()


def test_a_sparse_relu():
    def forward(module, x):
        idle = torch.relu(torch.eye(len(x)).to_sparse())
        return module.net(torch.sparse.mm(idle, x))

    watched(lambda: Program(FromParts(forward, net=mlp())))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_a_doubled_softmax_is_seen_in_other_precisions(precision):
    program = lambda: Program(nn.Sequential(mlp(), nn.Softmax(1)))  # noqa: E731
    assert "output-activation" in ids(watched(program, precision=precision))
    healthy = watched(lambda: Program(mlp()), precision=precision)
    assert "output-activation" not in ids(healthy)


def test_many_layers_are_named_by_the_first():
    net = nn.Sequential(*(nn.Linear(FEATURES, FEATURES) for _ in range(60)), nn.Linear(8, 3))
    for layer in net[:-1]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    findings = watched(lambda: Program(copy.deepcopy(net)))
    finding = next(f for f in findings if f.id == "bad-initialization")
    assert len(finding.layers) > 50
    assert "more" in finding.message
    assert len(finding.message) < 300


class Raw(Program):
    """Calls backward itself, with or without Lightning's helper, and clears where it likes."""

    def __init__(self, net, *, helper, clear):
        super().__init__(net)
        self.automatic_optimization = False
        self.helper, self.clear = helper, clear

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        if self.clear == "before":
            optimizer.zero_grad()
        self.manual_backward(loss) if self.helper else loss.backward()
        optimizer.step()
        if self.clear == "after":
            optimizer.zero_grad()


@pytest.mark.parametrize("helper", [True, False])
@pytest.mark.parametrize("clear", ["before", "after", "never"])
def test_gradients_that_add_up_are_distinguished_from_those_that_are_cleared(helper, clear):
    findings = watched(lambda: Raw(mlp(), helper=helper, clear=clear))
    stale = any("stale_gradients" in f.evidence for f in findings)
    assert stale == (clear == "never" and helper)  # a backward pass of its own is not seen


def test_accumulated_gradients_are_not_stale():
    for count in (2, 3, 7):
        findings = watched(lambda: Program(mlp()), accumulate_grad_batches=count)
        assert not any("stale_gradients" in f.evidence for f in findings)


def test_a_schedule_of_accumulation():
    scheduler = lightning.callbacks.GradientAccumulationScheduler
    modules = []
    for callbacks in ([], [doctor(2)]):
        torch.manual_seed(0)
        module = Program(mlp())
        fit(module, [scheduler({0: 1, 1: 3}), *callbacks], learnable(160), epochs=2)
        modules.append(module)
    assert same_state(*modules)


def test_layers_in_a_plain_list_are_found_and_those_in_a_module_list_are_not():
    class Listed(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layers = kind([nn.Linear(FEATURES, FEATURES)])
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)

    assert "unused-parameters" in ids(watched(lambda: Program(Listed(list))))
    assert "unused-parameters" not in ids(watched(lambda: Program(Listed(nn.ModuleList))))


def test_sparse_nested_and_strange_batches():
    class Strange(Program):
        def training_step(self, batch, batch_idx):
            x = batch["x"].to_dense() if batch["x"].is_sparse else batch["x"]
            return self.loss(self(x), batch["y"])

    x, y = samples(64)
    dense = [{"x": x[i : i + 8], "y": y[i : i + 8]} for i in range(0, 64, 8)]
    for change in (
        lambda b: {**b, "x": b["x"].to_sparse()},
        lambda b: {"none": None, "text": ["a"], "object": object(), **b},
        lambda b: {"empty": torch.zeros(0, 3), "number": torch.tensor(1.0), **b},
        lambda b: {"phase": torch.ones(8, dtype=torch.complex64), **b},
        lambda b: {"half": torch.ones(8, dtype=torch.float16), "flag": torch.ones(8) > 0, **b},
    ):
        data = DataLoader([change(b) for b in dense], batch_size=None)
        watched(lambda: Strange(mlp()), data)


def test_all_gradients_may_be_sparse():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.EmbeddingBag(10, CLASSES, sparse=True)

        def forward(self, x):
            return self.words((3 * x.abs()).long().clamp(max=9))

    watched(lambda: Program(Bag(), optimizer=partial(torch.optim.SGD, lr=0.1)))
    watched(lambda: Program(Bag(), optimizer=partial(torch.optim.SparseAdam, lr=0.1)))
