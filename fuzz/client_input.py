"""Client input: each request ends once, by its deadline; before, only what its server or its network said can end it.

Whatever datagrams and ICMP errors come, from whomever. So: no exception but the documented ones of commands; a response
counts only from an address that the request was sent to, with its msgid; bytes reflected only if they are the
request's own; an ICMP error only if it quotes the request; never more under way to a server than its window allows;
nothing is sent for a request that has ended, and nothing of it is kept; a local socket is closed when nobody needs it
any more, and not before.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from twistedudp import _msgpack
from twistedudp.core import INTERNET, LAN, Kind, RequesterSettings
from twistedudp.errors import (
    DecodeError,
    ErrorReplyReceived,
    HostNotFound,
    InvalidAddress,
    PeerReflects,
    PeerUnreachable,
    RequestAborted,
    RequestTimedOut,
)
from twistedudp.messages import CODE_BUSY, TYPE_REQUEST, Response

from ._client import Client
from ._source import MAX_STEPS, Broken, Source, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.address import Address
    from twistedudp.core import PendingRequest
    from twistedudp.messages import Message

    from ._client import Asked
    from ._source import Tell

__all__ = ["ERRORS", "FIRST", "MAX_SIZE", "OTHER_PORT", "Step", "play"]

MAX_SIZE: Final = 96
"""Bytes of an input."""

FIRST: Final = ("127.0.0.1", 10000)
SECOND: Final = ("::1", 10000)
THIRD: Final = ("127.0.0.3", 10000)
STRANGER: Final = ("127.0.0.66", 10000)
OTHER_PORT: Final = ("127.0.0.1", 10001)
PEERS: Final = (FIRST, SECOND, THIRD, STRANGER, OTHER_PORT)
ANSWERS: Final = ((FIRST,), (FIRST, SECOND), (SECOND, THIRD, FIRST), (THIRD,), (SECOND, SECOND))
TIMEOUTS: Final = (2.0, 0.05, 0.8, 10.0, 60.0, 1e-9)
WAITS: Final = (None, 0.0, 0.001, 0.25, 1.0, 30.0, 3600.0)
PAYLOADS: Final = (b"", b"x", b"eight or more", b"\x94\x01\x01\xc0\xc0", b"\x94\x00\x01\xa1m\x90", b"\x93\x02\xa1m\x90")
ERRORS: Final[tuple[object, ...]] = (
    None, {"code": "c", "message": "m"}, {"code": CODE_BUSY, "message": "later"}, "text", 0, {"code": 1}, [], "",
)  # fmt: skip
WINDOWS: Final = (None, 1, 2)
THRESHOLDS: Final = (5, 0, 1)
RETRY_PORTS: Final = (64, 1)

_MOST_REPEATS: Final = 4
_LAST_DEADLINES: Final = 6
"""Times that the timer fires on time after the last step; then it is so late that all requests must end at once."""
_LATE: Final = 1000.0  # seconds


class Step(IntEnum):
    """What an input can do."""

    CALL = 0
    """A call or an echo by method: what kind, timeout, parameter."""
    ECHO = 1
    """A raw echo: of what, timeout."""
    DATAGRAM = 2
    """Any bytes arrive: from whom, on which socket, bytes."""
    RESPONSE = 3
    """A response to a request: which, from whom, on which socket, error, result, how far from its msgid, its damage."""
    REFLECTION = 4
    """A request's own bytes: which, from whom, on which socket, their damage."""
    ICMP = 5
    """An ICMP error that quotes requests: which, to whom, from which socket, which is next, bytes (0x80: one wrong)."""
    ICMP_OF_ANY = 6
    """An ICMP error that quotes any bytes: to whom, from which socket, bytes."""
    TIME = 7
    """Time passes: how much, or until the timer fires."""
    CANCEL = 8
    """The caller has enough: which."""
    RESOLVED = 9
    """The resolver answers: what."""
    NOT_RESOLVED = 10
    """The resolver has no answer."""
    NOTIFICATION = 11
    """A notification: its parameter."""
    SEND_FAILED = 12
    """A transmit cannot be sent: which of the last."""


