"""What the doctor says and keeps: arguments, terminal, loggers, file, restart."""

import copy
import io
import json
import logging
import pickle

import pytest
import torch
from helpers.diagnosis_moments import moment, reported
from helpers.doctor_programs import (
    CLASSES,
    Program,
    alarms,
    doctor,
    examined,
    hopeless,
    ids,
    initialized,
    learnable,
    mlp,
    numbers,
)
from helpers.events import events, packed_events
from helpers.lightning_twins import fit
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_stab import TrainingDoctor
from lightning_stab.callbacks.doctor.report import FACTS, markdown
from lightning_stab.diagnosis import IDS, RULES, SEVERITIES, THRESHOLDS, Finding
from lightning_stab.errors import ConflictError, InvalidArgumentError


def zero_net():
    return initialized(mlp(3), lambda layer: nn.init.zeros_(layer.weight))


class Faulty(Program):
    """Has two faults, one seen before the first step, one later."""

    def __init__(self):
        super().__init__(nn.Sequential(mlp(3), nn.Softmax(1)))
        self.idle = nn.Linear(2, 2)


# arguments


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ignore": False}, r"`ignore` must be a list of strings, got False.*Leave it out"),
        ({"ignore": ["dead-unit"]}, r"`ignore` must be one of .*Did you mean 'dead-units'\?"),
        ({"ignore": ["dead:net.*"]}, r"`ignore` must be one of .*, got 'dead'"),
        ({"ignore": "plateau"}, r"`ignore` must be a list of strings, got 'plateau'"),
        ({"ignore": [3]}, r"`ignore` must be a list of strings"),
        ({"thresholds": {"dead_layers": 0.5}}, r"`thresholds` must be one of .*'dead_layer'\?"),
        ({"thresholds": {"dead_layer": "high"}}, r"'dead_layer'\]` must be a number.*got 'high'"),
        ({"thresholds": {"dead_layer": None}}, r"'dead_layer'\]` must be a number.*got None"),
        ({"thresholds": {"dead_layer": True}}, r"'dead_layer'\]` must be a number.*got True"),
        ({"thresholds": {"dead_layer": float("nan")}}, r"'dead_layer'\]` must be finite, got nan"),
        ({"every_n_steps": 0}, r"`every_n_steps` must be an integer >= 1, got 0"),
        ({"every_n_steps": 2.5}, r"`every_n_steps` must be an integer >= 1, got 2.5"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InvalidArgumentError, match=sentence) as caught:
        TrainingDoctor(**arguments)
    assert "\n" not in str(caught.value)


def test_it_does_not_treat():
    with pytest.raises(TypeError, match="unexpected keyword argument 'treat'"):
        TrainingDoctor(treat=False)


def test_old_names_of_thresholds_are_taken():
    with pytest.warns(FutureWarning, match="'an_epoch' is now called 'one_epoch'"):
        watcher = TrainingDoctor(thresholds={"an_epoch": 2.0})
    assert watcher.thresholds == {"one_epoch": 2.0}
    assert watcher._engine.thresholds["one_epoch"] == 2.0


def test_the_representation_makes_the_same_doctor():
    arguments = {"thresholds": {"plateau.early": 1.0}, "every_n_steps": 7, "print_findings": False}
    watcher = TrainingDoctor(["dead-units:head.*"], **arguments)
    assert eval(repr(watcher)).options == watcher.options
    assert repr(TrainingDoctor()) == "TrainingDoctor()"
    assert (watcher.ignore, watcher.every_n_steps) == (("dead-units:head.*",), 7)
    with pytest.raises(AttributeError):
        watcher.every_n_steps = 9


def test_the_help_names_every_id():
    assert all(f"``{id_}``" in TrainingDoctor.__doc__ for id_ in IDS)


