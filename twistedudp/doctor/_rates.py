"""How much is lost, and whether that depends on the rate.

Theory of operation: first a burst and a second's half of probes at a high rate; where none is lost, that is all. Else
the same is tried at a low rate. What loses as large a share then loses at random; what loses much less (by a test of
two proportions) limits the rate, and a third series, long enough to empty any reserve that a limiter allows, shows the
rate that passes: answers come at that rate, however many probes are sent. Datagrams that the own kernel dropped for
want of room in the receive buffer are told apart by its counter, and the path is judged by a second try with a large
buffer.
"""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..address import format_address
from ..probing import DEFAULT_PROBE_SIZE
from ._exchange import Exchange
from ._findings import Finding
from ._own_machine import setting

if TYPE_CHECKING:
    from ..address import Address

__all__ = ["Paced", "Rates", "judge_rates", "measure"]

FAST: Final = 1000.0
"""Probes per second of the first series: 92 kB/s with their headers, which no network notices."""
BURST: Final = 100
"""Probes that it begins with, sent at once: the default receive buffer of a Linux machine holds 277 of this size."""
SLOW: Final = 100.0
"""Probes per second of the second series, if there is loss: two seconds give two hundred, and a limit below this rate
is seen as well, for it loses a smaller share of these."""
STEADY: Final = 500.0
"""Probes per second of the third, where a limit is suspected."""

MEANT: Final = 0.01
"""The share of loss from which on it is a fault: less is usual on wireless links."""

_SURE: Final = 4.0
"""Standard deviations between two shares of loss that cannot be chance: 3 in 100,000 are further apart."""

_FORKS: Final = ", such as one that starts a process for each datagram (inetd, 'socat ...,fork')"
_TICK: Final = 0.004  # seconds
_TAIL: Final = 0.3  # seconds to wait for answers beyond a round trip
_SPARE: Final = 1.0  # seconds beyond that at most, where round trips vary: up to three times the one that is known
_STEADY_SECONDS: Final = 1.5
_SKIPPED: Final = 0.5  # seconds of it in which a limiter's reserve runs out


class Paced(NamedTuple):
    """One series."""

    rate: float
    """Probes per second, as asked for."""
    burst: int
    """Probes sent at once at its beginning."""
    sent: int
    answered: int
    first: int
    """Of the burst, those answered before the first that was not."""
    duplicated: int
    dropped: int
    """Answers that the own kernel dropped because the receive buffer was full."""
    receive_buffer: int
    """Its bytes."""
    passed: float
    """Answers per second, without the beginning of the series."""
    refused: tuple[tuple[int, int], ...] = ()
    """What the own kernel did not send: errno, how many."""

    @property
    def loss(self) -> float:
        """The share without an answer."""
        return 1 - self.answered / self.sent if self.sent else 0.0


class Rates(NamedTuple):
    """All series of one path."""

    fast: Paced
    slow: Paced | None = None
    """None where the fast one lost nothing."""
    steady: Paced | None = None
    """None where the rate does not matter."""
    small_buffer: Paced | None = None
    """A fast series, with the receive buffer asked for, in which answers were dropped for it."""

    @property
    def limited(self) -> bool:
        """Whether more is lost at the high rate than chance explains."""
        return self.slow is not None and differ(self.fast, self.slow) > _SURE


def differ(fast: Paced, slow: Paced) -> float:
    """Return by how many standard deviations the first loses a larger share."""
    together = (fast.sent - fast.answered + slow.sent - slow.answered) / (fast.sent + slow.sent)
    deviation = math.sqrt(together * (1 - together) * (1 / fast.sent + 1 / slow.sent))
    return (fast.loss - slow.loss) / deviation if deviation else 0.0


