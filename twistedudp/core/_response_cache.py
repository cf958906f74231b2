"""The requests that were run lately and their responses, so that a repeated request does not run again.

Theory of operation: a client that hears nothing sends the same bytes again from the same port, because the request or
its response was lost; which of them cannot be known. So the server keeps each request that it has let in. A repeat,
known by the peer's address and port and by its bytes, gets the stored response, or nothing while the first run still
goes on, whose response will answer it too. An entry is kept until nobody has asked for it for ``max_age`` seconds,
several times what lies between two tries of a client. It is never given up sooner: where the cache is full, a new
request is not let in, rather than run without this protection.

Whoever forges addresses could fill it, and have everybody else refused. So strangers, whose addresses may be forged,
have one part in :data:`STRANGERS_SHARE` of it between them. Who has proved its address has all of it.

The table is in the order of the last sights, and expiry looks at its front only. It is an ``OrderedDict``, since a dict
whose front entries were removed is searched from its very beginning each time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from ..address import Address

__all__ = ["STRANGERS_SHARE", "CachedResponse", "ResponseCache"]

STRANGERS_SHARE: Final = 32
"""What is kept for strangers is at most one part in so many: by default 8,192 requests, and 2 MiB, in all some 6 MiB of
memory under any flood; 273 calls a second for clients that cannot prove their address."""


class CachedResponse(msgspec.Struct, eq=False, gc=False):
    """One request that was let in.

    A msgspec Struct, because one is made for each of them, and unknown to the garbage collector, which would look at
    each of them again and again: it refers to nothing that can refer to it.

    Attributes:
        key: The peer and the request's bytes.
        seen: When it last arrived, in seconds.
        response: The response's bytes; ``None`` while the request is running.
        strange: Whether the peer's address may have been forged.
    """

    key: tuple[Address, bytes]
    seen: float
    response: bytes | None = None
    strange: bool = False


class ResponseCache:
    """The requests of the last ``max_age`` seconds.

    Args:
        max_entries: Requests kept at most; each takes 500 bytes or so beside its datagrams.
        max_size: Bytes of requests and responses from which on no request is let in; those that run already still add
            their responses.
        max_age: Seconds for which a request is kept after its last sight.

    Attributes:
        size: Bytes of the requests and responses that are kept.
        strange_size: Bytes of those that are strangers'.
    """

    def __init__(self, *, max_entries: int, max_size: int, max_age: float) -> None:
        self.size = 0
        self.strange_size = 0
        self._strange_entries = 0
        self._max_entries = max_entries
        self._max_size = max_size
        self._max_age = max_age
        self._quiet_until = -math.inf  # before this, no entry can have got too old
        self._entries: OrderedDict[tuple[Address, bytes], CachedResponse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def repeated(self, payload: bytes, peer: Address, now: float) -> CachedResponse | None:
        """Return the entry of a request that was let in before, which counts as a sight of it, or ``None``."""
        entry = self._entries.get((peer, payload))
        if entry is None:
            return None
        self._entries.move_to_end(entry.key)
        if entry.seen + self._max_age < now and entry.response is not None:
            self._remove(entry)
            return None
        entry.seen = now
        return entry

    def admit(self, payload: bytes, peer: Address, now: float, *, strange: bool = False) -> CachedResponse | None:
        """Make an entry for a request that is to be run, or return ``None`` where there is no room for it.

        Args:
            payload: The request.
            peer: Who sent it.
            now: The time.
            strange: Whether the peer's address may have been forged.
        """
        if now > self._quiet_until:
            self._expire(now)
        if len(self._entries) >= self._max_entries or self.size >= self._max_size:
            return None
        if strange and self._strangers_full():
            return None
        return self._add(payload, peer, now, strange=strange)

    def store(self, entry: CachedResponse, response: bytes) -> None:
        """Keep the response of a request that has run."""
        entry.response = response
        self.size += len(response)
        if entry.strange:
            self.strange_size += len(response)

    def keep(self, payload: bytes, peer: Address, response: bytes, now: float) -> None:
        """Keep the response of a stranger's request that may run twice, so that it need not.

        That is done while half of the strangers' room is free. The other half is for requests that must not run twice.
        """
        if now > self._quiet_until:
            self._expire(now)
        is_free = not self._strangers_full(2, len(response)) and 2 * len(self._entries) < self._max_entries
        if is_free and (peer, payload) not in self._entries:
            self.store(self._add(payload, peer, now, strange=True), response)

    def _strangers_full(self, part: int = 1, more: int = 0) -> bool:
        """Tell whether strangers have their share, or one part of it, with so many more bytes."""
        share = STRANGERS_SHARE * part
        return (
            share * self._strange_entries >= self._max_entries or share * (self.strange_size + more) >= self._max_size
        )

    def _add(self, payload: bytes, peer: Address, now: float, *, strange: bool) -> CachedResponse:
        entry = CachedResponse((peer, payload), now, None, strange)
        self._entries[entry.key] = entry
        self.size += len(payload)
        if strange:
            self._strange_entries += 1
            self.strange_size += len(payload)
        return entry

    def room_in(self, now: float) -> float:
        """Return after how many seconds the oldest entry makes room, if nobody asks for it; 0 where there is none."""
        oldest = next(iter(self._entries.values()), None)
        return 0.0 if oldest is None else max(0.0, oldest.seen + self._max_age - now)

    def _expire(self, now: float) -> None:
        oldest = now - self._max_age
        while self._entries:
            entry = next(iter(self._entries.values()))
            if entry.seen >= oldest:
                self._quiet_until = entry.seen + self._max_age
                return
            if entry.response is None:  # it runs still, and must not be started again
                entry.seen = now
                self._entries.move_to_end(entry.key)
            else:
                self._remove(entry)

    def _remove(self, entry: CachedResponse) -> None:
        del self._entries[entry.key]
        size = len(entry.key[1]) + len(entry.response or b"")
        self.size -= size
        if entry.strange:
            self._strange_entries -= 1
            self.strange_size -= size
