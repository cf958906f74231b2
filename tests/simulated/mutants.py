"""Known bugs, each put back on purpose, to see that the simulation finds them.

Theory of operation: a mutant replaces one function of the package by a wrong one, as somebody might have written it,
for as long as a ``with`` block lasts. :data:`MUTANTS` has them by name; the docstring says what is wrong.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from twistedudp._alarm import Alarm
from twistedudp._msgpack import decode_untrusted, encode_request, encode_response
from twistedudp._pump import RequestPump
from twistedudp.client import UDPClientService
from twistedudp.core._amplification import ReplyBudget
from twistedudp.core._dispatch import Dispatch
from twistedudp.core._outbox import Outbox
from twistedudp.core._pending import Kind
from twistedudp.core._requester import Requester
from twistedudp.core._responder import Responder
from twistedudp.core._response_cache import CachedResponse, ResponseCache
from twistedudp.core._round_trip import RoundTrip
from twistedudp.messages import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.defer import Deferred

    from twistedudp.address import Address
    from twistedudp.core import PendingRequest
    from twistedudp.core._responder import IncomingRequest

__all__ = ["MUTANTS", "Mutant", "mutated"]


class Mutant:
    """A wrong function and the right one that it replaces.

    Args:
        owner: The class that has it.
        name: Its name there.
        wrong: The wrong one.
        seed: The first seed that finds it.

    Attributes:
        name: The mutant's name.
        seed: The first seed that finds it; when plans change another one may be.
        sentence: What is wrong.
    """

    def __init__(self, owner: type, name: str, wrong: Callable[..., Any], seed: int) -> None:
        self.seed = seed
        self.name = wrong.__name__
        self.sentence = wrong.__doc__ or ""
        self._owner = owner
        self._attribute = name
        self._wrong = wrong

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the wrong function in place."""
        right = self._owner.__dict__[self._attribute]
        setattr(self._owner, self._attribute, self._wrong)
        try:
            yield
        finally:
            setattr(self._owner, self._attribute, right)


MUTANTS: Final[dict[str, Mutant]] = {}