async def measure(reactor: Any, peer: Address, *, rtt: float, receive_buffer: int | None) -> Rates:
    """Measure the loss of a path to a server that answers.

    Args:
        reactor: The reactor.
        peer: The server.
        rtt: Seconds of a round trip.
        receive_buffer: Bytes of the receive buffer of the first series.

    Raises:
        twisted.internet.error.CannotListenError: There is no port to send from.
    """
    pacing = _Pacing(reactor, peer, rtt)
    small = None
    fast = await pacing.run(FAST, 0.5, burst=BURST, receive_buffer=receive_buffer)
    if fast.dropped:
        small, fast = fast, await pacing.run(FAST, 0.5, burst=BURST)
    if fast.answered == fast.sent:
        return Rates(fast, small_buffer=small)
    slow = await pacing.run(SLOW, 2.0)
    rates = Rates(fast, slow, small_buffer=small)
    if rates.limited:
        return rates._replace(steady=await pacing.run(STEADY, _STEADY_SECONDS))
    return rates


class _Pacing:
    def __init__(self, reactor: Any, peer: Address, rtt: float) -> None:
        self._reactor = reactor
        self._peer = peer
        self._tail = _TAIL + rtt + min(3 * rtt, _SPARE)

    async def run(self, rate: float, seconds: float, *, burst: int = 0, receive_buffer: int | None = None) -> Paced:
        exchange = Exchange(self._reactor, self._peer, DEFAULT_PROBE_SIZE, receive_buffer=receive_buffer)
        exchange.open()
        try:
            for _ in range(burst):
                exchange.send()
            count = int(rate * seconds)
            number = 0
            while number < count:
                due = min(count, int((exchange.now()) * rate) + 1)
                for _ in range(number, due):
                    exchange.send()
                number = max(number, due)
                await exchange.wait(_TICK)
            ends = exchange.now()
            table = exchange.table
            await exchange.wait(self._tail, lambda: table.received + table.late >= table.sent)
            exchange.dropped()
            return _figures(exchange, rate, burst, ends)
        finally:
            await exchange.close()


def _figures(exchange: Exchange, rate: float, burst: int, ends: float) -> Paced:
    table = exchange.table
    answers = exchange.answers()
    later = [came for came in answers if came.kind != "duplicate" and _SKIPPED <= came.at <= ends]
    span = ends - _SKIPPED
    waits = {came.sequence for came in answers}
    return Paced(
        rate=rate,
        burst=burst,
        sent=table.sent,
        answered=table.received + table.late,
        first=next((number for number in range(burst) if number not in waits), burst),
        duplicated=table.duplicated,
        dropped=exchange.dropped(),
        receive_buffer=exchange.port.stats.receive_buffer,
        passed=len(later) / span if span > 0 else 0.0,
        refused=tuple(sorted(exchange.port.stats.send_errors.items())),
    )


def judge_rates(peer: Address, rates: Rates) -> list[Finding]:
    """Return what the series say."""
    found = []
    if rates.small_buffer is not None:
        found.append(_buffer(rates.small_buffer))
    if rates.fast.refused:
        found.append(_refused(peer, rates.fast))
    if rates.slow is None:
        return found
    evidence = _lines(rates)
    if not rates.limited:
        found.append(_random(peer, rates.fast, rates.slow, evidence))
    else:
        found.append(_limited(peer, rates, evidence))
    return found


def _lines(rates: Rates) -> tuple[str, ...]:
    lines = []
    for paced in (rates.fast, rates.slow, rates.steady):
        if paced is None:
            continue
        burst = f"{paced.burst} at once, then " if paced.burst else ""
        lines.append(
            f"{burst}{paced.rate:,.0f} per second: {paced.sent:,} probes of {DEFAULT_PROBE_SIZE} bytes sent, "
            f"{paced.answered:,} answered, {paced.loss:.1%} lost"
        )
        if paced.burst and paced.loss:
            lines.append(f"of the {paced.burst} at once the first {paced.first} were answered without a gap")
    if rates.steady is not None:
        lines.append(f"answers came at {rates.steady.passed:,.1f} per second")
    return tuple(lines)


