"""One self-contained page: no network, light and dark, for a screen, a phone and paper."""

from __future__ import annotations

from importlib import resources

from lightning_stab._version import __version__
from lightning_stab.reporting import sections
from lightning_stab.reporting.cards import cards, marks_of
from lightning_stab.reporting.causes import Verdict, causes_of, verdict_of
from lightning_stab.reporting.chart import steps_axis
from lightning_stab.reporting.run import Run
from lightning_stab.reporting.text import escape
from lightning_stab.reporting.timeline import event_list, events_of, lanes

GLYPHS = {"ok": "✔", "unknown": "?", "warning": "▲", "error": "✖"}
LARGEST = 3_000_000  # bytes


def report_page(run: Run) -> str:
    """Return the report of a run as one HTML page.

    Args:
        run: what `read_run` returned.
    """
    causes = causes_of(run)
    marks = marks_of(causes)
    steps = steps_axis(max([run.last_step, *(mark.step for mark in marks)]))
    curves = sections.loss_and_metrics(run, steps, marks)
    parts = [
        verdict_html(verdict_of(run, causes)),
        sections.tiles(run),
        section("causes", "What is wrong" if causes.alarms else "", cards(run, causes, steps)),
        section("loss", "Loss and metrics" if curves else "Steps", lanes(run, steps) + curves),
        section("chronology", "What happened when", event_list(events_of(run, causes))),
        section("depth", "Layers over time", sections.depth(run, steps)),
        section(
            "gradients", "Gradients and updates", sections.gradients_and_updates(run, steps, marks)
        ),
        section("rate", "Learning rate", sections.rate_and_precision(run, steps, marks)),
        section("initialization", "Initialisation", sections.initialization(run)),
        section("check", "Gradient check", sections.gradient_check(run)),
        section("about", "The run", sections.about(run)),
    ]
    return page(run.name, "".join(parts))


def section(id_: str, title: str, content: str) -> str:
    """Return a section, nothing where it has no content."""
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section id="{id_}">{heading}{content}</section>' if content else ""


def verdict_html(verdict: Verdict) -> str:
    """Return the verdict as the element that a reader sees first."""
    advice = f"<p class=do><b>What to do:</b> {verdict.advice}</p>" if verdict.advice else ""
    return (
        f'<div id="verdict" class="{verdict.state}"><i>{GLYPHS[verdict.state]}</i><div>'
        f"<h1>{verdict.headline}</h1><p>{verdict.text}</p>{advice}</div></div>"
    )


def page(title: str, body: str) -> str:
    """Return a whole page around a body; style and script are part of it."""
    files = resources.files("lightning_stab.reporting")
    style, script = ((files / name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f'<header><b>{escape(title)}</b><span class="hint">Drag in a chart to zoom all of them, '
        "double-click to go back; click a name to hide its line.</span></header>"
        f"{body}<footer>lightning-stab {__version__}</footer></main>"
        f"<script>{script}</script></body></html>"
    )
