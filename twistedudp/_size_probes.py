"""Probes of any size, one size at a time: what a sweep over sizes asks the network.

Theory of operation: a trial sends a probe of its size, and another one after a while, until an answer comes, until the
network says that it is too large, or until as many tries as wanted have stayed silent. Ports tell their protocols
nothing of "fragmentation needed", for that is no failure of the peer's; so the port's counter of such messages is
looked at while a trial runs. An answer to a trial that was given up already is passed on as well: it is a fact.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from ._pacing import clocks_of
from .address import is_ipv6
from .errors import DecodeError
from .probing import SMALLEST_PROBE, ProbeWire

if TYPE_CHECKING:
    from collections.abc import Callable

    from .address import Address
    from .interfaces import Unreachable

__all__ = ["LEAST_PATIENCE", "SPACING", "Outcome", "SizeExchange", "headers_to", "kernel_mtu"]

SPACING: Final = 0.05
"""Seconds between two tries of one size, at least: bursts of loss and of full queues are shorter, for the most part."""

MOST_REFUSED: Final = 5
"""Times that the own kernel may refuse to send one size, for a full queue perhaps, before it is taken at its word."""

LEAST_PATIENCE: Final = 0.2
"""Seconds for which an answer is waited for at least; else four times the longest round trip so far."""

_NO_ROUTE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
_TELLING, _UNTIMED = 8, 32  # bytes that tell a probe from others; bytes of it before its time of sending
_LOOK: Final = 0.02  # seconds between two looks whether an ICMP message has come

_IP_MTU_DISCOVER, _IP_MTU, _IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_DONTFRAG = 10, 14, 23, 24, 62  # <linux/in.h>, in6.h
_PMTUDISC_DONT, _PMTUDISC_PROBE = 0, 3
_LEAST_MTU_IPV6: Final = 1280  # RFC 8200 section 5


def headers_to(peer: Address) -> int:
    """Return the bytes of the IP and UDP headers of a datagram to a peer: RFC 791, RFC 8200 section 3, RFC 768."""
    return 48 if is_ipv6(peer[0]) else 28


def kernel_mtu(peer: Address) -> int | None:
    """Return what the kernel believes to be the path MTU to a peer, in bytes; None where it does not say."""
    ipv6 = is_ipv6(peer[0])
    asked = (socket.IPPROTO_IPV6, _IPV6_MTU) if ipv6 else (socket.IPPROTO_IP, _IP_MTU)
    try:
        with socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as looking:
            looking.connect(peer)
            return looking.getsockopt(*asked)
    except OSError:  # no route, or not Linux
        return None


class Outcome(NamedTuple):
    """What came of a size."""

    what: str
    tries: int
    rtt: float | None = None
    detail: str = ""
    answered: int = -1
    """Bytes of an answer of another size."""


class _Trial:
    """One size being tried.

    Attributes:
        size: Bytes.
        done: Fires with the :class:`Outcome`.
    """

    def __init__(self, size: int, tries: int, *, each: bool, heed: bool) -> None:
        self.size = size
        self.done: Deferred[Outcome] = Deferred()
        self.left = tries
        self.each = each
        self.heed = heed
        self.sent: dict[int, float] = {}
        self.answered = 0
        self.rtt: float | None = None
        self.told = 0
        self.refused = 0


class SizeExchange(DatagramProtocol):  # budget: it is a port's protocol, and the account of what it sent
    """Probes of any size and their answers, one size at a time.

    Attributes:
        sent: Probes sent.
        unanswered: Of those of sizes that passed, the ones without an answer.
        of_passing: How many those were.
        both_ways: False once an answer was a short error.
    """

    noisy = False
    transport: Any

    def __init__(self, reactor: Any, peer: Address, timeout: float, most: int) -> None:
        self.sent = 0
        self.unanswered = 0
        self.of_passing = 0
        self.both_ways = True
        self.passed_late: Callable[[int], None] = lambda _size: None
        self._reactor = reactor
        self._clock = clocks_of(reactor).monotonic_ns
        self._peer = peer
        self._timeout = timeout
        self._session = 1 << 63 | secrets.randbits(63)
        self._padding = secrets.token_bytes(most)
        self._wires: dict[int, ProbeWire] = {}
        self._sizes: list[int] = []
        self._seen: set[int] = set()
        self._longest = 0.0
        self._trial: _Trial | None = None
        self._delayed: Any = None

    # Commands

    def seconds(self) -> float:
        """Return the time, by a clock that does not go back."""
        return self._clock() / 1e9

    def fragment(self, *, allowed: bool, mtu: int | None = None) -> None:
        """Set or clear "don't fragment" for what is sent from now on.

        Args:
            allowed: Whether larger datagrams may go in fragments.
            mtu: Bytes of the largest of these; over IPv6 it is the sender that cuts, and may have been told nothing.
        """
        handle = self.transport.getHandle() if hasattr(self.transport, "getHandle") else None
        if handle is None:
            return
        mode = _PMTUDISC_DONT if allowed else _PMTUDISC_PROBE
        with suppress(OSError):  # not Linux
            if handle.family == socket.AF_INET:
                handle.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)
            else:
                handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)
                handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, not allowed)
                if mtu is not None:
                    handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU, max(mtu, _LEAST_MTU_IPV6))

    def attempt(self, size: int, tries: int, *, each: bool = False, heed: bool = True) -> Deferred[Outcome]:
        """Try a size.

        Args:
            size: Bytes.
            tries: How many probes at most.
            each: Send all of them, and wait for the answers to all.
            heed: Believe an ICMP message that says "too large", at once.
        """
        if size not in self._wires:
            self._wires[size] = ProbeWire(self._session, size, self._padding)
        trial = self._trial = _Trial(size, tries, each=each, heed=heed)
        trial.told = self._reports()
        self._send(trial)
        return trial.done

    def told_mtu(self) -> int | None:
        """Return the path MTU as ICMP or the own kernel told it last, None where neither has."""
        path_mtu = getattr(self.transport, "path_mtu", None)
        return None if path_mtu is None else path_mtu(self._peer[0])

    async def close(self) -> None:
        """Close the port."""
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        self._trial = None
        await maybeDeferred(self.transport.stopListening)

    # Inputs

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take what may be an answer."""
        if addr != self._peer:
            return
        wire = self._wires.get(len(datagram)) or ProbeWire(self._session, SMALLEST_PROBE, self._padding)
        try:
            reply = wire.decode_untrusted(datagram)
        except DecodeError:
            self._odd_untrusted(datagram)
            return
        if not 0 <= reply.sequence < len(self._sizes):
            return
        if reply.error:
            self.both_ways = False
        elif len(datagram) != self._sizes[reply.sequence]:
            return
        self._answered(reply.sequence)

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take an ICMP error about a probe; it ends the trial, for nothing else will come."""
        trial = self._trial
        if peer != self._peer or trial is None or self._quoted(quoted) not in trial.sent:
            return
        by = f" (says {reason.reporter})" if reason.reporter else ""
        self._end(Outcome("unreachable", len(trial.sent), detail=f"{reason.reason}{by}"))

    # What comes of a trial

    def _quoted(self, datagram: bytes) -> int:
        return self._wires[self._trial.size].quoted_sequence_untrusted(datagram) if self._trial else -1

    def _begins_a_probe(self, trial: _Trial, datagram: bytes) -> bool:
        """Tell whether a datagram is the beginning of a probe, as far as that is the same whenever it was sent."""
        wire = self._wires[trial.size]
        return len(datagram) >= _TELLING and any(
            wire.encode(sequence, 0).startswith(datagram[:_UNTIMED]) for sequence in trial.sent
        )

    def _odd_untrusted(self, datagram: bytes) -> None:
        """Take a datagram that is no answer as it should be: one that was cut is a finding of its own."""
        trial = self._trial
        if trial is None or len(datagram) == trial.size or not self._begins_a_probe(trial, datagram):
            return
        detail = f"the answer has {len(datagram):,} bytes"
        self._end(Outcome("cut", len(trial.sent), detail=detail, answered=len(datagram)))

    def _answered(self, sequence: int) -> None:
        if sequence in self._seen:  # the network duplicates
            return
        self._seen.add(sequence)
        trial = self._trial
        if trial is None or sequence not in trial.sent:
            self.unanswered = max(0, self.unanswered - 1)
            self.passed_late(self._sizes[sequence])
            return
        rtt = self.seconds() - trial.sent[sequence]
        self._longest = max(self._longest, rtt)
        trial.rtt = rtt if trial.rtt is None else trial.rtt
        trial.answered += 1
        if not trial.each or (trial.answered == len(trial.sent) and not trial.left):
            self._end(Outcome("passed", len(trial.sent), trial.rtt))

    def _send(self, trial: _Trial) -> None:
        """Send a probe of the size being tried, and look again later."""
        now = self.seconds()
        refused = self._refused()
        sequence = len(self._sizes)
        self._sizes.append(trial.size)
        trial.left -= 1
        trial.sent[sequence] = now
        self.sent += 1
        try:
            self.transport.write(self._wires[trial.size].encode(sequence, self._clock()), self._peer)
        except MessageLengthError:
            self.sent -= 1
            self._later(0, self._end, Outcome("too large here", 0))
            return
        if self._trial is not trial:  # it has ended meanwhile
            return
        if sum(refused.values()) < sum(self._refused().values()):
            self._not_sent(trial, sequence, refused)
            return
        self._later(min(_LOOK, SPACING), self._look, trial, now)

    def _not_sent(self, trial: _Trial, sequence: int, before: dict[int, int]) -> None:
        """Take back a probe that the own kernel refused; where it refuses again and again, that is what came of it."""
        self.sent -= 1
        del trial.sent[sequence]
        trial.left += 1
        trial.refused += 1
        if trial.refused < MOST_REFUSED:
            self._later(SPACING, self._send, trial)
            return
        why = ", ".join(
            os.strerror(number) for number, count in self._refused().items() if count > before.get(number, 0)
        )
        self._end(Outcome("not sent", len(trial.sent), detail=f"this machine does not send it: {why}"))

    def _refused(self) -> dict[int, int]:
        stats = getattr(self.transport, "stats", None)
        # A missing route is told as what it is, by peer_unreachable().
        return {} if stats is None else {n: count for n, count in stats.send_errors.items() if n not in _NO_ROUTE}

    def _look(self, trial: _Trial, sent_at: float) -> None:
        """See whether a router has told something, and whether it is time for another try or to give up."""
        told = self._reports() > trial.told
        waited = self.seconds() - sent_at
        patience = min(self._timeout, max(LEAST_PATIENCE, 4 * self._longest)) if self._longest else self._timeout
        if told and trial.heed and self._told_less(trial.size):
            self._end(Outcome("too large there", len(trial.sent)))
        elif trial.left and waited >= (SPACING if trial.each else min(patience, max(SPACING, 2 * self._longest))):
            self._send(trial)
        elif not trial.left and waited >= patience - 1e-6:
            what = "passed" if trial.answered else "too large there" if told else "silent"
            self._end(Outcome(what, len(trial.sent), trial.rtt))
        else:
            self._later(_LOOK, self._look, trial, sent_at)

    def _told_less(self, size: int) -> bool:
        """Tell whether what ICMP told excludes a size; where it named no MTU it does."""
        mtu = self.told_mtu()
        return mtu is None or mtu - headers_to(self._peer) < size

    def _end(self, outcome: Outcome) -> None:
        trial, self._trial = self._trial, None
        self._later(0, None)
        if trial is None:
            return
        if outcome.what == "passed":
            self.of_passing += len(trial.sent)
            self.unanswered += len(trial.sent) - trial.answered
        trial.done.callback(outcome)

    def _reports(self) -> int:
        stats = getattr(self.transport, "stats", None)
        return 0 if stats is None else int(stats.path_mtu_reports)

    def _later(self, seconds: float, function: Callable[..., None] | None, *arguments: Any) -> None:
        """Call something later instead of what was to be called; None calls nothing."""
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        self._delayed = None if function is None else self._reactor.callLater(seconds, function, *arguments)
