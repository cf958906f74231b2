"""The responses that are to be sent, and those that are not until their peer has proved its address.

Theory of operation: where there is a :class:`ReplyBudget`, a response that is too much for an address that may be
forged is kept in the response cache, and the error ``unproven_address`` sent in its place, or nothing where not even
this is allowed. The client proves its address and repeats its request, to which the kept response then is the answer,
as it is to any request that repeats: see :mod:`twistedudp.core._amplification`. A client that has asked for several
things at once was told so for one of them; what was withheld of the others leaves when its proof has come, so that it
need not find out by its timeouts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from .._msgpack import peek_msgid_untrusted
from ..messages import CODE_UNPROVEN_ADDRESS, TYPE_RESPONSE
from ._amplification import ALLOWANCE, FACTOR, unproven_error

if TYPE_CHECKING:
    from ..address import Address
    from ._amplification import ReplyBudget
    from ._responder import IncomingRequest
    from ._responder_stats import ResponderStats
    from ._response_cache import ResponseCache

__all__ = ["MAX_OWED", "MAX_WAITING", "MAX_WAITING_HOSTS", "PROOF_TIME", "Outbox"]

MAX_WAITING: Final = 16
"""Responses to one host that leave when its proof has come; four times the window that our clients begin with."""

MAX_WAITING_HOSTS: Final = 4096
"""Hosts of which it is known which responses wait, not the responses themselves: 8 MiB. The oldest makes room; who is
forgotten has to ask again."""

MAX_OWED: Final = 256
"""Kept responses that a server goes on waiting with when it begins to stop: the latest."""

PROOF_TIME: Final = 1.0
"""Seconds that a client takes to prove its address at most: a round trip. Who has not come by then is none, or has lost
a datagram."""


class Outbox:
    """What a server sends.

    Args:
        stats: The server's counters.
        cache: Its response cache.
        budget: What bounds the responses to addresses that may be forged; ``None`` for no bound.

    Attributes:
        budget: It; the owner may set it to ``None`` when it learns that nobody can forge an address.
        closing: Whether the server stops: short errors then have the allowance of ``unproven_address``.
        datagrams: What is to be sent, in order, with its peers; the owner takes it.
        owed: The requests, each with its peer, whose responses were kept and not sent since, with when that was, in
            order: the last ``MAX_OWED`` of them, and while the server is closing all that ran when that began.
    """

    __slots__ = ("_cache", "_stats", "_waiting", "budget", "closing", "datagrams", "owed")

    def __init__(self, stats: ResponderStats, cache: ResponseCache, budget: ReplyBudget | None) -> None:
        self.budget = budget
        self.closing = False
        self.datagrams: list[tuple[bytes, Address]] = []
        self.owed: OrderedDict[tuple[bytes, Address], float] = OrderedDict()
        self._stats = stats
        self._cache = cache
        self._waiting: OrderedDict[str, dict[tuple[Address, bytes], None]] = OrderedDict()

    def answer(self, incoming: IncomingRequest, payload: bytes) -> None:
        """Send the response to a request, or keep it; that of one that was not run is not kept."""
        if incoming.cached is not None:
            self._cache.store(incoming.cached, payload)
        budget = self.budget
        if budget is None or (len(payload) <= FACTOR * len(incoming.payload) and not budget.debts):  # as usual
            self.datagrams.append((payload, incoming.peer))
        elif not self.post(payload, incoming.peer, incoming.payload) and incoming.done:
            self._owe(incoming.payload, incoming.peer, budget.now)
            if incoming.cached is None:  # that of an idempotent method is kept as well, as far as there is room
                self._cache.keep(incoming.payload, incoming.peer, payload, budget.now)

    def post(self, payload: bytes, peer: Address, request: bytes) -> bool:
        """Send a response, if its peer may be sent so much; tell whether that was done.

        Args:
            payload: The response.
            peer: Whom to.
            request: The datagram that has asked for it, this time.
        """
        budget = self.budget
        unused = FACTOR * len(request) - len(payload)
        if budget is None or unused >= 0 or budget.is_proven(peer[0]):
            if budget is not None and budget.debts and unused > 0:
                budget.pay(peer[0], unused)
            self._send(payload, peer, request)
            return True
        if self.closing and len(payload) <= ALLOWANCE:  # a proof would come too late
            if budget.may_refuse(peer[0], len(request), len(payload)):
                self._send(payload, peer, request)
                return True
            self._stats.withheld += 1
            self._wait(peer, request)
        else:
            msgid = peek_msgid_untrusted(payload, TYPE_RESPONSE)
            assert msgid is not None  # noqa: S101  # it is a response of ours
            self.ask_for_proof(msgid, peer, request)
        return False

    def close(self, now: float) -> None:
        """Learn that the server begins to stop: what was kept long ago is owed to nobody."""
        self.closing = True
        while self.owed and next(iter(self.owed.values())) + PROOF_TIME < now:
            self.owed.popitem(last=False)

    def is_stranger(self, peer: Address) -> bool:
        """Tell whether an address may have been forged."""
        return self.budget is not None and not self.budget.is_proven(peer[0])

    def ask_for_proof(self, msgid: int, peer: Address, request: bytes) -> None:
        """Answer a stranger's request with the error that tells how to prove the address, if it may be sent so much.

        Args:
            msgid: The request's number.
            peer: Who sent it.
            request: The datagram.
        """
        budget = self.budget
        assert budget is not None  # noqa: S101  # else there are no strangers
        if budget.may_refuse(peer[0], len(request)):
            self._stats.errors[CODE_UNPROVEN_ADDRESS] += 1
            self._waiting.get(peer[0], {}).pop((peer, request), None)  # it will be repeated
            self.datagrams.append((unproven_error(msgid, budget.tokens.token_of(peer[0])), peer))
        else:
            self._stats.withheld += 1
            self._wait(peer, request)

    def _send(self, payload: bytes, peer: Address, request: bytes) -> None:
        self.datagrams.append((payload, peer))
        if self.owed:
            self.owed.pop((request, peer), None)

    def _owe(self, request: bytes, peer: Address, now: float) -> None:
        if not self.closing and len(self.owed) >= MAX_OWED:
            self.owed.popitem(last=False)
        self.owed[request, peer] = now
        self.owed.move_to_end((request, peer))

    def _wait(self, peer: Address, request: bytes) -> None:
        """Remember which request was not answered at all, until its host has proved its address."""
        waiting = self._waiting.get(peer[0])
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING_HOSTS:
                self._waiting.popitem(last=False)
            waiting = self._waiting[peer[0]] = {}
        if len(waiting) < MAX_WAITING:
            waiting[peer, request] = None

    def nothing_to_send(self, peer: Address, request: bytes) -> None:
        """Learn of a request that repeats while it is running: what it brings pays debts."""
        if self.budget is not None and self.budget.debts:
            self.budget.pay(peer[0], FACTOR * len(request))

    def prove_untrusted(self, token: object, peer: Address) -> None:
        """Take a proof of any origin; it is counted. A valid one lets go what was withheld; no other draws anything."""
        if self.budget is None:
            self._stats.rejected["unneeded_proof"] += 1
        elif self.budget.prove_untrusted(token, peer[0]):
            self._stats.proofs += 1
            for asker, request in self._waiting.pop(peer[0], ()):
                kept = self._cache.repeated(request, asker, self.budget.now)
                if kept is not None and kept.response is not None:
                    self._stats.released += 1
                    self._send(kept.response, asker, request)
        else:
            self._stats.rejected["bad_token"] += 1
