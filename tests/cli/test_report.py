"""`lightning-stab report` and `compare`: a page, a sentence, an exit code."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.run_folders import falling, write_curves

from lightning_stab.cli import run
from lightning_stab.reporting import read_run
from lightning_stab.reporting.compare import differences, first_difference, judged

SICK = np.geomspace(1.0, 1e7, 40)


def called(*words):
    with pytest.raises(SystemExit) as left:
        run(list(words))
    return left.value.code


def a_run(folder, curves, config):
    write_curves(folder, curves)
    (folder / "hparams.yaml").write_text(config)
    return folder


@pytest.mark.parametrize(("values", "code", "said"), [(falling(), 0, "Healthy"), (SICK, 1, "Div")])
def test_the_exit_code_says_whether_something_is_wrong(tmp_path, capsys, values, code, said):
    write_curves(tmp_path, {"train_loss": values})
    assert called("report", str(tmp_path)) == code
    first, path = capsys.readouterr().out.splitlines()
    assert first.startswith(said)
    assert path == str(tmp_path / "report.html")
    assert 'id="verdict"' in (tmp_path / "report.html").read_text()


def test_what_is_no_run_is_one_sentence(tmp_path, capsys):
    assert called("report", str(tmp_path / "missing")) == 2
    assert "must be a folder" in capsys.readouterr().err
    write_curves(tmp_path, {"train_loss": falling()})
    assert called("report", str(tmp_path), "--output", str(tmp_path / "no" / "x.html")) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert called("compare", str(tmp_path)) == 2
    assert "at least two" in capsys.readouterr().err


WITHOUT_TORCH = """
import sys
from _lightning_stab import main
try:
    main()
finally:
    print([name for name in ("torch", "lightning") if name in sys.modules])
"""


def test_pages_are_made_without_torch(tmp_path):
    def script(*words):
        command = [sys.executable, "-c", WITHOUT_TORCH, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    write_curves(tmp_path / "a", {"train_loss": falling()})
    write_curves(tmp_path / "b", {"train_loss": SICK})
    done = script("report", "b")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "[]")
    done = script("compare", "a", "b")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")
    assert "1 of 2 runs failed" in done.stdout
    refused = script("report", "missing")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "NoRunError" in script("report", "missing", "--debug").stderr


def test_watch_writes_the_page_again_as_the_logs_grow(tmp_path, monkeypatch, capsys):
    write_curves(tmp_path, {"train_loss": falling()}, suffix=".1")
    moments = iter([lambda: None, lambda: write_curves(tmp_path, {"val_loss": SICK}, suffix=".2")])

    def sleep(seconds):
        assert seconds == 3
        next(moments, interrupt)()

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_stab.cli.report.time.sleep", sleep)
    (log,) = tmp_path.glob("events*")  # a log file stands for its folder
    called("report", str(log), "--watch", "--interval", "3")
    assert capsys.readouterr().out.count("report.html") == 2
    assert "val_loss" in (tmp_path / "report.html").read_text()


def test_compare_says_what_tells_failing_and_good_runs_apart(tmp_path, capsys):
    norms = {"grad_norm/total": np.geomspace(1, 1e6, 40)}
    for number in range(2):
        bad = {"train_loss": SICK * (1 + number), **norms}
        good = {"train_loss": falling(40) + 0.01 * number, "grad_norm/total": np.ones(40)}
        a_run(tmp_path / f"bad{number}", bad, f"lr: 0.5\nseed: {number}\nwidth: 8\n")
        a_run(tmp_path / f"good{number}", good, f"lr: 0.001\nseed: {number}\nwidth: 8\n")
    folders = [str(path) for path in sorted(tmp_path.iterdir())]
    page = tmp_path / "comparison.html"
    assert called("compare", *folders, "--output", str(page)) == 0
    out = capsys.readouterr().out
    assert "2 of 4 runs failed" in out
    assert "What was set differently in them alone: lr." in out
    assert "from step" in out
    assert "width" not in out
    assert page.read_text().index("Set differently") < page.read_text().index("Curves over")
    runs = judged([read_run(folder) for folder in folders])
    assert differences(runs)["lr"] == ["0.5", "0.5", "0.001", "0.001"]
    assert first_difference(runs).step < 10


def test_runs_that_differ_in_nothing_are_not_told_apart(tmp_path):
    for name in "ab":
        a_run(tmp_path / name, {"train_loss": falling()}, "lr: 1\n")
    runs = judged([read_run(tmp_path / name) for name in "ab"])
    assert differences(runs) == {}
    assert first_difference(runs) is None


def test_a_configuration_of_foreign_classes_is_read_and_makes_nothing(tmp_path):
    text = "a: !!python/object/apply:os.system ['false']\nb: {c: [1, 2]}\n"
    runs = [a_run(tmp_path / name, {"loss": [1.0]}, text + f"d: {name}\n") for name in "xy"]
    assert differences(judged([read_run(folder) for folder in runs])) == {"d": ["x", "y"]}
