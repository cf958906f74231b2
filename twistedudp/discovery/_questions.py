"""What an asker knows: when to ask, what to ask, and who has answered.

Theory of operation: :func:`attempts` lays out a discovery: the rounds, and in each a few repetitions of the question,
more in each round since fewer are left to answer and those have proven hard to reach. The repetitions lie in the first
half of a round, apart, for loss comes in bursts; answers are to come within most of the round, so that the next one
can name whom it has heard. :class:`Asking` makes the datagrams and takes the answers. It draws no random numbers and
looks at no clock.

A question names those that have answered by four bytes each, as many as fit into 1,200 bytes: some 280. Where there
are more, each repetition names another part of them: whoever is named in any keeps silent.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import DecodeError, EncodeError, LocalError
from . import MAX_ROUNDS, MAX_WAIT
from ._wire import (
    ID_SIZE,
    MAX_QUESTION_SIZE,
    MAX_TEXT,
    NO_RESULT,
    PREFIX_SIZE,
    Question,
    decode_answer_untrusted,
    encode_question,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..address import Address
    from ._wire import Answer

__all__ = [
    "MAX_ANSWERS",
    "Asking",
    "Attempt",
    "DiscoveredPeer",
    "DiscoveryAnswer",
    "DiscoveryStats",
    "attempts",
]

MAX_ANSWERS: Final = 4096
"""Servers that one discovery keeps; more are counted. It bounds what somebody who invents servers can cost."""

_MIN_KNOWN: Final = 64  # servers that a question must have room to name, or its parameters are too large
_KNOWN_HEADER: Final = 3  # bytes: what msgpack puts before more than 255 bytes, of which one is there already
_ANSWERS_END: Final = 0.85  # of a round; the rest is for the way of the last answers
_APART: Final = 1 / 8  # of a round, between the repetitions of a question
_MOST_REPETITIONS: Final = 4
_ARGUMENTS: Final = {"params[6]": "params", "params[5]": "method"}  # where the format has what the caller gave


class DiscoveredPeer(NamedTuple):
    """A server that answered."""

    host: str
    """The numeric address that its answer came from, which is the service's own."""
    port: int
    """The service's UDP port."""
    name: str
    """What its operator calls it."""
    protocol: str
    """``"rpc"``, ``"echo"``, or another name of what it serves."""
    version: str
    """Of twistedudp."""
    rtt: float | None
    """Seconds from the question to the answer, without what the server waited; None where the answer makes no sense."""
    interface: str
    """The name of the network interface that it was asked by."""


class DiscoveryAnswer(NamedTuple):
    """A server that answered, and what its method returned.

    All of it but the address is as the server says, and not proven.
    """

    peer: DiscoveredPeer
    result: object
    """The method's result; None where no method was asked for."""


class DiscoveryStats:
    """Counters of one discovery.

    Attributes:
        questions: Datagrams sent.
        answers: Servers that answered, each once.
        repeated: Further answers of servers that had answered, more than loss would have needed.
        too_many: Answers of servers beyond the 4,096 that are kept.
        rejected: Datagrams dropped, by reason: ``malformed`` (also errors), ``other_question`` (they answer none that
            was asked), ``source_port_zero``.
    """

    __slots__ = ("answers", "questions", "rejected", "repeated", "too_many")

    def __init__(self) -> None:
        self.questions = 0
        self.answers = 0
        self.repeated = 0
        self.too_many = 0
        self.rejected: Counter[str] = Counter()

    def __repr__(self) -> str:
        counters = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"<DiscoveryStats {' '.join(text for text in counters if not text.endswith(('=0', '=Counter()')))}>"


class Attempt(NamedTuple):
    """One sending of the question."""

    due: float
    """Seconds after the beginning."""
    round: int
    repetition: int
    window: int
    """Milliseconds for answers."""


def attempts(wait: float, rounds: int) -> list[Attempt]:
    """Return when the question is sent.

    Args:
        wait: Seconds that all rounds take together.
        rounds: How many there are.

    Raises:
        ValueError: One of them is out of range.
    """
    if type(rounds) is not int or not 1 <= rounds <= MAX_ROUNDS:
        raise ValueError(f"rounds={rounds!r}: it must be a whole number from 1 to {MAX_ROUNDS}")
    if type(wait) not in (int, float) or not 0 < wait <= MAX_WAIT:
        raise ValueError(f"wait={wait!r}: it must be a number of seconds above 0, at most {MAX_WAIT:g}")
    length = wait / rounds
    return [
        Attempt(
            (number + repetition * _APART) * length,
            number + 1,
            repetition,
            round((_ANSWERS_END - repetition * _APART) * length * 1000),
        )
        for number in range(rounds)
        for repetition in range(min(2 + number, _MOST_REPETITIONS))
    ]


