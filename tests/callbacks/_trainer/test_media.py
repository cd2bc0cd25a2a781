"""Each kind of logger gets texts, tables, figures and files by its own calls."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_stab.callbacks._trainer import media


class Recorder:
    """Takes the calls that it is made for, and no other."""

    def __init__(self, *names, **attributes):
        self.calls = []
        vars(self).update(attributes)
        for name in names:
            setattr(self, name, self._taking(name))

    def _taking(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


class NeptuneLogger:
    def __init__(self):
        self.calls = []
        self.experiment = self

    def __getitem__(self, name):
        def taking(kind):
            return lambda *args, **kwargs: self.calls.append((f"{name}.{kind}", args, kwargs))

        return SimpleNamespace(append=taking("append"), upload=taking("upload"))


def wandb():
    logger = Recorder("log_text", "log_table", "log_image")
    logger.experiment = Recorder("log", "save")
    return logger, logger.calls


def mlflow():
    experiment = Recorder("log_artifact", "log_text", "log_dict", "log_figure")
    return SimpleNamespace(run_id="r1", experiment=experiment), experiment.calls


def comet():
    experiment = Recorder("log_text", "log_table", "log_figure", "log_asset")
    return SimpleNamespace(experiment=experiment), experiment.calls


def neptune():
    logger = NeptuneLogger()
    return logger, logger.calls


def other():
    return SimpleNamespace(experiment=Recorder()), []


ROWS = [("a", 1)]
EXPECTED = {
    wandb: [
        ("log_text", (), {"key": "t", "columns": ["step", "text"], "data": [[7, "words"]]}),
        ("log_table", (), {"key": "t", "columns": ["x", "y"], "data": [["a", 1]]}),
        ("log_image", (), {"key": "f", "images": ["figure"]}),
    ],
    mlflow: [
        ("log_text", ("r1", "words", "t.md"), {}),
        ("log_dict", ("r1", {"columns": ["x", "y"], "data": [["a", 1]]}, "t.json"), {}),
        ("log_figure", ("r1", "figure", "f/00000007.png"), {}),
        ("log_artifact", ("r1", "runs/report.html"), {}),
    ],
    comet: [
        ("log_text", ("words",), {"step": 7, "metadata": {"name": "t"}}),
        ("log_table", ("t.csv", [["a", 1]]), {"headers": ["x", "y"]}),
        ("log_figure", (), {"figure_name": "f", "figure": "figure", "step": 7}),
        ("log_asset", ("runs/report.html",), {"file_name": "report.html"}),
    ],
    neptune: [
        ("t.append", ("words",), {"step": 7}),
        ("f.append", ("figure",), {"step": 7}),
        ("r.upload", ("runs/report.html",), {}),
    ],
    other: [],
}


class Trainer(SimpleNamespace):
    __hash__ = object.__hash__


def send_all(trainer, path):
    media.log_markdown(trainer, "t", "words", 7)
    media.log_table(trainer, "t", ("x", "y"), ROWS)
    media.log_figure(trainer, "f", "figure", 7)
    media.log_file(trainer, "r", path)


@pytest.mark.parametrize("make", EXPECTED)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_logger_gets(make, is_first, monkeypatch):
    monkeypatch.delitem(media.sys.modules, "wandb", raising=False)
    logger, calls = make()
    send_all(Trainer(loggers=[logger], is_global_zero=is_first), Path("runs/report.html"))
    assert calls == (EXPECTED[make] if is_first else [])


def test_weights_and_biases_gets_a_page_as_html_and_any_other_file_as_it_is(tmp_path, monkeypatch):
    def html(text, inject):
        return text, inject

    monkeypatch.setitem(media.sys.modules, "wandb", SimpleNamespace(Html=html))
    (logger, _), trainer = wandb(), Trainer(is_global_zero=True)
    trainer.loggers = [logger]
    (tmp_path / "report.html").write_text("<p>", "utf-8")
    media.log_file(trainer, "page", tmp_path / "report.html")
    media.log_file(trainer, "run", tmp_path / "run.json")
    base = str(tmp_path)
    assert logger.experiment.calls == [
        ("log", ({"page": ("<p>", False)},), {}),
        ("save", (str(tmp_path / "run.json"),), {"base_path": base, "policy": "now"}),
    ]


def test_a_logger_that_refuses_is_mentioned_once_and_the_others_get_theirs():
    def refuse(*_, **__):
        raise OSError("no network")

    broken = SimpleNamespace(log_text=refuse, experiment=Recorder())
    (good, calls) = comet()
    trainer = Trainer(loggers=[broken, good], is_global_zero=True)
    with pytest.warns(UserWarning, match=r"did not take a text \(OSError: no network\)"):
        media.log_markdown(trainer, "t", "words", 1)
    media.log_markdown(trainer, "t", "words", 2)  # a second warning would be an error
    assert [kwargs["step"] for _, _, kwargs in calls] == [1, 2]
