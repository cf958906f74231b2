"""The largest payload that a path to a server and back carries whole.

Theory of operation: probes of one size at a time, each an ordinary probe (see docs/wire.md) with "don't fragment" set.
Linux has two ways to set it. IP_PMTUDISC_DO also refuses what exceeds the path MTU that the kernel believes in; that
may be ten minutes old, or forged. So it is IP_PMTUDISC_PROBE (ip(7)): every size up to the own device's goes out, and
what the kernel believes, like each ICMP "fragmentation needed" (RFC 1191) or "packet too big" (RFC 8201) that comes, is
a hint: it is tried at once, and then one byte more. Where nobody tells (a black hole, RFC 2923) silence has to be told
from loss: a size counts as too large after as many unanswered tries as :func:`~.probing._search.tries_for` says.

At the end the size found has to pass several times, and one byte more must not. Then a larger datagram is sent without
"don't fragment": whether fragments pass. An answer proves both ways, but the server's own answer may come in fragments
unseen. What a server does not take in, or cuts off, is no limit of the path, and is told apart as far as possible.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from . import transport
from ._size_probes import SizeExchange, headers_to, kernel_mtu
from .address import canonical, format_address, is_ipv6, max_payload
from .probing import SMALLEST_PROBE
from .probing._search import SizeSearch, tries_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._size_probes import Outcome
    from .address import Address

__all__ = ["CONFIRMATIONS", "MOST_ROUNDS", "SizeStep", "SizeSweep", "sweep_size"]

CONFIRMATIONS: Final = 3
"""How often the size found has to pass again."""

MOST_ROUNDS: Final = 4
"""How often the search is taken up again where its result does not hold; a path that changes so often has no size."""

MOST_STEPS: Final = 120
"""Sizes tried at most: seventeen halvings for the whole range, several times."""

FIRST_PROBES: Final = 10
"""Probes of the smallest size, from which loss and round trip become known."""

_LEAST_BUFFER: Final = 512  # bytes; smaller ones nobody has
_BEYOND: Final = 64  # bytes more than passes whole, to see whether fragments do


@dataclass(frozen=True)
class SizeStep:
    """One size tried.

    Attributes:
        stage: ``"search"``; ``"check"`` of the size found and of one byte more; ``"fragments"``, without DF.
        size: Bytes of the payload.
        outcome: ``"passed"``; ``"silent"``; ``"too large here"`` for the own machine; ``"too large there"`` as a router
            says; ``"cut"`` where the answer has another size; ``"unreachable"``; ``"not sent"`` where the own machine
            refuses, time and again.
        tries: Probes sent.
        rtt: Seconds of the first round trip; None where there was none.
        detail: What is known beyond, in words; empty where nothing is.
        passes: The largest size that has passed by now; None where none has.
        too_large: The least size that has not, or is not tried.
    """

    stage: str
    size: int
    outcome: str
    tries: int
    rtt: float | None
    detail: str
    passes: int | None
    too_large: int

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class SizeSweep:  # budget: they are what was found
    """What a sweep over sizes has found.

    Attributes:
        address: The server's address and port.
        largest: Bytes of the largest payload that passes whole; None where not even the smallest does.
        path_mtu: Bytes of the largest packet, with its IP and UDP headers; None where something other than the path
            ends it. Where ``limit`` is ``"none"`` the path may carry more.
        limit: What ends it: ``"interface"``, the own one; ``"router"``, which says so by ICMP; ``"silence"``: larger
            ones vanish; ``"server"``, which takes in no more; ``"none"``, for the largest one asked for passes;
            ``"this machine"``, which does not send larger ones, or none; ``"no answer"`` at all.
        interface_mtu: Bytes, where the own interface refused a size; None otherwise.
        fragments_pass: Whether larger datagrams pass in fragments; None where that could not be told.
        cut_to: Bytes to which the server cuts larger ones; None where it does not.
        both_ways: False where the server answers with short errors: then only the way there is known.
        verified: Whether the largest size passed each time again, and one byte more did not.
        detail: In words, why nothing answered, or what this machine does; empty otherwise.
        duration: Seconds that the sweep took.
        probes: Probes sent.
        steps: Each size tried, in order.
    """

    address: str
    largest: int | None
    path_mtu: int | None
    limit: str
    interface_mtu: int | None
    fragments_pass: bool | None
    cut_to: int | None
    both_ways: bool
    verified: bool
    detail: str
    duration: float
    probes: int
    steps: tuple[SizeStep, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as the object that ``udpecho ping --sweep-size --json`` prints."""
        return {"format": 1, **asdict(self)}


