"""Sweeps over sizes and rates on a simulated network: what is found, and whom it is put down to."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import DELAY, PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp import RPCMethods
from twistedudp._prober import new_series
from twistedudp._size_probes import LEAST_PATIENCE, SPACING
from twistedudp._sweep_rate import (
    CONFIRMATIONS,
    DEFAULT_MOST_RATE,
    FIRST_RATE,
    LATE,
    MOST_STEPS,
    RESOLUTION,
    _Ran,
    _Sweep,
)
from twistedudp._sweeps import sweep_rate, sweep_size
from twistedudp.impairment import MTU, Arrival, Delay, Loss
from twistedudp.impairment._packets import packet_too_big
from twistedudp.probing import SMALLEST_PROBE, Times
from twistedudp.probing._search import LEAST_TRIES, MOST_TRIES, RateSearch

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from twistedudp._sweeps import RateStep, RateSweep, SizeStep, SizeSweep
    from twistedudp.address import Address
    from twistedudp.impairment import Datagram

VIRTUAL: Final = 3600.0
"""Virtual seconds that a sweep may take."""

LARGEST: Final = 65507
HEAD: Final = 44
"""Bytes of a probe before its padding, whose length the last two are (docs/wire.md)."""


class Cutter(Echo):
    """An echo server with a buffer."""

    def __init__(self, size: int) -> None:
        self.size = size

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send back what fits."""
        super().datagramReceived(datagram[: self.size], addr)


