"""Datagrams in words, for the ladder diagram.

Theory of operation: a payload that is a MessagePack-RPC message is named as that, any other shows its first bytes. All
of it is printable ASCII: payloads are anybody's, and a diagram goes to terminals and into logs.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Final

from .. import _msgpack
from ..errors import DecodeError
from ..messages import Request, Response
from ._host import is_group, is_ipv6, is_loopback
from ._trace import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._trace import TraceRecord

__all__ = ["arrives", "ascii_line", "describe", "fate_of", "tries", "what_arrives"]

_TEXT_SHOWN: Final = 24
"""Characters of a payload, a method's name or an error code that are shown: they tell one from another, mostly."""
_BYTES_SHOWN: Final = 8
"""The same for a payload that is no text, of which each byte takes three characters."""
_KNOWN_PAYLOADS: Final = 4096
"""Payloads whose words are remembered while a diagram is drawn: each is asked for about three times."""

_PORT_UNREACHABLE: Final = {(3, 3), (1, 4)}
"""Type and code of IPv4 (RFC 792) and of IPv6 (RFC 4443 section 3.1); neither means anything in the other."""

_AT_THE_RECEIVER: Final = {Fate.DELIVERED, Fate.REFUSED, Fate.UNHEARD, Fate.TOO_LARGE, Fate.NOT_ADMITTED}
"""What is decided where a datagram arrives, unless an effect has decided it."""

_RPC_FIRST_BYTES: Final = b"\x93\x94"
"""Arrays of three and four elements: what a MessagePack-RPC message begins with."""


def ascii_line(text: str) -> str:
    """Return a text as printable ASCII on one line, all else escaped."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def describe(record: TraceRecord, attempt: int, addresses: Mapping[str, Sequence[str]]) -> str:
    """Say what a datagram was.

    Args:
        record: The datagram.
        attempt: How often its bytes had been sent, with this.
        addresses: The addresses of each host.

    Returns:
        The words; a no-break space holds together what should stay on one line.
    """
    parts = [what_arrives(record)]
    if not record.error:
        parts.append(_size(len(record.payload_sent)))
    if attempt > 1:
        parts.append(f"try\xa0{attempt}")
    if record.made_by and not record.error:
        parts.append(f"copy by {ascii_line(record.made_by)}")
    if len(record.payload) < len(record.payload_sent):
        parts.append(f"cut to {_size(len(record.payload))} on the way")
    elif record.payload != record.payload_sent:
        parts.append("changed on the way")
    if record.sender == record.receiver:
        parts.append("to itself")
    return ", ".join((*parts, *_unusual_addresses(record, addresses)))


def what_arrives(record: TraceRecord) -> str:
    """Say what a datagram was where it arrives, once :func:`describe` has said the rest where it was sent."""
    return _icmp(record) if record.error else _payload(record.payload_sent)


def fate_of(record: TraceRecord) -> str:
    """Say what became of a datagram, with what stands between this and its description."""
    by_effect = ascii_line(record.cause) if record.cause != record.made_by else ""
    if record.fate is Fate.DELIVERED:
        return f", +{_duration((record.settled_at or 0.0) - record.time)}"
    if record.fate is Fate.LOST:
        return f": lost by {by_effect}"
    if record.fate is Fate.REFUSED:
        return f": refused by {by_effect}" if by_effect else ": refused, nobody listens"
    destination = record.destination[0]
    return {
        Fate.UNHEARD: ": nobody listens",
        Fate.TOO_LARGE: ": too large for the port",
        Fate.NOT_ADMITTED: ": not admitted by the port",
        Fate.NO_HOST: f": no host has {destination}",
        Fate.UNROUTABLE: f": no way to {destination}",
        Fate.IN_FLIGHT: ": still in flight",
    }[record.fate]


def arrives(record: TraceRecord) -> bool:
    """Tell whether a datagram has come to its receiver, whether that took it or not."""
    return record.fate in _AT_THE_RECEIVER and record.cause == record.made_by


def tries(records: Iterable[TraceRecord]) -> dict[int, int]:
    """Return which one each record is of those with which its host has sent the same bytes; by the records' numbers.

    A MessagePack-RPC request may be tried again at another server, for it has a number; other bytes count for each
    destination apart. Copies that effects made are not counted, nor are ICMP errors and empty datagrams.
    """
    count: dict[tuple[object, ...], int] = {}
    attempts = {}
    for record in records:
        if record.made_by or record.error or not record.payload_sent:
            continue
        to_group = is_group(record.destination[0])
        anywhere = not to_group and _payload(record.payload_sent).startswith("request ")
        key = (record.sender, record.payload_sent, None if anywhere else (record.receiver, record.destination))
        attempts[record.number] = count[key] = count.get(key, 0) + 1
    return attempts


@functools.lru_cache(_KNOWN_PAYLOADS)
def _payload(payload: bytes) -> str:
    if payload[:1] and payload[:1] in _RPC_FIRST_BYTES:
        try:
            message = _msgpack.decode_untrusted(payload)
        except DecodeError:
            return _first_bytes(payload)
        if isinstance(message, Request):
            return f"request {message.msgid:#x} {_quoted(message.method)}"
        if isinstance(message, Response):
            return f"response {message.msgid:#x}{_error(message.error)}"
        return f"notification {_quoted(message.method)}"
    return _first_bytes(payload)


def _first_bytes(payload: bytes) -> str:
    if not payload:
        return "empty"
    text = payload.decode("latin-1")
    if text.isascii() and text.isprintable():
        return _quoted(text)
    return payload[:_BYTES_SHOWN].hex(" ") + (" ..." if len(payload) > _BYTES_SHOWN else "")


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}...")


def _error(error: object) -> str:
    if error is None:
        return ""
    code = error.get("code") if isinstance(error, dict) else error
    return f" error {_quoted(code) if isinstance(code, str) else _quoted(repr(code))}"


def _size(size: int) -> str:
    return f"{size:,}\xa0B"


def _duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.9995:
            return f"{seconds * scale:.4g}\xa0{unit}"
    return f"{seconds * 1e6:.3g}\xa0us"


def _icmp(record: TraceRecord) -> str:
    error = record.error
    assert error is not None  # noqa: S101  # for mypy: asked before
    kind = (error.icmp_type, error.icmp_code)
    meaning = "port unreachable" if kind in _PORT_UNREACHABLE else f"{error.icmp_type}/{error.icmp_code} {error.reason}"
    reporter = f" from {error.reporter}" if error.reporter not in ("", record.source[0]) else ""
    made = f" by {ascii_line(record.made_by)}" if record.made_by else ""
    return f"ICMP {ascii_line(meaning)}{reporter}{made}"


def _unusual_addresses(record: TraceRecord, addresses: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the addresses that cannot be told from the hosts: all but the first of each family."""
    notes = []
    for word, (address, _), name in (
        ("from", record.source, record.sender),
        ("to", record.destination, record.receiver),
    ):
        own = addresses.get(name, ())
        usual = next((one for one in own if is_ipv6(one) == is_ipv6(address)), address)
        if address != usual and not (is_loopback(address) and word == "from"):
            notes.append(f"{word} {address}")
    own = addresses.get(record.receiver, ())
    address = record.destination[0]
    if is_ipv6(address) and not is_ipv6(own[0] if own else address) and not notes:
        notes.append("IPv6")
    return notes
