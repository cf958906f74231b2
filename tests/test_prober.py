"""A series of probes over a simulated network: schedules, losses and oddities whose truth the network's trace knows."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from tests.simulation import CLIENT, PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp._pacing import Clocks
from twistedudp._probe_run import COUNTS_QUESTIONS, MAX_STRANGERS, MOST_BEHIND_NS, PROBES_PER_TURN
from twistedudp._prober import Prober, Schedule, new_series
from twistedudp.errors import CannotSend, InvalidAddress, LocalError
from twistedudp.impairment import Arrival, Duplicate, Jitter, Loss
from twistedudp.interfaces import Unreachable
from twistedudp.methods import RPCMethods
from twistedudp.testing._port import SimulatedPort
from twistedudp.testing._trace import Fate
from twistedudp.transport._errors import invalid_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

    from twistedudp.address import Address
    from twistedudp.impairment import Datagram
    from twistedudp.probing import ProbeEvent, Summary

US = 1_000
MS = 1_000_000
S = 1_000_000_000


class Script:
    """A link effect whose every decision is made beforehand.

    Args:
        fates: Seconds by which each copy of the n-th datagram is delayed; one that is not named passes.
    """

    def __init__(self, fates: dict[int, tuple[float, ...]]) -> None:
        self._fates = fates
        self._number = -1

    def __call__(self, datagram: Datagram, now: float, rng: Random, /) -> Iterable[Arrival]:
        """Decide."""
        self._number += 1
        return [Arrival(datagram, delay) for delay in self._fates.get(self._number, (0.0,))]


class ProberCase(SimulatedTestCase):
    """Probes from one host to another.

    Attributes:
        events: What the prober has told.
    """

    def setUp(self) -> None:
        """Begin."""
        super().setUp()
        self.events: list[ProbeEvent] = []

    def prober(
        self,
        count: int | None = 10,
        interval_ns: int = 10 * MS,
        *,
        host: str = SERVER,
        duration_ns: int | None = None,
        size: int = 64,
        timeout: float = 0.5,
        window: int = 4096,
        **options: Any,
    ) -> Prober:
        """Make a prober."""
        peer = (host, PORT)
        series = new_series("server", peer, size=size, interval=interval_ns / S, timeout=timeout, window=window)
        self.series = series
        schedule = Schedule(interval_ns, count, duration_ns)
        options.setdefault("on_event", self.events.append)
        return Prober(options.pop("reactor", self.here), peer, series, schedule, **options)

    def run_to_end(self, prober: Prober) -> Summary:
        """Run it until its Deferred fires, and check that nothing is left on its host."""
        summary: Summary = self.result(prober.run())
        self.assertEqual(self.here.ports, [])
        self.assertEqual(self.here.getDelayedCalls(), [])
        self.assertIsNone(prober.port)
        return summary

    def kinds(self, kind: str) -> list[int]:
        """Return the sequence numbers of the events of one kind."""
        return [event.sequence for event in self.events if event.kind == kind]

    def way(
        self, *, there: dict[int, tuple[float, ...]] | None = None, back: dict[int, tuple[float, ...]] | None = None
    ) -> None:
        """Decide of the n-th datagrams of each direction when their copies arrive; none at all for one that is lost."""
        for link, fates in zip(self.network.links(self.here, self.there), (there, back), strict=True):
            link.add(Script(fates or {}))

    def listen_by(self, kind: type[SimulatedPort]) -> None:
        """Have the prober's host make ports of another kind."""

        def listen(port: int, protocol: Any, interface: str = "", size: int = 8192) -> SimulatedPort:
            made = kind(self.here, port, protocol, interface, size)
            made.startListening()
            return made

        self.patch(self.here, "listenUDP", listen)

    def hold_up(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self.network.clock.rightNow += seconds


class ScheduleTests(ProberCase):
    """What is sent when."""

    def times(self) -> list[int]:
        """Return when the client sent, in microseconds from the first on."""
        sent = [time for time, _ in self.sent(to=(SERVER, PORT))]
        return [round((time - sent[0]) * 1e6) for time in sent]

    def test_isochronous(self) -> None:
        """Probes leave at start + n * interval, and all are answered."""
        self.serve(Echo())
        summary = self.run_to_end(self.prober(20))
        self.assertEqual(self.times(), [number * 10_000 for number in range(20)])
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.protocol), (20, 20, 0, "echo"))
        self.assertAlmostEqual(summary.rtt.max or 0, 0.002, places=6)
        self.assertLess(summary.schedule_error.max or 0, 1e-5)
        self.assertEqual(summary.oddities, {})
        self.assertTrue(summary.kernel_times)
        self.assertEqual(self.kinds("reply"), list(range(20)))

    def test_ends_with_the_last_answer(self) -> None:
        """When every probe is answered the end does not wait for any timeout."""
        self.serve(Echo())
        self.run_to_end(self.prober(3, timeout=60.0))
        self.assertLess(self.network.clock.seconds(), 0.03)

    def test_waits_for_the_last(self) -> None:
        """Without an answer it waits for the last probe's timeout, and no longer."""
        self.peer()
        summary = self.run_to_end(self.prober(3, timeout=0.5))
        self.assertEqual((summary.sent, summary.lost), (3, 3))
        self.assertAlmostEqual(self.network.clock.seconds(), 0.52, places=4)

    def test_duration(self) -> None:
        """A duration ends the sending: a probe due at its very end is not sent."""
        self.serve(Echo())
        self.assertEqual(self.run_to_end(self.prober(None, duration_ns=50 * MS)).sent, 5)

    def test_duration_and_count(self) -> None:
        """Of a duration and a count, what comes first ends the sending."""
        self.serve(Echo())
        self.assertEqual(self.run_to_end(self.prober(3, duration_ns=50 * MS)).sent, 3)
        self.assertEqual(self.run_to_end(self.prober(30, duration_ns=50 * MS)).sent, 5)

    def test_no_probe(self) -> None:
        """A count of none is a series of none."""
        self.assertEqual(self.run_to_end(self.prober(0)).sent, 0)

    def test_fast(self) -> None:
        """At 20,000 a second all that is due in a turn leaves in it, and none is forgotten."""
        self.serve(Echo())
        summary = self.run_to_end(self.prober(1000, 50 * US))
        self.assertEqual((summary.sent, summary.received), (1000, 1000))
        self.assertEqual(self.times()[-1], 49_950)

    def test_lateness_does_not_add_up(self) -> None:
        """When the process was held up, what was missed leaves at once, and the rest on time."""
        self.serve(Echo())
        running = self.prober(200, MS).run()
        self.network.advance(0.0101)
        self.hold_up(0.1)
        self.network.advance(0)
        self.assertEqual(len(self.times()), 111)
        self.assertGreater(len(self.times()) - 11, PROBES_PER_TURN)
        summary: Summary = self.result(running)
        self.assertEqual((summary.sent, summary.received, summary.oddities), (200, 200, {}))
        self.assertEqual(self.times()[-1], 199_000)
        self.assertAlmostEqual(summary.schedule_error.max or 0, 0.0991, places=4)

    def test_turns_are_bounded(self) -> None:
        """In a turn no more leave than are allowed; the reactor has its turn in between."""
        turns: list[int] = []

        self.serve(Echo())
        running = self.prober(200, MS).run()
        self.network.advance(0)
        self.hold_up(0.15)
        while len(self.sent(to=(SERVER, PORT))) < 150:
            before = len(self.sent(to=(SERVER, PORT)))
            self.network.clock.step()
            turns.append(len(self.sent(to=(SERVER, PORT))) - before)
        self.assertEqual(max(turns), PROBES_PER_TURN)
        self.result(running)

    def test_suspended(self) -> None:
        """When it was suspended for long, what was missed is skipped and counted, and the count is made good."""
        self.serve(Echo())
        running = self.prober(200, MS, timeout=5.0).run()
        self.network.advance(0.0105)
        self.hold_up(2.0)
        summary: Summary = self.result(running)
        self.assertEqual(summary.oddities, {"skipped_deadlines": 1999})
        self.assertEqual((summary.sent, summary.received), (200, 200))
        self.assertLess(summary.schedule_error.max or 0, 0.001)
        self.assertEqual(self.times()[-1], 2_198_000)

    def test_suspended_beyond_the_end(self) -> None:
        """When it was suspended until after the end, only what was due before the end was missed."""
        self.serve(Echo())
        running = self.prober(None, MS, duration_ns=100 * MS).run()
        self.network.advance(0.0105)
        self.hold_up(5.0)
        summary: Summary = self.result(running)
        self.assertEqual((summary.sent, summary.oddities), (11, {"skipped_deadlines": 89}))

    def test_almost_suspended(self) -> None:
        """At the bound itself nothing is skipped."""
        self.serve(Echo())
        running = self.prober(1200, MS).run()
        self.network.advance(0)
        self.hold_up(MOST_BEHIND_NS / S + 0.001)
        summary: Summary = self.result(running)
        self.assertEqual((summary.sent, summary.oddities), (1200, {}))


