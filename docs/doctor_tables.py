"""Rewrite the tables of docs/training_doctor.md from the rules, thresholds and facts.

python docs/doctor_tables.py            rewrites what stands between the page's markers
python docs/doctor_tables.py --check    changes nothing; code 1 if the page is not up to date
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from lightning_stab.diagnosis import IDS, RULES, THRESHOLDS, Condition, Rule
from lightning_stab.diagnosis.cures import (
    CURES,
    USUAL_DECAY,
    USUAL_DROPOUT,
    USUAL_MOMENTUM,
    names_of,
)
from lightning_stab.diagnosis.facts import MEANINGS
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS, FAULTS

PAGE = Path(__file__).with_name("training_doctor.md")
USUAL = {
    "usual_decay": USUAL_DECAY,
    "usual_dropout": USUAL_DROPOUT,
    "usual_momentum": USUAL_MOMENTUM,
    "metric": "val_loss",
}


def ids() -> str:
    """Return the table of ids, the deepest cause first."""
    rows = []
    for fault in FAULTS:
        severities = dict.fromkeys(rule.severity for rule in fault.rules)
        rows.append((f"`{fault.id}`", fault.meaning, " or ".join(severities)))
    return table(("id", "meaning", "severity"), rows)


def causes() -> str:
    """Return the table of which alarm keeps which others silent."""
    rows = []
    for id_ in IDS:
        explained = sorted(EXPLAINS[id_], key=lambda each: (CAUSES[each], each))
        everything = {each for each in IDS if CAUSES[each] > CAUSES[id_]} <= set(explained)
        same = [each for each in explained if CAUSES[each] == CAUSES[id_]]
        if everything and len(explained) > len(same):
            text = ", ".join([*(f"`{each}`" for each in same), "everything below"])
        else:
            text = ", ".join(f"`{each}`" for each in explained)
        rows.append((f"`{id_}`", text or "nothing else"))
    return table(("an alarm of", "silences"), rows)


def rules() -> str:
    """Return the table of rules."""
    rows = [(f"`{r.id}`", r.severity, reported_when(r), first_advice(r)) for r in RULES]
    return table(("id", "severity", "reported when", "first advice"), rows)


def thresholds() -> str:
    """Return the table of thresholds and of what is compared with them."""
    rows = []
    for name, value in THRESHOLDS.items():
        uses: dict[tuple[str, str], list[str]] = {}
        for rule in RULES:
            for c in rule.conditions:
                if c.threshold == name:
                    uses.setdefault((c.fact, c.sign), []).append(f"`{rule.id}`")
        what = "; ".join(
            f"{'not ' if 'not' in sign else ''}`{fact}` {'below' if '<' in sign else 'above'} it:"
            f" {', '.join(dict.fromkeys(found))}"
            for (fact, sign), found in uses.items()
        )
        rows.append((f"`{name}`", f"{value:g}", what or "not used"))
    return table(("threshold", "default", "what is compared with it"), rows)


def facts() -> str:
    """Return the table of the facts that rules compare."""
    used = {c.fact for rule in RULES for c in rule.conditions}
    rows = [(f"`{name}`", f"{meaning}.") for name, meaning in MEANINGS.items() if name in used]
    return table(("fact", "what it is"), rows)


def reported_when(rule: Rule) -> str:
    """Return a rule's conditions in words."""
    parts = [condition(c) for c in rule.conditions]
    times = f", {rule.persistence} times in a row" if rule.persistence > 1 else ""
    return " and ".join(parts) + times


def condition(c: Condition) -> str:
    """Return one condition with its number."""
    return f"{compared(c.fact, c.sign)} {THRESHOLDS[c.threshold]:g}"


def compared(fact: str, sign: str) -> str:
    """Return a fact and how it is compared; with ``not``, which is true for the unknown too."""
    return f"not `{fact}` {sign[3:]}" if sign.startswith("not") else f"`{fact}` {sign}"


def first_advice(rule: Rule) -> str:
    """Return the first line of the table of cures for what a rule finds, without a run's numbers.

    A line for high momentum is left out: of most runs it is not said.
    """
    names = names_of(rule.id, (c.fact for c in rule.conditions))
    lines = [c.what for c in CURES if c.is_advised_for(names) and "momentum" not in c.named]

    def shown(match: re.Match[str]) -> str:
        return str(USUAL.get(match[1], f"*{match[1].replace('_', ' ')}*"))

    return re.sub(r"\{(\w+)\}", shown, lines[0])


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"ids": ids, "causes": causes, "rules": rules, "thresholds": thresholds, "facts": facts}


def rewritten(page: str) -> str:
    """Return the page with its tables rewritten.

    Args:
        page: with a pair of markers ``<!-- name -->`` and ``<!-- end of name -->`` for each table.
    """
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, found, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"The page has no place for the table of {name}: {start}...{end}")
        page = before + start + make() + end + after
    return page


def main(argv: list[str] | None = None) -> int:
    """Rewrite the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(argv)
    page = options.page.read_text(encoding="utf-8")
    new = rewritten(page)
    if options.check:
        return int(new != page)
    options.page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
