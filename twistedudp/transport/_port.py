"""The port: what Twisted sees of a UDP socket.

Theory of operation: :class:`DatagramPort` stands where ``reactor.listenUDP`` would put its own port. It owns the life
of the socket (bound, listening, stopped) and leaves each datagram to a backend. What it registers with the reactor on
Linux is not the socket but a private epoll descriptor that holds the socket alone: a socket whose error queue is used
raises EPOLLERR, on which the epoll and poll reactors close a descriptor for good and uvloop stops reading, whereas an
epoll descriptor is only ever readable. It needs no system call of its own: reading the socket empties it.
"""

from __future__ import annotations

import os
import select
from socket import SO_BROADCAST, SOL_SOCKET
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ILoggingContext, IReactorFDSet, IReadDescriptor, ISystemHandle
from twisted.logger import Logger
from twisted.python import log
from zope.interface import implementer

from ..errors import LocalError
from ..interfaces import IDatagramPort
from . import _kernel
from ._addresses import family_of, peer_of
from ._batching import BatchingBackend
from ._bound import bind
from ._errors import cannot_listen, invalid_address
from ._routes import Routes
from ._scalar import ScalarBackend
from ._stats import DatagramStats
from ._unreachable import UnreachableReports

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IListeningPort
    from twisted.internet.protocol import AbstractDatagramProtocol
    from twisted.python.failure import Failure

    from ..address import Address
    from ._bound import BoundSocket
    from ._scalar import Backend, Refused

__all__ = ["MAX_DATAGRAM_SIZE", "DatagramPort", "listen"]

MAX_DATAGRAM_SIZE: Final = 65535
"""Bytes: no UDP datagram is larger (RFC 768: a 16-bit length), so that none is cut or dropped for its size."""

_log = Logger(namespace="twistedudp.transport")


class _Life:
    """What exists from startListening to the end of stopListening."""

    __slots__ = ("backend", "epoll", "handle", "prefix", "stopping")

    def __init__(self, handle: socket.socket, epoll: select.epoll | None, backend: Backend, prefix: str) -> None:
        self.handle = handle
        self.epoll = epoll
        self.backend = backend
        self.prefix = prefix
        self.stopping = False

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self.handle.fileno() if self.epoll is None else self.epoll.fileno()

    def close(self) -> None:
        """Close both descriptors."""
        if self.epoll is not None:
            self.epoll.close()
        self.handle.close()


class PortReactor(Protocol):
    """What a port needs of a reactor: IReactorFDSet and IReactorTime, which any POSIX reactor provides."""

    def addReader(self, reader: Any) -> Any:
        """See ``IReactorFDSet``."""

    def removeReader(self, reader: Any) -> Any:
        """See ``IReactorFDSet``."""

    def callLater(self, delay: float, callable: Callable[..., Any]) -> IDelayedCall:  # noqa: A002  # IReactorTime's name
        """See ``IReactorTime``."""