class FateTests(ProberCase):
    """What becomes of probes and answers, with each datagram's way decided by the test."""

    def test_lost(self) -> None:
        """Probes and answers that vanish are lost, and the others are not."""
        self.serve(Echo())
        self.way(there={3: ()}, back={0: (), 7: ()})  # the answer to the 9th is the 8th, for the 4th never came
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.sent, summary.received, summary.lost), (10, 7, 3))
        self.assertEqual(self.kinds("lost"), [0, 3, 8])
        self.assertEqual(summary.loss, 0.3)

    def test_duplicated(self) -> None:
        """Answers that come twice count once; so do answers to probes that arrived twice."""
        self.serve(Echo())
        self.way(there={2: (0.0, 0.001)}, back={5: (0.0, 0.0, 0.02)})
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.received, summary.duplicated, summary.lost), (10, 3, 0))
        self.assertEqual(self.kinds("duplicate"), [2, 4, 4])

    def test_reordered(self) -> None:
        """An answer overtaken by others is reordered, wherever it was overtaken."""
        self.serve(Echo())
        self.way(there={2: (0.015,)}, back={6: (0.035,)})
        summary = self.run_to_end(self.prober(12))
        self.assertEqual((summary.received, summary.reordered, summary.lost), (12, 2, 0))
        self.assertEqual([event.sequence for event in self.events if event.reordered], [2, 6])
        self.assertAlmostEqual(summary.rtt.max or 0, 0.037, places=6)

    def test_late(self) -> None:
        """An answer after the timeout is late, and lost; it is told while the series runs."""
        self.serve(Echo())
        self.way(back={1: (0.55,)})
        summary = self.run_to_end(self.prober(100))
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.late), (100, 99, 1, 1))
        self.assertEqual((self.kinds("lost"), self.kinds("late")), ([1], [1]))
        self.assertAlmostEqual(summary.rtt.max or 0, 0.002, places=6)

    def test_late_before_its_deadline_is_seen(self) -> None:
        """Where the answer is read before the probe is given up, both are told all the same, the loss first."""
        self.peer()
        prober = self.prober(1)
        running = prober.run()
        self.network.advance(0.4)
        self.hold_up(0.2)
        port: Any = prober.port
        port.protocol.datagramReceived(self.sent(to=(SERVER, PORT))[0][1], (SERVER, PORT))
        summary: Summary = self.result(running)
        self.assertEqual((summary.received, summary.lost, summary.late), (0, 1, 1))
        self.assertEqual([(event.kind, event.sequence) for event in self.events], [("lost", 0), ("late", 0)])
        self.assertEqual(self.events[0].sent_ns, self.events[1].sent_ns)

    def test_just_in_time(self) -> None:
        """An answer that arrives in the last instant of its timeout is received."""
        self.serve(Echo())
        self.way(back={0: (0.498 - 1e-6,)})
        summary = self.run_to_end(self.prober(1, timeout=0.5))
        self.assertEqual((summary.received, summary.lost, summary.late), (1, 0, 0))

    def test_random(self) -> None:
        """Under random loss, duplication and delay all figures are those of the network's own record."""
        self.serve(Echo())
        for link in self.network.links(self.here, self.there):
            link.add(Loss(0.1))
            link.add(Duplicate(0.05))
            link.add(Jitter(0.03))
        summary = self.run_to_end(self.prober(3000, 2 * MS))
        answers: dict[bytes, list[float]] = {}
        times: dict[bytes, float] = {}
        for record in self.network.trace:
            if record.source[0] == CLIENT:
                times.setdefault(record.payload, record.time)
            elif record.fate is Fate.DELIVERED:
                answers.setdefault(record.payload, []).append(record.settled_at or 0.0)
        self.assertEqual(summary.sent, 3000)
        self.assertEqual(summary.received, len(answers))
        self.assertEqual(summary.lost, 3000 - len(answers))
        self.assertEqual(summary.duplicated, sum(len(found) - 1 for found in answers.values()))
        rtts = [min(found) - times[probe] for probe, found in answers.items()]
        self.assertAlmostEqual(summary.rtt.mean or 0, sum(rtts) / len(rtts), places=7)
        self.assertAlmostEqual(summary.rtt.max or 0, max(rtts), places=7)
        first = sorted((min(found), times[probe]) for probe, found in answers.items())
        newest, reordered = -1.0, 0
        for _, sent in first:
            reordered += sent < newest
            newest = max(newest, sent)
        self.assertEqual(summary.reordered, reordered)

    def test_silent(self) -> None:
        """A server that never answers is a series all lost, without a protocol and without times."""
        self.there.silent = True
        summary = self.run_to_end(self.prober(5))
        self.assertEqual((summary.sent, summary.lost, summary.protocol, summary.rtt.p50), (5, 5, "", None))

    def test_refused(self) -> None:
        """A host without a listener refuses each probe by ICMP, which is told, and the probes are lost."""
        summary = self.run_to_end(self.prober(5))
        self.assertEqual((summary.sent, summary.lost, summary.unreachable), (5, 5, 5))
        self.assertEqual(self.kinds("unreachable"), list(range(5)))
        [event] = [event for event in self.events if event.kind == "unreachable"][:1]
        self.assertEqual(event.detail, f"{os.strerror(errno.ECONNREFUSED)} (says {SERVER})")

    def test_ipv6(self) -> None:
        """It works over IPv6, however the address is spelled."""
        self.serve(Echo())
        summary = self.run_to_end(self.prober(5, host="2001:DB8:0::1"))
        self.assertEqual((summary.received, summary.address), (5, f"[2001:DB8:0::1]:{PORT}"))
        self.assertEqual(self.network.trace[0].destination, (SERVER6, PORT))


