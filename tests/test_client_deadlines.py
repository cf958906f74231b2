"""The client's deadlines and retransmissions: what is on the wire when, and the one timer behind it."""

from __future__ import annotations

import builtins
import random
import time
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet import error as internet_error
from twisted.internet.selectreactor import SelectReactor

from tests.simulation import CLIENT, DELAY, PORT, SERVER, SERVER6, SimulatedTestCase
from twistedudp import errors
from twistedudp.client import UDPClientService
from twistedudp.testing import Arrival

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

    from twistedudp.testing import Datagram, SimulatedReactor

SILENT = (0.0, 0.25, 0.75, 1.75)
"""Seconds at which a call of 2 s without an answer or jitter is sent."""


class Clockwork:
    """A simulated reactor whose clock and timers can be wrong.

    Attributes:
        early: Seconds by which timers fire too early.
        offset: Seconds by which the clock is wrong.
    """

    def __init__(self, reactor: SimulatedReactor) -> None:
        self._reactor = reactor
        self.early = 0.0
        self.offset = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def seconds(self) -> float:
        """Return a wrong time."""
        return self._reactor.seconds() + self.offset

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> IDelayedCall:
        """Call too early."""
        return self._reactor.callLater(max(0.0, delay - self.early), function, *args)


class DeadlineTests(SimulatedTestCase):
    """A call without an answer fails at its deadline, neither before nor after."""

    def test_timed_out(self) -> None:
        """A silent server: RequestTimedOut at exactly the deadline, with the attempts, the time and the address."""
        self.peer()
        client = self.client()
        calls = [client.call("x"), client.echo("x"), client.echo_bytes(b"x")]
        self.advance(1.9999)
        for call in calls:
            self.assertNoResult(call)
        self.advance(0.0001)
        for call in calls:
            error = self.error(call, errors.RequestTimedOut)
            self.assertEqual((error.attempts, error.elapsed, error.peers), (4, 2.0, ((SERVER, PORT),)))
            self.assertIn("within 2 s, after 4 datagrams", str(error))
        self.assertEqual((client.stats.timed_out, client.stats.transmitted, client.stats.retransmitted), (3, 12, 9))

    def test_kind_of_error(self) -> None:
        """It is a builtin TimeoutError, and neither of Twisted's two."""
        self.peer()
        call = self.client().call("x", timeout=0.5)
        self.advance(0.5)
        error = self.error(call, builtins.TimeoutError)
        self.assertIsInstance(error, errors.TwistedUDPError)
        self.assertNotIsInstance(error, (defer.TimeoutError, internet_error.TimeoutError))

    def test_each_its_own(self) -> None:
        """Calls with different timeouts end each at its own, whatever the order in which they were made."""
        self.peer()
        client = self.client()
        timeouts = (5.0, 0.001, 1.0, 0.5, 2.5)
        calls = [client.call("x", timeout=timeout) for timeout in timeouts]
        for timeout, call in sorted(zip(timeouts, calls, strict=True), key=lambda pair: pair[0]):
            self.advance(timeout - self.network.clock.seconds() - 0.0005)
            self.assertNoResult(call)
            self.advance(0.0006)
            self.assertAlmostEqual(self.error(call, errors.RequestTimedOut).elapsed, timeout)

    def test_answer_before_the_deadline(self) -> None:
        """An answer just before the deadline counts; one that comes with it does not."""
        peer = self.peer()
        client = self.client()
        for before, counts in ((2 * DELAY, True), (DELAY / 2, False)):
            call = client.call("x", timeout=1.0)
            self.advance(1.0 - before)
            peer.respond("late")
            self.advance()
            if counts:
                self.assertEqual(self.successResultOf(call), "late")
            else:
                self.error(call, errors.RequestTimedOut)


