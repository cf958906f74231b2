"""Whole examinations on the simulated network: which steps are taken, how long they last, and what they leave."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import CLIENT, CLIENT6, PORT, SERVER, SERVER6, Echo
from twistedudp import RPCMethods
from twistedudp.doctor import Thoroughness, examine
from twistedudp.doctor import _examine as examination
from twistedudp.doctor._asking import CLOSED_PORT
from twistedudp.protocol import RPCServerProtocol
from twistedudp.testing import SimulatedNetwork
from twistedudp.transport import listen
from twistedudp.transport._errors import cannot_listen, invalid_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twistedudp.address import Address
    from twistedudp.doctor import Finding


class Changing(DatagramProtocol):
    """A server that sends back something else, which only it knows."""

    noisy = False

    def __init__(self, change: Any) -> None:
        self.change = change

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send it back, changed."""
        assert self.transport is not None
        self.transport.write(self.change(datagram), addr)


class Elsewhere(DatagramProtocol):
    """A server that answers from another port, by something of its own or by what it was sent."""

    noisy = False

    def __init__(self, other: Any, change: Any) -> None:
        self.other = other
        self.change = change

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send it from there."""
        self.other.write(self.change(datagram), addr)


class AfterAStray(Echo):
    """A server that takes its time, and before it answers another writes something to who asks."""

    def __init__(self, reactor: Any, other: Any) -> None:
        self.reactor = reactor
        self.other = other

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Have the other write at once, and answer later."""
        self.other.write(b"hello", addr)
        self.reactor.callLater(0.3, super().datagramReceived, datagram, addr)


