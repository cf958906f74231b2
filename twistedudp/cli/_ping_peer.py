"""Which address ``udpecho ping`` probes, when it was given a name.

Theory of operation: a name may have several addresses, and the server may listen on one of them only: ``localhost`` is
often ``::1`` first. So a few probes go to each, and the first from which anything comes back is taken; where nothing
comes from any, the first in the system's order is probed, and what follows tells the truth about it. With DTLS the
first with which a session comes about is taken.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList

from .._lookup import checked_servers
from .._prober import Prober, Schedule, new_series
from .._resolve import resolve
from ..errors import HostNotFound, RequestTimedOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.python.failure import Failure

    from .._resolve import AddressFamily
    from .._secure_probes import ProbeSessions
    from ..address import Address
    from ..dtls import DTLSContext
    from ..probing import ProbeEvent

__all__ = ["LOOKUP_TIMEOUT", "MOST_ADDRESSES", "addresses_of", "answering_one", "shaken_one"]

LOOKUP_TIMEOUT: Final = 10.0
"""Seconds for a name server: resolv.conf(5) tries two of them twice, for five seconds each; nobody waits so long."""

MOST_ADDRESSES: Final = 8
"""Addresses of a name that are tried: more belong to a pool, any of which will do."""

_TRIES: Final = 3
_TRY_EVERY: Final = 0.1
_TRY_TIMEOUT: Final = 0.5


async def addresses_of(
    reactor: Any, host: str, port: int, family: AddressFamily | None, *, timeout: float = LOOKUP_TIMEOUT
) -> list[Address]:
    """Return the addresses of a server, at least one.

    Args:
        reactor: Provides the resolver, and timers.
        host: A name or a numeric address.
        port: The port.
        family: Leave out the addresses of the other family.
        timeout: Seconds that the name server has.

    Raises:
        HostNotFound: The name does not resolve.
        RequestTimedOut: The name server was silent.
        LocalError: There can be no server of that address.
    """
    checked_servers(host, port, "")
    looked_up: Deferred[list[Address]] = Deferred()
    resolve(reactor, host, port, family, looked_up.callback)

    def given_up(*_: object) -> None:
        raise RequestTimedOut(0, timeout)

    looked_up.addTimeout(timeout, reactor, onTimeoutCancel=given_up)
    addresses = await looked_up
    if not addresses:
        raise HostNotFound(host, f"no {family} address" if family else "")
    return list(dict.fromkeys(addresses))[:MOST_ADDRESSES]


async def answering_one(reactor: Any, addresses: Sequence[Address]) -> Address:
    """Return the first address from which something comes back, the first of all where nothing does.

    Args:
        reactor: A reactor that runs.
        addresses: At least one; one alone is not tried.
    """
    if len(addresses) == 1:
        return addresses[0]
    found: Deferred[Address] = Deferred()
    refused: set[Address] = set()

    def happened(address: Address, event: ProbeEvent) -> None:
        if event.kind == "unreachable":
            refused.add(address)
        elif event.kind not in ("reply", "late", "corrupted"):
            return
        if not found.called and (event.kind != "unreachable" or len(refused) == len(addresses)):
            found.callback(address if event.kind != "unreachable" else addresses[0])

    schedule = Schedule(round(_TRY_EVERY * 1e9), count=_TRIES)
    probers = [
        Prober(
            reactor,
            address,
            new_series("", address, interval=_TRY_EVERY, timeout=_TRY_TIMEOUT, window=_TRIES),
            schedule,
            on_event=partial(happened, address),
        )
        for address in addresses
    ]
    # A family that this machine lacks fails at once; that is no answer, and the others go on.
    runs = DeferredList([prober.run() for prober in probers], consumeErrors=True)
    runs.addCallback(lambda _: None if found.called else found.callback(addresses[0]))
    try:
        return await found
    finally:
        for prober in probers:
            prober.stop()


async def shaken_one(
    reactor: Any, addresses: Sequence[Address], name: str, context: DTLSContext, timeout: float
) -> ProbeSessions:
    """Return an open session with the first address that has one.

    Args:
        reactor: A reactor that runs.
        addresses: At least one.
        name: Whose certificate is to be shown.
        context: The certificates.
        timeout: Seconds after which an answer is late.

    Raises:
        DTLSHandshakeFailed: There is none; where that has several reasons, one from an address that answered.
    """
    from .._secure_probes import ProbeSessions  # noqa: PLC0415  # OpenSSL: an extra, which not everybody has

    tried = [ProbeSessions(reactor, address, name, context, silence=timeout) for address in addresses]
    found: Deferred[ProbeSessions] = Deferred()
    failures: list[Failure] = []

    def failed(failure: Failure) -> None:
        failures.append(failure)
        if len(failures) == len(tried) and not found.called:
            found.errback(min(failures, key=_says_little))

    def opened(sessions: ProbeSessions) -> None:
        if not found.called:
            found.callback(sessions)

    for sessions in tried:
        sessions.open().addCallbacks(lambda _, those=sessions: opened(those), failed)
    chosen: ProbeSessions | None = None
    try:
        chosen = await found
    finally:
        for sessions in tried:
            if sessions is not chosen:
                sessions.stopListening()
    return chosen


def _says_little(failure: Failure) -> bool:
    return getattr(failure.value, "reason", "") in ("", "no_answer", "unreachable")


def is_cancelled(error: BaseException) -> bool:
    """Tell whether an error is that of a Deferred that was cancelled."""
    return isinstance(error, CancelledError)
