"""When is asked, what is asked, and what counts as an answer; without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import an_answer
from twistedudp._msgpack import encode_response
from twistedudp.discovery import MAX_WAIT, _questions
from twistedudp.discovery._questions import Asking, attempts
from twistedudp.discovery._wire import (
    MAX_QUESTION_SIZE,
    NO_RESULT,
    decode_question_untrusted,
    encode_answer,
    is_known,
)
from twistedudp.errors import EncodeError, LocalError

if TYPE_CHECKING:
    from twistedudp.discovery._questions import DiscoveryAnswer

KITCHEN = ("192.0.2.7", 10000)


class AttemptTests(SynchronousTestCase):
    """The layout of a discovery."""

    def test_three_rounds(self) -> None:
        """Two, three and four repetitions, at the beginnings of the rounds, with windows that end before the next."""
        plan = attempts(3, 3)
        self.assertEqual(
            [(each.round, each.repetition) for each in plan],
            [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (3, 3)],
        )
        self.assertEqual([each.due for each in plan], [0, 0.125, 1, 1.125, 1.25, 2, 2.125, 2.25, 2.375])
        self.assertEqual([each.window for each in plan], [850, 725, 850, 725, 600, 850, 725, 600, 475])

    @given(st.floats(0.001, MAX_WAIT), st.integers(1, 16))
    def test_any(self, wait: float, rounds: int) -> None:
        """Answers end within their round, in whatever layout, and none is asked for too late."""
        plan = attempts(wait, rounds)
        length = wait / rounds
        self.assertEqual([each.round for each in plan], sorted(each.round for each in plan))
        for each in plan:
            self.assertTrue(each.due + each.window / 1000 <= each.round * length + 0.0005)
            self.assertTrue((each.round - 1) * length - 1e-9 <= each.due < wait)
        self.assertEqual({each.round for each in plan}, set(range(1, rounds + 1)))

    def test_wrong(self) -> None:
        """Numbers out of range say which range."""
        wrong: Any
        for wrong in (0, 17, True, 1.5, "3", None):
            self.assertIn("from 1 to 16", str(self.assertRaises(ValueError, attempts, 3, wrong)))
        for wrong in (0, -1, 60.1, float("nan"), float("inf"), True, "3", None):
            self.assertIn("at most 60", str(self.assertRaises(ValueError, attempts, wrong, 3)))


class AskingCase(SynchronousTestCase):
    """A discovery under way."""

    def setUp(self) -> None:
        """Begin."""
        self.asking = self.made()

    def made(self, **options: Any) -> Asking:
        """Return a discovery."""
        return Asking(7, b"question", attempts(3, 3), **options)

    def take(self, datagram: bytes, peer: tuple[str, int] = KITCHEN, now: float = 1.0) -> DiscoveryAnswer | None:
        """Let a datagram come."""
        return self.asking.answer_received_untrusted(datagram, peer, interface="eth0", now=now)

    def took(self, *, peer: tuple[str, int] = KITCHEN, now: float = 1.0, **fields: Any) -> DiscoveryAnswer | None:
        """Let an answer come."""
        return self.take(encode_answer(an_answer(**fields)), peer, now)


class QuestionTests(AskingCase):
    """What is asked."""

    def test_question(self) -> None:
        """Each attempt has its number, round and window; all have the same msgid and id."""
        asking = self.made(method="status", params=[1, "x"])
        for number, attempt in enumerate(asking.schedule):
            question = decode_question_untrusted(asking.question(number, now=0))
            self.assertEqual(question[:4], (7, b"question", number, attempt.round))
            self.assertEqual(question[4:], (b"", attempt.window, "status", [1, "x"]))

    def test_known(self) -> None:
        """Those that have answered are named from then on."""
        self.asking.question(0, now=0)
        for id_ in (b"aaaaAAAA", b"bbbbBBBB"):
            self.took(id=id_)
        self.assertEqual(decode_question_untrusted(self.asking.question(1, now=0)).known, b"aaaabbbb")

    def test_many(self) -> None:
        """A question stays within 1,200 bytes, and its repetitions name one part after the other of many."""
        for params, least in (([], 280), ([b"x" * 800], 75)):
            self.asking = self.made(method="status" if params else None, params=params)
            self.assertGreaterEqual(self.asking.known, least)
            self.asking.question(0, now=0)
            ids = [b"%08x" % (number * 2**20) for number in range(3 * self.asking.known)]
            for id_ in ids:
                self.took(id=id_, result="x" if params else NO_RESULT)
            for together in ((2, 3, 4), (5, 6, 7)):
                datagrams = [self.asking.question(number, now=0) for number in together]
                questions = [decode_question_untrusted(datagram) for datagram in datagrams]
                for datagram in datagrams:
                    self.assertTrue(MAX_QUESTION_SIZE - 8 <= len(datagram) <= MAX_QUESTION_SIZE, len(datagram))
                for id_ in ids:
                    self.assertEqual(sum(is_known(question.known, id_) for question in questions), 1)

    def fits(self, size: int) -> bool:
        """Tell whether a parameter of so many bytes can be sent."""
        try:
            self.made(method="m", params=[b"x" * size])
        except LocalError:
            return False
        return True

    def test_wrong_parameters(self) -> None:
        """Parameters too large or of a wrong kind, and names that are none, are the caller's mistakes."""
        room = next(size for size in range(1200) if not self.fits(size + 1))
        self.assertGreater(room, 850)
        told = str(self.assertRaises(LocalError, self.made, method="m", params=[b"x" * (room + 7)]))
        self.assertIn("the parameters take 7 bytes too many; a question is one packet of 1,200", told)
        wrong: Any = "\ud800"
        for method, params, path in (
            ("m", [1, object()], "params[1]"),
            ("m", [{"a": object()}], "params[0]['a']"),
            (wrong, [], "method"),
        ):
            error = self.assertRaises(EncodeError, self.made, method=method, params=params)
            self.assertEqual((error.path, str(error).startswith(f"{path}: ")), (path, True))
        for method in ("", "x" * 65):
            self.assertRaises(LocalError, self.made, method=method)
        self.assertRaises(ValueError, Asking, 7, b"short", attempts(3, 3))


