"""What OpenSSL's callbacks must know of the peer at hand, and what they tell about it.

Theory of operation: OpenSSL gives a callback nothing but the Connection. So each Connection has one of these as its
application data; whoever drives the Connection fills it in before (the address and the random of the ClientHello, which
the cookie is bound to) and reads it afterwards (why the peer's certificate was refused).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..address import Address
    from ._cookies import CookieJar

__all__ = ["PeerFacts"]


class PeerFacts:
    """One Connection's peer.

    Attributes:
        cookies: What makes and knows cookies; ``None`` in the client role.
        peer: The address of the datagram at hand.
        random: The client random of the ClientHello at hand.
        now: The time, in seconds.
        refusal: Why the certificate was refused: OpenSSL's number (x509_vfy.h); 0 for none, negative for our own.
        name: The name in the certificate that was refused by the list.
    """

    __slots__ = ("cookies", "name", "now", "peer", "random", "refusal")

    def __init__(self, cookies: CookieJar | None = None) -> None:
        self.cookies = cookies
        self.peer: Address = ("", 0)
        self.random = b""
        self.now = 0.0
        self.refusal = 0
        self.name: str | None = None
