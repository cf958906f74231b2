"""Probes to one address from a port of its own, and a record of all that came of them.

Theory of operation: an :class:`Exchange` is a protocol on a port that is bound to all addresses, so that an answer from
an address that was not asked is seen as well. A probe carries 64 random bits: an answer that has them is one, wherever
it comes from, and an ICMP error that quotes them is about this probe. Whatever comes is noted with its time; what it
means is judged later, from the notes alone.
"""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from .._alarm import steady_clock
from ..errors import DecodeError
from ..probing import ProbeTable, ProbeWire
from ..transport import BroadcastNotAllowed, listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from ..address import Address
    from ..interfaces import Unreachable

__all__ = ["MOST_NOTES", "Came", "Exchange", "Sent", "Told"]

MOST_NOTES: Final = 2000
"""Notes of each kind: more than the largest test sends, so that a flood from elsewhere takes no memory."""

_SHOWN: Final = 32
"""Bytes of a foreign datagram that are kept, to be shown."""
_LEAST_QUOTE: Final = 32  # bytes of a probe that hold its session and sequence number
_WINDOW: Final = 4096
_SECOND_NS: Final = 1_000_000_000


class Sent(NamedTuple):
    """A probe that the kernel took."""

    at: float
    """Seconds since the exchange began."""
    sequence: int
    ttl: int
    """Hops that it was given; 0 where that was left as it is."""


class Came(NamedTuple):
    """A datagram that came."""

    at: float
    peer: Address
    kind: str
    """``reply``, ``duplicate``, ``late``: an answer from the address that was asked; ``stranger``: one from another
    address; ``other``: a datagram that is no answer to a probe."""
    size: int
    protocol: str
    """``echo`` or ``rpc``, of an answer."""
    rtt: float
    """Seconds; -1 where it is no answer."""
    head: bytes
    """How it begins, where it is no answer."""
    sequence: int = -1
    """The probe that it answers."""


class Told(NamedTuple):
    """An ICMP error, or the own kernel's word that there is no route."""

    at: float
    peer: Address
    """Where the datagram was sent that it is about."""
    reason: Unreachable
    sequence: int
    """The probe that it quotes; -1 where it quotes none."""
    short: bool
    """Whether it quotes too little to tell, as old routers do (RFC 792: eight bytes, the UDP header)."""