class ToHellos(Echo):
    """A server that answers what begins as a record of DTLS, and nothing else.

    Args:
        answer: What it says; None sends back what came.
        by: The port that says it; None for its own.
    """

    def __init__(self, answer: bytes | None, by: Any) -> None:
        self.answer = answer
        self.by = by

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer it."""
        by: Any = self.by or self.transport
        if datagram[:1] == b"\x16":
            by.write(self.answer or datagram, addr)


class Tiring(Echo):
    """A server that answers so many datagrams and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer it, while any are left."""
        self.left -= 1
        if self.left >= 0:
            super().datagramReceived(datagram, addr)


class ExamineTests(SynchronousTestCase):
    """An examination of a simulated server."""

    def setUp(self) -> None:
        """Make both hosts."""
        self.network = SimulatedNetwork(seed=1, names={"both.example": (SERVER6, SERVER)})
        self.here = self.network.reactor(CLIENT, CLIENT6)
        self.steps: list[str] = []

    def serve(self, protocol: DatagramProtocol | None = None, host: str = SERVER, **options: Any) -> Any:
        """Make the server's host and let it serve."""
        there = self.network.reactor(SERVER, SERVER6, **options)
        if protocol is not None:
            there.listenUDP(PORT, protocol, host)
        return there

    def begin(self, host: str = SERVER, **how: Any) -> Deferred[list[Finding]]:
        """Begin an examination."""
        return examine(self.here, host, PORT, how=Thoroughness(**how), on_step=self.steps.append)

    def codes(self, host: str = SERVER, **how: Any) -> list[str]:
        """Return the codes that are found; nothing is left behind."""
        return [finding.code for finding in self.findings(host, **how)]

    def findings(self, host: str = SERVER, **how: Any) -> Sequence[Finding]:
        """Return what is found, likewise."""
        found = self.network.run_until(self.begin(host, **how))
        self.assertEqual(
            [left for left in self.network.leftovers() if f"port {PORT} of" not in left], [], "something is left"
        )
        return found

    def test_echo(self) -> None:
        """An echo server is asked, measured and found well, in few seconds, and each step is told."""
        self.serve(Echo())
        began = self.network.clock.seconds()
        self.assertEqual(self.codes(), ["UDP-ANSWERED"])
        self.assertLess(self.network.clock.seconds() - began, 5.0)
        self.assertEqual([step.split()[0] for step in self.steps], ["looking", "asking", "measuring", "trying"])

    def test_rpc(self) -> None:
        """An rpc server is one, with or without the method that probes ask for."""
        self.serve(RPCServerProtocol(RPCMethods()))
        [finding] = self.findings(quick=True)
        self.assertEqual(finding.code, "UDP-ANSWERED")
        self.assertIn("an rpc server", finding.says)

    def test_quick(self) -> None:
        """On request an answer is enough: no more than a datagram is sent."""
        self.serve(Echo())
        self.assertEqual(self.codes(quick=True), ["UDP-ANSWERED"])
        self.assertEqual(len([row for row in self.network.trace if row.source[0] == CLIENT]), 1)

    def test_refused(self) -> None:
        """A closed port is told within a second, after it was refused twice."""
        self.serve()
        began = self.network.clock.seconds()
        self.assertEqual(self.codes(), ["UDP-REFUSED"])
        self.assertLess(self.network.clock.seconds() - began, 1.0)

    def test_silent(self) -> None:
        """Silence lasts as long as it may and no longer, with few datagrams."""
        self.serve(silent=True)
        for timeout in (4.0, 0.5):
            began = self.network.clock.seconds()
            self.assertEqual(self.codes(timeout=timeout), ["UDP-SILENT"])
            self.assertAlmostEqual(self.network.clock.seconds() - began, timeout, delta=0.05)
        self.assertLess(len(list(self.network.trace)), 70)

    def test_hello(self) -> None:
        """In silence a ClientHello is sent: its answer is told, what is none or comes from elsewhere is not."""
        there = self.serve()
        other = self.network.reactor("192.0.2.77").listenUDP(PORT, Echo(), "192.0.2.77")
        verify = b"\x16\xfe\xff" + bytes(10) + b"\3" + bytes(46)
        for answer, by, code in (
            (verify, None, "UDP-DTLS"),
            (verify, other, "UDP-SILENT"),
            (b"what is this?", None, "UDP-SILENT"),
            (None, None, "UDP-SILENT"),
        ):
            port = there.listenUDP(PORT, ToHellos(answer, by), SERVER)
            self.assertEqual(self.codes(timeout=0.5), [code])
            self.network.run_until(port.stopListening())

    def test_late_answer(self) -> None:
        """A server that takes its time, but less than the timeout, has answered."""
        self.serve(Echo())
        for link in self.network.links(CLIENT, SERVER):
            link.delay = 1.4
        self.assertEqual(self.codes(quick=True), ["UDP-ANSWERED"])

    def test_not_echo(self) -> None:
        """Changed bytes are no answer."""
        self.serve(Changing(lambda datagram: datagram[::-1]))
        self.assertEqual(self.codes(), ["UDP-NOT-ECHO"])

    def test_cut(self) -> None:
        """A server that cuts large datagrams answers, but not all of each."""
        self.serve(Changing(lambda datagram: datagram[:1024]))
        self.assertEqual(self.codes(), ["UDP-ANSWERED", "UDP-CUT"])

    def test_strangers(self) -> None:
        """What comes from elsewhere is an answer only if it has the probe's random bits, all of them in their place."""
        for change, code in (
            (lambda datagram: datagram, "UDP-OTHER-ADDRESS"),
            (lambda _: b"hello", "UDP-SILENT"),
            (lambda datagram: datagram[:20] + bytes(8) + datagram[28:], "UDP-SILENT"),
        ):
            self.setUp()
            there = self.serve()
            there.listenUDP(PORT, Elsewhere(there.listenUDP(0, DatagramProtocol()), change), SERVER)
            [finding] = self.network.run_until(self.begin(timeout=1.0))
            self.assertEqual(finding.code, code)

    def test_stray_before_the_answer(self) -> None:
        """A stray datagram ends nothing: the answer after it is waited for."""
        there = self.serve()
        there.listenUDP(PORT, AfterAStray(there, there.listenUDP(0, DatagramProtocol())), SERVER)
        [finding] = self.network.run_until(self.begin(quick=True))
        self.assertEqual(finding.code, "UDP-ANSWERED")

    def test_stray_in_silence(self) -> None:
        """Nor is silence less of one for it: whether the host is up is still tried."""
        there = self.serve()
        there.listenUDP(PORT, Elsewhere(there.listenUDP(0, DatagramProtocol()), lambda _: b"hello"), SERVER)
        self.network.run_until(self.begin(timeout=1.0))
        self.assertIn(CLOSED_PORT, {row.destination[1] for row in self.network.trace if row.source[0] == CLIENT})

    def test_long_round_trips(self) -> None:
        """Sizes are tried on a path of long round trips as well."""
        self.serve(Echo())
        for link in self.network.links(CLIENT, SERVER):
            link.delay = 1.0
        [finding] = self.findings()
        self.assertIn("4,000 bytes pass in one packet, there and back", finding.evidence)

    def test_bound(self) -> None:
        """The whole has an end on the slowest and most lossy of paths: the timeout's share, and that of each step."""
        self.serve(Echo())
        self.network.impair(CLIENT, SERVER, "loss=10%")
        for link in self.network.links(CLIENT, SERVER):
            link.delay = 1.9
        began = self.network.clock.seconds()
        self.assertEqual(self.codes(timeout=6.0)[0], "UDP-ANSWERED")
        # The answer 6, two series of 0.5 s and 2 s, each with a round trip and 1.3 s after it, and the sizes 15.
        self.assertLess(self.network.clock.seconds() - began, 6 + 2.5 + 2 * (3.8 + 1.3) + 15)

    def test_sizes_untested(self) -> None:
        """Where the server answers no more when large datagrams are to be tried, it says that they were not."""
        self.serve(Tiring(601))
        [finding] = self.findings()
        self.assertIn("large datagrams: not tried, for small ones were not answered any more", finding.evidence)

    def test_loss(self) -> None:
        """Loss at random is found, whatever its share, and is no limit of the rate."""
        self.serve(Echo())
        self.network.impair(CLIENT, SERVER, "loss=10%")
        self.assertEqual(self.codes(), ["UDP-ANSWERED", "UDP-LOSS"])

    def test_heavy_loss(self) -> None:
        """Where nearly everything is lost the sizes are given up in time, and the whole has an end."""
        self.serve(Echo())
        self.network.impair(CLIENT, SERVER, "loss=65%")
        began = self.network.clock.seconds()
        [answered, loss] = self.findings()
        self.assertEqual((answered.code, loss.code), ("UDP-ANSWERED", "UDP-LOSS"))
        self.assertLess(self.network.clock.seconds() - began, 30.0)

    def test_addresses(self) -> None:
        """The first address of a name decides; what is wrong with those behind one that answers is no fault."""
        there = self.serve(Echo(), SERVER6)
        found = self.findings("both.example", quick=True)
        self.assertEqual([(one.code, one.fault) for one in found], [("UDP-ANSWERED", False), ("UDP-REFUSED", False)])
        there.listenUDP(PORT, Echo(), SERVER)
        self.assertEqual(self.codes("both.example", quick=True), ["UDP-ANSWERED"] * 2)

    def test_first_address_is_wrong(self) -> None:
        """What is wrong with the first address is a fault, though another answers."""
        self.serve(Echo(), SERVER)
        found = self.findings("both.example", quick=True)
        self.assertEqual([(one.code, one.fault) for one in found], [("UDP-ANSWERED", False), ("UDP-REFUSED", True)])

    def test_family(self) -> None:
        """The addresses of the other family are left out."""
        self.serve(Echo(), SERVER)
        found = self.network.run_until(
            examine(self.here, "both.example", PORT, family="ipv4", how=Thoroughness(quick=True))
        )
        self.assertEqual([one.code for one in found], ["UDP-ANSWERED"])

    def test_name(self) -> None:
        """A name without addresses is unknown, and one whose name server is silent, too, with another reason."""
        [finding] = self.findings("nobody.example")
        self.assertEqual(finding.code, "UDP-NAME-UNKNOWN")
        self.network.lookup_delay = 1000.0
        [finding] = self.network.run_until(self.begin("both.example", timeout=2.0))
        self.assertEqual(finding.code, "UDP-NAME-UNKNOWN")
        self.assertIn("did not answer within 2 s", finding.says)

    def test_addresses_of_nobody(self) -> None:
        """Groups and wildcards are told apart without a datagram."""
        for host, code in (
            ("255.255.255.255", "UDP-BROADCAST"),
            ("224.0.0.1", "UDP-BROADCAST"),
            ("ff02::1", "UDP-BROADCAST"),
            ("0.0.0.0", "UDP-NO-ROUTE"),  # noqa: S104  # not bound to
            ("::", "UDP-NO-ROUTE"),
            ("fe80::1", "UDP-NO-ROUTE"),
        ):
            self.assertEqual(self.codes(host), [code], host)
        self.assertIn("write the interface too: fe80::1%eth0", self.findings("fe80::1")[0].advice)
        self.assertEqual(list(self.network.trace), [])

    def test_no_interface(self) -> None:
        """An address behind an interface that is not there is a finding."""

        def refuse(*_: object, **__: object) -> Any:
            raise invalid_address("fe80::1%nosuch", "there is no network interface 'nosuch'")

        self.patch(examination, "ask", refuse)
        [finding] = self.findings("fe80::1%nosuch")
        self.assertEqual(finding.code, "UDP-NO-ROUTE")
        self.assertIn("fe80::1%nosuch: there is no network interface 'nosuch'", finding.says)

    def test_cancelled(self) -> None:
        """A cancelled examination leaves no port and no timer, in whatever step."""
        self.serve(Echo())
        for host, elapsed in (("both.example", 0.0), (SERVER, 0.0005), (SERVER, 0.3), (SERVER, 1.0)):
            examining = self.begin(host)
            self.network.advance(elapsed)
            examining.cancel()
            self.network.advance(0.01)
            self.failureResultOf(examining, CancelledError)
            self.assertEqual([left for left in self.network.leftovers() if f"port {PORT} of" not in left], [], elapsed)

    def test_no_socket(self) -> None:
        """A machine that gives no port is told by its errno: no free port, no such family, or anything else."""
        for number, code in (
            (errno.EADDRINUSE, "UDP-PORTS-EXHAUSTED"),
            (errno.EAFNOSUPPORT, "UDP-NO-ROUTE"),
            (errno.EMFILE, "UDP-CANNOT-SEND"),
        ):
            error = OSError(number, "no")

            def refuse(*_: object, error: OSError = error, **__: object) -> Any:
                raise cannot_listen("", 0, error)

            self.patch(examination, "ask", refuse)
            self.assertEqual(self.codes(), [code])

    def test_no_socket_later(self) -> None:
        """Where ports run out in the midst of it, what was found before is told as well."""
        self.serve(Echo())

        def refuse(*_: object, **__: object) -> Any:
            raise cannot_listen("", 0, OSError(errno.EADDRINUSE, "no"))

        self.patch(examination, "try_sizes", refuse)
        self.assertEqual(self.codes(), ["UDP-ANSWERED", "UDP-PORTS-EXHAUSTED"])


class ListenTests(SynchronousTestCase):
    """What the examination relies on."""

    def test_simulated(self) -> None:
        """A port of a simulated reactor is none of this machine's sockets, so that no kernel is asked about it."""
        network = SimulatedNetwork()
        port = listen(network.reactor(CLIENT), 0, Echo())
        self.assertFalse(hasattr(port, "getHandle"))