class RetransmissionTests(SimulatedTestCase):
    """What a silent server sees."""

    def test_when(self) -> None:
        """Four datagrams in 2 s: the intervals double from an eighth of the deadline."""
        self.peer()
        self.client().call("x").addErrback(lambda _: None)
        self.advance(3.0)
        self.assertEqual(tuple(time for time, _ in self.sent()), SILENT)

    def test_at_most_3_s_apart(self) -> None:
        """A call of a minute begins with 1 s and then sends every 3 s, as RFC 8085 allows."""
        self.peer()
        self.client().call("x", timeout=60.0).addErrback(lambda _: None)
        self.advance(61.0)
        times = [time for time, _ in self.sent()]
        self.assertEqual(times[:5], [0.0, 1.0, 3.0, 6.0, 9.0])
        self.assertEqual(len(times), 21)

    def test_same_bytes_same_port(self) -> None:
        """Retransmissions have the same bytes and leave from the same port to the same address."""
        self.peer()
        self.client().call("x", "text").addErrback(lambda _: None)
        self.advance(3.0)
        routes = {(record.source, record.destination, record.payload) for record in self.network.trace}
        self.assertEqual((len(routes), len(self.network.trace)), (1, 4))

    def test_after_a_loss(self) -> None:
        """The second datagram is answered where the first was lost, and counts once."""
        peer = self.peer()
        client = self.client()
        seen: list[Datagram] = []

        def lose_the_first(datagram: Datagram, _now: float, _rng: random.Random) -> list[Arrival]:
            seen.append(datagram)
            return [] if len(seen) == 1 else [Arrival(datagram)]

        self.network.link(self.here, self.there).add(lose_the_first)
        call = client.call("x")
        self.advance(0.26)
        self.assertEqual((len(seen), len(peer.received)), (2, 1))
        peer.respond("found")
        self.advance()
        self.assertEqual(self.successResultOf(call), "found")
        self.advance(3.0)
        self.assertEqual(len(peer.received), 1)

    def test_jitter(self) -> None:
        """The first interval is stretched by up to a half, at random, so that clients do not repeat in step."""
        self.peer()
        firsts = []
        for seed in range(50):
            client = self.client(rng=random.Random(seed))  # noqa: S311  # to be repeatable
            before = len(self.sent())
            start = self.network.clock.seconds()
            client.call("x").addErrback(lambda _: None)
            self.advance(2.5)
            firsts.append(self.sent()[before + 1][0] - start)
        self.assertGreaterEqual(min(firsts), 0.25)
        self.assertLessEqual(max(firsts), 0.375)
        self.assertGreater(max(firsts) - min(firsts), 0.1)

    def test_learns_the_round_trip(self) -> None:
        """Once a round trip is known it decides, not the deadline; the floor is 0.2 s."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        self.advance(0.1)
        peer.respond("slow")
        self.advance()
        self.successResultOf(call)
        start = self.network.clock.seconds()
        client.call("y", timeout=10.0).addErrback(lambda _: None)
        self.advance(11.0)
        # SRTT and RTTVAR after one sample R of 0.101 s: R and R/2, so R + 4 R/2 = 3 R.
        self.assertAlmostEqual(self.sent()[2][0] - start, 3 * (0.1 + DELAY))

    def test_idempotent_goes_on(self) -> None:
        """An idempotent call that is not answered goes round the server's addresses, and the next one starts there."""
        self.network.names["both.example"] = [SERVER6, SERVER]
        silent, peer = self.peer(interface=SERVER6), self.peer(interface=SERVER)
        client = self.client("both.example")
        self.advance()
        call = client.call("x", idempotent=True)
        self.advance(0.3)
        self.assertEqual((len(silent.received), len(peer.received)), (1, 1))
        self.assertEqual(silent.received[0][0], peer.received[0][0])
        peer.respond("here")
        self.advance()
        self.assertEqual(self.successResultOf(call), "here")
        second = client.call("y")
        self.advance()
        peer.respond("again")
        self.advance()
        self.assertEqual(self.successResultOf(second), "again")
        self.assertEqual(len(silent.received), 1)

    def test_others_stay(self) -> None:
        """A call that is not idempotent is never sent to a second address on mere silence."""
        self.network.names["both.example"] = [SERVER6, SERVER]
        silent, peer = self.peer(interface=SERVER6), self.peer(interface=SERVER)
        client = self.client("both.example")
        self.advance()
        call = client.call("x")
        self.advance(3.0)
        self.assertEqual((len(silent.received), len(peer.received)), (4, 0))
        self.assertEqual(self.error(call, errors.RequestTimedOut).peers, ((SERVER6, PORT),))
        client.call("y").addErrback(lambda _: None)
        self.advance()
        self.assertEqual(len(peer.received), 1)


