"""Two gloo processes: the run is the unwatched one, one rank speaks, and nothing waits for ever."""

import json

import pytest
import torch
from helpers.comparing import hooks_of
from helpers.doctor_programs import Program, doctor, loader, mlp, modes_left, samples
from helpers.lightning_twins import built
from helpers.ranks import ShardedClassifier, fit_on_ranks, fsdp2, rank, report, run_ranks, weights
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from lightning_stab import TrainingDoctor

pytestmark = pytest.mark.nightly


def healthy(scale=1.0):
    """Each rank's own samples of what can be learnt."""
    x, y = samples(320)
    return loader(scale * x[rank() :: 2], y[rank() :: 2], 16)


def uneven():
    """On rank 1 alone the features are far too large."""
    return healthy(1e4 if rank() == 1 else 1.0)


class Zero(Program):
    def __init__(self):
        super().__init__(mlp(3))
        for p in self.parameters():
            nn.init.zeros_(p)


class Torn(TrainingDoctor):
    """Its facts differ from rank to rank, as losses and inputs do: rank 1 alone has a finding."""

    def _diagnose(self, trainer, moment):
        if rank() == 1:
            self._engine.thresholds["all_identical"] = -0.5
        super()._diagnose(trainer, moment)


class Fails(Program):
    """One rank alone fails, after a finding was reported."""

    def training_step(self, batch, batch_idx):
        if rank() == 1 and batch_idx == 6:
            raise KeyError("mine")
        return super().training_step(batch, batch_idx)


def watch(name, make, *callbacks, data=None, **more):
    torch.manual_seed(0)
    module = make()
    fit_on_ranks(module, callbacks, data, epochs=2, **more)
    findings = [f for callback in callbacks for f in callback.findings]
    report(
        name=name,
        weights=weights(module),
        hooks=len(hooks_of(module)) + modes_left(),
        ids=sorted({f.id for f in findings}),
        alarms=[f.id for f in findings if f.is_alarm],
    )


def test_data_parallel_runs_are_watched_alike(tmp_path):
    first, second = run_ranks(data_parallel, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one["weights"] == other["weights"], one["name"]
        assert one["hooks"] == other["hooks"] == 0
    facts = {fact["name"]: fact for fact in first}
    assert facts["watched"]["weights"] == facts["plain"]["weights"]
    assert facts["zero"]["ids"] == ["bad-initialization"]
    assert facts["uneven"]["weights"] == facts["uneven-plain"]["weights"]
    assert facts["torn"]["weights"] == facts["plain"]["weights"]
    assert second[-1]["ids"] != facts["torn"]["ids"] == []
    for name in ("zero", "torn"):
        (path,) = tmp_path.joinpath(name).rglob("findings.json")
        assert [f["id"] for f in json.loads(path.read_text())["findings"]] == facts[name]["ids"]


def data_parallel():
    def make():
        return Program(mlp(3))

    torn = Torn(print_findings=False, every_n_steps=2, ignore=["too-short"])
    watch("plain", make, data=healthy())
    watch("watched", make, doctor(2), data=healthy())
    watch("zero", Zero, doctor(2), data=healthy(), logger=CSVLogger("zero"))
    watch("uneven-plain", make, data=uneven())
    watch("uneven", make, doctor(2), data=uneven())
    watch("torn", make, torn, data=healthy(), logger=CSVLogger("torn"))


def test_fully_sharded_runs_are_watched(tmp_path):
    first, second = run_ranks(fully_sharded, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one["weights"] == other["weights"], one["name"]
    facts = {fact["name"]: fact for fact in first}
    assert facts["watched"]["weights"] == facts["plain"]["weights"]
    assert facts["watched"]["alarms"] == []
    assert facts["watched"]["hooks"] == facts["plain"]["hooks"]


def fully_sharded():
    def make():
        return built(ShardedClassifier)

    watch("plain", make, strategy=fsdp2())
    watch("watched", make, doctor(2), strategy=fsdp2())


def test_a_failure_of_one_rank_ends_the_run(tmp_path):
    """What the doctor does at the end asks nothing of a rank that is elsewhere."""
    with pytest.raises(AssertionError, match="'mine' and no other, with findings: True"):
        run_ranks(one_rank_fails, tmp_path)


def one_rank_fails():
    watcher = doctor(2, thresholds={"all_identical": -0.5})
    try:
        fit_on_ranks(Fails(mlp(3)), [watcher], healthy(), logger=CSVLogger("logs"))
    except KeyError as error:
        raise SystemExit(f"{error} and no other, with findings: {watcher.findings != []}") from None
