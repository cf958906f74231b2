"""A requester with a clock that the test moves, and an owner that follows the driving contract."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

from twistedudp._msgpack import encode_response
from twistedudp.core import Kind, Requester

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twistedudp.address import Address
    from twistedudp.core import PendingRequest, RequesterSettings, Transmit
    from twistedudp.errors import TwistedUDPError

FIRST: Final = ("127.0.0.1", 10000)
SECOND: Final = ("::1", 10000)
THIRD: Final = ("127.0.0.3", 10000)
STRANGER: Final = ("127.0.0.66", 10000)

START: Final = 1000.0
REFUSED: Final = "Connection refused"


def held(requester: Requester) -> dict[str, int]:
    """Return how many entries each of a requester's tables has; the one place that knows their names."""
    dispatch = requester._dispatch
    return {
        "requests": len(requester),
        "echoes": len(requester._echoes),
        "deadlines": len(dispatch.deadlines),
        "queue": sum(not request.done for request in dispatch.queue),
        "notifications": len(requester._notifications),
        "retry sockets": dispatch._retry_sockets,
    }


class Client:
    """The owner of a requester.

    Args:
        servers: The addresses that are known from the beginning; none leaves the name unresolved.
        jitter: What the random numbers are, all of them.
        settings: The requester's.
        msgids: Where its message ids come from; 1, 2, 3 ... if not told.
    """

    def __init__(
        self,
        *servers: Address,
        jitter: float = 0.0,
        settings: RequesterSettings | None = None,
        msgids: Iterator[int] | None = None,
    ) -> None:
        self.now = START
        self.jitter = jitter
        self.requester = Requester(msgids=msgids or count(1), random=lambda: self.jitter, settings=settings)
        if servers:
            self.resolve(*servers)

    def resolve(self, *servers: Address) -> None:
        """Let the resolver answer."""
        self.requester.servers_resolved(servers, now=self.now)

    def call(
        self, *params: object, timeout: float = 2.0, kind: Kind = Kind.CALL, idempotent: bool = False
    ) -> PendingRequest:
        """Call the method ``m``."""
        return self.requester.send_request("m", params, timeout=timeout, now=self.now, kind=kind, idempotent=idempotent)

    def echo(self, payload: bytes, timeout: float = 2.0) -> PendingRequest:
        """Send a raw echo."""
        return self.requester.send_echo(payload, timeout=timeout, now=self.now)

    def cancel(self, request: PendingRequest) -> None:
        """Cancel a request."""
        self.requester.cancel(request, now=self.now)

    def sent(self) -> list[Transmit]:
        """Take what is to be sent."""
        return self.requester.transmits()

    def asked(self) -> list[Address]:
        """Take what is to be sent, and return only where it goes."""
        return [transmit.peer for transmit in self.sent()]

    def receive(self, payload: bytes, peer: Address = FIRST, socket: int = 0) -> None:
        """Let a datagram come in."""
        self.requester.datagram_received(payload, peer, socket, now=self.now)

    def answer(self, request: PendingRequest, result: object = "ok", peer: Address = FIRST, after: float = 0.0) -> None:
        """Let the server answer a request some seconds later."""
        self.now += after
        self.receive(encode_response(request.msgid, None, result), peer)

    def refuse(
        self, request: PendingRequest, peer: Address = FIRST, quoted: int = 65535, socket: int | None = None
    ) -> None:
        """Let an ICMP error come in that quotes the first bytes of a request."""
        self.requester.peer_unreachable(
            peer, REFUSED, request.payload[:quoted], request.socket if socket is None else socket, now=self.now
        )

    def refuse_bytes(self, quoted: bytes, peer: Address = FIRST) -> None:
        """Let an ICMP error come in that quotes any bytes from the usual socket."""
        self.requester.peer_unreachable(peer, REFUSED, quoted, now=self.now)

    def run(self, seconds: float) -> list[tuple[float, Transmit]]:
        """Let time pass, and return what was sent with the seconds after which it was."""
        started = self.now
        sent = [(0.0, transmit) for transmit in self.sent()]
        while (due := self.requester.next_deadline()) is not None and due <= started + seconds:
            self.now = due
            self.requester.deadline_reached(now=due)
            sent += [(due - started, transmit) for transmit in self.sent()]
        self.now = started + seconds
        return sent

    def outcome(self) -> PendingRequest:
        """Take the one event that there must be."""
        [request] = self.requester.events()
        return request

    def error(self) -> TwistedUDPError:
        """Take the one event that there must be, which must be a failure."""
        error = self.outcome().error
        assert error is not None
        return error

    def result(self) -> object:
        """Take the one event that there must be, which must be a success."""
        request = self.outcome()
        assert request.error is None, request.error
        return request.result

    @property
    def rejected(self) -> dict[str, int]:
        """The datagrams that were dropped, by reason."""
        return dict(self.requester.stats.rejected)

    @property
    def is_idle(self) -> bool:
        """Whether no table has anything in it any more and nothing is to be done ever."""
        requester = self.requester
        return (
            requester.next_deadline() is None
            and requester.transmits() == []
            and requester.events() == []
            and not any(held(requester).values())
            and all(peer.in_flight == 0 for peer in requester.stats.peers)
        )
