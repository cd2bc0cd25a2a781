"""The house: imports only point down, rooms are apart, `functional/` knows no Lightning."""

import ast
import sys
from pathlib import Path

from helpers.cases import for_each

ROOT = Path(__file__).parents[1]
PACKAGE = "lightning_stab"
FLOORS = (  # first components below the package, lowest first; an import may only point down
    {"_version", "_lazy", "errors"},
    {"arguments"},
    {"functional"},
    {"diagnosis"},
    {"reporting"},
    {"callbacks", "models", "data"},
    {"attach", "loops"},
    {"prescription"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
GROUND = {"_trainer", "_hooks"}  # beneath every room of callbacks/
ROOMS = {  # which other rooms a room of callbacks/ may import
    "_trainer": set(),
    "_hooks": set(),
    "gradients": set(),
    "clipping": set(),
    "activations": set(),
    "guard": set(),
    "stopping": set(),
    "initialization": set(),
    "gradcheck": set(),
    "report": set(),
    "decay": {"stopping", "guard"},
    "doctor": {"gradients", "activations", "clipping"},
}
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
ALLOWED_IN_FUNCTIONAL = {"torch", PACKAGE}
MOST_FILES, MOST_LINES = 217, 34_450
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 45


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def floor(module):
    parts = module.split(".")
    return FLOOR_OF[parts[1] if len(parts) > 1 else "__init__"]


def room(module):
    """Return the room of callbacks/ in which a module stands, nothing elsewhere."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == ["callbacks"] and len(parts) > 2 else ""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


NAMES = {module_name(f) for f in FILES}
IMPORTS = {module_name(f): {n for n in imported(f) if n in NAMES} - {module_name(f)} for f in FILES}


@for_each(IMPORTS)
def test_imports_point_down(module):
    for name in IMPORTS[module]:
        same_part = name.split(".")[1:2] == module.split(".")[1:2]
        assert same_part or floor(name) < floor(module), f"{module} imports {name}, above it"


@for_each([name for name in IMPORTS if room(name)])
def test_a_room_imports_only_what_the_drawing_allows(module):
    own = room(module)
    below = GROUND if own not in GROUND else {"_trainer"} if own == "_hooks" else set()
    others = {room(name) for name in IMPORTS[module] if room(name)} - {own}
    assert others <= ROOMS[own] | below, f"{module} imports the rooms {sorted(others)}"


def test_every_folder_of_callbacks_is_a_room():
    folders = {f.parent.name for f in FILES if f.parent.parent.name == "callbacks"}
    assert folders == set(ROOMS)
    assert [f.name for f in (ROOT / PACKAGE / "callbacks").glob("*.py")] == ["__init__.py"]


@for_each(FILES, module_name)
def test_only_torch_and_the_standard_library_below_the_callbacks(path):
    if floor(module_name(path)) > FLOOR_OF["functional"]:
        return
    roots = {name.split(".")[0] for name in imported(path)}
    assert roots <= ALLOWED_IN_FUNCTIONAL | set(sys.stdlib_module_names)


def test_no_two_modules_import_each_other():
    pairs = [
        (a, b)
        for a, targets in IMPORTS.items()
        for b in targets
        if a < b and a in IMPORTS.get(b, ()) and not (a.startswith(b) or b.startswith(a))
    ]
    assert pairs == []


def test_the_house_stays_small():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert [module_name(p) for p, n in lines.items() if n > MOST_LINES_OF_A_FILE] == []
    assert len(FILES) <= MOST_FILES
    assert sum(lines.values()) <= MOST_LINES


@for_each(FILES, module_name)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        start = node.body[1 if ast.get_docstring(node) else 0 :]
        length = node.end_lineno - start[0].lineno + 1 if start else 0
        assert length <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {length} lines"


def test_the_tests_see_what_they_forbid(tmp_path):
    source = tmp_path / "norms.py"
    source.write_text("from lightning_stab.callbacks import GradientMonitor\nimport lightning\n")
    assert {"lightning_stab.callbacks", "lightning"} <= set(imported(source))
    assert floor("lightning_stab.callbacks") > floor("lightning_stab.functional.norms")
    assert room("lightning_stab.callbacks.guard.step_guard") == "guard"
    assert room("lightning_stab.callbacks") == room("lightning_stab.functional.norms") == ""
