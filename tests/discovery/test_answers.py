"""Which questions a server answers, and when; without I/O."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import a_question, an_answer
from twistedudp.discovery import _answers
from twistedudp.discovery._answers import (
    COPIES,
    MAX_ANSWERS_PER_SECOND,
    MAX_ASKERS,
    MAX_PER_ASKER,
    MAX_REMEMBERED,
    MAX_WINDOW,
    REMEMBERED_FOR,
    Answers,
    Identity,
)
from twistedudp.discovery._wire import MAX_ANSWER_SIZE, decode_answer_untrusted, encode_answer, encode_question

if TYPE_CHECKING:
    from twistedudp.discovery._wire import Answer, Question

ASKER = ("192.0.2.200", 40000)
OTHER = ("2001:db8::200", 40001)
SECRET = b"0123456789abcdef"
ME = Identity("kitchen", "echo", "0.1.0")


class AnswersCase(SynchronousTestCase):
    """A server, on a clock that the test moves."""

    def setUp(self) -> None:
        """Make the server."""
        self.now = 1000.0
        self.random = random.Random(7)  # noqa: S311  # reproducible
        self.server = self.made()
        self.reachable = True

    def made(self, secret: bytes = SECRET) -> Answers:
        """Return a server."""
        ports = (10000, 10032)
        return Answers(ME, secret, service_ports=ports, random=self.random.random, clock=lambda: self.now)

    def ask(self, asker: tuple[str, int] = ASKER, *, to_group: bool = True, **fields: Any) -> Question | None:
        """Let the server hear a question."""
        return self.hear(encode_question(a_question(**fields)), asker, to_group=to_group)

    def hear(self, datagram: bytes, asker: tuple[str, int] = ASKER, *, to_group: bool = True) -> Question | None:
        """Let the server hear a datagram."""
        return self.server.question_received_untrusted(
            datagram, asker, to_group=to_group, reachable=lambda _: self.reachable
        )

    def sent(self, until: float) -> list[tuple[float, Answer, tuple[str, int]]]:
        """Let time pass, and return what was sent, when, and to whom."""
        found = []
        while (due := self.server.next_due) is not None and due <= until:
            self.now = max(self.now, due)
            found += [(self.now, decode_answer_untrusted(datagram), peer) for datagram, peer in self.server.due()]
        self.now = until
        return found


class AnsweringTests(AnswersCase):
    """Questions that are answered."""

    def test_answer(self) -> None:
        """One answer comes within the window, and says who this is, to what, and how long that took."""
        self.assertIsNone(self.ask(attempt=3))
        ((at, answer, peer),) = self.sent(self.now + 5)
        self.assertTrue(1000 <= at <= 1000.8)
        self.assertEqual(peer, ASKER)
        self.assertEqual(
            answer, an_answer(id=answer.id, attempt=3, held=round((at - 1000) * 1e6), name="kitchen", protocol="echo")
        )
        self.assertEqual((self.server.stats.questions, self.server.stats.answers), (1, 1))
        self.assertIn("answers=1", repr(self.server.stats))
        self.assertNotIn("repeated", repr(self.server.stats))

    def test_heard_again(self) -> None:
        """What comes again in the same round, over another path or family, adds nothing."""
        for attempt, asker in enumerate((ASKER, ASKER, OTHER)):
            self.ask(asker, attempt=attempt)
        self.assertEqual([(answer.attempt, peer) for _, answer, peer in self.sent(self.now + 5)], [(0, ASKER)])
        self.ask(attempt=4)
        self.assertEqual(self.sent(self.now + 5), [])
        self.assertEqual((self.server.stats.questions, self.server.stats.repeated), (1, 3))

    def test_rounds(self) -> None:
        """A later round that does not name this server is answered by more copies, each in its part of the window."""
        for number, copies in ((1, 1), (2, 3), (3, 8), (9, 8)):
            began = self.now
            self.ask(round=number, attempt=number)
            sent = self.sent(self.now + 1)
            self.assertEqual([answer.attempt for _, answer, _ in sent], [number] * copies)
            for place, (at, _, _) in enumerate(sent):
                self.assertTrue(place <= (at - began) / 0.8 * copies <= place + 1, (at - began, place))
        self.assertEqual((self.server.stats.questions, self.server.stats.answers), (1, 20))
        self.ask(round=3)
        self.assertEqual(self.sent(self.now + 1), [])

    def test_round_of_which_the_first_was_lost(self) -> None:
        """Who hears a question first in its second round answers as all do then; a later one is given no more."""
        for number, id_ in ((2, b"question"), (3, b"whatever"), (255, b"whoknows")):
            self.ask(round=number, id=id_)
            self.assertEqual(len(self.sent(self.now + 1)), COPIES[1])
        self.ask(round=3)
        self.assertEqual(len(self.sent(self.now + 1)), COPIES[2])

    def test_suppressed(self) -> None:
        """A question that names this server is not answered, nor what it had been asked before, nor later rounds."""
        self.ask()
        ((_, answer, _),) = self.sent(self.now + 1)
        self.ask(round=2)
        self.ask(round=2, known=b"xxxx" + answer.id[:4])
        self.assertIsNone(self.server.next_due)
        self.ask(round=3, known=b"xxxx")
        self.assertEqual(self.sent(self.now + 5), [])
        self.assertEqual(self.server.stats.suppressed, 1)

    def test_named_before_it_was_asked(self) -> None:
        """A server that hears only a question which names it, by chance or by a forger, is silent."""
        self.ask()
        ((_, answer, _),) = self.sent(self.now + 1)
        self.server = self.made()
        self.ask(known=answer.id[:4])
        self.assertEqual(self.sent(self.now + 5), [])
        self.assertEqual(self.server.stats.questions, 0)

    def test_ids(self) -> None:
        """The id is another for each question and each server, and the same in each round."""
        found = set()
        for question in (b"question", b"whatever"):
            for secret in (b"0123456789abcdef", b"0123456789abcdeg"):
                self.server = self.made(secret)
                for number in (1, 2):
                    self.ask(id=question, round=number)
                mine = {answer.id for _, answer, _ in self.sent(self.now + 1)}
                self.assertEqual(len(mine), 1)
                found |= mine
        self.assertEqual(len(found), 4)

    def test_window(self) -> None:
        """A window of nothing is answered at once, and a very long one within ten seconds."""
        self.ask(window=0)
        self.assertEqual([at for at, _, _ in self.sent(self.now)], [1000.0])
        self.server = Answers(ME, b"secret", random=lambda: 0.999, clock=lambda: self.now)
        self.ask(id=b"whatever", window=60000)
        ((at, _, _),) = self.sent(self.now + 60)
        self.assertAlmostEqual(at, 1000 + 0.999 * MAX_WINDOW)

    def test_spread(self) -> None:
        """Many servers that hear one question at one instant answer evenly over the window."""
        times = []
        for number in range(2000):
            self.now = 1000.0
            self.server = self.made(b"%016d" % number)
            self.ask(window=1000)
            times += [at - 1000 for at, _, _ in self.sent(1005)]
        tenths = [sum(place / 10 <= at < (place + 1) / 10 for at in times) for place in range(10)]
        self.assertEqual(sum(tenths), 2000)
        for count in tenths:  # 200 are expected, with a standard deviation of 13
            self.assertTrue(130 < count < 270, tenths)


class MethodTests(AnswersCase):
    """Questions for a method's result."""

    def test_result(self) -> None:
        """The method is to be run once, and its result is in the answers of every round."""
        question = self.ask(method="status", params=[1])
        assert question is not None
        self.assertEqual((question.method, question.params), ("status", [1]))
        self.assertIsNone(self.server.next_due)
        self.server.result_ready(question, ["fine"])
        self.assertEqual([answer.result for _, answer, _ in self.sent(self.now + 1)], [["fine"]])
        self.assertIsNone(self.ask(method="status", params=[1], round=2))
        self.assertEqual([answer.result for _, answer, _ in self.sent(self.now + 1)], [["fine"]] * 3)

    def test_none(self) -> None:
        """A method that returns nothing is an answer with a result."""
        question = self.ask(method="reset")
        assert question is not None
        self.server.result_ready(question, None)
        self.assertEqual([answer.result for _, answer, _ in self.sent(self.now + 1)], [None])

    def test_asked_again_while_it_runs(self) -> None:
        """A method that is slow is not run again, and then answers the latest round."""
        question = self.ask(method="status")
        assert question is not None
        self.now += 1
        self.assertIsNone(self.ask(method="status", round=2, attempt=5))
        self.assertEqual(self.sent(self.now + 0.3), [])
        self.server.result_ready(question, "fine")
        sent = self.sent(self.now + 1)
        self.assertEqual([answer.attempt for _, answer, _ in sent], [5] * 3)
        for at, answer, _ in sent:
            self.assertTrue(1001.3 <= at <= 1001.8)
            self.assertEqual(answer.held, round((at - 1001) * 1e6))

    def test_late(self) -> None:
        """What is ready after its window is spread over a quarter of one: many may be late together."""
        question = self.ask(method="status")
        assert question is not None
        self.now += 2
        self.server.result_ready(question, "fine")
        ((at, _, _),) = self.sent(self.now + 5)
        self.assertTrue(1002 < at < 1002.2)

    def test_failed(self) -> None:
        """A method that failed, or that there is none of, is never answered, and not run again."""
        question = self.ask(method="status")
        assert question is not None
        self.server.method_failed(question)
        self.assertIsNone(self.ask(method="status", round=2))
        self.server.result_ready(question, "too late")
        self.assertEqual(self.sent(self.now + 5), [])
        self.assertEqual(self.server.stats.unanswered, {"method_failed": 1})

    def test_busy(self) -> None:
        """A method for which there was no room is run when the question comes again, even in the same round."""
        question = self.ask(method="status")
        assert question is not None
        self.server.method_not_run(question)
        self.assertEqual((len(self.server), self.server.next_due), (0, None))
        self.assertEqual(self.server.stats.unanswered, {"busy": 1})
        self.server.method_not_run(question)
        again = self.ask(method="status")
        assert again is not None
        self.server.result_ready(again, "fine")
        self.assertEqual([answer.result for _, answer, _ in self.sent(self.now + 1)], ["fine"])

    def test_unfit_results(self) -> None:
        """A result that cannot be sent, or not in one packet, is not; the largest that can be is."""
        size = MAX_ANSWER_SIZE - len(encode_answer(an_answer(held=2**40, result="", name="kitchen"))) - 2
        for name, result, reason in (
            (b"object  ", object(), "not_encodable"),
            (b"too long", "x" * (size + 1), "too_large"),
            (b"longest ", "x" * size, ""),
        ):
            question = self.ask(method="status", id=name)
            assert question is not None
            self.server.result_ready(question, result)
            self.assertEqual(len(self.sent(self.now + 2)), int(not reason), name)
            self.assertEqual(self.server.stats.unanswered[reason], int(bool(reason)))

    def test_suppressed_while_it_runs(self) -> None:
        """A result that nobody waits for any more is dropped."""
        question = self.ask(method="status")
        assert question is not None
        other = self.made()
        other.question_received_untrusted(encode_question(a_question()), ASKER, to_group=True, reachable=lambda _: True)
        self.now += 1
        ((datagram, _),) = other.due()
        self.ask(method="status", round=2, known=decode_answer_untrusted(datagram).id[:4])
        self.server.result_ready(question, "fine")
        self.assertEqual(self.sent(self.now + 5), [])


