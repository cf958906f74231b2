"""The port: what Twisted sees of a UDP socket.

Theory of operation: :class:`DatagramPort` stands where ``reactor.listenUDP`` would put its own port. It owns the life
of the socket (bound, listening, stopped) and leaves each datagram to a backend; what exists only while it listens is
a :class:`Life`. Whatever code written for Twisted's port may ask of it is here, so that such code runs unchanged.
"""

from __future__ import annotations

import socket
import warnings
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor, ISystemHandle, IWriteDescriptor
from twisted.logger import Logger
from twisted.python import log
from zope.interface import implementer

from ..errors import LocalError
from ..interfaces import IDatagramPort
from ._addresses import family_of, peer_of
from ._admitting import PortAdmission, check_admission
from ._arguments import check_options
from ._backend import announce, choose_backend
from ._bound import bind, check_bound
from ._errors import cannot_listen, invalid_address
from ._life import Life, PortOptions, prefix_of
from ._multicast import MulticastTransport
from ._stats import DatagramStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.internet.protocol import AbstractDatagramProtocol
    from twisted.python.failure import Failure

    from ..address import Address
    from ..admission import AdmissionPolicy, AdmissionStats
    from ._bound import BoundSocket
    from ._scalar import Refused

__all__ = ["MAX_DATAGRAM_SIZE", "DatagramPort", "PortReactor"]

MAX_DATAGRAM_SIZE: Final = 65535
"""Bytes: no UDP datagram is larger (RFC 768: a 16-bit length), so that none is cut or dropped for its size."""

_log = Logger(namespace="twistedudp.transport")


class PortReactor(Protocol):
    """What a port needs of a reactor: IReactorFDSet and IReactorTime, which any POSIX reactor provides."""

    def addReader(self, reader: Any) -> Any:
        """See ``IReactorFDSet``."""

    def removeReader(self, reader: Any) -> Any:
        """See ``IReactorFDSet``."""

    def addWriter(self, writer: Any) -> Any:
        """See ``IReactorFDSet``."""

    def removeWriter(self, writer: Any) -> Any:
        """See ``IReactorFDSet``."""

    def callLater(self, delay: float, callable: Callable[..., Any]) -> IDelayedCall:  # noqa: A002  # IReactorTime's name
        """See ``IReactorTime``."""


