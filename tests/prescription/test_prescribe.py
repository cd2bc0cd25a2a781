"""`prescribe`: cures are tried against the untreated program, and nothing of the user's changes."""

import os
import random
import signal

import numpy as np
import pytest
import torch
import yaml
from helpers.processes import run_code
from helpers.sick_programs import KWARGS, Classifier, make_healthy, make_loaders, make_zero
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

import lightning_stab
from lightning_stab import WeightInitialization, prescribe
from lightning_stab.errors import ConflictError, InvalidArgumentError

pytestmark = pytest.mark.filterwarnings("ignore")


def prescribed(make_module=make_zero, make_data=make_loaders, **options):
    return prescribe(make_module, make_data, **{"trainer_kwargs": KWARGS, **options})


@pytest.fixture(scope="module")
def cured():
    return prescribed()


def test_a_net_of_zeros_is_cured_by_initialisation(cured):
    best = cured.best
    assert (best.id, best.for_finding, best.outcome) == (
        "initialization",
        "bad-initialization",
        "cured",
    )
    assert best.metric < 0.3 < 0.6 < best.metric_untreated
    assert best.metric_untreated - best.metric > best.noise > 0
    assert best.steps == 2 * 40
    assert best.seeds == 2
    # two runs with the cure, half a run without it, and others that were stopped at a fifth
    assert 2.5 <= cured.cost <= 3.0
    assert cured.exit_code == 0
    assert cured.overlay == {
        "trainer": {
            "callbacks+": [
                {
                    "class_path": "lightning_stab.WeightInitialization",
                    "init_args": {"scheme": "auto"},
                }
            ]
        }
    }


def test_the_text_has_table_sentence_and_overlay(cured, tmp_path):
    text = str(cured)
    assert "`initialization` cures bad-initialization: val_loss is 0." in text
    assert "Draw the weights of these layers at random" in text
    assert "not tried" in text
    cured.to_yaml(tmp_path / "cure.yaml")
    written = (tmp_path / "cure.yaml").read_text()
    assert yaml.safe_load(written) == cured.overlay
    assert written.splitlines()[1] in text
    plain = cured.to_dict()
    assert plain["best"] == "initialization"
    assert [c["outcome"] for c in plain["cures"]][-1] == "not tried"


def test_what_is_built_has_the_cure_and_is_new(cured):
    module, data, arguments = cured.build()
    other = cured.build()
    assert other[0] is not module
    assert isinstance(arguments["callbacks"][-1], WeightInitialization)
    trainer = Trainer(**arguments)
    trainer.fit(module, *data)
    assert float(trainer.callback_metrics["val_loss"]) < 0.3


def test_a_healthy_program_has_nothing_to_cure():
    found = prescribed(make_healthy)
    assert found.is_healthy
    assert found.best is None
    assert found.cures == ()
    assert found.cost == found.exit_code == 0
    assert "Nothing to cure: nothing wrong was found in 40 optimizer steps." in str(found)
    module, _, arguments = found.build()
    assert isinstance(module, Classifier)
    assert "callbacks" not in arguments


def test_where_nothing_helps_it_says_so():
    found = prescribed(cures=["clip"], seeds=1, max_cost=1.0)
    assert found.best is None
    assert found.exit_code == 1
    assert found.overlay is None
    assert [c.outcome for c in found.cures] == ["no better"]
    assert found.remaining[0].startswith("Add `WeightInitialization(")
    again = prescribed(cures=[leave, "larger-batch"], seeds=1, max_cost=2.0)
    assert again.remaining == found.remaining  # neither is advised for it
    assert "Not cured (bad-initialization): the one cure tried did not beat" in found.sentence
    assert found.cost <= 1.0


