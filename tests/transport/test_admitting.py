"""Admission around a socket in plain Python, and in front of protocols on ports that are not ours."""

from __future__ import annotations

import socket
from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import FakeSocket, Notes, NotesAll, os_error, together
from twistedudp.admission import AdmissionPolicy
from twistedudp.transport import DatagramStats, listen
from twistedudp.transport._admitting import READS_IN_A_ROW, AdmittedSocket, PortAdmission
from twistedudp.transport._backend import PortSocket, make_backend
from twistedudp.transport._unreachable import UnreachableReports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

GOOD = ("192.0.2.7", 4242)
BAD = ("203.0.113.9", 4242)
DENY = (ip_network("203.0.113.0/24"),)
KEY = bytes(32)


class AdmittedSocketTests(SynchronousTestCase):
    """What is refused is read and dropped, within bounds."""

    def setUp(self) -> None:
        """Make a socket that is read with admission, and keep the log."""
        self.events: list[Any] = []
        self.now = 1
        self.stats = DatagramStats()
        self.use(AdmissionPolicy(rate=0, total_rate=0, deny=DENY))

    def use(self, policy: AdmissionPolicy) -> None:
        """Have another policy."""
        log = Logger(namespace="tests", observer=self.events.append)  # type: ignore[arg-type]  # a list takes anything
        self.admission = PortAdmission(policy, clock=lambda: self.now, key=KEY, log=log)
        self.fake = FakeSocket()
        fake: Any = self.fake
        self.handle = AdmittedSocket(fake, self.admission, self.stats)

    def lines(self) -> list[str]:
        """Return what was logged."""
        return [formatEvent(event) for event in self.events]

    def test_reads_on(self) -> None:
        """Past what is refused the next that is let in is returned; the calls for the others are counted."""
        self.fake.arrivals = [(b"1", BAD), (b"2", BAD), (b"3", GOOD), (b"4", GOOD)]
        self.assertEqual(self.handle.recvfrom(10), (b"3", GOOD))
        self.assertEqual(self.handle.recvfrom(10), (b"4", GOOD))
        self.assertEqual(self.stats.system_calls, 2, "the others are counted by who reads")
        self.assertEqual(self.admission.stats.refused, Counter(denied=2))

    def test_nothing_there(self) -> None:
        """Where nothing else waits, it is as if nothing had come; errors of the socket come through."""
        self.fake.arrivals = [(b"1", BAD), os_error(113), (b"2", BAD)]
        with self.assertRaises(OSError) as caught:
            self.handle.recvfrom(10)
        self.assertEqual(caught.exception.errno, 113)
        with self.assertRaises(BlockingIOError):
            self.handle.recvfrom(10)
        self.assertEqual(self.admission.stats.refused, Counter(denied=2))
        self.assertEqual(len(self.lines()), 1)

    def test_enough(self) -> None:
        """After so many refused in a row the port is told that there is nothing, so that the turn ends."""
        for receive in (self.handle.recvfrom, lambda size: self.handle.recvmsg(size, 0)):
            self.fake.arrivals = [(b"", BAD)] * 200 if receive == self.handle.recvfrom else [(b"", [], BAD)] * 200
            calls = self.stats.system_calls
            with self.assertRaises(BlockingIOError):
                receive(10)
            self.assertEqual(len(self.fake.arrivals), 200 - READS_IN_A_ROW)
            self.assertEqual(self.stats.system_calls - calls, READS_IN_A_ROW - 1, "one is counted by who reads")

    def test_several_in_a_buffer(self) -> None:
        """A buffer of several datagrams is cut behind the last that is let in."""
        self.use(AdmissionPolicy(rate=0.001, burst=5))
        self.fake.arrivals = [
            (b"aabbc", [together(2)], GOOD),
            (b"ddeeff", [together(2)], GOOD),
            (b"gghh", [together(2)], GOOD),
            (b"ii", [], GOOD),
        ]
        self.assertEqual(self.handle.recvmsg(100, 0), (b"aabbc", [together(2)], 0, GOOD))
        self.assertEqual(self.handle.recvmsg(100, 0), (b"ddee", [together(2)], 0, GOOD))
        with self.assertRaises(BlockingIOError):
            self.handle.recvmsg(100, 0)
        self.assertEqual(self.admission.stats.refused, Counter(host_rate=1 + 2 + 1))

    def test_an_empty_datagram_counts(self) -> None:
        """An empty datagram is one, also where buffers may hold several."""
        self.use(AdmissionPolicy(rate=0.001, burst=2))
        self.fake.arrivals = [(b"", [together(2)], GOOD), (b"", [], GOOD), (b"", [], GOOD)]
        self.handle.recvmsg(100, 0)
        self.handle.recvmsg(100, 0)
        self.assertRaises(BlockingIOError, self.handle.recvmsg, 100, 0)

    def test_log_only(self) -> None:
        """On trial everything passes, and the line says so."""
        self.use(AdmissionPolicy(rate=0, total_rate=0, deny=DENY, log_only=True))
        self.fake.arrivals = [(b"1", BAD)]
        self.assertEqual(self.handle.recvfrom(10), (b"1", BAD))
        (line,) = self.lines()
        self.assertTrue(line.startswith("would have refused a datagram of 203.0.113.0/24"), line)

    def test_reasons(self) -> None:
        """Each reason is said in words, with the policy's figures, and never with the payload."""
        policy = AdmissionPolicy(
            rate=0.001, burst=1, network_factor=2.0, total_rate=4.0, deny=DENY, allow=(ip_network("192.0.0.0/8"),)
        )
        self.use(policy)
        hosts = ["203.0.113.1", "198.51.100.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
        hosts += [f"192.{number}.0.1" for number in range(5, 8)]
        self.fake.arrivals = [(b"secret", (host, 1)) for host in hosts]
        self.assertRaises(BlockingIOError, lambda: [self.handle.recvfrom(10) for _ in hosts])
        text = "\n".join(self.lines())
        for expected in (
            "of 203.0.113.0/24 (from 203.0.113.1): its network is denied (denied;",
            "its network is not among the allowed (not_allowed;",
            "the host sent more than 0.001 datagrams of up to 1,500 bytes a second (host_rate;",
            "the network sent more than 0.002 datagrams of up to 1,500 bytes a second (network_rate;",
            "all senders together sent more than 4 datagrams of up to 1,500 bytes a second (total_rate;",
        ):
            self.assertIn(expected, text)
        self.assertNotIn("secret", text)

    def test_before_anything_else(self) -> None:
        """Nothing is learnt of who is refused, not even the way back."""
        fake: Any = self.fake
        protocol = NotesAll()
        reports = UnreachableReports(fake, protocol, self.stats, Clock())
        backend = make_backend(
            "scalar",
            PortSocket(
                handle=fake,
                protocol=protocol,
                stats=self.stats,
                reports=reports,
                reactor=Clock(),
                watch_writable=lambda _: None,
                wildcard=True,
                to_group=False,
                return_path=True,
                size_limit=1000,
                timestamps=False,
                admission=self.admission,
            ),
        )
        routes = backend._routes  # type: ignore[attr-defined]  # it is the scalar one
        self.fake.arrivals = [(b"x", [], BAD), (b"y", [], GOOD)]
        backend.read_turn()
        self.assertEqual([(b"y", GOOD)], protocol.notes)
        self.assertEqual([GOOD], list(routes.known.young))


class FakeUDPReactor(Clock):
    """A reactor without file descriptors, whose ports are Twisted's, or so."""

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> Any:
        """Start the protocol, as a port would."""
        self.protocol = protocol
        protocol.makeConnection(made := FakePort(port, interface, size))
        return made


class FakePort:
    """A port that is not ours."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class Named(DatagramProtocol):
    """A protocol with a name in the log, which is quiet, and knows something that others ask it."""

    noisy = False
    known = 7

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def logPrefix(self) -> str:
        """Return its name."""
        return "Named by itself"

    def startProtocol(self) -> None:
        """Note it."""
        self.notes.append("start")

    def stopProtocol(self) -> None:
        """Note it."""
        self.notes.append("stop")

    def connectionRefused(self) -> None:
        """Note it."""
        self.notes.append("refused")

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note it."""
        self.notes.append((datagram, addr))


class OtherPortsTests(SynchronousTestCase):
    """Where the reactor's own listenUDP serves."""

    def listen(self, protocol: Any, policy: AdmissionPolicy | None) -> tuple[FakeUDPReactor, Any]:
        """Listen; return the reactor and the port."""
        reactor = FakeUDPReactor()
        return reactor, listen(reactor, 7, protocol, "127.0.0.1", 900, admission=policy)

    def deliver(self, reactor: FakeUDPReactor, senders: Sequence[Address]) -> None:
        """Let a datagram come from each."""
        for sender in senders:
            reactor.protocol.datagramReceived(b"x", sender)

    def test_admission(self) -> None:
        """The protocol gets what is let in, and the port has the counters."""
        protocol = Notes()
        reactor, port = self.listen(protocol, AdmissionPolicy(rate=1.0, burst=2, deny=DENY))
        self.assertEqual(port.arguments, (7, "127.0.0.1", 900))
        self.deliver(reactor, [GOOD, BAD, GOOD, GOOD])
        self.assertEqual([(b"x", GOOD)] * 2, protocol.notes)
        reactor.advance(1.0)
        self.deliver(reactor, [GOOD, GOOD])
        self.assertEqual([(b"x", GOOD)] * 3, protocol.notes)
        self.assertEqual(port.admission_stats.refused, Counter(denied=1, host_rate=2))

    def test_everything_else_is_passed_on(self) -> None:
        """The protocol is started, stopped, told and asked as if nothing stood between."""
        protocol = Named()
        reactor, port = self.listen(protocol, AdmissionPolicy())
        self.assertIs(protocol.transport, port)
        between = reactor.protocol
        self.assertEqual((between.logPrefix(), between.noisy, between.known), ("Named by itself", False, 7))
        between.connectionRefused()
        between.doStop()
        self.assertEqual(["start", "refused", "stop"], protocol.notes)
        nameless: Any = type("Nameless", (), {"makeConnection": lambda _, __: None})()
        reactor, _ = self.listen(nameless, AdmissionPolicy())
        self.assertEqual(reactor.protocol.logPrefix(), "Nameless")

    def test_without(self) -> None:
        """Without a policy the reactor's port gets the protocol itself."""
        protocol = Notes()
        reactor, port = self.listen(protocol, None)
        self.assertIs(reactor.protocol, protocol)
        self.assertFalse(hasattr(port, "admission_stats"))

    def test_key_is_random(self) -> None:
        """Each port has a secret of its own."""
        keys = {PortAdmission(AdmissionPolicy()).key for _ in range(3)}
        self.assertEqual((3, 32), (len(keys), min(map(len, keys))))


class ScalarSocketTests(SynchronousTestCase):
    """Around a real socket."""

    def test_is_the_socket(self) -> None:
        """Anything but receiving is the socket's."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            admitted = AdmittedSocket(handle, PortAdmission(AdmissionPolicy()), DatagramStats())
            self.assertEqual((admitted.family, admitted.fileno()), (socket.AF_INET, handle.fileno()))
