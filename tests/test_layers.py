"""Imports only point down, `functional/` knows no Lightning, no two modules import each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "lightning_stab"
ORDER = (  # first components below the package, lowest first; an import may only point down
    {"_version", "errors"},
    {"arguments"},
    {"functional"},
    {"diagnosis", "reporting"},
    {"callbacks", "models", "data"},
    {"__init__", "_cli_defaults", "_cli_logs"},
    {"_cli_classes"},
    {"_cli_findings"},
    {"_cli_check", "_cli_diagnose"},
    {"cli"},
    {"__main__"},
)
LAYERS = {name: layer for layer, names in enumerate(ORDER) for name in names}
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
ALLOWED_IN_FUNCTIONAL = {"torch", PACKAGE}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def layer(module):
    parts = module.split(".")
    return LAYERS[parts[1] if len(parts) > 1 else "__init__"]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path):
    modules = {module_name(f) for f in FILES}
    return {name for name in imported(path) if name in modules and name != module_name(path)}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    own = layer(module_name(path))
    for name in own_imports(path):
        same_part = name.split(".")[1:2] == module_name(path).split(".")[1:2]
        assert same_part or layer(name) < own, (
            f"{module_name(path)} imports {name}, which is above it"
        )


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_only_torch_and_the_standard_library_below_the_callbacks(path):
    import sys

    if layer(module_name(path)) > LAYERS["functional"]:
        return
    roots = {name.split(".")[0] for name in imported(path)}
    assert roots <= ALLOWED_IN_FUNCTIONAL | set(sys.stdlib_module_names)


def test_no_two_modules_import_each_other():
    graph = {module_name(path): own_imports(path) for path in FILES}
    pairs = [
        (a, b)
        for a, targets in graph.items()
        for b in targets
        if a < b and a in graph.get(b, ()) and not (a.startswith(b) or b.startswith(a))
    ]
    assert pairs == []


def test_the_layer_test_sees_an_upward_import(tmp_path):
    source = tmp_path / "norms.py"
    source.write_text("from lightning_stab.callbacks import GradientMonitor\nimport lightning\n")
    assert {"lightning_stab.callbacks", "lightning"} <= set(imported(source))
    assert layer("lightning_stab.callbacks") > layer("lightning_stab.functional.norms")
