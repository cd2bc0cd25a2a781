"""The command line: defaults, one's own classes, folders that never collide, clear errors."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
import yaml
from helpers.processes import run_code
from helpers.tiers import in_tiers
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lightning_stab.callbacks
from _lightning_stab import COMMANDS, answer, keep_help, shown_help
from lightning_stab.cli import StabCLI, main, own_error, run
from lightning_stab.cli.command import OTHER_COMMANDS
from lightning_stab.cli.parser import MONITORING, SEED
from lightning_stab.cli.run_folder import claim_folders, leave_no_empty_folder
from lightning_stab.errors import StabError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("folder")
TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.limit_predict_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.num_sanity_val_steps=0",
]
SMALL = ["--model.depth=1", "--model.width=8"]
BARE = ["--trainer.callbacks=[]"]
THEIRS = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule

class MyModule(LightningModule):
    def __init__(self, depth: int = 7, fails: bool = False):
        super().__init__()
        self.depth, self.fails = depth, fails
        self.layer = torch.nn.Linear(4, 1)
        torch.nn.init.constant_(self.layer.weight, 0.25)

    def training_step(self, batch, batch_idx):
        if self.fails:
            raise KeyError("a fault of the module's own")
        return self.layer(batch).square().mean()

    def test_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)

class MyData(LightningDataModule):
    def __init__(self, batch_size: int = 2):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 4), self.batch_size)

class MyModuleWithLoader(MyModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 4), 2)
"""


@pytest.fixture
def their_package(folder):
    (folder / "their_package.py").write_text(THEIRS)
    yield
    sys.modules.pop("their_package", None)


def fit(*words):
    return run(["fit", *TINY, *words])


