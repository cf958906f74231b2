"""A request that waits for its response, and the counters of the table that holds it."""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from ..errors import RequestTimedOut

if TYPE_CHECKING:
    from ..address import Address
    from ..errors import ErrorReplyReceived, TwistedUDPError
    from ._servers import PeerStats, Server, ServerList

__all__ = ["Kind", "PendingRequest", "RequesterStats"]


@enum.unique
class Kind(enum.Enum):
    """What counts as the answer to a request."""

    CALL = enum.auto()
    """The response with its msgid; its own bytes reflected are an error."""
    ECHO = enum.auto()
    """The response with its msgid, or its own bytes reflected."""
    RAW = enum.auto()
    """Its own bytes reflected; it is no message at all."""


class PendingRequest(msgspec.Struct, eq=False):  # budget: all that is known of a request
    """One request from the command that made it to its outcome.

    A msgspec Struct, because one is made for every request and its constructor is in C; it takes 200 bytes.

    Attributes:
        msgid: Its number in the table, and on the wire unless it is raw.
        payload: The datagram; every retransmission has the same bytes.
        kind: What counts as its answer.
        idempotent: Whether retransmissions may leave from another port and go to another server.
        started: When it was made; seconds on the caller's clock, as are the next three.
        deadline: When it fails if nothing has come.
        due: When something is next to be done for it.
        sent: When it was last transmitted.
        interval: Seconds to wait after the next transmission, before jitter.
        attempts: Datagrams transmitted so far.
        is_sample: Whether just one of them went to its server, so that the answer measures the round trip.
        refused: The addresses whose ICMP errors quoted it so far.
        server: The server that it was last sent to, ``None`` while it waits for its turn.
        asked: Every address it was sent to.
        socket: The local socket it leaves from.
        retry_sockets: Those that were opened for its retransmissions.
        context: The caller's to set; it comes back with the outcome.
        busy: What a server said that was too busy to run it, or that wants the address proven, so far.
        busy_attempts: How many datagrams had been transmitted when it did.
        proof: The server that wanted an address proven, with the notification that does; it goes before each try there.
        proofs: How many of these there were.
        put_off: Whether it has left the window of its server until the server wants to be asked again.
        result: The outcome, if ``error`` is ``None``.
        error: Why there is no result.
        done: Whether it has an outcome, or was cancelled.
    """

    msgid: int
    payload: bytes
    kind: Kind
    idempotent: bool
    started: float
    deadline: float
    due: float
    sent: float = 0.0
    interval: float = 0.0
    attempts: int = 0
    is_sample: bool = False
    refused: frozenset[Address] = frozenset()
    server: Server | None = None
    asked: tuple[Address, ...] = ()
    socket: int = 0
    retry_sockets: tuple[int, ...] = ()
    context: object = None
    busy: ErrorReplyReceived | None = None
    busy_attempts: int = 0
    proof: tuple[Address, bytes] | None = None
    proofs: int = 0
    put_off: bool = False
    result: object = None
    error: TwistedUDPError | None = None
    done: bool = False

    def ran_out(self, now: float) -> TwistedUDPError:
        """Return what to fail with at the deadline: that the server is busy, if this was the answer to the last try."""
        if self.busy is not None and self.busy_attempts == self.attempts:
            return self.busy
        return RequestTimedOut(self.attempts, now - self.started, self.asked)


class RequesterStats:  # budget: one attribute per counter
    """Counters of a client, all of them since it was made.

    Attributes:
        requests: Requests accepted.
        notifications: Notifications accepted.
        transmitted: Datagrams handed to the network, retransmissions included.
        retransmitted: Of these, those that repeat an earlier one.
        queued: Requests that had to wait for their turn, because the window of their server was full.
        answered: Requests that got a result.
        errors: Requests that the server answered with an error.
        busy: Times that the server was too busy to run a request, which is then sent again.
        unproven: Times that a server wanted this client's address proven, which is done without its caller.
        timed_out: Requests whose deadline came.
        refused: ICMP errors that quoted a waiting request.
        suspended: Calls that failed at once because the server's circuit breaker was open.
        too_many: Calls refused because too many were waiting.
        cancelled: Requests cancelled by the caller.
        aborted: Requests that were waiting when the client stopped.
        failed: Requests that failed otherwise: a name that does not resolve, a peer that reflects, too large.
        not_sent: Datagrams that the local machine could not send; taken as lost.
        notifications_dropped: Notifications that were not sent: no address became known, the server's circuit breaker
            was open, or its address family does not carry so much.
        retry_ports_short: Retransmissions that left from the usual port because too many others were open.
        large: Requests and notifications larger than the 1,200 bytes that pass everywhere whole.
        late: Responses to requests that had ended without one: they ran out, or were cancelled.
        duplicate: Responses to requests that had been answered.
        rejected: Datagrams received that were no answer, by reason: ``malformed``, ``not_a_response``, ``unmatched``
            (no such request is known), ``wrong_peer``, ``unmatched_icmp``.
    """

    __slots__ = (
        "_servers", "aborted", "answered", "busy", "cancelled", "duplicate", "errors", "failed", "large", "late",
        "not_sent", "notifications", "notifications_dropped", "queued", "refused", "rejected", "requests",
        "retransmitted", "retry_ports_short", "suspended", "timed_out", "too_many", "transmitted",
        "unproven",
    )  # fmt: skip

    def __init__(self, servers: ServerList) -> None:
        self._servers = servers
        self.requests = 0
        self.notifications = 0
        self.transmitted = 0
        self.retransmitted = 0
        self.queued = 0
        self.answered = 0
        self.errors = 0
        self.busy = 0
        self.unproven = 0
        self.timed_out = 0
        self.refused = 0
        self.suspended = 0
        self.too_many = 0
        self.cancelled = 0
        self.aborted = 0
        self.failed = 0
        self.not_sent = 0
        self.notifications_dropped = 0
        self.retry_ports_short = 0
        self.large = 0
        self.late = 0
        self.duplicate = 0
        self.rejected: Counter[str] = Counter()

    def __repr__(self) -> str:
        counters = (f"{name}={getattr(self, name)!r}" for name in self.__slots__ if name != "_servers")
        return f"<RequesterStats {' '.join(text for text in counters if not text.endswith(('=0', '=Counter()')))}>"

    @property
    def peers(self) -> tuple[PeerStats, ...]:
        """What is known of each of the server's addresses at present: round trip, window, circuit breaker."""
        return self._servers.stats
