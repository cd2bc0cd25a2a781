"""Nothing asks a device for double precision but what knows whether it has it.

Apple's MPS has none and raises, so the precision of what may be on a device comes from `wide_dtype`
and `in_double` in `functional/norms.py`.
"""

import ast
from pathlib import Path

from helpers.cases import for_each

PACKAGE = Path(__file__).parents[1] / "lightning_stab"
HOME = PACKAGE / "functional" / "norms.py"
FILES = [f for f in sorted(PACKAGE.rglob("*.py")) if f != HOME]
WIDE = {"float64", "double", "complex128", "cdouble"}
CASTS = {"to", "type", "new_tensor", "new_zeros", "new_ones", "new_full", "new_empty"}


def is_wide(node):
    """Say whether an argument is torch's or Python's name of double precision."""
    return isinstance(node, ast.Attribute) and node.attr in WIDE


def is_on_the_cpu(node):
    """Say whether a value comes from a call of ``cpu()``."""
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "cpu"


def asked_of_a_device(source):
    """Return the lines that ask for double precision wherever a tensor may be."""
    lines = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        arguments = [*call.args, *(word.value for word in call.keywords)]
        wide = any(map(is_wide, arguments))
        casts = call.func.attr in {"double", "cdouble"} or (call.func.attr in CASTS and wide)
        made = wide and any(word.arg == "device" for word in call.keywords)
        if (casts and not is_on_the_cpu(call.func.value)) or made:
            lines.append(call.lineno)
    return sorted(lines)


@for_each(FILES)
def test_the_device_decides_whether_there_is_double_precision(path):
    assert asked_of_a_device(path.read_text()) == []


def test_the_law_sees_what_it_forbids():
    source = """
x.double()
x.to(torch.float64)
x.to(device, torch.float64)
x.to("cpu", dtype=torch.complex128)
torch.zeros(2, dtype=torch.float64, device=device)
x.new_zeros(2, dtype=torch.double)
x.cpu().double()
x.cpu().to(torch.float64)
torch.zeros(2, dtype=torch.float64)
x.dtype is torch.float64
"""
    assert asked_of_a_device(source) == [2, 3, 4, 5, 6, 7]
