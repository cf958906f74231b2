"""The server's half of the protocol: which datagrams are requests, and what their responses are.

Theory of operation: the driving contract of :mod:`twistedudp.core`. ``datagram_received`` turns a request into an
event; the owner runs the method, however long that takes, and gives its outcome to ``respond`` or ``respond_error``,
which put the response among the datagrams to send. A request that is repeated while it runs, or for a while after, does
not become an event again: see :mod:`twistedudp.core._response_cache`. A notification is an event that wants no
response. Nothing else is ever answered: not a malformed datagram, not a response, not source port 0, so that no two
servers can keep each other busy. A request that came by another way (a question to a group, say) is let in by
``accept`` and has the same events and bounds; its outcome is told to a callable, and nothing is sent. What is sent
to an address that may be forged is bounded: see :mod:`twistedudp.core._outbox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from .._msgpack import decode_untrusted, encode_response
from .._scalars import scalar_request_untrusted
from ..errors import DecodeError, EncodeError, LimitExceeded, MethodError
from ..messages import (
    CODE_BUSY,
    CODE_RESULT_NOT_ENCODABLE,
    CODE_RESULT_TOO_LARGE,
    CODE_SERVER_STOPPING,
    PROVE_METHOD,
    Notification,
    Request,
    Response,
)
from ._amplification import PROOF_HEAD
from ._outbox import Outbox
from ._responder_stats import ResponderStats
from ._response_cache import ResponseCache
from ._settings import ResponderSettings
from ._slots import MethodSlots, bounded_hint
from ._transmit import Transmit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address
    from ._amplification import ReplyBudget, Tokens
    from ._response_cache import CachedResponse

__all__ = ["IncomingRequest", "Responder", "ResponderStats"]


_DRAINING: Final = -1
"""What stands for the most requests that may run while a server lets none in: then one look tells both."""


class IncomingRequest(msgspec.Struct, eq=False, gc=False):
    """One request or notification to be run.

    A msgspec Struct, because one is made for each of them, and unknown to the garbage collector: it refers to nothing
    that can refer to it.

    Attributes:
        peer: Who sent it.
        msgid: Its number; ``None`` for a notification.
        method: The method's name.
        params: The method's parameters.
        payload: The datagram; empty where it came by another way.
        done: Whether it was answered.
        cached: Where its response will be kept; ``None`` for notifications and idempotent methods.
    """

    peer: Address
    msgid: int | None
    method: str
    params: list[object]
    payload: bytes = b""
    done: bool = False
    cached: CachedResponse | None = None

    @property
    def message(self) -> Request | Notification:
        """What was sent."""
        if self.msgid is None:
            return Notification(self.method, self.params)
        return Request(self.msgid, self.method, self.params)


class _AcceptedRequest(IncomingRequest, eq=False, gc=True, kw_only=True):
    """A request whose outcome is not sent: ``settled`` is told it, as a result or as an error."""

    settled: Callable[[object, MethodError | None], None]


def _busy(text: str, retry_after: float) -> MethodError:
    """Return the error that says when to come back; with so short a text it has no more than 128 bytes."""
    return MethodError(CODE_BUSY, text, {"retry_after": retry_after})


class Responder:
    """The table of requests that are running.

    Args:
        settings: See there.
        budget: What bounds the responses to addresses that may be forged; ``None`` for no bound.

    Attributes:
        slots: The owner tells it which requests' methods go on after they have returned, and when they end.
    """

    def __init__(self, settings: ResponderSettings | None = None, budget: ReplyBudget | None = None) -> None:
        self.settings = settings or ResponderSettings()
        self.stats = ResponderStats()
        self._max_request_size = self.settings.max_request_size
        self._max_response_size = self.settings.max_response_size
        self._max_running = self.settings.max_running
        self._idempotent = self.settings.idempotent
        self._cache = ResponseCache(
            max_entries=self.settings.cache_entries,
            max_size=self.settings.cache_size,
            max_age=self.settings.cache_age,
        )
        self.slots = MethodSlots(self.settings.method_slots)
        self._running: dict[IncomingRequest, None] = {}  # in order, so that equal runs are equal
        self._draining: dict[tuple[str, int | None], IncomingRequest] = {}
        self._received: list[IncomingRequest] = []
        self._outbox = Outbox(self.stats, self._cache, budget)

    def __len__(self) -> int:
        """Return how many requests are running."""
        return len(self._running)

    # Input

    def datagram_received(self, payload: bytes, peer: Address, *, now: float) -> None:
        """Take a datagram of any origin; cannot fail."""
        if len(payload) > self._max_request_size:
            self.stats.rejected["too_large"] += 1
            return
        if not peer[1]:
            self.stats.rejected["source_port_zero"] += 1
            return
        outbox = self._outbox
        if outbox.budget is not None:
            outbox.budget.now = now
        repeated = self._cache.repeated(payload, peer, now)
        if repeated is not None:
            self.stats.repeated += 1
            if repeated.response is not None:
                outbox.post(repeated.response, peer, payload)
            else:
                outbox.nothing_to_send(peer, payload)
            return
        request = scalar_request_untrusted(payload)
        if request is None:
            self._take_untrusted(payload, peer, now)
        else:
            _, msgid, method, params = request
            self._let_in(IncomingRequest(peer, msgid, method, params, payload), payload, now)

    def _take_untrusted(self, payload: bytes, peer: Address, now: float) -> None:
        """Take a datagram that is none of the usual requests."""
        if payload.startswith(PROOF_HEAD):
            self._outbox.prove_untrusted(payload[len(PROOF_HEAD) :], peer)
            return
        try:
            message = decode_untrusted(payload)
        except DecodeError:
            self.stats.rejected["malformed"] += 1
            return
        if isinstance(message, Response):
            self.stats.rejected["not_a_request"] += 1
            return
        msgid = message.msgid if isinstance(message, Request) else None
        if msgid is None and message.method == PROVE_METHOD:  # other bytes for the same
            self._outbox.prove_untrusted(message.params[0] if len(message.params) == 1 else None, peer)
            return
        self._let_in(IncomingRequest(peer, msgid, message.method, message.params, payload), payload, now)

    def _let_in(self, incoming: IncomingRequest, payload: bytes, now: float) -> None:
        """Make a request or notification an event, or refuse it where a bound is reached."""
        if incoming.method in self.slots.full or len(self._running) >= self._max_running:
            refusal = self._no_room(incoming.method, now)
            if refusal is not None:
                self._refuse(incoming, refusal)
                return
        if incoming.msgid is None:
            self.stats.notifications += 1
        else:
            if incoming.method not in self._idempotent:
                strange = self._outbox.is_stranger(incoming.peer)
                incoming.cached = self._cache.admit(payload, incoming.peer, now, strange=strange)
                if incoming.cached is None and strange:  # proven, it has more room than forgers have
                    self.stats.strangers += 1
                    self._outbox.ask_for_proof(incoming.msgid, incoming.peer, payload)
                    return
                if incoming.cached is None:
                    text = "no more responses can be kept for requests that repeat; ask again later"
                    self._refuse(incoming, _busy(text, bounded_hint(self._cache.room_in(now))))
                    return
            self.stats.requests += 1
        self._running[incoming] = None
        self._received.append(incoming)

    # Commands

    def accept(
        self,
        method: str,
        params: list[object],
        peer: Address,
        settled: Callable[[object, MethodError | None], None],
        *,
        now: float,
    ) -> IncomingRequest | None:
        """Let a request in that is not to be answered by a datagram; it is no event, for the caller has it.

        Args:
            method: Its method.
            params: Its parameters.
            peer: Who sent it.
            settled: Called once, with the result and ``None`` or with ``None`` and the error.
            now: The time, in seconds.

        Returns:
            The request to be run; ``None`` if there is no room, which ``settled`` was told.
        """
        refusal = self._no_room(method, now)
        if refusal is not None:
            settled(None, refusal)
            return None
        incoming = _AcceptedRequest(peer, None, method, params, settled=settled)
        self.stats.requests += 1
        self._running[incoming] = None
        return incoming

    def respond(self, incoming: IncomingRequest, result: object) -> None:
        """Answer a request with its result; a result that cannot be sent is answered with the error that says so."""
        msgid = incoming.msgid
        if msgid is None or incoming.done:
            self._finish(incoming, result)
            return
        incoming.done = True
        del self._running[incoming]
        try:
            payload = encode_response(msgid, None, result)
        except LimitExceeded as error:
            self._send_error(incoming, CODE_RESULT_TOO_LARGE, str(error))
            return
        except EncodeError as error:
            self._send_error(incoming, CODE_RESULT_NOT_ENCODABLE, str(error))
            return
        if len(payload) > self._max_response_size:
            self._send_too_large(incoming, len(payload))
            return
        self.stats.responses += 1
        self._outbox.answer(incoming, payload)

    def respond_encoded(self, incoming: IncomingRequest, payload: bytes) -> None:
        """Answer a request with a response that is encoded already."""
        if not self._finish(incoming):
            return
        if len(payload) > self._max_response_size:
            self._send_too_large(incoming, len(payload))
            return
        self.stats.responses += 1
        self._outbox.answer(incoming, payload)

    def respond_error(self, incoming: IncomingRequest, code: str, message: str, data: object = None) -> None:
        """Answer a request with an error."""
        if incoming.msgid is None:
            self._finish(incoming, error=MethodError(code, message, data))
        elif self._finish(incoming):
            self._send_error(incoming, code, message, data)

    def drain(self, *, now: float) -> None:
        """Let nothing new in until :meth:`close`; what runs is answered, and what repeats gets its kept response."""
        self._max_running = _DRAINING
        self._outbox.close(now)
        self._draining = {(incoming.peer[0], incoming.msgid): incoming for incoming in self._running}

    @property
    def is_drained(self) -> bool:
        """Whether nothing runs, and all have their responses but who could be somebody else."""
        return not self._running and not self._outbox.owed

    def time_passes(self, now: float) -> None:
        """Learn the time of the responses to come, where no datagram has brought it."""
        if self._outbox.budget is not None:
            self._outbox.budget.now = now

    def limit_responses(self, size: int) -> None:
        """Learn that the transport carries so many bytes in a datagram at most."""
        self._max_response_size = min(self._max_response_size, size)

    def close(self) -> None:
        """Answer everything that is running with the error that the server stops."""
        self._outbox.closing = True
        for incoming in list(self._running):
            self.respond_error(incoming, CODE_SERVER_STOPPING, "the server stopped while the method was running")
        self._max_running = self.settings.max_running
        self._draining = {}
        self._outbox.closing = False
        self._outbox.owed.clear()

    @property
    def bounds_responses(self) -> bool:
        """Whether there is a budget for addresses that may be forged."""
        return self._outbox.budget is not None

    def use_tokens(self, tokens: Tokens) -> None:
        """Prove addresses by other tokens from now on."""
        if self._outbox.budget is not None:
            self._outbox.budget.tokens = tokens

    def trust_addresses(self) -> None:
        """Learn that nobody can forge an address that datagrams come from: from now on there is no budget."""
        self._outbox.budget = None

    # Outputs

    def datagrams(self) -> list[tuple[bytes, Address]]:
        """Return what is to be sent, in order, with its peers, and forget it."""
        datagrams = self._outbox.datagrams
        if datagrams:
            self._outbox.datagrams = []
        return datagrams

    def transmits(self) -> list[Transmit]:
        """Return the same as the requester's transmits are."""
        return [Transmit(payload, peer) for payload, peer in self.datagrams()]

    def events(self) -> list[IncomingRequest]:
        """Return the requests and notifications to run, in order, and forget them."""
        received = self._received
        if received:
            self._received = []
        return received

    def _refuse(self, incoming: IncomingRequest, refusal: MethodError) -> None:
        if incoming.msgid is None:
            self.stats.rejected[refusal.code] += 1
            return
        first = self._draining.get((incoming.peer[0], incoming.msgid))
        if first is not None and not first.done:  # an idempotent request again, perhaps from a fresh port
            self.stats.repeated += 1
        else:
            self._send_error(incoming, refusal.code, refusal.message, refusal.data)

    def _no_room(self, method: str, now: float) -> MethodError | None:
        """Return why a method may not run, ``None`` if it may."""
        slots = self.slots
        if self._max_running == _DRAINING:
            return MethodError(CODE_SERVER_STOPPING, "the server is stopping and has not run the method")
        if method in slots.full:
            text = f"{slots.held(method):,} requests of this method are running, the most allowed"
        elif len(self._running) >= self._max_running and slots.held(method):
            text = f"{len(self._running):,} requests are running, the most allowed"
        else:
            return None
        return _busy(text, slots.retry_after(method, now))

    def _finish(self, incoming: IncomingRequest, result: object = None, error: MethodError | None = None) -> bool:
        """End a request; tell whether a response is still to be sent."""
        if incoming.done:
            return False
        incoming.done = True
        self._running.pop(incoming, None)
        if isinstance(incoming, _AcceptedRequest):
            incoming.settled(None if error else result, error)
        return incoming.msgid is not None

    def _send_too_large(self, incoming: IncomingRequest, size: int) -> None:
        text = f"the response would have {size:,} bytes, more than the limit of {self._max_response_size:,}"
        self._send_error(incoming, CODE_RESULT_TOO_LARGE, text)

    def _send_error(self, incoming: IncomingRequest, code: str, message: str, data: object = None) -> None:
        assert incoming.msgid is not None  # noqa: S101  # notifications are never answered
        error: dict[str, object] = {"code": code, "message": message}
        try:
            payload = encode_response(incoming.msgid, error if data is None else {**error, "data": data}, None)
            fits = len(payload) <= self._max_response_size
        except EncodeError:
            fits = False
        if not fits:
            # Its data, or the text of a method's own error, is the method's doing; the code alone always fits.
            code = code.encode("ascii", "replace")[:64].decode()
            payload = encode_response(incoming.msgid, {"code": code, "message": "(too large to send)"}, None)
        self.stats.errors[code] += 1
        self._outbox.answer(incoming, payload)
