"""How ``benchmarks/echo`` writes its figures: tables for a terminal, Markdown for the documentation."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from _report import machine_text, markdown_row
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _echo_contestants import Contestant
    from _echo_figures import Figures, Outcome
    from _echo_measure import Load
    from rich.console import Console

__all__ = ["markdown", "print_figures", "print_outcomes"]

_BASE: Final = "mmsg"
"""What the column 'times' compares with; where it was not measured, the first one is."""


def _base_of(figures: Figures) -> Contestant:
    return next((one for one in figures.contestants if one.name == _BASE), figures.contestants[0])


def _clients(number: int) -> str:
    return "1 client" if number == 1 else f"{number:,} clients"


def print_figures(console: Console, figures: Figures, place: str) -> None:
    """Print a table for each load."""
    for load in figures.loads:
        console.print(_table(figures, load, f"{place}: {load.window} under way in all, {_clients(load.clients)}"))
    many = len(figures.rounds)
    console.print(
        f"{f'Medians of {many} rounds' if many > 1 else 'One round'}. CPU: processor time of the server per reply,"
    )
    console.print(f"user and system. times: what '{_base_of(figures).label}' uses, so many times.")


def _table(figures: Figures, load: Load, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "CPU µs", "from to", "times", "replies/s", "p50 µs", "p99 µs"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    base = _base_of(figures)
    for contestant in figures.contestants:
        if not figures.has(contestant.name, load):
            continue
        rounds = figures.values(contestant.name, load, "cpu")
        ratio = figures.ratio(contestant.name, base.name, load)
        table.add_row(
            contestant.label,
            f"{statistics.median(rounds):.2f}",
            f"{min(rounds):.1f} {max(rounds):.1f}",
            "" if ratio is None else f"{ratio:.2f}",
            *(f"{figures.median(contestant.name, load, figure):,.0f}" for figure in ("rate", "p50", "p99")),
        )
    return table


def _by_target(outcomes: Sequence[Outcome]) -> dict[str, dict[int, Outcome]]:
    found: dict[str, dict[int, Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.target.text, {})[outcome.clients] = outcome
    return found


def _verdict(found: dict[int, Outcome]) -> str:
    verdicts = {outcome.verdict for outcome in found.values()}
    return next(one for one in ("not measured", "not reached", "reached") if one in verdicts)


def _cell(outcome: Outcome | None) -> str:
    """Return what was measured and, behind a slash, the most it may be."""
    if outcome is None:
        return ""
    return f"{'-' if outcome.measured is None else format(outcome.measured, '.2f')}/{outcome.limit:.2f}"


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print what became of the targets."""
    clients = sorted({outcome.clients for outcome in outcomes})
    title = "Targets: what our compiled port uses, in times of"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for number in clients:
        table.add_column(_clients(number), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for text, found in _by_target(outcomes).items():
        table.add_row(text, *(_cell(found.get(number)) for number in clients), _verdict(found))
    console.print(table)


def markdown(figures: Figures, outcomes: Sequence[Outcome], note: str, wire: Figures | None) -> str:
    """Return the tables for the documentation.

    Args:
        figures: Those of loopback.
        outcomes: What became of the targets.
        note: How it was measured.
        wire: The figures over a wire, if there are any.
    """
    parts = [f"{machine_text().replace(chr(10), ', ')}; {note}.", ""]
    parts += _markdown_outcomes(outcomes)
    for window in sorted({load.window for load in figures.loads}):
        parts += _markdown_window(figures, window, f"Loopback, {window} under way in all")
    if wire is not None:
        for window in sorted({load.window for load in wire.loads}):
            parts += _markdown_window(wire, window, f"A wire without segmentation offload, {window} under way in all")
    return "\n".join(parts)


def _markdown_outcomes(outcomes: Sequence[Outcome]) -> list[str]:
    clients = sorted({outcome.clients for outcome in outcomes})
    lines = markdown_row("CPU per reply against", *map(_clients, clients), "", heading=True)
    for text, found in _by_target(outcomes).items():
        lines += markdown_row(text, *(_cell(found.get(number)) for number in clients), _verdict(found))
    return [*lines, ""] if outcomes else []


def _markdown_window(figures: Figures, window: int, title: str) -> list[str]:
    loads = [load for load in figures.loads if load.window == window]
    heading = [f"CPU µs, {_clients(load.clients)}" for load in loads]
    heading += [f"replies/s, {load.clients:,}" for load in loads] + [
        f"p50 / p99 µs, {load.clients:,}" for load in loads
    ]
    lines = [f"{title}:", "", *markdown_row("", *heading, heading=True)]
    for contestant in figures.contestants:
        name = contestant.name
        measured = [load if figures.has(name, load) else None for load in loads]
        if not any(measured):
            continue
        cells = [f"{figures.median(name, load, 'cpu'):.2f}" if load else "" for load in measured]
        cells += [f"{figures.median(name, load, 'rate'):,.0f}" if load else "" for load in measured]
        cells += [
            f"{figures.median(name, load, 'p50'):,.0f} / {figures.median(name, load, 'p99'):,.0f}" if load else ""
            for load in measured
        ]
        lines += markdown_row(contestant.label, *cells)
    return [*lines, ""]
