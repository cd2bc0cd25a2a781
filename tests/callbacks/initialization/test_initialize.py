"""`initialize`: the same choice for everyone without a Trainer."""

import dataclasses
import io
import math

import lightning.pytorch as lightning
import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils._pytree import tree_leaves

from lightning_stab import WeightInitialization, initialize
from lightning_stab.callbacks.initialization import first_batch, program
from lightning_stab.callbacks.initialization.program import program_of
from lightning_stab.callbacks.initialization.report import (
    markdown_table,
    print_table,
    profile_figure,
)
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization import WeightRecord
from lightning_stab.functional.sampling import fixed_signs


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 2


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net()

    def training_step(self, batch, batch_idx):
        self.log("loss", 0.0)  # heard by nobody here
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x)


def values(module):
    return [p.detach() for p in module.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(values(a), values(b), strict=True))


def test_every_form_of_batch_leads_to_the_same_weights():
    forms = [
        (net(), X, None),
        (net(), (X, Y), None),
        (net(), (X, Y), lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1])),
        (Named(), {"x": X}, None),
        (Module(), (X, Y), None),
    ]
    for module, batch, loss_fn in forms:
        records = initialize(module, batch, loss_fn=loss_fn, seed=4)
        assert [r.preceding for r in records] == ["input", "ReLU", "Tanh"]
        assert all(r.gradient_rms_after > 0 for r in records)
        assert equal(module, forms[0][0])


def test_it_is_what_the_callback_does(tmp_path):
    plain, fitted = Module(), Module()
    initialize(plain, (X, Y), seed=7)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 16)
    lightning.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=WeightInitialization(seed=7, verbose=False),
    ).fit(fitted, loader)  # fmt: skip
    assert equal(plain, fitted)


def test_without_a_batch_the_order_of_declaration_counts():
    assert [r.scheme for r in initialize(net())] == [
        "xavier_normal", "kaiming_normal", "xavier_normal",
    ]  # fmt: skip


def test_the_batch_and_the_module_stay_apart_from_the_copy():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = net(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x.mul_(2))

    module, batch = Careless(), X.clone()
    initialize(module, batch)
    assert module.calls == 0
    assert torch.equal(batch, X)


def test_compiled_parts_run_as_they_were_written():
    module = net()
    module[2] = torch.compile(module[2], backend="eager")
    assert [r.preceding for r in initialize(module, X)] == ["input", "ReLU", "Tanh"]


@pytest.mark.parametrize("cut", [slice(2, 3), slice(1, 3), slice(0, 5)])
def test_a_net_with_compiled_parts_gets_the_weights_of_the_same_net(cut):
    plain, compiled = net(), net()
    parts = list(compiled)
    inner = parts[2] if cut == slice(2, 3) else nn.Sequential(*parts[cut])
    parts[cut] = [torch.compile(inner, backend="eager")]
    records = initialize(nn.Sequential(*parts), X)
    expected = initialize(plain, X)
    assert [(r.preceding, r.scheme) for r in records] == [(r.preceding, r.scheme) for r in expected]
    assert [r.activation_std_after for r in records] == [r.activation_std_after for r in expected]
    assert equal(compiled, plain)


def test_a_layer_that_is_called_by_keyword_is_corrected_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 8)

        def forward(self, x):
            return self.layer(input=x)

    (record,) = initialize(Named(), 100 * X)
    assert record.activation_std_before > 10
    assert record.activation_std_after == pytest.approx(1, rel=0.1)


def test_a_bad_seed_is_refused():
    with pytest.raises(InvalidArgumentError, match="`seed` must be an integer >= 0"):
        initialize(net(), seed=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": "head.*"}, "`include` must be a list"),
        ({"schemes": {"a": "zeros"}}, "stay identical for ever"),
        ({"schemes": {"a": "xavier"}}, "`schemes` must be one of"),
        ({"output_prior": [0.0, 1.0]}, "`output_prior` must be > 0"),
    ],
)
def test_bad_wishes_get_one_sentence(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        WeightInitialization(**arguments)


def lazy_and_eager():
    lazy = nn.Sequential(
        nn.LazyConv2d(6, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8),
        nn.Tanh(), nn.Linear(8, 2),
    )  # fmt: skip
    eager = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 8),
        nn.Tanh(), nn.Linear(8, 2),
    )  # fmt: skip
    return lazy, eager


def test_lazy_layers_are_drawn_as_if_they_had_had_their_shapes_from_the_start():
    lazy, eager = lazy_and_eager()
    held = [id(parameter) for parameter in lazy.parameters()]
    images = torch.randn(3, 4, 6, 6)
    state = torch.get_rng_state()
    records = initialize(lazy, images)
    assert torch.equal(torch.get_rng_state(), state)
    expected = initialize(eager, images)
    assert [(r.name, r.preceding, r.scheme) for r in records] == [
        (r.name, r.preceding, r.scheme) for r in expected
    ]
    torch.testing.assert_close(lazy.state_dict(), eager.state_dict(), rtol=0, atol=0)
    assert [type(part) for part in lazy] == [type(part) for part in eager]
    assert [id(parameter) for parameter in lazy.parameters()] == held


def test_a_second_copy_takes_the_memory_of_the_first_and_the_values_of_now():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LazyLinear(2))
    program = program_of(net, torch.randn(5, 4))
    first = program.copy()
    program.loss(first).backward()
    places = [parameter.data_ptr() for parameter in first[0].parameters()]
    initialize(net, torch.randn(5, 4))
    net[1].running_mean.fill_(2.0)
    second = program.copy()
    assert [parameter.data_ptr() for parameter in second[0].parameters()] == places
    assert net[0].weight.data_ptr() not in places
    torch.testing.assert_close(second.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in second.parameters())