def _random(peer: Address, fast: Paced, slow: Paced, evidence: tuple[str, ...]) -> Finding:
    sent = fast.sent + slow.sent
    share = 1 - (fast.answered + slow.answered) / sent
    where = f"{format_address(peer)} and back"
    if slow.loss:
        says = f"{share:.1%} of the datagrams to {where} are lost, at a low rate as at a high one"
    else:
        says = (
            f"{fast.sent - fast.answered} of {sent} datagrams to {where} were lost, all of them at the high rate: too "
            "few to tell chance from a limit"
        )
    return Finding(
        "UDP-LOSS",
        says,
        evidence,
        "a bad link (wireless, a duplex mismatch, a damaged cable) or one that is full of other traffic; "
        f"'udpecho ping {format_address(peer)}' shows how it goes on. Programs must repeat what is not answered",
        fault=share >= MEANT,
    )


def _limited(peer: Address, rates: Rates, evidence: tuple[str, ...]) -> Finding:
    steady, slow = rates.steady, rates.slow
    where = f"{format_address(peer)} and back"
    if steady is None or slow is None or differ(steady, slow) <= _SURE:
        fast = rates.fast
        burst = f", of which {fast.burst} come at once and the first {fast.first} pass" if fast.burst else ""
        return Finding(
            "UDP-RATE-LIMITED",
            f"datagrams to {where} are lost at {fast.rate:,.0f} per second{burst}; {STEADY:,.0f} per second pass when "
            "they come evenly",
            evidence,
            f"a short queue on the way, the server's receive buffer, or a server that does no more{_FORKS}; send "
            "evenly, not in bursts, and stay below the rate that passes",
        )
    return Finding(
        "UDP-RATE-LIMITED",
        f"datagrams to {where} are lost above about {steady.passed:,.0f} per second",
        evidence,
        "a limit on the way (a firewall's 'limit rate', a provider's protection against floods) or a server that "
        f"does no more{_FORKS}; stay below that rate, or have the limit raised",
    )


def _refused(peer: Address, paced: Paced) -> Finding:
    unsent = sum(count for _, count in paced.refused)
    forbidden = errno.EPERM in dict(paced.refused)
    return Finding(
        "UDP-LOCAL-FIREWALL" if forbidden else "UDP-CANNOT-SEND",
        f"this machine itself sent only {paced.sent:,} of {paced.sent + unsent:,} datagrams to {format_address(peer)}"
        + (": a rule of its own packet filter forbids the rest" if forbidden else ""),
        tuple(f"{count} not sent: {os.strerror(number)}" for number, count in paced.refused),
        "look for a limit in the output chains: 'nft list ruleset', 'iptables -L OUTPUT -v'"
        if forbidden
        else "the error's name says more; 'tc -s qdisc' shows what a full queue dropped",
    )


def _buffer(paced: Paced) -> Finding:
    most, usual = setting("net.core.rmem_max"), setting("net.core.rmem_default")
    advice = "have the program ask for a larger receive buffer (SO_RCVBUF)"
    if most:
        advice += (
            f"; the system allows {most} bytes (net.core.rmem_max) and gives {usual} to who asks for none "
            "(net.core.rmem_default): sysctl -w net.core.rmem_max=4194304 allows 4 MiB"
        )
    return Finding(
        "UDP-RECEIVE-BUFFER",
        f"this machine itself dropped {paced.dropped} answers: they came faster than they were read, and the receive "
        f"buffer of {paced.receive_buffer:,} bytes was full",
        (
            (
                f"{paced.sent:,} probes, {paced.burst} of them at once, {paced.rate:,.0f} per second after: "
                f"{paced.answered:,} answered"
            ),
            f"dropped by this machine's kernel, as it counts them (SO_RXQ_OVFL): {paced.dropped}",
        ),
        advice,
    )