class RefusalTests(AnswersCase):
    """What is not answered."""

    def test_refused(self) -> None:
        """Each reason is counted, and nothing is remembered or sent."""
        question = encode_question(a_question())
        for count, (datagram, asker, to_group, reason) in enumerate(
            (
                (question, ASKER, False, "not_to_group"),
                (question, ("192.0.2.200", 0), True, "source_port_zero"),
                (question[:-1], ASKER, True, "malformed"),
                (encode_answer(an_answer()), ASKER, True, "malformed"),
                (b"", ASKER, True, "malformed"),
            ),
            1,
        ):
            self.assertIsNone(self.hear(datagram, asker, to_group=to_group))
            self.assertEqual(
                (sum(self.server.stats.refused.values()), self.server.stats.refused[reason] > 0), (count, True)
            )
        self.reachable = False
        self.ask()
        self.assertEqual(self.server.stats.refused["not_reachable"], 1)
        self.assertEqual((self.sent(self.now + 5), len(self.server), self.server.stats.questions), ([], 0, 0))

    def test_busy(self) -> None:
        """Beyond a number of questions new ones are refused, until some are forgotten."""
        self.patch(_answers, "MAX_REMEMBERED", 3)
        for number in range(5):
            self.ask(id=b"%08d" % number)
            self.now += 1
        self.assertEqual((len(self.server), self.server.stats.refused), (3, {"busy": 2}))
        self.ask(id=b"%08d" % 0, round=2)  # now the last to be forgotten
        self.now = 1000 + REMEMBERED_FOR
        self.ask(id=b"whatever")
        self.assertEqual((len(self.server), self.server.stats.refused), (3, {"busy": 3}))
        self.now += 1
        self.ask(id=b"whatever")
        self.assertEqual((len(self.server), self.server.stats.refused), (3, {"busy": 3}))

    def test_rate(self) -> None:
        """No more answers leave in a second than the bound says, whoever asks."""
        for number in range(150):
            self.ask((f"192.0.2.{number}", 40000), id=b"%08d" % number, window=500)
        self.assertEqual(len(self.sent(self.now + 0.9)), MAX_ANSWERS_PER_SECOND)
        self.assertEqual(self.server.stats.dropped, {"rate_limited": 50})
        self.now += 0.2
        self.ask(id=b"whatever")
        self.assertEqual(len(self.sent(self.now + 1)), 1)

    def test_service_ports(self) -> None:
        """A question from a port on which services listen may be forged, so that they answer each other: no answer."""
        for port in (53, 1023, 10000, 10032):
            self.ask(("192.0.2.9", port))
        self.assertEqual((self.server.next_due, self.server.stats.refused), (None, {"service_port": 4}))
        self.ask(("192.0.2.9", 1024))
        self.assertEqual(len(self.sent(self.now + 1)), 1)

    def attacked(self, datagrams: list[bytes], seconds: float) -> tuple[int, int, int]:
        """Let these come evenly, all in one host's name; return bytes that came, and answers and bytes that left."""
        answers = size = 0
        for datagram in datagrams:
            question = self.hear(datagram)
            if question is not None:
                self.server.result_ready(question, "x" * 1000)
            self.now += seconds / len(datagrams)
            for answer, _ in self.server.due():
                answers, size = answers + 1, size + len(answer)
        return sum(map(len, datagrams)), answers, size

    def test_forged_questions(self) -> None:
        """One host is sent no more answers in ten seconds than the bound, by whatever questions, in whatever rounds."""
        for rounds, ids in (([255], 3000), ([1, 2, 3], 1000), (list(range(1, 256)), 12)):
            self.setUp()
            datagrams = [
                encode_question(a_question(id=b"%08d" % id_, round=number, window=0, method="m"))
                for id_ in range(ids)
                for number in rounds
            ]
            _, answers, size = self.attacked(datagrams, 60)
            self.assertLessEqual(answers, 6 * MAX_PER_ASKER)
            self.assertLess(size, 6 * MAX_PER_ASKER * MAX_ANSWER_SIZE)
            self.assertLessEqual(len(self.server), 6 * MAX_PER_ASKER)
            self.ask(OTHER, id=b"another!")  # others are not concerned
            self.assertEqual([peer for _, _, peer in self.sent(self.now + 1)], [OTHER])

    def test_first_of_forged_questions(self) -> None:
        """A single datagram that claims a late round is answered three times at most, with 100 times its bytes."""
        question = self.ask(round=255, window=0, method="m")
        assert question is not None
        self.server.result_ready(question, "x" * 1000)
        sent = [len(encode_answer(answer)) for _, answer, _ in self.sent(self.now + 1)]
        self.assertEqual(len(sent), 3)
        self.assertLess(sum(sent), 100 * len(encode_question(a_question(method="m"))))

    def test_who_looks_again_and_again(self) -> None:
        """Whoever asks twice a second is answered each time, whether they say that they were or not."""
        for number in range(120):
            self.ask(id=b"%08d" % number, window=300)
            ((_, answer, _),) = self.sent(self.now + 0.4)
            if number % 2:
                self.ask(id=b"%08d" % number, round=2, known=answer.id[:4])
            self.now += 0.1
        self.assertEqual((self.server.stats.refused, self.server.stats.dropped), ({}, {}))

    def test_several_ways(self) -> None:
        """What came by several ways is answered by each in turn, for one may be closed; not by any number of them."""
        askers = [(f"192.0.2.{number}", 40000) for number in range(1, 8)]
        for number in (1, 2, 3):
            for asker in askers:
                self.ask(asker, round=number)
            sent = [peer for _, _, peer in self.sent(self.now + 1)]
            if number == 1:
                self.assertEqual(sent, askers[:1])
        self.assertEqual(set(sent), set(askers[:MAX_ASKERS]))

    def test_heap(self) -> None:
        """However often is asked, the answers that wait have a bound."""
        for number in range(1, 256):
            for question in range(1000):
                self.ask((f"10.0.{question}.1", 40000), id=b"%08d" % question, round=number, window=60000)
            self.assertLessEqual(len(self.server._heap), 3 * max(COPIES) * MAX_REMEMBERED)
            if number == 12:
                break

    def test_names(self) -> None:
        """A name must have a length that an answer can have."""
        for name in ("", "x" * 65):
            self.assertRaises(ValueError, Answers, ME._replace(name=name), b"x", random=self.random.random, clock=float)


