"""From facts to findings: one alarm per cause, only what persists, never a flood."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from lightning_stab.arguments import one_of
from lightning_stab.diagnosis.cures import advice_for, estimates
from lightning_stab.diagnosis.facts import BY_LAYER, NAMES, OF_VALIDATION, SAMPLED_STEP, Facts
from lightning_stab.diagnosis.finding import SEVERITIES, SHOWN_LAYERS, Evidence, Finding
from lightning_stab.diagnosis.rule import Rule, match
from lightning_stab.diagnosis.rules import CAUSES, EXPLAINS, IDS, RULES
from lightning_stab.diagnosis.thresholds import THRESHOLDS, current_names

LAST_RANK_OF_FORM = 1  # faults up to this rank do not pass by themselves
WITHDRAWN_AFTER = 2  # moments in a row at which an alarm does not hold
# a loss that is infinite for a moment does no harm where the run goes on to learn
PASSING_EVENTS, PASSED_AFTER = frozenset({"nonfinite_losses"}), 4
CLEARLY = 0.15  # by so much more must be learnt to withdraw an alarm than to keep it silent
# what passes with time, so that it withdraws nothing
PASSING = frozenset(
    {"epoch", "step", "samples", "progress", "warming_up", "rate_left", "falling", "recent_fall"}
)


class Engine:
    """Keeps what was found, and decides what is new.

    Of the rules that hold, those of the deepest cause are reported: where weights are NaN, nothing
    is said of a loss that stands still, and where gradients vanish from the start, no higher
    learning rate is advised. ``CAUSES`` is that order. A rule is reported once its conditions have
    held at ``persistence`` moments in a row; a fault is reported once, and again only if it has
    become more severe, or, for one that passes, after ``cool_down`` steps.

    An alarm whose conditions fail at several moments in a row is withdrawn, unless it is about the
    form of the program, and so is one that a deeper cause, found later, explains; the end of the
    run confirms those that hold.

    Attributes:
        findings: those that stand, in the order in which they were found.
        withdrawn: those that were taken back.
        changed: of the latest moment, the findings that were withdrawn or confirmed.

    Args:
        thresholds: numbers that replace the defaults, by name, or by ``id.name`` for one id.
        ignore: ids, or ``id:layer`` patterns, that are not reported.
        rules: the rules, all of the suite's by default.
        cool_down: steps before the same event is reported again.

    Raises:
        InvalidArgumentError: for a rule whose id or threshold does not exist.

    Example:
        >>> engine = Engine()
        >>> [f.id for f in engine.update(Facts(step=1, doubled_softmax=1.0))]
        ['output-activation']
        >>> engine.update(Facts(step=2, doubled_softmax=1.0))
        []
    """

    def __init__(
        self,
        thresholds: Mapping[str, float] | None = None,
        ignore: Sequence[str] = (),
        rules: Sequence[Rule] = RULES,
        cool_down: int = 1000,
    ) -> None:
        self.thresholds = {**THRESHOLDS, **current_names(thresholds or {})}
        self.ignore = tuple(ignore)
        self.rules = tuple(rules)
        self.cool_down = cool_down
        self.findings: list[Finding] = []
        self.withdrawn: list[Finding] = []
        self.changed: list[Finding] = []
        self._streaks = [0] * len(self.rules)
        self._since = [0] * len(self.rules)
        self._absent: dict[str, int] = {}  # by id, moments in a row at which an alarm failed
        for rule in self.rules:
            one_of("rule.id", rule.id, IDS)
            for condition in rule.conditions:
                one_of("condition.threshold", condition.threshold, self.thresholds)
        self._thresholds = {id_: _with_own(id_, self.thresholds) for id_ in IDS}

    def update(self, facts: Facts) -> list[Finding]:
        """Evaluate the rules at one moment; return what is new, the deepest cause first.

        Args:
            facts: what was measured up to this moment.
        """
        self._review(facts)
        triggered = []
        for index, rule in enumerate(self.rules):
            if not _applies(rule, facts.moment):
                continue
            found = match(rule, facts, self._thresholds[rule.id], self._ignored_layers(rule, facts))
            self._streaks[index] = self._streaks[index] + 1 if found is not None else 0
            if found is None or rule.id in self.ignore:
                continue
            if self._streaks[index] == 1:
                self._since[index] = facts.step
            # what was taken back once has to persist for longer; at the end there is no longer
            is_last = facts.moment == "end" and rule.persistence == 1
            factor = 2 if any(f.id == rule.id for f in self.withdrawn) and not is_last else 1
            if self._streaks[index] >= rule.persistence * factor:
                triggered.append((rule, *found, index))
        triggered.sort(key=lambda each: (CAUSES[each[0].id], -SEVERITIES.index(each[0].severity)))
        new = []
        for rule, layers, evidence, index in triggered:
            is_explained = any(f.is_alarm and rule.id in EXPLAINS[f.id] for f in self.findings)
            if not is_explained and not self._is_known(rule, facts):
                finding = _finding(rule, layers, evidence, facts)
                since, seen = self._since[index], self._streaks[index]
                new.append(replace(finding, since=since, seen=seen))
                self.findings.append(new[-1])
        self._supersede(new, facts)
        return new

    def _supersede(self, new: Sequence[Finding], facts: Facts) -> None:
        """Withdraw earlier alarms that were signs of the deeper causes that are found now."""
        for cause in (f for f in new if f.is_alarm):
            for earlier in [f for f in self.findings if f.is_alarm and f not in new]:
                if _is_sign(earlier, cause):
                    withdrawn = replace(earlier, state="withdrawn", withdrawn_at=facts.step)
                    self._exchange(earlier, replace(withdrawn, explained_by=cause.id))
            for place, taken in enumerate(self.withdrawn):  # at this very moment
                is_new = taken.withdrawn_at == facts.step and not taken.explained_by
                if is_new and _is_sign(taken, cause):
                    explained = self.withdrawn[place] = replace(taken, explained_by=cause.id)
                    self.changed = [explained if f is taken else f for f in self.changed]

    def _review(self, facts: Facts) -> None:
        """Withdraw what no longer holds; at the end of the run, confirm what does."""
        self.changed = []
        for finding in list(self.findings):
            asked = {name for name, each in finding.evidence.items() if each.sign in (">", "<")}
            is_event = asked <= PASSING_EVENTS
            rules = [r for r in self.rules if r.id == finding.id and r.severity != "info"]
            if is_event:
                rules = [r for r in rules if r.asked <= PASSING_EVENTS]
            applies = any(_applies(r, facts.moment) for r in rules)
            if not finding.is_alarm or not applies or facts.moment == "start":
                continue
            may_pass = is_event or CAUSES[finding.id] > LAST_RANK_OF_FORM
            holds = any(self._may_hold(r, finding, facts) for r in rules)
            if holds or not may_pass:
                self._absent[finding.id] = 0
                if facts.moment == "end":
                    self._exchange(finding, replace(finding, state="confirmed"))
                continue
            absent = self._absent[finding.id] = self._absent.get(finding.id, 0) + 1
            is_at_end = facts.moment == "end"
            waits = is_event and not is_at_end  # a short run has no more moments to come
            is_over = absent >= (PASSED_AFTER if waits else WITHDRAWN_AFTER)
            if is_over or (is_at_end and not is_event):
                taken = replace(finding, state="withdrawn", withdrawn_at=facts.step)
                self._exchange(finding, taken)

    def _exchange(self, finding: Finding, other: Finding) -> None:
        """Put the changed finding where it belongs."""
        place = next(i for i, f in enumerate(self.findings) if f is finding)
        if other.state == "withdrawn":
            del self.findings[place]
            self.withdrawn.append(other)
        else:
            self.findings[place] = other
        self.changed.append(other)

    def _may_hold(self, rule: Rule, finding: Finding, facts: Facts) -> bool:
        """Say whether a rule holds but for what passes with time.

        Of the rule that found the fault what is not known now may hold; of others it does not.
        """
        thresholds = self._thresholds[rule.id]
        is_own = finding.evidence.keys() == {c.fact for c in rule.conditions}
        for condition in rule.conditions:
            value, limit = getattr(facts, condition.fact), thresholds[condition.threshold]
            is_over = condition.fact == "progress" and condition.sign == ">" and value <= limit
            if condition.fact in PASSING and not is_over:  # a run may be continued beyond its end
                continue
            if condition.fact in BY_LAYER:
                holds = any(condition.holds(v, limit) for v in value.values())
                if not holds and (value or not is_own):
                    return False
            elif condition.fact == "learnt" and condition.sign == "not>":
                if value > limit + CLEARLY:
                    return False
            elif not ((is_own and math.isnan(value)) or condition.holds(value, limit)):
                return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what was found, and for how long each rule has held, as plain values."""
        return {
            "findings": [f.to_dict() for f in self.findings],
            "streaks": list(self._streaks),
            "withdrawn": [f.to_dict() for f in self.withdrawn],
            "since": list(self._since),
            "absent": dict(self._absent),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue; what other rules had counted is forgotten."""
        self.findings = [Finding.from_dict(plain) for plain in state["findings"]]
        self.withdrawn = [Finding.from_dict(plain) for plain in state.get("withdrawn", ())]
        self._absent = dict(state.get("absent", {}))
        if len(state["streaks"]) == len(self.rules):
            self._streaks = list(state["streaks"])
            self._since = list(state.get("since", self._since))

    def _ignored_layers(self, rule: Rule, facts: Facts) -> frozenset[str]:
        patterns = [p.partition(":")[2] for p in self.ignore if p.startswith(rule.id + ":")]
        if not patterns:
            return frozenset()
        names = {n for c in rule.conditions if c.fact in BY_LAYER for n in getattr(facts, c.fact)}
        return frozenset(n for n in names if any(fnmatchcase(n, p) for p in patterns))

    def _is_known(self, rule: Rule, facts: Facts) -> bool:
        """Say whether the fault was reported, no less severe, and is no new event."""
        known = [f for f in self.findings if f.id == rule.id]
        severity = SEVERITIES.index(rule.severity)
        more_severe = all(SEVERITIES.index(f.severity) < severity for f in known)
        again = rule.is_event and known and facts.step - known[-1].step >= self.cool_down
        return not (more_severe or again)


def _with_own(id_: str, thresholds: Mapping[str, float]) -> Mapping[str, float]:
    """Return the thresholds, with those that were given for this id alone."""
    start = id_ + "."
    own = {n.removeprefix(start): v for n, v in thresholds.items() if n.startswith(start)}
    return {**thresholds, **own} if own else thresholds


def _finding(
    rule: Rule, layers: tuple[str, ...], evidence: Mapping[str, Evidence], facts: Facts
) -> Finding:
    known = {name: getattr(facts, name) for name in NAMES - BY_LAYER - {"moment"}}
    known |= {name: each.value for name, each in evidence.items()}
    values: dict[str, Any] = {name: _ShortNumber(value) for name, value in known.items()}
    more = len(layers) - SHOWN_LAYERS
    values["layers"] = ", ".join(f"`{name}`" for name in layers[:SHOWN_LAYERS])
    values["layers"] += f" and {more} more" if more > 0 else ""
    values["number"] = len(layers)
    finding = Finding(
        id=rule.id,
        severity=rule.severity,
        step=facts.step,
        layers=layers,
        evidence=evidence,
        message=rule.message.format_map(values),
        advice=tuple(line.format_map(values) for line in rule.advice),
        source=rule.source,
    )
    if rule.advice:
        return finding
    return replace(finding, advice=advice_for(finding, estimates(facts), {}))


def _is_sign(finding: Finding, cause: Finding) -> bool:
    """Say whether a finding was a sign of a deeper cause."""
    return finding.id in EXPLAINS[cause.id] and CAUSES[finding.id] > CAUSES[cause.id]


def _applies(rule: Rule, moment: str) -> bool:
    """Say whether what a rule is about was measured at this moment."""
    if moment not in (SAMPLED_STEP, "validation"):
        return moment != "start" or rule.persistence == 1
    # a guard that holds also where validation is unknown does not make it one about validation
    return rule.asked.isdisjoint(OF_VALIDATION) == (moment != "validation")


class _ShortNumber(float):
    """A number that prints itself short; ``/10`` and ``*10`` for advice, ``a`` without its sign."""

    def __format__(self, spec: str) -> str:
        value = float(self)
        if spec.startswith("/"):
            return f"{value / float(spec[1:]):.2g}"
        if spec.startswith("*"):
            return f"{value * float(spec[1:]):.2g}"
        if spec.startswith("a"):
            return format(abs(value), spec[1:])
        if not spec and 1e3 <= abs(value) < 1e6:
            return f"{value:.0f}"
        return format(value, spec or ".3g")
