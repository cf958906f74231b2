"""What is said in the log about datagrams that are refused, however many of them come.

Theory of operation: anybody on the network can provoke refusals, at any rate and under any source address, so the log
must not grow with them. A line tells who (the network prefix, and the first host of it), why, and what to do; there is
at most one for each reason and prefix in a minute and at most twenty in a minute altogether. What was not told is
counted, and its number is told once a minute. Only what was told within the last minute is remembered, which bounds
the memory too. Datagrams themselves never reach this module, so no payload can get into the log.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from .address import unmapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import Logger

__all__ = ["LINES_PER_MINUTE", "RefusalLog", "network_prefix"]

LINES_PER_MINUTE: Final = 20
"""Lines about refusals within any minute: a person reads that many, and a day of an attack makes 4 MB of log."""

_MINUTE: Final = 60.0
_IPV6_BYTES: Final = 7
"""/56: what a site is usually given (RFC 6177), as /24 is the least that is routed of IPv4."""


def network_prefix(host: str) -> str:
    """Return the network around a numeric host, for people: its /24 (IPv4) or /56 (IPv6).

    Text that is no numeric host is returned as it is: whoever writes a line need not be stopped by it.
    """
    host = unmapped(host)
    try:
        if ":" not in host:
            first, second, third, _ = socket.inet_ntoa(socket.inet_aton(host)).split(".")
            return f"{first}.{second}.{third}.0/24"
        raw = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    kept = raw[:_IPV6_BYTES] + bytes(len(raw) - _IPV6_BYTES)
    return f"{socket.inet_ntop(socket.AF_INET6, kept)}/56"


class RefusalLog:
    """Tells of refusals in the log, within bounds.

    One serves a port or a whole service; whoever refuses something calls :meth:`refused` each time.

    Args:
        clock: Returns monotonic seconds, such as ``reactor.seconds``.
        log: Where the lines go, as warnings.
        would_refuse: Say that it would have been refused, for it was let in after all.

    Attributes:
        not_shown: Refusals since the last line about their number that no line was written for.
    """

    __slots__ = ("_clock", "_log", "_shown", "_since", "_verb", "not_shown")

    def __init__(self, clock: Callable[[], float], log: Logger, *, would_refuse: bool = False) -> None:
        self.not_shown = 0
        self._clock = clock
        self._log = log
        self._verb = "would have refused" if would_refuse else "refused"
        self._shown: dict[tuple[str, str], float] = {}  # in the order of time
        self._since = 0.0

    def refused(self, reason: str, host: str, text: str, count: int = 1) -> None:
        """Tell that something from a host was refused, if it is to be told.

        Args:
            reason: One word for why, as the counters call it.
            host: The numeric host that it came from, or seems to.
            text: Why, as a sentence for whoever reads the log; never anything that the datagram said.
            count: How many were refused so, where several are told at once.
        """
        now = self._clock()
        shown = self._shown
        if shown or self.not_shown:
            self._forget(now)
        key = (reason, network_prefix(host)) if len(shown) < LINES_PER_MINUTE else None
        told = key is not None and key not in shown
        if count > told and not self.not_shown:
            self._since = now
        self.not_shown += count - told
        if key is None or not told:
            return
        shown[key] = now
        self._log.warn(
            "{verb} a datagram of {prefix} (from {host}): {text} ({reason}; told at most once a minute)",
            verb=self._verb,
            prefix=key[1],
            host=host,
            text=text,
            reason=reason,
        )

    def close(self) -> None:
        """Tell how many were not told, and forget everything: what refused them has ended."""
        self._shown.clear()
        self._tell_rest()

    def _forget(self, now: float) -> None:
        """Forget what was told a minute ago, and tell the number of what was not told for a minute."""
        shown = self._shown
        while shown and now - shown[oldest := next(iter(shown))] >= _MINUTE:
            del shown[oldest]
        if self.not_shown and now - self._since >= _MINUTE:
            self._tell_rest()

    def _tell_rest(self) -> None:
        count, self.not_shown = self.not_shown, 0
        if count:
            self._log.warn(
                "{verb} {count} more datagrams in the minute before; see the counters", verb=self._verb, count=count
            )
