"""The names that users type: what is exported, with which arguments, and that no name clashes."""

import ast
import importlib.metadata
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import lightning.fabric
import lightning.pytorch
import pytest
from helpers.processes import run_code

import lightning_stab
import lightning_stab.callbacks
import lightning_stab.data
import lightning_stab.models

PACKAGE = Path(lightning_stab.__file__).parent
EMPTY = inspect.Parameter.empty
FUNCTIONS = {"check_gradients", "initialize", "prescribe", "recommended", "watch"}
SIGNATURES = {  # argument -> default, all of them, in the order in which users may give them
    "WeightInitialization": {
        "scheme": "auto", "gain": None, "bias": "zeros", "exclude": (), "embedding_std": None,
        "seed": None, "verbose": True, "include": (), "schemes": None, "output_prior": None,
        "use_batch": True, "on_resume": False,
    },
    "GradientMonitor": {
        "every_n_steps": 50, "dense_steps": 10, "per_parameter": (),
        "statistics": ("nonfinite_fraction", "update_ratio", "cosine", "depth", "noise_scale"),
        "histogram_every_n_steps": None, "progress_bar": False,
    },
    "ActivationMonitor": {
        "every_n_steps": 200, "window": 1000, "include": ("*",), "exclude": ()},
    "GradientClipping": {
        "rule": "norm", "threshold": None, "method": "zscore", "per_parameter_group": False,
        "exclude": (), "exclude_output": True, "every_n_steps": 50,
    },
    "StepGuard": {
        "on_nonfinite": "raise", "on_spike": "ignore", "max_consecutive": 10, "window": 128,
        "min_window": 64, "deviations": 6.0, "loss_jump": 0.2, "gradient_factor": 5.0,
        "early_factor": 100.0, "rewind_after": 3, "snapshot_every_n_steps": 50, "lr_factor": 0.5,
        "forensics": False,
    },
    "GradientCheck": {
        "on_fail": "raise", "every_n_epochs": None, "mode": "auto", "coordinates": None,
        "num_directions": 2, "max_samples": None, "on_resume": False, "seed": 0,
    },
    "LearningRateDecay": {
        "schedule": "exponential", "interval": "epoch", "gamma": None, "every": 10, "power": 1.0,
        "total": None, "time_scale": None, "growth": 1, "floor": None, "ceiling": 1.0,
        "warmup_steps": 0, "function": "linear", "monitor": None, "mode": "min", "patience": 3,
        "min_delta": 0.0, "smoothing": 0.98, "window": 10, "amplitude": 0.05,
        "check_every_n_steps": 50, "reload_best": False, "combine": "refuse",
    },
    "BestWeightsEarlyStopping": {
        "monitor": EMPTY, "patience": 3, "patience_unit": "checks", "mode": "min",
        "min_delta": 0.0, "relative_min_delta": False, "stall": "any", "warmup_checks": 0,
        "warmup_steps": 0, "rising_checks": None, "oscillation_window": None,
        "oscillation_amplitude": 0.05, "restore_best": True, "folder": None,
        "check_every_n_steps": None, "verbose": False, "strict": True, "check_finite": True,
        "stopping_threshold": None, "divergence_threshold": None,
        "check_on_train_epoch_end": None, "log_rank_zero_only": False,
    },
    "TrainingDoctor": {
        "ignore": (), "thresholds": None, "every_n_steps": 200, "print_findings": True,
        "log_facts": False,
    },
    "StabilityReport": {
        "on_finding": None, "on_event": None, "every_n_epochs": 0, "verbose": True},
    "MLPClassifier": {
        "in_features": 64, "num_classes": 10, "depth": 4, "width": 128, "activation": "relu",
        "batch_norm": True, "dropout": 0.0, "optimizer": "adam", "learning_rate": 1e-3,
        "momentum": 0.9, "weight_decay": 0.0,
    },
    "ConvClassifier": {
        "in_channels": 1, "image_size": 8, "num_classes": 10, "depth": 3, "width": 32,
        "activation": "relu", "batch_norm": True, "dropout": 0.0, "optimizer": "adam",
        "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.0,
    },
    "DigitsDataModule": {
        "batch_size": 64, "image": False, "seed": 0, "val_fraction": 0.15,
        "test_fraction": 0.15, "num_workers": 0,
    },
    "MNISTDataModule": {
        "data_dir": "data/mnist", "batch_size": 64, "image": False, "seed": 0,
        "val_fraction": 0.1, "num_workers": 0,
    },
    "check_gradients": {
        "module": EMPTY, "batch": EMPTY, "loss_fn": None, "mode": "auto", "coordinates": None,
        "num_directions": 2, "tolerance": 1e-7, "max_samples": None, "seed": 0, "settings": None,
    },
    "initialize": {
        "module": EMPTY, "batch": None, "scheme": "auto", "gain": None, "loss_fn": None,
        "bias": "zeros", "include": (), "exclude": (), "schemes": None, "embedding_std": None,
        "output_prior": None, "seed": 0,
    },
    "prescribe": {
        "make_module": EMPTY, "make_data": EMPTY, "metric": "val_loss", "mode": "min",
        "trainer_kwargs": None, "max_cost": 5.0, "seeds": 2, "jobs": 1, "engine": "local",
        "cures": None,
    },
    "watch": {
        "module": EMPTY, "optimizer": EMPTY, "callbacks": None, "log": None, "scheduler": None,
        "scaler": None, "fabric": None, "accumulate_grad_batches": 1, "total_steps": None,
    },
    "recommended": {
        "init": False, "check": False, "monitor": True, "activations": False, "clip": False,
        "guard": True, "decay": False, "stop": False, "doctor": True, "report": True,
    },
}  # fmt: skip
MODEL_ARGUMENTS = {"depth", "width", "activation", "batch_norm"}
OWN = [
    getattr(module, name)
    for module in (lightning_stab.callbacks, lightning_stab.models, lightning_stab.data)
    for name in module.__all__
]
CLASSES = [each for each in OWN if inspect.isclass(each)]
CALLBACKS = [each for each in CLASSES if issubclass(each, lightning.pytorch.Callback)]


