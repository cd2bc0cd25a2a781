"""Which cures are tried for which program, with which numbers, and how it is told."""

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from helpers.quiet import QUIET
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_stab.diagnosis import Facts, Finding
from lightning_stab.diagnosis.cures import estimates
from lightning_stab.diagnosis.finding import Evidence
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.prescription.candidate import Candidate
from lightning_stab.prescription.candidates import candidates_for, fitting_loss
from lightning_stab.prescription.judgement import compare
from lightning_stab.prescription.prescribe import _progress
from lightning_stab.prescription.prescription import CureRecord, Prescription
from lightning_stab.prescription.search import Search
from lightning_stab.prescription.survey import Survey, Surveyor, fingerprint
from lightning_stab.prescription.trial import STOPPED, Program, Run

PROGRAM = Program(None, None, {}, "val_acc", "max")
READY = Survey(
    norms=("batch", "layer"), long_sequences=1, hidden_classes=("ReLU",),
    output_activation=("net.9", "Softmax"), losses=("MSELoss",), first_layer="a", last_layer="z",
    takes_inputs=True, real_targets=True, learning_rate=0.1, momentum=0.99, weight_decay=0.5,
    dropout=0.9, optimizer="AdamW", has_schedule=True, max_epochs=7, accumulate=3, steps=500,
    norm_gain=30.0, batch_norms=True, batch_size=64, is_ordered=True, batch_size_in_yaml=True,
)  # fmt: skip


def finding(id_, *facts, severity="warning"):
    evidence = {fact: Evidence(1.0, ">", 0.5, "x") for fact in facts}
    return Finding(id_, severity, 1, (), evidence, "It is so.", ())


def watched(*findings, survey=READY, facts=None, norm=math.nan):
    return Run((), 10, 10, findings, facts=facts or Facts(), survey=survey, gradient_norm=norm)


def made(*findings, choices=None, program=PROGRAM, **run):
    return candidates_for(program, watched(*findings, **run), choices)


def reasons(*findings, **arguments):
    return {each.id: each.untried for each in made(*findings, **arguments)}


EVERY = (
    "loss-function",
    "batch-size",
    "too-short",
    "saturated-units",
    "output-activation",
    "over-regularized",
    "input-scale",
    "target-scale",
    "dead-units",
    "plateau",
    "oscillating-loss",
    "learning-rate-too-high",
    "learning-rate-too-low",
)
ROWS = (*(finding(id_) for id_ in EVERY), finding("vanishing-gradient", "gradient_depth_log10"),
        finding("loss-spike", "target_peak"),
        finding("oscillating-loss", "batch_variety"))  # fmt: skip


@pytest.mark.parametrize(
    ("cure", "lacking", "reason"),
    [
        ("output-activation", {"output_activation": ("", "")}, "one activation module after"),
        ("standardize-inputs", {"takes_inputs": False}, "a first layer that is linear"),
        ("standardize-targets", {"real_targets": False}, "batches whose second part holds real"),
        ("leaky-activation", {"hidden_classes": ("Tanh",)}, "`nn.ReLU` modules"),
        ("batch-norm", {"norms": ("layer",)}, "activation modules, each called once"),
        ("layer-norm", {"norms": ("batch",)}, "activation modules, each called once"),
        ("skip-connections", {"long_sequences": 0}, "an `nn.Sequential` of at least four"),
        ("huber-loss", {"losses": ()}, "an `nn.MSELoss` module"),
        ("fitting-loss", {"losses": ("HingeLoss",)}, "one loss module, which does not fit"),
        ("fitting-loss", {"output_activation": ("a", "Tanh")}, "one loss module, which does not"),
        ("fitting-loss", {"losses": ("MSELoss", "L1Loss")}, "one loss module, which does not fit"),
        ("group-norm", {"batch_norms": False}, "`nn.BatchNorm` modules"),
        ("larger-loader-batch", {"batch_size": 0}, "a `DataLoader` that can be built again"),
        ("shuffle", {"batch_size": 0}, "a `DataLoader` that can be built again"),
    ],
)
def test_what_a_program_lacks_is_said(cure, lacking, reason):
    assert reasons(*ROWS)[cure] == ""
    assert reason in reasons(*ROWS, survey=replace(READY, **lacking))[cure]


