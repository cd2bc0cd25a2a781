"""One row of the table of cures, and which findings it means; no tensors.

A row names the findings that it is for by id, or by ``id:fact`` where only a finding with that
fact among its evidence is meant. How a cure is applied stands in its callbacks; what it needs of a
program is a name that `prescription` knows how to look for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any


@dataclass(frozen=True)
class Cure:
    """One row.

    Attributes:
        id: its name.
        what: one sentence that says what to do; may name estimates in braces.
        answers: the findings for which it is advised, and tried.
        tried_for: the findings for which it is tried, and not advised.
        late_for: the findings for which it is tried after these, because it seldom helps.
        callbacks: class paths and arguments; an argument ``"{name}"`` is an estimate.
        trainer: arguments of the Trainer, likewise.
        loader: arguments of the training loader, likewise.
        code: lines to change by hand; a row that is not automatic has nothing else.
        instead_of: class names; where one of them is there already, nothing is advised.
        needs: what has to be there, by the names of `prescription.candidates`; all of them.
        source: where it comes from.
    """

    id: str
    what: str
    answers: tuple[str, ...] = ()
    tried_for: tuple[str, ...] = ()
    late_for: tuple[str, ...] = ()
    callbacks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    trainer: Mapping[str, Any] = field(default_factory=dict)
    loader: Mapping[str, Any] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    source: str = ""

    @property
    def is_automatic(self) -> bool:
        """Whether it can be applied without a change of code."""
        return bool(self.callbacks or self.trainer or self.loader)

    @property
    def named(self) -> set[str]:
        """The estimates that its sentence names."""
        return {name for _, name, _, _ in Formatter().parse(self.what) if name}

    def is_advised_for(self, names: set[str]) -> bool:
        """Say whether it is advised for a finding of these names."""
        return bool(names & set(self.answers))

    def is_tried_for(self, names: set[str]) -> bool:
        """Say whether it is tried for a finding of these names."""
        return bool(names & {*self.answers, *self.tried_for, *self.late_for})

    def is_late_for(self, names: set[str]) -> bool:
        """Say whether others are tried before it for a finding of these names."""
        return not names & {*self.answers, *self.tried_for}


def names_of(id_: str, facts: Iterable[str]) -> set[str]:
    """Return by which names a row may mean a finding, or the rule that finds it.

    Example:
        >>> sorted(names_of("plateau", ["learnt"]))
        ['plateau', 'plateau:learnt']
    """
    return {id_, *(f"{id_}:{fact}" for fact in facts)}
