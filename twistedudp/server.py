"""A UDP server as a Twisted service: start it, stop it, start it again.

Theory of operation: binding a port may need a right that serving must not have, so the two are apart.
``privilegedStartService`` binds; ``startService``, which ``twistd`` calls after it gave up root's rights, makes the
protocol and starts it on what was bound. Whoever needs the port bound even earlier, so that an error can be told before
a daemon forks, binds by :func:`twistedudp.transport.bind` and hands the result over as ``bound``.

The service logs one line when it listens and one when it has stopped. It turns the port's own lines off
(``protocol.noisy``), which say the same in other words.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import AbstractDatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import transport
from ._alarm import steady_clock, wall_clock
from ._draining import Draining, check_timeout, work_of
from ._over_dtls import over_dtls
from .address import format_address, is_ip, is_loopback, unmapped
from .admission import AdmissionPolicy
from .discovery import DISCOVERY_PORT

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort

    from .address import Address
    from .admission import AdmissionStats
    from .discovery._answers import AnswerStats
    from .discovery._responder import Discoverable
    from .dtls import DTLSContext, DTLSLimits, DTLSStats
    from .methods import RPCMethods
    from .transport import BoundSocket, DatagramStats

    Servable: TypeAlias = AbstractDatagramProtocol | RPCMethods

__all__ = ["DEFAULT", "Default", "UDPServerService", "as_protocol"]

_log = Logger(namespace="twistedudp")


class Default(enum.Enum):
    """The type of :data:`DEFAULT`."""

    DEFAULT = "what the bound address asks for"


DEFAULT: Final = Default.DEFAULT
"""As a protection: on where the service is bound to anything but loopback."""


class UDPServerService(Service):  # budget: what was asked for, and what serves at present
    """Serves a protocol on a UDP port, as an ``IService``.

    Args:
        reactor: Provides ``IReactorUDP``, or ``IReactorFDSet`` for a port of ours.
        port: The port number; 0 picks a free one, and another at each start.
        protocol_or_factory: A ``DatagramProtocol``, an ``RPCMethods``, or a callable without arguments that returns
            one of them; it is called at each start.
        interface: A numeric address of this machine; ``"0.0.0.0"`` all of IPv4, ``"::"`` all of both.
        max_datagram_size: Bytes; a larger datagram is counted and dropped, never cut.
        receive_buffer: Bytes that the kernel shall keep for datagrams not yet read; ``None`` asks for 4 MiB and
            is content with less.
        max_request_size: Bytes of the largest request where an ``RPCMethods`` is served; larger ones are counted and
            dropped. The client's own limit is its ``max_datagram_size``.
        cache_entries: Where an ``RPCMethods`` is served: requests whose responses are kept, so that one that is
            repeated because its response was lost does not run again. Where there is no room, new ones are answered
            ``busy``.
        cache_size: Bytes of requests and responses kept from which on no new request is let in.
        cache_age: Seconds for which a response is kept after its request was last seen.
        prove_addresses: Where an ``RPCMethods`` or an ``RPCServerProtocol`` is served: whether an address must be
            proven before it is sent more than three times what it sent, see
            :class:`~twistedudp.protocol.RPCServerProtocol`; by default wherever the service is bound to anything but
            loopback, and as a protocol says itself.
        token_key: The secret for this, of 32 bytes or more, where several processes are to know one another's tokens.
        max_wait: Where an ``RPCMethods`` is served: seconds after which nobody waits any more for the answer to a
            request that has just come. One that has waited in the socket for so long is dropped and counted
            (``rejected["stale"]``), so that a server with too much to do answers those who still wait; ``None`` drops
            none. It turns ``timestamps`` on.
        bound: A socket that is bound already, for the first start; the service owns it from now on.
        dtls: Speak DTLS with clients, with this certificate (``DTLSContext.server(...)``, docs/dtls.md); ``None`` for
            plain UDP. Any protocol is served so, unchanged. A datagram carries 1,163 bytes at most.
        dtls_limits: The bounds of it, such as the sessions and the MTU; ``None`` for the usual ones.
        timestamps: Have the kernel tell when each datagram arrived (``port.arrival_times``; Linux only). The built-in
            method ``rpc.probe`` then tells times that the load of this process does not distort.
        admission: Who may send to the service and how often; by default ``AdmissionPolicy()``, wherever the service is
            bound to anything but loopback. ``None`` lets everybody in.
        discoverable: The name under which :func:`twistedudp.discover` is to find this server; ``None`` for not at all:
            then no group is joined and no question answered. It needs a second socket, on ``discovery_port``, which
            servers of one user share; by default it has admission in any case.
        discovery_port: Where questions are heard. Whoever asks must name it too if it is another than 10032.
        discovery_bound: That socket, bound already, for the first start; owned from now on.

    Attributes:
        protocol: The protocol that is being served; ``None`` before the first start.

    Raises:
        twistedudp.errors.LocalError: A server of this name or on this address cannot be discovered, nor can one
            with DTLS.
    """

    _served: IListeningPort | None = None

    def __init__(
        self,
        reactor: Any,
        port: int,
        protocol_or_factory: Servable | Callable[[], Servable],
        interface: str = "127.0.0.1",
        *,
        max_datagram_size: int = 65535,
        receive_buffer: int | None = None,
        max_request_size: int = 8192,
        cache_entries: int = 262144,
        cache_size: int = 64 * 1024 * 1024,
        cache_age: float = 30.0,
        prove_addresses: bool | Default = DEFAULT,
        token_key: bytes | None = None,
        max_wait: float | None = 2.0,
        bound: BoundSocket | None = None,
        dtls: DTLSContext | None = None,
        dtls_limits: DTLSLimits | None = None,
        timestamps: bool = False,
        admission: AdmissionPolicy | Default | None = DEFAULT,
        discoverable: str | None = None,
        discovery_port: int = DISCOVERY_PORT,
        discovery_bound: BoundSocket | None = None,
    ) -> None:
        self.protocol: AbstractDatagramProtocol | None = None
        self._reactor, self._port, self._interface = reactor, port, interface
        self._port_options: dict[str, Any] = {"timestamps": timestamps, "max_datagram_size": max_datagram_size}
        self._port_options |= {"receive_buffer": receive_buffer, "admission": _admission(admission, interface, bound)}
        self._dtls = over_dtls(reactor, dtls, dtls_limits, discoverable)
        self._discovery_admission = _admission(admission, "", None)
        self._discovery = _discovery(reactor, discoverable, interface, discovery_port, discovery_bound)
        self._rpc_options: dict[str, Any] = {
            "max_request_size": max_request_size, "token_key": token_key, "max_wait": max_wait,
            "prove_addresses": _is_exposed(interface, bound) if prove_addresses is DEFAULT else prove_addresses,
            "cache_entries": cache_entries, "cache_size": cache_size, "cache_age": cache_age,
        }  # fmt: skip
        self._protocol_or_factory, self._bound = protocol_or_factory, bound
        self._listening: IListeningPort | None = None
        self._draining: Draining | None = None

    @property
    def draining(self) -> bool:
        """Whether it lets nothing new in, and stops when what runs has been answered."""
        return self._draining is not None

    @property
    def stats(self) -> DatagramStats | None:
        """The counters of the port in use, or of the last one, with what the kernel counts brought up to date.

        ``None`` before the first start, and where the port is not one of ours.
        """
        return getattr(self._served, "stats", None)

    @property
    def admission_stats(self) -> AdmissionStats | None:
        """What admission has refused on the port in use, or on the last one; ``None`` as for :attr:`stats`.

        ``None`` as well where everybody is let in.
        """
        return getattr(self._served, "admission_stats", None)

    @property
    def dtls_stats(self) -> DTLSStats | None:
        """The counters of sessions and handshakes; ``None`` without DTLS, and before the first start."""
        return None if self._dtls is None else self._dtls.stats

    @property
    def discovery_stats(self) -> AnswerStats | None:
        """The counters of questions and answers; ``None`` unless it is discoverable and was started."""
        responder = None if self._discovery is None else self._discovery.responder
        return None if responder is None else responder.stats

    @property
    def address(self) -> Address | None:
        """The address really bound, ``None`` unless the port is bound."""
        if self._listening is not None:
            bound: Any = self._listening.getHost()  # an IPv4Address or IPv6Address, which IAddress does not say
            return unmapped(bound.host), bound.port
        if self._bound is not None:
            return self._bound.host, self._bound.port
        return None

    def privilegedStartService(self) -> None:
        """Bind the port, unless it is bound already.

        Raises:
            twisted.internet.error.CannotListenError: The port is taken, not allowed, or not on this machine.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        if self._bound is None and self._listening is None and IReactorFDSet.providedBy(self._reactor):
            receive_buffer = self._port_options["receive_buffer"]
            self._bound = transport.bind(self._port, self._interface, receive_buffer=receive_buffer)
            if self._discovery is not None:
                self._discovery.bind()

    def startService(self) -> None:
        """Make the protocol and serve it; binds the port first where that has not been done.

        Raises:
            TypeError: The factory returned nothing that can be served.
            twisted.internet.error.CannotListenError: The port is taken, not allowed, or not on this machine.
        """
        if self._listening is not None:
            return
        bound, self._bound = self._bound, None
        try:
            if self._discovery is not None:
                self._discovery.bind()
            protocol = self._make_protocol()
            protocol.noisy = False
            options = {**self._port_options, "answer_hops": getattr(protocol, "reflects", False) is True}
            options["timestamps"] |= getattr(protocol, "wants_arrival_times", False)
            over = protocol if self._dtls is None else self._dtls.wrap(protocol)
            listening = transport.listen(self._reactor, self._port, over, self._interface, bound=bound, **options)
            if self._discovery is not None:
                self._start_discovery(self._discovery, listening, protocol)
        except BaseException:
            if bound is not None:
                bound.close()
            self._close_discovery()
            raise
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.protocol = protocol
        self._listening = self._served = listening
        _log.info("{server} is listening on {address} (UDP)", server=self._label(), address=self._address_text())

    def drain(self, timeout: float) -> Deferred[None]:
        """Stop when what runs has been answered: new requests are refused, and repeated ones still get their answer.

        A protocol takes part by a method ``drain``, as that of ``RPCMethods`` does (see
        :class:`~twistedudp.interfaces.IDrainable`); without it, as where nothing runs, the service stops at once. It
        cannot be discovered any more from now on. A call of :meth:`stopService` meanwhile ends what still runs.

        Args:
            timeout: Seconds after which what still runs is ended, at the latest.

        Returns:
            A Deferred that fires with ``None`` when the port is free.

        Raises:
            ValueError: The timeout is not a number from 0 on.
        """
        check_timeout(timeout)
        if self._draining is None:
            work = work_of(self.protocol) if self._listening is not None and timeout > 0 else None
            if work is None or work.called:
                return self.stopService() or succeed(None)
            if self._discovery is not None:
                self._discovery.stop()
            self._draining = Draining(self._reactor, work, timeout, self.stopService, self._label())
        return self._draining.wait()

    def stopService(self) -> Deferred[Any] | None:
        """Stop serving at once; see :meth:`drain` for a stop that lets running requests be answered.

        Returns:
            A Deferred that fires with ``None`` when the port is free; ``None`` if the service was not serving.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        if self._bound is not None:
            self._bound.close()
            self._bound = None
        self._close_discovery()
        if self._listening is None:
            return None
        address = self._address_text()
        listening, self._listening = self._listening, None
        stopped: Deferred[Any] = maybeDeferred(listening.stopListening)
        if self._discovery is not None:
            stopped = gatherResults([self._discovery.stop(), stopped], consumeErrors=True)

        def tell(result: object) -> object:
            _log.info("{server} has stopped listening on {address} (UDP)", server=self._label(), address=address)
            return result if isinstance(result, Failure) else None

        stopped.addBoth(tell)
        draining, self._draining = self._draining, None
        if draining is not None:
            draining.end(stopped)
        return stopped

    def _start_discovery(self, discovery: Discoverable, listening: IListeningPort, protocol: object) -> None:
        """Let the server be discovered; where that fails, it does not listen either.

        Questions come to a port that is bound to all addresses, whatever the service is bound to.
        """
        try:
            label = self.name or _short_name(protocol)
            discovery.start(listening, protocol, label, admission=self._discovery_admission)
        except BaseException:
            listening.stopListening()
            raise

    def _close_discovery(self) -> None:
        if self._discovery is not None:
            self._discovery.close()

    def _make_protocol(self) -> AbstractDatagramProtocol:
        made = self._protocol_or_factory
        is_factory = callable(made) and not isinstance(made, AbstractDatagramProtocol)
        if is_factory:
            made = made()  # type: ignore[operator]  # it is callable
        clocks = {"clock": steady_clock(self._reactor), "wall_clock": wall_clock(self._reactor)}
        protocol = as_protocol(made, **clocks, **self._rpc_options)
        if isinstance(made, AbstractDatagramProtocol) and hasattr(made, "trust_addresses"):  # it was made without them
            self._prove_as_told(made)
        if not is_factory:  # the same methods again: what they have run is remembered over a stop and a start
            self._protocol_or_factory = protocol
        return protocol

    def _prove_as_told(self, protocol: Any) -> None:
        """Hand over to a protocol of ours what this service was told about the proof of addresses, if it was."""
        if self._rpc_options["token_key"] is not None:
            protocol.use_token_key(self._rpc_options["token_key"])
        if not self._rpc_options["prove_addresses"] and _is_exposed(self._interface, None):
            protocol.trust_addresses()

    def _label(self) -> str:
        return self.name or type(self.protocol).__name__

    def _address_text(self) -> str:
        return format_address(self.address or ("", self._port))


def _is_exposed(interface: str, bound: BoundSocket | None) -> bool:
    """Tell whether datagrams can come from other machines to what is bound, or will be."""
    host = interface if bound is None else bound.host
    return not (is_ip(host) and is_loopback(host))


def _admission(
    wanted: AdmissionPolicy | Default | None, interface: str, bound: BoundSocket | None
) -> AdmissionPolicy | None:
    """Return the policy that a service's port is to have."""
    if not isinstance(wanted, Default):
        return wanted
    return AdmissionPolicy() if _is_exposed(interface, bound) else None


