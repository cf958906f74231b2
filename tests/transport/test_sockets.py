"""The port on the kernel's own sockets, against plain ones on the other side."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.error import MessageLengthError
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.case import Peer, echo
from tests.contracts.providers import OurPorts, provider_classes
from twistedudp.interfaces import Unreachable
from twistedudp.transport import bind

REACTORS = [provider for provider in provider_classes() if issubclass(provider, OurPorts)]


class SocketTestCase(SynchronousTestCase):
    """Our port on the epoll reactor, and plain sockets."""

    def setUp(self) -> None:
        """Make the reactor."""
        self.use(REACTORS[0])

    def use(self, provider: type[OurPorts]) -> None:
        """Make another reactor."""
        self.provider = provider()
        self.addCleanup(self.provider.close)

    def listen(self, peer: Peer, interface: str = "127.0.0.1", **options: Any) -> Any:
        """Listen until the test ends."""
        port = self.provider.listen(peer, interface, **options)
        self.addCleanup(port.connectionLost)
        return port

    def client(self, host: str = "127.0.0.1", *, source: str | None = None) -> socket.socket:
        """Return a plain socket, bound or to be connected to an address of the given kind."""
        plain = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(plain.close)
        plain.settimeout(5)
        if source is not None:
            plain.bind((source, 0))
        return plain

    def nobody(self, host: str = "127.0.0.1") -> tuple[str, int]:
        """Return an address where nobody listens."""
        with self.client(host, source=host) as plain:
            return host, plain.getsockname()[1]

    def wait(self, condition: Any) -> None:
        """Let things happen until a condition holds, which it must."""
        self.assertTrue(self.provider.run_until(condition))


class WildcardTests(SocketTestCase):
    """A client that has connected its socket sees only answers from the address that it asked."""

    def ask(self, interface: str, host: str) -> None:
        """Ask a wildcard port at an address, which must answer from there; it answers again in a later turn."""
        peer = Peer(echo)
        port = self.listen(peer, interface)
        client = self.client(host)
        client.connect((host, port.getHost().port))
        client.send(b"question")
        self.wait(lambda: bool(peer.received))
        self.assertEqual(b"question", client.recv(100))
        port.write(b"later", (*peer.peers[0],))
        self.assertEqual(b"later", client.recv(100))

    def test_ipv4(self) -> None:
        """On all of IPv4."""
        self.ask("", "127.0.0.5")

    def test_dual_stack_ipv4(self) -> None:
        """On all of both, by IPv4."""
        self.ask("::", "127.0.0.5")

    def test_dual_stack_ipv6(self) -> None:
        """On all of both, by IPv6."""
        self.ask("::", "::1")

    def test_kernel_drops(self) -> None:
        """What does not fit the receive buffer is counted: sent is delivered and dropped, exactly."""
        peer = Peer()
        port = self.listen(peer, "", receive_buffer=4096)
        client = self.client()
        for _ in range(500):
            client.sendto(b"x" * 100, ("127.0.0.1", port.getHost().port))
        self.provider.settle()
        client.sendto(b"last", ("127.0.0.1", port.getHost().port))
        self.wait(lambda: b"last" in peer.payloads)
        self.assertTrue(port.stats.dropped_by_kernel > 0)
        self.assertEqual(501, len(peer.received) + port.stats.dropped_by_kernel)
        self.assertEqual((len(peer.received), 0), (port.stats.datagrams_received, port.stats.truncated))


class GroupTests(SocketTestCase):
    """Datagrams that were not sent to this host alone."""

    def group(self, interface: str, destination: str) -> list[bool]:
        """Send a datagram to a group and one to the host, and return what the port says while delivering each."""
        said: list[bool] = []
        port = self.listen(Peer(lambda peer, *_: said.append(peer.port.delivering_to_group)), interface)
        option = socket.inet_aton("127.0.0.1")
        client = self.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, option)
        if destination.startswith("224."):
            membership = socket.inet_aton(destination) + option
            port.getHandle().setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        hosts = [destination] if interface == destination else [destination, "127.0.0.1"]
        for host in hosts:
            client.sendto(b"x", (host, port.getHost().port))
        self.wait(lambda: len(said) == len(hosts))
        self.assertFalse(port.delivering_to_group)
        return said

    def test_broadcast(self) -> None:
        """A broadcast to a port on all of IPv4, and on all of both."""
        for interface in ("", "::"):
            self.assertEqual([True, False], self.group(interface, "127.255.255.255"))

    def test_multicast(self) -> None:
        """A multicast to a port on all of IPv4, on all of both, and on the group itself."""
        for interface in ("", "::"):
            self.assertEqual([True, False], self.group(interface, "224.0.0.251"))
        self.assertEqual([True], self.group("224.0.0.251", "224.0.0.251"))


class UnreachableTests(SocketTestCase):
    """ICMP errors that the kernel makes."""

    def test_told(self) -> None:
        """An error tells who refused what, and by which ICMP message, on sockets of every kind."""
        refused = errno.ECONNREFUSED, "Connection refused"
        for interface, host, icmp in (
            ("127.0.0.1", "127.0.0.1", (3, 3)),
            ("", "127.0.0.1", (3, 3)),
            ("::1", "::1", (1, 4)),
            ("::", "::1", (1, 4)),
            ("::", "127.0.0.1", (3, 3)),
        ):
            peer, nobody = Peer(), self.nobody(host)
            port = self.listen(peer, interface)
            port.write(b"question", nobody)
            self.wait(lambda peer=peer: bool(peer.unreachable))
            self.assertEqual([(nobody, Unreachable(*refused, *icmp, host), b"question")], peer.unreachable)
            self.assertEqual((1, 0), (port.stats.unreachable, peer.refused))

    def test_no_spin(self) -> None:
        """On no reactor does an error keep the port busy."""
        for provider in REACTORS:
            self.use(provider)
            peer = Peer()
            port = self.listen(peer)
            port.write(b"x", self.nobody())
            self.wait(lambda peer=peer: bool(peer.unreachable))
            turns = port.stats.turns
            self.provider.settle()
            self.assertEqual(turns, port.stats.turns, provider.name)

    def test_innocent_peers(self) -> None:
        """Errors in the midst of datagrams cost none of them, whoever reads or writes."""
        peer = Peer()
        port = self.listen(peer)
        client = self.client(source="127.0.0.1")
        address = client.getsockname()
        for number in range(20):
            port.write(b"nobody", self.nobody())
            client.sendto(b"in %d" % number, ("127.0.0.1", port.getHost().port))
            port.write(b"out %d" % number, address)
        self.assertEqual([b"out %d" % number for number in range(20)], [client.recv(100) for _ in range(20)])
        self.wait(lambda: len(peer.unreachable) == 20 and len(peer.received) == 20)
        self.assertEqual([b"in %d" % number for number in range(20)], peer.payloads)
        self.assertEqual({}, port.stats.send_errors)

    def test_stopped_meanwhile(self) -> None:
        """A port that is stopped before an error is told leaves nothing behind."""
        peer = Peer()
        port = self.listen(peer)
        nobody = self.nobody()
        port.write(b"1", nobody)
        port.write(b"2", nobody)  # meets the error of the first
        port.stopListening()
        self.wait(lambda: peer.stopped == 1)
        self.assertEqual(([], []), (peer.unreachable, self.provider.leftovers()))

    def test_too_large_is_no_report(self) -> None:
        """A datagram that was refused at the write is not reported again, and does not keep the port busy."""
        peer = Peer()
        port = self.listen(peer)
        self.assertRaises(MessageLengthError, port.write, b"x" * 65508, ("127.0.0.1", port.getHost().port))
        self.provider.settle()
        self.assertEqual(([], 0), (peer.unreachable, port.stats.unreachable))
        self.assertTrue(port.stats.turns < 5, port.stats.turns)


class ForkTests(SocketTestCase):
    """A socket that is bound by one process and read by another, as when twistd becomes a daemon."""

    def test_fork(self) -> None:
        """The child listens on what the parent has bound."""
        bound = bind(0, "127.0.0.1")
        client = self.client()
        child = os.fork()
        if child == 0:
            peer = Peer(echo)
            self.provider.listen(peer, bound=bound)
            os._exit(0 if self.provider.run_until(lambda: bool(peer.received)) else 1)
        bound.close()
        client.connect((bound.host, bound.port))
        client.send(b"hello")
        self.assertEqual(b"hello", client.recv(100))
        self.assertEqual((child, 0), os.waitpid(child, 0))
