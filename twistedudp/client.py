"""The client: calls that always end, as a service or in an ``async with``.

Theory of operation: a :class:`UDPClientService` owns one :class:`~twistedudp.core.Requester`, which knows all that is
waiting, and the pump that drives it. It resolves its server's name by the reactor's resolver when it starts, and again
when a call is made after that failed; calls that are made meanwhile wait in the core, where their deadline runs.
Every call becomes a Deferred that fires once: with its result, with an error of :mod:`twistedudp.errors`, or on cancel.
"""

from __future__ import annotations

import enum
import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail

from ._pump import RequestPump
from ._resolve import resolve
from .address import LARGEST_PAYLOAD, canonical, is_group, is_ip, is_ipv6, is_unspecified
from .core import KEY_SIZE, Kind, Requester, RequesterSettings, message_ids
from .errors import (
    BroadcastNotSupported,
    DecodeError,
    HostNotFound,
    InvalidAddress,
    ServiceNotRunning,
    TwistedUDPError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ._resolve import AddressFamily
    from .address import Address
    from .core import PendingRequest, RequesterStats

__all__ = ["DEFAULT", "Default", "UDPClientService"]

_T = TypeVar("_T")


class Default(enum.Enum):
    """The type of :data:`DEFAULT`."""

    DEFAULT = "the client's timeout"


DEFAULT: Final = Default.DEFAULT
"""As a call's timeout: the one that the client was given."""


class UDPClientService(Service):
    """Call the methods of an rpc server, or speak to an echo server, over UDP.

    Use it as a service (``setServiceParent``, or ``startService`` and ``stopService``) or as
    ``async with UDPClientService(reactor, host, port) as client``, which needs no Application.

    Args:
        reactor: The reactor.
        host: The server's name or numeric address.
        port: Its UDP port.
        timeout: Seconds that a call may take where it does not say itself.
        max_datagram_size: Bytes of the largest request; the default is what our servers take by default.
        address_family: Use only the addresses of this family.
        interface: The numeric local address to send from; empty for what the kernel chooses.
        retry_refused: Go on asking a server that refuses, until the deadline: for servers that are being restarted.
        rng: Where message ids and jitter come from; the default is the operating system's generator.

    Raises:
        InvalidAddress: The port, the host or the interface cannot be one.
        BroadcastNotSupported: The host is a broadcast or multicast address.
        ValueError: The timeout or the size cannot be one.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        timeout: float = 2.0,
        max_datagram_size: int = 8192,
        address_family: AddressFamily | None = None,
        interface: str = "",
        retry_refused: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        _check_address(host, port, interface)
        if not 1 <= max_datagram_size <= LARGEST_PAYLOAD:
            raise ValueError(f"max_datagram_size={max_datagram_size!r}: it must be from 1 to {LARGEST_PAYLOAD:,} bytes")
        self.host = host
        self.port = port
        self.timeout = _check_timeout(timeout)
        self._reactor = reactor
        self._address_family = _family_of(interface, address_family)
        self._interface = interface
        self._rng = rng or random.SystemRandom()
        self._settings = RequesterSettings(max_datagram_size=max_datagram_size, retry_refused=retry_refused)
        self._pump = self._make_pump()
        self._resolving: object | None = None
        self._resolved = False

    def __repr__(self) -> str:
        return f"<UDPClientService for {self.host} port {self.port}, {'' if self.running else 'not '}running>"

    @property
    def stats(self) -> RequesterStats:
        """The counters since the service was last started."""
        return self._pump.requester.stats

    def startService(self) -> None:
        """Begin to take calls, and look up the server's name."""
        if self.running:
            return
        self._pump = self._make_pump()
        self._resolved = False
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self._resolve()

    def stopService(self) -> Deferred[Any]:
        """Stop: every call that is waiting fails with ``RequestAborted``, and the local ports are closed.

        Returns:
            A Deferred that fires when the ports are free.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # nor here
        self._resolving = None
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
            ``RequestTimedOut`` (nothing came), ``PeerUnreachable`` (nobody listens there), ``PeerReflects`` (an echo
            server listens there), ``HostNotFound``, ``RequestAborted`` (the service was stopped meanwhile),
            ``ServiceNotRunning``, ``EncodeError``, ``DatagramTooLarge``, ``TooManyRequests``, or ``DecodeError`` (the
            result is not a ``returns``). Cancelling it forgets the call.

        Raises:
            ValueError: The timeout is no positive number of seconds; ``None`` is none: no call waits for ever.
        """
        deferred = self._request(method, params, Kind.CALL, timeout, idempotent)
        if returns is not None:
            deferred.addCallback(_convert_untrusted, returns)
        return deferred

    def notify(self, method: str, *params: object) -> None:
        """Call a method whose result does not matter: one datagram, which may be lost, and no answer.

        Args:
            method: Its name.
            *params: Its parameters, as for :meth:`call`.

        Raises:
            ServiceNotRunning: The service is not started.
            EncodeError: A parameter cannot be sent.
            DatagramTooLarge: The parameters are too much for one datagram.
        """
        self._check_running()
        self._pump.requester.send_notification(method, params)
        self._pump.pump()
        self._resolve()

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
        seconds = self.timeout if timeout is DEFAULT else _check_timeout(timeout)
        try:
            self._check_running()
            request = self._pump.requester.send_echo(bytes(memoryview(data)), timeout=seconds, now=self._pump.now())
        except TwistedUDPError as error:
            return fail(error)
        return self._deferred(request)

    def _request(
        self, method: str, params: tuple[object, ...], kind: Kind, timeout: float | Default, idempotent: bool
    ) -> Deferred[Any]:
        seconds = self.timeout if timeout is DEFAULT else _check_timeout(timeout)
        try:
            self._check_running()
            request = self._pump.requester.send_request(
                method, params, timeout=seconds, now=self._pump.now(), kind=kind, idempotent=idempotent
            )
        except TwistedUDPError as error:
            return fail(error)
        return self._deferred(request)

    def _deferred(self, request: PendingRequest) -> Deferred[Any]:
        deferred: Deferred[Any] = Deferred(partial(self._cancel, request))
        request.context = deferred
        self._pump.pump()
        if not self._resolved:
            self._resolve()
        return deferred

    def _cancel(self, request: PendingRequest, _: Deferred[Any]) -> None:
        self._pump.requester.cancel(request)

    def _deliver(self, request: PendingRequest) -> None:
        deferred = cast("Deferred[object]", request.context)
        if deferred.called:
            return  # cancelled by the callback of another request that got its outcome in the same instant
        if request.error is None:
            deferred.callback(request.result)
        else:
            deferred.errback(request.error)

    def _make_pump(self) -> RequestPump:
        msgids = message_ids(self._rng.getrandbits(8 * KEY_SIZE).to_bytes(KEY_SIZE, "big"))
        requester = Requester(msgids=msgids, random=self._rng.random, settings=self._settings)
        return RequestPump(self._reactor, requester, self._interface, self._deliver)

    def _check_running(self) -> None:
        if not self.running:
            raise ServiceNotRunning(
                "the client service is not running: start it with startService(), or use it in an 'async with'"
            )

    def _resolve(self) -> None:
        """Find the server's addresses, unless they are known or being looked up."""
        if self._resolved or self._resolving is not None:
            return
        self._resolving = lookup = object()
        resolve(self._reactor, self.host, self.port, self._address_family, partial(self._resolution, lookup))

    def _resolution(self, lookup: object, addresses: list[Address]) -> None:
        if lookup is not self._resolving:
            return  # the service was stopped meanwhile
        self._resolving = None
        requester = self._pump.requester
        if addresses:
            self._resolved = True
            requester.servers_resolved(addresses, now=self._pump.now())
        else:
            reason = f"no {self._address_family} address" if self._address_family else ""
            requester.resolution_failed(HostNotFound(self.host, reason))
        self._pump.pump()


def _check_address(host: str, port: object, interface: str) -> None:
    if not host:
        raise InvalidAddress(f"host={host!r}: it must be a name or a numeric address")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidAddress(f"port={port!r}: a server's port is from 1 to 65535")
    host = canonical(host) if is_ip(host) else host
    interface = canonical(interface) if is_ip(interface) else interface
    if is_ip(host) and is_group(host):
        raise BroadcastNotSupported(host)
    if is_ip(host) and is_unspecified(host):
        raise InvalidAddress(f"host={host!r}: that means every address of a machine; name one, such as 127.0.0.1")
    try:
        host.encode("idna")  # as the resolver will, whose error would go to the log only
    except UnicodeError as error:
        raise InvalidAddress(f"host={host!r}: no host can have such a name: {error}") from None
    if interface and not is_ip(interface):
        raise InvalidAddress(f"interface={interface!r}: it must be a numeric address of this machine")
    if interface and is_ip(host) and is_ipv6(interface) is not is_ipv6(host):
        raise InvalidAddress(f"interface={interface!r} and host={host!r} are of different address families")


def _family_of(interface: str, wanted: AddressFamily | None) -> AddressFamily | None:
    """Return the family to use: that of the address to send from, if there is one."""
    if not interface:
        return wanted
    family: AddressFamily = "ipv6" if is_ipv6(canonical(interface)) else "ipv4"
    if wanted not in (None, family):
        raise InvalidAddress(f"interface={interface!r} and address_family={wanted!r} contradict each other")
    return family


def _check_timeout(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= sys.float_info.max:
        raise ValueError(f"timeout={timeout!r}: it must be a positive number of seconds, since no call waits for ever")
    return float(timeout)


def _convert_untrusted(result: object, returns: type[_T]) -> _T:
    import msgspec  # noqa: PLC0415  # only calls with a type to return need it

    try:
        return msgspec.convert(result, returns)
    except msgspec.ValidationError as error:
        name = getattr(returns, "__name__", repr(returns))
        raise DecodeError(f"the server's result is not a {name}: {error}") from error
