"""What must hold for every effect, every text and every order of datagrams, by Hypothesis."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.links import ASK, CLIENT, REFUSAL, SERVER, rng, sized
from tests.properties import PROPERTY
from twistedudp.impairment import (
    EFFECTS,
    MTU,
    Arrival,
    BurstLoss,
    Corrupt,
    Datagram,
    Delay,
    Duplicate,
    EffectError,
    Jitter,
    Loss,
    NATRebinding,
    Partition,
    PortUnreachable,
    Rate,
    Reorder,
    Truncate,
    format_effects,
    parse_effects,
)

if TYPE_CHECKING:
    from twistedudp.address import Address

probabilities = st.floats(0, 1)
times = st.floats(0, 3600)
positive_times = st.floats(0, 3600, exclude_min=True)
sizes = st.integers(0, 65527)
spans = st.tuples(times, positive_times).map(lambda pair: (pair[0], pair[0] + pair[1])).filter(lambda p: p[0] < p[1])
endless = times.map(lambda begin: (begin, math.inf))
periods: st.SearchStrategy[dict[str, float]] = st.one_of(
    st.just({}), st.fixed_dictionaries({"dark": positive_times, "light": positive_times, "start": times})
)

effects = st.one_of(
    st.builds(Loss, probabilities),
    st.builds(BurstLoss, probabilities, st.floats(0, 1, exclude_min=True), probabilities, probabilities),
    st.builds(Delay, times),
    st.builds(Jitter, times, st.booleans()),
    st.builds(Duplicate, probabilities, times),
    st.builds(Reorder, st.floats(0, 0.5), positive_times),
    st.builds(Corrupt, probabilities, st.integers(1, 524216)),
    st.builds(Truncate, probabilities, st.none() | sizes),
    st.builds(MTU, st.integers(68, 65575), st.booleans()),
    st.builds(Rate, st.floats(1, 1e9), queue_seconds=st.floats(0, 8)),
    st.builds(Rate, st.floats(1, 1e11), queue_bytes=st.integers(0, 2**30)),
    st.builds(
        lambda windows, period, cut: Partition(windows, cut=cut, **period),
        st.lists(spans | endless, max_size=3),
        periods,
        st.booleans(),
    ),
    st.builds(PortUnreachable, probabilities),
    st.builds(
        NATRebinding,
        st.none() | positive_times,
        st.sampled_from(["", "203.0.113.1", "::1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1"]),
    ),
)


class TextProperties(SynchronousTestCase):
    """Texts and effects."""

    @PROPERTY
    @given(st.lists(effects, max_size=5), st.none() | st.integers(0, 2**64 - 1))
    def test_round_trip(self, made: list[Loss], seed: int | None) -> None:
        """What is written is read back as effects with exactly the same arguments, and written the same again."""
        text = format_effects(made, seed)
        parsed = parse_effects(text)
        again = parsed.make_pair()[0]
        self.assertEqual(repr(again), repr(made))
        self.assertEqual(parsed.seed, seed)
        self.assertEqual(format_effects(again, parsed.seed), text)
        self.assertEqual(str(parsed), text)

    @PROPERTY
    @given(
        st.text()
        | st.text("loss=5%,:±/-@smkbitonrd. \n")
        | st.builds("{}={}".format, st.sampled_from([*EFFECTS]), st.text())
    )
    def test_any_text(self, text: str) -> None:
        """Any text either is effects, which can be made and written, or raises an EffectError of one line."""
        try:
            parsed = parse_effects(text)
        except EffectError as error:
            self.assertTrue(str(error).isprintable(), str(error))
            return
        there, _ = parsed.make_pair()
        self.assertEqual(repr(parse_effects(format_effects(there)).make_pair()[0]), repr(there))
        self.assertEqual(repr(parse_effects(str(parsed)).make_pair()[0]), repr(there))


class StreamProperties(SynchronousTestCase):
    """Any effect, any stream."""

    @PROPERTY
    @given(effects, st.lists(st.tuples(st.floats(0, 10), sizes, st.booleans()), max_size=20), st.integers(0, 99))
    def test_arrivals(self, effect: Loss, stream: list[tuple[float, int, bool]], seed: int) -> None:
        """Nothing leaves before it came, or more than twice; ICMP errors are lost or delayed, once, and unchanged."""
        generator = rng(seed)
        now = 0.0
        for gap, size, is_error in stream:
            now += gap
            datagram = sized(min(size, 520), REFUSAL) if is_error else sized(size)
            arrivals = list(effect(datagram, now, generator))
            self.assertLessEqual(len(arrivals), 1 if is_error else 2)
            for arrival in arrivals:
                self.assertGreaterEqual(arrival.delay, 0.0)
                self.assertTrue(math.isfinite(arrival.delay))
                self.assertLessEqual(len(arrival.datagram.payload), size)
                if is_error:
                    self.assertEqual(arrival.datagram._replace(source=datagram.source), datagram)

    @PROPERTY
    @given(st.floats(0, 10), st.lists(st.floats(0, 5), max_size=30), st.integers(0, 99))
    def test_jitter_keeps_order(self, spread: float, gaps: list[float], seed: int) -> None:
        """Ordered jitter never lets one overtake another, at any spacing, and never exceeds its limit."""
        effect = Jitter(spread, keep_order=True)
        generator = rng(seed)
        arrivals = []
        for now in accumulate(gaps):
            ((_, delay),) = effect(ASK, now, generator)
            self.assertLessEqual(delay, spread + 1e-9)
            arrivals.append(now + delay)
        self.assertTrue(all(second >= first for first, second in pairwise(arrivals)))

    @PROPERTY
    @given(
        st.integers(0, 5000),
        st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 3000)), max_size=40),
    )
    def test_rate(self, queue: int, stream: list[tuple[int, int]]) -> None:
        """A line of 1,024 bytes a second does to the bit what a queue of exact fractions does."""
        effect = Rate(8192, queue_bytes=queue)
        generator = rng()
        now = free = Fraction(0)
        dropped = 0
        for gap, size in stream:
            now += Fraction(gap, 4096)
            begin = max(now, free)
            ahead = (begin - now) * 1024
            assume(ahead.denominator != 2)  # half a byte may be rounded either way
            arrivals = list(effect(sized(size), float(now), generator))
            if round(ahead) > queue:
                dropped += 1
                self.assertEqual(arrivals, [])
            else:
                free = begin + Fraction(size + 28, 1024)
                self.assertEqual(arrivals, [Arrival(sized(size), float(free - now))])
        self.assertEqual(effect.dropped, dropped)


class NATProperties(SynchronousTestCase):
    """A NAT in any order of use."""

    @PROPERTY
    @given(
        st.none() | st.integers(1, 10),
        st.lists(st.tuples(st.sampled_from(["out", "in", "rebind", "wait"]), st.integers(0, 4)), max_size=50),
        st.integers(0, 99),
    )
    def test_model(self, interval: int | None, steps: list[tuple[str, int]], seed: int) -> None:
        """A reply gets back if and only if its outside address is the one that the inside address has now."""
        nat = NATRebinding(interval)
        generator = rng(seed)
        now = 0
        living: dict[Address, tuple[Address, float]] = {}  # outside to inside, and when it dies
        current: dict[Address, Address] = {}
        for step, number in steps:
            inside = (CLIENT[0], 50000 + number)
            if step == "wait":
                now += number
            elif step == "rebind":
                nat.rebind()
                living.clear()
            elif step == "out":
                ((datagram, _),) = nat(ASK._replace(source=inside), float(now), generator)
                outside, before = datagram.source, current.get(inside)
                if before is not None and before in living and now < living[before][1]:
                    self.assertEqual(outside, before)
                else:
                    self.assertNotEqual(outside, before)
                    living[outside] = (inside, now + interval if interval else math.inf)
                    current[inside] = outside
            else:
                for outside in {*current.values(), inside}:
                    owner, dies = living.get(outside, (None, 0.0))
                    expected = [Datagram(SERVER, owner, b"")] if owner and now < dies else []
                    arrivals = nat.inbound(Datagram(SERVER, outside, b""), float(now), generator)
                    self.assertEqual([arrival.datagram for arrival in arrivals], expected)
            self.assertLessEqual(len(nat._inside), 5)
            self.assertEqual(len(nat._inside), len(nat))