class Asking:
    """One discovery.

    Args:
        msgid: A random number of 32 bits.
        question_id: Eight random bytes.
        schedule: What :func:`attempts` returned.
        method: What is asked beside who is there; None for nothing.
        params: The method's parameters.

    Attributes:
        schedule: When to ask.
        stats: The :class:`DiscoveryStats`.

    Raises:
        EncodeError: A parameter cannot be sent; its path begins with ``params``.
        LocalError: The parameters leave no room for the servers that have answered, or the method's name is empty or
            too long.
    """

    def __init__(
        self,
        msgid: int,
        question_id: bytes,
        schedule: Sequence[Attempt],
        method: str | None = None,
        params: Sequence[object] = (),
    ) -> None:
        if len(question_id) != ID_SIZE:
            raise ValueError(f"question_id must be {ID_SIZE} bytes")
        if method is not None and not 1 <= len(method) <= MAX_TEXT:
            raise LocalError(
                f"{method!r} cannot be the name of a method to ask all for: it has 1 to {MAX_TEXT} characters"
            )
        self.schedule = list(schedule)
        self.stats = DiscoveryStats()
        self._blank = Question(msgid, question_id, 0xFFFF, 1, b"", 0xFFFF, method, list(params))
        room = MAX_QUESTION_SIZE - len(_encoded(self._blank)) - _KNOWN_HEADER
        self._room = room // PREFIX_SIZE
        if self._room < _MIN_KNOWN:
            raise LocalError(
                f"the parameters take {_MIN_KNOWN * PREFIX_SIZE - room:,} bytes too many; a question is one packet of "
                f"{MAX_QUESTION_SIZE:,}, with room for the servers that have answered"
            )
        self._sent: dict[int, float] = {}
        self._answers: dict[bytes, DiscoveryAnswer] = {}

    @property
    def known(self) -> int:
        """How many servers a question can name."""
        return self._room

    def question(self, number: int, *, now: float) -> bytes:
        """Return the datagram of an attempt, which is sent now.

        Args:
            number: Its place in the schedule.
            now: Seconds, on any clock that does not go back.
        """
        attempt = self.schedule[number]
        self._sent[number] = now
        ids = list(self._answers)
        if len(ids) > self._room:
            start = sum(before.round > 1 for before in self.schedule[:number]) * self._room % len(ids)
            ids = (ids[start:] + ids[:start])[: self._room]
        known = b"".join(id_[:PREFIX_SIZE] for id_ in ids)
        question = self._blank._replace(attempt=number, round=attempt.round, known=known, window=attempt.window)
        return encode_question(question)

    def answer_received_untrusted(
        self, datagram: bytes, peer: Address, *, interface: str, now: float
    ) -> DiscoveryAnswer | None:
        """Take a datagram of any origin.

        Args:
            datagram: The datagram.
            peer: Where it came from.
            interface: The name of the interface by which was asked what it may answer.
            now: Seconds, on the same clock.

        Returns:
            The answer of a server that had not answered before; None in all other cases.
        """
        try:
            answer = decode_answer_untrusted(datagram)
        except DecodeError:
            self.stats.rejected["malformed"] += 1
            return None
        reason = self._fault(answer, peer)
        if reason:
            self.stats.rejected[reason] += 1
            return None
        if answer.id in self._answers:
            self.stats.repeated += 1
            return None
        if len(self._answers) >= MAX_ANSWERS:
            self.stats.too_many += 1
            return None
        sent = self._sent[answer.attempt]
        rtt = now - sent - answer.held / 1_000_000
        found = DiscoveredPeer(
            *peer, answer.name, answer.protocol, answer.version, rtt if rtt >= 0 else None, interface
        )  # fmt: skip
        result = None if answer.result is NO_RESULT else answer.result
        told = self._answers[answer.id] = DiscoveryAnswer(found, result)
        self.stats.answers += 1
        return told

    def _fault(self, answer: Answer, peer: Address) -> str:
        """Return why an answer is none to this question, as the counters have it; empty if it is one."""
        if not peer[1]:
            return "source_port_zero"
        if answer.msgid != self._blank.msgid or answer.attempt not in self._sent:
            return "other_question"
        if (answer.result is NO_RESULT) != (self._blank.method is None):
            return "malformed"
        return ""

    def answers(self) -> list[DiscoveryAnswer]:
        """Return what came, by name, address and port."""
        return sorted(self._answers.values(), key=_order)


def _encoded(question: Question) -> bytes:
    """Return a question as a datagram; an error names the caller's arguments, not the places of the format."""
    try:
        return encode_question(question)
    except EncodeError as error:
        for place, name in _ARGUMENTS.items():
            if error.path.startswith(place):
                raise type(error)(error.reason, name + error.path[len(place) :]) from error
        raise


def _order(answer: DiscoveryAnswer) -> tuple[Any, ...]:
    peer = answer.peer
    bare, _, scope = peer.host.partition("%")
    address = ipaddress.ip_address(bare)
    return peer.name, address.version, int(address), scope, peer.port