class AnswerTests(AskingCase):
    """What is answered."""

    def setUp(self) -> None:
        """Ask once."""
        super().setUp()
        self.asking.question(0, now=0.5)

    def test_answer(self) -> None:
        """An answer's sender is where the server is; its round trip leaves out what the server waited."""
        found = self.took(now=1.0)
        assert found is not None
        self.assertEqual(found.peer[:5], (*KITCHEN, "kitchen", "echo", "0.1.0"))
        self.assertEqual((found.peer.rtt, found.peer.interface, found.result), (0.25, "eth0", None))
        self.assertEqual(self.asking.answers(), [found])

    def test_impossible_wait(self) -> None:
        """A server that says that it waited longer than it took has no round trip time."""
        found = self.took(held=600_000)
        assert found is not None
        self.assertIsNone(found.peer.rtt)

    def test_once(self) -> None:
        """A server that answers again, by whichever address, is there once: as it came first."""
        found = self.took()
        self.assertIsNone(self.took(peer=("2001:db8::7", 10000), name="other"))
        self.assertEqual((self.asking.answers(), self.asking.stats.repeated), ([found], 1))

    def test_not_answers(self) -> None:
        """What is malformed, or answers another question, or one never sent, is counted and dropped."""
        self.assertIsNone(self.took(msgid=8))
        self.assertIsNone(self.took(attempt=1))
        self.assertIsNone(self.took(peer=("192.0.2.7", 0)))
        self.assertIsNone(self.took(result="unasked"))
        self.assertIsNone(self.take(b"junk"))
        self.assertIsNone(self.take(encode_response(7, {"code": "x", "message": "y"}, None)))
        self.assertEqual(self.asking.stats.rejected, {"other_question": 2, "source_port_zero": 1, "malformed": 3})
        self.assertEqual((self.asking.answers(), self.asking.stats.answers), ([], 0))
        self.assertIn("rejected=", repr(self.asking.stats))
        self.assertNotIn("too_many", repr(self.asking.stats))

    def test_results(self) -> None:
        """Where a method was asked for an answer must have a result, which may be nil."""
        self.asking = self.made(method="status")
        self.asking.question(0, now=0.5)
        self.assertIsNone(self.took())
        found = self.took(result=None)
        assert found is not None
        self.assertIsNone(found.result)
        self.assertEqual(self.asking.stats.rejected, {"malformed": 1})

    def test_bound(self) -> None:
        """No more servers are kept than the bound says; the rest is counted."""
        self.patch(_questions, "MAX_ANSWERS", 2)
        for id_ in (b"aaaaAAAA", b"bbbbBBBB", b"ccccCCCC", b"aaaaAAAA"):
            self.took(id=id_)
        stats = self.asking.stats
        self.assertEqual((len(self.asking.answers()), stats.answers, stats.too_many, stats.repeated), (2, 2, 1, 1))

    def test_order(self) -> None:
        """By name, then by address as numbers, then by port."""
        peers = [
            ("a", "192.0.2.9", 1),
            ("a", "192.0.2.10", 1),
            ("a", "192.0.2.10", 2),
            ("a", "fe80::1%eth0", 1),
            ("b", "192.0.2.1", 1),
        ]
        for number, (name, host, port) in enumerate(reversed(peers)):
            self.took(id=b"%08d" % number, name=name, peer=(host, port))
        self.assertEqual([(peer.name, peer.host, peer.port) for peer, _ in self.asking.answers()], peers)

    @given(st.binary(max_size=100))
    def test_any_bytes(self, datagram: bytes) -> None:
        """Whatever comes raises nothing."""
        self.take(datagram)