@pytest.mark.parametrize(
    ("cure", "lacking"),
    [
        ("momentum", {"momentum": 0.95}), ("weight-decay", {"weight_decay": 0.2}),
        ("dropout", {"dropout": 0.5}), ("reset-norms", {"norm_gain": 2.9}),
        ("reset-norms", {"norm_gain": 0.4}), ("shuffle", {"is_ordered": False}),
        ("smaller-batch", {"batch_size": 31}),
        ("schedule", {"has_schedule": False}), ("lower-learning-rate", {"learning_rate": 0.0}),
        ("higher-learning-rate", {"learning_rate": math.nan}), ("longer-run", {"max_epochs": 0}),
    ],
)  # fmt: skip
def test_of_what_does_not_concern_a_program_nothing_is_said(cure, lacking):
    assert reasons(*ROWS)[cure] == ""
    assert cure not in reasons(*ROWS, survey=replace(READY, **lacking))


def test_an_activation_that_is_no_module_is_gone_round():
    found = finding("output-activation", "doubled_softmax")
    assert "logits-for-loss" not in reasons(found)
    called = replace(READY, output_activation=("", ""))
    assert reasons(found, survey=called)["logits-for-loss"] == ""
    assert "without-last-activation" not in reasons(found, survey=called)
    # predictions beyond the range of a tanh come from before it
    bounded = reasons(finding("output-activation", "unreachable_targets"), survey=called)
    assert "logits-for-loss" not in bounded
    assert bounded["without-last-activation"] == ""
    module = reasons(finding("output-activation", "unreachable_targets"))
    assert "without-last-activation" not in module


def test_norms_that_start_far_away_are_reset_by_gain_or_by_shift():
    usual = replace(READY, norm_gain=1.0)
    dead = finding("dead-units")
    assert "reset-norms" not in reasons(dead, survey=usual)
    assert "reset-norms" not in reasons(dead, survey=replace(usual, norm_shift=2.0))
    shifted = made(dead, survey=replace(usual, norm_shift=6.0))
    (cure,) = (c for c in shifted if c.id == "reset-norms")
    assert "a gain of 1 and a shift of 0, not 1 and 6:" in cure.what


def test_a_warm_up_is_for_programs_without_a_schedule():
    assert "warm-up" not in reasons(*ROWS)
    plain = replace(READY, has_schedule=False)
    assert reasons(*ROWS, survey=plain)["warm-up"] == ""
    there = replace(plain, callbacks={"LearningRateDecay": {}})
    assert "warm-up" not in reasons(*ROWS, survey=there)


def test_the_loss_itself_is_no_measure_of_another_loss():
    by_loss = Program(None, None, {}, "val_LOSS", "min")
    assert "a metric that is not the loss itself" in reasons(*ROWS, program=by_loss)["huber-loss"]


def test_what_is_there_is_not_added_again_and_code_is_not_tried():
    there = replace(READY, callbacks={"GradientClipping": {"rule": "value"}})
    found = made(finding("learning-rate-too-high"), finding("bad-initialization"), survey=there)
    by_id = {each.id: each for each in found}
    assert "`GradientClipping` is there already" in by_id["clip"].untried
    assert by_id["clip"].callbacks == ()
    assert by_id["draw-weights"].untried == "It needs a change of code or data."
    untried = [bool(each.untried) for each in found]
    assert untried == sorted(untried)  # what can be tried comes first


def test_each_row_comes_once_for_the_first_finding_that_it_answers():
    found = made(finding("dead-units"), finding("learning-rate-too-high"))
    pairs = [(each.id, each.for_finding) for each in found]
    rates = [pair for pair in pairs if pair[0] == "lower-learning-rate"]
    assert set(rates) == {("lower-learning-rate", "dead-units")}
    assert ("clip", "learning-rate-too-high") in pairs
    assert made(finding("dead-units", severity="info")) == []


def test_the_chosen_rows_are_tried_in_their_order_and_own_functions_first():
    def mine(module, data, trainer_kwargs):
        """Do it.

        And more.
        """

    found = made(finding("learning-rate-too-high"), choices=["momentum", mine, "clip"])
    assert [(each.id, each.for_finding) for each in found] == [
        (name, "learning-rate-too-high") for name in ("mine", "momentum", "clip")
    ]
    assert found[0].what == "Do it."
    assert found[0].code == ("mine(module, data, trainer_kwargs)",)
    assert made(choices=[lambda m, d, t: None])[0].what == "Apply `<lambda>`."


def settings(found, id_):
    return [dict(each.callbacks[0][1]) for each in found if each.id == id_]


