"""The classes behind the command line: a parser with short errors, LightningCLI with defaults."""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden

import lightning_stab.callbacks
import lightning_stab.data
import lightning_stab.models  # short names are those of imported classes
from _lightning_stab import COMMANDS, PROGRAM
from lightning_stab.cli.mistakes import no_file, sentence
from lightning_stab.cli.run_folder import (
    ConfigSaver,
    claim_folders,
    leave_no_empty_folder,
    tensorboard_command,
)
from lightning_stab.errors import InvalidArgumentError, StabError

SEED = 42
MODEL = "lightning_stab.models.MLPClassifier"
DATA = "lightning_stab.data.DigitsDataModule"

TRAINER: dict[str, Any] = {
    "trainer.max_epochs": 30,
    "trainer.log_every_n_steps": 10,
    "trainer.logger": {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "runs", "name": "", "default_hp_metric": False},
    },
}

# callbacks by their names, with their arguments
MONITORING: dict[str, dict[str, Any]] = {
    "GradientMonitor": {},
    "StepGuard": {},
    "TrainingDoctor": {},
    "StabilityReport": {},
}
ALL: dict[str, dict[str, Any]] = {
    "WeightInitialization": {},
    "GradientCheck": {},
    "GradientMonitor": {},
    "ActivationMonitor": {},
    "GradientClipping": {},
    "StepGuard": {},
    "LearningRateDecay": {},
    "BestWeightsEarlyStopping": {"monitor": "val_loss"},
    "TrainingDoctor": {},
    "StabilityReport": {},
}

LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


def default_settings(
    model: str = MODEL, data: str | None = DATA, *, is_logged: bool = True
) -> dict[str, Any]:
    """Return the defaults that suit a model and a data module, by parser key.

    The suite's own module gets the whole suite. A module of the user's own is monitored and never
    changed: its weights may be pretrained, and it may have its own learning rate and its own end.
    A class of the user's choice gets no default arguments: those of another class would become
    its own wherever the names agree. Where the run has no logger there is no page to write.

    Example:
        >>> default_settings()["model"]
        {'class_path': 'lightning_stab.models.MLPClassifier'}
        >>> default_settings(model="my_package.MyModule")["data"] is None
        True
    """
    own = model.startswith("lightning_stab.")
    return {
        **TRAINER,
        "trainer.callbacks": [
            {"class_path": f"lightning_stab.{name}", "init_args": dict(arguments)}
            for name, arguments in (ALL if own else MONITORING).items()
            if is_logged or name != "StabilityReport"
        ],
        "model": {"class_path": MODEL} if model == MODEL else None,
        "data": {"class_path": DATA} if own and data == DATA else None,
    }


class StabArgumentParser(LightningArgumentParser):
    """A parser whose errors are one sentence, and whose help begins with the suite's part."""

    debug = False  # whether errors are raised, with their tracebacks
    output: Any = None  # the standard output of the command line

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **settings})  # half a name is a mistake

    def format_help(self, *args: Any) -> str:
        """Return the help; usage that names every option before it is explained is left out."""
        command = self.prog.split()[-1]
        if command not in COMMANDS:
            return str(super().format_help(*args))
        what, example = COMMANDS[command]
        self.usage, self.description = f"{PROGRAM} {command} [options]", None
        usage, _, options = super().format_help(*args).partition("\n\n")
        words = [usage, what, f"example: {PROGRAM} {example}", _own_callbacks(), options]
        return "\n\n".join(words)

    def print_help(self, file: Any = None) -> None:
        """Print the help where the command line writes, also where all else is kept quiet."""
        super().print_help(file or self.output or sys.stdout)

    def add_lightning_class_args(self, *args: Any, **settings: Any) -> list[str]:
        """Add a class; none is required, because its default is chosen after a first parse."""
        return super().add_lightning_class_args(*args, **{**settings, "required": False})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and where help is, then leave with code 2."""
        if self.debug or not self.exit_on_error:
            raise ArgumentError(None, message) from ex
        own = own_error(ex)
        parser = getattr(ex, "subcommand_parser", self)
        name = parser.prog.replace(" [options]", "")
        sys.stderr.write(f"{name}: {own or sentence(message, parser)}\n")
        if own is None:
            sys.stderr.write(f"All options: {name} --help\n")
        self.exit(2)


def _own_callbacks() -> str:
    """Return the suite's callbacks and what each does, from the first lines of their docstrings."""
    lines = [
        "the suite's callbacks, added by --trainer.callbacks+=NAME --trainer.callbacks.ARGUMENT X",
        "(--trainer.callbacks.help=NAME lists the arguments of one):",
    ]
    for name in lightning_stab.callbacks.__all__:
        what = inspect.getdoc(getattr(lightning_stab.callbacks, name)) or ""
        lines.append(f"  {name:24} {what.splitlines()[0]}")
    return "\n".join(lines)


