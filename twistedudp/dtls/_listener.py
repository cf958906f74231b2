"""What a server does with a ClientHello: no memory for anybody who has not returned a cookie.

Theory of operation: one Connection looks at all of them (``DTLSv1_listen``). Where the cookie is missing or wrong it
answers with one (HelloVerifyRequest) and remembers nothing; where it is right, this Connection becomes the session, and
the next ClientHello meets a new one. A ClientHello that OpenSSL refuses takes its Connection with it, so that nothing
of it is left for the next.

A Connection made before the context was reloaded is replaced, so that no session begins with a certificate of
yesterday.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ._cookies import CookieJar
from ._facts import PeerFacts
from ._half_open import HelloRate
from ._session import Session, new_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..address import Address
    from ._limits import DTLSLimits, DTLSStats
    from ._session import Connection, Policy

__all__ = ["Listener"]


class Listener:
    """Looks at ClientHellos.

    Args:
        policy: Makes Connections.
        limits: The bounds.
        stats: What to count in.
        random_bytes: Where keys of cookies come from.
        now: The time in seconds.
    """

    __slots__ = (
        "_connection",
        "_cookies",
        "_facts",
        "_generation",
        "_limits",
        "_numbers",
        "_policy",
        "_rate",
        "_stats",
    )

    def __init__(
        self,
        policy: Policy,
        limits: DTLSLimits,
        stats: DTLSStats,
        random_bytes: Callable[[int], bytes],
        *,
        now: float,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._stats = stats
        self._cookies = CookieJar(random_bytes, now=now)
        self._rate = HelloRate(limits, now)
        self._numbers = count(1)
        self._connection: Connection | None = None
        self._facts = PeerFacts(self._cookies)
        self._generation = policy.generation

    def hear(
        self,
        hello: bytes,
        random: bytes,
        address: Address,
        now: float,
        answer: Callable[[Sequence[bytes], Address], None],
    ) -> Session | None:
        """Look at a ClientHello.

        Args:
            hello: The datagram, of at most ``LARGEST_HELLO`` bytes.
            random: Its random.
            address: Where it came from.
            now: The time in seconds.
            answer: Sends datagrams.

        Returns:
            A session that has taken the ClientHello in, whose first flight is to be made; ``None`` where it brought no
            cookie, which is answered and counted here.
        """
        if not self._rate.allows(now):
            self._stats.dropped["hello_rate"] += 1
            return None
        connection, facts = self._ready()
        facts.peer, facts.random, facts.now = address, random, now
        connection.bio_write(hello)
        try:
            connection.DTLSv1_listen()
        except SSL.WantReadError:
            self._answer(connection, address, answer)
            return None
        except SSL.Error:
            self._connection = None
            connection.set_app_data(None)
            self._stats.dropped["not_a_hello"] += 1
            return None
        self._connection = None
        mtu = self._limits.mtu
        return Session(connection, facts, address, random=random, number=next(self._numbers), mtu=mtu, now=now)

    def _answer(
        self, connection: Connection, address: Address, answer: Callable[[Sequence[bytes], Address], None]
    ) -> None:
        try:
            request = connection.bio_read(self._limits.mtu)
        except SSL.Error:
            self._stats.dropped["not_a_hello"] += 1
            return
        self._stats.hellos_answered += 1
        answer((request,), address)

    def _ready(self) -> tuple[Connection, PeerFacts]:
        if self._connection is None or self._generation != self._policy.generation:
            self._generation = self._policy.generation
            self._facts = PeerFacts(self._cookies)
            self._connection = new_connection(self._policy, self._facts, self._limits.mtu)
        return self._connection, self._facts