class PropertyTests(AnswersCase):
    """What holds whatever comes."""

    @given(
        st.lists(
            st.tuples(
                st.floats(0, 2),
                st.sampled_from([b"question", b"whatever", b"whoknows"]),
                st.integers(1, 4),
                st.integers(0, 1500),
                st.booleans(),
                st.sampled_from([ASKER, OTHER]),
                st.sampled_from([None, "status"]),
            ),
            max_size=25,
        )
    )
    def test_bounds(self, heard: list[tuple[float, bytes, int, int, bool, tuple[str, int], str | None]]) -> None:
        """A method runs once for each question, an asker who never stops is sent so much and no more, none too late."""
        self.setUp()
        ran: list[bytes] = []
        sent: list[tuple[float, Answer, tuple[str, int]]] = []
        for wait, id_, number, window, names, asker, method in heard:
            sent += self.sent(self.now + wait)
            own = hashlib.blake2b(id_, digest_size=8, key=SECRET).digest()
            known = own[:4] if names else b"somebody"
            question = self.ask(asker, id=id_, round=number, window=window, known=known, method=method)
            if question is not None:
                ran.append(question.id)
                self.server.result_ready(question, "fine")
        sent += self.sent(self.now + MAX_WINDOW)
        self.assertEqual(len(ran), len(set(ran)))
        self.assertIsNone(self.server.next_due)
        for id_ in {answer.id for _, answer, _ in sent}:
            # Rounds 1 to 4 of one question: 1 + 3 + 8 + 8 answers.
            self.assertLessEqual(sum(answer.id == id_ for _, answer, _ in sent), 20)
        for _, answer, _ in sent:
            self.assertLessEqual(answer.held, 1.5 * 1.25 * 1e6)