class RPCTests(ProberCase):
    """Against an rpc server of ours."""

    def test_split(self) -> None:
        """Loss is split into there and back, for the server's count is asked for at the end."""
        self.serve_methods(RPCMethods())
        self.way(there={3: (), 8: ()}, back={0: (), 7: (), 6: (0.0, 0.0)})
        summary = self.run_to_end(self.prober(20))
        self.assertEqual((summary.protocol, summary.sent, summary.received, summary.lost), ("rpc", 20, 16, 4))
        self.assertEqual((summary.lost_there, summary.lost_back), (2, 2))
        self.assertEqual((summary.duplicated, summary.duplicated_there), (1, 0))
        self.assertEqual(summary.oddities, {})
        self.assertEqual(summary.variation_there.max, summary.variation_back.max)

    def test_duplicated_there(self) -> None:
        """Probes that reach the server twice are told from answers that come twice."""
        self.serve_methods(RPCMethods())
        self.way(there={3: (0.0, 0.003)}, back={8: (0.0, 0.0)})
        summary = self.run_to_end(self.prober(20))
        self.assertEqual((summary.received, summary.lost, summary.duplicated_there), (20, 0, 1))
        self.assertEqual(summary.duplicated, 2)

    def test_last_ones_lost(self) -> None:
        """Where the last answers are lost, no reply tells: the question at the end does, and is asked again if lost."""
        self.serve_methods(RPCMethods())
        self.way(there={10: ()}, back=dict.fromkeys(range(5, 11), ()))
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.received, summary.lost_there, summary.lost_back), (5, 0, 5))

    def test_counts_never_come(self) -> None:
        """When the question stays unanswered the series ends all the same, soon, and splits what it knows."""
        self.serve_methods(RPCMethods())
        self.way(there=dict.fromkeys(range(10, 20), ()), back={5: ()})
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.received, summary.lost_there, summary.lost_back), (9, 0, 1))
        questions = self.sent(to=(SERVER, PORT))[10:]
        self.assertEqual(len(questions), COUNTS_QUESTIONS)
        self.assertLess(self.network.clock.seconds() - questions[0][0], 0.2)

    def test_asked_at_intervals(self) -> None:
        """What comes in while the counts are awaited, such as copies, does not make the question come again sooner."""
        self.serve_methods(RPCMethods())
        self.way(there=dict.fromkeys(range(10, 20), ()), back={9: (0.0, 0.01, 0.02, 0.06)})
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.received, summary.duplicated), (10, 3))
        times = [time for time, _ in self.sent(to=(SERVER, PORT))[10:]]
        self.assertEqual([round(later - times[0], 3) for later in times], [0.0, 0.05, 0.1])

    def test_counts_question_waits_for_the_path(self) -> None:
        """On a slow path the question is given the time that answers take there."""
        for link in self.network.links(self.here, self.there):
            link.delay = 0.2
        self.serve_methods(RPCMethods())
        summary = self.run_to_end(self.prober(5, timeout=2.0))
        self.assertEqual((summary.received, summary.lost_there), (5, 0))
        self.assertEqual(len(self.sent(to=(SERVER, PORT))), 6)

    def test_question_is_no_probe(self) -> None:
        """The question changes no figure of the series, and its answer's copies none either."""
        self.serve_methods(RPCMethods())
        self.way(back={5: (0.0, 0.0, 0.0)})
        summary = self.run_to_end(self.prober(5))
        self.assertEqual((summary.sent, summary.received, summary.duplicated), (5, 5, 0))
        self.assertEqual([event.kind for event in self.events], ["reply"] * 5 + ["counts"])

    def test_restarted_server(self) -> None:
        """A server that was restarted has forgotten the first probes: the split is unknown, not wrong."""
        first = self.serve_methods(RPCMethods())
        running = self.prober(20).run()
        self.network.advance(0.1)
        assert first.transport is not None
        first.transport.stopListening()
        self.network.advance(0.0)
        self.serve_methods(RPCMethods())
        summary: Summary = self.result(running)
        self.assertEqual((summary.sent, summary.lost_there, summary.lost_back), (20, None, None))