def test_the_numbers_of_a_program_are_put_into_its_cures():
    found = made(*ROWS, norm=0.234)
    by_id = {each.id: each for each in found}
    assert settings(found, "momentum") == [{"momentum": 0.9}]
    assert by_id["momentum"].what == "Lower the momentum from 0.99 to 0.9."
    assert settings(found, "weight-decay") == [{"weight_decay": 0.01}]
    assert settings(found, "dropout") == [{"p": 0.1}]
    assert settings(found, "clip") == [{"rule": "norm", "threshold": 0.2}]
    assert settings(found, "schedule")[0]["warmup_steps"] == 50
    assert settings(found, "standardize-inputs") == [{"layer": "a"}]
    assert settings(found, "standardize-targets") == [{"layer": "z"}]
    assert settings(found, "output-activation") == [{"by": {"net.9": "Identity"}}]
    assert by_id["larger-batch"].trainer == {"accumulate_grad_batches": 12}
    assert by_id["longer-run"].trainer == {"max_epochs": 14}
    assert {each.id: each.length for each in found if each.length != 1.0} == {
        "longer-run": 2.0, "smaller-batch": 2.0, "larger-loader-batch": 0.25,
    }  # fmt: skip
    assert by_id["larger-loader-batch"].loader == {"batch_size": 256}
    assert "batch_size=256" in by_id["larger-loader-batch"].code[0]
    assert by_id["smaller-batch"].overlay == {"data": {"init_args": {"batch_size": 32}}}
    assert (by_id["shuffle"].loader, by_id["shuffle"].overlay) == ({"shuffle": True}, None)
    assert settings(found, "fitting-loss") == [
        {"by": {"MSELoss": "CrossEntropyLoss", "net.9": "Identity"}}
    ]
    assert "not 30 and 0: `ResetNorms()`" in by_id["reset-norms"].what
    (best,) = [each for each in made(finding("overfitting")) if each.id == "best-weights"]
    assert best.callbacks[0][1] == {"monitor": "val_acc", "mode": "max"}


@pytest.mark.parametrize(
    ("output", "loss", "fits"),
    [
        ("Sigmoid", "MSELoss", "BCEWithLogitsLoss"),
        ("Softmax", "L1Loss", "CrossEntropyLoss"),
        ("Sigmoid", "BCELoss", "CrossEntropyLoss"),
        ("", "BCEWithLogitsLoss", "CrossEntropyLoss"),
        ("", "MSELoss", ""),
        ("Tanh", "MSELoss", ""),
    ],
)
def test_the_loss_that_fits(output, loss, fits):
    name = "net.9" if output else ""
    survey = replace(READY, output_activation=(name, output), losses=(loss,))
    assert fitting_loss(survey)[1] == fits
    if fits:
        by = {loss: fits, **({name: "Identity"} if name else {})}
        found = made(finding("loss-function"), survey=survey)
        assert settings(found, "fitting-loss") == [{"by": by}]


def test_what_the_doctor_advises_is_tried_first_other_numbers_later_and_longer_runs_last():
    plain = replace(READY, has_schedule=False, momentum=0.9, weight_decay=0.0, norm_gain=1.0)
    slow = replace(plain, optimizer="SGD")
    low = [c.id for c in made(finding("learning-rate-too-low", "update_ratio"), survey=slow)]
    rates = ["higher-learning-rate"] * 3
    assert low == ["higher-learning-rate", *rates, "smaller-batch", "longer-run",
                   "adaptive-optimizer"]  # fmt: skip
    adam = [c.id for c in made(finding("learning-rate-too-low", "update_ratio"), survey=plain)]
    assert adam == low[:-1]  # nobody who has Adam is told to use it
    high = [c.id for c in made(finding("learning-rate-too-high"), survey=plain)]
    rates = ["lower-learning-rate"] * 3
    assert high == ["lower-learning-rate", "clip", "warm-up", "initialization", *rates]
    scheduled = [c.id for c in made(finding("learning-rate-too-high"), survey=READY)]
    assert scheduled[:3] == ["momentum", "lower-learning-rate", "clip"]
    assert scheduled[3:7] == ["reset-norms", "weight-decay", "schedule", "initialization"]


def test_where_a_good_run_falls_for_good_the_schedule_is_tried_first():
    curve = tuple((10 * i, value) for i, value in enumerate([0.6, 0.8, 0.9, 0.1, 0.1], 1))
    fallen = replace(watched(finding("learning-rate-too-high")), curve=curve)
    ids = [c.id for c in candidates_for(PROGRAM, fallen, None)]
    assert ids[:3] == ["schedule", "momentum", "lower-learning-rate"]
    given = ["clip", "schedule"]  # the user's own order holds
    assert [c.id for c in candidates_for(PROGRAM, fallen, given)] == given


def test_weight_decay_goes_to_nothing_where_it_is_no_adamw():
    found = made(*ROWS, survey=replace(READY, optimizer="SGD", first_layer=""))
    assert settings(found, "weight-decay") == [{"weight_decay": 0.0}]
    assert settings(found, "standardize-inputs") == [{}]  # an empty name is left out