def printed_config(capsys, *words):
    with pytest.raises(SystemExit) as end:
        run([*words, "--print_config"])
    assert end.value.code == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    """Return what stands on stderr after a run that ended with code 2 and no traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run(list(words))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def class_names(callbacks):
    return [callback["class_path"].split(".")[-1] for callback in callbacks]


def test_fit_trains_the_digits_with_the_whole_suite(folder):
    cli = fit(*SMALL)
    run_folder = folder / "runs" / "version_0"
    assert list(run_folder.glob("events.out.tfevents.*"))
    assert list((run_folder / "checkpoints").glob("*.ckpt"))
    saved = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert saved["seed_everything"] == SEED
    assert saved["model"]["class_path"] == "lightning_stab.models.MLPClassifier"
    assert saved["model"]["init_args"]["batch_norm"] is True
    wanted = lightning_stab.callbacks.__all__
    assert sorted(class_names(saved["trainer"]["callbacks"])) == sorted(wanted)
    attached = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert attached >= set(wanted)


@pytest.mark.nightly
def test_the_same_seed_gives_the_same_run(folder):
    def loss(*words):
        nothing_kept = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
        return fit(*SMALL, *nothing_kept, *words).trainer.callback_metrics["train_loss"]

    first = loss()
    assert loss() == first
    assert loss("--seed_everything=7") != first


@pytest.mark.nightly
def test_two_runs_never_share_a_folder(folder):
    kept = fit(*SMALL, *BARE).trainer.log_dir
    before = Path(kept, "config.yaml").read_text()
    assert fit(*SMALL, *BARE, "--model.activation=tanh").trainer.log_dir != kept
    assert Path(kept, "config.yaml").read_text() == before


@pytest.mark.parametrize("logger_class", [TensorBoardLogger, CSVLogger])
def test_runs_that_start_together_never_share_a_folder(folder, logger_class):
    start = Barrier(4)

    class Simultaneous(logger_class):
        def _get_next_version(self):
            version = super()._get_next_version()
            if version == 0:
                start.wait(timeout=60)  # now all have chosen the same number
            return version

    trainers = [
        Trainer(logger=Simultaneous("runs", name=""), enable_progress_bar=False, accelerator="cpu")
        for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(claim_folders, trainers))
    assert len({trainer.logger.log_dir for trainer in trainers}) == 4
    assert len(list((folder / "runs").iterdir())) == 4


def test_the_folder_is_claimed_before_the_run_begins(folder):
    class Watched(StabCLI):
        def before_fit(self):
            self.seen = list(Path("runs").iterdir())

    assert Watched(["fit", *TINY, *SMALL, *BARE]).seen == [Path("runs", "version_0")]


@pytest.mark.nightly
def test_a_folder_of_the_users_choice_keeps_every_config(folder):
    for depth in (1, 2):
        fit(*BARE, "--model.width=8", f"--model.depth={depth}", "--trainer.logger.version=mine")
    run_folder = folder / "runs" / "mine"
    depths = [
        yaml.safe_load((run_folder / name).read_text())["model"]["init_args"]["depth"]
        for name in ("config.yaml", "config_1.yaml")
    ]
    assert depths == [1, 2]


def test_without_a_logger_no_config_lands_in_the_working_folder(folder):
    fit(*SMALL, *BARE, "--trainer.logger=false", "--trainer.enable_checkpointing=false")
    assert list(folder.iterdir()) == []


@pytest.mark.nightly
def test_the_saved_config_repeats_the_run(folder, capsys):
    first = fit(*SMALL)
    saved = Path(first.trainer.log_dir, "config.yaml")
    capsys.readouterr()
    assert printed_config(capsys, "fit", "--config", str(saved)) == saved.read_text()
    again = run(["fit", "--config", str(saved)])
    assert again.trainer.log_dir != first.trainer.log_dir
    assert (
        again.trainer.callback_metrics["train_loss"]
        == (first.trainer.callback_metrics["train_loss"])
    )


@pytest.mark.parametrize(
    "subcommand", in_tiers(["fit", "validate", "test", "predict"], ["fit", "predict"])
)
def test_the_printed_config_round_trips(folder, capsys, subcommand):
    first = printed_config(capsys, subcommand)
    (folder / "printed.yaml").write_text(first)
    assert printed_config(capsys, subcommand, "--config", "printed.yaml") == first


SHORT = ["BestWeightsEarlyStopping", "GradientMonitor", "TrainingDoctor", "WeightInitialization"]


@pytest.mark.parametrize("name", in_tiers(lightning_stab.callbacks.__all__, SHORT))
def test_callbacks_go_by_their_short_names(folder, capsys, name):
    words = ["fit", f"--trainer.callbacks={name}"]
    if name == "BestWeightsEarlyStopping":
        words.append("--trainer.callbacks.monitor=val_loss")
    given = yaml.safe_load(printed_config(capsys, *words))["trainer"]["callbacks"]
    assert class_names(given if isinstance(given, list) else [given]) == [name]


def test_another_model_gets_its_own_defaults(folder, capsys):
    config = yaml.safe_load(printed_config(capsys, "fit", "--model=ConvClassifier"))
    alone = lightning_stab.models.ConvClassifier().hparams
    assert config["model"]["init_args"] == dict(alone)
    assert config["data"]["class_path"].endswith("DigitsDataModule")


def test_other_data_gets_its_own_defaults(folder, capsys):
    config = yaml.safe_load(printed_config(capsys, "fit", "--data=MNISTDataModule"))
    assert config["data"]["init_args"]["val_fraction"] == 0.1


@pytest.mark.usefixtures("their_package")
def test_a_module_of_ones_own_is_monitored_and_not_changed(folder):
    cli = fit("--model=their_package.MyModule", "--data=their_package.MyData")
    assert (cli.model.depth, cli.datamodule.batch_size) == (7, 2)
    assert torch.all(cli.model.layer.weight == 0.25)
    saved = yaml.safe_load(Path(cli.trainer.log_dir, "config.yaml").read_text())
    monitoring = list(MONITORING)
    assert class_names(saved["trainer"]["callbacks"]) == monitoring
    assert {"GradientMonitor", "StepGuard", "TrainingDoctor"} <= set(monitoring)


@pytest.mark.usefixtures("their_package")
def test_a_module_of_ones_own_keeps_its_own_loader(folder):
    cli = fit("--model=their_package.MyModuleWithLoader")
    assert cli.datamodule is None
    assert cli.trainer.global_step == 2


@pytest.mark.usefixtures("their_package")
def test_a_module_without_data_is_refused(capsys):
    said = refused(capsys, "fit", *TINY, "--model=their_package.MyModule")
    assert "`data` must name a data module, because MyModule has no `train_dataloader`" in said
    assert not Path("runs").exists()


@pytest.mark.usefixtures("their_package")
def test_a_fault_of_the_module_keeps_its_traceback():
    words = ["--model=their_package.MyModule", "--data=their_package.MyData"]
    with pytest.raises(KeyError, match="of the module's own"):
        fit(*words, "--model.fails=true")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model.activation=rleu"], "Did you mean 'relu'?"),
        (["--model.depth=0"], "`depth` must be an integer >= 1, got 0."),
        (["--data.batch_size=0"], "`batch_size` must be an integer >= 1, got 0."),
        (["--data=MNISTDataModule", "--data.data_dir=nowhere"], "nowhere"),
        (["--trainer.callbacks=GradientClipping", "--trainer.callbacks.threshold=-1"], "threshold"),
        (["--trainer.callbacks=WeightInitialization", "--trainer.callbacks.scheme=zeros"], "zeros"),
        (["--trainer.gradient_clip_val=1"], "gradient_clip_val"),
        (["--model=null"], "`model` must be a module, got null."),
    ],
)
def test_what_the_user_can_put_right_is_one_sentence(capsys, words, sentence):
    said = refused(capsys, "fit", *TINY, *words)
    lines = [line for line in said.splitlines() if line.startswith("lightning-stab")]
    assert len(lines) == 1, said
    assert sentence in lines[0]


MISTAKES = {
    "--versoin": "there is no option '--versoin'. Did you mean '--version'?",
    "fti": "there is no command 'fti'. Did you mean 'fit'?",
    "fit --model.depht=3": "MLPClassifier has no argument `depht`. Did you mean 'depth'?",
    "fit --model.depth=x": "`--model.depth` must be an integer, got 'x'.",
    "fit --trainer.max_steps=many": "`--trainer.max_steps` must be an integer, got 'many'.",
    "fit --trainer.precision=bf16-mix": "or null, got 'bf16-mix'. Did you mean 'bf16-mixed'?",
    "fit --config=basee.yaml": "basee.yaml'. Did you mean 'base.yaml'?",
    "fit --config=base.yaml": "the configuration has no key `trainer.max_epoch`. Did you mean",
    "fit --config=other.yaml": "the configuration has no key `modle`. Did you mean 'model'?",
    "fit --config=typo.yaml": "has no argument `treshold`. Did you mean 'threshold'?",
    "fit --config=class.yaml": "no class 'StepGard' is known. Did you mean 'StepGuard'?",
    "fit --config=choice.yaml": "rule` must be one of value, norm, adaptive, history, got 'nrom'.",
    "fit --trainer.callbacks+=StepGuard --trainer.callbacks.on_spike=skp": "Did you mean 'skip'?",
    "fit --config=broken.yaml": "line 3, column",
    "fit --model=MLPClasifier": "no class 'MLPClasifier' is known. Did you mean 'MLPClassifier'?",
    "fit --model=Xyzzyqw": "A class of your own needs its whole path: my_package.MyClass.",
    "fit --model=nowhere.Module": "nowhere.Module cannot be imported: no module named 'nowhere'.",
    "fit --model=torch.nn.Lineer": "has no attribute 'Lineer'. Did you mean 'Linear'?",
    "fit --optimizer=SDG": "no class 'SDG' is known. Did you mean 'SGD'?",
    "fit --trainer.max_epoch=3": "Did you mean '--trainer.max_epochs'?",
    "fit --trainer.max_epochs": "`--trainer.max_epochs` needs a value.",
    "report --watc nowhere": "there is no option `--watc`. Did you mean '--watch'?",
    "report": "lightning-stab report: RUN_DIR is missing.",
    "report nowhere --interval=often": "`--interval` must be a number, got 'often'.",
    "compare a b --outptu=x": "there is no option `--outptu`. Did you mean '--output'?",
    "fit --trainr.max_epochs=3": "there is no option `--trainr.max_epochs`. Did you mean",
    "fit more": "'more' is not understood: every option begins with `--`.",
    "diagnose --stepp=3": "there is no option `--stepp`. Did you mean '--steps'?",
}
FILES = {
    "base.yaml": "trainer:\n  max_epoch: 3\n",
    "other.yaml": "modle:\n  class_path: MLPClassifier\n",
    "typo.yaml": "trainer:\n  callbacks:\n  - class_path: GradientClipping\n"
    "    init_args:\n      treshold: 3\n",
    "choice.yaml": "trainer:\n  callbacks:\n  - class_path: GradientClipping\n"
    "    init_args:\n      rule: nrom\n",
    "class.yaml": "trainer:\n  callbacks:\n  - class_path: StepGard\n",
    "broken.yaml": "trainer:\n max_epochs: 3\n  x: [\n",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_a_sentence_with_the_nearest_right_name(folder, capsys, words):
    for name, text in FILES.items():
        Path(folder, name).write_text(text)
    said = refused(capsys, *words.split())
    assert MISTAKES[words] in said
    assert 1 <= len(said.strip().splitlines()) <= 3


@pytest.mark.nightly
def test_debug_shows_where_a_mistake_was_found(capsys):
    with pytest.raises(ArgumentError, match="max_epochs"):
        run(["fit", "--debug", "--trainer.max_epochs=many"])
    with pytest.raises(ValueError, match="`depth` must be an integer >= 1"):
        run(["fit", "--debug", "--model.depth=0"])
    assert "must be an integer or null" in refused(capsys, "fit", "--trainer.max_epochs=many")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fitt"], []])
def test_what_needs_no_torch_is_answered_without_it(words):
    code = (
        "import sys, _lightning_stab\n"
        f"print(_lightning_stab.answer({words!r}), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == f"{0 if words and '-' in words[0] else 2} False"


def test_the_list_of_commands_is_whole():
    fit_and_others = {*LightningCLI.subcommands(), *OTHER_COMMANDS}
    assert set(COMMANDS) == fit_and_others


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_begins_with_the_suites_part(capsys, monkeypatch, tmp_path, command):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run([command, "--help"])
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert said.err == ""
    first, options = said.out.split("options:\n", 1)
    what, example = COMMANDS[command]
    assert first.startswith(f"usage: lightning-stab {command} ")
    assert what in first
    assert f"example: lightning-stab {example}" in first
    if command not in ("report", "compare"):
        assert all(name in first for name in lightning_stab.callbacks.__all__)
        assert "--trainer.max_epochs" in options
    assert answer([command, "-h"]) == 0  # from the cache
    assert capsys.readouterr().out == said.out


def test_a_help_of_another_release_is_made_again(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert answer(["compare", "--help"]) is None
    keep_help("compare", "the help\n")
    assert answer(["compare", "--help"]) == 0
    assert capsys.readouterr().out == "the help\n"
    monkeypatch.setenv("COLUMNS", "47")
    assert answer(["compare", "--help"]) is None
    shown_help("compare")[0].write_bytes(b"\xff")
    assert answer(["compare", "--help"]) is None
    assert answer(["compare", "--help", "x"]) is None
    assert capsys.readouterr().out == ""


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    keep_help("fit", "the help\n")
    assert answer(["fit", "--help"]) is None


@pytest.mark.parametrize("logged", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_a_page_is_written_by_default_where_there_is_a_logger(folder, logged):
    cli = run(["fit", *TINY, *SMALL, *([] if logged else ["--trainer.logger=false"])])
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert ("StabilityReport" in names) == logged
    assert len(list(Path(folder).rglob("report.html"))) == logged


def test_a_failed_start_leaves_no_empty_folder(folder, capsys):
    refused(capsys, "fit", *TINY, *SMALL, "--trainer.gradient_clip_val=1")
    assert not list(Path(folder, "runs").iterdir())


def test_a_folder_with_results_is_kept(folder):
    for name in ("empty", "full"):
        Path(folder, name).mkdir()
        Path(folder, name, "config.yaml").write_text("seed_everything: 1\n")
    Path(folder, "full", "mine.txt").write_text("kept")
    leave_no_empty_folder([Path(folder, name) for name in ("empty", "full", "never")])
    assert [path.name for path in Path(folder).iterdir()] == ["full"]


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_that_is_not_there_is_one_sentence(folder, capsys, command):
    Path(folder, "epoch=1.ckpt").touch()
    said = refused(capsys, command, *TINY, *SMALL, *BARE, "--ckpt_path=epoch=2.ckpt")
    assert "there is no file 'epoch=2.ckpt'. Did you mean 'epoch=1.ckpt'?" in said
    assert not Path("runs").exists()


@pytest.mark.nightly
def test_the_checkpoint_is_tested(folder, capsys):
    trained = fit(*SMALL, *BARE)
    checkpoint = next(Path(trained.trainer.log_dir, "checkpoints").glob("*.ckpt"))
    direct = trained.trainer.test(trained.model, trained.datamodule, verbose=False)
    loaded = run(["test", *TINY, *SMALL, f"--ckpt_path={checkpoint}"])
    assert loaded.trainer.callback_metrics["test_loss"].item() == pytest.approx(
        direct[0]["test_loss"]
    )


@pytest.mark.parametrize("subcommand", in_tiers(["validate", "test", "predict"], ["test"]))
def test_measuring_untrained_weights_is_pointed_out(folder, subcommand):
    with pytest.warns(UserWarning, match=f"`{subcommand}` without --ckpt_path uses the weights"):
        run([subcommand, *TINY, *SMALL])


def test_the_installed_script_ends_with_code_0(folder):
    assert main(["fit", *TINY, *SMALL, *BARE]) is None  # what it returns goes to sys.exit


def test_only_the_suites_own_errors_become_sentences():
    assert own_error(ValueError("not ours")) is None
    assert own_error(None) is None
    ours = StabError("ours")
    assert own_error(ours) is ours


@pytest.mark.nightly
def test_the_package_runs_as_a_module_from_anywhere(folder):
    said = run_code(("lightning_stab", "--help"), folder, [ROOT])
    assert all(name in said for name in ("lightning-stab", "fit", "validate", "test", "predict"))


def test_a_process_that_ends_leaves_the_ranks_on_a_cpu(tmp_path):
    # the threads of a group that is left open may abort a process that has done its work
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert not torch.distributed.is_initialized()
