"""Every code block of the README, the pages and the benchmarks runs, or says why not."""

import importlib.util
import inspect
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from string import Template

import pytest
import yaml
from helpers.cases import for_each
from helpers.command_folder import command_folder
from helpers.doc_blocks import PAGES, ROOT, assert_shown, blocks, given_names, run_page, runnable
from lightning.pytorch import Trainer, strategies

import _lightning_stab
import lightning_stab

LANGUAGES = {"python", "bash", "yaml", "text", "toml"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MINE = '''"""A module and data of a reader's own."""

from lightning_stab.data import DigitsDataModule
from lightning_stab.models import MLPClassifier


class MyModule(MLPClassifier):
    def __init__(self) -> None:
        super().__init__(depth=8, width=16, activation="sigmoid", batch_norm=False)


class MyData(DigitsDataModule):
    pass
'''
CURE = "trainer:\n  callbacks+:\n  - class_path: WeightInitialization\n"
SETTINGS = {
    "model": "my_package.MyModule",
    "data": "my_package.MyData",
    "trainer": {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}


def cases(language, in_gate=lambda page: True):
    """Return the pages that have a language; those outside the gate are marked."""
    pages = [page for page in PAGES if runnable(page, language)]
    marks = {page: () if in_gate(page) else pytest.mark.nightly for page in pages}
    return [pytest.param(p, id=str(p.relative_to(ROOT)), marks=marks[p]) for p in pages]


def trains_little(page):
    """Say whether a page's Python only makes things and trains nothing."""
    code = "".join(block.text for block in runnable(page, "python"))
    return not re.search(r"\.fit\(|prescribe\(|mp\.spawn", code)


def lay_out(folder):
    """Put into a folder what a reader has: a package, a configuration, the project's configs."""
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text(MINE)
    (package / "alerts.py").write_text('"""Notices."""\n\n\ndef send(finding):\n    pass\n')
    (folder / "my.yaml").write_text(yaml.safe_dump(SETTINGS))
    (folder / "configs").symlink_to(ROOT / "configs")


@contextmanager
def working_in(folder):
    """Work in a folder whose package can be imported; forget the package afterwards."""
    with command_folder(folder):
        sys.path.insert(0, str(folder))
        yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path):
    lay_out(tmp_path)
    with working_in(tmp_path):
        yield tmp_path


@for_each(PAGES)
def test_every_block_names_its_language_and_shows_no_output_of_its_own(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}"
        assert block.is_output <= (block.language == "text"), f"{page}:{block.line}"


@pytest.mark.parametrize("page", cases("python", trains_little))
def test_the_python_of_a_page_runs_and_prints_what_it_shows(page, folder):
    run_page(page, given_names())


@pytest.mark.parametrize("page", cases("yaml"))
def test_the_yaml_of_a_page_can_be_built(page, folder):
    for block in runnable(page, "yaml"):
        settings = yaml.safe_load(block.text)
        assert set(settings) <= {"trainer", "model", "data", "seed_everything"}, block.line
        arguments = settings.get("trainer", {})
        callbacks = arguments.pop("callbacks", []) + arguments.pop("callbacks+", [])
        assert all(built(each, lightning_stab) for each in callbacks)
        if isinstance(arguments.get("strategy"), dict):
            assert built(arguments.pop("strategy"), strategies)
        assert set(arguments) <= set(inspect.signature(Trainer.__init__).parameters), block.line


def built(entry, home):
    """Return the object that an entry of a configuration describes."""
    path, _, name = entry["class_path"].rpartition(".")
    home = importlib.import_module(path) if path else home
    return getattr(home, name)(**entry.get("init_args", {}))


@pytest.mark.parametrize("page", cases("bash"))
def test_the_commands_of_a_page_exist(page):
    for words in commands(page):
        check_command(words)


def commands(page, language="bash"):
    """Return the commands of a page's blocks as words, without what they redirect."""
    for block in runnable(page, language):
        variables = {}
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(Template(line).safe_substitute(variables), comments=True)
            words = words[: words.index(">")] if ">" in words else words
            if len(words) == 1 and re.match(r"\w+=", words[0]):
                variables.update([words[0].split("=", 1)])
            elif words:
                yield words


def check_command(words):
    """Fail if a command names what the project does not have."""
    if words[:2] == ["pip", "install"]:
        named = {name for word in words for name in re.findall(r"\[([\w,-]+)\]", word)}
        assert {part for name in named for part in name.split(",")} <= set(EXTRAS), words
    elif words[:2] == ["python", "-m"]:
        spec = importlib.util.find_spec(words[2])
        assert spec is not None, words
        near = "".join(path.read_text() for path in Path(spec.origin).parent.glob("*.py"))
        near += (ROOT / "benchmarks" / "_script.py").read_text()
        options = [word for word in words[3:] if word.startswith("--")]
        own = words[2].split(".")[0] in ("benchmarks", "docs", "examples")
        assert not own or all(f'"{option}"' in near for option in options), words
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "lightning-stab":
        assert words[1] in _lightning_stab.COMMANDS or words[1].startswith("--"), words
    else:
        assert entry_points(group="console_scripts", name=words[0]), words


def small(words):
    """Return a command of the suite with options that make it short."""
    command = words[1]
    if command == "diagnose" and "--steps" not in words:
        words = [*words, "--steps=20"]
    if command == "prescribe":
        words = [*words, "--seeds=1", "--max_cost=2"]
    if command in ("fit", "prescribe") and "--help" not in words:
        words = [*words, "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"]
    if command in ("validate", "test", "predict"):
        words = [*words, "--trainer.enable_progress_bar=false"]
    return words


def call(words):
    """Run ``lightning-stab`` in this process; return its exit code and what it printed."""
    said, code = io.StringIO(), 0
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(sys, "argv", words)
        for each in (redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings()):
            stack.enter_context(each)
        warnings.simplefilter("default")  # as outside of the tests
        try:
            _lightning_stab.main()
        except SystemExit as end:
            code = end.code or 0
    return code, said.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a reader's folder with three runs: one by its number, a sick and a healthy one."""
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder)
    with working_in(folder):
        for name, given in (("version_0", []), ("sigmoid", ["--config=my.yaml"]), ("healthy", [])):
            words = ["lightning-stab", "fit", *given, f"--trainer.logger.version={name}"]
            assert call(small(words))[0] == 0
        checkpoint = next(Path("runs/version_0/checkpoints").glob("*.ckpt"))
        checkpoint.rename(checkpoint.with_name("NAME.ckpt"))
        Path("cure.yaml").write_text(CURE)
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    """Return a copy of the folder with runs, and work in it."""
    copy = shutil.copytree(finished, tmp_path / "reader", symlinks=True)
    with working_in(copy):
        yield copy