def test_learning_rates_are_searched_on_the_right_side_of_the_present_one():
    facts = Facts(learning_rate=9.0, early_update_ratio=0.2, update_ratio=1e-3)
    found = made(*ROWS, facts=facts)
    rates = [each["learning_rate"] for each in settings(found, "lower-learning-rate")]
    # 0.1 * 0.02 / 0.2 = 0.01, and 1/5, 5, 1/25 and 25 times that, below 0.1
    assert rates == [0.01, 0.002, 0.05, 0.0004]
    rates = [each["learning_rate"] for each in settings(found, "higher-learning-rate")]
    # 0.1 * 0.01 / 0.001 = 1, and so on, in one digit
    assert rates == [1.0, 0.2, 5.0, 20.0]
    lower = [each for each in found if each.id == "lower-learning-rate"][1]
    assert lower.what == "Lower the learning rate from 0.1 to 0.002, and start again."


OF_THE_MODULE = ("momentum", "norm_gain", "norm_shift", "epochs", "longer_epochs")


def test_estimates_by_hand():
    known = estimates(
        Facts(learning_rate=0.5, early_update_ratio=0.1, update_ratio=0.002), 3.44, 99
    )
    assert known == {
        "learning_rate": 0.5, "lower_rate": 0.1, "higher_rate": 2.0, "clip_threshold": 3.0,
        "warmup_steps": 10, "usual_momentum": 0.9, "usual_decay": 0.01, "usual_dropout": 0.1,
        "accumulate": 4, "metric": "val_loss", "mode": "min",
    } | {n: known[n] for n in OF_THE_MODULE}  # fmt: skip
    assert all(math.isnan(known[n]) for n in OF_THE_MODULE)


# --- what is seen of a program


class Net(LightningModule):
    def __init__(self, *layers, optimizer=torch.optim.SGD, **settings):
        super().__init__()
        self.net = nn.Sequential(*layers)
        self.loss = nn.MSELoss()
        self.made = optimizer, {"lr": 0.1, **settings}

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]).flatten(1).mean(1), batch[1].float())

    def configure_optimizers(self):
        kind, settings = self.made
        optimizer = kind(self.parameters(), **settings)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def seen(module, x=None, y=None, **arguments):
    x = torch.randn(8, 4) if x is None else x
    y = torch.randn(8) if y is None else y
    surveyor = Surveyor()
    trainer = Trainer(**{**QUIET, "max_epochs": 3, **arguments}, callbacks=surveyor)
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=4))
    assert not any(part._forward_hooks for part in module.modules())
    return surveyor.survey


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_seen_as_it_is():
    layers = [nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)]
    survey = seen(Net(*layers, nn.Softmax(1), momentum=0.5, weight_decay=0.25),
                  accumulate_grad_batches=2)  # fmt: skip
    assert (survey.norms, survey.long_sequences) == (("batch", "layer"), 0)
    assert set(survey.hidden_classes) >= {"ReLU", "Tanh"}
    assert survey.output_activation == ("net.5", "Softmax")
    assert (survey.losses, survey.first_layer, survey.last_layer) == (("MSELoss",), "", "")
    assert (survey.takes_inputs, survey.real_targets, survey.has_schedule) == (True, True, True)
    assert (survey.learning_rate, survey.momentum, survey.weight_decay) == (0.1, 0.5, 0.25)
    assert (survey.optimizer, survey.max_epochs, survey.accumulate) == ("SGD", 3, 2)
    assert survey.steps == 3  # two batches an epoch are one step
    assert (survey.batch_fingerprint != 0, survey.dropout) == (True, 0.0)
    other = seen(Net(*layers, nn.Dropout(0.75), optimizer=torch.optim.Adam, betas=(0.7, 0.9)),
                 y=torch.zeros(8).long(), max_epochs=-1, max_steps=2)  # fmt: skip
    assert (other.momentum, other.max_epochs, other.steps) == (0.7, 0, 2)
    assert (other.real_targets, other.output_activation, other.dropout) == (False, ("", ""), 0.75)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layers", "x", "norms"),
    [
        ([nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)], (8, 4), ()),  # one activation alone
        ([nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)], (8, 3, 4),
         ("layer",)),  # a sequence has no batch norm by features
        ([nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Conv1d(3, 3, 1), nn.ReLU(), nn.Conv1d(3, 1, 1)],
         (8, 2, 5), ("batch", "layer")),
        ([nn.Linear(4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1)],
         (8, 3, 4), ("layer",)),
        ([nn.Linear(4, 8), nn.Flatten(), nn.ReLU(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1)],
         (8, 3, 4), ()),  # another width than the layer's reaches the activation
    ],
)  # fmt: skip
def test_norms_fit_what_reaches_the_activations(layers, x, norms):
    assert seen(Net(*layers), torch.randn(x), max_epochs=1).norms == norms


