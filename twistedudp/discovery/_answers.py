"""What a discoverable server makes of questions: which it answers, and when.

Theory of operation: ``question_received_untrusted`` takes whatever came to the discovery port. A question that may be
answered is remembered by its id, and so what it asks for is run once, however often it comes, in whichever round, over
either address family. Answers wait in a heap until they are due; the owner asks ``next_due`` and sends what ``due``
returns. When they are due is a matter of chance, uniformly over the window that the question allows.

An answer may be lost, and the asker tells by asking again, in its next round, without naming this server. By then most
servers have been heard, so those that are left may send more: one copy in the first round, three in the second, eight
from the third on, each at a random time in its own part of the window. With 30 % of all datagrams lost, a server is
missed by three rounds with a probability of about one in a million, and without loss nobody sends anything twice.

An id is made for each question, from its id and a secret: so nobody can have learned it from an earlier question and
answer by it first. Nothing here looks at a clock or draws random numbers by itself.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from .._rate_limit import RateLimit
from ..errors import DecodeError, EncodeError
from ._wire import (
    ID_SIZE,
    MAX_ANSWER_SIZE,
    MAX_TEXT,
    NO_RESULT,
    Answer,
    decode_question_untrusted,
    encode_answer,
    is_known,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from ..address import Address
    from ._wire import Question

__all__ = [
    "ASKER_INTERVAL",
    "COPIES",
    "EPHEMERAL_PORTS",
    "MAX_ANSWERS_PER_SECOND",
    "MAX_ASKERS",
    "MAX_PER_ASKER",
    "MAX_REMEMBERED",
    "MAX_WINDOW",
    "REMEMBERED_FOR",
    "AnswerStats",
    "Answers",
    "Identity",
]

COPIES: Final = (1, 3, 8)
"""How many answers a question is given in its first, second, and any later round."""

MAX_WINDOW: Final = 10.0
"""Seconds over which answers are spread at most, whatever a question says: pending ones are state."""

MAX_REMEMBERED: Final = 1024
"""Questions remembered at once; new ones are not answered where there is no room. Each has at most 1,200 bytes of
result, and nobody asks so often."""

REMEMBERED_FOR: Final = 60.0
"""Seconds after it last came for which a question is remembered: as long as a whole discovery may take."""

MAX_ANSWERS_PER_SECOND: Final = 100
"""Answers sent in a second at most, whoever asks: ten askers at once, of which each loses half."""

MAX_PER_ASKER: Final = 50
"""What one host is given in ``ASKER_INTERVAL``: each question let in and each answer sent counts as one. It is room for
a discovery every 0.4 s, or for three at once of which every answer is lost. Who forges a neighbour's address has no
more sent there, in whatever rounds."""

ASKER_INTERVAL: Final = 10.0
"""Seconds."""

MAX_ASKERS: Final = 4
"""Addresses that one question is answered to: an asker may have several, and the way to the first may be closed."""

_PRIVILEGED_PORTS: Final = 1024
"""Ports below this one are services', which might answer an answer; nobody asks from there."""

EPHEMERAL_PORTS: Final = 32768
"""From here on Linux chooses ports by itself (net.ipv4.ip_local_port_range), for askers and for services that are given
no number: that two have the same says nothing, and to refuse it would lose one server in 28,000."""

_HELD_UNIT: Final = 1_000_000  # microseconds
_WIDEST: Final = 2**40  # what the size of an answer is checked with


class Identity(NamedTuple):
    """What a server tells of itself."""

    name: str
    protocol: str
    version: str


class AnswerStats:
    """Counters of a discoverable server, all of them since it was made.

    Attributes:
        questions: Questions let in, each once.
        answers: Answers sent.
        repeated: Datagrams of questions that were let in already.
        suppressed: Datagrams of questions that name this server among those heard.
        refused: Datagrams not answered, by reason: ``not_to_group`` (sent to this host alone), ``malformed`` (also
            answers, which are none), ``source_port_zero``, ``service_port`` (from a port on which services listen, this
            one's own among them: they might answer the answer), ``not_reachable`` (the asker's address is not on a
            network that this host is attached to, or the service cannot be reached from there), ``busy`` (no room for
            another question, or that host has been given all that one is).
        unanswered: Questions let in that are not answered, by reason: ``method_failed`` (or there is none of that
            name), ``too_large``, ``not_encodable``, ``busy`` (the method could not run then; when the question comes
            again it counts as another).
        dropped: Answers that were due and not sent, by reason: ``rate_limited``, ``asker_limited`` (their host has been
            given all that one is), ``send_failed``.
    """

    __slots__ = ("answers", "dropped", "questions", "refused", "repeated", "suppressed", "unanswered")

    def __init__(self) -> None:
        self.questions = 0
        self.answers = 0
        self.repeated = 0
        self.suppressed = 0
        self.refused: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def __repr__(self) -> str:
        counters = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"<AnswerStats {' '.join(text for text in counters if not text.endswith(('=0', '=Counter()')))}>"


