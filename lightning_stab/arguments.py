"""Checks of arguments, each with one clear sentence: the rule, what was got, what to do."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_stab.errors import InvalidArgumentError

Options = TypeVar("Options")


def one_of(name: str, value: str, valid: Collection[str], also: str = "") -> str:
    """Return ``value`` if it is one of ``valid``; ``also`` says what else the caller takes.

    Raises:
        InvalidArgumentError: otherwise, with the list of valid names and the nearest one.

    Example:
        >>> one_of("on_spike", "skip", ["raise", "skip"])
        'skip'
    """
    if isinstance(value, str) and value in valid:
        return value
    names = ", ".join(repr(v) for v in valid) + (f" or {also}" if also else "")
    hint = did_you_mean(str(value), valid)
    raise InvalidArgumentError(f"`{name}` must be one of {names}, got {value!r}.{hint}")


def choices(hint: Any) -> tuple[str, ...]:
    """Return the strings that a type allows by ``Literal``, at any depth, in their order.

    Example:
        >>> choices(Literal["norm", "value"] | None)
        ('norm', 'value')
    """
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(dict.fromkeys(choice for part in get_args(hint) for choice in choices(part)))


def check_choices(options: Any) -> None:
    """Check each field of a dataclass whose type lists its values by ``Literal``.

    Raises:
        InvalidArgumentError: for the first that has another one, with the list.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     rule: Literal["norm", "value"] = "norm"
        >>> check_choices(Options("value"))
    """
    for name, hint in _fields_of_choices(options.__class__).items():
        value, parts = getattr(options, name), _parts(hint)
        others = {get_origin(part) or part for part in parts if not choices(part)}
        if isinstance(value, tuple(others)):  # whose rule is the caller's
            continue
        listed = list(value.values()) if isinstance(value, Mapping) else value
        holds_many = any(choices(p) and get_origin(p) is not Literal for p in parts)
        also = "a function" if Callable in others else ""
        for each in listed if holds_many and is_list(listed) else [value]:
            one_of(name, each, choices(hint), also)


@cache
def _fields_of_choices(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if choices(hint)}


def _parts(hint: Any) -> list[Any]:
    """Return what a union may be, each once; of anything else, itself."""
    if get_origin(hint) in (Union, UnionType):
        return [part for each in get_args(hint) for part in _parts(each)]
    return [hint]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a question that names what is nearest, nothing where nothing is near.

    Example:
        >>> did_you_mean("nrom", ["norm", "value"])
        " Did you mean 'norm'?"
        >>> did_you_mean("xyz", ["norm", "value"])
        ''
    """
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def strings(name: str, value: Collection[str]) -> tuple[str, ...]:
    """Return ``value`` as a tuple if it is a list or tuple of strings, not one string.

    Raises:
        InvalidArgumentError: otherwise. A single string would be taken letter by letter.

    Example:
        >>> strings("exclude", ["head.*"])
        ('head.*',)
    """
    if not is_list(value) or not all(isinstance(item, str) for item in value):
        raise InvalidArgumentError(_sentence(name, "a list of strings", value, ""))
    return tuple(value)


def is_list(value: object) -> bool:
    """Say whether ``value`` holds items, and is no text and no mapping.

    Example:
        >>> is_list((1, 2)), is_list("ab"), is_list(5)
        (True, False, False)
    """
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


def mapping(name: str, value: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Return ``value`` as a dict if it is a mapping with strings as keys; of None an empty one.

    Args:
        name: of the argument.
        value: what was given.
        what: what its values are, in words.

    Raises:
        InvalidArgumentError: otherwise.

    Example:
        >>> mapping("thresholds", {"large_input": 20.0}, "numbers")
        {'large_input': 20.0}
    """
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidArgumentError(_sentence(name, f"a mapping of names to {what}", value, ""))
    return dict(value)


def path(name: str, value: str | PathLike[str], *, hint: str = "") -> Path:
    """Return ``value`` as the path of a local folder.

    Raises:
        InvalidArgumentError: for what is no path, and for a remote one.

    Example:
        >>> path("folder", "runs/best").name
        'best'
    """
    if not isinstance(value, str | PathLike) or "://" in str(value):
        raise InvalidArgumentError(_sentence(name, "a local folder", value, hint))
    return Path(value)


def instance(name: str, value: object, kind: type) -> None:
    """Check that ``value`` is of a class.

    Raises:
        InvalidArgumentError: otherwise.

    Example:
        >>> instance("module", 5, dict)
        Traceback (most recent call last):
        lightning_stab.errors.InvalidArgumentError: `module` must be a dict, got 5.
    """
    if not isinstance(value, kind):
        raise InvalidArgumentError(_sentence(name, f"a {kind.__name__}", value, ""))


def integer(name: str, value: int, *, minimum: int, hint: str = "") -> int:
    """Return ``value`` if it is an integer of at least ``minimum``.

    Raises:
        InvalidArgumentError: otherwise; ``hint`` says what to do instead.

    Example:
        >>> integer("depth", 3, minimum=1)
        3
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InvalidArgumentError(_sentence(name, f"an integer >= {minimum}", value, hint))
    return value


def integers(options: Any, **minima: int) -> None:
    """Check that fields of a dataclass are integers of at least so much, or None by default.

    Raises:
        InvalidArgumentError: for the first that is not.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     patience: int = 3
        ...     window: int | None = None
        >>> integers(Options(), patience=1, window=4)
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name, minimum in minima.items():
        value = getattr(options, name)
        if value is not None or defaults[name] is not None:
            integer(name, value, minimum=minimum)


def real(
    name: str,
    value: float,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    hint: str = "",
) -> float:
    """Return ``value`` as a float if it is finite and within the given bounds.

    Raises:
        InvalidArgumentError: otherwise; ``hint`` says what to do instead.

    Example:
        >>> real("threshold", 1, above=0)
        1.0
    """
    bounds = [
        (">", above, operator.gt),
        (">=", minimum, operator.ge),
        ("<", below, operator.lt),
        ("<=", maximum, operator.le),
    ]
    given = [(sign, bound, holds) for sign, bound, holds in bounds if bound is not None]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # integers beyond the range of floats are refused like infinities
    is_finite = is_number and abs(value) <= sys.float_info.max
    if is_finite and all(holds(value, bound) for _, bound, holds in given):
        return float(value)
    rule = " and ".join(f"{sign} {bound:g}" for sign, bound, _ in given) or "finite"
    rule = rule if is_number else f"a number {rule}"
    raise InvalidArgumentError(_sentence(name, rule, value, hint))


def options_from(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the dataclass ``kind``, made of a constructor's ``locals()``; it checks its fields.

    Entries that are no field, such as ``self``, are left out.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: value for name, value in given.items() if name in names})


def call_text(name: str, options: Any) -> str:
    """Return the call of ``name`` with the options that differ from their defaults.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     rule: str = "norm"
        ...     threshold: float | None = None
        >>> call_text("GradientClipping", Options(threshold=0.5))
        'GradientClipping(threshold=0.5)'
    """
    given = [(f.name, getattr(options, f.name), f.default) for f in fields(options)]
    return f"{name}({', '.join(f'{n}={v!r}' for n, v, default in given if v != default)})"


def _sentence(name: str, rule: str, value: object, hint: str) -> str:
    return f"`{name}` must be {rule}, got {value!r}.{' ' + hint if hint else ''}"
