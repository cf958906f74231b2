"""The tokens that prove an address: whoever sends one back has received it there.

Theory of operation: a token is one byte of coarse time and 15 bytes of keyed BLAKE2s (RFC 7693) over the host and that
time, so that nothing has to be remembered of the hosts that were sent one. The port is not part of it: a client's next
request may leave from another. Time is counted in slots of two minutes; a token is valid in its own slot and in the
next one, and in the one before, for the clocks of servers that share a master secret need not agree to the second. Its
first byte tells which of the three slots is meant, so that a forged token costs one hash at most.

The key of a slot is derived from the master secret and the slot's hour. Which two hours' keys are accepted changes as
time goes on and nothing else does: there is nothing to rotate and nobody to tell. A key that leaks opens an hour.
"""

from __future__ import annotations

import hmac
import os
import stat
from hashlib import blake2s
from typing import TYPE_CHECKING, Final

from .address import unmapped
from .errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["MIN_KEY_SIZE", "AddressTokens", "read_token_key"]

MIN_KEY_SIZE: Final = 32
"""Bytes of the shortest master secret: as many as a BLAKE2s key has."""

SLOT: Final = 120
"""Seconds of one slot: a token lives for two to four minutes, many times the longest wait between two tries."""

_SLOTS_IN_HOUR: Final = 3600 // SLOT
_MAC_SIZE: Final = 15
_MAX_KEY_FILE: Final = 65536
_NANOSECONDS: Final = 1_000_000_000
_DERIVED: Final = b"tudpaddr"  # what this use of the master secret is called, for it may have others


class AddressTokens:
    """Makes and knows tokens.

    Args:
        master: The master secret, of at least ``MIN_KEY_SIZE`` bytes.
        wall_clock: Returns nanoseconds since the epoch.

    Raises:
        LocalError: The secret is too short.
    """

    __slots__ = ("_keys", "_master", "_wall_clock")

    def __init__(self, master: bytes, wall_clock: Callable[[], int]) -> None:
        if len(master) < MIN_KEY_SIZE:
            raise LocalError(f"a token key of {len(master)} bytes is too short; it must have {MIN_KEY_SIZE} or more")
        self._master = blake2s(master).digest()
        self._wall_clock = wall_clock
        self._keys: dict[int, bytes] = {}

    def token_of(self, host: str) -> bytes:
        """Return the token of a host at this time: 16 bytes."""
        return self._token(host, self._wall_clock() // (SLOT * _NANOSECONDS))

    def is_valid_untrusted(self, token: bytes, host: str) -> bool:
        """Tell whether bytes of any origin are a token that was made for this host in the last minutes."""
        if len(token) != 1 + _MAC_SIZE:
            return False
        slot = self._wall_clock() // (SLOT * _NANOSECONDS) + 1
        behind = (slot - token[0]) & 0xFF
        return behind <= 2 and hmac.compare_digest(self._token(host, slot - behind), token)

    def _token(self, host: str, slot: int) -> bytes:
        hour = slot // _SLOTS_IN_HOUR
        key = self._keys.get(hour)
        if key is None:
            key = blake2s(hour.to_bytes(8, "big", signed=True), key=self._master, person=_DERIVED).digest()
            self._keys = {known: derived for known, derived in self._keys.items() if abs(known - hour) == 1}
            self._keys[hour] = key
        text = slot.to_bytes(8, "big", signed=True) + unmapped(host).encode()
        return bytes((slot & 0xFF,)) + blake2s(text, key=key, digest_size=_MAC_SIZE).digest()


def read_token_key(path: Path) -> bytes:
    """Return the master secret in a file, for :class:`AddressTokens` of all processes that shall know one another's.

    Args:
        path: A file with ``MIN_KEY_SIZE`` random bytes or more, or as much text, that not everybody can read.

    Raises:
        LocalError: It cannot be read, is too short or too large, or everybody can read it; one line that says what to
            do.
    """
    make = f"make one by: (umask 077; head -c {MIN_KEY_SIZE} /dev/urandom > FILE)"
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise LocalError(f"the token key file {path} cannot be read ({error.strerror}); {make}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise LocalError(f"the token key file {path} is no file; {make}")
        if os.name == "posix" and mode & stat.S_IRWXO:
            raise LocalError(f"the token key file {path} is open to everybody, and so no secret; run: chmod o= {path}")
        key = os.read(descriptor, _MAX_KEY_FILE + 1)
    finally:
        os.close(descriptor)
    if not MIN_KEY_SIZE <= len(key) <= _MAX_KEY_FILE:
        size = f"{len(key):,} bytes" if key else "nothing in it"
        reason = "too short" if len(key) < MIN_KEY_SIZE else "too large for one"
        raise LocalError(f"the token key file {path} is {reason} ({size}); {make}")
    return key