class Trickster(DatagramProtocol):
    """An echo server that sends other things beside, by the number of the probe.

    Attributes:
        tricks: What is sent instead of the answer to the n-th probe, made from that.
    """

    noisy = False

    def __init__(self, tricks: dict[int, Callable[[bytes], list[bytes]]]) -> None:
        self.tricks = tricks
        self._number = 0

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer."""
        assert self.transport is not None
        trick = self.tricks.get(self._number)
        self._number += 1
        for payload in [datagram] if trick is None else trick(datagram):
            self.transport.write(payload, addr)


class OddityTests(ProberCase):
    """Bad input: the figures stay right, and each oddity is counted under its name."""

    def assert_odd(self, tricks: dict[int, Callable[[bytes], list[bytes]]], lost: int, **oddities: int) -> Summary:
        """Check a series of ten of whose answers some were exchanged."""
        self.serve(Trickster(tricks))
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.sent, summary.received, summary.lost), (10, 10 - lost, lost))
        self.assertEqual(summary.oddities, oddities)
        self.assertAlmostEqual(summary.rtt.max or 0, 0.002, places=6)
        self.assertAlmostEqual(summary.rtt.min or 0, 0.002, places=6)
        return summary

    def test_wrong_sequence(self) -> None:
        """An answer with the number of another probe is no answer to either."""

        def other(probe: bytes) -> list[bytes]:
            return [self.series.table.wire.encode(1, int.from_bytes(probe[33:41], "big"))]

        def never_sent(probe: bytes) -> list[bytes]:
            return [self.series.table.wire.encode(10, int.from_bytes(probe[33:41], "big"))]

        summary = self.assert_odd({2: other, 5: never_sent}, lost=2, wrong_sequence=1)
        self.assertEqual((summary.corrupted, summary.foreign), (1, 1))

    def test_other_size(self) -> None:
        """Answers cut short or grown are corrupted, and of a wrong size."""
        summary = self.assert_odd(
            {1: lambda probe: [probe[:40]], 3: lambda probe: [probe + b"\0"], 4: lambda _: [b""]},
            lost=3,
            wrong_size=2,
            not_a_probe=1,
        )
        self.assertEqual((summary.corrupted, summary.foreign), (2, 1))

    def test_corrupted(self) -> None:
        """A changed byte makes an answer a corrupted one, and the intact copy behind it an answer."""
        summary = self.assert_odd({1: flip, 2: lambda probe: [*flip(probe), probe]}, lost=1)
        self.assertEqual((summary.corrupted, summary.duplicated), (2, 0))

    def test_forged_duplicates(self) -> None:
        """Copies of an answer, intact or not, and answers to older probes, change no figure but their own."""
        seen: list[bytes] = []

        def old_ones(probe: bytes) -> list[bytes]:
            seen.append(probe)
            return [probe, *seen[:-1], *flip(probe)]

        summary = self.assert_odd(dict.fromkeys(range(4), old_ones), lost=0)
        self.assertEqual((summary.duplicated, summary.corrupted, summary.reordered), (6, 4, 0))

    def test_other_series(self) -> None:
        """Answers to somebody else's series are foreign."""
        other = new_series("other", (SERVER, PORT), interval=1.0).next_probe(due_ns=0, now_ns=0)[1]
        summary = self.assert_odd({1: lambda probe: [other, probe], 2: lambda probe: [probe, b"hello"]}, 0,
                                  other_series=1, not_a_probe=1)  # fmt: skip
        self.assertEqual(summary.foreign, 2)

    def test_other_port_and_host(self) -> None:
        """An answer from another port or host than the server's is no answer, and told by its address."""
        third = self.network.reactor("192.0.2.66")
        elsewhere, twin = self.peer(port=PORT + 1), self.peer(on=third)

        def from_elsewhere(probe: bytes) -> list[bytes]:
            for other in (elsewhere, elsewhere, twin):
                assert other.transport is not None
                other.transport.write(probe, asker[0])
            return []

        asker: list[Address] = []
        prober = self.prober(10)
        trickster = Trickster({4: from_elsewhere})
        self.serve(trickster)
        running = prober.run()
        asker.append((CLIENT, own_port(prober)))
        summary: Summary = self.result(running)
        self.assertEqual((summary.received, summary.lost, summary.foreign), (9, 1, 3))
        self.assertEqual(summary.oddities, {"from_another_address": 3})
        self.assertEqual(prober.strangers, {(SERVER, PORT + 1): 2, ("192.0.2.66", PORT): 1})

    def test_many_strangers(self) -> None:
        """Of strangers no more addresses are kept than the bound, though each datagram is counted."""
        prober = self.prober(1)
        self.serve(Echo())
        running = prober.run()
        to = (CLIENT, own_port(prober))
        for number in range(MAX_STRANGERS + 5):
            stranger = self.peer(port=2000 + number)
            for _ in range(2):
                assert stranger.transport is not None
                stranger.transport.write(b"me too", to)
        summary: Summary = self.result(running)
        self.assertEqual(summary.oddities, {"from_another_address": 2 * (MAX_STRANGERS + 5)})
        self.assertEqual(len(prober.strangers), MAX_STRANGERS)
        self.assertEqual(set(prober.strangers.values()), {2})

    def test_forged_icmp(self) -> None:
        """ICMP errors that quote no probe of the series, or are about another peer, end and change nothing."""
        self.serve(Echo())
        prober = self.prober(10)
        running = prober.run()
        self.network.advance(0.015)
        port: Any = prober.port
        refused = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, "203.0.113.5")
        port.unreachable((SERVER, PORT), refused, b"something else")
        port.unreachable((SERVER, PORT), refused, b"")
        port.unreachable((SERVER, PORT + 1), refused, self.sent(to=(SERVER, PORT))[0][1])
        summary: Summary = self.result(running)
        self.assertEqual((summary.received, summary.lost, summary.unreachable), (10, 0, 0))
        self.assertEqual(summary.oddities, {"forged_icmp_error": 1, "icmp_error_without_quote": 1})

    def test_clock_set(self) -> None:
        """The wall clock set forward and back while probes are under way: round trips stay right, each is counted."""
        self.serve(Echo())
        clock = SetClock(self.here)

        class Stamping(SimulatedPort):
            """Its kernel stamps half a millisecond before anybody reads."""

            @property
            def arrival_times(self) -> Sequence[int]:
                return [clock.wall_at(clock.monotonic() - MS // 2)]

        self.listen_by(Stamping)
        running = self.prober(50, clocks=clock.clocks).run()
        leaps = (3600 * S, -7200 * S, 5 * MS, -MS, 300 * MS, -(10**9) * S)
        self.network.advance(0.0018)  # an answer has been stamped, and not been read
        for leap in leaps:
            clock.set(leap)
            self.network.advance(0.03)
        summary: Summary = self.result(running)
        self.assertEqual((summary.sent, summary.received, summary.lost), (50, 50, 0))
        self.assertEqual(summary.oddities, {"clock_jump": len(leaps)})
        self.assertEqual(sorted({round(event.rtt_ns / MS, 3) for event in self.events}), [1.5, 2.0])
        self.assertEqual(sum(event.rtt_ns > 1.9 * MS for event in self.events), len(leaps))

    def test_clock_set_unseen(self) -> None:
        """Set forward and back again while nobody looked: an answer that seems to come before its probe is not so."""
        self.serve(Echo())
        clock = SetClock(self.here)

        class Stamping(SimulatedPort):
            """The clock was an hour and a tenth of a second behind for a moment."""

            @property
            def arrival_times(self) -> Sequence[int]:
                return [clock.wall() - 100 * MS]

        self.listen_by(Stamping)
        summary = self.run_to_end(self.prober(1, clocks=clock.clocks))
        self.assertEqual(summary.received, 1)
        self.assertAlmostEqual(summary.rtt.max or 0, 0.002, places=6)


class NotSentTests(ProberCase):
    """What the own machine does not send is no loss of the network's."""

    def refuse(self, numbers: dict[int, int | Exception]) -> None:
        """Let the host refuse the n-th datagrams: an errno that the port counts, or what it raises."""

        class Refusing(SimulatedPort):
            written = 0

            def write(self, packet: bytes, addr: Address | None = None) -> None:
                fault = numbers.get(self.written)
                self.written += 1
                if isinstance(fault, Exception):
                    raise fault
                if fault is not None:
                    self.stats.count_send_error(fault)
                    return
                super().write(packet, addr)

        self.listen_by(Refusing)

    def test_firewall(self) -> None:
        """A local firewall, a full device and a full buffer are told in words, each probe by itself."""
        self.serve(Echo())
        self.refuse({1: errno.EPERM, 3: errno.ENOBUFS, 4: errno.EAGAIN, 8: errno.EPERM, 9: errno.EIO})
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.not_sent), (5, 5, 0, 5))
        told = {event.sequence: event.detail for event in self.events if event.kind == "not_sent"}
        self.assertEqual(
            told,
            {
                1: "a firewall on this machine forbids it (EPERM)",
                3: "the network device of this machine takes no more at present (ENOBUFS)",
                4: "the send buffer of this machine is full (EAGAIN)",
                8: "a firewall on this machine forbids it (EPERM)",
                9: f"{os.strerror(errno.EIO)} (EIO)",
            },
        )

    def test_all_refused(self) -> None:
        """Where nothing can be sent the series ends without waiting, with nothing sent and nothing lost."""
        self.refuse(dict.fromkeys(range(10), errno.EPERM))
        summary = self.run_to_end(self.prober(10))
        self.assertEqual((summary.sent, summary.lost, summary.not_sent, summary.loss), (0, 0, 10, None))
        self.assertLess(self.network.clock.seconds(), 0.1)

    def test_no_route(self) -> None:
        """So is a machine without a route, here one without IPv6."""
        reactor = self.network.reactor("192.0.2.7")
        summary = self.result(self.prober(3, host=SERVER6, reactor=reactor).run())
        self.assertEqual((summary.sent, summary.lost, summary.not_sent, summary.unreachable), (0, 0, 3, 0))
        self.assertEqual(self.events[0].detail, f"{os.strerror(errno.ENETUNREACH)} (ENETUNREACH)")

    def test_too_large_for_the_path(self) -> None:
        """A probe that does not fit its path is told with what the port says of it."""
        self.serve(Echo())
        self.refuse({2: MessageLengthError("the path has an MTU of 1,300 bytes")})
        summary = self.run_to_end(self.prober(5))
        self.assertEqual((summary.sent, summary.received, summary.not_sent), (4, 4, 1))
        [told] = [event.detail for event in self.events if event.kind == "not_sent"]
        self.assertIn("the path has an MTU of 1,300 bytes", told)

    def test_other_reactors(self) -> None:
        """A reactor's own port, which has no counters, raises the system's errors: they are told alike."""
        self.serve(Echo())
        self.refuse({1: OSError(errno.ENOBUFS, "no room")})
        summary = self.run_to_end(self.prober(3))
        self.assertEqual((summary.sent, summary.received, summary.not_sent), (2, 2, 1))

    def test_own_kernels_report(self) -> None:
        """What the own kernel reports of a probe as unreachable was told at the write, and is not told twice."""
        self.serve(Echo())
        prober = self.prober(3)
        running = prober.run()
        self.network.advance(0.001)
        port: Any = prober.port
        probe = self.sent(to=(SERVER, PORT))[0][1]
        port.unreachable((SERVER, PORT), Unreachable(errno.ENETUNREACH, "Network is unreachable", 0, 0, ""), probe)
        summary: Summary = self.result(running)
        self.assertEqual((summary.received, summary.unreachable, summary.oddities), (3, 0, {}))