@pytest.mark.parametrize("strategy", ["DeepSpeedStrategy", "FSDPStrategy"])
def test_strategies_that_hide_gradients_are_refused_before_the_first_step(strategy):
    class Hiding:
        strategy_class = type(strategy, (), {})

    trainer = type("Trainer", (), {"strategy": Hiding.strategy_class()})()
    with pytest.raises(ConflictError, match="TrainingDoctor"):
        TrainingDoctor().setup(trainer, Program(mlp()), "fit")


def test_every_id_and_every_threshold_may_be_named():
    watcher = TrainingDoctor(
        ignore=[*IDS, *(f"{i}:head.*" for i in IDS)], thresholds=dict(THRESHOLDS)
    )
    assert watcher.findings == []
    assert ids(examined(Faulty(), watcher=watcher)) == set()


def test_arguments_are_copied():
    ignore, thresholds = ["plateau"], {next(iter(THRESHOLDS)): 1.0}
    watcher = TrainingDoctor(ignore=ignore, thresholds=thresholds)
    ignore.append("x")
    thresholds["y"] = 2.0
    assert watcher.ignore == ("plateau",)
    assert "y" not in watcher.thresholds


def test_an_id_is_ignored_and_a_layer_is():
    assert "bad-initialization" not in ids(
        examined(Program(zero_net()), watcher=doctor(ignore=["bad-initialization"]))
    )
    watcher = doctor(ignore=["bad-initialization:net.2"])
    program = Program(initialized(mlp(4), lambda layer: nn.init.zeros_(layer.weight)))
    (finding,) = [f for f in examined(program, watcher=watcher) if f.step == 0]
    assert finding.id == "bad-initialization"
    assert "net.4" in finding.layers
    assert "net.2" not in finding.layers


def test_thresholds_replace_the_defaults():
    def outcome(**thresholds):
        return alarms(examined(Program(mlp()), watcher=doctor(thresholds=thresholds)))

    assert outcome() == set()
    conditions = [c for rule in RULES for c in rule.conditions if c.fact == "identical_units"]
    assert "bad-initialization" in outcome(**{conditions[0].threshold: -0.5})


# what is said


def test_each_finding_is_logged_once_at_its_level(caplog, capsys):
    watcher = doctor(print_findings=True)
    with caplog.at_level("INFO", logger="lightning_stab"):
        examined(Faulty(), epochs=2, watcher=watcher)
    assert "output-activation" not in capsys.readouterr().out
    for finding in watcher.findings:
        (record,) = [r for r in caplog.records if f": {finding.id} (step" in r.getMessage()]
        said = record.getMessage()
        assert record.levelname == finding.severity.upper()
        assert said.startswith(f"{finding.severity}: {finding.id} (step {finding.step}")
        assert finding.message in said.splitlines()
        assert all(f"{n}. {line}" in said for n, line in enumerate(finding.advice, 1))
    assert len(watcher.findings) >= 1


def test_nothing_is_logged_of_a_healthy_run_or_on_request(caplog):
    examined(Program(mlp()), watcher=doctor(print_findings=True))
    examined(Faulty(), watcher=doctor(print_findings=False))
    assert "output-activation" not in caplog.text


def test_findings_are_silenced_like_any_logger(caplog):
    caplog.set_level(logging.CRITICAL, logger="lightning_stab")
    assert examined(Faulty(), watcher=doctor(print_findings=True))
    assert caplog.text == ""


def test_layer_names_in_brackets_are_printed_as_they_are(caplog):
    class Bracketed(Program):
        def __init__(self):
            super().__init__(mlp())
            self.add_module("[bold]extra", nn.Linear(2, 2))

        def configure_optimizers(self):
            return self.optimizer(self.net.parameters())

    examined(Bracketed(), watcher=doctor(print_findings=True))
    assert "[bold]extra" in caplog.text


