"""Admission at the ports of simulated hosts, on virtual time."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Recorder
from twistedudp import discover, listen
from twistedudp.admission import AdmissionPolicy
from twistedudp.echo import EchoProtocol
from twistedudp.server import UDPServerService
from twistedudp.testing import Fate, SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.testing import SimulatedPort, SimulatedReactor

SERVER = "192.0.2.1"
CLIENT = "198.51.100.1"


class SimulatedAdmissionTests(SynchronousTestCase):
    """A server with a policy, and a client."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(delay=0.01)
        self.server = self.network.reactor(SERVER)
        self.client = self.network.reactor(CLIENT)
        self.recorder = Recorder(self.client)
        self.sending: SimulatedPort = self.client.listenUDP(40009, self.recorder)

    def serve(self, reactor: SimulatedReactor, policy: AdmissionPolicy, **options: Any) -> Any:
        """Listen with an echo on port 7."""
        return listen(reactor, 7, EchoProtocol(), admission=policy, **options)

    def send(self, *payloads: bytes) -> list[bytes]:
        """Send datagrams at once, and return all that was echoed so far."""
        for payload in payloads:
            self.sending.write(payload, (SERVER, 7))
        self.network.run_until_idle()
        return [payload for _, payload, _ in self.recorder.received]

    def test_virtual_time(self) -> None:
        """Tokens come back as virtual time passes, to the instant."""
        port = self.serve(self.server, AdmissionPolicy(rate=10.0, burst=2))
        self.assertEqual([b"a", b"b"], self.send(b"a", b"b", b"c"))
        self.network.advance(0.1)
        self.assertEqual([b"a", b"b", b"d"], self.send(b"d", b"e"))
        self.assertEqual(port.admission_stats.refused, Counter(host_rate=2))
        self.assertEqual(port.stats.datagrams_received, 3)

    def test_trace(self) -> None:
        """What became of a refused datagram is in the trace and in the diagram."""
        self.serve(self.server, AdmissionPolicy(deny=(ip_network("198.51.100.0/24"),)))
        self.assertEqual([], self.send(b"a"))
        self.assertEqual([Fate.NOT_ADMITTED], [record.fate for record in self.network.trace])
        self.assertIn("1 B: not admitted by the port", self.network.explain())

    def test_too_large_takes_a_token(self) -> None:
        """Who is let in is decided before the size is looked at, as on a real port."""
        port = self.serve(self.server, AdmissionPolicy(rate=1.0, burst=2), max_datagram_size=10)
        self.assertEqual([b"a"], self.send(b"x" * 11, b"a", b"b"))
        self.assertEqual((1, 1), (port.stats.truncated, port.admission_stats.refused["host_rate"]))

    def test_log(self) -> None:
        """The first refusal is a line, and the number of the others another when the port stops."""
        port = self.serve(self.server, AdmissionPolicy(rate=1.0, burst=1))
        with capturedLogs() as events:
            self.send(*[b"x"] * 10)
            port.stopListening()
            self.network.run_until_idle()
        lines = [text for event in events if "refused" in (text := formatEvent(event))]
        self.assertEqual(2, len(lines), lines)
        self.assertIn("refused a datagram of 198.51.100.0/24 (from 198.51.100.1)", lines[0])
        self.assertIn("refused 8 more datagrams", lines[1])

    def test_service_by_default(self) -> None:
        """A service that others can reach has the default policy; one on loopback, and one told so, has none."""
        for interface, options, has in (
            ("0.0.0.0", {}, True),  # noqa: S104  # simulated
            ("", {}, True),
            ("::", {}, True),
            (SERVER, {}, True),
            ("127.0.0.1", {}, False),
            ("::1", {}, False),
            (SERVER, {"admission": None}, False),
            ("127.0.0.1", {"admission": AdmissionPolicy(rate=1.0)}, True),
        ):
            service = UDPServerService(self.server, 7, EchoProtocol(), interface, **options)
            self.assertIsNone(service.admission_stats)
            service.startService()
            self.assertEqual(has, service.admission_stats is not None, interface)
            service.stopService()
            self.network.run_until_idle()
            self.assertEqual(has, service.admission_stats is not None, "it outlives the port")

    def test_default_limits_a_flood(self) -> None:
        """By default a host's burst of 2,000 is let in, and then 1,000 a second."""
        service = UDPServerService(self.server, 7, EchoProtocol(), SERVER)
        service.startService()
        self.assertEqual(2000, len(self.send(*[b"x"] * 2500)))
        self.network.advance(0.98)  # and the way takes 0.02
        self.assertEqual(3000, len(self.send(*[b"x"] * 2500)))
        assert service.admission_stats is not None
        self.assertEqual(service.admission_stats.refused, Counter(host_rate=2000))
        service.stopService()
        self.network.run_until_idle()

    def test_discovery(self) -> None:
        """Who is denied cannot find the service either."""
        policy = AdmissionPolicy(deny=(ip_network(f"{CLIENT}/32"),))
        found = []
        for admission in (None, policy):
            service = UDPServerService(
                self.server, 7, EchoProtocol(), SERVER, discoverable="found", admission=admission
            )
            service.startService()
            asked = discover(self.client, wait=1.0)
            asked.addCallback(lambda answers: found.append(len(answers)))
            self.network.advance(2.0)
            service.stopService()
            self.network.run_until_idle()
        self.assertEqual([1, 0], found)
