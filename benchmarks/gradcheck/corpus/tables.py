"""The measured numbers as Markdown tables."""

from __future__ import annotations

from typing import Any

_LABELS = {
    "check": "lightning-stab, 2 directions",
    "gradcheck_fast": "torch.autograd.gradcheck, fast mode",
    "gradcheck_slow": "torch.autograd.gradcheck, slow mode",
}


def tables(result: dict[str, Any]) -> str:
    """Return everything as text."""
    parts = [
        (
            f"{result['num_wrong']} wrong and {result['num_right']} right modules, "
            f"{result['num_operations']} operations, seeds {result['seeds']}."
        ),
        _rates(result),
        _names(result["check"]),
        _low_precision(result["low_precision"]),
    ]
    if "one_entry" in result:
        entry = result["one_entry"]
        parts.append(
            f"One entry of 786,432 zeroed: found {entry['found']} of {entry['tried']}, "
            f"at its very place {entry['located']}."
        )
        parts.append(_cost(result["cost"]))
    return "\n\n".join(parts)


def _rates(result: dict[str, Any]) -> str:
    lines = ["| | wrong found | right accused | CPU seconds per seed |", "|---|---|---|---|"]
    for key, label in _LABELS.items():
        if key in result:
            row = result[key]
            lines.append(
                f"| {label} | {row['wrong_found']} of {row['wrong_tried']} | "
                f"{row['right_accused']} of {row['right_tried']} | {row['seconds_per_seed']:.0f} |"
            )
    return "\n".join(lines)


def _names(check: dict[str, Any]) -> str:
    lines = [
        (
            f"Guilty Function named: {check['function_named']} of {check['wrong_found']}. "
            f"Right parameters accused in wrong modules: {check['others_accused']}."
        )
    ]
    lines += [f"Missed: {name}." for name in check["missed"]]
    lines += [f"Accused: {name}." for name in check["accused"]]
    return "\n".join(lines)


def _low_precision(rows: list[dict[str, Any]]) -> str:
    named = sum(row["precision_limited"] for row in rows)
    tried = sum(row["tried"] for row in rows)
    return f"Low precision inside a backward: {named} of {tried} precision-limited and named."


def _cost(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| right model | parameters | tensors | directions span | forward passes | AdamW steps |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['parameters']:,} | {row['tensors']} | {row['mode']} | "
        f"{row['forwards']} | {row['steps']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)