class Play(Client):  # budget: a method for each step
    """One input played to one client.

    Args:
        source: The input.
        tell: Where it is told what the input means.
    """

    def __init__(self, source: Source, tell: Tell) -> None:
        self.source = source
        flags, seed = source.byte(), source.byte()
        settings = RequesterSettings(
            max_datagram_size=128,
            max_outstanding=3 if flags & 1 else 1000,
            max_queued_notifications=2,
            retry_refused=bool(flags & 2),
            window=source.choose(WINDOWS),
            policy=LAN if flags & 16 else INTERNET,
            breaker_threshold=source.choose(THRESHOLDS),
            max_retry_ports=source.choose(RETRY_PORTS),
        )
        super().__init__(settings, seed, _MOST_REPEATS if flags & 32 else 0, tell)
        self.closes = bool(flags & 8)
        if not flags & 4:
            self.resolved((FIRST, SECOND))

    def run(self) -> None:
        """Play all steps, then let the requests end by themselves or by closing."""
        choices: tuple[Callable[[], None], ...] = (
            self._call, self._echo, self._datagram, self._response, self._reflection, self._icmp, self._icmp_of_any,
            self._time, self._cancel, self._resolved, self._not_resolved, self._notification, self._send_failed,
        )  # fmt: skip
        for _ in range(MAX_STEPS):
            if not self.source:
                break
            self.source.choose(choices)()
        self.repeats = 0
        if self.closes:
            self.tell("the client closes")
            self.requester.close()
            self.pump(list(self.waiting), RequestAborted)
        for _ in range(_LAST_DEADLINES):
            if (due := self.requester.next_deadline()) is None:
                break
            self._deadline(max(due, self.now))
        self._deadline(self.now + _LATE)
        self.check_nothing_is_left()

    # Commands

    def _call(self) -> None:
        how, timeout, parameter = self.source.byte(), self.source.choose(TIMEOUTS), self.source.byte()
        kind = Kind.ECHO if how & 1 else Kind.CALL
        params: list[object] = [parameter]
        params += ["x" * 200] if how & 0xF0 == 0xF0 else [object()] if how & 0xF0 == 0xE0 else []

        def command() -> PendingRequest:
            return self.requester.send_request(
                "m", params, timeout=timeout, now=self.now, kind=kind, idempotent=bool(how & 2)
            )

        self.command(command, timeout)
        self.pump(())

    def _echo(self) -> None:
        payload, timeout = self.source.choose(PAYLOADS), self.source.choose(TIMEOUTS)
        self.command(lambda: self.requester.send_echo(payload, timeout=timeout, now=self.now), timeout)
        self.pump(())

    def _notification(self) -> None:
        parameter = self.source.byte()
        self.tell("notification %d", parameter)
        self.notified.add(_msgpack.encode_notification("m", [parameter]))
        self.requester.send_notification("m", [parameter])
        self.pump(())

    def _cancel(self) -> None:
        if not self.all:
            return
        asked = self.source.choose(self.all)
        self.tell("cancel request %d", self.all.index(asked))
        self.requester.cancel(asked.request, now=self.now)
        if asked in self.waiting:
            self.waiting.remove(asked)
        self.pump(())

    # Inputs

    def _datagram(self) -> None:
        peer, socket = self.source.choose(PEERS), self.source.choose((0, 1, 2))
        self._receive(self.source.chunk(), peer, socket)

    def _response(self) -> None:
        if not self.all:
            return
        asked, peer, socket = self._asked()
        error, result = self.source.choose(ERRORS), self.source.byte()
        off, damage = self.source.byte(), self.source.byte()
        msgid = (asked.request.msgid + off) & 0xFFFFFFFF
        payload = _msgpack.encode_response(msgid, error, None if error is not None else result)
        self._receive(_damaged(payload, damage), peer, socket)

    def _reflection(self) -> None:
        if self.all:
            asked, peer, socket = self._asked()
            self._receive(_damaged(asked.request.payload, self.source.byte()), peer, socket)

    def _icmp(self) -> None:
        if self.all:
            asked, peer, socket = self._asked()
            row = asked.request.payload + self.source.choose(self.all).request.payload
            size = self.source.byte()
            quoted = row[: size & 0x7F]
            self._unreachable(peer, _damaged(quoted, len(quoted) - 1) if size & 0x80 else quoted, socket)

    def _icmp_of_any(self) -> None:
        peer, socket = self.source.choose(PEERS), self.source.choose((0, 1, 2))
        self._unreachable(peer, self.source.chunk(), socket)

    def _asked(self) -> tuple[Asked, Address, int]:
        """Return a request, somebody, and a socket: a small number, or one that the request left from."""
        asked, peer, which = self.source.choose(self.all), self.source.choose(PEERS), self.source.byte()
        return asked, peer, asked.sent[which % len(asked.sent)].socket if which & 0x80 and asked.sent else which & 3

    def _time(self) -> None:
        wait = self.source.choose(WAITS)
        due = self.requester.next_deadline()
        if wait is not None:
            self._deadline(self.now + wait)
        elif due is not None:
            self._deadline(max(due, self.now))

    def _resolved(self) -> None:
        self.resolved(self.source.choose(ANSWERS))

    def _not_resolved(self) -> None:
        self.tell("the name has no address")
        unsent = [asked for asked in self.waiting if not asked.sent]
        self.requester.resolution_failed(HostNotFound("name.example", "no such name"))
        self.pump(unsent, HostNotFound)

    def _send_failed(self) -> None:
        if not self.last_sent:
            return
        transmit = self.source.choose(self.last_sent)
        self.tell("cannot be sent: %s", transmit)
        own = [asked for asked in self.waiting if transmit in asked.sent]
        self.requester.send_failed(transmit, InvalidAddress("not a good one"), now=self.now)
        self.pump(own, InvalidAddress)

    # What these may do

    def _receive(self, payload: bytes, peer: Address, socket: int) -> None:
        self.tell("from %s to socket %d: %s", peer, socket, payload)
        message = _decoded(payload)
        may_end = [asked for asked in self.waiting if _is_answer(asked, payload, message, peer, socket)]
        self.requester.datagram_received(payload, peer, socket, now=self.now)
        ended = self.pump(may_end, ErrorReplyReceived, PeerReflects, result=True)
        if len(ended) > 1:
            raise Broken(f"{payload.hex()} ended {len(ended)} requests")
        for asked in ended:
            _check_outcome(asked.request, payload, message)

    def _unreachable(self, peer: Address, quoted: bytes, socket: int) -> None:
        self.tell("ICMP of %s from socket %d: %s", peer, socket, quoted)
        may_end = [asked for asked in _quoted(self.waiting, quoted) if asked.has_left(peer, socket)]
        self.requester.peer_unreachable(peer, "Connection refused", quoted, socket, now=self.now)
        self.pump(may_end, PeerUnreachable)

    def _deadline(self, now: float) -> None:
        self.tell("it is %.3f s", now)
        self.now = now
        self.requester.deadline_reached(now=now)
        over = [asked for asked in self.waiting if asked.deadline <= now]
        ended = self.pump(over, RequestTimedOut, ErrorReplyReceived)
        if any(asked in self.waiting for asked in over):
            raise Broken(f"of {len(over)} requests that are over their deadline, {len(ended)} ended")
        for asked in ended:
            error = asked.request.error
            if isinstance(error, ErrorReplyReceived) and error.code != CODE_BUSY:
                raise Broken(f"{error!r} is given at the deadline")