@implementer(IDatagramPort, ISystemHandle, IReadDescriptor, IWriteDescriptor)
class DatagramPort(MulticastTransport):  # budget: six of them are Twisted's own port's, for code written against that
    """A listening UDP port, and the transport of its ``DatagramProtocol``.

    Make one with :func:`listen`. Where it differs from Twisted's own port: datagrams are never cut, ICMP errors do not
    close it but reach ``protocol.peer_unreachable``, ``write`` raises only what the caller did wrong, the start and the
    end of a protocol that is not ``noisy`` are not logged, and ``fileno()`` is not the socket's (``getHandle()``
    returns the socket). docs/port.md has all differences in one table.

    Attributes:
        reactor: The reactor it listens on.
        protocol: The ``DatagramProtocol`` it delivers to.
        interface: The numeric address asked for; ``""`` means all of IPv4.
        port: The port asked for, perhaps 0; ``getHost().port`` is the real one.
        max_datagram_size: Bytes of the largest datagram delivered; larger ones are dropped and counted.
        backend: What reads and writes the socket: ``"mmsg"`` or ``"scalar"``.
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
        reuse_port: bool = False,
        timestamps: bool = False,
        answer_hops: bool = False,
        admission: AdmissionPolicy | None = None,
        backend: str | None = None,
    ) -> None:
        if interface and family_of(interface) is None:
            raise invalid_address(interface, "not an IPv4 or IPv6 address.")
        flags = {"return_path": return_path, "reuse_port": reuse_port, "timestamps": timestamps}
        check_options(protocol, max_datagram_size, receive_buffer, answer_hops=answer_hops, **flags)
        check_bound(bound)
        check_admission(admission)
        self.reactor = reactor
        self.protocol = protocol
        self.interface = interface if bound is None else bound.interface
        self.port = port if bound is None else bound.port
        self.max_datagram_size = max_datagram_size
        self._choice = choose_backend(backend)
        self.backend = self._choice.name
        self._stats = DatagramStats()
        admitted = None if admission is None else PortAdmission(admission)
        self._options = PortOptions(receive_buffer, return_path, reuse_port, timestamps, answer_hops, admitted)
        self._bound = bound
        self._prefix = prefix_of(protocol)
        self._host: Address = (self.interface or "0.0.0.0", self.port)  # noqa: S104  # what "" stands for
        self._life: Life | None = None
        self._closing: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        where = f"on {self._host[1]}" if self._life is not None else "not listening"
        return f"<DatagramPort of {self.protocol!r} {where}>"

    @property
    def stats(self) -> DatagramStats:
        """The counters, up to date; always the same object."""
        if self._life is not None:
            self._life.backend.refresh_stats()
        return self._stats

    @property
    def admission_stats(self) -> AdmissionStats | None:
        """What admission has refused, up to date; None where everybody is let in."""
        admission = self._options.admission
        if admission is None:
            return None
        if self._life is not None:
            self._life.backend.refresh_stats()
        return admission.stats

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the kernel received the datagrams being delivered, in nanoseconds since the epoch (SO_TIMESTAMPNS).

        One in ``datagramReceived``, as many as the batch has in ``datagrams_received``; none at other times and on
        ports without ``timestamps=True``.
        """
        return () if self._life is None else self._life.backend.arrival_times

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address.

        On a socket bound to a host's own address it is always False: the kernel delivers no such datagram there.
        """
        return self._life is not None and self._life.backend.delivering_to_group

    @property
    def addressFamily(self) -> socket.AddressFamily:
        """``AF_INET`` or ``AF_INET6``, as Twisted's ports have it."""
        return socket.AF_INET6 if ":" in self._host[0] else socket.AF_INET

    @property
    def maxPacketSize(self) -> int:
        """``max_datagram_size``, as Twisted's ports call it."""
        return self.max_datagram_size

    @property
    def _realPortNumber(self) -> int | None:
        """The UDP port while it listens: a name of Twisted's own ports that its tests, and so perhaps others', use."""
        return None if self._life is None else self._host[1]

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
            options = self._options
            bound = bind(
                self.port, self.interface, receive_buffer=options.receive_buffer, reuse_port=options.reuse_port
            )
        if bound.shortfall:
            _log.warn("{shortfall}", shortfall=bound.shortfall)
        try:
            life = self._life = Life(self, bound, self.backend, self._stats, self._options)
        except OSError as error:  # too many open files
            raise cannot_listen(self.interface, self.port, error) from error
        announce(self._choice)
        self._host = bound.host, bound.port
        self._log_line(f"{self._prefix} starting on {bound.port}")
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
        """Stop listening; deprecated, as on Twisted's ports."""
        warnings.warn("Please use stopListening() to disconnect port", DeprecationWarning, stacklevel=2)
        self.stopListening()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002  # IFileDescriptor passes it
        """Close the socket and stop the protocol; the reactor calls it also when it shuts down."""
        life = self._life
        if life is None:
            return
        life.stopping = True
        life.backend.stop()
        self.reactor.removeReader(self)
        closing, self._closing = self._closing, None
        if closing is not None and closing.active():
            closing.cancel()
        self._log_line(f"(UDP Port {self._host[1]} Closed)")
        try:  # before the socket is closed, as Twisted's port does: a last datagram may be sent
            self.protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        finally:
            self._end(life)

    def doRead(self) -> None:
        """Deliver what has arrived, within the bounds of a turn."""
        if self._life is not None:
            self._life.backend.read_turn()

    def doWrite(self) -> None:
        """Send what waited for room in the send buffer; called by the reactor where there is no epoll."""
        if self._life is not None:
            self._life.backend.send_waiting()

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
            TypeError: ``packet`` is not bytes.
            OSError: ``EINVAL`` for UDP port 0 and for a link-local address without its scope.
        """
        life = self._life
        if life is None:
            self._stats.written_after_stop += 1
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
            self._stats.written_after_stop += len(datagrams)
            return []
        return life.backend.send_batch(datagrams)

    def path_mtu(self, host: str) -> int | None:
        """Return the largest packet that reaches a host whole, in bytes with its IP header, as far as routers told.

        They tell by ICMP "fragmentation needed" (RFC 1191) and "packet too big" (RFC 8201), once a datagram was too
        large; the kernel then cuts what is larger into fragments. None where nothing was told.

        Args:
            host: The peer's numeric address.
        """
        return None if self._life is None else self._life.reports.path_mtu(host)

    def connect(self, host: str, port: int) -> None:
        """Let this port have one peer: only its datagrams are delivered, and ``write`` needs no address.

        Raises:
            RuntimeError: It is connected already.
            twisted.internet.error.InvalidAddressError: ``host`` is a name, or of the wrong family for this port.
            OSError: There is no route to it, or the port does not listen.
        """
        life = self._listening()
        if family_of(host) is None:
            raise invalid_address(host, "connect() only accepts IP addresses, not hostnames")
        life.backend.connect((host, port))
        self._host = peer_of(life.handle.getsockname())

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that this port is bound to; after its end, the one that it was bound to."""
        host, port = self._host
        return IPv6Address("UDP", host, port) if ":" in host else IPv4Address("UDP", host, port)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Allow or forbid writing to broadcast addresses; forbidden at first."""
        self._listening().handle.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, bool(enabled))

    def getBroadcastAllowed(self) -> bool:
        """Tell whether writing to broadcast addresses is allowed."""
        return bool(self._listening().handle.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def logPrefix(self) -> str:
        """Return the prefix of what is logged while the port reads."""
        return f"{self._prefix} (UDP)"

    def _end(self, life: Life) -> None:
        life.close()
        if self._options.admission is not None:
            self._options.admission.close()
        self._life = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def _log_line(self, text: str) -> None:
        """Log a line, unless the protocol's owner says the same in its own words and has made the protocol quiet."""
        if getattr(self.protocol, "noisy", True):
            log.msg(text)

    def _listening(self) -> Life:
        if self._life is None:
            raise LocalError("this UDP port does not listen; call listen() for a new one")
        return self._life
