"""Probes in DTLS over a simulated network: sessions that end, or are only silent, and servers without DTLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError

from tests.secure import Counter, SecureTestCase, world
from tests.simulation import DELAY, PORT, SERVER, Echo
from twistedudp._prober import Prober, Schedule, new_series
from twistedudp._secure_probes import HANDSHAKE_TIME, LEAST_SILENCE, PAUSE, ProbeSessions
from twistedudp.cli._arguments import Misuse
from twistedudp.cli._ping_options import check_secure_size
from twistedudp.dtls import DTLSLimits
from twistedudp.echo import EchoProtocol
from twistedudp.errors import DTLSHandshakeFailed, RequestAborted
from twistedudp.impairment import Loss

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twistedudp.dtls import DTLSContext
    from twistedudp.probing import ProbeEvent, Summary
    from twistedudp.server import UDPServerService

INTERVAL = 0.1
MS = 1_000_000


class ProbeCase(SecureTestCase):
    """A series of probes over DTLS.

    Attributes:
        events: What the prober has told.
    """

    def setUp(self) -> None:
        """Begin."""
        super().setUp()
        self.events: list[ProbeEvent] = []

    def sessions(self, context: DTLSContext | None = None, **options: Any) -> ProbeSessions:
        """Return sessions that are not begun yet."""
        made = ProbeSessions(
            self.here, (SERVER, PORT), "server.example", context or world().client_context(), **options
        )
        self.addCleanup(made.stopListening)
        return made

    def opened(self, **options: Any) -> ProbeSessions:
        """Return sessions whose first is open."""
        made = self.sessions(silence=0.5, **options)
        self.result(made.open())
        return made

    def begin(self, sessions: ProbeSessions, count: int, interval: float = INTERVAL) -> Deferred[Summary]:
        """Begin to probe."""
        peer = (SERVER, PORT)
        series = new_series("server", peer, interval=interval, timeout=0.5)
        schedule = Schedule(round(interval * 1e9), count)
        return Prober(self.here, peer, series, schedule, on_event=self.events.append, way=sessions).run()

    def kinds(self, kind: str) -> list[int]:
        """Return the sequence numbers of the events of one kind."""
        return [event.sequence for event in self.events if event.kind == kind]

    def stop(self, server: UDPServerService) -> None:
        """Stop a server in order."""
        stopped = server.stopService()
        assert stopped is not None
        self.result(stopped)

    def failure(self, sessions: ProbeSessions) -> DTLSHandshakeFailed:
        """Return why the first handshake fails, after a look at the ports it leaves."""
        opening: Any = sessions.open()
        while not opening.called:
            self.advance(DELAY)
        error = self.error(opening, DTLSHandshakeFailed)
        self.advance(DELAY)
        self.assertEqual(self.here.ports, [])
        assert isinstance(error, DTLSHandshakeFailed)
        return error


class RunTests(ProbeCase):
    """Runs while all is well."""

    def test_echo(self) -> None:
        """Probes go through one session, none readable; figures are those of the answers, and nothing is left after."""
        server = self.secure_server(EchoProtocol())
        sessions = self.opened()
        summary = self.result(self.begin(sessions, 10))
        self.assertEqual((summary.received, summary.lost, summary.protocol), (10, 0, "echo"))
        self.assertAlmostEqual(summary.rtt.p50 or 0.0, 2 * DELAY, 5)
        self.assertEqual(sessions.counts.handshakes, 1)
        self.assertAlmostEqual(sessions.counts.handshake or 0.0, 6 * DELAY, 5)  # the cookie, and a flight of each side
        self.assertEqual(self.here.ports, [])
        self.advance(DELAY)
        assert server.dtls_stats is not None
        self.assertEqual((server.dtls_stats.opened, server.dtls_stats.ended["closed"]), (1, 1))

    def test_rpc(self) -> None:
        """An rpc server is asked for its counts in the session, and tells where probes were lost."""
        self.secure_server(Counter())
        sessions = self.opened()
        running = self.begin(sessions, 20)
        there, _ = self.network.links(self.here, self.there)
        self.advance(4.5 * INTERVAL)
        there.add(Loss(1.0))
        self.advance(2 * INTERVAL)
        there.clear()
        summary = self.result(running)
        self.assertEqual((summary.protocol, summary.lost, summary.lost_there, summary.lost_back), ("rpc", 2, 2, 0))

    def test_size(self) -> None:
        """The command refuses what does not fit a record, and nothing less."""
        self.secure_server(EchoProtocol())
        sessions = self.opened()
        most = DTLSLimits().mtu - 37
        check_secure_size(most)
        self.assertRaises(Misuse, check_secure_size, most + 1)
        series = new_series("server", (SERVER, PORT), size=most, interval=INTERVAL)
        running = Prober(self.here, (SERVER, PORT), series, Schedule(100 * MS, 3), way=sessions).run()
        self.assertEqual(self.result(running).received, 3)


class LostSessionTests(ProbeCase):
    """Sessions that end while probes are sent."""

    def test_forgotten(self) -> None:
        """A server that was started again is shaken hands with anew; what was sent meanwhile is lost, and no more."""
        self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 40)
        self.advance(9.5 * INTERVAL)
        self.there.crash()
        self.secure_server(EchoProtocol(), on=self.there.restart())
        summary = self.result(running)
        lost = self.kinds("lost")
        self.assertEqual(lost, list(range(10, 10 + len(lost))))
        self.assertLess(abs(len(lost) * INTERVAL - LEAST_SILENCE), 2.5 * INTERVAL)
        self.assertEqual((summary.lost, summary.received), (len(lost), 40 - len(lost)))
        self.assertEqual((sessions.counts.handshakes, sessions.counts.without_session), (2, 0))

    def test_closed(self) -> None:
        """A server that stops in order ends the session; until it is back probes are lost, none is sent late."""
        server = self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 60)
        self.advance(9.5 * INTERVAL)
        self.stop(server)
        self.advance(10 * INTERVAL)
        self.secure_server(EchoProtocol())
        summary = self.result(running)
        lost = self.kinds("lost")
        self.assertEqual(lost, list(range(lost[0], lost[-1] + 1)))
        self.assertGreaterEqual(len(lost), 10)
        self.assertLessEqual(len(lost) * INTERVAL, 10 * INTERVAL + PAUSE + 2 * INTERVAL)
        self.assertEqual(summary.sent, 60)
        self.assertGreater(sessions.counts.without_session, len(lost) - 3)
        self.assertAlmostEqual(summary.rtt.max or 0.0, 2 * DELAY, 5)
        self.assertEqual(sessions.counts.handshakes, 2)

    def test_silence(self) -> None:
        """A path that is silent for a while does not cost the session: the first answer ends the new handshake."""
        server = self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 120)
        links = self.network.links(self.here, self.there)
        self.advance(9.5 * INTERVAL)
        for link in links:
            link.add(Loss(1.0))
        self.advance(20 * INTERVAL)
        for link in links:
            link.clear()
        summary = self.result(running)
        self.assertEqual(self.kinds("lost"), list(range(10, 30)))
        self.assertEqual((summary.received, sessions.counts.handshakes), (100, 1))
        assert server.dtls_stats is not None
        self.assertEqual(server.dtls_stats.opened, 1)

    def test_rare_probes(self) -> None:
        """Long pauses between probes are no silence, nor are two lost ones."""
        self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 6, 5 * LEAST_SILENCE)
        there, _ = self.network.links(self.here, self.there)
        self.advance(7.5 * LEAST_SILENCE)
        there.add(Loss(1.0))
        self.advance(10 * LEAST_SILENCE)
        there.clear()
        summary = self.result(running)
        self.assertEqual((summary.received, summary.lost, sessions.counts.handshakes), (4, 2, 1))

    def test_idle(self) -> None:
        """A session that was idle for too long is followed by another before the next probe."""
        self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 3, 2 * DTLSLimits().idle_timeout)
        self.advance(5 * DTLSLimits().idle_timeout)
        summary = self.result(running)
        self.assertEqual((summary.received, summary.lost), (3, 0))
        self.assertGreaterEqual(sessions.counts.handshakes, 3)

    def test_gone(self) -> None:
        """A server that does not come back is asked for a session once a second at most; the run ends in its time."""
        server = self.secure_server(EchoProtocol())
        sessions = self.opened()
        running = self.begin(sessions, 50)
        self.advance(4.5 * INTERVAL)
        self.stop(server)
        began = self.network.clock.seconds()
        summary = self.result(running)
        took = self.network.clock.seconds() - began
        self.assertEqual((summary.received, summary.lost), (5, 45))
        self.assertLess(took, 50 * INTERVAL + 1)
        sent = [row for row in self.network.trace if row.payload[:1] == b"\x16" and row.time > began]
        self.assertLessEqual(len({row.source for row in sent}), 2 * (took / PAUSE + 1))
        self.assertEqual(self.here.ports, [])


class HandshakeTests(ProbeCase):
    """First handshakes that come to nothing."""

    def test_wrong_ca(self) -> None:
        """A certificate of another authority."""
        self.secure_server(EchoProtocol())
        context = world().client_context(ca=world().other.certificate)
        self.assertEqual(self.failure(self.sessions(context)).reason, "wrong_ca")

    def test_plain_echo(self) -> None:
        """A plain echo server is recognised by what it sends back, long before the time is over."""
        self.serve(Echo())
        began = self.network.clock.seconds()
        error = self.failure(self.sessions())
        self.assertIn("leave --dtls out", str(error))
        self.assertLess(self.network.clock.seconds() - began, HANDSHAKE_TIME / 2)

    def test_silent(self) -> None:
        """Silence ends in its time."""
        _, back = self.network.links(self.here, self.there)
        back.add(Loss(1.0))
        began = self.network.clock.seconds()
        self.assertEqual(self.failure(self.sessions()).reason, "no_answer")
        self.assertLess(abs(self.network.clock.seconds() - began - HANDSHAKE_TIME), 1)

    def test_ended(self) -> None:
        """A handshake that is cancelled, or stopped, leaves nothing."""
        for end, error in (("cancel", CancelledError), ("stop", RequestAborted)):
            sessions = self.sessions()
            opening = sessions.open()
            if end == "cancel":
                opening.cancel()
                self.advance(0)
                self.assertEqual(self.here.ports, [])
            self.result(sessions.stopListening())
            self.error(opening, error)
            self.assertEqual(self.here.ports, [])