def test_a_module_that_returns_no_tensor_is_read_forwards_only():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.unused = nn.LazyLinear(3)

        def forward(self, x):
            return {"result": self.layer(x)}

    record, unused = initialize(Several(), torch.randn(5, 4))
    assert unused.reason.startswith("lazy")
    assert record.activation_std_after == pytest.approx(1.0, rel=0.6)
    assert record.gradient_rms_after is None


def test_gradients_of_outputs_are_read_on_the_way_and_none_is_kept(monkeypatch):
    asked, original = [], torch.autograd.grad

    def grad(loss, inputs, **keywords):
        asked.append(len(inputs))
        return original(loss, inputs, **keywords)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    records = initialize(net(), X)
    assert asked == [1, 1]  # of three layers

    kept, module = {}, net()
    initialize(module, X)
    for name in ("0", "2", "4"):
        part = module[int(name)]
        part.register_forward_hook(lambda *call, name=name: kept.update({name: call[2]}))
    output = module(X)
    for each in kept.values():
        each.retain_grad()
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    ((output * direction).sum() / direction.norm()).backward()
    for record in records:
        rms = kept[record.layer].grad.square().mean().sqrt()
        assert record.gradient_rms_after == pytest.approx(float(rms), rel=1e-5)


def test_a_large_result_is_weighed_by_fixed_signs(monkeypatch):
    program = program_of(nn.Identity(), torch.ones(2, 3))
    small = program.loss(program.copy())
    monkeypatch.setattr("lightning_stab.callbacks.initialization.program.LARGE", 5)
    large = program.loss(program.copy())
    assert float(large) == pytest.approx(float(fixed_signs(torch.empty(2, 3)).sum()) / 6**0.5)
    assert float(small) != float(large)


def record(name, **given):
    usual = {"layer": "", "shape": (8, 4), "preceding": "ReLU", "scheme": "mirrored orthogonal",
             "gain": 1.23456}  # fmt: skip
    return WeightRecord(name, **{**usual, **given})


MEASURED = {"std_before": 0.11111, "std_after": 0.5, "activation_std_before": 0.2,
            "activation_std_after": 1.0, "gradient_rms_before": 1e-5,
            "gradient_rms_after": 2e-3}  # fmt: skip


def printed(records):
    console = Console(record=True, width=120, file=io.StringIO())
    print_table(records, console)
    return [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]


def test_neighbours_that_were_treated_alike_share_a_row():
    alike = [record(f"net.{i}.weight", **MEASURED) for i in (2, 4)]
    alike[1] = dataclasses.replace(alike[1], activation_std_after=3.0, activation_std_before=None)
    lines = printed([*alike, record("head.weight", reason="frozen")])
    assert lines[0] == "Weights initialised: 2 of 3"
    assert lines[1] == "layer shape after scheme gain signal gradient"
    assert lines[3:] == [
        "net.2-4 (2) 8x4 ReLU mirrored 1.235 0.2→2 1e-05→0.002",
        "head 8x4 ReLU left alone: frozen 1.235",
    ]
    plain = printed([record("a.weight", std_before=0.1, std_after=0.25)])
    assert plain[1] == "layer shape after scheme gain std"
    assert plain[3] == "a 8x4 ReLU mirrored 1.235 0.1→0.25"


def test_the_table_of_text_has_every_number():
    (_, _, row) = markdown_table([record("a", **MEASURED)]).splitlines()
    assert row.strip("| ").split(" | ") == [
        *("a", "8 x 4", "ReLU", "mirrored orthogonal", "1.235"),
        *("0.1111", "0.5", "0.2", "1", "1e-05", "0.002"),
    ]
    assert markdown_table([record("a")]).count("\n") == 2


def test_the_figure_shows_signal_and_gradient_over_depth():
    pytest.importorskip("matplotlib")
    records = [record("a", **MEASURED), record("b", **{**MEASURED, "activation_std_before": 0.0})]
    signal, gradient = profile_figure(records).axes
    before, after = signal.lines
    assert before.get_xdata().tolist() == [1, 2]
    assert before.get_ydata()[0] == 0.2
    assert math.isnan(before.get_ydata()[1])  # a zero is a gap
    assert after.get_ydata().tolist() == [1.0, 1.0]
    assert gradient.lines[1].get_ydata().tolist() == [2e-3, 2e-3]
    assert [panel.get_yscale() for panel in (signal, gradient)] == ["log", "log"]


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        ((torch.zeros(90, 2), torch.zeros(90)), 64),
        ({"x": torch.zeros(65, 2)}, 64),
        (torch.zeros(63, 2), 63),
        ((torch.zeros(90, 2), torch.zeros(89)), 90),  # not one entry a sample
        (torch.zeros(90, 90).to_sparse(), 90),
        ((torch.zeros(90, 2), torch.tensor(1.0)), 64),
    ],
)
def test_a_batch_is_cut_to_its_first_64_samples(batch, rows):
    cut = program._first_samples(batch)
    first = next(t for t in tree_leaves(cut) if t.dim())
    assert len(first) == rows


class Sampler:
    sampler = None


def test_samplers_that_wrap_each_other_are_followed_once():
    inner, outer = Sampler(), Sampler()
    outer.sampler = inner
    assert first_batch._samplers(outer) == [outer, inner]
    inner.sampler = outer
    assert first_batch._samplers(outer) == [outer, inner]
    assert first_batch._samplers(None) == []
