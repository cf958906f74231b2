"""How often and how long a client tries to shake hands.

Theory of operation: whoever can send a datagram with the server's address can end a handshake, or hold it up, and
nothing in DTLS helps against it; OpenSSL does not go on after that. So an attempt that failed is followed by another,
with a fresh Connection and from a fresh port, which the other does not know. An attempt that does not come on is left
after some seconds: first four, time for three tries of a flight (after 0, 1 and 3 s), then twice as long each time, so
that a path that is slow or loses much gets there, and the server holds few of those left.

What an attempt found, a certificate that does not hold or a peer that refuses, may have been forged as well. It is
believed when the next attempt finds the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import DTLSHandshakeFailed

if TYPE_CHECKING:
    from ..address import Address
    from ._failures import PeerRefused

__all__ = ["Trials"]

_FIRST_PATIENCE: Final = 4.0
"""Seconds; see above."""

_FIRST_PAUSE: Final = 0.1
"""Seconds from the start of an attempt to the next one's, at least; doubled with each."""

_LONGEST_PAUSE: Final = 3.0
"""Seconds: RFC 8085 section 3.1.3 allows a datagram each 3 s to whom nothing is known of."""

_NO_ANSWER: Final = "it did not answer in time; is a server running there, and does it speak DTLS?"


class Trials:
    """The attempts of one handshake.

    Args:
        deadline: When the last one is given up.

    Attributes:
        deadline: When the last one is given up; may be put off.
        attempts: How many were begun.
        finding: What the last one that failed has found.
    """

    __slots__ = ("_began", "attempts", "deadline", "finding")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.attempts = 0
        self.finding: PeerRefused | None = None
        self._began = 0.0

    def begin(self, now: float) -> None:
        """Count an attempt that begins."""
        self.attempts += 1
        self._began = now

    def patience_ends(self) -> float:
        """Return when the attempt under way is left for another."""
        return self._began + _FIRST_PATIENCE * 2.0 ** (self.attempts - 1)

    def next_begins(self) -> float:
        """Return when another attempt may begin after one that failed."""
        return self._began + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.attempts - 1, 10))

    def error(self, peer: Address) -> DTLSHandshakeFailed:
        """Return the error that tells how it went."""
        finding = self.finding
        reason, text = (finding.reason, finding.text) if finding is not None else ("no_answer", _NO_ANSWER)
        return DTLSHandshakeFailed(peer, reason, text, self.attempts)

    def is_final(self, finding: PeerRefused) -> bool:
        """Note what an attempt has found, and tell whether that is to be believed."""
        former, self.finding = self.finding, finding
        return former is not None and former.reason == finding.reason and former.certain and finding.certain
