"""The question ``rpc.discover`` and its answer as datagrams.

Theory of operation: both are MessagePack-RPC, so that what reads the one protocol reads the other. A question is a
request whose parameters are a list of seven (more are ignored: a later version may add some); an answer is a response
whose result is a map (unknown keys are ignored). Numbers are checked for range and texts for length, and what does not
fit is a :class:`~twistedudp.errors.DecodeError`, the only error of decoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._msgpack import decode_untrusted, encode_request, encode_response
from ..core import SAFE_PAYLOAD
from ..errors import DecodeError
from ..messages import Request, Response

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ID_SIZE",
    "MAX_ANSWER_SIZE",
    "MAX_ATTEMPT",
    "MAX_QUESTION_SIZE",
    "MAX_TEXT",
    "NO_RESULT",
    "PREFIX_SIZE",
    "Answer",
    "Question",
    "decode_answer_untrusted",
    "decode_question_untrusted",
    "encode_answer",
    "encode_question",
    "is_known",
]

METHOD: Final = "rpc.discover"

MAX_QUESTION_SIZE: Final = SAFE_PAYLOAD
"""Bytes: what passes everywhere in one packet, for a fragment lost is a question lost."""

MAX_ANSWER_SIZE: Final = SAFE_PAYLOAD
"""Bytes: likewise, and so that what many answer to one question stays small."""

ID_SIZE: Final = 8
"""Bytes of a question's id and of a responder's: random ones do not collide."""

PREFIX_SIZE: Final = 4
"""Bytes of a responder's id that a question names it by: that a responder is taken for one of 280 others has a
probability of 7e-8, and ids are new for each question."""

MAX_TEXT: Final = 64
"""Characters of a name, a protocol or a version."""

MAX_ATTEMPT: Final = 65535
_MAX_ROUND: Final = 255
_MAX_WINDOW: Final = 60_000
_MAX_HELD: Final = 2**40  # microseconds, 12 days

NO_RESULT: Final[Any] = object()
"""Stands for the result of an answer to a question without a method."""


class Question(NamedTuple):
    """What is asked of all."""

    msgid: int
    id: bytes
    """The same in every datagram of one discovery, also over the other address family."""
    attempt: int
    """Which of the asker's datagrams this is; the answer tells it, for the asker to know when that was sent."""
    round: int
    """From 1 on."""
    known: bytes
    """The first four bytes of the id of each responder whose answer has come, one after another."""
    window: int
    """Milliseconds over which answers are to be spread."""
    method: str | None
    """What is asked beside who is there; None for nothing."""
    params: list[object]


class Answer(NamedTuple):
    """What one responder says of itself; where it is, is told by where the datagram came from."""

    msgid: int
    id: bytes
    """Of the responder, for this question."""
    name: str
    protocol: str
    version: str
    attempt: int
    """Which datagram of the asker is answered."""
    held: int
    """Microseconds from that datagram's arrival to this answer's departure."""
    result: object
    """What the method returned; :data:`NO_RESULT` where none was asked."""


def encode_question(question: Question) -> bytes:
    """Return a question as a datagram.

    Raises:
        EncodeError: A parameter cannot be sent.
    """
    _, *rest = question
    return encode_request(question.msgid, METHOD, rest)


def decode_question_untrusted(datagram: bytes) -> Question:
    """Return the question that a datagram is.

    Raises:
        DecodeError: It is none.
    """
    message = decode_untrusted(datagram)
    if not isinstance(message, Request) or message.method != METHOD:
        raise DecodeError("not a question of discovery")
    params: Sequence[Any] = message.params
    if len(params) < len(Question._fields) - 1:
        raise DecodeError("a question of discovery has seven parameters")
    question = Question(message.msgid, *params[: len(Question._fields) - 1])
    _check_id(question.id)
    _check_number("attempt", question.attempt, 0, MAX_ATTEMPT)
    _check_number("round", question.round, 1, _MAX_ROUND)
    _check_number("window", question.window, 0, _MAX_WINDOW)
    if type(question.known) is not bytes or len(question.known) % PREFIX_SIZE:
        raise DecodeError("known must be the first four bytes of ids")
    if question.method is not None:
        _check_text("method", question.method)
    if type(question.params) is not list:
        raise DecodeError("params must be a list")
    return question


def encode_answer(answer: Answer) -> bytes:
    """Return an answer as a datagram.

    Raises:
        EncodeError: The result cannot be sent.
    """
    fields = answer._asdict()
    del fields["msgid"]
    if answer.result is NO_RESULT:
        del fields["result"]
    return encode_response(answer.msgid, None, fields)


def decode_answer_untrusted(datagram: bytes) -> Answer:
    """Return the answer that a datagram is.

    Raises:
        DecodeError: It is none.
    """
    message = decode_untrusted(datagram)
    if not isinstance(message, Response) or message.error is not None or not isinstance(message.result, dict):
        raise DecodeError("not an answer to a question of discovery")
    fields: dict[str, Any] = message.result
    try:
        values = [fields[name] for name in Answer._fields[1:-1]]
    except KeyError as error:
        raise DecodeError(f"an answer lacks {error}") from None
    answer = Answer._make([message.msgid, *values, fields.get("result", NO_RESULT)])
    _check_id(answer.id)
    _check_text("name", answer.name)
    _check_text("protocol", answer.protocol)
    _check_text("version", answer.version)
    _check_number("attempt", answer.attempt, 0, MAX_ATTEMPT)
    _check_number("held", answer.held, 0, _MAX_HELD)
    return answer


def is_known(known: bytes, id_: bytes) -> bool:
    """Tell whether a question names a responder among those that have answered."""
    prefix, place = id_[:PREFIX_SIZE], -1
    while True:  # four bytes in a row may also be the end of one prefix and the beginning of the next
        place = known.find(prefix, place + 1)
        if place < 0 or place % PREFIX_SIZE == 0:
            return place >= 0


def _check_id(id_: object) -> None:
    if type(id_) is not bytes or len(id_) != ID_SIZE:
        raise DecodeError(f"an id must be {ID_SIZE} bytes")


def _check_number(name: str, number: object, least: int, most: int) -> None:
    if type(number) is not int or not least <= number <= most:
        raise DecodeError(f"{name} must be an integer from {least} to {most}")


def _check_text(name: str, text: object) -> None:
    if type(text) is not str or not 1 <= len(text) <= MAX_TEXT:
        raise DecodeError(f"{name} must be a text of 1 to {MAX_TEXT} characters")
