"""Every foreseeable failure as one line that says what to try, and as an exit status that says whose fault it was.

Theory of operation: one table from exception types to exit statuses and texts; the first type that fits counts. The
errors' own texts are written for programmers; where a person at a shell has other means (``--timeout``, another
command), the line is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .. import errors
from ..address import format_address

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ERROR_REPLY", "NO_ANSWER", "USAGE", "Interrupted", "explain"]

NO_ANSWER: Final = 1
"""Nothing came back, or nothing that could answer the question."""
USAGE: Final = 2
"""The question cannot be asked; nothing was sent."""
ERROR_REPLY: Final = 3
"""The server answered with an error."""

_HINTS: Final = {
    "unknown_method": "'udpecho methods' shows the list",
    "server_stopping": "try again when the server is back",
    "busy": "try again in a moment",
}
"""What to try after an error that our servers send, where their text does not say it."""


class Interrupted(BaseException):
    """Ctrl-C; not KeyboardInterrupt, which Click would answer with an empty line and an error of its own."""


def explain(error: Exception) -> tuple[int, str]:
    """Return the exit status and the line for an error; raise it again if nobody foresaw it."""
    for kind, status, text in _TABLE:
        if isinstance(error, kind):
            return status, text(error)
    raise error


def _error_reply(error: errors.ErrorReplyReceived) -> str:
    hint = _HINTS.get(error.code)
    return f"the server answered with an error: {error}" + (f"; {hint}" if hint else "")


def _too_large(error: errors.DatagramTooLarge) -> str:
    return f"the datagram would have {error.size:,} bytes, and at most {error.limit:,} go; send less at once"


def _not_encodable(error: errors.EncodeError) -> str:
    return f"this cannot be sent: {error}; change that argument"


def _timed_out(error: errors.RequestTimedOut) -> str:
    if not error.attempts:
        return (
            f"the name server did not answer within {error.elapsed:.3g} s; write the host's address, or try --timeout"
        )
    return f"{error}; is a server of this kind running there? a firewall may be silent, too; --timeout waits longer"


def _reflected(error: errors.PeerReflects) -> str:
    return (
        f"{format_address(error.peer)} sent the request back as it was: an echo server listens there; "
        "use 'udpecho send' with it, or name an rpc server"
    )


def _refused(error: OSError) -> str:
    return f"the system refused: {error.strerror or error}"


_TABLE: Final[tuple[tuple[type[Exception], int, Callable[[Any], str]], ...]] = (
    (errors.ErrorReplyReceived, ERROR_REPLY, _error_reply),
    (errors.DecodeError, ERROR_REPLY, str),
    (errors.DatagramTooLarge, USAGE, _too_large),
    (errors.EncodeError, USAGE, _not_encodable),
    (errors.LocalError, USAGE, str),
    # Before OSError: it is a TimeoutError, which is one.
    (errors.RequestTimedOut, NO_ANSWER, _timed_out),
    (errors.PeerReflects, NO_ANSWER, _reflected),
    (errors.TwistedUDPError, NO_ANSWER, str),
    (OSError, NO_ANSWER, _refused),
)
