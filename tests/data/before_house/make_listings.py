"""What one version shows to its users, for later versions to keep: configurations and names.

    python make_listings.py --out FOLDER    run it in the root of the project

It writes

* ``config_<name>.yaml``: what ``lightning-stab fit ... --print_config`` prints, for every file in
  ``configs`` on top of ``base.yaml`` and for the combinations that the documentation shows;
* ``saved_config_<name>.yaml``: the ``config.yaml`` that a real fit leaves beside its logs;
* ``configs.json``: the words of each command line, ``CONFIGS`` standing for the folder;
* ``public_names.json``: the public names of the public modules, and the signatures of callbacks.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning_stab
import lightning_stab.callbacks
import lightning_stab.functional
from lightning_stab.cli import run

BASE = "--config=CONFIGS/base.yaml"
OWN = "--model=lightning.pytorch.demos.boring_classes.BoringModel"
DOCUMENTED = {
    "nothing_said": [],
    "depth_and_activation": ["--model.depth=8", "--model.activation=tanh"],
    "mnist": ["--data=MNISTDataModule", "--data.data_dir=data/mnist"],
    "composed": [
        BASE,
        "--config=CONFIGS/model/bn_off.yaml",
        "--config=CONFIGS/callbacks/gradient_monitor.yaml",
        "--config=CONFIGS/callbacks/step_guard.yaml",
    ],
    "own_module": [OWN],
    "own_module_and_clipping": [
        OWN,
        "--trainer.callbacks+=GradientClipping",
        "--trainer.callbacks.threshold=0.5",
    ],
    "no_callbacks": ["--trainer.callbacks=[]"],
}
FITTED = {
    "nothing_said": [],
    "digits": [BASE, "--config=CONFIGS/experiment/digits.yaml"],
    "composed": DOCUMENTED["composed"],
    "own_module": [OWN],
}
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
]
MODULES = (
    "lightning_stab",
    "lightning_stab.callbacks",
    "lightning_stab.models",
    "lightning_stab.data",
    "lightning_stab.diagnosis",
    "lightning_stab.cli",
    "lightning_stab.errors",
    "lightning_stab.arguments",
)


def commands(configs: Path) -> dict[str, list[str]]:
    """Return the words of every printed configuration by its name."""
    found = dict(DOCUMENTED)
    for path in sorted(configs.rglob("*.yaml")):
        inside = path.relative_to(configs)
        name = "_".join(inside.with_suffix("").parts)
        on_top = [] if name == "base" else [f"--config=CONFIGS/{inside.as_posix()}"]
        found[name] = [BASE, *on_top]
    return found


def printed(words: list[str], configs: Path) -> str:
    """Return what ``--print_config`` prints."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.suppress(SystemExit):
        run(["fit", *placed(words, configs), "--print_config"])
    return stream.getvalue()


def saved(words: list[str], configs: Path) -> str:
    """Fit a little in an empty folder, and return the configuration that it leaves there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = run(["fit", *placed(words, configs), *SMALL]).trainer
            return Path(trainer.log_dir, "config.yaml").read_text(encoding="utf-8")
        finally:
            os.chdir(before)


def placed(words: list[str], configs: Path) -> list[str]:
    """Put the real folder in place of ``CONFIGS``."""
    return [word.replace("CONFIGS", str(configs)) for word in words]


def functional_modules() -> list[str]:
    """Return the names of ``functional`` and of what is public in it."""
    package = lightning_stab.functional
    found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    return [package.__name__, *(m.name for m in found if "._" not in m.name)]


def public_names(module: ModuleType) -> dict[str, list[str]]:
    """Return a module's ``__all__``, and the names without underscore that it defines itself."""
    defined = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    constants = [
        name
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and not inspect.ismodule(value)
    ]
    declared = {"all": sorted(module.__all__)} if hasattr(module, "__all__") else {}
    return {**declared, "defined": sorted(defined), "constants": sorted(constants)}


def signature(thing: Any) -> list[dict[str, str]]:
    """Return the parameters of a class or function in order."""
    empty = inspect.Parameter.empty
    return [
        {
            "name": p.name,
            "kind": p.kind.name,
            **({} if p.default is empty else {"default": repr(p.default)}),
            **({} if p.annotation is empty else {"annotation": str(p.annotation)}),
        }
        for p in inspect.signature(thing).parameters.values()
    ]


def names() -> dict[str, Any]:
    """Return public names by module, and signatures by name."""
    modules = {}
    for name in [*MODULES, *functional_modules()]:
        modules[name] = public_names(importlib.import_module(name))
    package = lightning_stab
    signed = [*package.callbacks.__all__, "initialize", "check_gradients"]
    return {
        "version": package.__version__,
        "modules": modules,
        "signatures": {name: signature(getattr(package, name)) for name in signed},
    }


def write(path: Path, value: Any) -> None:
    """Write a text as it is, and anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the listings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--configs", type=Path, default=Path("configs"))
    options = parser.parse_args()
    out, configs = options.out.resolve(), options.configs.resolve()
    warnings.filterwarnings("ignore")
    os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
    write(out / "public_names.json", names())
    told = commands(configs)
    for name, words in told.items():
        write(out / f"config_{name}.yaml", printed(words, configs))
    for name, words in FITTED.items():
        write(out / f"saved_config_{name}.yaml", saved(words, configs))
    fitted = {name: [*words, *SMALL] for name, words in FITTED.items()}
    write(out / "configs.json", {"printed": told, "saved": fitted})
    sys.stdout.write(f"{len(told)} printed, {len(fitted)} saved configurations\n")


if __name__ == "__main__":
    main()
