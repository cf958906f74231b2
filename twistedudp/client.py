"""The client: calls that always end, as a service or in an ``async with``.

Theory of operation: a :class:`UDPClientService` owns one :class:`~twistedudp.core.Requester`, which knows all that is
waiting, and the pump that drives it. Its :class:`ServerLookup` finds the addresses of its servers when it starts, and
again while it runs; calls that are made before any is known wait in the core, where their deadline runs.
Every call becomes a Deferred that fires once: with its result, with an error of :mod:`twistedudp.errors`, or on cancel.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from ._client_pump import make_pump, max_payload
from ._client_values import DEFAULT, Default, checked_timeout, convert_untrusted
from ._lookup import ServerLookup, checked_servers, family_of, is_this_machine
from ._rate_limit import RateLimit
from .core import INTERNET, KEY_SIZE, LAN, SAFE_PAYLOAD, Kind, Requester, RequesterSettings, message_ids
from .errors import (
    CircuitOpen,
    DTLSHandshakeFailed,
    EncodeError,
    PeerUnreachable,
    RequestTimedOut,
    ServiceNotRunning,
    TwistedUDPError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from ._resolve import AddressFamily
    from .address import Address
    from .core import PendingRequest, RequesterStats
    from .dtls import DTLSContext, DTLSLimits

__all__ = ["DEFAULT", "Default", "UDPClientService"]

_T = TypeVar("_T")

_POLICIES: Final = {"internet": INTERNET, "lan": LAN}

_log = Logger(namespace="twistedudp")


class _Call(Deferred[Any]):
    """What a caller gets. That it knows its request saves a canceller of its own, and with it memory."""

    request: PendingRequest


class UDPClientService(Service):
    """Call the methods of an rpc server, or speak to an echo server, over UDP.

    Use it as a service (``setServiceParent``, or ``startService`` and ``stopService``) or as
    ``async with UDPClientService(reactor, host, port) as client``, which needs no Application.

    Given several servers, it calls the one that answers, and asks the next where one does not: a call that was refused
    goes on to it, and so do the retransmissions of idempotent calls; other calls stay with the server that may have run
    them.

    Args:
        reactor: The reactor.
        host: The server's name or numeric address, or several servers: ``[(host, port), ...]``.
        port: Its UDP port; to be left out where there are several.
        timeout: Seconds that a call may take where it does not say itself.
        max_datagram_size: Bytes of the largest request; the default is what our servers take by default.
        address_family: Use only the addresses of this family.
        interface: The numeric local address to send from; empty for what the kernel chooses.
        retry_refused: Go on asking a server that refuses, until the deadline: for servers that are being restarted.
        window: Calls that may be under way to one server at once, where the network is yours and can bear it; the
            others wait for their turn. ``None`` for congestion control: it begins with 4, grows while answers come,
            and is halved when one fails to come (RFC 8085 section 3.1.2).
        policy: ``"internet"``, or ``"lan"`` for a network that is yours from end to end, which repeats what is lost
            after 0.05 to 0.2 s instead of 0.2 to 1 s.
        breaker_threshold: Calls in a row that run out before further calls fail at once with ``CircuitOpen``; 0 for
            never.
        breaker_cooldown: Seconds between two calls that are sent nevertheless, to see whether the server is back.
        dtls: Speak DTLS with the servers, with these certificates (``DTLSContext.client(...)``, docs/dtls.md); ``None``
            for plain UDP. Calls wait for the handshake within their timeouts. A datagram carries 1,163 bytes at most.
        dtls_limits: The bounds of it, such as its MTU; ``None`` for the usual ones.
        rng: Where message ids and jitter come from; the default is the operating system's generator.

    Attributes:
        servers: All servers, as hosts and ports.
        timeout: Seconds that a call may take where it does not say itself.

    Raises:
        InvalidAddress: The port, the host or the interface cannot be one.
        BroadcastNotSupported: The host is a broadcast or multicast address.
        ValueError: Another argument cannot be one.
    """

    def __init__(
        self,
        reactor: Any,
        host: str | Sequence[tuple[str, int]],
        port: int | None = None,
        *,
        timeout: float = 2.0,
        max_datagram_size: int = 8192,
        address_family: AddressFamily | None = None,
        interface: str = "",
        retry_refused: bool = False,
        window: int | None = None,
        policy: Literal["internet", "lan"] = "internet",
        breaker_threshold: int = RequesterSettings.breaker_threshold,
        breaker_cooldown: float = RequesterSettings.breaker_cooldown,
        dtls: DTLSContext | None = None,
        dtls_limits: DTLSLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.servers = tuple(checked_servers(host, port, interface))
        self.timeout = checked_timeout(timeout)
        self._reactor = reactor
        self._address_family = family_of(interface, address_family)
        self._interface = interface
        self._rng = rng
        self._dtls = None if dtls is None else (dtls, dtls_limits)
        if policy not in _POLICIES:
            raise ValueError(f"policy={policy!r}: it must be one of {', '.join(map(repr, _POLICIES))}")
        self._settings = RequesterSettings(
            max_datagram_size=max_datagram_size,
            max_payload=max_payload(self._dtls),
            retry_refused=retry_refused,
            window=window,
            policy=_POLICIES[policy],
            breaker_threshold=breaker_threshold,
            breaker_cooldown=breaker_cooldown,
        )
        self._large_limit = RateLimit(1, 60.0, reactor.seconds)
        self._canceller = self._cancel  # one bound method for all calls
        self._make_parts()

    def __repr__(self) -> str:
        others = f" and {len(self.servers) - 1} more" if len(self.servers) > 1 else ""
        running = "running" if self.running else "not running"
        return f"<UDPClientService for {self.host} port {self.port}{others}, {running}>"

    @property
    def host(self) -> str:
        """The host of the first server."""
        return self.servers[0][0]

    @property
    def port(self) -> int:
        """The port of the first server."""
        return self.servers[0][1]

    @property
    def stats(self) -> RequesterStats:
        """The counters since the service was last started."""
        return self._pump.requester.stats

    def startService(self) -> None:
        """Begin to take calls, and look up the servers' names."""
        if self.running:
            return
        self._make_parts()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self._lookup.needed()

    def stopService(self) -> Deferred[Any]:
        """Stop: every call that is waiting fails with ``RequestAborted``, and the local ports are closed.

        Returns:
            A Deferred that fires when the ports are free.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # nor here
        self._lookup.stop()
        pump = self._pump  # the callback of an aborted request may start the service again, with a pump of its own
        pump.requester.close()
        pump.pump()
        return pump.stop()

    async def __aenter__(self) -> Self:
        self.startService()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stopService()

    @overload
    def call(
        self,
        method: str,
        *params: object,
        timeout: float | Default = ...,
        idempotent: bool = ...,
        returns: None = ...,
    ) -> Deferred[Any]: ...
    @overload
    def call(
        self, method: str, *params: object, timeout: float | Default = ..., idempotent: bool = ..., returns: type[_T]
    ) -> Deferred[_T]: ...
    def call(
        self,
        method: str,
        *params: object,
        timeout: float | Default = DEFAULT,
        idempotent: bool = False,
        returns: type[Any] | None = None,
    ) -> Deferred[Any]:
        """Call a method of the server.

        Args:
            method: Its name.
            *params: Its parameters: base types, datetimes, dataclasses, lists and maps of them.
            timeout: Seconds until the call fails if no response has come; retransmission happens inside it.
            idempotent: Say that running it twice does no harm, so that it may be retried at the server's other
                addresses.
            returns: Convert the result to this type, such as a dataclass; anything that msgspec converts to.

        Returns:
            A Deferred that fires with the result. It fails with ``ErrorReplyReceived`` (the server said no),
            ``RequestTimedOut`` (nothing came), ``CircuitOpen`` (nothing came lately, so that it was not even sent),
            ``PeerUnreachable`` (nobody listens there), ``PeerReflects`` (an echo server listens there),
            ``HostNotFound``, ``RequestAborted`` (the service was stopped meanwhile), ``ServiceNotRunning``,
            ``EncodeError``, ``DatagramTooLarge``, ``TooManyRequests``, or ``DecodeError`` (the result is not a
            ``returns``). Cancelling it forgets the call.

        Raises:
            ValueError: The timeout is no positive number of seconds; ``None`` is none: no call waits for ever.
        """
        deferred = self._request(method, params, Kind.CALL, timeout, idempotent)
        if returns is not None:
            deferred.addCallback(convert_untrusted, returns)
        return deferred

    def notify(self, method: str, *params: object) -> None:
        """Call a method whose result does not matter: one datagram, which may be lost, and no answer.

        Nothing comes back by which the network's state could be known, so nothing holds notifications back but an open
        circuit breaker: whoever sends many has to pace them (RFC 8085 section 3.1.3).

        Args:
            method: Its name.
            *params: Its parameters, as for :meth:`call`.

        Raises:
            ServiceNotRunning: The service is not started.
            EncodeError: A parameter cannot be sent.
            DatagramTooLarge: The parameters are too much for one datagram.
        """
        self._check_running()
        self._pump.wanted(None)
        size = self._pump.requester.send_notification(method, params)
        self._pump.pump()
        self._lookup.needed()
        if size > SAFE_PAYLOAD:
            self._warn_of_size(method, size)

    def echo(self, value: object, timeout: float | Default = DEFAULT) -> Deferred[Any]:
        """Send a value that comes back: from our rpc servers' method ``echo``, or from any echo server (RFC 862).

        Args:
            value: What :meth:`call` takes as a parameter.
            timeout: Seconds until it fails.

        Returns:
            A Deferred that fires with the value as it came back; it fails as that of :meth:`call` does.

        Raises:
            ValueError: The timeout is no positive number of seconds.
        """
        return self._request("echo", (value,), Kind.ECHO, timeout, True)

    def echo_bytes(self, data: bytes, timeout: float | Default = DEFAULT) -> Deferred[bytes]:
        """Send bytes to an echo server (RFC 862) and wait for exactly these bytes from it.

        Args:
            data: The whole payload of one datagram, 0 to 65,507 bytes (65,527 over IPv6).
            timeout: Seconds until it fails.

        Returns:
            A Deferred that fires with the bytes; it fails as that of :meth:`call` does, but for what only a response
            can say.

        Raises:
            ValueError: The timeout is no positive number of seconds.
        """
        seconds = self.timeout if timeout is DEFAULT else checked_timeout(timeout)
        try:
            self._check_running()
            if self._dtls is not None and not len(data):
                raise EncodeError("DTLS carries no empty datagram; send one byte at least")
            self._pump.wanted(seconds)
            request = self._pump.requester.send_echo(bytes(memoryview(data)), timeout=seconds, now=self._pump.now())
        except TwistedUDPError as error:
            return fail(error)
        return self._deferred(request)

    def _request(
        self, method: str, params: tuple[object, ...], kind: Kind, timeout: float | Default, idempotent: bool
    ) -> Deferred[Any]:
        seconds = self.timeout if timeout is DEFAULT else checked_timeout(timeout)
        pump = self._pump
        try:
            if not self.running:
                self._check_running()
            if self._dtls is not None:
                pump.wanted(seconds)
            request = pump.requester.send_request(
                method, params, timeout=seconds, now=pump.now(), kind=kind, idempotent=idempotent
            )
        except TwistedUDPError as error:
            if isinstance(error, CircuitOpen):
                self._lookup.doubted()
            return fail(error)
        if len(request.payload) > SAFE_PAYLOAD:
            self._warn_of_size(method, len(request.payload))
        return self._deferred(request)

    def _deferred(self, request: PendingRequest) -> Deferred[Any]:
        deferred = _Call(self._canceller)
        deferred.request = request
        request.context = deferred
        if not self._lookup.is_final:
            self._lookup.needed()
        self._pump.pump()
        return deferred

    def _cancel(self, deferred: Any) -> None:
        request: PendingRequest = deferred.request
        if not request.done:
            request.context = None  # no cycle is left for the collector
            self._pump.requester.cancel(request, now=self._pump.now())
            self._pump.pump()

    def _deliver(self, request: PendingRequest) -> None:
        deferred: Any = request.context
        request.context = None  # as above
        if deferred.called:
            return  # cancelled by the callback of another request that got its outcome in the same instant
        error = request.error
        if error is None:
            deferred.callback(request.result)
            return
        error = self._pump.explained(error)
        if isinstance(error, (RequestTimedOut, PeerUnreachable, CircuitOpen, DTLSHandshakeFailed)) and self.running:
            self._lookup.doubted()
        deferred.errback(error)

    def _host_of(self, address: Address) -> str:
        return self._lookup.host_of(address)

    def _make_parts(self) -> None:
        """Make the core and what drives it."""
        # The ids must not be guessed; the jitter need not be secret, and the system's generator costs a system call.
        rng = self._rng or random.SystemRandom()
        msgids = message_ids(rng.getrandbits(8 * KEY_SIZE).to_bytes(KEY_SIZE, "big"))
        jitter = self._rng or random.Random(rng.getrandbits(64))  # noqa: S311  # see above
        requester = Requester(msgids=msgids, random=jitter.random, settings=self._settings)
        pump = make_pump(
            self._reactor,
            requester,
            self._deliver,
            interface=self._interface,
            security=self._dtls,
            host_of=self._host_of,
        )
        lookup = ServerLookup(
            self._reactor, self.servers, self._address_family, pump.servers_resolved, pump.resolution_failed
        )
        self._pump, self._lookup = pump, lookup

    def _check_running(self) -> None:
        if not self.running:
            raise ServiceNotRunning(
                "the client service is not running: start it with startService(), or use it in an 'async with'"
            )

    def _warn_of_size(self, method: str, size: int) -> None:
        """Say that a datagram may be cut into fragments on its way, unless it does not leave this machine."""
        if self._large_limit.allowed() and not all(map(is_this_machine, self.servers)):
            _log.warn(
                "a call of {method!r} has {size:,} bytes: more than 1,200 may be cut into fragments on the way, and "
                "the loss of one is the loss of all; send less at once (told once a minute)",
                method=method,
                size=size,
            )
