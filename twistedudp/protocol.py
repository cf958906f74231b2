"""The protocol that serves rpc methods: where core, codec, methods and transport meet on the server's side.

Theory of operation: every datagram goes into the core's :class:`Responder`; what comes out as an event is run at once,
and its outcome goes back into the responder, whose datagrams are written. A method that returns a Deferred or a
coroutine stays in the table until that fires, and holds one of the method's slots. Requests that have waited for too
long in the socket, as far as the port tells when they arrived, are shed before anything else is done. Exceptions of
methods go to the log with the method's name; the network learns no more than that the method failed.

The answers to probes are made at the end of a batch: see :mod:`twistedudp._probe_answers`.
"""

from __future__ import annotations

import secrets
import time
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ._address_tokens import MIN_KEY_SIZE, AddressTokens
from ._probe_answers import ProbeAnswers
from ._rate_limit import RateLimit, failure_limit
from ._secure_peers import SecurePeers
from .address import is_loopback
from .core import SAFE_PAYLOAD, ReplyBudget, Responder, ResponderSettings, Staleness, arrived_since
from .errors import MethodError
from .messages import CODE_METHOD_FAILED, CODE_UNKNOWN_METHOD, TYPE_NOTIFICATION
from .methods import calling_peer, method_table
from .probing._answer import Probe, is_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import Address
    from .core import IncomingRequest, ResponderStats
    from .methods import Method, RPCMethods

__all__ = ["RPCServerProtocol"]

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple})
"""Results that are surely neither a coroutine nor a Deferred, which is a class that is slow to ask for."""

_NOTIFICATION: Final = bytes([0x93, TYPE_NOTIFICATION])  # how every encoder begins it

_MAX_SHOWN_NAME: Final = 64  # characters of an unknown method's name that are sent back


