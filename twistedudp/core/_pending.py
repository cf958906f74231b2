"""A request that waits for its response, and the counters of the table that holds it."""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..address import Address
    from ..errors import ErrorReplyReceived, TwistedUDPError
    from ._servers import Server

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


class PendingRequest:  # budget: all that is known of a request; slots keep it below 1 KiB with its table entries
    """One request from the command that made it to its outcome.

    Attributes:
        msgid: Its number in the table, and on the wire unless it is raw.
        payload: The datagram; every retransmission has the same bytes.
        kind: What counts as its answer.
        idempotent: Whether retransmissions may go to another server.
        started: When it was made; seconds on the caller's clock, as are the next three.
        deadline: When it fails if nothing has come.
        due: When something is next to be done for it.
        sent: When it was last transmitted.
        interval: Seconds to wait after the next transmission, before jitter.
        attempts: Datagrams transmitted so far.
        refused: The addresses whose ICMP errors quoted it so far.
        server: The server that it was last sent to, ``None`` while no address is known.
        asked: Every address it was sent to.
        socket: The local socket it leaves from.
        context: The caller's to set; it comes back with the outcome.
        busy: What a server said that was too busy to run it, so far.
        result: The outcome, if ``error`` is ``None``.
        error: Why there is no result.
        done: Whether it has an outcome, or was cancelled.
    """

    __slots__ = (
        "asked", "attempts", "busy", "context", "deadline", "done", "due", "error", "idempotent", "interval", "kind",
        "msgid", "payload", "refused", "result", "sent", "server", "socket", "started",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917  # made once per request: keywords would cost a tenth of it
        self, msgid: int, payload: bytes, kind: Kind, started: float, deadline: float, idempotent: bool
    ) -> None:
        self.msgid = msgid
        self.payload = payload
        self.kind = kind
        self.idempotent = idempotent
        self.started = started
        self.deadline = deadline
        self.due = deadline
        self.sent = started
        self.interval = 0.0
        self.attempts = 0
        self.refused: frozenset[Address] = frozenset()
        self.server: Server | None = None
        self.asked: tuple[Address, ...] = ()
        self.socket = 0
        self.context: object = None
        self.busy: ErrorReplyReceived | None = None
        self.result: object = None
        self.error: TwistedUDPError | None = None
        self.done = False


class RequesterStats:  # budget: one attribute per counter
    """Counters of a client, all of them since it was made.

    Attributes:
        requests: Requests accepted.
        notifications: Notifications accepted.
        transmitted: Datagrams handed to the network, retransmissions included.
        retransmitted: Of these, those that repeat an earlier one.
        answered: Requests that got a result.
        errors: Requests that the server answered with an error.
        busy: Times that the server was too busy to run a request, which is then sent again.
        timed_out: Requests whose deadline came.
        refused: ICMP errors that quoted a waiting request.
        cancelled: Requests cancelled by the caller.
        aborted: Requests that were waiting when the client stopped.
        failed: Requests that failed otherwise: a name that does not resolve, a peer that reflects, too large.
        not_sent: Datagrams that the local machine could not send; taken as lost.
        notifications_dropped: Notifications that could not be sent because no address became known.
        rejected: Datagrams received that were no answer, by reason: ``malformed``, ``not_a_response``, ``unmatched``
            (no such request is waiting: late, duplicate or forged), ``wrong_peer``, ``unmatched_icmp``.
    """

    __slots__ = (
        "aborted", "answered", "busy", "cancelled", "errors", "failed", "not_sent", "notifications",
        "notifications_dropped", "refused", "rejected", "requests", "retransmitted", "timed_out", "transmitted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.notifications = 0
        self.transmitted = 0
        self.retransmitted = 0
        self.answered = 0
        self.errors = 0
        self.busy = 0
        self.timed_out = 0
        self.refused = 0
        self.cancelled = 0
        self.aborted = 0
        self.failed = 0
        self.not_sent = 0
        self.notifications_dropped = 0
        self.rejected: Counter[str] = Counter()
