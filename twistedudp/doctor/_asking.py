"""The first question: does anything answer, and if not, who says what?

Theory of operation: a few probes, at growing intervals, until an answer comes, until an ICMP error has come twice, or
until the time is up. While nothing comes at all, three more things are tried, for silence has many causes: a datagram
to another port of the host, which a host that is up refuses; probes that may take few hops only, which each router on
the way reports (as traceroute does), so that one sees how far they get; and a ClientHello, which a server that speaks
DTLS answers.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..probing import DEFAULT_PROBE_SIZE
from ._dtls import client_hello, speaks_dtls
from ._exchange import Exchange
from ._icmp import code_of, is_time_exceeded
from ._own_machine import own_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..address import Address
    from ._exchange import Came, Sent, Told

__all__ = ["CLOSED_PORT", "MOST_HOPS", "Asked", "ask"]

CLOSED_PORT: Final = 33434
"""The port of the datagram that shows whether the host is up: where ``traceroute`` begins, because hardly anybody
listens there."""

MOST_HOPS: Final = 16
"""Hops that are looked at, one probe each; paths in the Internet have a dozen."""

_FIRST_INTERVAL: Final = 0.2  # seconds; doubled each time
_CONFIRMED: Final = 2  # errors of one kind
_NO_MORE: Final = 0.6  # seconds after the first error, for routers limit how many they send
_LAST: Final = 0.4  # the share of the time that is left for what is tried in silence
_MOST_PROBES: Final = 12


class Asked(NamedTuple):
    """What was done to one address, and all that came of it."""

    peer: Address
    where: Address
    """The local address and port that the port was bound to."""
    own_host: str
    """The address of this machine that the probes left from; empty where the kernel has none for this peer."""
    sent: Sequence[Sent]
    came: Sequence[Came]
    told: Sequence[Told]
    send_errors: dict[int, int]
    """Probes that the own kernel did not send, by errno."""
    broadcast: bool
    """Whether the own kernel calls the address a broadcast address."""
    waited: float
    """Seconds."""
    hops: Sequence[tuple[int, str]]
    """Routers that reported probes of few hops: how many hops, and who."""
    up: Told | None
    """The ICMP error of the host itself about the datagram to :data:`CLOSED_PORT`."""
    knocked: bool
    """Whether one was sent."""
    dtls: Came | None = None
    """The answer to the ClientHello."""


async def ask(reactor: Any, peer: Address, *, timeout: float) -> Asked:
    """Ask one address.

    Args:
        reactor: The reactor.
        peer: The address.
        timeout: Seconds after which silence is believed.

    Raises:
        twisted.internet.error.CannotListenError: There is no port to ask from.
    """
    exchange = Exchange(reactor, peer, DEFAULT_PROBE_SIZE)
    tracing = Exchange(reactor, peer, DEFAULT_PROBE_SIZE)
    hailing = Exchange(reactor, peer, DEFAULT_PROBE_SIZE)
    exchange.open()
    try:
        await _probe(exchange, timeout * (1 - _LAST))
        knocked = _is_silent(exchange)
        if knocked:
            exchange.knock(CLOSED_PORT)
            hailing.open()
            hailing.port.write(client_hello(secrets.token_bytes(32)), peer)
            tracing.open()
            for hops in range(1, MOST_HOPS + 1):
                tracing.send(ttl=hops)
            exchange.send()
            await exchange.wait(timeout - exchange.now(), lambda: _settled(exchange))
            exchange.came += tracing.answers()
        asked = _asked(exchange, tracing, knocked=knocked)
        hellos = (came for came in hailing.came if came.peer == exchange.peer and speaks_dtls(came.head))
        return asked._replace(dtls=next(hellos, None))
    finally:
        await hailing.close()
        await tracing.close()
        await exchange.close()


async def _probe(exchange: Exchange, seconds: float) -> None:
    """Send probes until the question is settled or the time is up."""
    interval = _FIRST_INTERVAL
    for _ in range(_MOST_PROBES):
        exchange.send()
        if exchange.broadcast:
            return
        left = seconds - exchange.now()
        await exchange.wait(min(interval, left), lambda: _settled(exchange))
        if _settled(exchange) or interval >= left or _refused_for(exchange) >= _NO_MORE:
            return
        interval *= 2 if not exchange.told else 1


def _is_silent(exchange: Exchange) -> bool:
    """Tell whether nothing came that has to do with the peer; strangers may write to any port."""
    heard = any(came.kind != "other" or came.peer == exchange.peer for came in exchange.came)
    return not (heard or exchange.told or exchange.broadcast or exchange.table.not_sent)


def _settled(exchange: Exchange) -> bool:
    errors = [told for told in exchange.told if told.sequence >= 0 and told.reason.icmp_type]
    answered = any(came.kind != "other" for came in exchange.came)
    return answered or len(errors) >= _CONFIRMED or exchange.table.not_sent >= _CONFIRMED


def _refused_for(exchange: Exchange) -> float:
    return exchange.now() - exchange.told[0].at if exchange.told else 0.0


def _asked(exchange: Exchange, tracing: Exchange, *, knocked: bool) -> Asked:
    ipv6 = ":" in exchange.peer[0]
    about_peer = [told for told in exchange.told if told.peer == exchange.peer]
    hosts_word = [
        told
        for told in exchange.told
        if told.peer[1] == CLOSED_PORT != exchange.peer[1]
        and code_of(told.reason, ipv6=ipv6) == "UDP-REFUSED"
        and told.reason.reporter == exchange.peer[0].partition("%")[0]
    ]
    hops_of = {sent.sequence: sent.ttl for sent in tracing.sent}
    hops = {}
    for told in tracing.told:
        if not is_time_exceeded(told.reason, ipv6=ipv6):
            about_peer.append(told)
        elif told.sequence in hops_of:
            hops[hops_of[told.sequence]] = told.reason.reporter
    stats = exchange.port.stats
    return Asked(
        peer=exchange.peer,
        where=exchange.where,
        own_host=own_host(exchange.peer) if exchange.is_real else exchange.where[0],
        sent=exchange.sent,
        came=exchange.came,
        told=about_peer,
        send_errors={
            number: count - exchange.knock_errors.get(number, 0)
            for number, count in stats.send_errors.items()
            if count > exchange.knock_errors.get(number, 0)
        },
        broadcast=exchange.broadcast,
        waited=exchange.now(),
        hops=sorted(hops.items()),
        up=hosts_word[0] if hosts_word else None,
        knocked=knocked,
    )
