"""Write the tables of docs/training_doctor.md anew from the rules, thresholds and facts.

python docs/doctor_tables.py            rewrites what stands between the page's markers
python docs/doctor_tables.py --check    changes nothing; code 1 if the page is not up to date
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from lightning_stab.diagnosis import IDS, RULES, THRESHOLDS, Condition, Facts, Rule
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS

PAGE = Path(__file__).with_name("training_doctor.md")
MEANINGS = {
    "non-finite": "the loss or a weight is NaN or infinite",
    "output-activation": "the network's last activation does not belong to its loss",
    "unused-parameters": "trainable parameters that no optimizer holds or no gradient reaches",
    "target-scale": "a regression's targets are so large that the predictions do not reach them",
    "input-scale": "features enter unscaled, and it does harm",
    "bad-initialization": "units start alike, or the outputs start far too large",
    "dead-units": "units that are zero on every sample",
    "saturated-units": "outputs stand where the activation is flat; attention looks at one place",
    "vanishing-gradient": "the gradient dies on its way back, over depth or over time",
    "exploding-gradient": "the gradient grows on its way back, over depth, time or steps",
    "learning-rate-too-high": "the steps destroy what the weights held",
    "learning-rate-too-low": "the steps are too small to move the loss",
    "loss-spike": "one loss far above the run's own recent past",
    "plateau": "the loss stands still, or never left that of a constant prediction",
    "oscillating-loss": "the loss swings from step to step",
    "overfitting": "validation gets worse while training gets better",
}
RATES = {
    " from {learning_rate} to {learning_rate:/10}": " to a tenth",
    " from {learning_rate} to {learning_rate:/3}": " to a third",
    " from {learning_rate} to {learning_rate:*10}": " tenfold",
}


def ids() -> str:
    """Return the table of ids, the deepest cause first."""
    rows = []
    for id_ in IDS:
        severities = dict.fromkeys(rule.severity for rule in RULES if rule.id == id_)
        rows.append((f"`{id_}`", MEANINGS[id_], " or ".join(severities)))
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
    rows = [(f"`{r.id}`", r.severity, told_when(r), plain(r.advice[0])) for r in RULES]
    return table(("id", "severity", "told when", "first advice"), rows)


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
            f"{'not ' if sign == 'not>' else ''}`{fact}` {'below' if sign == '<' else 'above'} it:"
            f" {', '.join(dict.fromkeys(found))}"
            for (fact, sign), found in uses.items()
        )
        rows.append((f"`{name}`", f"{value:g}", what or "not used"))
    return table(("threshold", "default", "what is compared with it"), rows)


def facts() -> str:
    """Return the table of facts, from their documentation."""
    text = inspect.getdoc(Facts) or ""
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, flags=re.MULTILINE)
    used = {c.fact for rule in RULES for c in rule.conditions}
    rows = [(f"`{n}`", " ".join(t.split()).replace("``", "`")) for n, t in entries if n in used]
    missing = used - {name for name, _ in entries}
    assert not missing, f"facts without a sentence: {missing}"
    return table(("fact", "what it is"), rows)


def told_when(rule: Rule) -> str:
    """Return a rule's conditions in words."""
    parts = [condition(c) for c in rule.conditions]
    times = f", {rule.persistence} times in a row" if rule.persistence > 1 else ""
    return " and ".join(parts) + times


def condition(c: Condition) -> str:
    """Return one condition with its number."""
    return f"{compared(c.fact, c.sign)} {THRESHOLDS[c.threshold]:g}"


def compared(fact: str, sign: str) -> str:
    """Return a fact and how it is compared; ``not>`` is true for an unknown value too."""
    return f"not `{fact}` >" if sign == "not>" else f"`{fact}` {sign}"


def plain(advice: str) -> str:
    """Return an advice without the numbers of a run."""
    for text, words in RATES.items():
        advice = advice.replace(text, words)
    return re.sub(r"\{(\w+)[^}]*\}", lambda m: f"*{m[1].replace('_', ' ')}*", advice)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"ids": ids, "causes": causes, "rules": rules, "thresholds": thresholds, "facts": facts}


def renewed(page: str) -> str:
    """Return the page with its tables written anew.

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
    new = renewed(page)
    if options.check:
        return int(new != page)
    options.page.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
