"""What a siege tells: tables in Markdown for the documentation, and in columns for a terminal, as wide as it is.

Theory of operation: in a terminal the columns of numbers are as wide as they must be, and names are broken into lines
of what is left. There are no colours.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.siege.flood import Flooded
    from tests.siege.siege import Outcome

__all__ = ["as_json", "floods", "tables"]

_NARROWEST: Final = 16
"""Characters of a line for names, however narrow a terminal is."""

_OFF_PATH: Final = {
    "off_path": "replies and DTLS records from the server's address to clients' ports",
    "in_session_records": "DTLS records from clients' addresses and ports",
    "in_session_hellos": "ClientHellos from clients' addresses and ports",
}


def tables(outcome: Outcome, width: int = 0) -> str:
    """Return the tables.

    Args:
        outcome: What became of the siege.
        width: Characters of a line of the terminal; 0 for Markdown.
    """
    intro = (
        f"{outcome.seconds:.0f} seconds, all of it at once. What attackers sent and were sent is counted by nftables."
    )
    parts = [
        _text(intro, width),
        _table("attack | per second | sent | bytes in | answers | bytes out | out / in", _attacks(outcome), width),
        _table("honest clients | calls | answered | % | p50 ms | p99 ms | sent again", _clients(outcome), width),
        _table("server | resident MiB | growth MiB | processor s | log bytes | tracebacks", _servers(outcome), width),
        _text(_kernel(outcome), width),
    ]
    if outcome.left_out:
        parts.append(_text(f"No server spoke DTLS: {outcome.left_out}", width))
    return "\n\n".join(parts)


def as_json(outcome: Outcome, faults: list[str]) -> dict[str, Any]:
    """Return everything as a program reads it."""
    every = asdict(outcome)
    every["attacks"] = [{"name": one.name, "what": one.what, "at": one.at, "rate": one.rate} for one in outcome.attacks]
    every["passed"] = {name: passed._asdict() for name, passed in outcome.passed.items()}
    every["servers"] = {
        name: {key: value for key, value in server.items() if key != "log"} for name, server in outcome.servers.items()
    }
    return {**every, "faults": faults}


def floods(kind: str, capacity: float, found: Iterable[Flooded], width: int = 0) -> str:
    """Return what a search for the rate that honest clients do not stand has found, by rising rates.

    Args:
        kind: What the server serves.
        capacity: Datagrams a second that it refuses.
        found: What was tried.
        width: See :func:`tables`.
    """
    rows = [
        (
            *(f"{one.rate:,.0f}", f"{one.read:,}", f"{one.dropped:,}", f"{100 * one.success:.1f}"),
            *(f"{one.clients['p99']:.0f}", f"{one.grown / 2**20:.1f}", f"{100 * one.processor:.0f}"),
        )
        for one in sorted(found, key=lambda one: one.rate)
    ]
    head = "forged/s | read | dropped by the kernel | honest calls answered, % | p99 ms | growth MiB | processor, %"
    intro = f"{kind}: it reads and refuses {capacity:,.0f} datagrams a second, or that is all that can be sent here."
    return f"{_text(intro, width)}\n\n{_table(head, rows, width)}"


def _kernel(outcome: Outcome) -> str:
    read, dropped = outcome.kernel["InDatagrams"], outcome.kernel["RcvbufErrors"]
    return f"The kernel handed the servers {read:,} datagrams and dropped {dropped:,} for want of room."


def _text(text: str, width: int) -> str:
    return textwrap.fill(text, width) if width else text


def _table(head: str, rows: Iterable[tuple[str, ...]], width: int) -> str:
    if width:
        return _columns([tuple(head.split(" | ")), *rows], width)
    lines = [f"| {head} |", "|---" + "|---:" * head.count("|") + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _columns(rows: list[tuple[str, ...]], width: int) -> str:
    """Return rows in columns, the first of names, the others of numbers; heads and names may take several lines."""
    heads, *others = rows
    words = [max(map(len, head.split())) for head in heads]
    widths = [max([words[at], *(len(row[at]) for row in others)]) for at in range(1, len(heads))]
    left = min(max(len(row[0]) for row in rows), max(_NARROWEST, width - sum(widths) - 2 * len(widths)))
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, size) for cell, size in zip(row, [left, *widths], strict=True)]
        for name, *numbers in zip_longest(*cells, fillvalue=""):
            aligned = (number.rjust(size) for number, size in zip(numbers, widths, strict=True))
            lines.append("  ".join([name.ljust(left), *aligned]).rstrip())
        if row is heads:
            lines.append("-" * (left + sum(widths) + 2 * len(widths)))
    return "\n".join(lines)


def _attacks(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    loops = {"own_loop": "one forged datagram between two echo servers of ours"}
    loops["foreign_loop"] = "one forged datagram between ours and a plain echo server"
    named = {one.name: one.what for one in outcome.attacks} | loops
    if "half_open" in outcome.sent:
        named["half_open"] = "DTLS handshakes left half open, 254 true addresses"
    for name, what in named.items():
        came, went, sent = outcome.passed[f"{name}_in"], outcome.passed[f"{name}_out"], outcome.sent[name]
        rate = "once" if name in loops else f"{sent['sent'] / sent['seconds']:,.0f}"
        ratio = f"{went.payload / came.payload:.2f}" if came.payload else ""
        yield (what, rate, f"{sent['sent']:,}", f"{came.payload:,}", f"{went.datagrams:,}", f"{went.payload:,}", ratio)
    for begin, what in _OFF_PATH.items():
        forged = [figures for name, figures in outcome.sent.items() if name.startswith(begin)]
        rate = sum(figures["sent"] / figures["seconds"] for figures in forged)
        sent_all, octets = (sum(figures[key] for figures in forged) for key in ("sent", "bytes"))
        if forged:
            yield (what, f"{rate:,.0f}", f"{sent_all:,}", f"{octets:,}", "", "", "")


def _clients(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    for name, client in outcome.clients.items():
        share = 100 * client["answered"] / max(client["calls"], 1)
        yield (
            *(name, f"{client['calls']:,}", f"{client['answered']:,}", f"{share:.2f}"),
            *(f"{client['p50']:.1f}", f"{client['p99']:.1f}", f"{client['retransmitted']:,}"),
        )


def _servers(outcome: Outcome) -> Iterable[tuple[str, ...]]:
    for name, server in outcome.servers.items():
        yield (
            *(name, f"{server['resident'] / 2**20:.1f}", f"{server['grown'] / 2**20:.1f}"),
            *(f"{server['processor']:.1f}", f"{server['log_bytes']:,}", f"{server['tracebacks']}"),
        )
