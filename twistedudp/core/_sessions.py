"""What a requester does where its servers are secure sessions, which come and go while the server stays.

Theory of operation: to the core a session is a server with an address of its own. What differs from servers is here: a
session can be left for another while requests are under way in it, there is one local socket for all, and whether it
lives is asked by a request that nobody waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._msgpack import encode_request

if TYPE_CHECKING:
    from ..address import Address
    from ..errors import TwistedUDPError
    from ._dispatch import Dispatch
    from ._echoes import EchoTable
    from ._pending import PendingRequest

__all__ = ["SessionRequests"]


class SessionRequests:
    """The part of a requester."""

    _waiting: dict[int, PendingRequest]
    _dispatch: Dispatch
    _echoes: EchoTable

    def peer_left(self, peer: Address, error: TwistedUDPError | None, *, now: float) -> None:
        """Learn that an address is not to be used any more, though it was not refused.

        Requests that may run twice, or have surely not run, are sent to another address, as soon as one is known. The
        others fail with ``error``; with none they go on there, since their answers may still come.
        """
        self._dispatch.leave(peer, error)
        self._dispatch.drain(now)

    def last_deadline(self, peer: Address) -> float | None:
        """Return when the last of the requests that are under way to an address ends, ``None`` where none is."""
        there = (request for request in self._waiting.values() if request.server and request.server.address == peer)
        return max((request.deadline for request in there), default=None)

    def echo_socket(self, payload: bytes) -> int:
        """Return the local socket by which to know a datagram that may answer a raw echo, where all share one."""
        return self._echoes.first_waiting(payload) if self._echoes.waiting else 0

    def unasked_request(self) -> tuple[int, bytes]:
        """Return a request that any server answers and whose answer nobody waits for, behind its msgid."""
        msgid = self._next_msgid()
        return msgid, encode_request(msgid, "echo", (None,))

    def _next_msgid(self) -> int:
        raise AssertionError("the requester has it")  # which excludes it from coverage: never called