def _replaces(owner: type, name: str, seed: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(wrong: Callable[..., Any]) -> Callable[..., Any]:
        mutant = Mutant(owner, name, wrong, seed)
        MUTANTS[mutant.name] = mutant
        return wrong

    return add


def mutated(name: str) -> Any:
    """Return a context manager that has the mutant of this name in place."""
    return MUTANTS[name].in_place()


_retransmit = Dispatch.retransmit
_cancel = Requester.cancel
_error_untrusted = Requester._error_untrusted
_let_in = Responder._let_in
_repeated = ResponseCache.repeated
_admit = ResponseCache.admit
_stop = RequestPump.stop
_transmit = Dispatch.transmit
_datagram_received = Responder.datagram_received
_prove_untrusted = ReplyBudget.prove_untrusted
_answer = Outbox.answer
_answered_late = RoundTrip.answered_late


@_replaces(Dispatch, "retransmit", seed=0)
def fresh_msgid(self: Dispatch, request: PendingRequest, now: float) -> None:
    """A retransmission gets a new msgid, so that no server can recognise it."""
    message = decode_untrusted(request.payload) if request.kind is Kind.CALL else None
    if isinstance(message, Request):
        del self._waiting[request.msgid]
        request.msgid = (request.msgid + 1) & 0xFFFFFFFF
        request.payload = encode_request(request.msgid, message.method, message.params)
        self._waiting[request.msgid] = request
    _retransmit(self, request, now)


@_replaces(Dispatch, "retransmit", seed=1)
def fresh_port(self: Dispatch, request: PendingRequest, now: float) -> None:
    """Every retransmission leaves from a port of its own, not only those of idempotent calls."""
    if not request.idempotent:
        self._change_socket(request)
    _retransmit(self, request, now)


@_replaces(Dispatch, "retransmit", seed=1)
def next_server(self: Dispatch, request: PendingRequest, now: float) -> None:
    """The retransmission of a call that is not idempotent goes to the next server, where it runs again."""
    server = request.server
    other = None if server is None else self.servers.after(server, len(request.payload))
    if request.idempotent or other is None:
        _retransmit(self, request, now)
    else:
        self._stats.retransmitted += 1
        request.interval = min(2 * request.interval, self._settings.policy.max_timeout)
        self.transmit(request, other, now, request.interval)


@_replaces(Requester, "_asked_untrusted", seed=6)
def any_peer(self: Requester, msgid: int, _peer: Address) -> PendingRequest | None:
    """A response is taken from whoever knows the msgid."""
    request = self._waiting.get(msgid)
    if request is None:
        self.stats.rejected["unmatched"] += 1
    return request


@_replaces(ResponseCache, "admit", seed=22)
def evicts(
    self: ResponseCache, payload: bytes, peer: Address, now: float, *, strange: bool = False
) -> CachedResponse | None:
    """A full cache makes room by giving up its oldest response, though it may still be asked for."""
    self._expire(now)
    for entry in list(self._entries.values()):
        if len(self._entries) < self._max_entries and self.size < self._max_size:
            break
        if entry.response is not None:
            self._remove(entry)
    return _admit(self, payload, peer, now, strange=strange)


@_replaces(ResponseCache, "repeated", seed=1)
def forgets_peer_port(self: ResponseCache, payload: bytes, peer: Address, now: float) -> CachedResponse | None:
    """A repeat is known by the peer's host alone, so that another port of it gets the response."""
    known = next((key[0] for key in self._entries if key[0][0] == peer[0] and key[1] == payload), peer)
    return _repeated(self, payload, known, now)


@_replaces(ResponseCache, "repeated", seed=25)
def ages_from_first_sight(self: ResponseCache, payload: bytes, peer: Address, now: float) -> CachedResponse | None:
    """An entry is kept for so long after its first sight, though its client may go on asking."""
    entry = self._entries.get((peer, payload))
    if entry is not None and entry.seen + self._max_age < now:
        self._remove(entry)
        return None
    return entry


@_replaces(ResponseCache, "repeated", seed=5)
def answers_too_early(self: ResponseCache, payload: bytes, peer: Address, now: float) -> CachedResponse | None:
    """There is a response in the cache before the method has ended, and whoever asks again meanwhile gets it."""
    entry = _repeated(self, payload, peer, now)
    if entry is None or entry.response is not None:
        return entry
    request = decode_untrusted(payload)
    assert isinstance(request, Request)
    return CachedResponse(entry.key, now, encode_response(request.msgid, None, None))


@_replaces(Responder, "_let_in", seed=1)
def runs_what_is_running(self: Responder, incoming: IncomingRequest, payload: bytes, now: float) -> None:
    """A request that runs is not in the cache, so that a repeat of it runs."""
    _let_in(self, incoming, payload, now)
    if incoming.cached is not None:
        self._cache._remove(incoming.cached)
        incoming.cached = None


@_replaces(UDPClientService, "_cancel", seed=0)
def cancels_nothing(_self: UDPClientService, _deferred: Deferred[Any]) -> None:
    """A cancelled call goes on: it keeps its place, and is sent again."""


@_replaces(UDPClientService, "_deliver", seed=8)
def fires_twice(_self: UDPClientService, request: PendingRequest) -> None:
    """A call that is cancelled by another one's callback, when its own outcome is there already, gets both."""
    deferred: Any = request.context
    if request.error is None:
        deferred.callback(request.result)
    else:
        deferred.errback(request.error)


@_replaces(RequestPump, "stop", seed=0)
def leaks_timer(self: RequestPump) -> Any:
    """The timer is not cancelled when the client stops."""
    self._alarm = Alarm(self._reactor, self.now, self._due)
    return _stop(self)


@_replaces(Requester, "cancel", seed=2)
def leaks_window(self: Requester, request: PendingRequest, *, now: float) -> None:
    """A cancelled call keeps its place in the window."""
    server = None if request.done else request.server
    _cancel(self, request, now=now)
    if server is not None:
        server.window.in_flight += 1


@_replaces(Requester, "deadline_reached", seed=1)
def leaves_queue(self: Requester, *, now: float) -> None:
    """A call that runs out makes room in the window, and nobody looks into the queue."""
    dispatch = self._dispatch
    while (request := dispatch.deadlines.pop_due(now)) is not None:
        if request.deadline > now:
            dispatch.retransmit(request, now)
        else:
            self._ran_out(request, now)


@_replaces(Requester, "_error_untrusted", seed=1)
def gives_up_when_busy(self: Requester, request: PendingRequest, sent: object, peer: Address, now: float) -> None:
    """A busy server's answer ends the call, though there is time left to ask again."""
    _error_untrusted(self, request, sent, peer, now)
    if request.busy is not None and not request.done:
        self.stats.timed_out += 1
        self._fail(request, request.busy)


@_replaces(Dispatch, "heard", seed=3)
def forgets_karn(self: Dispatch, request: PendingRequest, peer: Address, now: float) -> None:
    """The time since the last try is taken for a round trip, though the answer may be that to an earlier one."""
    server = request.server
    if server is None or server.address != peer:
        server = self.servers.at(peer)
        if server is None:
            return
    self.servers.answered(server, now)
    server.window.answered()
    server.round_trip.sampled(now - request.sent)


@_replaces(Dispatch, "transmit", seed=0)
def forgets_deadline(self: Dispatch, request: PendingRequest, server: Any, now: float, wait: float) -> None:
    """The last try is given its whole interval, beyond the call's deadline."""
    deadline, request.deadline = request.deadline, now + wait
    _transmit(self, request, server, now, wait)
    request.deadline = deadline


@_replaces(RequestPump, "_close", seed=0)
def leaks_port(self: RequestPump, socket: int) -> None:
    """The local ports of idempotent retries stay open."""


@_replaces(Responder, "datagram_received", seed=1)
def answers_twice(self: Responder, payload: bytes, peer: Address, *, now: float) -> None:
    """Each arrival of a request is answered twice, to make sure."""
    _datagram_received(self, payload, peer, now=now)
    self._outbox.datagrams += self._outbox.datagrams[-1:]


@_replaces(ReplyBudget, "may_refuse", seed=2)
def refuses_everybody(_self: ReplyBudget, _host: str, _received: int, _size: int = 0) -> bool:
    """Whoever has to prove his address is told so each time, whatever he was sent before."""
    return True


@_replaces(ReplyBudget, "prove_untrusted", seed=187)
def believes_any_token(self: ReplyBudget, _token: object, host: str) -> bool:
    """A token proves the address of whoever sends it."""
    return _prove_untrusted(self, self.tokens.token_of(host), host)


@_replaces(Outbox, "answer", seed=1)
def keeps_nothing(self: Outbox, incoming: IncomingRequest, payload: bytes) -> None:
    """A response that waits for a proof is not kept: the method runs again when its request is repeated."""
    before = len(self.datagrams)
    _answer(self, incoming, payload)
    sent = [sent for sent, _ in self.datagrams[before:]]
    if incoming.cached is not None and payload not in sent:
        self._cache._remove(incoming.cached)
        incoming.cached = None


@_replaces(RoundTrip, "answered_late", seed=1)
def floors_nothing(self: RoundTrip, backed_off: float, *arguments: float) -> None:
    """What a short call has backed off to becomes the timeout of long ones, below the policy's least."""
    unknown = self.timeout is None
    _answered_late(self, backed_off, *arguments)
    if unknown:
        self.timeout = min(backed_off, self._policy.max_timeout)