def _short_name(protocol: object) -> str:
    """Return what a protocol is called where its class is all that is known: ``echo`` for an ``EchoProtocol``."""
    name = type(protocol).__name__
    return name.removesuffix("Protocol").lower() or name


def _discovery(
    reactor: Any, name: str | None, interface: str, port: int, bound: BoundSocket | None
) -> Discoverable | None:
    """Return what lets a service be found under a name, None where it has no name."""
    if name is None:
        return None
    from .discovery._responder import Discoverable  # noqa: PLC0415  # only who asks for it pays for it

    return Discoverable(reactor, name, interface, port, bound)


def as_protocol(servable: object, **rpc_options: Any) -> AbstractDatagramProtocol:
    """Return what a port can serve: a protocol as it is, ``RPCMethods`` inside an ``RPCServerProtocol``.

    Args:
        servable: The one or the other.
        rpc_options: What :class:`~twistedudp.protocol.RPCServerProtocol` takes beside the methods.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(servable, AbstractDatagramProtocol):
        return servable
    from .methods import RPCMethods  # noqa: PLC0415  # an echo server needs no codec, and its start is timed

    if isinstance(servable, RPCMethods):
        from .protocol import RPCServerProtocol  # noqa: PLC0415  # see above

        return RPCServerProtocol(servable, **rpc_options)
    raise TypeError(f"{servable!r} is neither a DatagramProtocol nor an RPCMethods; a UDP server serves one of these")
