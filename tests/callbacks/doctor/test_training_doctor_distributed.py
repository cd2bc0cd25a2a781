"""Two gloo processes: the run is the unwatched one, one rank speaks, and nothing waits for ever."""

import json
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_RANKS = runpy.run_path(str(Path(__file__).parents[1] / "test_distributed.py"))
FULLY_SHARDED, run_ranks = _RANKS["FULLY_SHARDED"], _RANKS["run_ranks"]

COMMON = """
import contextlib
from pathlib import Path
from lightning.pytorch.loggers import CSVLogger
from helpers.lightning_twins import hooks_of
from helpers.doctor_programs import Program, doctor, loader, mlp, modes_left, samples
from lightning_stab import TrainingDoctor

def ids(watcher):
    return sorted({f.id for f in watcher.findings})

def healthy():
    '''Each rank's own samples of what can be learnt.'''
    x, y = samples(320)
    return loader(x[RANK::2], y[RANK::2], 16)

def uneven():
    '''On rank 1 alone the features are far too large, and one loss is NaN.'''
    x, y = samples(320)
    x = x[RANK::2] * (1e4 if RANK == 1 else 1.0)
    return loader(x, y[RANK::2], 16)

class Zero(Program):
    def __init__(self):
        super().__init__(mlp(3))
        for p in self.parameters():
            nn.init.zeros_(p)

class Fails(Program):
    '''One rank alone fails, after a sickness was told.'''
    def training_step(self, batch, batch_idx):
        if RANK == 1 and batch_idx == 6:
            raise KeyError("mine")
        return super().training_step(batch, batch_idx)
"""


def test_data_parallel_runs_are_watched_alike(tmp_path):
    first, second = run_ranks(COMMON + DDP, tmp_path)
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


DDP = """
class Torn(TrainingDoctor):
    '''Its facts differ from rank to rank, as losses and inputs do: rank 1 alone has a finding.'''
    def _diagnose(self, trainer, moment):
        if RANK == 1:
            self._engine.thresholds["all_identical"] = -0.5
        super()._diagnose(trainer, moment)

def run(name, make, callbacks=(), data=healthy, **more):
    torch.manual_seed(0)
    module = make()
    trainer("ddp", list(callbacks), **{"max_epochs": 2, **more}).fit(module, data())
    watchers = [c for c in callbacks if isinstance(c, TrainingDoctor)]
    report(name=name, weights=weights(module), hooks=len(hooks_of(module)) + modes_left(),
        ids=[i for w in watchers for i in ids(w)])

run("plain", lambda: Program(mlp(3)))
run("watched", lambda: Program(mlp(3)), [doctor(2)])
run("zero", Zero, [doctor(2)], logger=CSVLogger("zero"))
run("uneven-plain", lambda: Program(mlp(3)), data=uneven)
run("uneven", lambda: Program(mlp(3)), [doctor(2)], data=uneven)
run("torn", lambda: Program(mlp(3)), [Torn(print_findings=False, every_n_steps=2)],
    logger=CSVLogger("torn"))
"""


def test_fully_sharded_runs_are_watched(tmp_path):
    first, second = run_ranks(COMMON + FULLY_SHARDED + FSDP2, tmp_path)
    for one, other in zip(first, second, strict=True):
        assert one["weights"] == other["weights"], one["name"]
    facts = {fact["name"]: fact for fact in first}
    assert facts["watched"]["weights"] == facts["plain"]["weights"]
    assert facts["watched"]["alarms"] == []
    assert facts["watched"]["hooks"] == facts["plain"]["hooks"]


FSDP2 = """
def run(name, callbacks=()):
    module = built(Sharded)
    trainer(strategy(), list(callbacks), max_epochs=2).fit(module, shards())
    alarms = [f.id for c in callbacks for f in c.findings if f.is_alarm]
    report(name=name, weights=weights(module), alarms=alarms,
        hooks=len(hooks_of(module)) + modes_left())

run("plain")
run("watched", [doctor(2)])
"""


def test_a_failure_of_one_rank_ends_the_run(tmp_path):
    """What the doctor does at the end asks nothing of a rank that is elsewhere."""
    with pytest.raises(AssertionError, match="mine"):
        run_ranks(COMMON + FAILURE, tmp_path)


FAILURE = """
faulthandler.cancel_dump_traceback_later()
faulthandler.dump_traceback_later(20, exit=True)
watcher = doctor(2, thresholds={"all_identical": -0.5})
try:
    trainer("ddp", [watcher], logger=CSVLogger("logs")).fit(Fails(mlp(3)), healthy())
except KeyError as error:
    print("mine and no other", watcher.findings != [], flush=True)
    os._exit(1)
"""
