"""What the tests of effects share: datagrams, an ICMP error, and streams of datagrams through an effect."""

from __future__ import annotations

import errno
import functools
import random
from typing import TYPE_CHECKING

from tests.binomial import binomial_bounds
from twistedudp.impairment import Datagram
from twistedudp.interfaces import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twistedudp.impairment import Arrival, LinkEffect

CLIENT = ("192.0.2.2", 40000)
SERVER = ("192.0.2.1", 7)
CLIENT6 = ("2001:db8::2", 40000)
SERVER6 = ("2001:db8::1", 7)

ASK = Datagram(CLIENT, SERVER, b"ask")
ASK6 = Datagram(CLIENT6, SERVER6, b"ask")
BROADCAST = Datagram(CLIENT, ("255.255.255.255", 7), b"who")
REFUSAL = Datagram(SERVER, CLIENT, b"ask", Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER[0]))
"""An ICMP error about what CLIENT has sent to SERVER."""

TRIALS = 20_000
DOUBT = 1e-9
"""The probability that a right effect fails one of these tests, were the seed not fixed."""


def rng(seed: int = 1) -> random.Random:
    """Return a generator, a fixed one so that a test has the same outcome in each run."""
    return random.Random(seed)  # noqa: S311  # reproducible on purpose


def sized(size: int, of: Datagram = ASK) -> Datagram:
    """Return a datagram with so many bytes of payload."""
    return of._replace(payload=bytes(size))


def stream(
    effect: LinkEffect, count: int = TRIALS, *, datagram: Datagram = ASK, interval: float = 0.01, seed: int = 1
) -> list[list[Arrival]]:
    """Send the same datagram through an effect at regular times; return what leaves it for each."""
    generator = rng(seed)
    return [list(effect(datagram, number * interval, generator)) for number in range(count)]


def times(
    effect: LinkEffect, moments: Iterable[float], *, datagram: Datagram = ASK, seed: int = 1
) -> list[float | None]:
    """Send a datagram at each of these times; return when it arrives, ``None`` where it is lost."""
    generator = rng(seed)
    arrivals = []
    for now in moments:
        found = list(effect(datagram, now, generator))
        arrivals.append(now + found[0].delay if found else None)
    return arrivals


@functools.cache
def _bounds(trials: int, chance: float) -> tuple[int, int]:
    return binomial_bounds(trials, chance, DOUBT)


def likely(count: int, trials: int, chance: float) -> bool:
    """Tell whether chance alone explains a count of successes."""
    least, greatest = _bounds(trials, chance)
    return least <= count <= greatest