class Twice(Echo):
    """An echo server behind a network that duplicates."""

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send it back, and once more."""
        super().datagramReceived(datagram, addr)
        super().datagramReceived(datagram, addr)


class Refuser(Echo):
    """An echo server that drops what is too large for it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send it back if it is small enough."""
        if len(datagram) <= self.size:
            super().datagramReceived(datagram, addr)


class Stranger(DatagramProtocol):
    """Answers whatever comes with something of its own."""

    noisy = False

    def datagramReceived(self, _datagram: bytes, addr: Address) -> None:
        """Answer."""
        assert self.transport is not None
        self.transport.write(b"who is there?", addr)


class SizeCase(SimulatedTestCase):
    """A sweep over sizes."""

    def both_ways(self, *makers: Callable[[], Any]) -> None:
        """Put effects on the link, in each direction."""
        for link in (self.network.link(self.here, self.there), self.network.link(self.there, self.here)):
            for maker in makers:
                link.add(maker())

    def sweep(self, host: str = SERVER, **how: Any) -> SizeSweep:
        """Sweep, and check what holds for every result."""
        steps: list[SizeStep] = []
        found = self.network.run_until(sweep_size(self.here, (host, PORT), on_step=steps.append, **how), VIRTUAL)
        self.assertEqual(list(found.steps), steps)
        self.assertEqual(found.probes, sum(step.tries for step in steps))
        self.assertEqual(self.ports_bound(), [])
        json.dumps(found.as_json(), allow_nan=False)
        return found


class SizeTests(SizeCase):
    """The largest payload that passes."""

    def test_whole_range(self) -> None:
        """Where everything passes, the largest that UDP carries is found with a handful of probes."""
        self.serve(Echo())
        found = self.sweep()
        self.assertEqual((found.largest, found.limit, found.verified), (LARGEST, "none", True))
        self.assertEqual([step.size for step in found.steps], [SMALLEST_PROBE, LARGEST, LARGEST, LARGEST, LARGEST])
        self.assertEqual({step.outcome for step in found.steps}, {"passed"})

    def test_black_hole(self) -> None:
        """A path that drops what is too large without a word is measured to the byte, over IPv4 and IPv6."""
        self.serve(Echo())
        self.both_ways(lambda: MTU(1337))
        for host, headers in ((SERVER, 28), (SERVER6, 48)):
            found = self.sweep(host)
            self.assertEqual((found.largest, found.path_mtu), (1337 - headers, 1337))
            self.assertEqual((found.limit, found.verified), ("silence", True))
            self.assertIsNone(found.fragments_pass)  # or the server takes in no more

    def test_told(self) -> None:
        """Where ICMP says that it is too large, each such size takes one probe and next to no time."""
        self.serve(Echo())
        self.both_ways(lambda: MTU(1337, icmp=True))
        found = self.sweep()
        self.assertEqual((found.largest, found.path_mtu, found.limit), (1309, 1337, "router"))
        told = [step for step in found.steps if step.outcome == "too large there" and step.stage == "search"]
        self.assertGreater(len(told), 3)
        self.assertEqual({step.tries for step in told}, {1})

    def test_told_lies(self) -> None:
        """Somebody who says of everything that it is too large, which can be forged, is found out and not believed."""

        def forge(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            if len(datagram.payload) <= 600 or datagram.error is not None:
                return [Arrival(datagram)]
            return [Arrival(packet_too_big(datagram)), *MTU(1337)(datagram, _now, _rng)]

        self.serve(Echo())
        self.network.link(self.here, self.there).add(forge)
        found = self.sweep()
        self.assertEqual((found.largest, found.verified), (1309, True))
        self.assertEqual(found.steps[-2].size, 1310)
        believed = [step for step in found.steps if step.outcome == "too large there" and step.size <= 1309]
        self.assertLessEqual(len(believed), 1, "of a liar more than one lie was believed")

    def test_told_lies_with_loss(self) -> None:
        """So it is where the first two probes of each size are lost: the check listens for more than a moment."""
        seen: Counter[int] = Counter()

        def forge(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            size = len(datagram.payload)
            if size <= 600 or datagram.error is not None:
                return [Arrival(datagram)]
            passed = [Arrival(datagram)] if seen[size] >= 2 and size <= 1309 else []
            seen[size] += 1
            return [Arrival(packet_too_big(datagram)), *passed]

        self.serve(Echo())
        self.network.link(self.here, self.there).add(forge)
        found = self.sweep()
        self.assertEqual((found.largest, found.verified), (1309, True))

    def test_loss(self) -> None:
        """Loss is not taken for a limit: at 30 % each way the result is the same, for many seeds of chance."""
        self.serve(Echo())
        self.both_ways(lambda: Loss(0.3), lambda: MTU(1337))
        for _ in range(10):
            found = self.sweep()
            self.assertEqual((found.largest, found.verified), (1309, True))
            silent = [step.tries for step in found.steps if step.outcome == "silent"]
            self.assertTrue(all(LEAST_TRIES < tries <= MOST_TRIES for tries in silent), silent)

    def test_duplicates(self) -> None:
        """Answers that come twice count once, with loss and without."""
        served = self.serve(Echo())
        usual = self.sweep().duration
        served.stopListening()
        self.advance()
        self.serve(Twice())
        found = self.sweep()
        self.assertEqual((found.largest, found.limit, found.verified), (LARGEST, "none", True))
        self.assertAlmostEqual(found.duration, usual, 6)
        self.both_ways(lambda: Loss(0.2), lambda: MTU(1337))
        found = self.sweep()
        self.assertEqual((found.largest, found.verified), (1309, True))
        silent = [step.tries for step in found.steps if step.outcome == "silent"]
        self.assertTrue(all(LEAST_TRIES < tries <= MOST_TRIES for tries in silent), silent)

    def test_bounds(self) -> None:
        """No size outside of those asked for is tried; the largest of them may pass."""
        self.serve(Echo())
        found = self.sweep(least=100, most=1000)
        self.assertEqual((found.largest, found.limit), (1000, "none"))
        self.assertEqual({step.size for step in found.steps}, {100, 1000})

    def test_path_narrows(self) -> None:
        """Where the path becomes narrower during the sweep, what is true at its end is the result."""
        self.serve(Echo())
        self.both_ways(lambda: MTU(1337))
        narrowed: list[SizeStep] = []

        def narrow(step: SizeStep) -> None:
            if step.stage == "check" and not narrowed:
                narrowed.append(step)
                self.both_ways(lambda: MTU(1300))

        found = self.network.run_until(sweep_size(self.here, (SERVER, PORT), on_step=narrow), VIRTUAL)
        self.assertEqual((found.largest, found.verified), (1272, True))

    def test_long_round_trips(self) -> None:
        """An answer is waited for as long as round trips take here, and the spacing of the probes follows it."""
        self.serve(Echo())
        self.both_ways(lambda: Delay(0.3), lambda: MTU(1337))
        found = self.sweep(timeout=2.0)
        self.assertEqual((found.largest, found.verified), (1309, True))
        rtt = 2 * (0.3 + DELAY)
        for step in found.steps:
            self.assertAlmostEqual(step.rtt or rtt, rtt, 2)

    def test_pacing(self) -> None:
        """Two tries of one size are apart, and so many only as are wanted."""
        self.serve(Echo())
        self.both_ways(lambda: MTU(1337))
        self.sweep()
        times = [time for time, payload in self.sent() if len(payload) == LARGEST]
        self.assertTrue(LEAST_TRIES <= len(times) <= 5, times)
        for before, after in pairwise(times):
            self.assertGreaterEqual(after - before, SPACING - 1e-6)
        following = min(time for time, payload in self.sent() if time > times[-1])
        self.assertGreaterEqual(following - times[-1], LEAST_PATIENCE - 1e-6)

    def test_refused_arguments(self) -> None:
        """Sizes that no probe has are refused at once."""
        for how in ({"least": SMALLEST_PROBE - 1}, {"most": 10}, {"least": 70000}):
            self.assertRaises(ValueError, sweep_size, self.here, (SERVER, PORT), **how)

    def test_cancelled(self) -> None:
        """A sweep can be cancelled at any time, and leaves nothing behind."""
        self.serve(Echo())
        for seconds in (0.0, DELAY, 0.1, 0.5):
            running = sweep_size(self.here, (SERVER, PORT))
            self.advance(seconds)
            running.cancel()
            self.advance()
            self.failureResultOf(running, CancelledError)
            self.assertEqual(self.ports_bound(), [])


class ServerTests(SizeCase):
    """What a server does is not put down to the path."""

    def test_cuts(self) -> None:
        """A server that cuts is found by its first answer, and named."""
        self.serve(Cutter(4096))
        found = self.sweep()
        self.assertEqual((found.largest, found.cut_to, found.limit, found.path_mtu), (4096, 4096, "server", None))
        self.assertEqual([step.size for step in found.steps if step.outcome == "cut"], [LARGEST, 4097, 4097])

    def test_cuts_everything(self) -> None:
        """A server that sends back less than the smallest probe is no echo server."""
        for size in (20, 40):
            served = self.serve(Cutter(size))
            found = self.sweep()
            self.assertEqual((found.largest, found.limit, found.cut_to), (None, "server", size))
            served.stopListening()
            self.advance()

    def test_rewrites(self) -> None:
        """An answer of another size does not count, though it be a right probe of that size."""

        class Rewriter(Echo):
            """Shortens the padding, and says so in its length."""

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                """Send back a probe of the smallest size with the same numbers."""
                length = (SMALLEST_PROBE - HEAD).to_bytes(2, "big")
                super().datagramReceived(datagram[: HEAD - 2] + length + datagram[HEAD:SMALLEST_PROBE], addr)

        self.serve(Rewriter())
        found = self.sweep(most=1000)
        self.assertEqual((found.largest, found.verified), (SMALLEST_PROBE, True))

    def test_drops(self) -> None:
        """A server that drops what its buffer does not hold is guessed by the size of that."""
        self.serve(Refuser(8192))
        found = self.sweep()
        self.assertEqual((found.largest, found.limit, found.path_mtu), (8192, "server", None))

    def test_rpc(self) -> None:
        """An rpc server answers probes with as many bytes, up to the size of requests that it takes."""

        class Methods(RPCMethods):
            """No method of its own."""

        self.serve_methods(Methods())
        self.both_ways(lambda: MTU(1337))
        found = self.sweep()
        self.assertEqual((found.largest, found.both_ways), (1309, True))

    def test_no_answer(self) -> None:
        """Where nothing answers, it ends after the smallest size."""
        self.peer()
        found = self.sweep()
        self.assertEqual((found.largest, found.limit, found.path_mtu), (None, "no answer", None))
        self.assertEqual([step.size for step in found.steps], [SMALLEST_PROBE])

    def test_refused(self) -> None:
        """Where nobody listens, it ends at once and says why."""
        found = self.sweep()
        self.assertEqual((found.largest, found.limit, found.steps[0].tries), (None, "no answer", 1))
        self.assertIn("refused", found.detail)

    def test_stranger(self) -> None:
        """A server that answers something else has not answered."""
        self.serve(Stranger())
        self.assertEqual(self.sweep().limit, "no answer")

    def test_other_address(self) -> None:
        """Answers from another address do not count."""
        other = self.network.reactor("192.0.2.77")

        class Elsewhere(DatagramProtocol):
            """Has another host answer."""

            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                """Pass it on."""
                answering.write(datagram, addr)

        answering = other.listenUDP(0, DatagramProtocol())
        self.addCleanup(answering.stopListening)
        self.serve(Elsewhere())
        self.assertEqual(self.sweep().limit, "no answer")


class Bucket:
    """A rate limit: lets so many datagrams pass in a second, and a few at once."""

    def __init__(self, rate: float, burst: int = 3) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = float(burst)
        self.last = 0.0

    def __call__(self, datagram: Datagram, now: float, _rng: random.Random) -> Iterable[Arrival]:
        """Pass it or drop it."""
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens < 1:
            return []
        self.tokens -= 1
        return [Arrival(datagram)]


class RateTests(SimulatedTestCase):
    """The highest rate without loss."""

    def sweep(self, **how: Any) -> RateSweep:
        """Sweep, and check what holds for every result."""
        steps: list[RateStep] = []
        running = sweep_rate(self.here, (SERVER, PORT), on_step=steps.append, **how)
        found = self.network.run_until(running, VIRTUAL)
        self.assertEqual(list(found.steps), steps)
        self.assertEqual(self.ports_bound(), [])
        json.dumps(found.as_json(), allow_nan=False)
        return found

    def test_limit(self) -> None:
        """A limit is found within the resolution and what its bucket holds, and never exceeded by more than twice."""
        self.serve(Echo())
        self.network.link(self.here, self.there).add(Bucket(150.0))
        found = self.sweep()
        self.assertEqual((found.bound, found.confirmed, found.detail), ("loss", True, ""))
        assert found.highest is not None
        assert found.lost_at is not None
        self.assertTrue(150 / (1 + RESOLUTION) <= found.highest <= 150 + 2 * 3, found)
        self.assertTrue(found.highest < found.lost_at <= found.highest * (1 + RESOLUTION), found)
        self.assertEqual(found.steps[0].rate, FIRST_RATE)
        self.assertLessEqual(max(step.rate for step in found.steps), 320)
        self.assertEqual([step.stage for step in found.steps].count("check"), CONFIRMATIONS)

    def test_most_rate(self) -> None:
        """Where nothing is lost the bound is what was asked for, and it is never exceeded."""
        self.serve(Echo())
        found = self.sweep(most_rate=100.0)
        self.assertEqual((found.highest, found.lost_at, found.bound), (100.0, None, "most_rate"))
        self.assertLessEqual(max(step.rate for step in found.steps), 100)
        times = [time for time, _ in self.sent()]
        self.assertLessEqual(max(sum(start <= time < start + 1 for time in times) for start in times), 100 + 1)

    def test_max_loss(self) -> None:
        """Loss that is allowed for is no limit, and without leave it is one."""
        self.serve(Echo())
        self.network.link(self.here, self.there).add(Loss(0.05))
        self.assertEqual(self.sweep(most_rate=160.0, max_loss=0.2).bound, "most_rate")
        self.assertEqual(self.sweep(most_rate=160.0).bound, "loss")

    def test_no_answer(self) -> None:
        """Where nothing answers it ends after the first step; where nobody listens it says so."""
        found = self.sweep()
        self.assertEqual((found.highest, found.bound, len(found.steps)), (None, "no answer", 1))
        self.assertIn("refused", found.steps[0].detail)
        self.peer()
        found = self.sweep()
        self.assertEqual((found.highest, found.bound, len(found.steps)), (None, "no answer", 1))

    def test_slow_server(self) -> None:
        """A limit below the rate to begin with is found below it."""
        self.serve(Echo())
        self.network.link(self.here, self.there).add(Bucket(7.0, burst=1))
        found = self.sweep()
        assert found.highest is not None
        self.assertTrue(7 / (1 + RESOLUTION) <= found.highest <= 7.2, found)
        self.assertGreaterEqual(min(step.sent for step in found.steps), 20)

    def test_refused_arguments(self) -> None:
        """Numbers out of range are refused at once."""
        for how in ({"most_rate": 0}, {"seconds_per_step": 0}, {"max_loss": 1}, {"max_loss": -0.1}, {"timeout": 0},
                    {"size": SMALLEST_PROBE - 1}, {"size": 65508}):  # fmt: skip
            self.assertRaises(ValueError, sweep_rate, self.here, (SERVER, PORT), **how)

    def test_cancelled(self) -> None:
        """A sweep can be cancelled, and leaves nothing behind."""
        self.serve(Echo())
        running = sweep_rate(self.here, (SERVER, PORT))
        self.advance(0.5)
        running.cancel()
        self.advance()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.ports_bound(), [])


class OwnMachineTests(SynchronousTestCase):
    """What this machine does is not put down to the network."""

    def sweep(self, run_step: Callable[[float], _Ran], most: float = DEFAULT_MOST_RATE) -> tuple[_Sweep, RateSearch]:
        """Sweep where each step has a known outcome."""

        def fired(rate: float) -> Deferred[_Ran]:
            return succeed(run_step(rate))

        search = RateSearch(FIRST_RATE, most, resolution=RESOLUTION, confirmations=CONFIRMATIONS)
        sweep = _Sweep(search, fired, 0.0, None)
        self.successResultOf(Deferred.fromCoroutine(sweep.run()))
        return sweep, search

    def ran(self, rate: float, **changes: Any) -> _Ran:
        """Return what came of a step in which nothing was lost, apart from some changes."""
        summary = new_series("x", (SERVER, PORT), interval=1 / rate).summary()
        sent = round(rate)
        lost = changes.pop("lost", 0)
        achieved = changes.pop("achieved", rate)
        dropped_here = changes.pop("dropped_here", 0)
        summary = replace(summary, sent=sent, received=sent - lost, lost=lost, **changes)
        return _Ran(summary, achieved, dropped_here, "")

    def test_cannot_send_faster(self) -> None:
        """A rate that this machine does not reach is tried twice; what it reached is the result."""
        sweep, search = self.sweep(lambda rate: self.ran(rate, achieved=min(rate, 500.0)))
        self.assertEqual((search.highest, sweep.bound(DEFAULT_MOST_RATE)), (500.0, "this machine"))
        self.assertIsNone(sweep.lost_at())
        self.assertEqual([step.outcome for step in sweep.steps].count("this machine"), 2)
        self.assertIn("sent 500 probes per second instead of 640", sweep.local_cause)

    def test_busy_once(self) -> None:
        """A machine that was busy for one step does not end the search."""
        disturbed: list[float] = []

        def run_step(rate: float) -> _Ran:
            if rate == 320 and not disturbed:
                disturbed.append(rate)
                return self.ran(rate, lost=5, schedule_error=Times(p99=2 * LATE))
            return self.ran(rate, lost=int(rate > 3000))

        sweep, search = self.sweep(run_step)
        self.assertEqual(sweep.bound(DEFAULT_MOST_RATE), "loss")
        assert search.highest is not None
        self.assertTrue(3000 / (1 + RESOLUTION) <= search.highest <= 3000)

    def own_loss(self, changes: Mapping[str, Any], rate: float) -> _Ran:
        """Return what came of a step in which this machine went wrong if the rate was above 100."""
        return self.ran(rate, lost=9, **changes) if rate > 100 else self.ran(rate)

    def test_loss_of_its_own(self) -> None:
        """What it lost itself is no loss of the network's, whatever it did wrong."""
        wrongs: tuple[tuple[dict[str, Any], str], ...] = (
            ({"dropped_here": 7}, "receive buffer had no room for 7"),
            ({"not_sent": 3}, "did not send 3"),
            ({"schedule_error": Times(p99=2 * LATE)}, "late"),
            ({"oddities": {"window_full": 1}}, "remembered"),
        )
        for changes, words in wrongs:
            sweep, search = self.sweep(partial(self.own_loss, changes))
            self.assertEqual(sweep.bound(DEFAULT_MOST_RATE), "this machine", words)
            self.assertIsNone(sweep.lost_at())
            self.assertIn(words, sweep.local_cause)
            assert search.highest is not None
            self.assertTrue(100 / (1 + RESOLUTION) <= search.highest <= 100)

    def test_nothing_leaves(self) -> None:
        """Where this machine sends nothing at all, one step is enough, and its kernel's reason is told."""

        def run_step(rate: float) -> _Ran:
            ran = self.ran(rate, not_sent=20)
            summary = replace(ran.summary, sent=0, received=0)
            return _Ran(summary, 0.0, 0, "", "Operation not permitted")

        sweep, search = self.sweep(run_step)
        self.assertEqual([step.outcome for step in sweep.steps], ["this machine"])
        self.assertEqual((search.highest, sweep.bound(DEFAULT_MOST_RATE)), (None, "this machine"))
        self.assertEqual("it did not send 20 of its probes (Operation not permitted)", sweep.local_cause)

    def test_late_without_loss(self) -> None:
        """A machine that is late and loses nothing has done no harm."""
        sweep, search = self.sweep(lambda rate: self.ran(rate, schedule_error=Times(p99=1.0)), most=200)
        self.assertEqual((search.highest, sweep.bound(200)), (200, "most_rate"))

    def test_moving_limit(self) -> None:
        """A limit that moves for ever ends the search after so many steps, and it says so."""
        tried: Counter[float] = Counter()

        def run_step(rate: float) -> _Ran:
            tried[rate] += 1
            return self.ran(rate, lost=int(tried[rate] > CONFIRMATIONS))

        sweep, search = self.sweep(run_step)
        self.assertEqual(len(sweep.steps), MOST_STEPS)
        self.assertEqual((sweep.bound(DEFAULT_MOST_RATE), search.confirmed), ("steps", False))
