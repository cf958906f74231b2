"""Effects as text."""

from __future__ import annotations

import decimal
import math
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.errors import LocalError
from twistedudp.impairment import (
    EFFECTS,
    MTU,
    BurstLoss,
    Corrupt,
    Delay,
    Duplicate,
    EffectError,
    Jitter,
    Loss,
    NATInbound,
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
    from twistedudp.impairment import Effect

FORMS: list[tuple[str, list[Effect], str]] = [
    ("loss=5%", [Loss(0.05)], "loss=5%"),
    ("loss=0.05", [Loss(0.05)], "loss=5%"),
    ("loss=.5%", [Loss(0.005)], "loss=0.5%"),
    ("loss=0", [Loss(0)], "loss=0%"),
    ("loss=1", [Loss(1)], "loss=100%"),
    (" Loss = 5 % ", [Loss(0.05)], "loss=5%"),
    ("burst=50%:4", [BurstLoss(0.25, 0.25)], "gilbert=25%:25%:0%:100%"),
    ("gilbert=1%:25%", [BurstLoss(0.01, 0.25)], "gilbert=1%:25%:0%:100%"),
    ("gilbert=1%:25%:2%", [BurstLoss(0.01, 0.25, 0.02)], "gilbert=1%:25%:2%:100%"),
    ("gilbert=1%:25%:2%:80%", [BurstLoss(0.01, 0.25, 0.02, 0.8)], "gilbert=1%:25%:2%:80%"),
    ("delay=20ms", [Delay(0.02)], "delay=20ms"),
    ("delay=1.5s", [Delay(1.5)], "delay=1.5s"),
    ("delay=2min", [Delay(120)], "delay=120s"),
    ("delay=0s", [Delay(0)], "delay=0s"),
    ("delay=300us", [Delay(0.0003)], "delay=300us"),
    ("delay=300µs", [Delay(0.0003)], "delay=300us"),
    ("delay=300\N{GREEK SMALL LETTER MU}s", [Delay(0.0003)], "delay=300us"),
    ("delay=20ms±5ms", [Delay(0.015), Jitter(0.01)], "delay=15ms,jitter=10ms"),
    ("delay=20ms+-5ms", [Delay(0.015), Jitter(0.01)], "delay=15ms,jitter=10ms"),
    ("delay=20ms ± 20ms", [Delay(0), Jitter(0.04)], "delay=0s,jitter=40ms"),
    ("delay=20ms±5ms:ordered", [Delay(0.015), Jitter(0.01, keep_order=True)], "delay=15ms,jitter=10ms:ordered"),
    ("jitter=10ms", [Jitter(0.01)], "jitter=10ms"),
    ("jitter=10ms:ordered", [Jitter(0.01, keep_order=True)], "jitter=10ms:ordered"),
    ("duplicate=1%", [Duplicate(0.01)], "duplicate=1%:0s"),
    ("duplicate=1%:10ms", [Duplicate(0.01, 0.01)], "duplicate=1%:10ms"),
    ("reorder=2%", [Reorder(0.02)], "reorder=2%:100ms"),
    ("reorder=2%:50ms", [Reorder(0.02, 0.05)], "reorder=2%:50ms"),
    ("corrupt=1%", [Corrupt(0.01)], "corrupt=1%:1"),
    ("corrupt=1%:3", [Corrupt(0.01, 3)], "corrupt=1%:3"),
    ("truncate=1%", [Truncate(0.01)], "truncate=1%"),
    ("truncate=1%:0", [Truncate(0.01, 0)], "truncate=1%:0B"),
    ("truncate=1%:100 bytes", [Truncate(0.01, 100)], "truncate=1%:100B"),
    ("mtu=1400", [MTU(1400)], "mtu=1400B"),
    ("mtu=1400B:ICMP", [MTU(1400, icmp=True)], "mtu=1400B:icmp"),
    ("mtu=2KiB", [MTU(2048)], "mtu=2048B"),
    ("mtu=2kB", [MTU(2000)], "mtu=2kB"),
    ("rate=1mbit", [Rate(1e6)], "rate=1mbit:100ms"),
    ("rate=1.5Mbit/s:1s", [Rate(1.5e6, queue_seconds=1)], "rate=1.5mbit:1s"),
    ("rate=64kbit:0.5MB", [Rate(64e3, queue_bytes=500_000)], "rate=64kbit:500kB"),
    ("rate=64kbitps:1MiB", [Rate(64e3, queue_bytes=1048576)], "rate=64kbit:1048576B"),
    ("rate=800bit/s:0B", [Rate(800, queue_bytes=0)], "rate=800bit:0B"),
    ("rate=1gbit:10ms", [Rate(1e9, queue_seconds=0.01)], "rate=1gbit:10ms"),
    ("partition=5s/2s", [Partition(dark=5, light=2)], "partition=5s/2s"),
    ("partition=5s/2s@10s", [Partition(dark=5, light=2, start=10)], "partition=5s/2s@10s"),
    ("partition=10s-12s", [Partition([(10, 12)])], "partition=10s-12s"),
    ("partition=10s-12s:20s-", [Partition([(10, 12), (20, math.inf)])], "partition=10s-12s:20s-"),
    ("partition=off", [Partition()], "partition=off"),
    ("partition=1s-2s:off", [Partition([(1, 2)])], "partition=1s-2s"),
    ("partition=on:1s/1s:1s-2s", [Partition([(1, 2)], dark=1, light=1, cut=True)], "partition=1s-2s:1s/1s:on"),
    ("unreachable=1%", [PortUnreachable(0.01)], "unreachable=1%"),
    ("nat=never", [NATRebinding()], "nat=never"),
    ("nat=30s", [NATRebinding(30)], "nat=30s"),
    ("nat=30s:203.0.113.1", [NATRebinding(30, "203.0.113.1")], "nat=30s:203.0.113.1"),
    ("nat=never:2001:DB8::1", [NATRebinding(None, "2001:db8::1")], "nat=never:2001:db8::1"),
    ("", [], ""),
    ("  ", [], ""),
    ("delay=1s,loss=1%,delay=1s", [Delay(1), Loss(0.01), Delay(1)], "delay=1s,loss=1%,delay=1s"),
]

FIVE = "\N{ARABIC-INDIC DIGIT FIVE}"

FAULTS = [
    ("loss=120%", "loss=120% cannot be: probability must be a number from 0 to 1 (100%), not 1.2"),
    ("loss=5", "loss=5 cannot be: '5' is no probability: write 5%, or a fraction of 1"),
    ("loss=-5%", "loss=-5% cannot be: '-5%' is not a probability, such as 5% or 0.05"),
    ("loss=5%%", "loss=5%% cannot be: '5%%' is not a probability, such as 5% or 0.05"),
    ("loss=1e-3", "loss=1e-3 cannot be: '1e-3' is not a probability"),
    ("loss=nan", "loss=nan cannot be: 'nan' is not a probability"),
    (f"loss={FIVE}%", f"loss={FIVE}% cannot be: '{FIVE}%' is not a probability"),
    ("loss", "loss cannot be: it lacks a value"),
    ("loss=", "loss= cannot be: it lacks a value"),
    ("loss=5%:6%", "loss=5%:6% cannot be: it has 2 values, at most 1 can be"),
    ("burst=5%", "burst=5% cannot be: it needs 2 values with a colon between them"),
    ("burst=5%:x", "burst=5%:x cannot be: 'x' is not a number"),
    ("delay=20", "delay=20 cannot be: '20' is not a time with its unit: us, ms, s or min, such as 20ms"),
    ("delay=2h", "delay=2h cannot be: '2h' is not a time with its unit"),
    ("delay=61min", "delay=61min cannot be: seconds must be a number from 0 to 3,600 seconds, not 3660.0"),
    ("delay=5ms±10ms", "delay=5ms±10ms cannot be: ±10ms is more than 5ms, and nothing arrives before it was sent"),
    ("delay=5ms±", "delay=5ms± cannot be: it lacks a value"),
    ("delay=5ms:ordered", "delay=5ms:ordered cannot be: it has 2 values, at most 1 can be"),
    ("jitter=5ms:orderly", "jitter=5ms:orderly cannot be: 'orderly' is not the word ordered"),
    ("reorder=60%", "reorder=60% cannot be: probability must be a number from 0 to 0.5 (50%), not 0.6"),
    ("corrupt=1%:1.5", "corrupt=1%:1.5 cannot be: '1.5' is not a whole number"),
    ("corrupt=1%:0", "corrupt=1%:0 cannot be: bits must be a whole number from 1 to 524,216 bits, not 0"),
    ("mtu=60", "mtu=60 cannot be: size must be a whole number from 68 to 65,575 bytes, not 60"),
    ("mtu=1400:imcp", "mtu=1400:imcp cannot be: 'imcp' is not the word icmp"),
    ("mtu=1.4001kB", "mtu=1.4001kB cannot be: '1.4001kB' is not a whole number"),
    ("rate=5", "rate=5 cannot be: '5' is not a rate in bit/s, kbit/s, mbit/s or gbit/s, such as 1mbit"),
    ("rate=64kbps", "rate=64kbps cannot be: '64kbps' is not a rate"),
    ("rate=1mbit:much", "rate=1mbit:much cannot be: 'much' is not a size in B, kB, KiB, MB or MiB, such as 1400B"),
    ("partition=5s", "partition=5s cannot be: '5s' is none of FROM-TO, FROM-, DARK/LIGHT, on and off"),
    ("partition=5s/2s:6s/1s", "'6s/1s' is a second DARK/LIGHT, there can be one only"),
    ("partition=5s/0s", "partition=5s/0s cannot be: light must be above 0"),
    ("partition=5s-4s", "partition=5s-4s cannot be: windows: end must be above 5"),
    ("nat", "nat cannot be: it lacks a value"),
    ("nat=30s:host", "nat=30s:host cannot be: host must be the numeric address of one host, or empty; not 'host'"),
    ("seed=x", "seed=x cannot be: 'x' is not a whole number"),
    ("seed=-1", "seed=-1 cannot be: '-1' is not a whole number"),
    ("seed=18446744073709551616", "seed must be a whole number from 0 to 18,446,744,073,709,551,615"),
    ("seed=1,seed=1", "seed=1 cannot be: seed can be given once only"),
    ("los=5%", "los=5% names no effect: did you mean loss?"),
    ("fog=5%", "fog=5% names no effect: there are loss, burst, gilbert, delay"),
    ("loss=5%,", "effects have nothing between two commas, or at an end"),
    ("loss=5%,,delay=1s", "effects have nothing between two commas, or at an end"),
    (",", "effects have nothing between two commas, or at an end"),
]


def shown(effects: object) -> str:
    """Return what tells effects apart: their types and arguments."""
    return repr(effects)


class ParseTests(SynchronousTestCase):
    """From text to effects."""

    def test_forms(self) -> None:
        """Each form of each effect makes what it says."""
        for text, effects, _ in FORMS:
            there, _ = parse_effects(text).make_pair()
            self.assertEqual(shown(there), shown(effects), text)

    def test_all_forms_are_tested(self) -> None:
        """No effect is left out above."""
        self.assertEqual(
            {text.strip().lower().split("=")[0].strip() for text, *_ in FORMS} - {""} | {"seed"}, set(EFFECTS)
        )

    def test_order_and_seed(self) -> None:
        """Effects stand in the order of the text; the seed may stand anywhere and is none of them."""
        for text in (
            "loss=5%,delay=20ms±5ms,duplicate=1%,seed=7",
            "seed=7,loss=5%,delay=20ms±5ms,duplicate=1%",
            " loss=5% , SEED = 7, delay=20ms+-5ms,duplicate=1%",
        ):
            parsed = parse_effects(text)
            self.assertEqual(parsed.seed, 7)
            self.assertEqual(shown(parsed.make()), shown([Loss(0.05), Delay(0.015), Jitter(0.01), Duplicate(0.01)]))
            self.assertEqual(str(parsed), "loss=5%,delay=20ms±5ms,duplicate=1%,seed=7")
            self.assertEqual(shown(parse_effects(str(parsed)).make()), shown(parsed.make()))

    def test_spaces(self) -> None:
        """White space inside of a term does not matter, and is gone from the text that tells what was read."""
        parsed = parse_effects("rate = 1 mbit :\n64 kB ,partition=1s\t- 2s")
        self.assertEqual(str(parsed), "rate=1mbit:64kB,partition=1s-2s")
        self.assertEqual(shown(parsed.make()), shown([Rate(1e6, queue_bytes=64000), Partition([(1, 2)])]))

    def test_no_seed(self) -> None:
        """Without a seed there is none; 0 is one."""
        self.assertIsNone(parse_effects("loss=1%").seed)
        self.assertEqual(parse_effects("seed=0").seed, 0)
        self.assertEqual(parse_effects("seed=18446744073709551615").seed, 2**64 - 1)
        self.assertEqual(str(parse_effects("seed=0")), "seed=0")

    def test_faults(self) -> None:
        """What is wrong is told in one line, with the term, the reason and an example that works."""
        for text, message in FAULTS:
            error = self.assertRaises(EffectError, parse_effects, text)
            self.assertIn(message, str(error), text)
            self.assertNotIn("\n", str(error))
            example = str(error).rpartition("(for example ")[2].removesuffix(")")
            parse_effects(example)

    def test_fault_is_ours(self) -> None:
        """The error is a local one, and a ValueError; of a text it names the term, of an argument the argument."""
        error = self.assertRaises(EffectError, parse_effects, "delay=1s,loss=5,mtu=3")
        self.assertIsInstance(error, LocalError)
        self.assertIsInstance(error, ValueError)
        self.assertEqual(error.parameter, "loss=5")
        self.assertIsNone(error.__cause__)

    def test_faults_stay_short(self) -> None:
        """Line ends and long texts do not make the error more than a line, or a page."""
        for text in ("loss=5\n6%", "\x1b[2J=5", "loss=" + "9" * 100_000 + "%", "x" * 100_000, "loss=" + ":" * 100_000):
            error = self.assertRaises(EffectError, parse_effects, text)
            self.assertTrue(str(error).isprintable(), text[:10])
            self.assertLess(len(str(error)), 500)

    def test_fresh(self) -> None:
        """Each call makes new effects, since they have a memory; also for the two directions of a pair."""
        parsed = parse_effects("gilbert=1%:25%,rate=1mbit")
        there, back = parsed.make_pair()
        made = [*parsed.make(), *parsed.make(), *there, *back]
        self.assertEqual(len(set(map(id, made))), 8)

    def test_nat_is_one_for_both(self) -> None:
        """A NAT stands in its place in both directions, as one; for one direction alone it is refused."""
        parsed = parse_effects("loss=1%,nat=30s,delay=1s")
        there, back = parsed.make_pair()
        self.assertEqual([type(effect) for effect in there], [Loss, NATRebinding, Delay])
        self.assertEqual([type(effect) for effect in back], [Loss, NATInbound, Delay])
        self.assertIs(there[1].inbound, back[1])  # type: ignore[attr-defined]  # a NATRebinding
        self.assertEqual(repr(back[1]), "NATRebinding(interval=30.0, host='').inbound")
        error = self.assertRaises(EffectError, parsed.make)
        self.assertIn("make_pair()", str(error))

    def test_decimal_context(self) -> None:
        """A program that has changed decimal's precision or traps gets the same numbers."""
        with decimal.localcontext() as context:
            context.prec = 2
            context.traps[decimal.Inexact] = True
            (effect,) = parse_effects("loss=12.3456789%").make()
            self.assertEqual(str(effect), "loss=12.3456789%")


class FormatTests(SynchronousTestCase):
    """From effects to text."""

    def test_forms(self) -> None:
        """Each effect has a text form, which makes the same effect."""
        for _, effects, text in FORMS:
            self.assertEqual(format_effects(effects), text)
            self.assertEqual(shown(parse_effects(text).make_pair()[0]), shown(effects))

    def test_seed(self) -> None:
        """A seed may be added."""
        self.assertEqual(format_effects([Loss(0.05), Delay(1)], 7), "loss=5%,delay=1s,seed=7")
        self.assertEqual(format_effects([], 0), "seed=0")

    def test_foreign(self) -> None:
        """An effect of the user's own has no text form, nor has half a NAT."""
        for effect in (lambda datagram, _now, _rng: [datagram], NATRebinding().inbound):
            error = self.assertRaises(EffectError, format_effects, [effect])
            self.assertIn("has no text form", str(error))

    def test_repr(self) -> None:
        """repr() is Python, which makes the same effect."""
        for _, effects, _ in FORMS:
            for effect in effects:
                again = eval(repr(effect), {**globals(), "inf": math.inf})  # noqa: S307  # what repr() is for
                self.assertEqual(repr(again), repr(effect))
                self.assertEqual(str(again), str(effect))


class TableTests(SynchronousTestCase):
    """The table that help texts are made from."""

    def test_table(self) -> None:
        """Each entry is one line of form and of meaning, the form begins with the name, and the example works."""
        for name, entry in EFFECTS.items():
            self.assertTrue(entry.form.startswith(f"{name}="), name)
            self.assertTrue(entry.example.startswith(f"{name}="), name)
            self.assertTrue(all(text.isprintable() for text in entry), name)
            self.assertLess(len(entry.meaning), 100)
            parsed = parse_effects(entry.example)
            self.assertEqual(bool(parsed.terms), name != "seed")

    def test_read_only(self) -> None:
        """Nobody changes it by mistake."""
        with self.assertRaises(TypeError):
            EFFECTS["fog"] = EFFECTS["loss"]  # type: ignore[index]  # refused
