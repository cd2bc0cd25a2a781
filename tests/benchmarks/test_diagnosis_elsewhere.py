"""The programs drawn at random: parts are apart, labels come from outcomes, counts are right."""

import json

import pytest

from benchmarks.diagnosis.elsewhere.data import SETS, rows
from benchmarks.diagnosis.elsewhere.faults import BY_NAME, FAULTS, HARMLESS
from benchmarks.diagnosis.elsewhere.labels import counts, labelled, mistakes
from benchmarks.diagnosis.elsewhere.measure import main
from benchmarks.diagnosis.elsewhere.nets import NETS
from benchmarks.diagnosis.elsewhere.programs import PARTS, Drawn, programs
from lightning_stab.diagnosis import IDS

pytestmark = pytest.mark.nightly


def test_the_parts_share_neither_a_net_nor_a_data_set():
    for part in PARTS:
        for program in programs(part):
            assert NETS[program.settings["net"]][0] == part
            assert SETS[program.settings["data"]][0] == part


def test_the_same_programs_are_drawn_each_time_and_every_fault_is():
    names = [p.name for p in programs()]
    assert len(set(names)) == len(names)
    programs.cache_clear()
    assert [p.name for p in programs()] == names
    for part in PARTS:
        drawn = {p.change for p in programs(part)}
        assert len({c.name for c in FAULTS} & drawn) >= 40


def test_every_right_name_is_an_id():
    assert {id_ for change in FAULTS for id_ in change.ids} <= set(IDS)
    assert all(not change.ids for change in HARMLESS)
    assert len(BY_NAME) == len(FAULTS) + len(HARMLESS)


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_is_what_it_says(name):
    data = rows(name)
    dims = {"table": 2, "series": 3, "tokens": 2, "image": 4}
    assert data.x.dim() == data.val_x.dim() == dims[data.shape]
    assert len(data.x) == len(data.y) > 2 * len(data.val_x) > 0
    assert data.outputs == (int(data.y.max()) + 1 if data.task == "classes" else data.y.shape[1])


def row(skill, *ids, severity="warning", withdrawn=()):
    def said(names):
        return [[id_, severity, 1, "So."] for id_ in names]

    return {"skill": skill, "findings": said(ids), "withdrawn": said(withdrawn)}


def drawn(name, change=""):
    twin = name if not change else name.rpartition("/")[0]
    return Drawn(name, "tune", twin, change, {})


def test_labels_are_outcomes():
    some = [
        drawn("good"),
        drawn("good/rate_high", "rate_high"),
        drawn("good/raw_features", "raw_features"),
        drawn("good/large_inputs", "large_inputs"),
        drawn("good/detached", "detached"),
        drawn("good/cosine", "cosine"),
        drawn("poor"),
        drawn("poor/rate_low", "rate_low"),
    ]
    skills = (0.9, 0.1, 0.88, 0.79, 0.9, 0.2, 0.3, 0.0)
    results = {(p.name, 0, ""): row(s) for p, s in zip(some, skills, strict=True)}
    found = {p.program.name: p.names for p in labelled(some, results)}
    assert found == {
        "good": (),
        "good/rate_high": ("learning-rate-too-high", "non-finite"),
        "good/raw_features": (),
        "good/detached": ("unused-parameters",),
    }


def test_the_label_is_of_the_median_seed_and_other_runs_count_for_stability_only():
    some = [drawn("good"), drawn("good/rate_high", "rate_high")]
    results = {("good", 0, ""): row(0.9)}
    for seed, skill in enumerate((0.9, 0.1, 0.2)):
        results["good/rate_high", seed, ""] = row(skill, "learning-rate-too-high")
    results["good/rate_high", 0, "batch"] = row(0.9, "plateau")
    found = labelled(some, results)
    assert found[1].names
    assert found[1].skill == 0.2
    said = counts(found)
    assert said["same first alarm with another seed, batch or length"].startswith("2 of 3")
    assert said["found"].startswith("1 of 1")
    assert said["healthy accused at the end"].startswith("0 of 1")
    assert mistakes(found) == []


def test_mistakes_are_listed_and_information_is_no_alarm():
    some = [drawn("good"), drawn("good/rate_high", "rate_high")]
    results = {
        ("good", 0, ""): row(0.9, "plateau", withdrawn=["dead-units"]),
        ("good/rate_high", 0, ""): row(0.0, "plateau", severity="info"),
    }
    found = labelled(some, results)
    assert len(mistakes(found)) == 2
    assert counts(found)["healthy with a withdrawn alarm"].startswith("1 of 1")


def test_a_few_programs_are_run_measured_and_not_run_again(tmp_path, capsys):
    path = tmp_path / "runs.json"
    assert main(["--small", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert {name for name, *_ in results} == {p.name for p in programs("tune")[:3]}
    assert all(0 <= found["skill"] <= 1 for *_, found in results)
    assert "## tune" in capsys.readouterr().out
    assert main(["--small", "--json", str(path)]) == 0
    assert "runs," not in capsys.readouterr().out