class EndTests(ProberCase):
    """Stops, failures, and what is left behind: nothing."""

    def test_stop(self) -> None:
        """A stop ends the sending and fires at once; what is on its way is neither received nor lost nor sent."""
        self.serve(Echo())
        prober = self.prober(None)
        running = prober.run()
        self.network.advance(0.0505)
        self.assertIsNotNone(prober.port)
        prober.stop()
        prober.stop()
        self.network.advance(0)
        summary: Summary = self.successResultOf(running)
        self.assertEqual((summary.sent, summary.received, summary.lost), (5, 5, 0))
        self.assertEqual(summary.oddities, {"unanswered_at_stop": 1})
        self.assertEqual((self.here.ports, self.here.getDelayedCalls()), ([], []))
        self.network.advance(1)
        self.assertEqual(len(self.events), 5)

    def test_stop_after_one(self) -> None:
        """A run lasts until its last answer, also where no other probe has followed."""
        self.serve(Echo())
        prober = self.prober(None, S)
        running = prober.run()
        self.network.advance(0.1)
        prober.stop()
        self.network.advance(0)
        summary: Summary = self.successResultOf(running)
        self.assertEqual((summary.sent, summary.received), (1, 1))
        self.assertAlmostEqual(summary.duration, 0.002, places=6)

    def test_stop_from_inside(self) -> None:
        """It may be stopped by whoever is told of an event."""
        self.serve(Echo())

        def told(event: ProbeEvent) -> None:
            self.events.append(event)
            if event.sequence == 2:
                prober.stop()

        prober = self.prober(None, on_event=told)
        self.assertEqual(self.run_to_end(prober).received, 3)

    def test_stop_while_waiting(self) -> None:
        """A stop while the last answers are awaited does not wait for them."""
        self.peer()
        prober = self.prober(2, timeout=10.0)
        running = prober.run()
        self.network.advance(1)
        prober.stop()
        self.network.advance(0)
        summary: Summary = self.successResultOf(running)
        self.assertEqual((summary.sent, summary.lost, summary.oddities), (0, 0, {"unanswered_at_stop": 2}))

    def test_stop_while_counts_are_asked(self) -> None:
        """A stop while the server's counts are awaited ends that, too."""
        self.serve_methods(RPCMethods())
        self.way(there={2: (), 3: (), 4: ()})
        prober = self.prober(2)
        running = prober.run()
        self.network.advance(0.02)
        prober.stop()
        self.network.advance(0)
        self.assertEqual(self.successResultOf(running).received, 2)
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_stop_before(self) -> None:
        """Stopped before it began, it sends nothing, and fires."""
        prober = self.prober()
        prober.stop()
        self.assertEqual(self.successResultOf(prober.run()).sent, 0)
        self.assertEqual(self.here.ports, [])

    def test_cancel(self) -> None:
        """Cancelling the Deferred ends everything."""
        self.serve(Echo())
        running = self.prober(None).run()
        self.network.advance(0.05)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.network.advance(0)
        self.assertEqual((self.here.ports, self.here.getDelayedCalls()), ([], []))

    def test_port_closed(self) -> None:
        """When somebody closes the port, as the reactor does at its end, the series ends as at a stop."""
        self.serve(Echo())
        prober = self.prober(None)
        running = prober.run()
        self.network.advance(0.025)
        assert prober.port is not None
        prober.port.stopListening()
        self.network.advance(0)
        self.assertEqual(self.successResultOf(running).received, 3)
        self.assertEqual((self.here.ports, self.here.getDelayedCalls()), ([], []))

    def test_twice(self) -> None:
        """A prober runs once."""
        self.serve(Echo())
        prober = self.prober(1)
        running = prober.run()
        self.assertRaises(LocalError, prober.run)
        self.result(running)
        self.assertRaises(LocalError, prober.run)

    def test_failing_receiver(self) -> None:
        """What a receiver of events raises is logged, and the figures are those of the network."""
        self.serve(Echo())

        def told(_: ProbeEvent) -> None:
            raise ZeroDivisionError

        self.assertEqual(self.run_to_end(self.prober(5, on_event=told)).received, 5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)

    def test_no_such_interface(self) -> None:
        """An address to send from that is not this machine's is told."""
        self.error(self.prober(interface="192.0.2.99").run(), CannotSend)

    def test_no_port(self) -> None:
        """A machine that gives no port is told in its own words."""
        self.here.crash()
        error = self.error(self.prober().run(), LocalError)
        self.assertIn("no UDP port to probe from", str(error))

    def test_wrong_peer(self) -> None:
        """Names, families that do not fit, and ports nobody can listen on are the caller's mistakes."""
        for peer, interface in (("server", ""), (SERVER, "::1"), (SERVER6, CLIENT), (SERVER, "eth0")):
            series = new_series("x", (SERVER, PORT), interval=1.0)
            with self.assertRaises(InvalidAddress):
                Prober(self.here, (peer, PORT), series, Schedule(S), interface=interface)
        series = new_series("x", (SERVER, 70000), interval=1.0)
        running = Prober(self.here, (SERVER, 70000), series, Schedule(S)).run()
        self.network.advance(0)
        self.network.advance(0)
        self.error(running, InvalidAddress)
        self.assertEqual((self.here.ports, self.here.getDelayedCalls()), ([], []))

    def test_wrong_zone(self) -> None:
        """What a port says of an address that cannot be sent to is told in words."""

        class Refusing(SimulatedPort):
            def write(self, packet: bytes, addr: Address | None = None) -> None:
                raise invalid_address("fe80::1%nope", "there is no network interface 'nope'")

        self.listen_by(Refusing)
        running = self.prober(host=SERVER6).run()
        self.network.advance(0.001)
        error = self.error(running, InvalidAddress)
        self.assertEqual(str(error), "fe80::1%nope: there is no network interface 'nope'")

    def test_broadcast(self) -> None:
        """A broadcast address has no one server to probe."""
        running = self.prober(host="255.255.255.255").run()
        self.network.advance(0.001)
        self.error(running, LocalError)

    def test_window(self) -> None:
        """When more probes are under way than are remembered, the oldest are given up, and told."""
        self.peer()
        summary = self.run_to_end(self.prober(50, MS, window=16))
        self.assertEqual((summary.sent, summary.lost, summary.oddities), (50, 50, {"window_full": 34}))
        self.assertEqual(self.kinds("lost"), list(range(50)))


