"""Every foreseeable failure as one line and an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp import errors
from twistedudp.cli._failures import ERROR_REPLY, NO_ANSWER, USAGE, explain
from twistedudp.cli._output import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = ("127.0.0.1", 10000)

FAILURES: list[tuple[Exception, int, str]] = [
    (errors.RequestTimedOut(4, 2.0, [PEER]), NO_ANSWER, "no answer from 127.0.0.1:10000 within 2 s, after 4 datagrams"),
    (errors.RequestTimedOut(0, 2.0), NO_ANSWER, "the name server did not answer within 2 s"),
    (errors.PeerUnreachable(PEER, "Connection refused"), NO_ANSWER, "cannot be reached: Connection refused"),
    (errors.CircuitOpen([PEER], 2.5), NO_ANSWER, "127.0.0.1:10000 did not answer the last calls"),
    (errors.HostNotFound("no.example"), NO_ANSWER, "'no.example' does not resolve"),
    (errors.PeerReflects(PEER), NO_ANSWER, "use 'udpecho send' with it"),
    (errors.RequestAborted("stopped"), NO_ANSWER, "stopped"),
    (OSError(97, "Address family not supported by protocol"), NO_ANSWER, "Address family not supported"),
    (errors.DatagramTooLarge(70000, 65507), USAGE, "would have 70,000 bytes, and at most 65,507 go"),
    (errors.EncodeError("too deep", "params[0]"), USAGE, "params[0]: too deep; change that argument"),
    (errors.BroadcastNotSupported("255.255.255.255"), USAGE, "is a broadcast or multicast address"),
    (errors.InvalidAddress("no such address"), USAGE, "no such address"),
    (errors.ErrorReplyReceived("busy", "later"), ERROR_REPLY, "error: busy: later; try again in a moment"),
    (errors.ErrorReplyReceived("my_own", "text"), ERROR_REPLY, "the server answered with an error: my_own: text"),
    (errors.DecodeError("not a list of methods"), ERROR_REPLY, "not a list of methods"),
]


def kinds(base: type[Exception]) -> Iterator[type[Exception]]:
    """Yield a class of errors and all below it."""
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


class ExplainTests(SynchronousTestCase):
    """The table of failures."""

    def test_statuses_and_texts(self) -> None:
        """Each error has its exit status and a text of one line that says what happened."""
        for error, status, text in FAILURES:
            found, line = explain(error)
            self.assertEqual(found, status, error)
            self.assertIn(text, line)
            self.assertEqual(one_line(line), line)

    def test_no_error_is_forgotten(self) -> None:
        """Every class of errors has a status: local ones are wrong usage, all others are not."""
        for kind in kinds(errors.TwistedUDPError):
            error = next((known for known, _, _ in FAILURES if type(known) is kind), None)
            if error is None:
                error = kind.__new__(kind)
                error.args = ("text",)
                vars(error).update(
                    code="", message="", data=None, peer=PEER, reason="", path="", host="", size=2, limit=1
                )
            self.assertEqual(explain(error)[0] == USAGE, isinstance(error, errors.LocalError), kind)

    def test_unforeseen(self) -> None:
        """What nobody foresaw is a mistake of ours, and keeps its traceback."""
        with self.assertRaises(ZeroDivisionError):
            explain(ZeroDivisionError())
