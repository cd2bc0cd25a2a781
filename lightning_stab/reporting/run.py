"""One run as it lies in its folder: curves, texts, findings, settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_stab.errors import StabError
from lightning_stab.reporting.csv_logs import read_csv
from lightning_stab.reporting.event_files import Events, read_event_file
from lightning_stab.reporting.series import Series, continued

EVENT_FILES, CSV_FILE = "events.out.tfevents.*", "metrics.csv"
FACTS, FINDINGS, RUN = "diagnosis/facts", "diagnosis/findings", "stability_report/run"
OLD_FACTS = "diagnosis_facts/"  # the facts as scalars, as earlier versions logged them
SEVERITIES = ("info", "warning", "error")
OUTCOME = "outcome"  # a folder of a run, where `StabilityReport` leaves TensorBoard's HParams
MOST_CONFIG = 200_000  # characters of a configuration that are read


class NoRunError(StabError):
    """A folder that holds no run, or several."""


@dataclass(frozen=True)
class Run:
    """What a run has left.

    Attributes:
        folder: where it lies.
        series: curves by tag, without the facts.
        facts: curves of the doctor's facts, by name.
        texts: by tag, (step, Markdown) in the order in which they were written.
        findings: as `Finding.to_dict`, in the order in which they were found.
        diagnosed: whether the doctor watched the run.
        config: the text of the configuration, "" if there is none.
        about: what `StabilityReport` wrote of callbacks, versions, hardware and the end.
        gradient_check: what `gradient_check.json` holds.
        restarts: the steps at which a later file of the run begins.
        began: seconds since 1970.
        seconds: how long something was logged, without the time before a restart.
        notes: what could not be read, a sentence each.
    """

    folder: Path
    series: Mapping[str, Series]
    facts: Mapping[str, Series] = field(default_factory=dict)
    texts: Mapping[str, list[tuple[int, str]]] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    diagnosed: bool = False
    config: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    gradient_check: Mapping[str, Any] = field(default_factory=dict)
    restarts: tuple[int, ...] = ()
    began: float | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last two parts of the folder, which tell runs apart."""
        return "/".join(self.folder.parts[-2:])

    @property
    def last_step(self) -> int:
        """The last step at which anything was logged."""
        return max((int(s.steps[-1]) for s in self.series.values() if len(s)), default=0)

    def section(self, name: str) -> dict[str, Series]:
        """Return the curves of ``name/...`` by the rest of their tags, in their order."""
        start = f"{name}/"
        return {t.removeprefix(start): s for t, s in self.series.items() if t.startswith(start)}


def read_run(folder: Path | str) -> Run:
    """Read a run's folder: event files, CSV logs and the suite's own files.

    Args:
        folder: that of the logger, such as ``lightning_logs/version_0``, or a log file in it.

    Raises:
        NoRunError: if it holds no logs, or those of several runs in folders below it.
    """
    root = _run_folder(Path(folder))
    events = [read_event_file(path) for path in sorted(root.glob(EVENT_FILES))]
    events.sort(key=lambda each: each.began or 0.0)  # names begin alike within a second
    plugins = {tag: plugin for each in events for tag, plugin in each.plugins.items()}
    texts, notes = _texts(events), []
    if any(each.is_cut for each in events):
        notes.append("An event file ends within a record; what comes before it was read.")
    series, restarts = _joined(events)
    if not series and (root / CSV_FILE).is_file():
        series = read_csv(root / CSV_FILE)
    facts = {t.removeprefix(OLD_FACTS): s for t, s in series.items() if t.startswith(OLD_FACTS)}
    facts |= _packed_facts(texts.pop(FACTS, []))
    saved = _json(root / "findings.json")
    lists = texts.pop(FINDINGS, [])
    findings = _findings(saved.get("findings"), lists)
    about = _objects(text for _, text in texts.pop(RUN, []))
    hidden = {t for t, plugin in plugins.items() if plugin not in ("text", "scalars")}
    times = [e.began for e in events if e.began is not None]
    return Run(
        folder=root,
        series={t: s for t, s in series.items() if not t.startswith(OLD_FACTS)},
        facts=facts,
        texts={t.removesuffix("/text_summary"): x for t, x in texts.items() if t not in hidden},
        findings=findings,
        diagnosed=bool(saved or facts or lists),
        config=_config(root),
        about=_json(root / "run.json") | about,
        gradient_check=_json(root / "gradient_check.json"),
        restarts=restarts,
        began=min(times, default=None),
        seconds=_duration([(e.began, e.ended) for e in events if e.began and e.ended]),
        notes=tuple(notes),
    )


