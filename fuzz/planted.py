"""Bugs put into the package on purpose, to see that each target finds what it is there to find.

Theory of operation: a plant replaces a public function in its process, if the variable ``TWISTEDUDP_FUZZ_PLANT`` of the
fuzzer's process or a test asks for it. ``regressions/`` has an input for each plant, by which the unit tests show that
the target's invariant sees it; for some another test shows that a short run of the fuzzer comes upon it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twistedudp import _msgpack, address
from twistedudp.core import Requester, Responder
from twistedudp.dtls import DTLSEndpoint
from twistedudp.dtls._cookies import CookieJar
from twistedudp.dtls._listener import Listener
from twistedudp.errors import DecodeError
from twistedudp.messages import TYPE_RESPONSE, Response
from twistedudp.probing import ProbeReply, ProbeTable, ProbeWire
from twistedudp.protocol import RPCServerProtocol

from . import client_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twistedudp.address import Address
    from twistedudp.core import PendingRequest
    from twistedudp.messages import Message
    from twistedudp.probing import ProbeEvent

__all__ = ["PLANTS", "Plant", "plant", "planted"]


class Plant(NamedTuple):
    """One bug."""

    target: str
    """The name of the target that finds it."""
    fault: str
    """What is wrong, in one line."""
    owner: object
    """Where the function is."""
    name: str
    """What it is called there."""
    make: Callable[[Any], Callable[..., Any]]
    """Takes the function and returns the one with the bug."""


def _leaks_index_error(original: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    def decode_untrusted(payload: bytes) -> Message:
        message = original(payload)
        if isinstance(message, Response) and type(message.error) is int:
            raise IndexError("list index out of range")
        return message

    return decode_untrusted


def _loses_high_bits(original: Callable[[bytes, int], int | None]) -> Callable[[bytes, int], int | None]:
    def peek_msgid_untrusted(payload: bytes, kind: int) -> int | None:
        msgid = original(payload, kind)
        return None if msgid is None else msgid & 0xFFFF

    return peek_msgid_untrusted


def _answers_responses(original: Callable[..., None]) -> Callable[..., None]:
    def datagramReceived(self: RPCServerProtocol, datagram: bytes, addr: Address) -> None:
        original(self, datagram, addr)
        if _msgpack.peek_msgid_untrusted(datagram, TYPE_RESPONSE) is not None and self.transport is not None:
            self.transport.write(datagram, addr)

    return datagramReceived


def _forgets_requests(original: Callable[..., None]) -> Callable[..., None]:
    later = 0.0

    def datagram_received(self: Responder, payload: bytes, peer: Address, *, now: float) -> None:
        nonlocal later
        later += 60.0
        original(self, payload, peer, now=now + later)

    return datagram_received


def _answers_with_wrong_peer(original: Callable[..., Any]) -> Callable[..., Any]:
    def events(self: Responder) -> Any:
        received = original(self)
        for incoming in received:
            if incoming.peer[0] == "127.0.0.2":
                incoming.peer = ("127.0.0.1", incoming.peer[1])
        return received

    return events


def _takes_any_peer(original: Callable[..., None]) -> Callable[..., None]:
    def datagram_received(self: Requester, payload: bytes, _: Address, socket: int = 0, *, now: float) -> None:
        original(self, payload, client_input.FIRST, socket, now=now)

    return datagram_received


def _ends_twice(original: Callable[..., list[PendingRequest]]) -> Callable[..., list[PendingRequest]]:
    def events(self: Requester) -> list[PendingRequest]:
        return [event for event in original(self) for _ in range(2 if event.busy else 1)]

    return events


def _takes_any_quote(original: Callable[..., None]) -> Callable[..., None]:
    def peer_unreachable(
        self: Requester, peer: Address, reason: str, quoted: bytes, socket: int = 0, *, now: float
    ) -> None:
        original(self, client_input.FIRST if peer == client_input.OTHER_PORT else peer, reason, quoted, socket, now=now)

    return peer_unreachable


def _raises_index_error(original: Callable[[str, int], Address]) -> Callable[[str, int], Address]:
    def parse_host_port(text: str, default_port: int) -> Address:
        host, port = original(text, default_port)
        if text.count(":") == 1 and len(text.partition(":")[2]) == 3 and port < 500:
            raise IndexError("string index out of range")
        return host, port

    return parse_host_port


def _believes_damage(original: Callable[[ProbeWire, bytes], ProbeReply]) -> Callable[[ProbeWire, bytes], ProbeReply]:
    def decode_untrusted(self: ProbeWire, datagram: bytes) -> ProbeReply:
        try:
            return original(self, datagram)
        except DecodeError:
            if len(datagram) == self.size and datagram[44:] == self.encode(0, 0)[44:]:
                return ProbeReply(int.from_bytes(datagram[28:32], "big"), -1, None)
            raise

    return decode_untrusted


def _forgets_late_ones(original: Callable[..., ProbeEvent]) -> Callable[..., ProbeEvent]:
    def reply_received_untrusted(self: ProbeTable, datagram: bytes, *, arrived_ns: int) -> ProbeEvent:
        event = original(self, datagram, arrived_ns=arrived_ns)
        if event.kind == "late":
            self.lost -= 1
        return event

    return reply_received_untrusted


def _believes_any_cookie(original: Callable[..., bool]) -> Callable[..., bool]:
    def verifies(self: CookieJar, cookie: bytes, peer: Address, random: bytes, *, now: float) -> bool:
        return original(self, cookie, peer, random, now=now) or len(cookie) == 32

    return verifies


def _ends_sessions(original: Callable[..., Any]) -> Callable[..., Any]:
    def _greet(self: DTLSEndpoint, session: Any, shaking: Any, hello: bytes, *rest: Any) -> Any:
        if session is not None and session.random != hello[27:59]:
            self._end(session, "replaced")
            session = None
        return original(self, session, shaking, hello, *rest)

    return _greet


def _verifies_twice(original: Callable[..., None]) -> Callable[..., None]:
    def _answer(self: Listener, connection: Any, address: Address, answer: Callable[[bytes, Address], None]) -> None:
        def twice(request: bytes, peer: Address) -> None:
            answer(request, peer)
            answer(request, peer)

        original(self, connection, address, twice)

    return _answer


PLANTS: Final = {
    "leaks-index-error": Plant(
        "codec", "an error that is a number raises IndexError", _msgpack, "decode_untrusted", _leaks_index_error
    ),
    "loses-high-bits": Plant("codec", "a msgid is cut to 16 bits", _msgpack, "peek_msgid_untrusted", _loses_high_bits),
    "answers-responses": Plant(
        "server_input", "responses are answered", RPCServerProtocol, "datagramReceived", _answers_responses
    ),
    "forgets-requests": Plant("server_input", "repeats run again", Responder, "datagram_received", _forgets_requests),
    "wrong-peer": Plant("server_input", "responses go to another host", Responder, "events", _answers_with_wrong_peer),
    "takes-any-peer": Plant(
        "client_input", "anybody's response counts", Requester, "datagram_received", _takes_any_peer
    ),
    "ends-twice": Plant(
        "client_input", "a request that a busy server answers ends twice", Requester, "events", _ends_twice
    ),
    "takes-any-quote": Plant(
        "client_input", "ICMP errors of others count", Requester, "peer_unreachable", _takes_any_quote
    ),
    "believes-any-cookie": Plant(
        "dtls_input", "a forged cookie begins a handshake", CookieJar, "verifies", _believes_any_cookie
    ),
    "ends-sessions": Plant(
        "dtls_input", "a ClientHello in a peer's name ends its session", DTLSEndpoint, "_greet", _ends_sessions
    ),
    "verifies-twice": Plant("dtls_input", "each ClientHello has two answers", Listener, "_answer", _verifies_twice),
    "believes-damage": Plant(
        "probe_input", "a changed answer counts as intact", ProbeWire, "decode_untrusted", _believes_damage
    ),
    "forgets-late-ones": Plant(
        "probe_input", "a late answer is lost no more", ProbeTable, "reply_received_untrusted", _forgets_late_ones
    ),
    "raises-index-error": Plant(
        "text_input", "some ports of three digits raise IndexError", address, "parse_host_port", _raises_index_error
    ),
}


def plant(name: str) -> None:
    """Put a bug into the package, for the rest of this process."""
    bug = PLANTS[name]
    setattr(bug.owner, bug.name, bug.make(getattr(bug.owner, bug.name)))


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Put a bug into the package for a while."""
    bug = PLANTS[name]
    original = getattr(bug.owner, bug.name)
    plant(name)
    try:
        yield
    finally:
        setattr(bug.owner, bug.name, original)