def test_a_fingerprint_tells_samples_and_their_order_apart():
    x = torch.arange(6.0).reshape(3, 2)
    assert fingerprint([x, 3]) == pytest.approx(
        sum(v * (1 + i / 5) for i, v in enumerate(range(6)))
    )
    assert fingerprint((x, x)) == pytest.approx(2 * fingerprint(x))
    assert fingerprint(x.flip(0)) != fingerprint(x)
    assert fingerprint({"a": torch.tensor([math.nan, 2.0])}) == 4.0
    assert fingerprint([torch.zeros(0)]) == 0.0


# --- trials and their judgement

LOW, HIGH = (Program(None, None, {}, "m", mode) for mode in ("min", "max"))
nan = math.nan


def run(*values, ended="", steps=None, batches=None, findings=()):
    curve = tuple((10 * (i + 1), value) for i, value in enumerate(values))
    total = 10 * len(values) if batches is None else batches
    return Run(curve, total, len(values) if steps is None else steps, findings, ended)


@pytest.mark.parametrize(
    ("value", "other", "low", "high"),
    [(1.0, 2.0, True, False), (2.0, 1.0, False, True), (1.0, 1.0, False, False),
     (1.0, nan, True, True), (nan, 1.0, False, False), (nan, nan, False, False),
     (1.0, math.inf, True, True), (math.inf, 1.0, False, False)],
)  # fmt: skip
def test_what_is_better(value, other, low, high):
    assert (LOW.is_better(value, other), HIGH.is_better(value, other)) == (low, high)


def test_a_runs_metric_is_its_last_value_and_none_where_it_failed():
    assert run(3.0, 2.0).metric == 2.0
    assert run(3.0, 2.0, ended=STOPPED).metric == 2.0
    assert math.isnan(run(3.0, ended="ValueError: no").metric)
    assert math.isnan(run().metric)
    assert [run(3.0, 2.0, 1.0).at(b) for b in (0, 10, 11, 20, 30, 31)] == [3, 3, 2, 2, 1, 1]


def test_a_comparison_counts_steps_cost_and_pairs():
    cure = Candidate("x", "plateau", "Do.", length=2.0)
    untreated = [run(4.0, 4.0, 4.0, steps=5), run(5.0, 5.0, 5.0)]
    whole = compare(LOW, cure, [run(*[2.0] * 6, steps=7), run(*[3.0] * 6, steps=8)], untreated)
    assert (whole.steps, whole.cost, whole.is_whole, whole.failure) == (15, 4.0, True, "")
    assert whole.pairs == ((2.0, 4.0), (3.0, 5.0))
    assert (whole.metric, whole.untreated) == (2.5, 4.5)
    assert whole.noise == pytest.approx(0.5)
    early = compare(LOW, cure, [run(2.0, ended=STOPPED)], [run(9.0, 4.0, 4.0)])
    assert (early.is_whole, early.pairs, early.failure) == (False, ((2.0, 9.0),), "")
    failed = compare(LOW, cure, [run(2.0, ended="ValueError: no")], untreated)
    assert failed.failure == "ValueError: no"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(3.5, "no better"), (3.49, "cured"), (4.5, "no better"), (4.51, "worse")],
)
def test_a_cure_has_to_be_better_by_more_than_the_noise(value, outcome):
    untreated = [run(4.0, 4.0, 4.0, 4.0, 3.5, 4.0, findings=(finding("plateau"),))]
    cure = Candidate("x", "plateau", "Do.")
    assert compare(LOW, cure, [run(*[4.0] * 5, value)], untreated).outcome == outcome


def candidate(id_, **arguments):
    return Candidate(id_, "plateau", "Do.", callbacks=((f"a.{id_}", {}),), **arguments)


class Engine:
    """Gives prepared runs, and notes what was asked for."""

    def __init__(self, runs):
        self.runs, self.trials, self.asked = runs, [], []

    def __call__(self, trials):
        self.asked += trials
        self.trials += [(t.candidate.id if t.candidate else "", t.seed) for t in trials]
        return iter([self.runs[t.candidate.id if t.candidate else ""][t.seed] for t in trials])