def _run_folder(root: Path) -> Path:
    if root.is_file() and (root.name == CSV_FILE or root.match(EVENT_FILES)):
        root = root.parent
    if not root.is_dir():
        raise NoRunError(f"`RUN_DIR` must be a folder with the logs of a run, got {str(root)!r}.")
    if (root / CSV_FILE).is_file() or any(root.glob(EVENT_FILES)):
        return root
    folders = {p.parent for name in (EVENT_FILES, CSV_FILE) for p in root.rglob(name)}
    of_runs = {p for p in folders if p.parent in folders or (p.parent / "run.json").is_file()}
    below = sorted(p for p in folders if p.name != OUTCOME or p not in of_runs)
    if len(below) == 1:
        return below[0]
    found = ", ".join(str(p) for p in below[:8]) + (" ..." if len(below) > 8 else "")
    raise NoRunError(
        f"`RUN_DIR` must hold the logs of one run (event files or {CSV_FILE}), got {str(root)!r}, "
        + (f"with {len(below)} runs below it. Name one of them: {found}" if below else "with none.")
    )


def _joined(events: list[Events]) -> tuple[dict[str, Series], tuple[int, ...]]:
    series: dict[str, Series] = {}
    restarts = []
    for number, each in enumerate(e for e in events if e.scalars):
        if number:
            restarts.append(min(int(s.steps[0]) for s in each.scalars.values()))
        for tag, new in each.scalars.items():
            series[tag] = continued(series[tag], new) if tag in series else new
    return series, tuple(restarts)


def _duration(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of (begin, end) in seconds, of files written at once too.

    Example:
        >>> _duration([(0.0, 10.0), (5.0, 12.0), (6.0, 8.0), (100.0, 103.0)])
        15.0
    """
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total


def _texts(events: list[Events]) -> dict[str, list[tuple[int, str]]]:
    texts: dict[str, list[tuple[int, str]]] = {}
    for each in events:
        for tag, entries in each.texts.items():
            texts.setdefault(tag, []).extend(entries)
    return texts


def _packed_facts(entries: list[tuple[int, str]]) -> dict[str, Series]:
    """Return the curves of facts that were logged as one JSON object a step."""
    points: dict[str, list[tuple[int, float]]] = {}
    for step, text in entries:
        for name, value in _objects([text]).items():
            if isinstance(value, int | float):
                points.setdefault(str(name), []).append((step, float(value)))
    return {
        name: Series(np.array([s for s, _ in each]), np.array([v for _, v in each]), len(each))
        for name, each in points.items()
    }


def _findings(saved: Any, logged: list[tuple[int, str]]) -> tuple[dict[str, Any], ...]:
    """Return each finding once, with its latest state; the file knows those of the end."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    lists = [_parsed(text) for _, text in logged]
    for each in [*lists, saved] if isinstance(saved, list) else lists:
        for plain in each if isinstance(each, list) else ():
            if isinstance(plain, dict) and isinstance(plain.get("id"), str):
                finding = _checked(plain)
                key = (finding["id"], finding["step"])
                found[key] = {**found.get(key, {}), **finding}
    return tuple(sorted(found.values(), key=lambda f: f["step"]))


def _checked(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a finding in which every field has its type, as anybody may have written the file."""
    severity = plain.get("severity")
    step = plain.get("step")
    texts = ("state", "source", "explained_by")
    kept = {key: plain[key] for key in texts if isinstance(plain.get(key), str)}
    evidence = plain.get("evidence")
    found = _step(step)
    since, withdrawn = plain.get("since"), plain.get("withdrawn_at")
    return {
        **kept,
        "id": plain["id"],
        "severity": severity if severity in SEVERITIES else "warning",
        "step": found,
        "since": found if since is None else min(_step(since), found),
        **({} if withdrawn is None else {"withdrawn_at": _step(withdrawn)}),
        "message": str(plain.get("message") or ""),
        "layers": _strings(plain.get("layers")),
        "advice": _strings(plain.get("advice")),
        "evidence": {k: v for k, v in evidence.items() if isinstance(v, dict)}
        if isinstance(evidence, dict)
        else {},
    }


def _step(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def _strings(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _objects(texts: Iterable[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for text in texts:
        parsed = _parsed(text)
        merged |= parsed if isinstance(parsed, dict) else {}
    return merged


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _json(path: Path) -> dict[str, Any]:
    return _objects([path.read_text(errors="replace")]) if path.is_file() else {}


def _config(root: Path) -> str:
    """Return the newest configuration that a command line saved, else the hyperparameters."""
    configs = sorted(root.glob("config*.yaml"), key=lambda p: p.stat().st_mtime)
    for path in [*reversed(configs), root / "hparams.yaml"]:
        text = path.read_text(errors="replace")[:MOST_CONFIG] if path.is_file() else ""
        if text.strip() not in ("", "{}"):
            return text
    return ""
