"""The client's half of the protocol: requests, their outcomes, and what counts as their answer.

Theory of operation: the driving contract of :mod:`twistedudp.core`. A request is in the table from its command until
it has an outcome: a result, an error, or the caller's cancel. When it leaves, and where to, is
:mod:`twistedudp.core._dispatch`'s matter. Its answer must come from an address that it was sent to and carry its msgid;
everything else is counted and dropped. A retransmission has the same bytes and leaves from the same socket to the same
address, so that a server can recognise it; those of idempotent requests leave from a fresh socket and go round the
servers instead. An ICMP error that quotes a request moves it on to an address that has not been tried, or fails it if
there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._msgpack import decode_untrusted, encode_notification, encode_request, peek_msgid_untrusted
from .._scalars import scalar_response_untrusted
from ..errors import DatagramTooLarge, DecodeError, ErrorReplyReceived, PeerReflects, RequestAborted, TooManyRequests
from ..messages import CODE_BUSY, CODE_UNPROVEN_ADDRESS, TYPE_RESPONSE, Request, Response
from ._dispatch import Dispatch
from ._echoes import EchoTable
from ._notifications import NotificationQueue
from ._pending import Kind, PendingRequest, RequesterStats
from ._proofs import prove_untrusted
from ._quotes import quoted_requests_untrusted
from ._recent import RecentRequests
from ._servers import ServerList
from ._sessions import SessionRequests
from ._settings import SAFE_PAYLOAD, RequesterSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..address import Address
    from ..errors import TwistedUDPError
    from ._transmit import Transmit

__all__ = ["Requester"]

# A look at an enumeration's class takes longer than one at these.
_CALL: Final = Kind.CALL
_ECHO: Final = Kind.ECHO
_RAW: Final = Kind.RAW


class Requester(SessionRequests):  # budget: the parts of one table, at hand without a further look
    """The table of requests that wait for their responses.

    Args:
        msgids: Where message ids come from, see :func:`message_ids`.
        random: Returns a float in [0, 1) for the jitter.
        settings: See there.
    """

    def __init__(
        self, *, msgids: Iterator[int], random: Callable[[], float], settings: RequesterSettings | None = None
    ) -> None:
        self.settings = settings or RequesterSettings()
        self._servers = ServerList(self.settings)
        self.stats = RequesterStats(self._servers)
        self._largest = min(self.settings.max_datagram_size, self.settings.max_payload)
        self._unchecked_size = min(SAFE_PAYLOAD, self._largest)
        self._msgids = msgids
        self._waiting: dict[int, PendingRequest] = {}
        self._recent = RecentRequests()
        self._echoes = EchoTable(self.settings.max_payload)
        self._dispatch = Dispatch(
            self._waiting, self._servers, self.settings, self.stats, random=random, fail=self._fail
        )
        self._notifications = NotificationQueue(
            self.settings.max_queued_notifications, self._servers, self._dispatch, self.stats
        )
        self._completed: list[PendingRequest] = []

    def __len__(self) -> int:
        """Return how many requests are waiting."""
        return len(self._waiting)

    # Commands

    def send_request(
        self,
        method: str,
        params: Sequence[object],
        *,
        timeout: float,
        now: float,
        kind: Kind = _CALL,
        idempotent: bool = False,
    ) -> PendingRequest:
        """Call a method.

        Args:
            method: Its name.
            params: Its parameters.
            timeout: Seconds until the request fails if nothing has come.
            now: The time, in seconds.
            kind: ``CALL`` or ``ECHO``.
            idempotent: Whether running it twice does no harm.

        Returns:
            The request, which comes back as an event; its ``context`` is the caller's to set.

        Raises:
            EncodeError: A parameter cannot be sent.
            DatagramTooLarge: The parameters are too much for one datagram.
            TooManyRequests: The table is full.
            CircuitOpen: The server has not answered for a while.
        """
        msgid = next(self._msgids)
        if msgid in self._waiting:
            msgid = self._next_msgid()
        payload = encode_request(msgid, method, params)
        if len(payload) > self._unchecked_size:
            self._check_size(payload)
        deadline = now + timeout
        request = PendingRequest(msgid, payload, kind, idempotent or kind is _ECHO, now, deadline, deadline)
        self._submit(request, now)
        return request

    def send_echo(self, payload: bytes, *, timeout: float, now: float) -> PendingRequest:
        """Send bytes that an echo server (RFC 862) shall send back.

        The payload may be empty. Echoes of equal bytes that wait at once leave from different sockets, since nothing
        else tells them apart.

        Raises:
            DatagramTooLarge: More bytes than a datagram carries.
            TooManyRequests: The table is full, or too many echoes of these bytes are waiting.
            CircuitOpen: The server has not answered for a while.
        """
        try:
            socket = self._echoes.free_socket(payload)
        except TooManyRequests:
            self.stats.too_many += 1
            raise
        deadline = now + timeout
        request = PendingRequest(self._next_msgid(), payload, _RAW, True, now, deadline, deadline, socket=socket)
        self._submit(request, now)
        self._echoes.add(request)
        return request

    def send_notification(self, method: str, params: Sequence[object]) -> int:
        """Call a method whose result nobody wants: one datagram, at once or as soon as the address is known.

        Returns:
            Its size in bytes.

        Raises:
            EncodeError: A parameter cannot be sent.
            DatagramTooLarge: The parameters are too much for one datagram.
        """
        payload = encode_notification(method, params)
        self._check_size(payload)
        self._notifications.submit(payload)
        return len(payload)

    def cancel(self, request: PendingRequest, *, now: float) -> None:
        """Forget a request without an event; nothing happens if it has an outcome already."""
        if not request.done:
            self.stats.cancelled += 1
            self._forget(request, False)
            self._dispatch.drain(now)

    def close(self) -> None:
        """Fail every waiting request with :class:`RequestAborted`, and forget the notifications that were not sent."""
        self._notifications.drop()
        for request in list(self._waiting.values()):
            self.stats.aborted += 1
            self._fail(request, RequestAborted("the client service was stopped while the request was waiting"))
        self._dispatch.clear()

    # Inputs

    def servers_resolved(self, addresses: Sequence[Address], *, now: float) -> None:
        """Learn the servers' addresses, in the order in which they are to be tried; with none, new requests wait."""
        self._servers.replace(addresses, now)
        if addresses:
            self._dispatch.drain(now)
            self._notifications.release()

    def resolution_failed(self, error: TwistedUDPError) -> None:
        """Learn that no server has an address: everything fails that waits for one; known addresses stay in use."""
        if len(self._servers):
            return
        self._notifications.drop()
        for request in [request for request in self._waiting.values() if request.server is None]:
            self.stats.failed += 1
            self._fail(request, error)

    def datagram_received(self, payload: bytes, peer: Address, socket: int = 0, *, now: float) -> None:
        """Take a datagram of any origin; cannot fail."""
        if self._echoes.waiting:
            echo = self._echoes.answered_untrusted(payload, peer, socket)
            if echo is not None:
                self._answer(echo, payload, peer, now)
                self._dispatch.drain(now)
                return
        response = scalar_response_untrusted(payload)
        if response is None:
            self._take_untrusted(payload, peer, now)
        else:
            _, msgid, _, result = response
            request = self._waiting.get(msgid)
            if request is None or request.kind is _RAW or peer not in request.asked:
                request = self._asked_untrusted(msgid, peer)
                if request is None:
                    return
            self._answer(request, result, peer, now)
        if self._dispatch.queue:
            self._dispatch.drain(now)

    def _take_untrusted(self, payload: bytes, peer: Address, now: float) -> None:
        """Take a datagram that is none of the usual responses."""
        msgid = peek_msgid_untrusted(payload, TYPE_RESPONSE)
        request = None if msgid is None else self._asked_untrusted(msgid, peer)
        if request is None and msgid is not None:
            return
        try:
            message = decode_untrusted(payload)
        except DecodeError:
            self.stats.rejected["malformed"] += 1
            return
        if type(message) is Response:
            request = request or self._asked_untrusted(message.msgid, peer)
            if request is None:
                return
            if message.error is None:
                self._answer(request, message.result, peer, now)
            else:
                self._error_untrusted(request, message.error, peer, now)
        elif type(message) is Request:
            self._reflection_untrusted(message, payload, peer, now)
        else:
            self.stats.rejected["not_a_response"] += 1

    def peer_unreachable(self, peer: Address, reason: str, quoted: bytes, socket: int = 0, *, now: float) -> None:
        """Take an ICMP error, which can be forged: one that quotes no waiting request is counted and ignored.

        It quotes the beginning of a datagram's payload that was sent to ``peer`` from the local ``socket``; ``reason``
        is what the network said, in words.
        """
        matched = False
        for request in quoted_requests_untrusted(quoted, peer, socket, self._waiting, self._echoes):
            if request.server is not None and request.server.address == peer:
                matched = True
                self._dispatch.refused(request, request.server, reason, now)
        if not matched:
            self.stats.rejected["unmatched_icmp"] += 1
        self._dispatch.drain(now)

    def send_failed(self, transmit: Transmit, error: TwistedUDPError, *, now: float) -> None:
        """Learn that a transmit can never be sent, which fails its request; one that was lost is no matter for this."""
        payload, peer, socket = transmit
        for request in quoted_requests_untrusted(payload, peer, socket, self._waiting, self._echoes):
            if request.payload == payload:
                self.stats.failed += 1
                self._fail(request, error)
        self._dispatch.drain(now)

    def deadline_reached(self, *, now: float) -> None:
        """Do what is due at ``now``: retransmit, or give up."""
        dispatch = self._dispatch
        while (request := dispatch.deadlines.pop_due(now)) is not None:
            if request.deadline > now:
                dispatch.retransmit(request, now)
            else:
                self._ran_out(request, now)
        dispatch.drain(now)

    # Outputs

    def datagrams(self) -> list[tuple[bytes, Address]]:
        """Return the datagrams to send, in order, with their peers, and forget them.

        It returns none if one of them is not to leave from the usual socket: then all are ``transmits``.
        """
        datagrams = self._dispatch.datagrams
        if datagrams:
            self._dispatch.datagrams = []
        return datagrams

    def transmits(self) -> list[Transmit]:
        """Return the datagrams to send, in order, with their peers and sockets, and forget them."""
        return self._dispatch.take_transmits()

    def next_deadline(self) -> float | None:
        """Return when ``deadline_reached`` must be called, or ``None`` while nothing is due ever.

        It may be earlier than needed: what was due then may have been answered.
        """
        return self._dispatch.deadlines.next_due()

    def events(self) -> list[PendingRequest]:
        """Return the requests that have got their outcome, in order, and forget them."""
        completed = self._completed
        if completed:
            self._completed = []
        return completed

    def unused_sockets(self) -> list[int]:
        """Return the local sockets that no request needs any more, to be closed, and forget them."""
        unused = self._dispatch.unused_sockets
        if unused:
            self._dispatch.unused_sockets = []
            unused = [socket for socket in unused if not self._echoes.uses(socket)]  # taken again meanwhile
        return unused

    def _next_msgid(self) -> int:
        # A request may wait for longer than the ids take to come round; its id is then skipped.
        return next(msgid for msgid in self._msgids if msgid not in self._waiting)

    def _check_size(self, payload: bytes) -> None:
        size, limit = len(payload), self._largest
        if size > limit:
            raise DatagramTooLarge(size, limit, can_be_raised=limit < self.settings.max_payload)
        if size > SAFE_PAYLOAD:
            self.stats.large += 1

    def _submit(self, request: PendingRequest, now: float) -> None:
        if len(self._waiting) >= self.settings.max_outstanding:
            self.stats.too_many += 1
            raise TooManyRequests(f"{len(self._waiting):,} requests are waiting for their responses, the most allowed")
        self._dispatch.submit(request, now)

    def _asked_untrusted(self, msgid: int, peer: Address) -> PendingRequest | None:
        """Return the request with this msgid that waits for a response from this peer; count the datagram if none."""
        request = self._waiting.get(msgid)
        if request is not None and request.kind is not _RAW:
            if peer in request.asked:
                return request
            self.stats.rejected["wrong_peer"] += 1
            return None
        answered = self._recent.was_answered(msgid)
        server = None if answered is None else self._servers.at(peer)
        if server is None:
            self.stats.rejected["unmatched" if answered is None else "wrong_peer"] += 1
        elif answered:
            self.stats.duplicate += 1
        else:
            self.stats.late += 1
            server.breaker.answered()
        return None

    def _error_untrusted(self, request: PendingRequest, sent: object, peer: Address, now: float) -> None:
        self._dispatch.heard(request, peer, now)
        error, attempts = ErrorReplyReceived.from_untrusted(sent), request.attempts
        if error.code == CODE_BUSY:  # it was not run: it is sent again when its time comes
            request.busy, request.busy_attempts = error, attempts
            if self._dispatch.postpone(request, error.retry_after, now):
                self.stats.busy += 1
                return
        elif error.code == CODE_UNPROVEN_ADDRESS and prove_untrusted(request, error.data, peer, self._dispatch, now):
            request.busy, request.busy_attempts = error, attempts
            self.stats.unproven += 1
            return
        self.stats.errors += 1
        self._fail(request, error)

    def _reflection_untrusted(self, message: Request, payload: bytes, peer: Address, now: float) -> None:
        """Take a request sent to this client, which is legitimate only where an echo server sends back our own."""
        request = self._waiting.get(message.msgid)
        if request is None or request.payload != payload or peer not in request.asked:
            self.stats.rejected["not_a_response"] += 1
        elif request.kind is _ECHO:
            self._answer(request, message.params[0], peer, now)
        else:
            self._dispatch.heard(request, peer, now)
            self.stats.failed += 1
            self._fail(request, PeerReflects(peer))

    def _answer(self, request: PendingRequest, result: object, peer: Address, now: float) -> None:
        self._dispatch.heard(request, peer, now)
        self.stats.answered += 1
        request.result = result
        self._forget(request, True)
        self._completed.append(request)

    def _ran_out(self, request: PendingRequest, now: float) -> None:
        self.stats.timed_out += 1
        self._dispatch.ran_out(request, now)
        self._fail(request, request.ran_out(now))

    def _fail(self, request: PendingRequest, error: TwistedUDPError) -> None:
        request.error = error
        self._forget(request, isinstance(error, ErrorReplyReceived) and error is not request.busy)
        self._completed.append(request)

    def _forget(self, request: PendingRequest, answered: bool) -> None:
        request.done = True
        del self._waiting[request.msgid]
        self._dispatch.ended(request)
        if request.kind is not _RAW:
            self._recent.ended(request.msgid, answered)
        elif self._echoes.remove(request):
            self._dispatch.unused_sockets.append(request.socket)