class Exchange(DatagramProtocol):  # budget: its notes are what it is for
    """Probes of one size to one address.

    Args:
        reactor: The reactor.
        peer: Whom to ask.
        size: Bytes of a probe.
        receive_buffer: Bytes for what is not yet read; None leaves it to the port.

    Attributes:
        peer: As given.
        table: What became of each probe.
        sent: The probes that the kernel took.
        came: What came.
        told: ICMP errors, and missing routes.
        broadcast: Whether the own kernel says that the address is a broadcast address.
        knock_errors: What the own kernel said of :meth:`knock`, by errno: nothing of the peer's port.
        port: The port, while it listens.
    """

    noisy = False

    def __init__(self, reactor: Any, peer: Address, size: int, *, receive_buffer: int | None = None) -> None:
        self.peer = peer
        self.table = ProbeTable(
            ProbeWire(secrets.randbits(64), size, secrets.token_bytes(size)), timeout_ns=2 * _SECOND_NS, window=_WINDOW
        )
        self.sent: list[Sent] = []
        self.came: list[Came] = []
        self.told: list[Told] = []
        self.broadcast = False
        self.knock_errors: dict[int, int] = {}
        self.port: Any = None
        self.where: Address = ("", 0)
        self._reactor = reactor
        self._clock = steady_clock(reactor)
        self._began = 0.0
        self._receive_buffer = receive_buffer
        self._waiting: _Waiting | None = None

    # Life

    def open(self) -> None:
        """Bind a port of the peer's address family.

        Raises:
            twisted.internet.error.CannotListenError: There is none to be had.
        """
        interface = "::" if ":" in self.peer[0] else ""
        self.port = listen(self._reactor, 0, self, interface, receive_buffer=self._receive_buffer, return_path=False)
        self.where = self.port.getHost().host, self.port.getHost().port
        self._began = self._clock()

    async def close(self) -> None:
        """Give the port back; its counters stay readable."""
        if self.port is not None:
            await self.port.stopListening()

    @property
    def is_real(self) -> bool:
        """Whether its port is a socket's, and not a simulated network's."""
        return self._handle() is not None

    def now(self) -> float:
        """Return the seconds since it began."""
        return self._clock() - self._began

    # Sending

    def send(self, *, ttl: int = 0) -> None:
        """Send the next probe.

        Args:
            ttl: Hops that it and those after it may take; 0 changes nothing.
        """
        sequence, datagram, _ = self.table.next_probe(now_ns=self._now_ns())
        failed = sum(self.port.stats.send_errors.values())
        try:
            self._limit_hops(ttl)
            self.port.write(datagram, self.peer)
        except BroadcastNotAllowed:
            self.broadcast = True
        else:
            if sum(self.port.stats.send_errors.values()) == failed:
                self._note(self.sent, Sent(self.now(), sequence, ttl))
                return
        self.table.probe_not_sent(sequence, "")

    def knock(self, port: int) -> None:
        """Send one empty datagram to another port of the same host: where nobody listens, a host that is up says so."""
        before = dict(self.port.stats.send_errors)
        self.port.write(b"", (self.peer[0], port))
        after = self.port.stats.send_errors
        self.knock_errors = {number: count - before.get(number, 0) for number, count in after.items()}

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> Deferred[None]:
        """Return a Deferred that fires with None when so much time has passed, or earlier, when it is enough.

        Args:
            seconds: How long at most.
            enough: Looked at now and whenever something came.
        """
        done: Deferred[None] = Deferred(lambda _: waiting.end())
        waiting = self._waiting = _Waiting(done, enough)
        waiting.timer = self._reactor.callLater(max(seconds, 0.0), self._fire)
        self._look()
        return done

    # Inputs

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note what came."""
        peer = (addr[0], addr[1])
        if peer == self.peer:
            event = self.table.reply_received_untrusted(datagram, arrived_ns=self._now_ns())
            kind, rtt, sequence = event.kind, event.rtt_ns / _SECOND_NS, event.sequence
            if kind not in ("reply", "duplicate", "late"):
                kind, rtt = "other", -1.0
        else:
            kind, rtt, sequence = self._of_stranger_untrusted(datagram), -1.0, -1
        head = datagram[:_SHOWN] if kind == "other" else b""
        protocol = "echo" if datagram[1:2] == b"\0" else "rpc"
        self._note(self.came, Came(self.now(), peer, kind, len(datagram), protocol, rtt, head, sequence))
        self._look()

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Note what a router, the peer or the own kernel says."""
        sequence = self.table.wire.quoted_sequence_untrusted(quoted)
        if not 0 <= sequence < self.table.next_sequence:
            sequence = -1
        short = sequence < 0 and len(quoted) < _LEAST_QUOTE
        self._note(self.told, Told(self.now(), (peer[0], peer[1]), reason, sequence, short))
        self._look()

    # Outputs

    def answers(self) -> list[Came]:
        """Return the answers from the address that was asked."""
        return [came for came in self.came if came.kind in ("reply", "duplicate", "late")]

    def dropped(self) -> int:
        """Return how many datagrams the own kernel has dropped because the receive buffer was full."""
        return int(self.port.stats.dropped_by_kernel)

    def _of_stranger_untrusted(self, datagram: bytes) -> str:
        try:
            reply = self.table.wire.decode_untrusted(datagram)
        except DecodeError:
            return "other"
        return "stranger" if reply.sequence < self.table.next_sequence and not reply.error else "other"

    def _note(self, notes: list[Any], note: object) -> None:
        if len(notes) < MOST_NOTES:
            notes.append(note)

    def _limit_hops(self, hops: int) -> None:
        """Set the hops that datagrams may take from now on; 0 changes nothing."""
        handle = self._handle() if hops else None
        if handle is None:
            return
        if handle.family == socket.AF_INET6:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        else:
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)

    def _handle(self) -> socket.socket | None:
        handle = getattr(self.port, "getHandle", lambda: None)()
        return handle if isinstance(handle, socket.socket) else None

    def _now_ns(self) -> int:
        return int(self._clock() * _SECOND_NS)

    def _look(self) -> None:
        if self._waiting is not None and self._waiting.enough():
            self._fire()

    def _fire(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.end()
            if not waiting.done.called:
                waiting.done.callback(None)


class _Waiting:
    """Somebody who waits."""

    def __init__(self, done: Deferred[None], enough: Callable[[], bool]) -> None:
        self.done = done
        self.enough = enough
        self.timer: IDelayedCall | None = None

    def end(self) -> None:
        """Leave nothing in the reactor."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