class RPCServerProtocol(DatagramProtocol):  # budget: the parts of one server, at hand for each request
    """Serve an object's methods as MessagePack-RPC.

    Args:
        methods: The object whose marked methods can be called.
        max_request_size: Bytes of the largest request taken.
        max_response_size: Bytes of the largest response sent.
        max_running: Requests whose Deferred or coroutine may be waited for at once; then methods that some of these
            are of are answered ``busy``. How many there may be of one method says :func:`~twistedudp.method`.
        max_wait: Seconds after which nobody waits any more for the answer to a request that has just come. What has
            waited in the socket for so long is dropped before it is decoded, and counted; while a queue is standing,
            what has waited for a quarter of it. ``None`` drops nothing. The port must tell when datagrams arrived.
        cache_entries: Requests whose responses are kept, so that a request that is repeated because its response was
            lost does not run again; where there is no room, new requests are answered ``busy``.
        cache_size: Bytes of requests and responses kept from which on no new request is let in; those that run
            already still add their responses.
        cache_age: Seconds for which a response is kept after its request was last seen.
        prove_addresses: Whether an address must be proven before it is sent more than three times what it sent, so that
            nobody can use this server to flood others. Clients of ours do that by themselves; others get the error
            ``unproven_address``, see docs/wire.md. Where the transport has proven all addresses
            (``proves_addresses``) nothing more is asked for.
        token_key: The secret that addresses are proven with, of 32 bytes or more, where several processes are to know
            one another's tokens; ``None`` makes one up.
        trusts_loopback: Whether peers on this machine's loopback count as proven, since nothing from outside can come
            from there.
        clock: Returns seconds and does not go back; it tells how long responses are kept.
        wall_clock: Returns nanoseconds since the epoch; it tells probes when they arrived and were answered.

    Raises:
        MethodDefinitionError: One of the methods cannot be served.
        LocalError: The key is too short.
        ValueError: A bound of the cache, or ``max_wait``, is not positive.
    """

    def __init__(
        self,
        methods: RPCMethods,
        *,
        max_request_size: int = 8192,
        max_response_size: int = 65507,
        max_running: int = 4096,
        max_wait: float | None = 2.0,
        cache_entries: int = ResponderSettings.cache_entries,
        cache_size: int = ResponderSettings.cache_size,
        cache_age: float = ResponderSettings.cache_age,
        prove_addresses: bool = True,
        token_key: bytes | None = None,
        trusts_loopback: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._table = method_table(methods)
        idempotent = frozenset(name for name, served in self._table.items() if served.idempotent)
        _check_cache(cache_entries=cache_entries, cache_size=cache_size, cache_age=cache_age)
        slots = {name: served.max_running for name, served in self._table.items()}
        key = secrets.token_bytes(MIN_KEY_SIZE) if token_key is None else token_key
        budget = ReplyBudget(AddressTokens(key, wall_clock), trusts_loopback=trusts_loopback)
        settings = ResponderSettings(
            max_request_size, max_response_size, max_running, idempotent, cache_entries, cache_size, cache_age, slots
        )
        self._responder = Responder(settings, budget if prove_addresses else None)
        self._staleness = None if max_wait is None else Staleness(max_wait)
        self._clock, self._wall_clock = clock, wall_clock
        self._probes = ProbeAnswers(self._responder, clock, wall_clock)
        self._unfinished: dict[Deferred[object], list[tuple[IncomingRequest, Method]]] = {}
        self._failures: WeakKeyDictionary[Deferred[object], Failure] = WeakKeyDictionary()
        self._log_limit = failure_limit(clock)
        self._large_limit = RateLimit(1, 60.0, clock)
        self._drained: Deferred[None] | None = None
        self._sessions: SecurePeers | None = None
        self._log = Logger(namespace=f"{type(methods).__module__}.{type(methods).__qualname__}")

    @property
    def stats(self) -> ResponderStats:
        """The counters of requests, responses and rejected datagrams."""
        stats = self._responder.stats
        stats.probe_sessions_evicted = self._probes.sessions.evicted
        return stats

    @property
    def amplifies(self) -> bool:
        """Whether an address that nobody has proven may be sent more than three times what came from there."""
        return not self._responder.bounds_responses

    @property
    def wants_arrival_times(self) -> bool:
        """Whether the port is to tell when datagrams arrived: without that nothing is shed."""
        return self._staleness is not None

    @property
    def has_private_methods(self) -> bool:
        """Whether a method is marked private: what it says must not cross an open network in plain text."""
        return any(served.private for served in self._table.values())

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer a request, run a notification, drop anything else.

        A request to a broadcast or multicast address is dropped, since one with a forged source would bring the answers
        of all servers there down on somebody else; only :func:`twistedudp.discover` may ask all.
        """
        if getattr(self.transport, "delivering_to_group", False) and not datagram.startswith(_NOTIFICATION):
            self._responder.stats.rejected["to_group"] += 1
            return
        self.datagrams_received(((datagram, addr),))

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Do the same for all the datagrams that have come, none to a group; their answers leave together."""
        responder = self._responder
        if self._sessions is not None:
            datagrams = self._sessions.of(datagrams)
        now = self._clock()
        times: Sequence[int] = getattr(self.transport, "arrival_times", ())
        if times and self._staleness is not None:
            since = self._staleness.worth_serving_since(times, now=now, wall=self._wall_clock())
            if since:
                came = len(datagrams)
                datagrams, times = arrived_since(since, datagrams, times)
                responder.stats.rejected["stale"] += came - len(datagrams)
                if not datagrams:
                    return
        receive, events, run = responder.datagram_received, responder.events, self._run
        asker = datagrams[0][1]
        outside = calling_peer.set(asker)  # once for all that a peer sends in a row
        try:
            for datagram, addr in datagrams:
                receive(datagram, addr, now=now)
                for incoming in events():
                    if addr is not asker:
                        calling_peer.set(addr)
                        asker = addr
                    run(incoming, datagram)
        finally:
            calling_peer.reset(outside)
        if self._probes.waiting:
            self._probes.answer(datagrams, times, now)
        self._flush()

    def startProtocol(self) -> None:
        """Learn whether the transport has sessions, and then how much it carries at once: less than UDP does."""
        transport: Any = self.transport
        if hasattr(transport, "session_number"):
            self._sessions = SecurePeers()
            self._responder.limit_responses(transport.payload_limit)

    def peer_verified(self, addr: Address, certificate_name: str | None) -> None:
        """Learn from DTLS that a session with a peer is open: its requests are no longer those of the one before."""
        if self._sessions is not None:
            self._sessions.verified(addr, certificate_name)

    def peer_lost(self, addr: Address, _reason: str) -> None:
        """Learn from DTLS that a session is no more: nothing is sent to it that it still asked for."""
        if self._sessions is not None:
            self._sessions.lost(addr, self.transport)

    def run_method(self, method: str, params: list[object], peer: Address) -> Deferred[object]:
        """Run a method as a request would that came by another way, such as a question to a group.

        All that holds for requests holds here: parameters are checked, ``current_peer()`` is known, exceptions are
        logged and not told, no more than ``max_running`` run at once, and a stop of the server ends it.

        Args:
            method: Its name.
            params: Its parameters, as decoded.
            peer: Who asks.

        Returns:
            A Deferred that fires with the result, whether that can be sent or not, and fails with
            :class:`~twistedudp.errors.MethodError`, whose code is one that a request would be answered with. To cancel
            it does not end the method.
        """
        outcome: Deferred[object] = Deferred()

        def settled(result: object, error: MethodError | None) -> None:
            if error is None:
                outcome.callback(result)
            else:
                outcome.errback(error)

        incoming = self._responder.accept(method, params, peer, settled, now=self._clock())
        if incoming is not None:
            outside = calling_peer.set(peer)
            try:
                self._run(incoming, b"")
            finally:
                calling_peer.reset(outside)
        return outcome

    def use_token_key(self, token_key: bytes) -> None:
        """Prove addresses with another secret from now on: one that other processes have too.

        Raises:
            LocalError: The key is too short.
        """
        self._responder.use_tokens(AddressTokens(token_key, self._wall_clock))

    def trust_addresses(self) -> None:
        """Answer from now on without having addresses proven, however large the answers are."""
        self._responder.trust_addresses()

    def doStart(self) -> None:
        """Begin to serve on a transport, which may have proven its peers' addresses."""
        if getattr(self.transport, "proves_addresses", False):
            self.trust_addresses()
        super().doStart()  # type: ignore[no-untyped-call]  # Twisted has no annotation here

    def drain(self) -> Deferred[None]:
        """Let no new request in until the port stops; a new one is answered ``server_stopping``.

        What runs is answered, and a request that is repeated gets the response that is kept for it.

        Returns:
            A Deferred that fires with None when nothing runs any more, and whoever had to prove its address for its
            response, and was told so from a second before on, has done so.
        """
        self._responder.drain(now=self._clock())
        self._drained = Deferred()
        drained = self._drained
        self._flush()
        return drained

    def doStop(self) -> None:
        """Answer what is still running with the error ``server_stopping``, cancel it, and let the port go."""
        self._responder.close()
        self._flush()
        for deferred in list(self._unfinished):
            deferred.cancel()
        super().doStop()  # type: ignore[no-untyped-call]  # Twisted has no annotation here

    def _run(self, incoming: IncomingRequest, datagram: bytes) -> None:
        served = self._table.get(incoming.method)
        if served is None:
            name = incoming.method[:_MAX_SHOWN_NAME]
            text = f"the server has no method {name!r}; rpc.methods lists what it has"
            self._responder.respond_error(incoming, CODE_UNKNOWN_METHOD, text)
            return
        try:
            result = served.call(*served.arguments_untrusted(incoming.params))
            is_plain = type(result) in _PLAIN
            if not is_plain and isinstance(result, CoroutineType):
                result = Deferred.fromCoroutine(result)
        except BaseException:  # noqa: BLE001  # whatever a method raises, its caller is answered and the server goes on
            self._failed(Failure(), incoming, served)  # type: ignore[no-untyped-call]  # nor here
            return
        if is_plain:
            self._responder.respond(incoming, result)
        elif isinstance(result, Deferred):
            self._wait(result, incoming, served)
        elif isinstance(result, Probe):
            self._probes.take(incoming, datagram, result)
        else:
            self._responder.respond(incoming, result)

    def _wait(self, deferred: Deferred[object], incoming: IncomingRequest, served: Method) -> None:
        """Answer when a method's Deferred fires; methods may return one Deferred for several requests."""
        slots = self._responder.slots
        if deferred in self._unfinished:
            slots.hold(incoming, self._clock())
            self._unfinished[deferred].append((incoming, served))
            return
        failure = self._failures.get(deferred)
        if failure is not None:
            self._failed(failure, incoming, served)
            return
        self._unfinished[deferred] = [(incoming, served)]
        slots.hold(incoming, self._clock())

        def fired(result: object) -> object:
            now = self._clock()
            self._responder.time_passes(now)
            for request, method in self._unfinished.pop(deferred):
                slots.release(request, now)
                if isinstance(result, Failure):
                    self._failed(result, request, method)
                else:
                    self._responder.respond(request, result)
            self._flush()
            if isinstance(result, Failure):  # dealt with, and no result for whom the Deferred is returned to next
                self._failures[deferred] = result
                return None
            return result

        deferred.addBoth(fired)

    def _failed(self, failure: Failure, incoming: IncomingRequest, served: Method) -> None:
        if incoming.done:
            return  # it was answered when the server stopped, and then cancelled
        error = failure.value
        if isinstance(error, MethodError):
            self._responder.respond_error(incoming, error.code, error.message, error.data)
            return
        if self._log_limit.allowed():
            suppressed = self._log_limit.take_suppressed()
            if suppressed:
                self._log.warn("{suppressed} failures of methods were not logged", suppressed=suppressed)
            self._log.failure(
                "the method {method!r}, called by {peer}, failed", failure, method=served.name, peer=incoming.peer[0]
            )
        text = f"the method {served.name!r} failed; the server's log says why"
        self._responder.respond_error(incoming, CODE_METHOD_FAILED, text)

    def _flush(self) -> None:
        """Send the responses; a lost one is the caller's to ask for again."""
        transport: Any = self.transport
        datagrams = self._responder.datagrams()
        if transport is None:
            return
        if self._sessions is not None:
            datagrams = self._sessions.to(datagrams)
        if len(datagrams) > 1 and hasattr(transport, "write_batch"):
            refused = transport.write_batch(datagrams)
            if refused:
                self._responder.stats.rejected["send_failed"] += len(refused)
        else:
            for payload, peer in datagrams:
                try:
                    transport.write(payload, peer)
                except (OSError, MessageLengthError):  # noqa: PERF203  # Twisted's port raises what the network did
                    self._responder.stats.rejected["send_failed"] += 1
        for payload, peer in datagrams:
            if len(payload) > SAFE_PAYLOAD:
                self._note_large(payload, peer)
        if self._drained is not None and self._responder.is_drained:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _note_large(self, payload: bytes, peer: Address) -> None:
        """Say that a response may be cut into fragments on its way, unless it stays here or its size is a prober's."""
        self._responder.stats.large += 1
        if not is_loopback(peer[0]) and not is_answer(payload) and self._large_limit.allowed():
            self._log.warn(
                "a response of {size:,} bytes: more than 1,200 may be cut into fragments on the way, and the loss of "
                "one is the loss of all; return less at once (told once a minute)",
                size=len(payload),
            )


def _check_cache(**bounds: float) -> None:
    """Refuse bounds by which no response would be kept."""
    for name, bound in bounds.items():
        if type(bound) not in (int, float) or not bound > 0:
            reason = "it must be a positive number: without kept responses a repeated request would run twice"
            raise ValueError(f"{name}={bound!r}: {reason}")