def _damaged(payload: bytes, damage: int) -> bytes:
    """Return a payload cut short, or with a byte changed, or as it is."""
    if damage & 0x80:
        return payload[: damage & 0x0F]
    if not damage or not payload:
        return payload
    changed = bytearray(payload)
    changed[damage % len(payload)] ^= damage
    return bytes(changed)


def _decoded(payload: bytes) -> Message | None:
    try:
        return _msgpack.decode_untrusted(payload)
    except DecodeError:
        return None


def _is_answer(asked: Asked, payload: bytes, message: Message | None, peer: Address, socket: int) -> bool:
    """Tell whether a datagram may end a request."""
    request = asked.request
    if request.kind is Kind.RAW:
        return payload == request.payload and asked.has_left(peer, socket)
    if not asked.is_asked(peer):
        return False
    if not isinstance(message, Response) or message.msgid != request.msgid:
        return payload == request.payload
    # A server that is too busy is asked again.
    return message.error is None or ErrorReplyReceived.from_untrusted(message.error).code != CODE_BUSY


def _quoted(waiting: list[Asked], quoted: bytes) -> list[Asked]:
    """Return which requests an ICMP error quotes: several in a row, the last perhaps cut short.

    Enough of one is its msgid, or 8 bytes of what has none.
    """
    found: list[Asked] = []
    starts = [0]
    while starts:
        rest = quoted[starts.pop() :]
        for asked in waiting:
            request = asked.request
            if request.kind is Kind.RAW:
                enough = rest == request.payload or len(rest) >= 8
            else:
                enough = _msgpack.peek_msgid_untrusted(rest, TYPE_REQUEST) == request.msgid
            if enough and request.payload.startswith(rest):
                found.append(asked)
            elif enough and request.payload and rest.startswith(request.payload):
                found.append(asked)
                starts.append(len(quoted) - len(rest) + len(request.payload))
    return found


def _check_outcome(request: PendingRequest, payload: bytes, message: Message | None) -> None:
    """Check that a request got what the datagram that ended it says."""
    if payload == request.payload:
        right = isinstance(request.error, PeerReflects) if request.kind is Kind.CALL else request.error is None
        right = right and (request.kind is not Kind.RAW or request.result == payload)
    elif isinstance(message, Response) and message.error is not None:
        right = isinstance(request.error, ErrorReplyReceived)
    else:
        right = isinstance(message, Response) and request.error is None
        right = right and repr(getattr(message, "result", None)) == repr(request.result)
    if not right:
        raise Broken(f"{payload.hex()} gave result {request.result!r}, error {request.error!r}")


def play(data: bytes, tell: Tell = silent) -> None:
    """Play one input to a new client."""
    Play(Source(data), tell).run()