def found(name):
    places = (lightning_stab, lightning_stab.models, lightning_stab.data)
    return next((getattr(place, name) for place in places if hasattr(place, name)), None)


def lightning_names():
    """Return the bare names of the classes that Lightning's files define, without its demos.

    Read from the source, because importing every module of Lightning would leave its mark on the
    tests that follow.
    """
    names = set()
    for package in (lightning.pytorch, lightning.fabric):
        root = Path(package.__file__).parent
        for path in root.rglob("*.py"):
            if path.relative_to(root).parts[0] != "demos":
                tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                names |= {node.name for node in tree if isinstance(node, ast.ClassDef)}
    return names


def test_every_public_name_is_there():
    for module in (lightning_stab, lightning_stab.callbacks):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
        assert len(set(module.__all__)) == len(module.__all__)


def test_the_callbacks_are_exported_at_the_top():
    for callback in CALLBACKS:
        assert getattr(lightning_stab, callback.__name__) is callback
        assert callback.__name__ in lightning_stab.__all__


def test_what_is_public_is_meant_to_be():
    functions = {name for name in lightning_stab.__all__ if inspect.isfunction(found(name))}
    assert functions == FUNCTIONS
    assert {each.__name__ for each in CLASSES} | FUNCTIONS == set(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_and_its_defaults_hold(name):
    given = {
        parameter.name: parameter.default
        for parameter in inspect.signature(found(name)).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert list(given) == list(SIGNATURES[name])
    for argument, default in SIGNATURES[name].items():
        assert given[argument] == default, argument
        assert type(given[argument]) is type(default), argument  # True equals 1


@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda callback: callback.__name__)
def test_callbacks_are_made_without_arguments(callback):
    arguments = ["val_loss"] if callback.__name__ == "BestWeightsEarlyStopping" else []
    assert isinstance(callback(*arguments), lightning.pytorch.Callback)


def test_patience_is_given_by_name():
    signature = inspect.signature(lightning_stab.BestWeightsEarlyStopping)
    assert signature.parameters["patience"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", lightning_stab.models.__all__)
def test_models_take_the_same_four_choices(name):
    parameters = inspect.signature(getattr(lightning_stab.models, name)).parameters
    assert set(parameters) >= MODEL_ARGUMENTS
    assert all(parameter.default is not EMPTY for parameter in parameters.values())


@pytest.mark.parametrize("own", CLASSES, ids=lambda own: own.__name__)
def test_public_classes_are_documented(own):
    text = inspect.getdoc(own) or ""
    assert own.__doc__ is not None
    assert "Args:" in text
    assert ">>>" in text


def test_no_public_class_has_the_name_of_a_class_of_lightning():
    theirs = lightning_names()
    assert {"EarlyStopping", "ModelCheckpoint", "GradientAccumulationScheduler"} <= theirs
    assert {own.__name__ for own in CLASSES} & theirs == set()


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_stands_in_one_place():
    assert lightning_stab.__version__.count(".") == 2
    try:
        installed = importlib.metadata.version("lightning-stab")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is imported from its folder and not installed")
    assert lightning_stab.__version__ == installed


def test_importing_loads_nothing_but_itself():
    code = (
        "import sys; before = set(sys.modules); import lightning_stab;"
        " added = (n for n in sys.modules if n not in before);"
        " print(sorted(n for n in added if n.split('.')[0] not in sys.stdlib_module_names))"
    )
    own = ["lightning_stab", *(f"lightning_stab.{n}" for n in ("_lazy", "_version", "callbacks"))]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )  # without what the server of `run_code` has loaded
    assert ast.literal_eval(ended.stdout) == own


@pytest.mark.nightly
def test_one_callback_loads_neither_the_command_line_nor_the_other_ones(tmp_path):
    code = (
        "import sys; from lightning_stab import GradientClipping;"
        " print([n for n in sys.modules if n.startswith('lightning_stab.')])"
    )
    loaded = ast.literal_eval(run_code(code, tmp_path, [PACKAGE.parent]))
    assert "lightning_stab.callbacks.clipping.gradient_clipping" in loaded
    unused = ("cli", "reporting", "prescription", "callbacks.doctor", "callbacks.stopping")
    assert {f"lightning_stab.{name}" for name in unused}.isdisjoint(loaded)


NAMED_IN_A_CONFIGURATION = """
from {package}.cli import LightningCLI
from {package}.demos.boring_classes import BoringDataModule, BoringModel
{after}
arguments = ["--trainer.callbacks+=GradientClipping", "--trainer.callbacks.threshold=0.5"]
cli = LightningCLI(BoringModel, BoringDataModule, run=False, args=arguments)
print("GradientClipping(threshold=0.5)" in map(repr, cli.trainer.callbacks))
"""


@pytest.mark.parametrize(
    ("package", "comes"),
    [
        ("lightning.pytorch", "after"),
        pytest.param("pytorch_lightning", "before", marks=pytest.mark.nightly),
        pytest.param("lightning.pytorch", "before", marks=pytest.mark.nightly),
        pytest.param("pytorch_lightning", "after", marks=pytest.mark.nightly),
    ],
)
def test_short_names_are_known_in_whichever_order_is_imported(tmp_path, package, comes):
    before, after = ["import lightning_stab", ""][:: 1 if comes == "before" else -1]
    code = before + NAMED_IN_A_CONFIGURATION.format(package=package, after=after)
    assert run_code(code, tmp_path, [PACKAGE.parent]).splitlines()[-1] == "True"


def test_what_is_imported_lazily_is_listed_starred_and_refused_by_name():
    starred = {}
    exec("from lightning_stab import *", starred)
    assert set(lightning_stab.__all__) <= starred.keys() & set(dir(lightning_stab))
    assert pickle.loads(pickle.dumps(lightning_stab.StepGuard)) is lightning_stab.StepGuard
    assert lightning_stab.errors.__name__ == "lightning_stab.errors"


with pytest.raises(AttributeError, match="module 'lightning_stab' has no attribute 'StepGard'"):
    _ = lightning_stab.StepGard


FIRST = """
import os, lightning_stab
from lightning_stab import callbacks
homes = [f"lightning_stab{home}" for home in lightning_stab.HOMES.values()]
homes += [f"lightning_stab.callbacks{home}" for home in callbacks.HOMES.values()]
for name in dict.fromkeys([*homes, "lightning_stab.cli", "lightning_stab.diagnosis"]):
    child = os.fork()
    if not child:
        __import__(name)
        os._exit(0)
    print(name, os.waitpid(child, 0)[1])
"""


@pytest.mark.nightly
def test_each_public_module_may_be_the_first_that_is_imported(tmp_path):
    ends = [line.split() for line in run_code(FIRST, tmp_path, [PACKAGE.parent]).splitlines()]
    assert len(ends) > 10
    assert [name for name, code in ends if code != "0"] == []
