"""``UDPServerService`` on real sockets, in this process: what needs a reactor with file descriptors."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twistedudp.echo import EchoProtocol
from twistedudp.server import UDPServerService
from twistedudp.transport import bind

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor

    from twistedudp.address import Address


@implementer(IReactorFDSet)
class Readers(Clock):
    """A reactor that the test turns by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[IReadDescriptor] = set()

    def addReader(self, reader: IReadDescriptor) -> None:
        """Watch a descriptor."""
        self.readers.add(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Watch it no more."""
        self.readers.discard(reader)

    def addWriter(self, writer: object) -> None:
        """Refuse: a UDP port never waits to write."""
        raise AssertionError(writer)

    removeWriter = addWriter

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """Watch nothing any more."""
        gone: list[IReadDescriptor | IWriteDescriptor] = [*self.readers]
        self.readers.clear()
        return gone

    def getReaders(self) -> list[IReadDescriptor]:
        """Return what is watched."""
        return list(self.readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        """Return nothing."""
        return []


def address_of(service: UDPServerService) -> Address:
    """Return the address of a service that has one."""
    address = service.address
    assert address is not None
    return address


class ServiceTests(SynchronousTestCase):
    """Binding apart from serving."""

    def setUp(self) -> None:
        """Make a reactor and a client."""
        self.reactor = Readers()
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.settimeout(10)
        self.addCleanup(self.client.close)

    def service(self, port: int = 0, **options: Any) -> UDPServerService:
        """Make an echo service."""
        return UDPServerService(self.reactor, port, EchoProtocol, **options)

    def stop(self, service: UDPServerService) -> None:
        """Stop a service and turn the reactor."""
        stopped: Any = service.stopService()
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual((service.address, self.reactor.readers, self.reactor.calls), (None, set(), []))

    def check_echo(self, service: UDPServerService) -> None:
        """Ask for one echo."""
        self.client.sendto(b"hello", address_of(service))
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.assertEqual(self.client.recv(100), b"hello")

    def test_bound_with_privileges(self) -> None:
        """The port is bound, and no protocol made, in privilegedStartService; startService serves on that port."""
        service = self.service()
        service.privilegedStartService()
        address = address_of(service)
        self.assertEqual((service.protocol, self.reactor.readers), (None, set()))
        self.assertRaises(CannotListenError, bind, address[1], "127.0.0.1")
        service.privilegedStartService()
        service.startService()
        self.assertEqual(service.address, address)
        self.check_echo(service)
        assert service.stats is not None
        self.assertEqual(service.stats.datagrams_sent, 1)
        self.stop(service)
        bind(address[1], "127.0.0.1").close()

    def test_started_again(self) -> None:
        """A service with a port of its own takes it again; one that was given a socket binds a new one."""
        given = bind(0, "127.0.0.1")
        service = self.service(given.port, bound=given)
        for _ in range(2):
            service.startService()
            self.assertEqual(address_of(service), (given.host, given.port))
            self.check_echo(service)
            self.stop(service)

    def test_port_in_use(self) -> None:
        """A taken port is told when it is bound, before any code of the protocol runs."""
        with bind(0, "127.0.0.1").take() as holder:
            service = self.service(holder.getsockname()[1])
            error = self.assertRaises(CannotListenError, service.privilegedStartService)
            self.assertEqual(error.socketError.errno, errno.EADDRINUSE)

    def test_stopped_before_serving(self) -> None:
        """Between the two steps the port can be given back."""
        service = self.service()
        service.privilegedStartService()
        port = address_of(service)[1]
        self.assertIsNone(service.stopService())
        bind(port, "127.0.0.1").close()
