"""Sockets that somebody else has bound: what is taken, what is refused, and what was waiting in them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.test_twistd_echo import ipv6_works
from tests.integration.test_twistd_service import Readers
from twistedudp import _activation, transport
from twistedudp._activation import Passed
from twistedudp.echo import EchoProtocol
from twistedudp.transport import BACKENDS, InheritedSocketError, _kernel, adopt
from twistedudp.transport._backend import choose_backend
from twistedudp.transport._inherited import describe_descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

ANY = "0.0.0.0"  # noqa: S104  # served on loopback's behalf: a test of what a wildcard bind answers


class SocketTestCase(SynchronousTestCase):
    """Sockets that are gone after the test."""

    def bound(self, host: str = "127.0.0.1", kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Return a socket as a supervisor binds it."""
        handle = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        self.addCleanup(handle.close)
        handle.bind((host, 0))
        return handle

    def inherited(self, handle: socket.socket) -> int:
        """Return a descriptor of the same socket that is nobody's yet."""
        return os.dup(handle.fileno())


class AdoptTests(SocketTestCase):
    """From a descriptor to a port."""

    def echo(self, parent: socket.socket, backend: str, *asked: str, early: Sequence[str] = ()) -> None:
        """Serve echo on a socket and ask by addresses; by ``early`` ones before the server took it."""
        port = parent.getsockname()[1]
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.settimeout(10)
        for host in early:
            client.sendto(b"early", (host, port))
        reactor: Any = Readers()
        protocol = EchoProtocol()
        listening = transport.listen(reactor, 0, protocol, bound=adopt(self.inherited(parent)), backend=backend)
        self.assertEqual((listening.getHost().port, listening.backend), (port, backend))  # type: ignore[attr-defined]  # IAddress
        for host in asked:
            client.sendto(b"hello", (host, port))
        for _ in range(3):
            for reader in list(reactor.readers):
                reader.doRead()
        for expected, host in [(b"early", host) for host in early] + [(b"hello", host) for host in asked]:
            self.assertEqual(client.recvfrom(100), (expected, (host, port)))
        listening.stopListening()
        reactor.advance(0)
        self.assertEqual(protocol.stats.refused_group, 0)

    def test_served(self) -> None:
        """On both backends, bound to one address or to all: answers leave from the address that was asked."""
        for backend in self.backends():
            self.echo(self.bound(), backend, "127.0.0.1")
            self.echo(self.bound(ANY), backend, "127.0.0.1", "127.0.0.5")
            if ipv6_works():
                self.echo(self.bound("::"), backend, "127.0.0.1", "127.0.0.5")

    def test_waiting(self) -> None:
        """What came before the server was there is answered: it is not taken for a datagram to a group."""
        for backend in self.backends():
            for parent in (self.bound(), self.bound(ANY), *([self.bound("::")] if ipv6_works() else [])):
                host = parent.getsockname()[0]
                early = ("127.0.0.1",) if host == "127.0.0.1" else ("127.0.0.1", "127.0.0.5")
                self.echo(parent, backend, "127.0.0.1", early=early)

    def test_waiting_for_all(self) -> None:
        """What was sent to the limited broadcast address before that is known as such by its header."""
        for asked, to_group in (((224, 0, 0, 1), True), ((255, 255, 255, 255), True), ((127, 0, 0, 5), False)):
            path = _kernel.parse_return_path(bytes(8) + bytes(asked))
            self.assertEqual((path.to_group, bool(path.ancillary)), (to_group, not to_group))

    def test_made_our_own(self) -> None:
        """It does not block, no child inherits it, nobody can bind beside it, and the larger buffer is asked for."""
        parent = self.bound()
        parent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        descriptor = self.inherited(parent)
        os.set_inheritable(descriptor, True)
        bound = adopt(descriptor, receive_buffer=100_000)
        address: Address = parent.getsockname()
        self.assertEqual((bound.host, bound.port, bound.interface), (*address, address[0]))
        self.assertEqual((bound.wildcard, bound.to_group, bound.receive_buffer), (False, False, 100_000))
        handle = bound.take()
        self.addCleanup(handle.close)
        self.assertEqual((handle.fileno(), handle.getblocking(), handle.get_inheritable()), (descriptor, False, False))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.assertRaises(OSError, thief.bind, address)

    def test_standard_input(self) -> None:
        """A socket that came as standard input is copied: a daemon replaces that descriptor."""
        parent = self.bound()
        script = "from twistedudp.transport import adopt; print(adopt(0).take().fileno() > 2)"
        finished = subprocess.run(
            [sys.executable, "-c", script],
            stdin=parent.fileno(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(finished.stdout, "True\n")

    def test_supervisor_keeps_it(self) -> None:
        """The port is not free when the server closes its copy: what comes meanwhile waits for the next server."""
        parent = self.bound()
        for _ in range(3):
            self.echo(parent, choose_backend().name, "127.0.0.1", early=("127.0.0.1",))

    def test_refused(self) -> None:
        """What is no UDP socket that can be served says what it is."""
        connected = self.bound()
        connected.connect(("127.0.0.1", 9))
        stream = self.bound(kind=socket.SOCK_STREAM)
        unbound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        reading, writing = os.pipe()
        os.close(writing)
        self.addCleanup(os.close, reading)
        self.addCleanup(unbound.close)
        self.addCleanup(unix.close)
        for descriptor, expected in (
            (connected.fileno(), "is a UDP socket that is connected, to 127.0.0.1:9"),
            (stream.fileno(), "is a TCP socket (with systemd: write ListenDatagram=, not ListenStream=)"),
            (unbound.fileno(), "is a UDP socket that is not bound"),
            (unix.fileno(), "is a Unix datagram socket"),
            (reading, "is no socket"),
            (2**20, "is not open"),
        ):
            error = self.assertRaises(InheritedSocketError, adopt, descriptor)
            self.assertEqual(str(error), f"the descriptor {descriptor} {expected}")

    def test_refused_ipv6(self) -> None:
        """An IPv6 socket that is bound to an IPv4 address answers to neither family as ours do."""
        if not ipv6_works():
            raise SkipTest("this machine has no IPv6")
        mapped = self.bound("::ffff:127.0.0.1")
        self.assertIn("is bound to the IPv4 address 127.0.0.1", describe_descriptor(mapped.fileno()))
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as stream:
            self.assertIn("is a TCP socket", describe_descriptor(stream.fileno()))

    def backends(self) -> list[str]:
        """Return the backends that run here."""
        return [name for name in BACKENDS if name == "scalar" or choose_backend().name == name]


class ActivationTests(SocketTestCase):
    """Which one it is."""

    def passed(self, **variables: str) -> list[Passed]:
        """Return what is passed by these variables to process 7, and check that they are gone."""
        environ = {"PATH": "/bin", **variables}
        try:
            return _activation.passed_descriptors(environ, 7)
        finally:
            self.assertEqual(environ, {"PATH": "/bin"})

    def test_variables(self) -> None:
        """Names are as many as there are, or fewer; without sockets there is nothing to say."""
        self.assertEqual(self.passed(), [])
        self.assertEqual(self.passed(LISTEN_FDS="0", LISTEN_PID="9"), [])
        self.patch(_activation, "FIRST_DESCRIPTOR", 2**20)
        self.assertEqual(
            self.passed(LISTEN_FDS="3", LISTEN_PID="7", LISTEN_FDNAMES="a:udpecho", LISTEN_PIDFDID="5"),
            [Passed(2**20, "a"), Passed(2**20 + 1, "udpecho"), Passed(2**20 + 2, "")],
        )
        self.assertEqual(self.passed(LISTEN_FDS="1", LISTEN_PID="7"), [Passed(2**20, "")])

    def test_not_inherited_further(self) -> None:
        """No child of this process inherits what it was passed."""
        handle = self.bound()
        handle.set_inheritable(True)
        self.patch(_activation, "FIRST_DESCRIPTOR", handle.fileno())
        self.passed(LISTEN_FDS="1", LISTEN_PID="7")
        self.assertFalse(handle.get_inheritable())

    def test_wrong_variables(self) -> None:
        """Numbers that are none, and sockets that are for another process, are told in one line."""
        for variables, expected in (
            ({"LISTEN_FDS": "many", "LISTEN_PID": "7"}, "LISTEN_FDS='many' is not a number of sockets from 0 to 1024"),
            ({"LISTEN_FDS": "1025", "LISTEN_PID": "7"}, "LISTEN_FDS='1025' is not"),
            ({"LISTEN_FDS": "-1", "LISTEN_PID": "7"}, "LISTEN_FDS='-1' is not"),
            ({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, "LISTEN_PID is '8' and this process is 7: start it by 'exec'"),
            ({"LISTEN_FDS": "1"}, "LISTEN_PID is missing and this process is 7"),
        ):
            error = self.assertRaises(InheritedSocketError, self.passed, **variables)
            self.assertIn(expected, str(error))
            self.assertNotIn("\n", str(error))

    def test_choice(self) -> None:
        """The one called udpecho; without such a name the first that is a UDP socket."""
        stream, first, second = self.bound(kind=socket.SOCK_STREAM), self.bound(), self.bound()
        numbers = [each.fileno() for each in (stream, first, second)]
        unnamed = [Passed(number, "") for number in numbers]
        self.assertEqual(_activation.choose(unnamed), numbers[1])
        self.assertEqual(_activation.choose([*unnamed[:2], Passed(numbers[2], "udpecho")]), numbers[2])
        both = [Passed(number, "udpecho") for number in numbers]
        self.assertEqual(_activation.choose(both), numbers[1])

    def test_no_choice(self) -> None:
        """Where there is none, each that was looked at is named with what it is; a name is binding."""
        stream, datagram = self.bound(kind=socket.SOCK_STREAM), self.bound()
        for passed, described in (
            ([Passed(stream.fileno(), ""), Passed(2**20, "")], f"{stream.fileno()} is a TCP socket (with systemd: "),
            ([Passed(datagram.fileno(), ""), Passed(stream.fileno(), "udpecho")], f"{stream.fileno()} is a TCP socket"),
            ([Passed(stream.fileno(), ""), Passed(2**20, "")], f"; {2**20} is not open"),
        ):
            error = self.assertRaises(InheritedSocketError, _activation.choose, passed)
            self.assertIn(described, str(error))

    def test_address(self) -> None:
        """What was asked for must be what the socket is bound to, as far as anything was."""
        handle = self.bound()
        host, port = address = handle.getsockname()
        for asked in ((None, None), (port, None), (None, host), (port, host)):
            self.assertEqual(_activation.address_of(handle.fileno(), *asked), address)
        for asked in ((port - 1, None), (None, "127.0.0.2"), (0, host)):
            error = self.assertRaises(InheritedSocketError, _activation.address_of, handle.fileno(), *asked)
            self.assertIn(f"is bound to 127.0.0.1:{port}, which --port and --interface contradict", str(error))
        self.assertRaises(InheritedSocketError, _activation.address_of, 2**20, None, None)