def sweep_size(
    reactor: Any,
    peer: Address,
    *,
    timeout: float = 1.0,
    least: int = SMALLEST_PROBE,
    most: int | None = None,
    interface: str = "",
    on_step: Callable[[SizeStep], object] | None = None,
) -> Deferred[SizeSweep]:
    """Find the largest payload that passes whole.

    Args:
        reactor: Any reactor, real or simulated. "Don't fragment" is set on Linux; elsewhere what IP carries in
            fragments counts as passing.
        peer: The server's numeric address and its port; any echo server, or an rpc server of ours.
        timeout: Seconds for which an answer is waited for at most.
        least: Bytes of the smallest payload tried, from :data:`~twistedudp.probing.SMALLEST_PROBE` on.
        most: Bytes of the largest; None for the largest that UDP carries.
        interface: The local address to send from; empty for what the kernel chooses.
        on_step: Called with each step as it ends.

    Returns:
        A Deferred that fires with a :class:`SizeSweep`, whatever the network does; cancelling it ends the sweep.

    Raises:
        ValueError: ``least`` is too small, or more than ``most``.
        twisted.internet.error.CannotListenError: There is no port to send from.
    """
    largest = max_payload(peer[0]) if most is None else min(most, max_payload(peer[0]))
    if not SMALLEST_PROBE <= least <= largest:
        raise ValueError(f"least={least}, most={largest}: a probe has {SMALLEST_PROBE} bytes or more")
    peer = canonical(peer[0]), peer[1]
    exchange = SizeExchange(reactor, peer, timeout, max_payload(peer[0]))
    port: Any = transport.listen(reactor, 0, exchange, interface or ("::" if is_ipv6(peer[0]) else ""))
    exchange.fragment(allowed=False)
    believed = kernel_mtu(peer) if hasattr(port, "getHandle") else None
    sweep = _Sweep(exchange, peer, SizeSearch(least, largest), on_step)
    return Deferred.fromCoroutine(sweep.run(least, believed))


