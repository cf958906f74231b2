"""The tables of the endpoint and of the client, each by itself."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.fakes import FakeConnection
from twistedudp.dtls import DTLSLimits, DTLSStats
from twistedudp.dtls._facts import PeerFacts
from twistedudp.dtls._failures import NOT_ALLOWED, PeerRefused, why
from twistedudp.dtls._half_open import HalfOpen, host_prefix
from twistedudp.dtls._session import Session
from twistedudp.dtls._timetable import Timetable
from twistedudp.dtls._trials import Trials
from twistedudp.dtls._waiting import MAX_BYTES, Waiting


def session(number: int, host: str = "192.0.2.2", now: float = 0.0) -> Session:
    """Return one of a peer."""
    facts = PeerFacts()
    connection = FakeConnection(facts, lambda: 0.0, None)
    return Session(connection, facts, (host, number), number=number, mtu=1200, now=now)


class TimetableTests(SynchronousTestCase):
    """One timer for all sessions."""

    def setUp(self) -> None:
        """Make it."""
        self.clock = Clock()
        self.seen: list[tuple[int, float]] = []
        self.table = Timetable(self.clock, self.clock.seconds, lambda one, now: self.seen.append((one.number, now)))

    def test_in_order_by_one_timer(self) -> None:
        """Many sessions, one delayed call; each is looked at when it is due."""
        for number in range(100):
            self.table.set(session(number), 1.0 + number % 10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual(sorted(self.seen), sorted((number, 1.0 + number % 10) for number in range(100)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlier_counts(self) -> None:
        """A session is looked at once, at the earliest time that was asked for."""
        one = session(1)
        for due in (5.0, 3.0, 4.0):
            self.table.set(one, due)
        self.clock.pump([1.0] * 6)
        self.assertEqual(self.seen, [(1, 3.0)])

    def test_forgotten(self) -> None:
        """One that is forgotten is not looked at, not kept, and its entries are cleared away."""
        kept = session(0)
        self.table.set(kept, 50.0)
        for number in range(1, 1000):
            one = session(number)
            self.table.set(one, 100.0)
            self.table.forget(one)
        self.assertLess(len(self.table), 70)
        self.clock.pump([50.0, 60.0])
        self.assertEqual(self.seen, [(0, 50.0)])

    def test_cancel(self) -> None:
        """Nothing is left."""
        self.table.set(session(1), 1.0)
        self.table.cancel()
        self.assertEqual((self.clock.getDelayedCalls(), len(self.table)), ([], 0))


class HalfOpenTests(SynchronousTestCase):
    """Counting by host."""

    def test_prefix(self) -> None:
        """IPv4 by the address, IPv6 by its first 64 bits, IPv4 in IPv6 as IPv4."""
        self.assertEqual(host_prefix("192.0.2.1"), host_prefix("::ffff:192.0.2.1"))
        self.assertNotEqual(host_prefix("192.0.2.1"), host_prefix("192.0.2.2"))
        self.assertEqual(host_prefix("2001:db8::1"), host_prefix("2001:db8::ffff:2"))
        self.assertNotEqual(host_prefix("2001:db8::1"), host_prefix("2001:db8:0:1::1"))
        self.assertEqual(host_prefix("fe80::1%eth0"), host_prefix("fe80::2%eth0"))

    def test_counts_are_given_back(self) -> None:
        """What is removed counts no more, and leaves nothing; what is not there cannot be removed."""
        table = HalfOpen(DTLSLimits(half_open_per_host=1))
        one = session(1)
        self.assertIsNone(table.add(one))
        self.assertEqual(table.refusal(("192.0.2.2", 9), 0.0), "half_open_per_host")
        self.assertEqual(table.refusal(one.address, 0.0), "")
        self.assertEqual((table.remove(one), table.remove(one)), (True, False))
        self.assertEqual((table.refusal(("192.0.2.2", 9), 0.0), table._of_host), ("", {}))

    def test_oldest_of_the_host(self) -> None:
        """Of a host that has as many as it may, its own oldest gives way in time; others' stay, though older."""
        limits = DTLSLimits(half_open_per_host=1, half_open=2, half_open_patience=2.0)
        table = HalfOpen(limits)
        others, own, new = session(1, "192.0.2.9"), session(2, now=1.0), session(3)
        for one in (others, own):
            self.assertIsNone(table.add(one))
        self.assertEqual(table.refusal(new.address, 2.9), "half_open_per_host")
        self.assertEqual(table.refusal(new.address, 3.0), "")
        self.assertIs(table.add(new), own)
        self.assertEqual(list(table.sessions.values()), [others, new])