@implementer(IDatagramPort, ISystemHandle, IReadDescriptor)
class DatagramPort:  # budget: six of them are Twisted's own port's, for code written against that
    """A listening UDP port, and the transport of its ``DatagramProtocol``.

    Make one with :func:`listen`. Where it differs from Twisted's own port: datagrams are never cut, ICMP errors do not
    close it but reach ``protocol.peer_unreachable``, ``write`` raises only what the caller did wrong, the start and the
    end of a protocol that is not ``noisy`` are not logged, and ``fileno()`` is not the socket's (``getHandle()``
    returns the socket).

    Attributes:
        reactor: The reactor it listens on.
        protocol: The ``DatagramProtocol`` it delivers to.
        interface: The numeric address asked for; ``""`` means all of IPv4.
        port: The port asked for, perhaps 0; ``getHost().port`` is the real one.
        max_datagram_size: Bytes of the largest datagram delivered; larger ones are dropped and counted.
        stats: The counters, a :class:`DatagramStats`.
    """

    def __init__(
        self,
        reactor: PortReactor,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        max_datagram_size: int = MAX_DATAGRAM_SIZE,
        *,
        receive_buffer: int | None = None,
        bound: BoundSocket | None = None,
        return_path: bool = True,
    ) -> None:
        if interface and family_of(interface) is None:
            raise invalid_address(interface, "not an IPv4 or IPv6 address.")
        if max_datagram_size < 1:
            raise ValueError(f"max_datagram_size={max_datagram_size!r}: it must be at least 1 byte")
        if receive_buffer is not None and receive_buffer < 1:
            raise ValueError(f"receive_buffer={receive_buffer!r}: it must be at least 1 byte")
        self.reactor = reactor
        self.protocol = protocol
        self.interface = interface if bound is None else bound.interface
        self.port = port if bound is None else bound.port
        self.max_datagram_size = max_datagram_size
        self.stats = DatagramStats()
        self._receive_buffer = receive_buffer
        self._bound = bound
        self._return_path = return_path
        self._host: Address = (self.interface or "0.0.0.0", self.port)  # noqa: S104  # what "" stands for
        self._life: _Life | None = None
        self._closing: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        where = f"on {self._host[1]}" if self._life is not None else "not listening"
        return f"<DatagramPort of {self.protocol!r} {where}>"

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address.

        On a socket bound to a host's own address it is always False: the kernel delivers no such datagram there.
        """
        return self._life is not None and self._life.backend.delivering_to_group

    def startListening(self) -> None:
        """Bind the socket unless it is bound, start the protocol and read.

        Raises:
            twisted.internet.error.CannotListenError: The port is taken, needs more rights, the address is not this
                host's, or the port listens already.
        """
        if self._life is not None:
            raise cannot_listen(self.interface, self.port, "this port object listens already")
        bound, self._bound = self._bound, None
        if bound is None:
            bound = bind(self.port, self.interface, receive_buffer=self._receive_buffer)
        if bound.shortfall:
            _log.warn("{shortfall}", shortfall=bound.shortfall)
        life = self._life = self._begin(bound)
        self._host = bound.host, bound.port
        self._announce(f"{life.prefix} starting on {bound.port}")
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            life.backend.stop()
            self._end(life)
            raise
        if not life.stopping:  # startProtocol may have stopped it
            self.reactor.addReader(self)

    def stopListening(self) -> Deferred[None] | None:
        """Stop reading at once, and close the socket in the next reactor turn.

        Returns:
            A Deferred that fires with None when the protocol is stopped and the UDP port is free; None where it was so
            already.
        """
        life = self._life
        if life is None:
            return None
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not life.stopping:
            life.stopping = True
            life.backend.stop()
            self.reactor.removeReader(self)
            self._closing = self.reactor.callLater(0, self.connectionLost)
        return done

    def loseConnection(self) -> None:
        """Stop listening; the name that ``IFileDescriptor`` has for it."""
        self.stopListening()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002  # IFileDescriptor passes it
        """Close the socket and stop the protocol; the reactor calls it also when it shuts down."""
        life = self._life
        if life is None:
            return
        life.stopping = True
        life.backend.stop()
        self.reactor.removeReader(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._closing = None
        self._announce(f"(UDP Port {self._host[1]} Closed)")
        try:  # before the socket is closed, as Twisted's port does: a last datagram may be sent
            self.protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        finally:
            self._end(life)

    def doRead(self) -> None:
        """Deliver what has arrived, within the bounds of a turn."""
        if self._life is not None:
            self._life.backend.read_turn()

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches, -1 when closed. It is not the socket's."""
        return -1 if self._life is None else self._life.fileno()

    def getHandle(self) -> socket.socket | None:
        """Return the socket, None when closed."""
        return None if self._life is None else self._life.handle

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram at once.

        What the network does to it (full buffers, no route, a firewall) is loss: counted in ``stats``, not raised. From
        the end of ``stopListening`` on a datagram is ignored and counted, as other Twisted transports ignore writes
        after their end.

        Args:
            packet: The payload.
            addr: The peer, ``(numeric host, port)``; None only on a connected port.

        Raises:
            twisted.internet.error.MessageLengthError: UDP cannot carry a datagram of this size.
            twisted.internet.error.InvalidAddressError: The host is a name, of the wrong family for this port, or not
                the one that the port is connected to.
            BroadcastNotAllowed: A broadcast address, without ``setBroadcastAllowed(True)``; a PermissionError.
            OSError: ``EINVAL`` for UDP port 0 and for a link-local address without its scope.
        """
        life = self._life
        if life is None:
            self.stats.written_after_stop += 1
        else:
            life.backend.send(packet, addr)

    def writeSequence(self, seq: Iterable[bytes], addr: Address | None = None) -> None:
        """Send one datagram made of several pieces; otherwise as :meth:`write`."""
        self.write(b"".join(seq), addr)

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams at once, in order; otherwise as :meth:`write`.

        For a protocol with ``datagrams_received``: what it writes so while it is given a batch costs less.

        Returns:
            Those that the caller made wrong, each with its peer and with what :meth:`write` would have raised.
        """
        life = self._life
        if life is None:
            self.stats.written_after_stop += len(datagrams)
            return []
        return life.backend.send_batch(datagrams)

    def connect(self, host: str, port: int) -> None:
        """Let this port have one peer: only its datagrams are delivered, and ``write`` needs no address.

        Raises:
            RuntimeError: It is connected already.
            twisted.internet.error.InvalidAddressError: ``host`` is a name, or of the wrong family for this port.
            OSError: There is no route to it, or the port does not listen.
        """
        life = self._listening()
        life.backend.connect((host, port))
        self._host = peer_of(life.handle.getsockname())

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that this port is bound to; after its end, the one that it was bound to."""
        host, port = self._host
        return IPv6Address("UDP", host, port) if ":" in host else IPv4Address("UDP", host, port)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Allow or forbid writing to broadcast addresses; forbidden at first."""
        self._listening().handle.setsockopt(SOL_SOCKET, SO_BROADCAST, bool(enabled))

    def getBroadcastAllowed(self) -> bool:
        """Tell whether writing to broadcast addresses is allowed."""
        return bool(self._listening().handle.getsockopt(SOL_SOCKET, SO_BROADCAST))

    def logPrefix(self) -> str:
        """Return the prefix of what is logged while the port reads."""
        life = self._life
        return "-" if life is None else f"{life.prefix} (UDP)"

    def _begin(self, bound: BoundSocket) -> _Life:
        """Put together what a listening port consists of; only now, after any fork, is an epoll descriptor made."""
        handle = bound.take()
        self.stats.receive_buffer = bound.receive_buffer
        reports = UnreachableReports(handle, self.protocol, self.stats, self.reactor)
        routes = Routes(
            handle, self.stats, wildcard=bound.wildcard, to_group=bound.to_group, return_path=self._return_path
        )
        make = BatchingBackend if hasattr(self.protocol, "datagrams_received") else ScalarBackend
        backend = make(handle, self.protocol, self.stats, routes, reports, size_limit=self.max_datagram_size)
        epoll = None
        if _kernel.LINUX:
            try:
                epoll = select.epoll()
                epoll.register(handle.fileno(), select.EPOLLIN)
            except OSError as error:  # too many open files
                handle.close()
                raise cannot_listen(self.interface, self.port, error) from error
        return _Life(handle, epoll, backend, _prefix_of(self.protocol))

    def _end(self, life: _Life) -> None:
        life.close()
        self._life = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def _announce(self, text: str) -> None:
        """Log a line, unless the protocol's owner says the same in its own words and has made the protocol quiet."""
        if getattr(self.protocol, "noisy", True):
            log.msg(text)

    def _listening(self) -> _Life:
        if self._life is None:
            raise LocalError("this UDP port does not listen; call listen() for a new one")
        return self._life


