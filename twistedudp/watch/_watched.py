"""One target while it is being probed: its probes, its figures, its state.

Theory of operation: a :class:`~twistedudp.probing.ProbeTable` says what became of each probe, and what it says goes
into the figures of the last probes, into the counters for metrics, and into the state. No I/O and no clock: times are
arguments, in nanoseconds of a clock that does not go back. Memory is some 5 KB for each target and does not grow.

An answer in time is a failure all the same where the target is to speak a protocol and the answer is not of it; the
probe's own counters call it received, for it was.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

from ..probing import Jitter, ProbeTable
from ._health import Health
from ._rolling import Rolling

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address
    from ..probing import ProbeEvent, ProbeWire
    from ._health import Change
    from ._target import Target

__all__ = ["MOST_PROBES", "RTT_BUCKETS", "StateChange", "Watched"]

RTT_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Seconds: the upper bounds of the histogram's buckets, from a machine's own loopback to a satellite and beyond. Few,
for each is a time series for each target."""

MOST_PROBES: Final = 2**31
"""Probes of one series, for a sequence number has 32 bits; then another one begins."""

_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in RTT_BUCKETS)
_SPARE_WINDOW: Final = 8

_COUNTED: Final = (
    "sent", "received", "lost", "late", "reordered", "duplicated", "corrupted", "foreign", "unreachable", "not_sent",
    "errors", "oddities",
)  # fmt: skip


class StateChange(NamedTuple):
    """A target has changed its state."""

    target: str
    address: str
    """Its address and port as text; empty where its name has none."""
    state: str
    previous: str
    reason: str
    """A stable word."""
    says: str
    """The same for people."""
    loss: float | None
    """Share of failures among the last probes."""
    p50: float | None
    """Median round trip of the last probes, in seconds."""
    p99: float | None
    jitter: float
    time: float
    """Seconds since the epoch."""