class WaitingTests(SynchronousTestCase):
    """Payloads and callers."""

    def test_bytes(self) -> None:
        """The bound is on bytes as well; the oldest go."""
        stats = DTLSStats()
        waiting = Waiting(stats)
        for number in range(4):
            waiting.keep(bytes([number]) * (MAX_BYTES // 3))
        self.assertEqual([payload[0] for payload in waiting.take_payloads()], [1, 2, 3])
        self.assertEqual(stats.not_sent, {"queue_full": 1})
        self.assertEqual(waiting.take_payloads(), [])

    def test_callback_that_cancels_another(self) -> None:
        """A caller that ends another's waiting in its callback does not break the round."""
        waiting = Waiting(DTLSStats())
        one, other = waiting.caller(5.0), waiting.caller(5.0)
        other.addErrback(lambda _: None)
        one.addCallback(lambda _: other.cancel())
        waiting.succeed()
        self.successResultOf(other)


class TrialsTests(SynchronousTestCase):
    """When to try again, and what to believe."""

    def test_patience_and_pauses(self) -> None:
        """Attempts get longer, pauses too, up to 3 s."""
        trials = Trials(100.0)
        patience, pauses = [], []
        for _ in range(8):
            trials.begin(0.0)
            patience.append(trials.patience_ends())
            pauses.append(trials.next_begins())
        self.assertEqual(patience[:4], [4.0, 8.0, 16.0, 32.0])
        self.assertEqual(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0])

    def test_beliefs(self) -> None:
        """The same finding twice in a row, and only one that another attempt would not change."""
        trials = Trials(100.0)
        findings = ["refused", "expired", "refused", "failed", "failed", "refused", "refused"]
        beliefs = [trials.is_final(PeerRefused(reason, "")) for reason in findings]
        self.assertEqual(beliefs, 6 * [False] + [True])


class WordTests(SynchronousTestCase):
    """Plain words for what failed."""

    def words(self, refusal: int, error: Any = None) -> tuple[str, str]:
        """Return what is told."""
        facts = PeerFacts()
        facts.refusal = refusal
        facts.name = "a.example"
        told = why(facts, error)
        return told.reason, told.text

    def test_verdicts(self) -> None:
        """Our own verdict comes first."""
        self.assertEqual(self.words(10)[0], "expired")
        self.assertIn("clocks", self.words(9)[1])
        self.assertEqual(self.words(20)[0], "wrong_ca")
        self.assertEqual(self.words(NOT_ALLOWED)[0], "not_allowed")
        self.assertIn("'a.example'", self.words(NOT_ALLOWED)[1])
        self.assertEqual(self.words(23), ("failed", "its certificate does not hold (OpenSSL's verification error 23)"))

    def test_texts(self) -> None:
        """Then the peer's alert, then what OpenSSL found, then whatever it says; nothing is no error either."""
        from OpenSSL import SSL  # noqa: PLC0415  # the package's __init__ has seen to it that it is there

        alert = SSL.Error([("", "", "x"), ("", "", "tlsv1 alert protocol version")])
        self.assertEqual(self.words(0, alert), ("refused", "it does not speak DTLS 1.2"))
        unknown = SSL.Error([("", "", "tls alert brand new")])
        self.assertEqual(self.words(0, unknown), ("refused", "it sent the alert 'brand new'"))
        self.assertEqual(self.words(0, SSL.Error([("", "", "no shared cipher")]))[0], "failed")
        for empty in (None, SSL.Error(), SSL.Error([]), SSL.SysCallError(-1, "Unexpected EOF")):
            self.assertEqual(self.words(0, empty), ("failed", "the handshake broke off"))
