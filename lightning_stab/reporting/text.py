"""Text of a page: everything from outside is escaped, numbers have three digits."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from html import escape as _escape
from typing import Any

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_CODE = re.compile(r"`([^`]+)`")
_POWER = re.compile(r"10\^(-?\d+(?:\.\d+)?)")
_EXPONENT = re.compile(r"\b(\d(?:\.\d+)?)e([+-]\d{2,3})\b")
_SURROGATE = re.compile("[\ud800-\udfff]")
TITLES = {  # of findings whose id alone does not say in plain words what is wrong
    "bad-initialization": "Bad initialisation",
    "batch-size": "Unsuitable batch size",
    "diverged": "Diverging loss",
    "input-scale": "Badly scaled inputs",
    "labels": "Wrong or unlearnable labels",
    "loss-function": "Unsuitable loss function",
    "metric": "Doubtful metric",
    "non-finite": "NaN or infinite values",
    "nothing-learnt": "Nothing learnt",
    "output-activation": "Wrong output activation",
    "over-regularized": "Too much regularisation",
    "target-scale": "Badly scaled targets",
    "too-short": "Run too short",
    "validation-data": "Unlike validation data",
}
LONGEST = 120  # characters of a name that are shown


def escape(text: Any) -> str:
    """Return text for HTML, in elements and in attributes, without invisible characters.

    Example:
        >>> escape('<b a="1">')
        '&lt;b a=&quot;1&quot;&gt;'
    """
    return _escape(_SURROGATE.sub("\ufffd", _INVISIBLE.sub("\ufffd", str(text))))


def name(text: Any) -> str:
    """Return a name of a layer or a tag for HTML, its middle left out where it is very long."""
    plain = str(text)
    half = LONGEST // 2
    return escape(plain if len(plain) <= LONGEST else f"{plain[:half]}…{plain[-half:]}")


def sentence(text: Any) -> str:
    """Return a sentence for HTML, with `code` as code and powers of ten as such."""
    plain = _EXPONENT.sub(lambda m: number(float(m[0])), escape(text))
    return _CODE.sub(r"<code>\1</code>", _POWER.sub(r"10<sup>\1</sup>", plain))


def number(value: Any) -> str:
    """Return a number in three digits.

    Example:
        >>> [number(x) for x in (0.00012345, 0.5, 1234.5, 10347056855685.0, float("nan"))]
        ['1.23·10⁻⁴', '0.5', '1,230', '1.03·10¹³', 'not finite']
    """
    if not isinstance(value, int | float):
        return "not finite" if value is None else escape(value)
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
    digits, _, power = f"{value:.2e}".partition("e")
    digits = digits.rstrip("0").rstrip(".")
    return ("" if digits == "1" else f"{digits}·") + power_of_ten(int(power))


def power_of_ten(exponent: int) -> str:
    """Return 10 to an exponent.

    Example:
        >>> power_of_ten(-12)
        '10⁻¹²'
    """
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units.

    Example:
        >>> duration(0.4), duration(75), duration(7300)
        ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def title(id_: str) -> str:
    """Return an id as words.

    Example:
        >>> title("vanishing-gradient"), title("non-finite")
        ('Vanishing gradient', 'NaN or infinite values')
    """
    if id_ in TITLES:
        return TITLES[id_]
    words = id_.replace("-", " ").replace("_", " ")
    return words[:1].upper() + words[1:]


def layers(names: list[str], most: int = 3) -> str:
    """Return the first names, and how many more there are, for HTML."""
    shown = ", ".join(f"<code>{name(each)}</code>" for each in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def since(finding: Mapping[str, Any]) -> int:
    """Return the step from which a finding's conditions held; it was found at ``step``."""
    return int(finding.get("since", finding["step"]))


def cure(advice: list[str], known: tuple[str, ...]) -> str:
    """Return the YAML of the first callback that an advice names with its arguments, or "".

    Example:
        >>> print(cure(["Add `StepGuard(on_spike='skip')`."], ("StepGuard",)))
        trainer:
          callbacks+:
            - class_path: lightning_stab.StepGuard
              init_args:
                on_spike: skip
    """
    for code in (code for line in advice for code in _CODE.findall(line)):
        try:
            call = ast.parse(code, mode="eval").body
            if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in known:
                continue
            pairs = [(k.arg, ast.literal_eval(k.value)) for k in call.keywords if k.arg]
        except (SyntaxError, ValueError):
            continue
        lines = ["trainer:", "  callbacks+:", f"    - class_path: lightning_stab.{call.func.id}"]  # type: ignore[attr-defined]
        lines += ["      init_args:"] * bool(pairs)
        lines += [f"        {key}: {_plain(value)}" for key, value in pairs]
        return "\n".join(lines)
    return ""


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)
