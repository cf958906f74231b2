"""Which waiting requests an ICMP error quotes.

Theory of operation: the error carries the beginning of what was sent, perhaps cut short by a router. Where several
datagrams were handed to the kernel in one buffer (UDP_SEGMENT) and did not leave this machine, it quotes the beginning
of the buffer, which is several datagrams in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._msgpack import peek_msgid_untrusted
from ..messages import TYPE_REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..address import Address
    from ._echoes import EchoTable
    from ._pending import PendingRequest

__all__ = ["quoted_requests_untrusted"]


def quoted_requests_untrusted(
    quoted: bytes, peer: Address, socket: int, waiting: dict[int, PendingRequest], echoes: EchoTable
) -> Iterator[PendingRequest]:
    """Yield the waiting requests that an ICMP error quotes.

    Args:
        quoted: What it quotes, of any origin.
        peer: Where that was sent to.
        socket: The local socket that it had left from.
        waiting: The waiting requests by msgid.
        echoes: The raw echoes among them.
    """
    while True:
        msgid = peek_msgid_untrusted(quoted, TYPE_REQUEST)
        request = None if msgid is None else waiting.get(msgid)
        if request is None or request.socket != socket or not _agree(quoted, request.payload):
            request = echoes.quoted_untrusted(quoted, peer, socket)
        if request is None:
            return
        yield request
        quoted = quoted[len(request.payload) :]
        if not quoted:
            return


def _agree(quoted: bytes, payload: bytes) -> bool:
    return payload.startswith(quoted) or quoted.startswith(payload)
