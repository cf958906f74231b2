"""What was done and what came of it, in lines for people.

Theory of operation: pure functions of the record. Each line begins with the seconds since the first step and tells one
thing; what happened many times in the same way is one line.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from ..address import format_address, is_ipv6
from ..probing import DEFAULT_PROBE_SIZE
from ._icmp import name_of

if TYPE_CHECKING:
    from ._asking import Asked
    from ._exchange import Came, Told

__all__ = ["evidence_of", "milliseconds"]

_MOST_LINES: Final = 12
"""Lines of one finding's evidence: what comes in floods looks alike."""

_HEAD: Final = 16  # bytes shown of a foreign datagram


def evidence_of(asked: Asked) -> tuple[str, ...]:
    """Return the record of the first question."""
    timed = [
        *((sent.at, f"sent {DEFAULT_PROBE_SIZE} bytes to {format_address(asked.peer)}") for sent in asked.sent),
        *((came.at, _came(came)) for came in asked.came),
        *((told.at, _told(asked, told)) for told in asked.told),
    ]
    lines = [f"{at:.3f} s  {text}" for at, text in sorted(timed)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"... and {len(lines) - _MOST_LINES + 1} more of these"]
    lines.insert(0, f"from {format_address((asked.own_host or asked.where[0], asked.where[1]))}")
    lines += [
        f"{count} not sent: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
        for number, count in sorted(asked.send_errors.items())
    ]
    if asked.knocked:
        lines += _in_silence(asked)
    return tuple(lines)


def milliseconds(seconds: float) -> str:
    """Return a short time: ``0.21 ms``."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _came(came: Came) -> str:
    who = format_address(came.peer)
    if came.kind == "other":
        shown = came.head[:_HEAD].hex(" ") + (" ..." if came.size > _HEAD else "")
        return f"{came.size} bytes from {who}, no answer to a probe: {shown or 'an empty datagram'}"
    if came.kind == "stranger":
        return f"the answer, {came.size} bytes, from {who}, which was not asked"
    again = {"duplicate": " once more", "late": " late"}.get(came.kind, "")
    return f"the answer{again}, {came.size} bytes, from {who}"


def _told(asked: Asked, told: Told) -> str:
    reason = told.reason
    if not reason.icmp_type:
        return f"this machine's kernel: {reason.reason} ({errno.errorcode.get(reason.errno, reason.errno)})"
    name = name_of(reason, ipv6=is_ipv6(asked.peer[0]))
    proof = (
        "quoting what was sent"
        if told.sequence >= 0
        else "quoting too little to prove that it is about this"
        if told.short
        else "quoting what was never sent: forged, perhaps, and not counted"
    )
    return f"{name}, from {reason.reporter or 'an unknown address'}, {proof}"


def _in_silence(asked: Asked) -> list[str]:
    lines = [f"nothing came back within {asked.waited:.1f} s"] if not (asked.came or asked.told) else []
    if asked.up is not None:
        lines.append(
            f"a datagram to port {asked.up.peer[1]} of the same host was refused by it (ICMP port unreachable)"
        )
    if asked.dtls is not None:
        lines.append(
            f"{asked.dtls.at:.3f} s after a ClientHello (DTLS) its answer, {asked.dtls.size} bytes, from "
            f"{format_address(asked.dtls.peer)}: {asked.dtls.head[:_HEAD].hex(' ')} ..."
        )
    if asked.hops:
        seen = ", ".join(f"{hops} {host}" for hops, host in asked.hops)
        lines.append(f"routers that reported probes of few hops: {seen}")
    return lines
