"""What a server's log says of peers that are refused: who and why, at a bounded rate, and never a payload.

Theory of operation: anybody can provoke these lines. A kind of line has its own share, so that one flood does not hide
the other kinds; what was not told is told as a number with the next line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from .._rate_limit import RateLimit
from ..address import format_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address

__all__ = ["FULL", "Reports"]

MAX_LINES: Final = 20
"""Lines about refused handshakes in one minute."""

FULL: Final = {
    "sessions_full": "there are as many DTLS sessions as may be (DTLSLimits.sessions)",
    "sessions_per_host": "this host has as many DTLS sessions as it may have (DTLSLimits.sessions_per_host)",
    "half_open_full": "there are as many handshakes under way as may be (DTLSLimits.half_open)",
    "half_open_per_host": "this host has as many handshakes under way as it may have (DTLSLimits.half_open_per_host)",
}
"""What each bound means to a peer that is beyond it."""

_log = Logger(namespace="twistedudp.dtls")


class Reports:
    """Writes the log.

    Args:
        clock: Returns the time in seconds.
    """

    __slots__ = ("_foreign", "_full", "_refused")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._refused = RateLimit(MAX_LINES, 60.0, clock)
        self._foreign = RateLimit(1, 60.0, clock)
        self._full = RateLimit(1, 60.0, clock)

    def refused(self, peer: Address, text: str) -> None:
        """Tell of a handshake that failed."""
        _tell(self._refused, "no DTLS session with {peer}: {text}{more}", peer, text)

    def foreign(self, peer: Address) -> None:
        """Tell of a datagram that is not DTLS."""
        text = "what it sends is not DTLS; a client without dtls= perhaps"
        _tell(self._foreign, "nothing is taken from {peer}: {text}{more}", peer, text)

    def full(self, peer: Address, bound: str) -> None:
        """Tell of a ClientHello that was dropped because of a bound."""
        _tell(self._full, "no DTLS session with {peer} for now: {text}{more}", peer, FULL[bound])


def _tell(limit: RateLimit, line: str, peer: Address, text: str) -> None:
    if limit.allowed():
        missed = limit.take_suppressed()
        more = f" ({missed:,} like this since the last line were not logged)" if missed else ""
        _log.info(line, peer=format_address(peer), text=text, more=more)