def searched(runs, ids, *, seeds=2, max_cost=9.0, jobs=1, lengths=()):
    engine, told = Engine(runs), []
    search = Search(LOW, engine, jobs, seeds, max_cost, told.append)
    search.untreated = [runs[""][0]]
    search.try_all([candidate(id_, length=dict(lengths).get(id_, 1.0)) for id_ in ids])
    return search, engine, told


SICK = [run(*[4.0] * 4, findings=(finding("plateau"),)) for _ in range(3)]
GOOD, BETTER = [run(*[3.0] * 4)] * 3, [run(*[2.0] * 4)] * 3
BAD = [run(*[5.0], ended=STOPPED)] * 3


def test_a_search_tries_one_after_the_other_and_confirms_the_best():
    search, engine, told = searched({"": SICK, "a": GOOD, "b": BETTER, "c": BAD}, "abc")
    # a cure is found after two whole trials: the third is not tried any more
    assert engine.trials == [("a", 0), ("b", 0), ("", 1), ("b", 1)]
    assert search.best().candidate.id == "b"
    assert [c.candidate.id for c in search.comparisons()] == ["b", "a"]
    assert search.cost == 4.0
    assert told[-1] == "b leads: 2, 4 without"
    assert told[0] == "a leads: 3, 4 without"
    assert len(told) == len(engine.trials)  # the bar moves once for each


def test_both_of_two_that_help_are_tried_together():
    helps = [run(*[3.0] * 4, findings=(finding("plateau"),))] * 3
    more = [run(*[2.5] * 4, findings=(finding("plateau"),))] * 3
    both = [run(*[1.0] * 4)] * 3
    search, engine, _ = searched({"": SICK, "a": helps, "b": more, "b+a": both}, "ab")
    assert engine.trials == [("a", 0), ("b", 0), ("b+a", 0), ("", 1), ("b+a", 1)]
    assert search.best().candidate.id == "b+a"


def test_what_is_not_confirmed_gives_way_to_the_next():
    once = [run(*[1.0] * 4), run(*[6.0] * 4)]
    search, engine, _ = searched({"": SICK, "a": GOOD, "b": once}, "ab", max_cost=9.0)
    assert engine.trials == [("a", 0), ("b", 0), ("", 1), ("b", 1), ("a", 1)]
    assert search.best().candidate.id == "a"


def test_the_budget_leaves_room_for_the_runs_that_confirm():
    def tried(budget, **arguments):
        return searched({"": SICK, "a": BAD, "b": GOOD}, "ab", max_cost=budget, **arguments)[1]

    assert tried(2.9).trials == []
    assert tried(3.0).trials == [("a", 0)]
    assert tried(3.25).trials == [("a", 0), ("b", 0), ("", 1), ("b", 1)]
    assert tried(3.25, lengths=[("b", 2.0)]).trials == [("a", 0)]
    assert tried(3.25, seeds=1).trials == [("a", 0), ("b", 0)]
    wave = searched({"": SICK, "a": BAD, "b": BAD, "c": BAD}, "abc", max_cost=4.0, jobs=2)[1]
    assert wave.trials == [("a", 0), ("b", 0), ("c", 0)]


def test_other_numbers_of_what_leads_come_before_other_cures():
    numbers = [candidate("rate", trainer={"n": n}) for n in range(3)]
    other = candidate("other")
    engine = Engine({"": SICK, "rate": GOOD, "other": BAD})
    search = Search(LOW, engine, 1, 2, 9.0, print, untreated=[SICK[0]])
    search.try_all([numbers[0], other, *numbers[1:]])
    assert engine.trials == [("rate", 0), ("rate", 0), ("", 1), ("rate", 1)]
    assert list(search.runs) == numbers[:2]


def test_what_only_helps_a_little_gives_other_cures_their_turn():
    numbers = [candidate("rate", trainer={"n": n}) for n in range(2)]
    little = [run(*[3.8] * 4, findings=(finding("plateau"),))] * 3
    engine = Engine({"": SICK, "rate": little, "other": BETTER, "rate+other": BAD})
    search = Search(LOW, engine, 1, 2, 9.0, lambda text: None, untreated=[SICK[0]])
    search.try_all([numbers[0], candidate("other"), numbers[1]])
    assert engine.trials[:2] == [("rate", 0), ("other", 0)]
    assert search.best().candidate.id == "other"


