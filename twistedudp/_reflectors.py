"""Who answers whatever comes: the ports where such services stand, and how one is recognised that stands elsewhere.

Theory of operation: two servers that send back what comes keep each other busy for ever, once one forged datagram has
set them upon each other (CERT CA-1996-01, CVE-2024-2169). Between two of ours the hop limit ends it (see ``listen``'s
``answer_hops``); a foreign one sends with a fresh hop limit each time. What gives it away is that it never says
anything by itself: if we are silent, it is.

So a peer that has sent the same few payloads again and again for a while, without a pause, is put to the test: its
datagrams are *held* for a moment instead of answered. Whatever circulates is held within one round trip, and then
nothing comes any more: the loop is dead, and the peer was recognised. A client that sends at its own pace goes on; one
that waits for its answer asks again after its timeout: what comes later than a round trip takes clears the peer, all
that was held is answered late, and it is left alone for a while. The worst that happens to a client that neither goes
on nor asks again, or sends more at once than is held, is that a window of answers is lost once.

What sets a loop going may be many datagrams, all different and large. So of the payloads of a candidate that says very
much only a sample is remembered, chosen by the payload, so that what comes again is in it again; and what is too much
to be held is dropped, since to answer it would keep the loop alive.

Only a sample of the datagrams is looked at, so that a busy server does not notice; those of peers on trial are looked
at one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import Address

__all__ = ["REFLECTOR_PORTS", "ReflectorWatch"]

REFLECTOR_PORTS: Final = frozenset({1900, 3702, 5353, 5683, 10001, 11211})
"""Ports from 1024 on whose services answer what they did not ask for: SSDP, WS-Discovery, mDNS, CoAP, Ubiquiti's
discovery, memcached (the port numbers are IANA's, but for Ubiquiti's; RFC 9308 section 8.1 gives such a list for the
same reason). Services below 1024 are refused altogether."""

LOOK_INTERVAL: Final = 0.001
"""Seconds between two looks: a thousand a second show whoever sends one of a hundred datagrams."""

ROUND_TRIP: Final = 0.5
"""Seconds that a datagram takes to a reflector and back at most. A loop that is slower is not recognised: two datagrams
a second harm nobody."""

SUSPICIOUS_AGE: Final = 2.0
"""Seconds for which a peer has repeated itself before it is put to the test: most clients have ended by then."""

SUSPICIOUS_REPEATS: Final = 6
"""... and how often it was seen to do so."""

SILENCE: Final = 6.0
"""Seconds without a word, from the beginning of the test on, that give a reflector away: longer than most clients wait
before they ask again. A loop is dead long before."""

CLEARED_FOR: Final = 120.0
"""Seconds for which a peer that has passed is not tested again. A forger who keeps a reflector from being recognised
must send more often than this, and gains no more than the rate limit lets through."""

RECOGNISED_FOR: Final = 3600.0
"""Seconds for which a reflector that shows up again is not told of again."""

MAX_CANDIDATES: Final = 256
MAX_PAYLOADS: Final = 64
"""Payloads that are remembered of a candidate; where it says more, only every second is, every fourth, ..."""
MAX_PASSED_OVER: Final = 64
"""... and every 64th at least: whoever says more than some 4,096 different things is none, for four times fewer
circulate."""
MAX_TRIALS: Final = 16
MAX_CLEARED: Final = 1024
MAX_HELD: Final = 1024
"""Datagrams that come of one peer until it is cleared: twice as many as circulate at the usual rate limit within
``ROUND_TRIP``."""
MAX_HELD_BYTES: Final = 256 * 1024
"""Of these, what is kept for a late answer; the rest is dropped."""
MAX_TOLD: Final = 20
"""Reflectors told of in a minute, as of all refusals: which peers there seem to be is a forger's choice."""


class _Candidate:
    """A peer that may be repeating itself."""

    __slots__ = ("passed_over", "payloads", "repeats", "seen", "since")

    def __init__(self, now: float) -> None:
        self.since = self.seen = now
        self.repeats = 0
        self.payloads: set[int] = set()
        self.passed_over = 0  # the bits that must be 0 in the hash of a payload that is remembered

    def hears(self, payload: int) -> bool:
        """Take the hash of a payload; tell whether it is a candidate still: it may say new things all the time."""
        if payload & self.passed_over:
            return True
        if payload in self.payloads:
            self.repeats += 1
            return True
        self.payloads.add(payload)
        while len(self.payloads) > MAX_PAYLOADS and self.passed_over < MAX_PASSED_OVER:
            self.passed_over = self.passed_over << 1 | 1
            self.payloads = {known for known in self.payloads if not known & self.passed_over}
        return self.passed_over < MAX_PASSED_OVER