class StabCLI(LightningCLI):
    """LightningCLI with the suite's defaults, which depend on whose module is trained.

    Args:
        args: the words of the command line; those of the process by default.
        settings: for `LightningCLI`, in place of the usual ones.
    """

    def __init__(self, args: list[str] | None = None, **settings: Any) -> None:
        self._parsers: list[LightningArgumentParser] = []
        self._claimed: list[Path] = []
        self._first_word = next(iter(sys.argv[1:] if args is None else args), "")
        usual: dict[str, Any] = {
            "save_config_callback": ConfigSaver,
            "seed_everything_default": SEED,
            "parser_class": StabArgumentParser,
            "parser_kwargs": {"prog": PROGRAM},
        }
        try:
            super().__init__(args=args, **{**usual, **settings})
        except Exception:
            leave_no_empty_folder(self._claimed)
            raise

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in Lightning
        """Return the one that is called: half of a start was spent on the parsers of the others."""
        known = LightningCLI.subcommands()
        called = {name: known[name] for name in known if name == self._first_word}
        return called or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give a subcommand its defaults."""
        self._parsers.append(parser)
        parser.set_defaults(default_settings())

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse twice: first to know whose classes are meant, then with the defaults for them."""
        words = without_treat(sys.argv[1:] if args is None else args)
        settings = self._parse_classes(parser, words)
        if settings is not None:
            for each in self._parsers:
                each.set_defaults(settings)
        self.config = parser.parse_args(words)

    def _parse_classes(
        self, parser: LightningArgumentParser, words: list[str]
    ) -> dict[str, Any] | None:
        """Return the defaults for what is chosen, or None where the second parse must answer."""
        if any(w == "-h" or w.split("=")[0].endswith(("help", "completion")) for w in words):
            return None
        parsers = [parser, *self._parsers]
        for each in parsers:
            each.exit_on_error = False
        try:
            config = parser.parse_args([w for w in words if not w.startswith("--print_config")])
        except (ArgumentError, SystemExit):
            return None
        finally:
            for each in parsers:
                each.exit_on_error = True
        chosen = config[config.subcommand] if "subcommand" in config else config
        model, data = (
            value.get("class_path") if isinstance(value, (Namespace, dict)) else None
            for value in (chosen.get("model"), chosen.get("data"))
        )
        is_logged = chosen["trainer"]["logger"] is not False
        return default_settings(model, data, is_logged=is_logged) if model else None

    def after_instantiate_classes(self) -> None:
        """Refuse what cannot run, then claim the folder of the logs."""
        self._find_checkpoint()
        if self.model is None:
            raise InvalidArgumentError(
                "`model` must be a module, got null. Name its class: --model my_package.MyModule"
            )
        loader = f"{LOADERS[self.subcommand or 'fit']}_dataloader"
        if self.datamodule is None and not is_overridden(loader, self.model):
            raise InvalidArgumentError(
                f"`data` must name a data module, because {type(self.model).__name__} has no "
                f"`{loader}`. Add for example --data my_package.MyData or --data DigitsDataModule"
            )
        if self.subcommand is not None:
            self._claimed = claim_folders(self.trainer)

    def _find_checkpoint(self) -> None:
        config = self.config[self.subcommand] if self.subcommand else self.config
        path = str(config.get("ckpt_path") or "")
        is_a_word = path.split(":")[0] in ("", "best", "last", "hpc", "registry")
        if not (is_a_word or "://" in path or os.path.exists(path)):
            raise InvalidArgumentError(f"`ckpt_path`: {no_file(path)}")

    def after_fit(self) -> None:
        """Say where the run is."""
        if self.trainer.loggers and self.trainer.log_dir:
            folder = self.trainer.log_dir
            rank_zero_info(f"The run is in {folder}. To see it: {tensorboard_command(folder)}")

    def before_validate(self) -> None:
        """Warn where the weights are those that the module starts with."""
        # Where nothing is saved, it does not matter that checkpoints would go to a new folder.
        warnings.filterwarnings("ignore", "The dirpath has changed from")
        if not self.config[str(self.subcommand)].get("ckpt_path"):
            rank_zero_warn(
                f"`{self.subcommand}` without --ckpt_path uses the weights that the module starts "
                "with. Name a checkpoint: --ckpt_path RUN_DIR/checkpoints/NAME.ckpt"
            )

    before_test = before_predict = before_validate


class UnsavedCLI(StabCLI):
    """Builds module, data and Trainer as ``fit`` does; runs and saves nothing by itself."""

    def __init__(self, args: list[str], **parser_kwargs: str) -> None:
        super().__init__(args, run=False, save_config_callback=None, parser_kwargs=parser_kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--json``, and what a configuration saved by ``fit`` holds beside the classes."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--json", action="store_true", help="print json instead of a table")
        bound: set[str | int] = {"model", "train_dataloaders", "val_dataloaders", "datamodule"}
        self.from_fit = list(parser.add_method_arguments(Trainer, "fit", skip=bound))


def without_treat(words: Sequence[str]) -> list[str]:
    """Return words of a command line whose configuration files do not name `treat` any more.

    It was an argument of `TrainingDoctor` that had to be false; earlier versions saved it.
    """
    kept = list(words)
    for place, word in enumerate(kept):
        name, equals, value = word.partition("=")
        at = place if equals else place + 1
        path = Path(value if equals else kept[at] if at < len(kept) else "")
        if name not in ("--config", "-c") or not path.name or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if (fitting := re.sub(r"^ *treat: false\n", "", text, flags=re.MULTILINE)) != text:
            kept[at] = f"{name}={fitting}" if equals else fitting
    return kept


def own_error(error: BaseException | None) -> StabError | None:
    """Return the suite's own error that ``error`` is or was raised from, if there is one.

    Example:
        >>> try:
        ...     raise ValueError("a parser's wrapping") from StabError("the sentence")
        ... except ValueError as error:
        ...     own_error(error)
        StabError('the sentence')
    """
    while error is not None and not isinstance(error, StabError):
        error = error.__cause__
    return error