def of_the_suite(page, language):
    return [words for words in commands(page, language) if words[0] == "lightning-stab"]


WITH_COMMANDS = [page for page in PAGES if of_the_suite(page, "bash")]


ALREADY_RUN = set()  # commands that several pages show


@pytest.mark.nightly
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_suites_commands_of_a_page_run(page, runs):
    for words in of_the_suite(page, "bash"):
        if tuple(words) in ALREADY_RUN:
            continue
        if words[1] == "--print_completion":
            continue  # the next test
        code, said = call(small(words))
        faulty = words[1] in ("diagnose", "prescribe", "report")  # the program is: exit code 1
        assert code in ((0, 1) if faulty else (0,)), said
        ALREADY_RUN.add(tuple(words))


@pytest.mark.nightly
@pytest.mark.full
def test_the_completion_script_is_written():
    """By a new process: its time grows without end with the subclasses that a process knows."""
    page = ROOT / "docs" / "command_line.md"
    (words,) = (w for w in of_the_suite(page, "bash") if w[1] == "--print_completion")
    command = [sys.executable, "-m", "lightning_stab", *words[1:]]
    script = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--trainer.max_epochs" in script.stdout


def sessions(page):
    """Return the commands that a page shows with their output, as text."""
    for block in blocks(page):
        if block.language == "text" and block.text.startswith("$ lightning-stab "):
            command, _, shown = block.text[2:].partition("\n")
            yield shlex.split(command), shown


@pytest.mark.nightly
@pytest.mark.parametrize(
    "page", [p for p in PAGES if list(sessions(p))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_command_answers_as_a_page_shows(page, runs):
    for words, shown in sessions(page):
        _, said = call(words)
        for line in filter(None, shown.splitlines()):
            assert_shown(line, said)


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("accuracy 0.93", "epoch 1\naccuracy 0.95\n", True),
        ("accuracy 0.93", "accuracy 0.10", False),
        ("accuracy 0.93", "loss 0.93", False),
        ("a\nb", "a\n\n  b", True),
        ("a\nb", "a\nc\nb", False),
        ("one of 'a', ..., got 'b'", "one of 'a', 'c', 'd', got 'b'", True),
        ("one of 'a', ..., got 'b'", "one of 'a', 'c', 'd', got 'x'", False),
    ],
)
def test_an_output_is_compared_by_words_and_size(shown, printed, agrees):
    if agrees:
        assert_shown(shown, printed)
    else:
        with pytest.raises(pytest.fail.Exception):
            assert_shown(shown, printed)