class Watched:  # budget: what is counted for a target has its place here
    """One target.

    Args:
        target: What is probed and how.
        wire: How its probes look.
        changed: Called with this and each change of the state.

    Attributes:
        target: As given.
        interval_ns: Nanoseconds between two probes.
        jitter_ns: Nanoseconds by which one is put off at most.
        timeout_ns: Nanoseconds after which an answer is late.
        table: The probes and their counters.
        health: The state.
        rolling: Figures of the last probes.
        jitter: Interarrival jitter (RFC 3550) of the round trips.
        rtt_counts: How many round trips were in each of :data:`RTT_BUCKETS`, and beyond.
        rtt_sum_ns: Their sum.
        sent: Probes that were sent; the table's own count goes back by one that could not be.
        wrong_protocol: Answers in time that were not of the protocol that the target is to speak.
        lookup_failures: Look-ups of its name without an address.
        skipped: Probes that were not sent because this process could not run at their time.
        changes: How often each state began.
        address: Where probes are sent to; None while it is not known.
        lookups_in_vain: Of the look-ups, how many the last ones in a row were such.
        gone: Whether it is probed no more.
        due_ns: When the next probe is due, before jitter.
        planned: Whether that is in the watcher's agenda.
        refused: Whether the own kernel refused the last probe, or another of those sent together with it.
    """

    __slots__ = ("_changed", "_last_error", "_slow_ns", "address", "changes", "due_ns", "gone", "health", "interval_ns",
                 "jitter", "jitter_ns", "lookup_failures", "lookups_in_vain", "planned", "refused", "rolling",
                 "rtt_counts", "rtt_sum_ns", "sent", "skipped", "table", "target", "timeout_ns",
                 "wrong_protocol")  # fmt: skip

    def __init__(self, target: Target, wire: ProbeWire, changed: Callable[[Watched, Change], None]) -> None:
        settings = target.settings
        self.target = target
        self.interval_ns = round(settings.interval * 1e9)
        self.jitter_ns = round(settings.jitter * self.interval_ns)
        self.timeout_ns = round(settings.timeout * 1e9)
        self.health = Health(settings.thresholds)
        self.rolling = Rolling(settings.window)
        self.jitter = Jitter()
        self.rtt_counts = array("Q", bytes(8 * (len(RTT_BUCKETS) + 1)))
        self.rtt_sum_ns = self.sent = 0
        self.wrong_protocol = self.lookup_failures = self.lookups_in_vain = self.skipped = 0
        self.changes: dict[str, int] = {}
        self.address: Address | None = None
        self.gone = self.planned = self.refused = False
        self.due_ns = 0
        self._changed = changed
        self._slow_ns = math.inf if settings.degraded_rtt is None else settings.degraded_rtt * 1e9
        self._last_error = ""
        self.table = self._new_table(wire)

    # Commands

    def next_probe(self, now_ns: int) -> tuple[int, bytes]:
        """Return the next probe's number and bytes, to be sent at once."""
        table = self.table
        if table.next_sequence >= MOST_PROBES:
            self.table = self._new_table(table.wire)
            for name in _COUNTED:
                setattr(self.table, name, getattr(table, name))
        sequence, datagram, given_up = self.table.next_probe(now_ns=now_ns)
        if given_up is not None:
            self._failed("no_answer", "no answer")
        return sequence, datagram

    def probe_not_sent(self, sequence: int, reason: str) -> None:
        """Take a probe back that this machine could not send."""
        self.table.probe_not_sent(sequence, reason)
        self._failed("not_sent", reason)

    # Inputs

    def reply_received_untrusted(self, datagram: bytes, arrived_ns: int, read_ns: int) -> None:
        """Take a datagram that came from the target's address; see :class:`~twistedudp.probing.ProbeTable`."""
        event = self.table.reply_received_untrusted(datagram, arrived_ns=arrived_ns, read_ns=read_ns)
        if event.newly_lost:  # deadline_reached will not tell of it any more
            self._no_answer()
        if event.kind != "reply":
            return
        self._last_error = ""
        rtt_ns = event.rtt_ns
        self.jitter.add(rtt_ns)
        self.rtt_counts[bisect_left(_BOUNDS_NS, rtt_ns)] += 1
        self.rtt_sum_ns += rtt_ns
        wanted = self.target.settings.protocol
        if wanted != "auto" and wanted != _protocol_of(event):
            self.wrong_protocol += 1
            self._failed("wrong_protocol", f"it answers, but by the protocol {_protocol_of(event)}, not {wanted}")
            return
        self.rolling.answered(rtt_ns)
        self._tell(self.health.answered(slow=rtt_ns > self._slow_ns))

    def probe_unreachable_untrusted(self, quoted: bytes, reason: str, now_ns: int) -> None:
        """Take an ICMP error about something that was sent to the target's address."""
        event = self.table.probe_unreachable_untrusted(quoted, reason, now_ns=now_ns)
        if event.kind == "unreachable":
            self._last_error = reason

    def deadline_reached(self, now_ns: int) -> None:
        """Give up the probes whose timeout has passed."""
        table = self.table
        if table.received + table.lost == table.sent:
            return  # as nearly always: all are answered
        for _ in table.deadline_reached(now_ns=now_ns):
            self._no_answer()

    def name_without_address(self, says: str) -> None:
        """Learn that the name has no address: it is down for that."""
        self._tell(self.health.impossible("name_unknown", says))

    def _no_answer(self) -> None:
        if self._last_error:
            self._failed("unreachable", f"the network says: {self._last_error}")
        else:
            self._failed("no_answer", f"no answer within {self.target.settings.timeout:g} s")

    def _failed(self, reason: str, says: str) -> None:
        self.rolling.lost()
        self._tell(self.health.failed(reason, says))

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            self.changes[change.state] = self.changes.get(change.state, 0) + 1
            self._changed(self, change)

    def _new_table(self, wire: ProbeWire) -> ProbeTable:
        settings = self.target.settings
        # Twice the timeout, so that an answer that is late can still be told from one that was never asked for.
        window = 2 * math.ceil(settings.timeout / (settings.interval * (1 - settings.jitter / 2))) + _SPARE_WINDOW
        return ProbeTable(wire, timeout_ns=self.timeout_ns, window=window)


def _protocol_of(event: ProbeEvent) -> str:
    """Return by which protocol a probe was answered; an rpc server without ``rpc.probe`` answers with an error."""
    return "rpc" if event.server is not None or event.detail else "echo"
