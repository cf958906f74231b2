"""One series of probes to one server, and its summary.

Theory of operation: :class:`ProbeTable` says what became of each probe, the figures of :mod:`._figures` say how long it
took, and this puts the two together, so that whoever owns a socket and a clock has one object to drive: commands
``next_probe`` and ``counts_question``, inputs ``reply_received_untrusted``, ``deadline_reached`` and the others, each
of which returns what happened, and the summary at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ._figures import Distribution, Jitter, OneWay
from ._summary import Summary
from ._table import DEFAULT_WINDOW, ProbeTable
from ._wire import COUNTS_ONLY

if TYPE_CHECKING:
    from ._table import ProbeEvent
    from ._wire import ProbeWire

__all__ = ["ProbeSeries", "SeriesNames"]


class SeriesNames(NamedTuple):
    """What a summary says of its series beside the figures."""

    target: str
    """The server as the user named it."""
    address: str
    """Its address and port, as text."""
    interval: float
    """Seconds between two probes, as asked for."""


class ProbeSeries:
    """Probes to one server.

    Args:
        wire: How they look.
        names: What the summary says beside the figures.
        timeout_ns: Nanoseconds after which an answer is late.
        window: See :class:`ProbeTable`.

    Attributes:
        table: What became of the probes.
        rtt: The round trips of the received ones.
        jitter: Their jitter.
        one_way: What an rpc server tells beyond.
        schedule_error: How much later than planned each probe was sent.
        started_ns: When the first probe was sent; -1 before.
        ended_ns: When something happened last.
        kernel_times: Whether the arrival of the last answer was told by the kernel.
    """

    def __init__(self, wire: ProbeWire, names: SeriesNames, *, timeout_ns: int, window: int = DEFAULT_WINDOW) -> None:
        self.table = ProbeTable(wire, timeout_ns=timeout_ns, window=window)
        self.rtt = Distribution()
        self.jitter = Jitter()
        self.one_way = OneWay()
        self.schedule_error = Distribution()
        self.started_ns = -1
        self.ended_ns = -1
        self.kernel_times = False
        self._names = names
        self._protocol = ""

    # Commands

    def next_probe(self, *, due_ns: int, now_ns: int) -> tuple[int, bytes, ProbeEvent | None]:
        """Return the next probe's number and bytes, to be sent at once, and the event of one given up for it.

        Args:
            due_ns: When it was to be sent.
            now_ns: The time, of the same clock.
        """
        made = self.table.next_probe(now_ns=now_ns)
        self.probe_made(due_ns=due_ns, now_ns=now_ns)
        return made

    def probe_made(self, *, due_ns: int, now_ns: int) -> None:
        """Note when a probe was made that was taken from :attr:`table` itself.

        That is what takes longest, and can be done when the probe is on its way; :meth:`next_probe` does it at once.
        """
        if self.started_ns < 0:
            self.started_ns = now_ns
        self.ended_ns = max(self.ended_ns, now_ns)  # the answer may have been taken before
        self.schedule_error.add(now_ns - due_ns)

    def probe_not_sent(self, sequence: int, reason: str) -> ProbeEvent:
        """Take a probe back that could not be sent at all; ``reason`` says why."""
        return self.table.probe_not_sent(sequence, reason)

    def counts_question(self, *, now_ns: int) -> bytes | None:
        """Return the datagram that asks for the server's counts at the end; None where the server keeps none."""
        if self._protocol != "rpc":
            return None
        self.table.counts_asked = True
        return self.table.wire.encode(COUNTS_ONLY, now_ns)

    # Inputs

    def reply_received_untrusted(
        self, datagram: bytes, *, arrived_ns: int, kernel_time: bool = False, read_ns: int = -1
    ) -> ProbeEvent:
        """Take a datagram that came from the server's address.

        Args:
            datagram: Its payload.
            arrived_ns: When it arrived, by the clock of the probes' send times.
            kernel_time: Whether the kernel told that.
            read_ns: When it was read; it counts where the kernel's time cannot be true.
        """
        event = self.table.reply_received_untrusted(datagram, arrived_ns=arrived_ns, read_ns=read_ns)
        if event.kind == "reply":
            self.rtt.add(event.rtt_ns)
            self.jitter.add(event.rtt_ns)
            self.kernel_times = kernel_time
            self._protocol = "rpc" if event.server else "rpc, without rpc.probe" if event.detail else "echo"
        if event.server is not None:
            self.one_way.add(event)
        self.ended_ns = max(self.ended_ns, arrived_ns)
        return event

    def stranger_received(self, *, arrived_ns: int) -> ProbeEvent:
        """Count a datagram that came from another address."""
        return self.table.stranger_received(arrived_ns=arrived_ns)

    def probe_unreachable_untrusted(self, quoted: bytes, reason: str, *, now_ns: int) -> ProbeEvent:
        """Take an ICMP error about something that was sent to the server."""
        return self.table.probe_unreachable_untrusted(quoted, reason, now_ns=now_ns)

    def clock_jumped(self) -> None:
        """Count that the wall clock was set while the series ran; round trips do not go by it."""
        self.table.oddities["clock_jump"] += 1

    def deadline_reached(self, *, now_ns: int) -> list[ProbeEvent]:
        """Give up the probes whose timeout has passed."""
        events = self.table.deadline_reached(now_ns=now_ns)
        if events:
            self.ended_ns = max(self.ended_ns, now_ns)
        return events

    def stop_waiting(self) -> int:
        """End the series although answers are awaited: their probes are then not among the sent ones.

        Returns:
            How many these were; ``unanswered_at_stop`` among the oddities.
        """
        return self.table.stop_waiting()

    # Outputs

    def next_deadline(self) -> int | None:
        """Return when the next probe is to be given up, in nanoseconds; None while none waits."""
        return self.table.next_deadline()

    def summary(self) -> Summary:
        """Return the figures as they stand; what still waits for its answer is in none but ``sent``."""
        table = self.table
        return Summary.of(
            table=table,
            names=self._names,
            protocol=self._protocol,
            duration_ns=max(0, self.ended_ns - self.started_ns),
            rtt=self.rtt,
            jitter_ns=self.jitter.value_ns,
            one_way=self.one_way if self._protocol == "rpc" else None,
            schedule_error=self.schedule_error,
            kernel_times=self.kernel_times,
        )