def test_an_untreated_run_is_ended_at_its_half_where_the_cure_is_beyond_doubt():
    def bars(treated, untreated=SICK[0]):
        engine = Engine({"": SICK, "a": [run(*[treated] * 4)] * 3})
        search = Search(LOW, engine, 1, 2, 9.0, print, untreated=[untreated])
        search.try_all([candidate("a")])
        return [t.bars for t in engine.asked if t.candidate is None]

    assert bars(3.0) == [((0.5, 3.5),)]  # where it has to be nearer to the cure than to 4
    assert bars(3.85) == [()]  # 3.75 % better: no more than five times the noise
    assert bars(3.99) == []  # nothing to compare with
    ((half, bar),) = bars(3.0, run(4.0, 4.0, 4.0, nan))[0]
    assert half == 0.5
    assert math.isnan(bar)  # where the program fails, a finite value is enough to go on


def test_an_untreated_run_that_was_ended_counts_as_the_better_of_two():
    cure = candidate("a")
    early = replace(run(3.9, 3.8, ended=STOPPED), batches=20)
    found = compare(LOW, cure, [run(*[2.0] * 4)] * 2, [SICK[0], early])
    assert found.pairs == ((2.0, 4.0), (2.0, 3.8))
    found = compare(LOW, cure, [run(*[2.0] * 4)] * 2, [SICK[0], replace(early, curve=((20, 9.0),))])
    assert found.pairs[1] == (2.0, 4.0)
    assert found.noise == pytest.approx(0.04)  # that of the run which went to its end


# --- what is told in the end

RECORD = CureRecord("clip", "plateau", "Clip it.", {"trainer": {}}, ("x = 1",), "cured",
                    1.23456, 2.0, 0.1, 8, 2, 2.04)  # fmt: skip
UNTRIED = CureRecord("other", "plateau", "Do.", None, (), "not tried", reason="It needs more.")


PLATEAU = (finding("plateau"),)


def prescription(*cures, findings=PLATEAU, best=None, interrupted=False):
    return Prescription(cures, findings, 2.5, 40, "val_loss", "min", 2.0, interrupted, best)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (prescription(findings=()), "Nothing to cure: nothing wrong was found in 40 optimizer"),
        (
            prescription(RECORD, best=0),
            "`clip` cures plateau: val_loss is 1.235 instead of 2 (over 2 seeds; the noise is 0.1)",
        ),
        (
            prescription(UNTRIED),
            "Not cured (plateau): no cure could be tried that beat the program as it is by more",
        ),
        (prescription(UNTRIED, interrupted=True), "The search was interrupted. Not cured"),
    ],
)
def test_the_sentence(found, sentence):
    assert found.sentence.startswith(sentence)


def test_the_sentence_of_what_only_helps_says_what_is_left():
    helps = replace(RECORD, outcome="helps", left=("too-short", "plateau"))
    text = prescription(helps, best=0).sentence
    assert text.startswith("`clip` helps with plateau:")
    assert text.endswith("What is found with it: too-short, plateau.")


def test_the_sentence_counts_what_was_tried_and_says_what_helps():
    no = replace(RECORD, outcome="no better")
    assert "the one cure tried did not beat" in prescription(no, UNTRIED).sentence
    assert "none of 2 cures tried beat" in prescription(no, no).sentence
    helps = replace(RECORD, outcome="helps", seeds=1)
    assert "`clip` helps with plateau" in prescription(helps, best=0).sentence
    assert "(over 1 seed;" in prescription(helps, best=0).sentence


def test_what_is_found_as_plain_values():
    plain = prescription(RECORD, UNTRIED, best=0).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["best"], plain["cost"], plain["steps"]) == ("clip", 2.5, 40)
    assert plain["metric_untreated"] == 2.0
    assert plain["cures"][0]["code"] == ["x = 1"]
    assert plain["cures"][1]["metric"] is plain["cures"][1]["noise"] is None
    assert (plain["cures"][1]["steps"], plain["cures"][1]["seeds"]) == (0, 0)
    assert plain["cures"][1]["cost"] == 0.0
    assert prescription(RECORD, best=0).exit_code == 0
    assert prescription(UNTRIED).exit_code == 1
    assert prescription(findings=()).exit_code == 0


def test_the_text_shows_finding_table_sentence_cure_and_code():
    found = prescription(RECORD, UNTRIED, best=0)
    text = str(found)
    assert text.startswith("warning: plateau. It is so.")
    assert "other: Do. (It needs more.)" in text
    assert "cured" in text
    assert " 2.0 " in text  # the cost
    assert text.endswith("Clip it.\n\n# cure.yaml\ntrainer: {}")
    by_hand = str(prescription(replace(RECORD, overlay=None), best=0))
    assert by_hand.endswith("Clip it.\nx = 1")
    assert str(prescription(UNTRIED)).endswith("(val_loss 2).")


