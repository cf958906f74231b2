"""``udpecho compare``: two runs of ``udpecho ping --json``, and whether they differ.

Theory of operation: reads the two files, has :func:`~..probing._compare.compare_runs` compare them, and prints a table
or one JSON object. What is no summary is wrong usage: nothing can be said about it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._arguments import Misuse
from ._options import share
from ._output import is_terminal, one_line, print_json

if TYPE_CHECKING:
    from ..probing._compare import Comparison, Difference
    from ..probing._runs import Run

__all__ = ["LARGEST_FILE", "compare"]

LARGEST_FILE: Final = 1 << 28
"""Bytes of a file that is read: the lines of a million datagrams have less."""

EPILOG: Final = (
    "Exit status: 0 no difference, or B is better; 1 B is worse in at least one figure; 2 wrong usage, or a file "
    "that holds no summary."
)

_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 0.5, 0.999999
_WORST: Final = 1
_WIDEST_NAME: Final = 10  # characters: the table has 80 columns


def _confidence(text: str) -> float:
    value = share("--confidence", str(text))
    if not _LEAST_CONFIDENCE <= value <= _MOST_CONFIDENCE:
        raise Misuse(f"--confidence {text}: it must be at least 50% and at most 99.9999%, such as 95%")
    return value


def _margin(text: str) -> float:
    return share("--margin", str(text))


@click.command("compare", epilog=EPILOG)
@click.argument("a", metavar="A.json")
@click.argument("b", metavar="B.json")
@click.option(
    "--confidence",
    metavar="SHARE",
    type=_confidence,
    default="95%",
    show_default=True,
    help="With which all the intervals together hold.",
)
@click.option(
    "--margin",
    metavar="SHARE",
    type=_margin,
    default="0%",
    show_default=True,
    help="What a difference of times must exceed, as a share of A's.",
)
@click.option("--json", "compact", is_flag=True, help="Print one line of JSON, for scripts.")
def compare(a: str, b: str, confidence: float, margin: float, compact: bool) -> int:
    """Compare two runs that 'udpecho ping --json' has written: is B worse than A?

    Prints each figure of both runs, the difference, and the interval in which the true difference lies; where 0 is in
    it the runs do not differ as far as these data tell. Files of --json-lines will do as well. "-" is standard input.
    Networks change from minute to minute: --margin 10% keeps small differences from counting.
    """
    from ..probing._compare import compare_runs  # noqa: PLC0415  # only where something is compared

    if a == b == "-":
        raise Misuse("standard input can be one of the two runs, not both")
    compared = compare_runs(_run_in(a), _run_in(b), confidence, margin)
    if compact:
        print_json({"a": a, "b": b, **compared.as_json()}, compact=True)
    else:
        _print(compared, a, b)
    return _WORST if compared.having("worse") else 0


def _run_in(name: str) -> Run:
    """Return the run that a file holds.

    Raises:
        Misuse: It cannot be read, or holds none.
    """
    from ..probing._runs import run_of_json_untrusted  # noqa: PLC0415  # only where something is compared

    try:
        with click.open_file(name, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise Misuse(f"{name} cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE:
        raise Misuse(f"{name} has more than {LARGEST_FILE:,} bytes; keep the summary, its last line")
    try:
        return run_of_json_untrusted(_last_value(content))
    except ValueError as error:
        raise Misuse(f"{name}: {error}") from error


def _last_value(content: bytes) -> object:
    """Return the JSON value of a file, or of its last line.

    Raises:
        ValueError: There is none.
    """
    for text in (content, content.strip().rpartition(b"\n")[2]):
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return value
    raise ValueError("it is no JSON; write one with 'udpecho ping --json'")


def _print(compared: Comparison, a: str, b: str) -> None:
    from rich.console import Console  # noqa: PLC0415  # slow to import: only for this table
    from rich.table import Table  # noqa: PLC0415  # likewise
    from rich.text import Text  # noqa: PLC0415  # likewise

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    names = _names(a, b)
    for name in names:
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("DIFFERENCE", justify="right", no_wrap=True)
    table.add_column(f"{compared.confidence * 100:g}% INTERVAL", no_wrap=True)
    table.add_column("", overflow="fold")
    colours = {"worse": "bold red", "better": "green"}
    for one in compared.differences:
        row = [one.measure, _figure(one, one.a), _figure(one, one.b), _signed(one, one.difference), _interval(one)]
        table.add_row(*row, Text(_verdict(one), style=colours.get(one.verdict, "")))
    # No wrapping where no person reads: a program wants a figure on one line.
    console = Console(highlight=False) if is_terminal() else Console(width=1_000_000, highlight=False)
    with console.capture() as captured:
        console.print(table)
        console.print()
        for sentence in _sentences(compared, names[1]):
            console.print(Text(sentence))
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _names(a: str, b: str) -> tuple[str, str]:
    """Return the files' names without what they end in, short, where that tells them apart."""
    stems = [one_line(name if name == "-" else Path(name).stem) for name in (a, b)]
    first, second = (stem if len(stem) <= _WIDEST_NAME else f"{stem[: _WIDEST_NAME - 1]}…" for stem in stems)
    return (first, second) if first != second else ("A", "B")


def _sentences(compared: Comparison, b: str) -> list[str]:
    worse, better = compared.having("worse"), compared.having("better")
    sentences = [
        f"{b} is {kind}: {', '.join(measures)}."
        for kind, measures in (("worse", worse), ("better", better))
        if measures
    ]
    if not sentences:
        sentences.append("No difference, as far as these data tell.")
    sentences += [f"Note: {one_line(note)}." for note in compared.notes]
    sentences.append(
        f"All {len(compared.differences)} intervals hold together with {compared.confidence * 100:g}% confidence, if "
        "probes are independent of each other: in bursts they are not, and then several runs tell more than one."
    )
    return sentences


def _verdict(one: Difference) -> str:
    if one.verdict != "unknown":
        return one.verdict
    return f"needs {one.wants:,} answers" if one.wants > 1 else "not known"


def _figure(one: Difference, value: float | None) -> str:
    from ._ping_units import share_text, time_text  # noqa: PLC0415  # beside the others

    return share_text(value) if one.measure == "loss" else time_text(value)


def _signed(one: Difference, value: float | None) -> str:
    if value is None:
        return "-"
    text = _figure(one, abs(value))
    return text if value == 0 else f"{'+' if value > 0 else '-'}{text}"


def _interval(one: Difference) -> str:
    if one.low is None or one.high is None:
        return "-"
    return f"{_signed(one, one.low)} to {_signed(one, one.high)}"