def text_events(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    tags = accumulator.Tags()["tensors"]
    return {t: [(e.step, e.tensor_proto.string_val[0].decode()) for e in accumulator.Tensors(t)]
            for t in tags}  # fmt: skip


def test_tensorboard_gets_findings_as_text_and_facts_packed(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    watcher = doctor()
    findings = examined(Faulty(), epochs=2, logger=logger, watcher=watcher)
    texts, (scalars, _) = text_events(logger.log_dir), events(logger.log_dir)
    assert findings
    for finding in findings:
        ((step, text),) = texts[f"diagnosis/{finding.id}/text_summary"]
        assert step in (finding.step, finding.step - 1)  # Lightning's own logging step
        assert finding.message in text
        assert all(line in text for line in finding.advice)
        assert all(name in text for name in finding.evidence)
        assert scalars[f"diagnosis/{finding.id}"][0][1] == 1 + SEVERITIES.index(finding.severity)
    assert not [name for name in scalars if name.startswith(FACTS)]
    checks = [json.loads(text) for _, text in texts["diagnosis/facts"]]
    assert len(checks) >= 3
    assert all(isinstance(v, float) for check in checks for v in check.values())
    assert {"loss_ratio", "learnt", "update_ratio"} <= set(checks[-1])
    told = [each for _, text in texts["diagnosis/findings"] for each in json.loads(text)]
    raised = [each for each in told if each["state"] == "raised"]
    assert [Finding.from_dict(each) for each in raised] == [*findings, *watcher.withdrawn]
    assert {"raised", "confirmed"} == {each["state"] for each in told}


def test_facts_are_scalars_on_request_and_nobody_can_monitor_them(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    trainer = fit(Program(mlp()), [doctor(log_facts=True)], learnable(), logger=logger)
    scalars, _ = events(logger.log_dir)
    assert len(scalars[f"{FACTS}/loss_ratio"]) >= 3
    packed = packed_events(tmp_path, f"{FACTS}/loss_ratio")
    assert all(len(names) > 3 for _, names in packed), "the facts of a step leave as one event"
    assert not [name for name in trainer.callback_metrics if name.startswith("diagnosis")]


def test_the_text_of_a_finding_is_a_list_and_a_table():
    rule = next(r for r in RULES if r.id == "target-scale" and r.severity == "warning")
    (finding,) = reported(rule, [moment(rule, s) for s in range(rule.persistence)])
    head, message, advice, table = markdown(finding).split("\n\n")
    assert head.startswith("**warning**, step ")
    assert message == finding.message
    assert [line[:3] for line in advice.splitlines()] == ["1. ", "2. "]
    rows = table.splitlines()
    assert len(rows) == 2 + len(finding.evidence)
    assert all(row.startswith("| ") and row.count("|") == 4 for row in rows)


def test_the_file_holds_every_finding(tmp_path):
    for logger in (TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "table")):
        watcher = doctor()
        examined(Faulty(), epochs=2, watcher=watcher, logger=logger)
        (path,) = tmp_path.joinpath(logger.save_dir).rglob("findings.json")
        assert str(path.parent) == logger.log_dir
        written = json.loads(path.read_text())
        assert [Finding.from_dict(plain) for plain in written["findings"]] == watcher.findings
        assert written["step"] == 40
        assert list(path.parent.glob("findings.json?*")) == []


def test_the_file_of_a_healthy_run_says_so(tmp_path):
    examined(Program(mlp()), logger=CSVLogger(tmp_path))
    (path,) = tmp_path.rglob("findings.json")
    assert json.loads(path.read_text())["findings"] == []


def test_the_file_is_there_although_the_run_failed(tmp_path):
    class Fails(Faulty):
        def training_step(self, batch, batch_idx):
            if batch_idx == 7:
                raise KeyError("mine")
            return super().training_step(batch, batch_idx)

    with pytest.raises(KeyError, match="mine"):
        examined(Fails(), logger=CSVLogger(tmp_path))
    (path,) = tmp_path.rglob("findings.json")
    assert "output-activation" in path.read_text()


def test_without_a_logger_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert examined(Faulty(), logger=False) != []
    assert list(tmp_path.rglob("*")) == []


def test_what_cannot_be_seen_of_a_compiled_module_is_said(tmp_path):
    module = torch.compile(Program(mlp()), backend="eager")
    examined(module, logger=CSVLogger(tmp_path))
    (path,) = tmp_path.rglob("findings.json")
    assert "compiled" in " ".join(json.loads(path.read_text())["unseen"])
    torch._dynamo.reset()


# memory


def plain(value):
    """Say whether a state holds plain values and tensors only."""
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or type(value) in (str, int, float, bool, torch.Tensor)


@pytest.mark.parametrize("make", [Faulty, lambda: Program(mlp()), lambda: Program(zero_net())])
def test_the_state_is_plain_and_comes_back(make):
    watcher = doctor()
    examined(make(), epochs=2, watcher=watcher)
    state = watcher.state_dict()
    assert plain(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    other = doctor()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other.findings == watcher.findings
    assert json.dumps(other.state_dict()) == json.dumps(state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_a_doctor_can_be_copied_before_and_after_a_fit(copied):
    watcher = doctor()
    assert copied(watcher).findings == []
    examined(Faulty(), watcher=watcher)
    assert copied(watcher).findings == watcher.findings != []


def test_findings_outlive_the_fit_and_a_second_fit_forgets_the_first():
    watcher = doctor()
    examined(Faulty(), watcher=watcher)
    assert "output-activation" in ids(watcher.findings)
    examined(Program(mlp()), watcher=watcher)
    assert alarms(watcher.findings) == set()
    examined(Faulty(), watcher=watcher)
    assert "output-activation" in ids(watcher.findings)


def test_a_second_fit_is_judged_like_a_first():
    used, fresh = doctor(), doctor()
    examined(Program(zero_net()), watcher=used)
    for watcher in (used, fresh):
        torch.manual_seed(0)
        examined(Faulty(), hopeless(), epochs=3, watcher=watcher)
    assert json.dumps(used.state_dict()) == json.dumps(fresh.state_dict())


def saver(tmp_path):
    """Save at the end of each epoch, as the same callback in each run."""
    return ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")


def saving(tmp_path, program, data, epochs, watcher=None, ckpt_path=None):
    watcher = watcher or doctor()
    options = {"enable_checkpointing": True, "ckpt_path": ckpt_path}
    fit(program, [watcher, saver(tmp_path)], data, epochs=epochs, **options)
    return watcher, tmp_path / f"epoch={epochs - 1}.ckpt"


def test_a_run_that_goes_on_reports_nothing_twice(tmp_path, caplog):
    first, path = saving(tmp_path, Faulty(), learnable(), 2)
    reported = list(first.findings)
    assert reported
    caplog.clear()
    watcher = doctor(print_findings=True)
    saving(tmp_path, Faulty(), learnable(), 4, watcher, path)
    assert watcher.findings[: len(reported)] == reported
    assert "output-activation" not in caplog.text
    assert len([f for f in watcher.findings if f.id == "output-activation"]) == 1


def test_a_run_that_is_restarted_each_epoch_is_judged_like_a_whole_one(tmp_path):
    """Streaks and histories go on: the findings are those of the run that was never stopped."""

    def make():
        torch.manual_seed(0)
        return Program(nn.Linear(8, CLASSES))

    whole, _ = saving(tmp_path / "whole", make(), hopeless(), 6)
    path = None
    for epoch in range(1, 7):
        part, path = saving(tmp_path / "parts", make(), hopeless(), epoch, ckpt_path=path)
    assert ids(part.findings) == ids(whole.findings) != set()
    histories = [d.state_dict()["patient"]["losses"]["recent"] for d in (whole, part)]
    assert histories[1] == pytest.approx(histories[0])


def squares_by_hand(prediction, target):
    return ((prediction - target) ** 2).mean()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("loss", "data"),
    [
        (nn.functional.cross_entropy, learnable(64, size=4)),
        (nn.functional.mse_loss, numbers(64, size=4)),
        (squares_by_hand, numbers(12, size=1)),  # pairs of rows, from one batch to the next
    ],
)
def test_a_run_that_is_restarted_remembers_the_targets(tmp_path, loss, data):
    """Constant predictions are judged by all targets seen, not by those since the restart."""

    def make():
        torch.manual_seed(0)
        return Program(
            nn.Linear(8, 1 if loss is not nn.functional.cross_entropy else CLASSES), loss
        )

    whole, _ = saving(tmp_path / "whole", make(), data, 4)
    _, path = saving(tmp_path / "parts", make(), data, 2)
    part, _ = saving(tmp_path / "parts", make(), data, 4, ckpt_path=path)
    for key in ("batches", "pairs"):
        kept, expected = (json.dumps(d.state_dict()["patient"][key]) for d in (part, whole))
        assert kept == expected


def test_a_state_without_targets_still_loads():
    watcher = doctor()
    examined(Program(mlp()), watcher=watcher)
    state = watcher.state_dict()
    for key in ("batches", "pairs"):
        del state["patient"][key]["targets"]
    restored = doctor()
    restored.load_state_dict(state)
    again = restored.state_dict()
    for key in ("batches", "pairs"):
        fresh = again["patient"][key].pop("targets")
        assert not any(fresh.values())  # nothing is known of the targets
    assert json.dumps(again["patient"]) == json.dumps(state["patient"])


def test_a_fit_that_is_continued_by_the_same_trainer_keeps_its_findings():
    watcher = doctor()
    module = Faulty()
    trainer = fit(module, [watcher], learnable())
    reported = list(watcher.findings)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, learnable())
    assert watcher.findings[: len(reported)] == reported != []


def test_a_resumed_run_does_not_take_up_the_findings_of_another(tmp_path):
    """The checkpoint was made without a doctor; the doctor has served another fit."""
    watcher = doctor()
    examined(Faulty(), watcher=watcher)
    trainer = fit(Program(mlp()), [], learnable())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    fit(Program(mlp()), [watcher], learnable(), epochs=2, ckpt_path=tmp_path / "plain.ckpt")
    assert alarms(watcher.findings) == set()


class Tuned(Program):
    """Has a learning rate that a finder may set."""

    def __init__(self, net):
        super().__init__(net)
        self.lr = 1e-3

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def test_a_finder_that_tries_learning_rates_first_leaves_no_trace(tmp_path):
    """It saves and restores the state of every callback before the fit begins."""
    used = doctor()
    examined(Faulty(), watcher=used)
    finder = LearningRateFinder(num_training_steps=20)
    saves = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    fit(Tuned(zero_net()), [finder, used], learnable(), **saves)
    assert [(f.id, f.step) for f in used.findings] == [("bad-initialization", 0)]


def test_a_validation_outside_of_a_fit_changes_nothing():
    class Validated(Program):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.loss(self(batch[0]), batch[1]))

    watcher, module = doctor(), Validated(mlp())
    trainer = fit(module, [watcher], learnable(), limit_val_batches=0)
    before = json.dumps(watcher.state_dict())
    trainer.limit_val_batches = 2
    for seed in range(3):
        trainer.validate(module, hopeless(64, seed=seed), verbose=False)
    assert json.dumps(watcher.state_dict()) == before
    fresh = doctor()
    trainer.callbacks = [fresh]
    trainer.validate(module, hopeless(64), verbose=False)
    assert fresh.findings == []


def test_few_steps_of_a_long_run_are_sampled():
    """Between them the doctor does nothing but keep the loss."""
    sampled = []

    class Spied(TrainingDoctor):
        def wants_step(self, trainer):
            wants = super().wants_step(trainer)
            sampled.append(wants)
            return wants

    watcher = Spied(print_findings=False, every_n_steps=50)
    examined(Program(mlp()), learnable(800, size=2), watcher=watcher)
    assert len(sampled) == 400
    assert sum(sampled) < 40
    assert sampled[0]
    assert sum(sampled[100:]) <= 8
