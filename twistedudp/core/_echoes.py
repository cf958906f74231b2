"""The raw echoes that are waiting: datagrams without an id, known by their bytes alone.

Theory of operation: RFC 862 sends back what it gets and nothing else, so two equal datagrams in flight could not be
told apart, and the answer to a lost one would be taken for another's. Equal payloads that wait at once therefore leave
from different local sockets, and the answer is known by the socket that it came to.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from ..address import LARGEST_PAYLOAD
from ..errors import DatagramTooLarge, TooManyRequests

if TYPE_CHECKING:
    from ..address import Address
    from ._pending import PendingRequest

__all__ = ["MAX_EQUAL_ECHOES", "EchoTable"]

MAX_EQUAL_ECHOES: Final = 256
"""Raw echoes of one payload that may wait at once: each needs a local port of its own, and ports are scarce."""

_MIN_QUOTED: Final = 8
"""Bytes of payload that an ICMP error must quote to be matched by its beginning alone."""


class EchoTable:
    """The waiting raw echoes.

    Args:
        max_payload: Bytes that the transport carries in one datagram.

    Attributes:
        waiting: The echoes by socket and bytes; to be looked at, not changed.
    """

    def __init__(self, max_payload: int = LARGEST_PAYLOAD) -> None:
        self._max_payload = max_payload
        self.waiting: dict[tuple[int, bytes], PendingRequest] = {}
        self._users: Counter[int] = Counter()
        # By their first bytes, since an ICMP error may quote no more, and anybody can forge many of these.
        self._beginnings: dict[tuple[int, bytes], dict[bytes, PendingRequest]] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def free_socket(self, payload: bytes) -> int:
        """Return the first local socket from which no equal payload is waiting.

        Raises:
            DatagramTooLarge: More bytes than a datagram carries.
            TooManyRequests: There is none left.
        """
        if len(payload) > self._max_payload:
            raise DatagramTooLarge(len(payload), self._max_payload, can_be_raised=False)
        for socket in range(MAX_EQUAL_ECHOES):
            if (socket, payload) not in self.waiting:
                return socket
        raise TooManyRequests(f"{MAX_EQUAL_ECHOES} echoes of these same bytes are waiting, the most allowed")

    def first_waiting(self, payload: bytes) -> int:
        """Return the first local socket from which these bytes are waiting; 0 where they wait from none."""
        if (0, payload) in self.waiting:
            return 0
        return next((socket for socket in self._users if (socket, payload) in self.waiting), 0)

    def add(self, request: PendingRequest) -> None:
        """Enter an echo under its socket and bytes."""
        self.waiting[request.socket, request.payload] = request
        self._users[request.socket] += 1
        beginning = request.socket, request.payload[:_MIN_QUOTED]
        self._beginnings.setdefault(beginning, {})[request.payload] = request

    def remove(self, request: PendingRequest) -> bool:
        """Forget an echo; tell whether it leaves behind a socket of its own that no other echo uses."""
        del self.waiting[request.socket, request.payload]
        beginning = request.socket, request.payload[:_MIN_QUOTED]
        alike = self._beginnings[beginning]
        del alike[request.payload]
        if not alike:
            del self._beginnings[beginning]
        self._users[request.socket] -= 1
        if self._users[request.socket]:
            return False
        del self._users[request.socket]
        return request.socket > 0

    def uses(self, socket: int) -> bool:
        """Tell whether an echo is waiting on a local socket."""
        return socket in self._users

    def answered_untrusted(self, payload: bytes, peer: Address, socket: int) -> PendingRequest | None:
        """Return the echo that a datagram answers, or ``None``."""
        echo = self.waiting.get((socket, payload))
        return echo if echo is not None and peer in echo.asked else None

    def quoted_untrusted(self, quoted: bytes, peer: Address, socket: int) -> PendingRequest | None:
        """Return the echo that an ICMP error quotes, perhaps cut short, or ``None``."""
        echo = self.answered_untrusted(quoted, peer, socket)
        if echo is not None or len(quoted) < _MIN_QUOTED:
            return echo
        for payload, candidate in self._beginnings.get((socket, quoted[:_MIN_QUOTED]), {}).items():
            if payload.startswith(quoted) and peer in candidate.asked:
                return candidate
        return None