def test_nothing_of_the_users_is_touched(folder, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    theirs = WeightInitialization(verbose=False)
    checkpoint = ModelCheckpoint(dirpath="their_checkpoints")
    kwargs = {**KWARGS, "callbacks": [theirs, checkpoint], "enable_checkpointing": True}
    kwargs |= {"logger": True, "default_root_dir": "their_root"}
    before = dict(kwargs), list(kwargs["callbacks"]), dict(vars(theirs))
    states = torch.get_rng_state(), random.getstate()
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002  # what users seed
    handler = signal.getsignal(signal.SIGINT)
    found = prescribed(trainer_kwargs=kwargs, cures=["clip"], seeds=1, max_cost=1.0)
    assert found.is_healthy  # because of their callback
    assert (kwargs, kwargs["callbacks"], vars(theirs)) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002
    assert os.listdir() == []
    assert "PL_GLOBAL_SEED" not in os.environ
    assert signal.getsignal(signal.SIGINT) is handler


def draw(module, data, trainer_kwargs):
    """Draw the weights at random."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def leave(module, data, trainer_kwargs):
    return module, data, trainer_kwargs


@pytest.mark.nightly
def test_a_function_of_the_users_is_tried_first():
    found = prescribed(cures=[leave, draw, "clip"], max_cost=4.0)
    assert next(c.id for c in found.cures) == "draw"
    best = found.best
    assert best.what == "Draw the weights at random."
    assert best.outcome == "cured"
    assert best.overlay is None
    assert best.code == ("draw(module, data, trainer_kwargs)",)
    assert found.to_yaml.__self__.yaml() == ""
    assert any(p.any() for p in found.build()[0].parameters())


@pytest.mark.parametrize("max_cost", [3.0, pytest.param(3.5, marks=pytest.mark.nightly)])
def test_the_budget_is_kept(max_cost):
    found = prescribed(cures=[leave, "clip", "lower-learning-rate", draw], max_cost=max_cost)
    assert 0 < found.cost <= max_cost
    twins = found.cost - sum(c.cost for c in found.cures)
    assert any(abs(twins - part) < 1e-6 for part in (0.0, 0.5, 0.6, 1.0))
    assert any(c.reason == "Others came first." for c in found.cures)


@pytest.mark.nightly
def test_losers_are_stopped_early():
    found = prescribed(cures=[draw, leave, "clip"], max_cost=5.0)
    costs = {c.id: c.cost for c in found.cures}
    assert costs["draw"] == 2.0
    assert costs["leave"] == 0.2
    assert costs["clip"] == 0.0  # a cure was found


def test_an_interruption_keeps_what_is_known():
    def stop(module, data, trainer_kwargs):
        raise KeyboardInterrupt

    found = prescribed(cures=[draw, stop], seeds=1, max_cost=5.0)
    assert found.interrupted
    assert found.best.id == "draw"
    assert found.sentence.startswith("The search was interrupted. `draw` cures")
    assert found.cures[1].reason == "The search was interrupted."


def test_a_cure_that_cannot_be_applied_is_not_tried():
    def fail(module, data, trainer_kwargs):
        raise ValueError("no such thing")

    found = prescribed(cures=[fail], seeds=1, max_cost=1.0)
    assert (found.cures[0].outcome, found.cures[0].reason) == (
        "not tried",
        "ValueError: no such thing",
    )


SHARED = Classifier()
CONSUMED = iter(DataLoader(TensorDataset(torch.randn(64, 4), torch.zeros(64).long()), 8))
LIVING = torch.Generator().manual_seed(0)


def make_living():
    train, val = make_loaders()
    return DataLoader(train.dataset, batch_size=32, shuffle=True, generator=LIVING), val


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"make_module": lambda: SHARED}, "`make_module` must build a new module at each call"),
        ({"make_module": SHARED}, "`make_module` must be a function that builds it afresh"),
        ({"make_module": lambda: 3}, "`make_module` must return a LightningModule, got int"),
        ({"metric": "val_acc"}, "`metric` must be a metric .* got 'val_acc'. It logs: val_loss"),
        ({"metric": "vall_oss"}, r"got 'vall_oss'\. Did you mean 'val_loss'\? It logs: val_loss"),
        ({"trainer_kwargs": {}}, "`trainer_kwargs` must say how long the run is"),
        ({"max_cost": 2.0}, "`max_cost` must be >= 3"),
        ({"mode": "least"}, "`mode` must be one of 'min', 'max'"),
        ({"engine": "cluster"}, "`engine` must be one of 'local', 'ray'"),
        ({"cures": ["bleeding"]}, "`cures` must be one of .*got 'bleeding'"),
        ({"cures": [lambda m, d, t: 3], "jobs": 2}, "`jobs` > 1"),
        ({"make_module": lambda: Classifier(), "jobs": 2}, "importable by other processes"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_sentence(options, sentence):
    if "cures" in options and "jobs" in options:
        options = {**options, "make_module": lambda: Classifier()}
    with pytest.raises(InvalidArgumentError, match=sentence):
        prescribed(**options)


@pytest.mark.parametrize(
    ("make_data", "sentence"),
    [
        (lambda: (CONSUMED, make_loaders()[1]), "`make_data` must build the data afresh"),
        (make_living, "`make_data` must give the same batches in the same order"),
    ],
)
def test_data_that_differ_from_run_to_run_are_refused(make_data, sentence):
    with pytest.raises(ConflictError, match=sentence):
        prescribed(make_data=make_data)


def test_the_package_loads_it_when_it_is_asked_for(tmp_path):
    code = (
        "import sys, lightning_stab; print('lightning_stab.prescription' in sys.modules);"
        "lightning_stab.prescribe; print('lightning_stab.prescription' in sys.modules)"
    )
    assert run_code(code, tmp_path).split()[-2:] == ["False", "True"]
    assert "prescribe" in lightning_stab.__all__
    with pytest.raises(AttributeError, match="has no attribute 'prescribes'"):
        _ = lightning_stab.prescribes


@pytest.mark.nightly
def test_worker_processes_find_the_same(cured):
    found = prescribed(jobs=2)
    assert found.best.id == cured.best.id
    assert found.best.metric == pytest.approx(cured.best.metric, rel=1e-3)
    assert found.cost <= 5.0


@pytest.mark.nightly
def test_a_ray_cluster_finds_the_same(cured):
    pytest.importorskip("ray")
    found = prescribed(jobs=2, engine="ray")
    assert found.best.id == cured.best.id
    assert found.best.metric == pytest.approx(cured.best.metric, rel=1e-3)
