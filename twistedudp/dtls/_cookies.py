"""The cookies by which a client shows that it gets what is sent to its address (RFC 6347 section 4.2.1).

Theory of operation: a cookie is a keyed digest of the client's address and of the random of its ClientHello, so that
the server need not remember whom it gave one, and one cookie opens one session. The key is replaced about once a minute
and its predecessor is still accepted, so that a cookie lives for one to two minutes. Time and randomness are arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address

__all__ = ["KEY_AGE", "CookieJar"]

KEY_AGE: Final = 60.0
"""Seconds after which a key is replaced: many handshakes long, and short for whoever collects cookies."""

_KEY_SIZE: Final = 32
"""Bytes: as many as the digest has (RFC 2104 section 3)."""


class CookieJar:
    """Makes cookies and knows its own.

    Args:
        random_bytes: Returns that many bytes that nobody can guess.
        now: The time in seconds.
    """

    __slots__ = ("_key", "_previous", "_random_bytes", "_since")

    def __init__(self, random_bytes: Callable[[int], bytes], *, now: float) -> None:
        self._random_bytes = random_bytes
        self._since = now
        self._key = random_bytes(_KEY_SIZE)
        self._previous = random_bytes(_KEY_SIZE)

    def make(self, peer: Address, random: bytes, *, now: float) -> bytes:
        """Return the cookie of a client.

        Args:
            peer: Its address.
            random: The 32 bytes of its ClientHello's random.
            now: The time in seconds.
        """
        self._rotate(now)
        return _digest(self._key, peer, random)

    def verifies(self, cookie: bytes, peer: Address, random: bytes, *, now: float) -> bool:
        """Tell whether a cookie was made for this client, by the present key or the one before; in constant time."""
        self._rotate(now)
        present = hmac.compare_digest(cookie, _digest(self._key, peer, random))
        return hmac.compare_digest(cookie, _digest(self._previous, peer, random)) or present

    def _rotate(self, now: float) -> None:
        if now - self._since < KEY_AGE:
            return
        # Nobody asked for so long that the present key is too old even as the one before.
        self._previous = self._key if now - self._since < 2 * KEY_AGE else self._random_bytes(_KEY_SIZE)
        self._key = self._random_bytes(_KEY_SIZE)
        self._since = now


def _digest(key: bytes, peer: Address, random: bytes) -> bytes:
    host, port = peer
    return hmac.digest(key, random + port.to_bytes(2, "big") + host.encode(), hashlib.sha256)