class TimerTests(SimulatedTestCase):
    """One timer for all requests."""

    def test_one_timer(self) -> None:
        """While 1,000 requests wait there is one delayed call; when they are answered it dies; after a stop: none."""
        peer = self.peer()
        client = self.client(window=1000)
        calls = [client.call("x", timeout=1.0 + number % 7) for number in range(1000)]
        for _ in range(40):
            self.advance(0.1)
            self.assertEqual(len(self.here.getDelayedCalls()), 1)
        client.stopService()
        self.advance()
        self.assertEqual(self.here.getDelayedCalls(), [])
        kinds = [type(self.failureResultOf(call).value) for call in calls]
        self.assertEqual(set(kinds), {errors.RequestTimedOut, errors.RequestAborted})
        self.assertGreater(len(peer.received), 1000)

    def test_dies_by_itself(self) -> None:
        """When all is answered the timer fires once more and is not armed again."""
        peer = self.peer()
        client = self.client()
        client.call("x")
        self.advance()
        peer.respond(1)
        self.advance(0.3)
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_moved_forward(self) -> None:
        """A call that is due earlier than the timer is armed for moves it."""
        self.peer()
        client = self.client()
        client.call("x", timeout=60.0).addErrback(lambda _: None)
        short = client.call("y", timeout=0.1)
        self.advance(0.1)
        self.error(short, errors.RequestTimedOut)

    def test_too_early(self) -> None:
        """A timer that fires a hair early causes no extra rounds: what it was armed for is done."""
        self.peer()
        clockwork = Clockwork(self.here)
        clockwork.early = 0.0004
        client = self.client(reactor=clockwork)
        call = client.call("x")
        self.advance(3.0)
        self.assertEqual(len(self.sent()), 4)
        for (sent, _), due in zip(self.sent(), SILENT, strict=True):
            self.assertTrue(due - 0.0021 < sent <= due, (sent, due))
        self.assertEqual(self.error(call, errors.RequestTimedOut).elapsed, 2.0)

    def test_late(self) -> None:
        """After the whole program stood still for a minute a call fails at once, instead of being sent some more."""
        self.peer()
        client = self.client()
        call = client.call("x")
        self.network.clock.rightNow += 60.0
        self.advance(0.0)
        self.assertEqual(self.error(call, errors.RequestTimedOut).attempts, 1)
        self.assertEqual(len(self.sent()), 1)

    def test_wall_clock(self) -> None:
        """On a real reactor the client goes by a clock that nobody can set, on others by the reactor's own."""
        self.assertIs(UDPClientService(SelectReactor(), CLIENT, 7)._pump.now, time.monotonic)
        self.assertEqual(UDPClientService(self.here, CLIENT, 7)._pump.now, self.here.seconds)


class StatisticsTests(SimulatedTestCase):
    """The counters belong to the time since the last start."""

    def test_since_start(self) -> None:
        """A client that is started again counts from zero."""
        self.peer()
        client = self.client()
        client.call("x", timeout=0.1).addErrback(lambda _: None)
        self.advance(0.2)
        self.assertEqual(client.stats.timed_out, 1)
        client.stopService()
        self.assertEqual(client.stats.timed_out, 1)
        client.startService()
        self.assertEqual(client.stats.timed_out, 0)

    def test_repr(self) -> None:
        """A client shows where it calls and whether it runs."""
        client = UDPClientService(self.here, CLIENT, 7)
        self.assertEqual(repr(client), f"<UDPClientService for {CLIENT} port 7, not running>")
        client.startService()
        self.assertEqual(repr(client), f"<UDPClientService for {CLIENT} port 7, running>")
        client.stopService()