def test_where_nothing_helped_the_advice_that_was_not_tried_is_left():
    found = prescription(UNTRIED, findings=(finding("metric", severity="info"), *PLATEAU))
    assert found.remaining == ()
    advised = replace(PLATEAU[0], advice=("Do this.", "Do [that]."))
    found = prescription(UNTRIED, findings=(finding("metric", severity="info"), advised))
    assert str(found).endswith("What is left to do:\n  1. Do this.\n  2. Do [that].")
    assert "What is left to do" not in found.sentence
    assert "What is left to do" not in str(prescription(RECORD, findings=(advised,), best=0))
    healthy = prescription(findings=(finding("metric", severity="info"),))
    assert "left to do" not in str(healthy)


def test_the_command_to_run_comes_last_and_only_with_a_cure():
    for found, end in (
        (prescription(RECORD, UNTRIED, best=0), "trainer: {}\n\nfit [it]\n"),
        (prescription(UNTRIED), "(val_loss 2).\n"),
    ):
        console = Console(file=io.StringIO(), width=120)
        found.show(console, "fit [it]")
        assert console.file.getvalue().endswith(end)


def test_a_callback_is_added_to_those_that_are_there():
    cure = Candidate("x", "", "Do.", callbacks=(("torch.nn.Flatten", {"start_dim": 2}),),
                     trainer={"max_epochs": 9})  # fmt: skip
    for own, count in ((None, 0), ("a", 1), (["a", "b"], 2)):
        _, _, arguments = cure.applied("m", (), {"callbacks": own, "max_epochs": 1})
        assert arguments["max_epochs"] == 9
        assert len(arguments["callbacks"]) == count + 1
        assert arguments["callbacks"][-1].start_dim == 2
    assert cure.overlay == {
        "trainer": {
            "max_epochs": 9,
            "callbacks+": [{"class_path": "torch.nn.Flatten", "init_args": {"start_dim": 2}}],
        }
    }
    bare = Candidate("x", "", "Do.", callbacks=(("a.B", {}),))
    assert bare.overlay == {"trainer": {"callbacks+": [{"class_path": "a.B"}]}}
    assert Candidate("x", "", "Do.", trainer={"a": 1}).overlay == {"trainer": {"a": 1}}
    assert Candidate("x", "", "Do.").overlay is None


def test_a_function_returns_the_parts_or_changes_the_module_in_place():
    def with_change(change):
        return Candidate("mine", "", "Do.", change=change)

    parts = ("m", ("d",), {"max_epochs": 1})
    assert with_change(lambda *given: None).applied(*parts) == parts
    assert with_change(lambda m, d, a: (m + "!", d, {})).applied(*parts) == ("m!", ("d",), {})
    for wrong in (("m", ()), ["m", (), {}], ("m", (), {}, 1), "abc", 3):
        with pytest.raises(InvalidArgumentError, match=f"got {type(wrong).__name__} from 'mine'"):
            with_change(lambda *given, wrong=wrong: wrong).applied(*parts)
    assert with_change(lambda *given: None).overlay is None


def test_two_cures_become_one_in_the_order_in_which_they_work():
    guard = Candidate("guard", "plateau", "Guard.", callbacks=(("a.Guard", {"x": 1}),), code=("a",))
    rate = Candidate("rate", "x", "Slower.", callbacks=(("b.OptimizerSettings", {"lr": 0.1}),),
                     trainer={"max_epochs": 9}, code=("b",), length=2.0)  # fmt: skip
    both = guard.with_other(rate)
    assert (both.id, both.for_finding, both.what) == ("guard+rate", "plateau", "Guard. Slower.")
    assert [path for path, _ in both.callbacks] == ["b.OptimizerSettings", "a.Guard"]
    assert (both.trainer, both.code, both.length) == ({"max_epochs": 9}, ("a", "b"), 2.0)
    change = Candidate("mine", "", "Do.", change=lambda *given: None)
    other = Candidate("longer", "", "Do.", trainer={"max_epochs": 5})
    for first, second in ((guard, guard), (rate, other), (guard, change), (change, guard)):
        assert first.with_other(second) is None
    assert guard.with_other(other).length == 1.0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_progress_counts_trials_and_is_shown_on_a_terminal_alone(is_terminal, monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: is_terminal))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    progress = _progress()
    with progress as (report, total):
        (task,) = progress._progress.tasks
        assert (task.completed, task.total) == (0, None)
        assert task.description == "watching the program as it is"
        total(5)
        report("one")
        report("two")
        assert (task.completed, task.total, task.description) == (2, 5, "two")
        assert progress._progress.disable != is_terminal
        assert progress._progress.live.is_started == is_terminal
    assert not progress._progress.live.is_started
