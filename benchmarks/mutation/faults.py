"""Small faults that can be planted in a module, each as the changed text of its file."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True)
class PlantedFault:
    """A fault at a line of a file.

    Attributes:
        path: the file.
        line: where it is, from 1.
        code: the text of that line, without its indentation.
        kind: what was changed.
        before: the changed expression or statement as it was.
        after: as it is now.
        source: the whole changed file.
    """

    path: Path
    line: int
    code: str
    kind: str
    before: str
    after: str
    source: str


@dataclass(frozen=True)
class Site:
    """Where a fault can be planted: a node of a file's syntax tree by its number, and how."""

    path: Path
    place: int
    line: int
    kind: str
    change: Callable[[Any], None]

    def plant(self) -> PlantedFault:
        """Return the fault."""
        text = self.path.read_text()
        tree = ast.parse(text)
        node = _nodes(tree)[self.place]
        before, code = ast.unparse(node), text.splitlines()[self.line - 1].strip()
        is_block = isinstance(node, (ast.If, ast.While))
        place = _place(node.test if is_block else node)
        self.change(node)
        source = _replaced(text, place, node.test if is_block else node)
        return PlantedFault(
            self.path, self.line, code, self.kind, before, ast.unparse(node), source
        )


def _replaced(text: str, place: tuple[int, int, int, int], node: ast.stmt | ast.expr) -> str:
    """Return a file's text with one node written anew; all else, comments too, stays as it is."""
    line, column, end_line, end_column = place
    lines = text.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: line - 1])) + column
    end = sum(map(len, lines[: end_line - 1])) + end_column
    new = ast.unparse(node)
    new = f"({new})" if isinstance(node, ast.expr) else new
    return (text.encode()[:start] + new.encode() + text.encode()[end:]).decode()


def _place(node: Any) -> tuple[int, int, int, int]:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def sites_of(path: Path) -> Iterator[Site]:
    """Yield where faults can be planted in a file, in the order of its lines.

    A comparison is turned, an operator exchanged, a number, truth value or default changed, a
    condition negated, a call whose result is not used left out, or a return value left out.
    Docstrings, annotations, messages of errors and what only a type checker runs stay; so does the
    `strict` of a `zip`, by which the code checks itself.
    """
    for place, node in enumerate(_nodes(ast.parse(path.read_text()))):
        for kind, change in _changes(node):
            yield Site(path, place, node.lineno, kind, change)


def _nodes(tree: ast.Module) -> list[ast.stmt | ast.expr]:
    """Return what may be changed, in a fixed order."""
    found: list[ast.stmt | ast.expr] = []
    _collect(tree, found)
    return found


def _collect(node: ast.AST, found: list[ast.stmt | ast.expr]) -> None:
    if isinstance(node, (ast.Raise, ast.JoinedStr)) or _is_for_types(node) or _is_text(node):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, (ast.stmt, ast.expr)):
        found.append(node)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                _collect(child, found)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_text(node: ast.AST) -> bool:
    value = getattr(node, "value", None)
    return isinstance(node, ast.Expr) and isinstance(value, ast.Constant)


def _changes(node: ast.stmt | ast.expr) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Yield the kinds of faults for a node, each with a function that plants it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", _turn
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "operator", _exchange
    if isinstance(node, ast.BoolOp):
        yield "and/or", _flip
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield "constant", _move
    if isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield "condition", _negate
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call left out", _empty
    if isinstance(node, ast.Return) and not _is_empty(node.value):
        yield "return value left out", _return_nothing


def _is_empty(node: ast.expr | None) -> bool:
    """Say whether None in its place is the same, or for a truth value all but the same."""
    return node is None or (isinstance(node, ast.Constant) and str(node.value) in ("None", "False"))


def _turn(node: ast.Compare) -> None:
    node.ops[0] = COMPARISONS[type(node.ops[0])]()


def _exchange(node: ast.BinOp | ast.AugAssign) -> None:
    node.op = OPERATORS[type(node.op)]()


def _flip(node: ast.BoolOp) -> None:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _move(node: ast.Constant) -> None:
    value: Any = node.value
    node.value = (not value) if isinstance(value, bool) else value * 2 if value else value + 1


def _negate(node: ast.If | ast.IfExp | ast.While) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _empty(node: ast.Expr) -> None:
    node.value = ast.Constant(None)


def _return_nothing(node: ast.Return) -> None:
    node.value = ast.Constant(None)
