"""What `diagnose` says before and after its fit, when it ends it, and with which code."""

from types import SimpleNamespace

import pytest

from lightning_stab.cli import diagnose as command
from lightning_stab.errors import UnstableStepError


@pytest.fixture
def diagnosed(monkeypatch):
    """Return a function that diagnoses a prepared fit; it gives the code and what was shown."""

    def run(*, is_first=True, failure=None, has_failed=False):
        shown = []
        found = SimpleNamespace(failure=failure, has_failed=has_failed)
        cli = SimpleNamespace(trainer=SimpleNamespace(is_global_zero=is_first),
                              config={"steps": 7, "json": True}, watch=lambda: found)  # fmt: skip
        monkeypatch.setattr(command, "DiagnoseCLI", lambda args, folder: cli)
        monkeypatch.setattr(command, "show", lambda found, as_json: shown.append((found, as_json)))
        code = command.diagnose([])
        assert shown == ([(found, True)] if is_first else [])
        return code

    return run


def test_the_first_process_says_how_long_it_watches_and_shows_what_was_found(diagnosed, capfd):
    assert diagnosed() == 0
    assert capfd.readouterr().err == "Watching at most 7 optimizer steps ...\n"
    assert diagnosed(is_first=False) == 0
    assert capfd.readouterr().err == ""
    assert diagnosed(has_failed=True) == 1


def test_a_failure_by_the_suites_own_hand_is_a_code_and_any_other_is_raised(diagnosed):
    assert diagnosed(failure=UnstableStepError("It blew up."), has_failed=True) == 1
    with pytest.raises(KeyError, match="their own"):
        diagnosed(failure=KeyError("their own"), has_failed=True)


@pytest.mark.parametrize(("start", "steps", "last"), [(0, 1, 1), (0, 3, 3), (5, 3, 8)])
def test_a_fit_ends_after_so_many_steps_from_its_start(start, steps, last):
    ending = command._EndAfter(steps)
    trainer = SimpleNamespace(global_step=start, should_stop=False)
    ending.on_train_start(trainer, None)
    for step in range(start, last + 1):
        trainer.global_step = step
        ending.on_train_batch_end(trainer)
        assert trainer.should_stop == (step == last)
