"""What the parser found wrong, as one sentence: the key, the rule, what was got, the nearest name.

jsonargparse describes a mistake in a tree of attempts: one branch for each type that a value might
have had. Only one of them is what the user meant. What is not understood here stays as it was said.
"""

from __future__ import annotations

import inspect
import os
import re
from argparse import ArgumentParser
from collections.abc import Collection, Iterator
from importlib import import_module
from typing import Any

from lightning_stab.arguments import did_you_mean

_WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
_WORDS |= {"NoneType": "null", "None": "null", "Path": "a path"}
_TYPE = re.compile(r"<class '([\w.]+)'>|typing\.Literal\[([^\]]*)\]|\b(null|None)\b")
_KEY = re.compile(r'Parser key "([^"]+)"')


def sentence(message: str, parser: ArgumentParser) -> str:
    """Return a mistake in one sentence, or the message where nothing better is known.

    Args:
        message: what argparse or jsonargparse says.
        parser: that of the command, which knows the names of the options.
    """
    for reading in _READINGS:
        found = reading(message, parser)
        if found:
            return found
    return message.strip()


def _unknown_option(message: str, parser: ArgumentParser) -> str:
    found = re.search(r"unrecognized arguments: (\S+)", message)
    if found is None:
        return ""
    word = found[1].split("=")[0]
    if not word.startswith("-"):
        return f"{word!r} is not understood: every option begins with `--`."
    options = [name for name in parser._option_string_actions if not name.endswith("+")]
    return f"there is no option `{word}`.{did_you_mean(word, options)}"


def _missing(message: str, parser: ArgumentParser) -> str:
    """Read argparse's own words about what is not there or is no number."""
    required = re.search(r"^the following arguments are required: (.*)", message)
    if required:
        return f"{required[1]} is missing."
    value = re.search(r"^argument (\S+): (?:expected .*|invalid (\w+) value: (.*))", message)
    if value is None:
        return ""
    if value[2] is None:
        return f"`{value[1]}` needs a value."
    rule = _WORDS.get(value[2], f"of the type {value[2]}")
    return f"`{value[1]}` must be {rule}, got {value[3]}."


def _unknown_key(message: str, parser: ArgumentParser) -> str:
    found = re.search(r"(?:Subcommand '\w+' does not accept o|^O)ption '([^']+)'", message)
    if found is None:
        return ""
    key, dests = found[1], {action.dest for action in parser._actions}
    groups = {dest.split(".")[0] for dest in dests}
    first, *rest = key.split(".")
    if rest and first not in groups:
        return f"the configuration has no key `{first}`.{did_you_mean(first, groups)}"
    return f"the configuration has no key `{key}`.{did_you_mean(key, dests)}"


def _no_file(message: str, parser: ArgumentParser) -> str:
    found = re.search(r"File does not exist: '([^']+)'", message)
    return no_file(found[1]) if found else ""


def no_file(path: str) -> str:
    """Say that a file is not there, and which of its folder is nearest."""
    folder, name = os.path.split(path)
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    return f"there is no file {path!r}.{did_you_mean(name, names)}"


def _unknown_argument(message: str, parser: ArgumentParser) -> str:
    found = re.search(
        r"Problem with given class_path '([\w.]+)':\s+(?:Option|Group '\w+' does not accept option)"
        r" '([\w.]+)'",
        message,
    )
    if found is None:
        return ""
    path, name = found.groups()
    hint = did_you_mean(name, _arguments(path))
    return f"{_key(message)}{path.rpartition('.')[2]} has no argument `{name}`.{hint}"


def _wrong_value_in_class(message: str, parser: ArgumentParser) -> str:
    """Read the branch of the class that was named: others are tried with its base, in vain."""
    found = re.search(r"Problem with given class_path '[\w.]+':\s+Parser key ", message)
    if found is None:
        return ""
    end = message.find("\n    - ", found.end())
    return _wrong_value(message if end < 0 else message[:end], parser)


def _unknown_class(message: str, parser: ArgumentParser) -> str:
    found = re.search(r"Expected a dot import path string: (.*)", message)
    if found is None:
        return ""
    near = did_you_mean(found[1], set(_known_classes(message)))
    near = near or " A class of your own needs its whole path: my_package.MyClass."
    return f"{_key(message)}no class {found[1]!r} is known.{near}"


def _no_import(message: str, parser: ArgumentParser) -> str:
    found = re.search(r"Problem with given class_path '([\w.]+)':\s+(.*)", message)
    if found is None or not re.search(r"No module named|has no attribute|cannot import", found[2]):
        return ""
    path, reason = found[1], found[2][:1].lower() + found[2][1:]
    if "attribute" in reason:
        module, _, name = path.rpartition(".")
        return f"{_key(message)}{reason}.{did_you_mean(name, _names_in(module))}"
    return (
        f"{_key(message)}{path} cannot be imported: {reason}. Start from the folder that holds it,"
        " or install it."
    )


def _wrong_value(message: str, parser: ArgumentParser) -> str:
    deepest = message[message.rfind('Parser key "') :]
    got = re.search(r"(?:Given value|Got value): (.*)", deepest)
    if got is None or "NestedArg(" in got[1]:
        return ""
    types = re.search(r"Subtypes: \[(.*)\]", deepest) or re.search(
        r"Expected an? (.*?)\. ", deepest
    )
    if types is None:
        return ""
    rules, choices = [], []
    for name, values, nothing in _TYPE.findall(types[1]):
        choices += [value.strip().strip("'\"") for value in values.split(",") if value]
        if name or nothing:
            word = (name or nothing).rpartition(".")[2]
            rules.append(_WORDS.get(word, f"of the type {word}"))
    choices = list(dict.fromkeys(choices))
    rules = ([f"one of {', '.join(choices)}"] if choices else []) + list(dict.fromkeys(rules))
    hint = did_you_mean(got[1], choices)
    rule = f"must be {' or '.join(rules)}, got {got[1]!r}.{hint}"
    return f"{_key(message, end=' ')}{rule}" if rules else ""


def _key(message: str, end: str = ": ") -> str:
    """Return the option that the mistake is about."""
    parts = list(dict.fromkeys(_KEY.findall(message)))
    return f"`--{'.'.join(parts)}`{end}" if parts else ""


def _resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def _arguments(path: str) -> Collection[str]:
    found = _resolve(path)
    return list(inspect.signature(found).parameters) if found is not None else ()


def _names_in(module: str) -> Collection[str]:
    try:
        return [name for name in dir(import_module(module)) if not name.startswith("_")]
    except ImportError:
        return ()


def _known_classes(message: str) -> Iterator[str]:
    """Yield the names of all loaded classes that the value might have named."""
    waiting = [_resolve(path) for path, _, _ in _TYPE.findall(message) if "." in path]
    while waiting:
        known = waiting.pop()
        if isinstance(known, type):
            waiting += type.__subclasses__(known)
            if not known.__name__.startswith("_"):
                yield known.__name__


_READINGS = (
    _unknown_option,
    _missing,
    _unknown_key,
    _no_file,
    _wrong_value_in_class,
    _unknown_argument,
    _no_import,
    _unknown_class,
    _wrong_value,
)