class _Sweep:  # budget: they are what is found out on the way
    """A sweep while it runs."""

    def __init__(
        self, exchange: SizeExchange, peer: Address, search: SizeSearch, on_step: Callable[[SizeStep], object] | None
    ) -> None:
        self._exchange = exchange
        self._peer = peer
        self._headers = headers_to(peer)
        self._search = search
        self._on_step = on_step
        self._steps: list[SizeStep] = []
        self._outcomes: dict[int, str] = {}
        self._told: set[int] = set()
        self._interface_mtu: int | None = None
        self._cut_to: int | None = None
        self._heeds = True
        exchange.passed_late = self._passed

    async def run(self, least: int, believed: int | None) -> SizeSweep:
        """Find the size.

        Args:
            least: Bytes of the smallest payload.
            believed: The path MTU that the kernel believes in; None where it does not say.
        """
        began = self._exchange.seconds()
        verified, fragments_pass = False, None
        try:
            await self._try("search", least, FIRST_PROBES, each=True)
            if believed is not None and self._search.largest is not None:
                self._search.hinted(believed - self._headers)
            for _ in range(MOST_ROUNDS if self._search.largest is not None else 0):
                await self._narrow()
                verified = await self._holds()
                if verified or self._search.largest is None:
                    break
            fragments_pass = await self._fragments_pass()
        finally:
            await self._exchange.close()
        limit, largest = self._limit(), self._search.largest
        if limit == "silence" and not fragments_pass and _is_buffer_size(largest):
            limit = "server"
        return SizeSweep(
            address=format_address(self._peer),
            largest=largest,
            path_mtu=None if largest is None or limit in ("server", "this machine") else largest + self._headers,
            limit=limit,
            interface_mtu=self._interface_mtu,
            fragments_pass=fragments_pass,
            cut_to=self._cut_to,
            both_ways=self._exchange.both_ways,
            verified=verified,
            detail=self._why(limit),
            duration=self._exchange.seconds() - began,
            probes=self._exchange.sent,
            steps=tuple(self._steps),
        )

    async def _narrow(self) -> None:
        """Try what the search wants to know."""
        while len(self._steps) < MOST_STEPS:
            size = self._search.next_size()
            if size is None:
                break
            await self._try("search", size, self._tries())

    async def _holds(self) -> bool:
        """Return whether the size found passes again, and one byte more does not, whatever ICMP has said."""
        size = self._search.largest
        if size is None:
            return False
        for _ in range(CONFIRMATIONS):
            if await self._try("check", size, self._tries()) != "passed":
                return False
        if size >= self._search.most:
            return True
        return await self._try("check", size + 1, self._tries(), heed=False) != "passed"

    async def _fragments_pass(self) -> bool | None:
        """Send a datagram that needs fragments; return whether it passes, None where that does not tell."""
        limit, largest = self._limit(), self._search.largest
        if limit == "server" and self._interface_mtu is not None:  # a cut answer proves as much
            size = self._interface_mtu - self._headers + _BEYOND
        elif largest is not None and limit in ("interface", "router", "silence"):
            # Over IPv6 only the sender cuts, and Linux does so with what is too large for its own device alone.
            own = (self._interface_mtu or 0) if is_ipv6(self._peer[0]) else 0
            size = max(largest, own - self._headers) + _BEYOND
        else:
            return None
        if size > max_payload(self._peer[0]):
            return None
        self._exchange.fragment(allowed=True, mtu=None if largest is None else largest + self._headers)
        # Two fragments are lost twice as often as one packet.
        tries = tries_for(2 * self._exchange.unanswered, self._exchange.of_passing)
        outcome = await self._exchange.attempt(size, tries, heed=False)
        self._note("fragments", size, outcome)
        if outcome.what in ("passed", "cut"):
            return True
        return False if limit in ("interface", "router") else None

    def _tries(self) -> int:
        return tries_for(self._exchange.unanswered, self._exchange.of_passing)

    async def _try(self, stage: str, size: int, tries: int, *, each: bool = False, heed: bool = True) -> str:
        """Try a size, and take note of what comes of it."""
        outcome = await self._exchange.attempt(size, tries, each=each, heed=heed and self._heeds)
        mtu = self._exchange.told_mtu()
        if outcome.what == "passed":
            self._passed(size)
        elif outcome.what == "too large here" and mtu is not None and mtu - self._headers < size:
            self._interface_mtu = mtu
            self._search.limited(mtu - self._headers)
        else:
            self._search.failed(size)
            if outcome.what != "silent":
                self._outcomes[size] = outcome.what
        if outcome.what == "too large there" and mtu is not None and self._heeds:
            self._told.add(mtu - self._headers)
            self._search.hinted(mtu - self._headers)
        if outcome.what == "cut":
            self._cut_to = outcome.answered
            self._search.hinted(outcome.answered)
        self._note(stage, size, outcome)
        return outcome.what

    def _passed(self, size: int) -> None:
        """Take note that a size has passed; if somebody said that it would not, he is not believed any more."""
        self._search.passed(size)
        if self._outcomes.pop(size, "") == "too large there" or any(told < size for told in self._told):
            self._heeds = False
            self._told.clear()
            told = [other for other, what in self._outcomes.items() if what == "too large there"]
            for other in told:
                del self._outcomes[other]
                self._search.untried(other)

    def _note(self, stage: str, size: int, outcome: Outcome) -> None:
        passes, too_large = self._search.largest, self._search.too_large
        step = SizeStep(stage, size, outcome.what, outcome.tries, outcome.rtt, self._detail(outcome), passes, too_large)
        self._steps.append(step)
        if self._on_step is not None:
            self._on_step(step)

    def _detail(self, outcome: Outcome) -> str:
        mtu = self._exchange.told_mtu()
        if outcome.what in ("too large here", "too large there") and mtu is not None:
            return (
                f"{'the own interface' if outcome.what == 'too large here' else 'a router'} has an MTU of {mtu:,} bytes"
            )
        return outcome.detail

    def _why(self, limit: str) -> str:
        """Return in words why nothing was answered, or what this machine does."""
        if limit == "this machine":
            return next(step.detail for step in reversed(self._steps) if step.outcome == "not sent")
        return self._steps[-1].detail if self._search.largest is None else ""

    def _limit(self) -> str:
        """Return what ends the size."""
        largest = self._search.largest
        if largest is None:
            known = {"cut": "server", "not sent": "this machine"}
            return next((known[what] for what in self._outcomes.values() if what in known), "no answer")
        if largest >= self._search.most:
            own = self._interface_mtu is not None and largest >= self._interface_mtu - self._headers
            return "interface" if own else "none"
        what = self._outcomes.get(self._search.too_large)
        if what == "cut":
            return "server"
        if what == "not sent":
            return "this machine"
        if what == "too large there" or largest in self._told:
            return "router"
        return "silence"


def _is_buffer_size(size: int | None) -> bool:
    """Tell whether a size is rather that of a server's buffer than of a path: no link has an MTU that leaves such."""
    return size is not None and size >= _LEAST_BUFFER and size & (size - 1) == 0
