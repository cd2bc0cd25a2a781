"""The names that users type: what is exported, with which arguments, and that no name clashes."""

import ast
import importlib.metadata
import inspect
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
SIGNATURES = {  # argument -> default, in the order in which users may give them
    "WeightInitialization": {"scheme": "auto", "gain": None},
    "GradientMonitor": {"every_n_steps": 50, "dense_steps": 10},
    "ActivationMonitor": {"every_n_steps": 200},
    "GradientClipping": {"rule": "norm", "threshold": None},
    "StepGuard": {"on_nonfinite": "raise", "on_spike": "ignore"},
    "GradientCheck": {"on_fail": "raise"},
    "LearningRateDecay": {"schedule": "exponential"},
    "BestWeightsEarlyStopping": {"monitor": EMPTY},
    "TrainingDoctor": {"ignore": (), "thresholds": None},
    "MLPClassifier": {"in_features": 64, "num_classes": 10},
    "check_gradients": {"module": EMPTY, "batch": EMPTY, "loss_fn": None},
    "initialize": {"module": EMPTY, "batch": None},
    "prescribe": {"make_module": EMPTY, "make_data": EMPTY, "metric": "val_loss", "mode": "min"},
}
MODEL_ARGUMENTS = {"depth", "width", "activation", "batch_norm"}
OWN = [
    getattr(module, name)
    for module in (lightning_stab.callbacks, lightning_stab.models, lightning_stab.data)
    for name in module.__all__
]
CLASSES = [each for each in OWN if inspect.isclass(each)]
CALLBACKS = [each for each in CLASSES if issubclass(each, lightning.pytorch.Callback)]


def found(name):
    return getattr(lightning_stab, name, None) or getattr(lightning_stab.models, name, None)


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
    assert functions <= FUNCTIONS
    assert {callback.__name__ for callback in CALLBACKS} <= set(SIGNATURES) | {"StabilityReport"}


@pytest.mark.parametrize("name", [name for name in SIGNATURES if found(name)])
def test_the_signature_holds(name):
    parameters = [
        parameter
        for parameter in inspect.signature(found(name)).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    wanted = SIGNATURES[name]
    given = {parameter.name: parameter.default for parameter in parameters[: len(wanted)]}
    assert list(given) == list(wanted)
    assert given == wanted
    assert all(parameter.default is not EMPTY for parameter in parameters[len(wanted) :])


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


def test_importing_loads_nothing_dear(tmp_path):
    # torchmetrics imports matplotlib, scipy and sklearn where they are installed.
    dear = {"sklearn", "lightning_stab.cli"}
    code = (
        "import sys, lightning.pytorch; before = set(sys.modules); import lightning_stab;"
        f" print(sorted({dear!r} & set(sys.modules) - before))"
    )
    assert run_code(code, tmp_path, [PACKAGE.parent]).strip() == "[]"
