"""The client's answer to a server that wants its address proven.

Theory of operation: a server that cannot know whether a request's source is forged answers it with the error
``unproven_address`` where the response is too large, and keeps the response. The client sends the error's token back in
the notification ``rpc.prove``, and its request again at once, with the same bytes and from the same port; then comes
the response. From now on each further try of this request has the proof before it, for any of these datagrams may be
lost or overtaken. So an error with the same token draws nothing more at once: what was sent may be under way still,
and the next try comes when its time does. Only the server that the request waits for is answered, and that a limited
number of times: then the error is the call's outcome, as any other is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._msgpack import encode_notification
from ..messages import PROVE_METHOD

if TYPE_CHECKING:
    from ..address import Address
    from ._dispatch import Dispatch
    from ._pending import PendingRequest

__all__ = ["MAX_PROOFS", "prove_untrusted"]

MAX_PROOFS: Final = 8
"""Proofs for one request, each with another token. Tokens change every few minutes, and from server to server; whoever
sends eight of them in one call is playing."""

_MAX_TOKEN_SIZE: Final = 32
"""Bytes; ours have 16."""


def prove_untrusted(request: PendingRequest, token: object, peer: Address, dispatch: Dispatch, now: float) -> bool:
    """Prove the client's address to a server that has answered a request with ``unproven_address``.

    Args:
        request: The request, which waits.
        token: What the server sent with the error.
        peer: The server's address; the request was sent there.
        dispatch: What sends.
        now: The time, in seconds.

    Returns:
        Whether that is how to deal with the error; if not, it is the request's outcome.
    """
    if type(token) is not bytes or not 1 <= len(token) <= _MAX_TOKEN_SIZE or request.proofs >= MAX_PROOFS:
        return False
    server = request.server
    if server is not None and server.address == peer:  # otherwise it has gone on to another, which will answer
        proof = peer, encode_notification(PROVE_METHOD, (token,))
        if proof != request.proof:
            request.proofs += 1
            request.proof = proof
            dispatch.transmit(request, server, now, request.interval)
    return True
