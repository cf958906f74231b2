"""When a request leaves, where to, and from which local socket.

Theory of operation: a request is *submitted* once. It leaves at once if the window of its server has room; else, or
while no address is known, it joins one queue, in order, where its deadline runs. Whatever makes room (an answer, a
failure, a cancel, a new address) is followed by :meth:`Dispatch.drain`. A request that is under way counts in the
window of the server that it was last sent to; its retransmissions need no room of their own. One that a busy server has
put off leaves the window meanwhile, so that what others ask for can go by, and needs room again when it comes back, for
which it waits at the head of the queue.

All due times stand in one :class:`DeadlineQueue`. A queued request is due at its deadline, one under way when it is to
be sent again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from ..errors import CircuitOpen, DatagramTooLarge, PeerUnreachable
from ._deadlines import DeadlineQueue
from ._pending import Kind
from ._transmit import Transmit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address
    from ..errors import TwistedUDPError
    from ._pending import PendingRequest, RequesterStats
    from ._servers import Server, ServerList
    from ._settings import RequesterSettings

__all__ = ["FIRST_RETRY_SOCKET", "Dispatch"]

_JITTER: Final = 0.5
"""The first timeout is stretched by up to this part of it (RFC 7252's ACK_RANDOM_FACTOR 1.5), so that clients which
lost their datagrams together do not repeat them together."""

FIRST_RETRY_SOCKET: Final = 1 << 16
"""Sockets below are those of raw echoes; each retransmission that wants a socket of its own takes the next number."""

_RAW: Final = Kind.RAW  # a look at an enumeration's class takes longer than one at this
_MIN_REBUILD: Final = 1024  # entries of the queue; below this, sweeping it would save nothing


class Dispatch:  # budget: what is to be sent, whereto and when, at hand without a further look
    """The servers, the queue before them, and what is to be sent.

    Args:
        waiting: The waiting requests by msgid, the owner's own table.
        servers: The servers' addresses.
        settings: Those of the requester.
        stats: Its counters.
        random: Returns a float in [0, 1) for the jitter.
        fail: Called with a request that cannot be sent, and why.

    Attributes:
        servers: The known addresses.
        deadlines: When something is due for which request.
        queue: The requests that wait for their turn, and some that have ended.
        datagrams: What is to be sent, in order, with its peers, if all of it leaves from the usual socket: plain pairs,
            since one is made for every request and they leave together.
        transmits: What is to be sent, in order, if not.
        unused_sockets: The local sockets that no request needs any more.
    """

    def __init__(
        self,
        waiting: dict[int, PendingRequest],
        servers: ServerList,
        settings: RequesterSettings,
        stats: RequesterStats,
        *,
        random: Callable[[], float],
        fail: Callable[[PendingRequest, TwistedUDPError], None],
    ) -> None:
        self.servers = servers
        self.deadlines = DeadlineQueue(waiting)
        self.datagrams: list[tuple[bytes, Address]] = []
        self.transmits: list[Transmit] = []
        self.unused_sockets: list[int] = []
        self._settings = settings
        self._max_timeout = settings.policy.max_timeout
        self._random = random
        self._stats = stats
        self._fail = fail
        self.queue: deque[PendingRequest] = deque()
        self._waiting = waiting
        self._retry_sockets = 0
        self._next_retry_socket = FIRST_RETRY_SOCKET

    def submit(self, request: PendingRequest, now: float) -> None:
        """Take a new request: transmit it if there is room for it, or let it wait for its turn.

        Raises:
            CircuitOpen: No server answers at present.
            DatagramTooLarge: The address family of its server does not carry so much.
        """
        server = self.servers.choose(now)
        if server is None:
            if len(self.servers):
                self._stats.suspended += 1
                raise self._circuit_open(now)
        elif len(request.payload) > server.max_payload:
            raise DatagramTooLarge(len(request.payload), server.max_payload)
        self._stats.requests += 1
        self._waiting[request.msgid] = request
        if server is not None:
            window = server.window
            if window.in_flight + 1 <= window.size and not self.queue:
                self._start(request, server, now)
                return
            self._stats.queued += 1
        self._wait(request)

    def _wait(self, request: PendingRequest) -> None:
        self.queue.append(request)
        if len(self.queue) > _MIN_REBUILD and len(self.queue) > 2 * len(self._waiting):
            self.queue = deque(queued for queued in self.queue if not queued.done)
        self.deadlines.add(request)

    def _start(self, request: PendingRequest, server: Server, now: float) -> None:
        """Transmit a request to its first server, or to the first that it has moved to."""
        if server.breaker.is_open:
            server.breaker.let_through(now)
        if request.attempts:  # it was refused elsewhere or put off, and goes on where its schedule was
            self._stats.retransmitted += request.put_off
            self.transmit(request, server, now, request.interval)
            return
        first = server.round_trip.timeout
        if first is None:
            first = server.round_trip.first_timeout(request.deadline - now)
        request.interval = first
        wait, most = first * (1 + _JITTER * self._random()), self._max_timeout
        due = now + (wait if wait < most else most)  # noqa: FURB136  # min() takes twice as long
        # What transmit() does, less all that only a request can need which was transmitted before.
        request.server = server
        request.asked = server.alone
        request.is_sample = True
        request.attempts = 1
        request.sent = now
        if due < request.deadline:
            request.due = due
        server.window.in_flight += 1
        self.deadlines.add(request)
        self._stats.transmitted += 1
        self._send(request.payload, server.address, request.socket)

    def drain(self, now: float) -> None:
        """Transmit the queued requests for which there is room now; fail them where no server answers."""
        queue = self.queue
        while queue:
            request = queue[0]
            if not request.done:
                if not len(self.servers):
                    return
                server = request.server if request.put_off else self.servers.choose(now)
                if server is None:
                    self._stats.suspended += 1
                    self._fail(request, self._circuit_open(now))
                elif server.window.is_full():
                    return
                elif len(request.payload) > server.max_payload:
                    self._too_large(request, server)
                else:
                    self._start(request, server, now)
            queue.popleft()

    def clear(self) -> None:
        """Forget the queue, all of whose requests have ended."""
        self.queue.clear()

    def retransmit(self, request: PendingRequest, now: float) -> None:
        """Transmit a request again, with twice the last interval to follow."""
        server = request.server
        assert server is not None  # noqa: S101  # while it is queued, nothing but its deadline is due
        if request.put_off:  # it was answered, so that nothing is lost
            if server.window.is_full():
                self._queue_first(request)
                return
        else:
            server.window.timed_out(request.sent, now)
            request.interval = min(2 * request.interval, self._settings.policy.max_timeout)
        self._stats.retransmitted += 1
        if request.idempotent:
            avoid = () if self._settings.retry_refused else request.refused
            other = self.servers.after(server, len(request.payload), avoid)
            if other is not None and not other.window.is_full():
                server = other
            if request.kind is not _RAW:  # which is known by its socket
                self._change_socket(request)
        self.transmit(request, server, now, request.interval)

    def move(self, request: PendingRequest, server: Server, now: float) -> None:
        """Transmit a request that was refused to another server, or let it wait for its turn there, before others."""
        if not server.window.is_full():
            self.transmit(request, server, now, request.interval)
            return
        self._leave_window(request)
        request.server = None
        self._queue_first(request)

    def leave(self, address: Address, error: TwistedUDPError | None) -> None:
        """Have the requests at an address wait for another, before others; those that may have run there alone fail.

        With no error to fail with, they stay.
        """
        there = [request for request in self._waiting.values() if request.server and request.server.address == address]
        for request in reversed(there):
            # It was sent once, and the answer was that it is not run, or that it was not delivered.
            has_not_run = request.attempts == 1 and (request.busy is not None or address in request.refused)
            if request.idempotent or has_not_run:
                self._leave_window(request)
                request.server = None
                self._queue_first(request)
        for request in there:
            if request.server is not None and error is not None:
                self._stats.failed += 1
                self._fail(request, error)

    def postpone(self, request: PendingRequest, retry_after: float | None, now: float) -> bool:
        """Learn that a server was too busy to run a request, and when it wants to be asked again, if it said so.

        The request is then sent again at that time and not before, or up to half of it later, so that those who were
        put off together do not come back together; where there is another server to be asked, it goes there at its own
        time. No hint makes it leave sooner than a retransmission may, and each answer brings one try more at most.

        Returns:
            Whether there is anything to wait for: if the time lies beyond the deadline, nothing would be sent before.
        """
        server = request.server
        if retry_after is None or server is None or request.put_off:
            return True
        if request.idempotent and self.servers.after(server, len(request.payload), request.asked) is not None:
            return True
        wait = max(retry_after, self._settings.policy.min_timeout)
        left = request.deadline - now - wait
        if left <= 0:
            if not request.idempotent or request.attempts == 1:
                return False
            due = request.deadline  # another copy may have been let in, by another server perhaps
        else:
            due = request.deadline - left + min(_JITTER * wait, left) * self._random()
        self._leave_window(request)
        request.put_off = True
        request.due = due
        self.deadlines.add(request)
        return True

    def _queue_first(self, request: PendingRequest) -> None:
        """Let a request that has been transmitted wait for its turn, before others."""
        self._stats.queued += 1
        self.queue.appendleft(request)
        request.due = request.deadline
        self.deadlines.add(request)

    def _leave_window(self, request: PendingRequest) -> None:
        """Make room where a request was last sent to."""
        assert request.server is not None  # noqa: S101  # it has been transmitted
        if not request.put_off:
            request.server.window.in_flight -= 1
        request.put_off = False

    def transmit(self, request: PendingRequest, server: Server, now: float, wait: float) -> None:
        """Transmit a request to a server that carries its size, and look at it again after ``wait`` seconds."""
        if server is not request.server:
            if request.server is not None:
                self._leave_window(request)
            request.is_sample = server.address not in request.asked
            if request.is_sample:
                request.asked += server.alone
            request.server = server
            server.window.in_flight += 1
        else:
            request.is_sample = False  # which of them an answer is to cannot be known (Karn)
            server.window.in_flight += request.put_off
            request.put_off = False
        request.attempts += 1
        request.sent = now
        due = now + wait
        request.due = due if due < request.deadline else request.deadline  # noqa: FURB136  # as above
        self.deadlines.add(request)
        if request.proof is not None and request.proof[0] == server.address:
            self._stats.transmitted += 1
            self._send(request.proof[1], server.address, request.socket)
        self._stats.transmitted += 1
        self._send(request.payload, server.address, request.socket)

    def take_transmits(self) -> list[Transmit]:
        """Return all that is to be sent, in order, and forget it."""
        transmits = self.transmits or [Transmit(payload, peer) for payload, peer in self.datagrams]
        self.transmits, self.datagrams = [], []
        return transmits

    def _send(self, payload: bytes, peer: Address, socket: int) -> None:
        if socket or self.transmits:
            if self.datagrams:  # they come first
                self.transmits = self.take_transmits()
            self.transmits.append(Transmit(payload, peer, socket))
        else:
            self.datagrams.append((payload, peer))

    def notify(self, payload: bytes, server: Server) -> None:
        """Transmit a notification, of which nothing is heard again.

        It is dropped while the server does not answer calls, and if its address family does not carry so much.
        """
        if server.breaker.is_open or len(payload) > server.max_payload:
            self._stats.notifications_dropped += 1
            return
        self._stats.transmitted += 1
        self._send(payload, server.address, 0)

    def ended(self, request: PendingRequest) -> None:
        """Learn that a request has an outcome; what it held is free."""
        server = request.server
        if server is not None and not request.put_off:
            server.window.in_flight -= 1
        if request.retry_sockets:
            self._retry_sockets -= len(request.retry_sockets)
            self.unused_sockets += request.retry_sockets

    def heard(self, request: PendingRequest, peer: Address, now: float) -> None:
        """Learn from an answer which server lives and how far away it is."""
        server = request.server
        if server is None or server.address != peer:
            server = self.servers.at(peer)
            if server is None:
                return
        self.servers.answered(server, now)
        window = server.window
        if not window.fixed:
            window.answered()
        if request.is_sample and server is request.server:
            server.round_trip.sampled(now - request.sent)
        else:
            server.round_trip.answered_late(request.interval, now - request.sent)

    def refused(self, request: PendingRequest, server: Server, reason: str, now: float) -> None:
        """Learn that a server refused a request: it moves on to one that has not been tried, or fails."""
        self._stats.refused += 1
        request.refused |= {server.address}
        self.servers.failed(server)
        is_free = request.idempotent or request.attempts == len(request.refused)  # otherwise it may have run there
        other = self.servers.after(server, len(request.payload), request.refused) if is_free else None
        if other is not None:
            self.move(request, other, now)
        elif not self._settings.retry_refused:
            self._fail(request, PeerUnreachable(server.address, reason))

    def ran_out(self, request: PendingRequest, now: float) -> None:
        """Learn that a request's deadline has come without an answer, or with nothing but ``busy``."""
        server = request.server
        if server is None:
            return
        self.servers.failed(server)
        if request.attempts == 1:  # otherwise its retransmissions have told
            server.window.timed_out(request.sent, now)
        for peer in () if request.busy else request.asked:
            asked = self.servers.at(peer)
            if asked is not None and asked.heard <= request.started:  # it was silent for the call's whole time
                asked.breaker.ran_out(now)

    def _too_large(self, request: PendingRequest, server: Server) -> None:
        self._stats.failed += 1
        self._fail(request, DatagramTooLarge(len(request.payload), server.max_payload))

    def _change_socket(self, request: PendingRequest) -> None:
        if self._retry_sockets >= self._settings.max_retry_ports:
            self._stats.retry_ports_short += 1
            return
        self._retry_sockets += 1
        request.socket = self._next_retry_socket
        request.retry_sockets += (request.socket,)
        self._next_retry_socket += 1

    def _circuit_open(self, now: float) -> CircuitOpen:
        return CircuitOpen([peer.address for peer in self.servers.stats], self.servers.retry_in(now))