def listen(
    reactor: Any,
    port: int,
    protocol: AbstractDatagramProtocol,
    interface: str = "",
    max_datagram_size: int = MAX_DATAGRAM_SIZE,
    *,
    receive_buffer: int | None = None,
    bound: BoundSocket | None = None,
    return_path: bool = True,
) -> IListeningPort:
    """Listen on a UDP port; the arguments are those of ``reactor.listenUDP``.

    Args:
        reactor: The reactor. Where it has no file descriptors, or the system is not POSIX, its own ``listenUDP``
            serves: then neither ICMP errors are told nor are the bounds of this port in force.
        port: The UDP port; 0 lets the kernel choose.
        protocol: A ``DatagramProtocol``.
        interface: A numeric address of this host. ``""`` means all of IPv4, ``"::"`` all of IPv6 and IPv4.
        max_datagram_size: Bytes of the largest datagram to deliver; larger ones are dropped and counted.
        receive_buffer: The receive buffer to ask the kernel for, in bytes; a smaller one granted is logged once. None
            asks for 4 MiB and is content with less.
        bound: A socket from :func:`bind` to listen on; ``port``, ``interface`` and ``receive_buffer`` are its own.
        return_path: Let answers leave from the address that was asked, where the port has several. A client, which
            answers nobody, saves a microsecond for each datagram without.

    Returns:
        A :class:`DatagramPort`, or what ``reactor.listenUDP`` returned.

    Raises:
        twisted.internet.error.CannotListenError: The port is taken, needs more rights, or the address is not this
            host's.
        twisted.internet.error.InvalidAddressError: ``interface`` is not a numeric address.
        ValueError: A size is not positive.
    """
    if IReactorFDSet.providedBy(reactor) and os.name == "posix":
        own = DatagramPort(
            cast("PortReactor", reactor),
            port,
            protocol,
            interface,
            max_datagram_size,
            receive_buffer=receive_buffer,
            bound=bound,
            return_path=return_path,
        )
        own.startListening()
        return own
    if bound is not None:
        port, interface = bound.port, bound.interface
        bound.close()
    theirs: IListeningPort = reactor.listenUDP(port, protocol, interface, max_datagram_size)
    return theirs


def _prefix_of(protocol: Any) -> str:
    """Return the protocol's name in the log, as Twisted's ports do."""
    return str(protocol.logPrefix()) if ILoggingContext.providedBy(protocol) else type(protocol).__name__