class _Trial:
    """A peer whose datagrams are held."""

    __slots__ = ("came", "held", "size", "until_round_trip", "until_silence")

    def __init__(self, now: float) -> None:
        self.came = 0
        self.held: list[tuple[bytes, Address]] = []
        self.size = 0
        self.until_round_trip = now + ROUND_TRIP
        self.until_silence = now + SILENCE


class ReflectorWatch:
    """Recognises reflectors among the peers of a server that sends back what comes.

    Attributes:
        trials: The peers on trial, in the order of its end.
        next_look: Before this time, in seconds, nothing but peers on trial need be looked at.
    """

    __slots__ = ("_candidates", "_cleared", "_looks", "_recognised", "_told", "_told_until", "next_look", "trials")

    def __init__(self) -> None:
        self.trials: OrderedDict[Address, _Trial] = OrderedDict()
        self.next_look = 0.0
        self._looks = 0
        self._told = 0
        self._told_until = 0.0
        self._candidates: OrderedDict[Address, _Candidate] = OrderedDict()
        self._cleared: OrderedDict[Address, float] = OrderedDict()
        self._recognised: OrderedDict[Address, float] = OrderedDict()

    def next_deadline(self) -> float | None:
        """Return when :meth:`deadline_reached` must be called; None while nobody is on trial."""
        return next(iter(self.trials.values())).until_silence if self.trials else None

    def look(self, datagrams: Sequence[tuple[bytes, Address]], now: float) -> bool:
        """Look at one of the datagrams that came together; tell whether its peer is on trial from the next one on."""
        self.next_look = now + LOOK_INTERVAL
        self._looks += 1
        datagram, peer = datagrams[self._looks % len(datagrams)]  # else the first of each batch would stand for all
        candidates = self._candidates
        candidate = candidates.get(peer)
        if candidate is None or now - candidate.seen > ROUND_TRIP:
            if candidate is None and len(candidates) >= MAX_CANDIDATES:
                candidates.popitem(last=False)
            candidate = candidates[peer] = _Candidate(now)
        candidates.move_to_end(peer)
        candidate.seen = now
        if not candidate.hears(hash(datagram)):
            del candidates[peer]
            return False
        if candidate.repeats < SUSPICIOUS_REPEATS or now - candidate.since < SUSPICIOUS_AGE:
            return False
        return self._try(peer, now)

    def hold(self, datagram: bytes, peer: Address, now: float) -> Sequence[tuple[bytes, Address]]:
        """Take a datagram of a peer on trial; return what is to be answered: nothing, or all if that clears it."""
        trial = self.trials[peer]
        trial.came += 1
        if now <= trial.until_round_trip and trial.came <= MAX_HELD:
            trial.size += len(datagram)
            if trial.size <= MAX_HELD_BYTES:
                trial.held.append((datagram, peer))
            return ()
        trial.held.append((datagram, peer))
        del self.trials[peer]
        _remember(self._cleared, peer, now + CLEARED_FOR)
        return trial.held

    def deadline_reached(self, now: float) -> list[tuple[Address, bool]]:
        """End the trials whose time has come; return the reflectors, and whether each is to be told of.

        One that was recognised lately, and was set upon us once more, is not, nor is one of very many.
        """
        found = []
        while self.trials:
            peer, trial = next(iter(self.trials.items()))
            if trial.until_silence > now:
                break
            del self.trials[peer]
            found.append((peer, now >= self._recognised.get(peer, now) and self._may_tell(now)))
            _remember(self._recognised, peer, now + RECOGNISED_FOR)
        return found

    def _may_tell(self, now: float) -> bool:
        if now >= self._told_until:
            self._told, self._told_until = 0, now + 60.0
        self._told += 1
        return self._told <= MAX_TOLD

    def _try(self, peer: Address, now: float) -> bool:
        """Put a peer to the test, unless it has passed lately or there are too many already."""
        del self._candidates[peer]
        if now < self._cleared.get(peer, now) or len(self.trials) >= MAX_TRIALS or peer in self.trials:
            return False
        self.trials[peer] = _Trial(now)
        return True


def _remember(table: OrderedDict[Address, float], peer: Address, until: float) -> None:
    """Note a time for a peer; where there are too many, the oldest note goes."""
    if peer not in table and len(table) >= MAX_CLEARED:
        table.popitem(last=False)
    table[peer] = until
    table.move_to_end(peer)