class NewSeriesTests(ProberCase):
    """What makes a series one of a kind."""

    def test_random(self) -> None:
        """Sessions and paddings are never the same, and sessions always fill their 64 bits."""
        wires = [new_series("x", (SERVER, PORT), interval=1.0).table.wire for _ in range(100)]
        self.assertEqual(len({wire.session for wire in wires}), 100)
        self.assertTrue(all(2**32 < wire.session < 2**64 for wire in wires))
        self.assertEqual(len({wire.encode(0, 0)[-16:] for wire in wires}), 100)

    def test_sizes(self) -> None:
        """What no datagram of the family carries is refused at once."""
        for host, most in ((SERVER, 65507), (SERVER6, 65527)):
            new_series("x", (host, PORT), size=most, interval=1.0)
            with self.assertRaises(ValueError):
                new_series("x", (host, PORT), size=most + 1, interval=1.0)
        with self.assertRaises(ValueError):
            new_series("x", (SERVER, PORT), size=10, interval=1.0)


def own_port(prober: Prober) -> int:
    """Return the number of the UDP port that a running prober sends from."""
    listening: Any = prober.port
    number: int = listening.getHost().port
    return number


def flip(probe: bytes) -> list[bytes]:
    """Return a probe with its last byte changed."""
    return [probe[:-1] + bytes([probe[-1] ^ 1])]


class SetClock:
    """The clocks of a simulated host whose wall clock a test sets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._settings = [(-1, 1_800_000_000 * S)]
        self.clocks = Clocks(self.monotonic, self.wall)

    def monotonic(self) -> int:
        """Return the monotonic time."""
        seconds: float = self._reactor.seconds()
        return round(seconds * S)

    def wall(self) -> int:
        """Return the wall clock's."""
        return self.wall_at(self.monotonic())

    def wall_at(self, now: int) -> int:
        """Return what the wall clock said at a time, or says."""
        return now + next(offset for since, offset in reversed(self._settings) if since <= now)

    def set(self, leap: int) -> None:
        """Set the wall clock."""
        self._settings.append((self.monotonic(), self._settings[-1][1] + leap))
