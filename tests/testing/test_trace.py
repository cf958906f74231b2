"""The trace's bound, its order, and its remarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, Recorder
from twistedudp.impairment import Corrupt, Duplicate, Loss
from twistedudp.testing import Fate, SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.testing import SimulatedPort

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"


class TraceTestCase(SynchronousTestCase):
    """An echo server and a client."""

    def make(self, limit: int | None = None) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(trace_limit=limit)
        self.trace = self.network.trace
        self.server = self.network.reactor(SERVER)
        self.client = self.network.reactor(CLIENT)
        self.server.listenUDP(7, Echo())
        self.recorder = Recorder(self.client)
        self.port: SimulatedPort = self.client.listenUDP(9, self.recorder)

    def send(self, *payloads: bytes) -> None:
        """Send these and let their echoes come back."""
        for payload in payloads:
            self.port.write(payload, (SERVER, 7))
            self.network.advance(1)


class BoundTests(TraceTestCase):
    """A trace does not grow for ever."""

    def test_limit(self) -> None:
        """With a limit the latest records are kept, and those that were dropped are counted."""
        self.make(limit=3)
        self.send(b"a", b"b", b"c")
        self.assertEqual([record.payload for record in self.trace], [b"b", b"c", b"c"])
        self.assertEqual((len(self.trace), self.trace.limit, self.trace.forgotten), (3, 3, 3))
        self.assertEqual((self.trace[0].number, self.trace[-1].number), (3, 5))

    def test_no_limit(self) -> None:
        """Without one all are kept."""
        self.make()
        self.send(b"a", b"b")
        self.assertEqual((len(self.trace), self.trace.limit, self.trace.forgotten), (4, None, 0))

    def test_limit_of_nothing(self) -> None:
        """A trace may keep nothing at all, and the simulation goes on; less than nothing is an error."""
        self.make(limit=0)
        self.send(b"a")
        self.assertEqual((len(self.trace), self.trace.forgotten, len(self.recorder.received)), (0, 2, 1))
        self.assertRaises(ValueError, SimulatedNetwork, trace_limit=-1)

    def test_clear(self) -> None:
        """A cleared trace begins anew, with numbers that go on; what was in flight arrives without a record."""
        self.make()
        self.network.note("before")
        self.port.write(b"a", (SERVER, 7))
        self.trace.clear()
        self.assertEqual((len(self.trace), self.trace.notes, self.trace.forgotten), (0, [], 1))
        self.network.advance(1)
        self.assertEqual(
            [(record.payload, record.number, record.fate) for record in self.trace], [(b"a", 1, "delivered")]
        )
        self.assertEqual(len(self.recorder.received), 1)

    def test_limit_on_remarks(self) -> None:
        """Remarks are bounded as records are."""
        self.make(limit=2)
        for text in ("one", "two", "three"):
            self.network.note(text)
        self.assertEqual([note.text for note in self.trace.notes], ["two", "three"])

    def test_digest_tells_what_was_forgotten(self) -> None:
        """Traces that end alike differ in their digests if more went before the one's end."""
        digests = set()
        for clear in (True, False):
            self.make()
            if clear:
                self.trace.note("x", 0)
                self.port.write(b"", (CLIENT, 1))
                self.network.advance(1)
                self.trace.clear()
            digests.add(self.trace.digest())
        self.assertEqual(len(digests), 2)


class RecordTests(TraceTestCase):
    """What else a record tells."""

    def test_order(self) -> None:
        """What a datagram may be an answer to was decided before it was sent."""
        self.make()
        self.network.link(CLIENT, SERVER).delay = 0
        self.send(b"a", b"b")
        self.assertEqual(
            [(record.rank, record.fates_before) for record in self.trace], [(0, 0), (1, 1), (2, 2), (3, 3)]
        )

    def test_hosts(self) -> None:
        """Who sent and who shall receive are told by the hosts' first addresses, whatever address was used."""
        self.make()
        self.port.write(b"", ("127.0.0.1", 7))
        self.port.write(b"", ("192.0.2.99", 7))
        self.port.write(b"", (SERVER, 7))
        hosts = [(record.sender, record.receiver) for record in self.trace]
        self.assertEqual(hosts, [(CLIENT, CLIENT), (CLIENT, ""), (CLIENT, SERVER)])

    def test_what_was_sent(self) -> None:
        """A record has what was sent beside what has arrived."""
        self.make()
        self.network.link(CLIENT, SERVER).add(Corrupt(1.0))
        self.send(b"abcdef")
        self.assertEqual(self.trace[0].payload_sent, b"abcdef")
        self.assertNotEqual(self.trace[0].payload, b"abcdef")
        self.assertEqual(self.trace[1].payload_sent, self.trace[0].payload)

    def test_made_by(self) -> None:
        """A copy names the effect that made it, also when another effect or a host ends it."""
        self.make()
        link = self.network.link(CLIENT, SERVER)
        link.add(Duplicate(1.0))
        self.port.write(b"refused", (SERVER, 8))
        link.add(Loss(1.0))
        self.port.write(b"lost", (SERVER, 8))
        self.network.advance(1)
        told = [(record.payload, record.made_by, record.cause) for record in self.trace if not record.error]
        self.assertEqual(
            sorted(told),
            [
                (b"lost", "", "Loss"),
                (b"lost", "Duplicate", "Loss"),
                (b"refused", "", ""),
                (b"refused", "Duplicate", "Duplicate"),
            ],
        )

    def test_digest_tells_changes(self) -> None:
        """The digest sees what was sent, where, and by whom, and what was remarked."""

        def digest(*, address: str = "127.0.0.1", sender: str = CLIENT, remark: str = "", text: str = "") -> str:
            network = SimulatedNetwork()
            for host in (CLIENT, SERVER):
                port = network.reactor(host).listenUDP(9, Echo())
                if host == sender:
                    port.write(b"x", (address, 7))
            if remark:
                network.note(text, remark)
            return network.trace.digest()

        digests = [
            digest(),
            digest(address="127.0.0.2"),
            digest(sender=SERVER),
            digest(remark=CLIENT, text="a"),
            digest(remark=CLIENT, text="b"),
            digest(remark=SERVER, text="a"),
        ]
        self.assertEqual(len(set(digests)), 6)
        self.assertEqual(digest(), digests[0])

    def test_remarks(self) -> None:
        """A remark has its time, its host and its place; a host that is none is an error."""
        self.make()
        self.send(b"a")
        self.network.note("now", self.client)
        self.assertEqual(self.trace.notes, [(1.0, "now", CLIENT, 2, 2)])
        self.assertRaises(ValueError, self.network.note, "never", "192.0.2.99")

    def test_fates_compare(self) -> None:
        """The fate of a crashed host's datagram is that it is not heard."""
        self.make()
        self.server.crash()
        self.send(b"a")
        self.assertEqual([record.fate for record in self.trace], [Fate.UNHEARD])