class _Host(RateLimit):
    """What a host may still be given; kept as long as a question of it is remembered."""

    __slots__ = ("__weakref__",)


@dataclass(slots=True, eq=False)
class _Remembered:
    """A question that was let in."""

    askers: list[tuple[Address, _Host]]
    """Where it came from; it may come by several ways."""
    msgid: int
    id: bytes
    """This server's, for the question."""
    attempt: int = 0
    round: int = 0
    rounds: int = 0
    """How many it was heard in."""
    heard_at: float = 0.0
    until: float = 0.0
    """The end of the window."""
    forgotten_at: float = 0.0
    sent: int = 0
    ready: bool = False
    """Whether there is something to answer."""
    over: bool = False
    """Whether nothing is to be sent any more: the asker has the answer, or it is to get none."""
    result: object = NO_RESULT
    pending: set[int] = field(default_factory=set)
    """Serial numbers of the answers in the heap; others of this question there are void."""


class Answers:
    """The questions that a server has heard of late, and the answers that it owes.

    Args:
        identity: What it tells of itself.
        secret: Random bytes, 16 to 64, new for each server.
        service_ports: The port that answers leave from and the one that questions come to: a question from another
            host's port of the same number may be forged, so that two servers answer each other.
        random: Returns a random number from 0 to 1, 1 excluded.
        clock: Returns seconds and does not go back.

    Attributes:
        stats: The :class:`AnswerStats`.
    """

    def __init__(
        self,
        identity: Identity,
        secret: bytes,
        *,
        service_ports: Container[int] = (),
        random: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        for name, text in identity._asdict().items():
            if not 1 <= len(text) <= MAX_TEXT:
                raise ValueError(f"{name}={text!r}: it must have 1 to {MAX_TEXT} characters")
        self.stats = AnswerStats()
        self._identity = identity
        self._secret = secret
        self._service_ports = service_ports
        self._random = random
        self._clock = clock
        self._limit = RateLimit(MAX_ANSWERS_PER_SECOND, 1.0, clock)
        self._remembered: dict[bytes, _Remembered] = {}  # in the order in which they are to be forgotten
        self._hosts: WeakValueDictionary[str, _Host] = WeakValueDictionary()
        self._heap: list[tuple[float, int, _Remembered]] = []
        self._serial = 0

    def __len__(self) -> int:
        """Return how many questions are remembered."""
        return len(self._remembered)

    @property
    def next_due(self) -> float | None:
        """When the next answer is due, on the clock; None where none is."""
        heap = self._heap
        while heap and heap[0][1] not in heap[0][2].pending:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def question_received_untrusted(
        self, datagram: bytes, asker: Address, *, to_group: bool, reachable: Callable[[str], bool]
    ) -> Question | None:
        """Take a datagram of any origin.

        Args:
            datagram: The datagram.
            asker: Where it came from.
            to_group: Whether it was sent to a broadcast or multicast address.
            reachable: Tells whether a host can be answered; see :func:`._interfaces.reachable`.

        Returns:
            A question whose method is to be run now, and its outcome told by :meth:`result_ready` or
            :meth:`method_failed`; None in all other cases.
        """
        if not to_group:
            self.stats.refused["not_to_group"] += 1
            return None
        if asker[1] < _PRIVILEGED_PORTS or asker[1] in self._service_ports:
            self.stats.refused["service_port" if asker[1] else "source_port_zero"] += 1
            return None
        try:
            question = decode_question_untrusted(datagram)
        except DecodeError:
            self.stats.refused["malformed"] += 1
            return None
        now = self._clock()
        self._forget(now)
        remembered = self._remembered.pop(question.id, None)
        if remembered is None:
            remembered = self._let_in(question, asker, reachable)
            if remembered is None:
                return None
        elif self._is_another(asker, remembered) and reachable(asker[0]):
            remembered.askers.append((asker, self._host(asker[0])))
        return self._heard(remembered, question, now)

    def _let_in(self, question: Question, asker: Address, reachable: Callable[[str], bool]) -> _Remembered | None:
        """Return what a new question is remembered by; None where it is not answered."""
        if not reachable(asker[0]):
            self.stats.refused["not_reachable"] += 1
            return None
        host = self._host(asker[0])
        if len(self._remembered) >= MAX_REMEMBERED or not host.allowed():
            self.stats.refused["busy"] += 1
            return None
        own = hashlib.blake2b(question.id, digest_size=ID_SIZE, key=self._secret).digest()
        return _Remembered([(asker, host)], question.msgid, own)

    def _is_another(self, asker: Address, remembered: _Remembered) -> bool:
        askers = remembered.askers
        return len(askers) < MAX_ASKERS and all(asker != known for known, _ in askers)

    def _host(self, host: str) -> _Host:
        limit = self._hosts.get(host)
        if limit is None:
            limit = self._hosts[host] = _Host(MAX_PER_ASKER, ASKER_INTERVAL, self._clock)
        return limit

    def result_ready(self, question: Question, result: object) -> None:
        """Take the result of a question's method; what cannot be sent as an answer is not."""
        remembered = self._remembered.get(question.id)
        if remembered is None or remembered.ready or remembered.over:
            return
        remembered.result = result
        try:
            size = len(encode_answer(self._answer(remembered, _WIDEST)))
        except EncodeError:
            self._end(remembered, "not_encodable")
            return
        if size > MAX_ANSWER_SIZE:
            self._end(remembered, "too_large")
            return
        remembered.ready = True
        self._schedule(remembered, self._clock())

    def method_failed(self, question: Question) -> None:
        """Take it that a question's method failed, or that there is none such: nobody is told."""
        remembered = self._remembered.get(question.id)
        if remembered is not None:
            self._end(remembered, "method_failed")

    def method_not_run(self, question: Question) -> None:
        """Take it that a question's method could not be run now: it is run when the question comes again."""
        if self._remembered.pop(question.id, None) is not None:
            self.stats.unanswered["busy"] += 1

    def due(self) -> list[tuple[bytes, Address]]:
        """Return the answers that are due, and forget them."""
        now = self._clock()
        datagrams: list[tuple[bytes, Address]] = []
        while (due := self.next_due) is not None and due <= now:
            _, serial, remembered = heapq.heappop(self._heap)
            remembered.pending.discard(serial)
            to, host = remembered.askers[remembered.sent % len(remembered.askers)]  # the first at first
            remembered.sent += 1
            if not host.allowed():
                self.stats.dropped["asker_limited"] += 1
                continue
            if not self._limit.allowed():
                self.stats.dropped["rate_limited"] += 1
                continue
            held = round((now - remembered.heard_at) * _HELD_UNIT)
            datagrams.append((encode_answer(self._answer(remembered, held)), to))
            self.stats.answers += 1
        return datagrams

    def _heard(self, remembered: _Remembered, question: Question, now: float) -> Question | None:
        """Go on with a question that is let in, the first time or another."""
        is_new = not remembered.round
        self._remembered[question.id] = remembered  # the last to be forgotten
        remembered.forgotten_at = now + REMEMBERED_FOR
        if is_known(question.known, remembered.id):
            self.stats.suppressed += 1
            remembered.over = True
            remembered.pending.clear()
            return None
        if question.round <= remembered.round:
            self.stats.repeated += 1
            return None
        remembered.round, remembered.attempt, remembered.heard_at = question.round, question.attempt, now
        remembered.rounds += 1
        remembered.until = now + min(question.window / 1000, MAX_WINDOW)
        if is_new:
            self.stats.questions += 1
            if question.method is not None:
                return question
            remembered.ready = True
        if remembered.ready and not remembered.over:
            self._schedule(remembered, now)
        return None

    def _schedule(self, remembered: _Remembered, now: float) -> None:
        """Choose when to answer: in what is left of the window, or in a part of it if a method took all of it."""
        remembered.pending.clear()
        window = remembered.until - remembered.heard_at
        left = max(remembered.until - now, window / 4)
        # Six in a million miss two rounds at 30 % loss. A forger who begins with a late one is to gain little by it.
        copies = COPIES[min(remembered.round, remembered.rounds + 1, len(COPIES)) - 1]
        for copy in range(copies):
            self._serial += 1
            remembered.pending.add(self._serial)
            due = now + left * (copy + self._random()) / copies
            heapq.heappush(self._heap, (due, self._serial, remembered))
        if len(self._heap) > 2 * max(COPIES) * MAX_REMEMBERED:  # most of them are void by now
            self._heap = [entry for entry in self._heap if entry[1] in entry[2].pending]
            heapq.heapify(self._heap)

    def _answer(self, remembered: _Remembered, held: int) -> Answer:
        return Answer(
            remembered.msgid, remembered.id, *self._identity, remembered.attempt, held, remembered.result
        )  # fmt: skip

    def _end(self, remembered: _Remembered, reason: str) -> None:
        self.stats.unanswered[reason] += 1
        remembered.over = True
        remembered.result = NO_RESULT
        remembered.pending.clear()

    def _forget(self, now: float) -> None:
        """Forget the questions whose time is over."""
        while self._remembered:
            id_, oldest = next(iter(self._remembered.items()))
            if oldest.forgotten_at > now:
                return
            oldest.pending.clear()
            del self._remembered[id_]
