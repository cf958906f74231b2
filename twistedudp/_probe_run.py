"""A series of probes while it runs: what is sent when, what arrives, and how it ends.

Theory of operation: see :mod:`._prober`, whose parts these are. :class:`Sending` writes what is due, :class:`ProbePort`
takes what arrives, both give it to the :class:`~twistedudp.probing.ProbeSeries`, and :class:`ProbeRun` looks after what
comes from that: events for the owner, deadlines of answers, the question for an rpc server's counts, and the end.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ._alarm import Alarm
from ._pacing import ArrivalClock, Ticker
from .errors import InvalidAddress, LocalError
from .probing import COUNTS_ONLY, ProbeEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall

    from ._pacing import Clocks
    from ._prober import Schedule
    from .address import Address
    from .interfaces import Unreachable
    from .probing import ProbeSeries, Summary

__all__ = [
    "COUNTS_QUESTIONS",
    "LEAST_COUNTS_WAIT_NS",
    "MAX_STRANGERS",
    "MOST_BEHIND_NS",
    "MOST_LOOKS",
    "PROBES_PER_TURN",
    "ProbePort",
    "ProbeRun",
    "Sending",
]

PROBES_PER_TURN: Final = 64
"""Probes sent before the reactor gets its turn: at some 10 us each less than a millisecond, for answers are waiting."""

MOST_BEHIND_NS: Final = 1_000_000_000
"""Nanoseconds by which a probe may be late and is sent all the same. What is later was missed, because the process was
suspended or the rate is beyond it: a burst would measure something else than what was asked for."""

MAX_STRANGERS: Final = 16
"""Addresses other than the server's whose datagrams are counted one by one: more than a server with several has."""

COUNTS_QUESTIONS: Final = 3
"""How often an rpc server is asked for its counts: with 30 % loss each way seven of eight series get an answer."""

LEAST_COUNTS_WAIT_NS: Final = 50_000_000
"""Nanoseconds for which such an answer is waited for at least; else four mean round trips, and never the timeout's."""

MOST_LOOKS: Final = 64
"""Turns in which the port may read what has come in time before probes are given up: at 128 datagrams a turn, more
than a receive buffer holds."""

_ROUNDING_NS: Final = 1_000  # timers are in seconds, which are floats
_NS: Final = 1_000_000_000

_WHY_NOT_SENT: Final = {
    errno.EPERM: "a firewall on this machine forbids it",
    errno.ENOBUFS: "the network device of this machine takes no more at present",
    errno.EAGAIN: "the send buffer of this machine is full",
}
"""What an ``errno`` says where the system's own words are of little help."""

_CALLERS_MISTAKES: Final = (LocalError, ValueError, OverflowError, LookupError, TypeError)

_log = Logger(namespace="twistedudp")


class ProbeRun:
    """A prober while it runs: from the opening of its port to the summary.

    Attributes:
        series: The account.
        arrivals: The clock by which answers arrive.
        port: The port; None before it is open.
        done: Fires with the summary when the port is closed.
        ended: Whether the end has come.
    """

    def __init__(
        self, reactor: Any, clocks: Clocks, series: ProbeSeries, on_event: Callable[[ProbeEvent], None] | None
    ) -> None:
        self.series = series
        self.arrivals = ArrivalClock(clocks, series.clock_jumped)
        self.port: Any = None
        self.done: Deferred[Summary] = Deferred(lambda _: self.end(_failure(CancelledError())))
        self.ended = False
        self._reactor = reactor
        self._on_event = on_event
        self._sending: Sending | None = None
        self._questions_left = COUNTS_QUESTIONS
        self._alarm = Alarm(reactor, lambda: clocks.monotonic_ns() / _NS, self._deadline_near)
        self._alarm_set = False
        self._delayed: IDelayedCall | None = None

    def begin(self, sending: Sending) -> None:
        """Begin to send."""
        self._sending = sending

    def happened(self, event: ProbeEvent) -> None:
        """Tell of an event, and go on where it is what was waited for."""
        if self.ended:
            return
        if self._sending is not None:
            self._sending.catch_up()
        if event.newly_lost:  # whoever counts lost ones is told of each
            self._tell(ProbeEvent("lost", event.sequence, sent_ns=event.sent_ns))
        self._tell(event)
        if event.kind == "counts":
            self.end(None)
        elif self._sending is not None and self._sending.over:
            self.go_on()

    def _tell(self, event: ProbeEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # noqa: BLE001  # whoever displays it must not change what is measured
                _log.failure("the receiver of a probe's event failed")

    def sent_some(self) -> None:
        """See to the next deadline, unless one is seen to already, for that of a later probe is later."""
        if not self._alarm_set or self._sending is None or self._sending.over:
            self.go_on()

    def go_on(self) -> None:
        """See to the next deadline; when nothing is sent any more and none is left, to the counts and the end."""
        if self.ended or self._sending is None or self._questions_left < COUNTS_QUESTIONS:
            return
        deadline_ns = self.series.next_deadline()
        if deadline_ns is not None:
            self._alarm.at(deadline_ns / _NS)
            self._alarm_set = True
        elif self._sending.over:
            self._ask()

    def stop(self) -> None:
        """End at once."""
        if not self.ended:
            self.series.stop_waiting()
            self.end(None)

    def end(self, failure: Failure | None) -> None:
        """Close everything, and then fire with the summary or the failure."""
        if self.ended:
            return
        self.ended = True
        if self._sending is not None:
            self._sending.stop()
        self._alarm.cancel()
        self._later(None)
        outcome = self.series.summary() if failure is None else failure
        closed = maybeDeferred(self.port.stopListening) if self.port is not None else Deferred()
        closed.addBoth(lambda _: None if self.done.called else self.done.callback(outcome))

    def _ask(self) -> None:
        """Ask for the server's counts, until they come; end where there is nothing to ask, or nothing to hope for."""
        self._alarm.cancel()
        question = self.series.counts_question(now_ns=self.arrivals.look())
        if question is None or not self._questions_left or self._sending is None:
            self.end(None)
            return
        self._questions_left -= 1
        wait_ns = max(LEAST_COUNTS_WAIT_NS, 4 * self.series.rtt.mean_ns)
        self._later(min(wait_ns, self.series.table.timeout_ns) / _NS, self._ask)
        self._sending.ask(question)

    def _deadline_near(self, _now: float) -> None:
        """Let the port read what has come in time before anything is given up."""
        self._alarm_set = False
        self._look(self.arrivals.look() + _ROUNDING_NS, MOST_LOOKS)

    def _look(self, now_ns: int, looks: int) -> None:
        self._later(0, self._looked, now_ns, looks - 1, self._cut_short())

    def _looked(self, now_ns: int, looks: int, cut_short: int) -> None:
        """Give up what was due before the port's last look at its socket."""
        self._delayed = None
        if looks and self._cut_short() > cut_short:
            self._look(now_ns, looks)
            return
        for event in self.series.deadline_reached(now_ns=now_ns):
            self.happened(event)
        self.go_on()

    def _cut_short(self) -> int:
        """Return how many of the port's turns ended before it had read everything."""
        stats = getattr(self.port, "stats", None)
        return 0 if stats is None else int(stats.turns_cut_short)

    def _later(self, seconds: float | None, function: Callable[..., None] | None = None, *arguments: int) -> None:
        """Call something later, instead of what was to be called before; None calls nothing."""
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        self._delayed = None if function is None else self._reactor.callLater(seconds, function, *arguments)


class _Pace:
    """Which probe is due when.

    Attributes:
        due_ns: When the next one is.
    """

    __slots__ = ("_ends_ns", "_interval_ns", "_left", "due_ns")

    def __init__(self, schedule: Schedule, start_ns: int) -> None:
        self.due_ns = start_ns
        self._interval_ns = max(1, schedule.interval_ns)
        self._ends_ns = None if schedule.duration_ns is None else start_ns + schedule.duration_ns
        self._left = COUNTS_ONLY if schedule.count is None else min(schedule.count, COUNTS_ONLY)

    @property
    def over(self) -> bool:
        """Whether no probe is to be sent any more."""
        return self._left <= 0 or (self._ends_ns is not None and self.due_ns >= self._ends_ns)

    def next(self) -> None:
        """Go on to the next probe."""
        self._left -= 1
        self.due_ns += self._interval_ns

    def skip(self, now_ns: int) -> int:
        """Pass over what was missed by too much; return how many probes that is."""
        if now_ns - self.due_ns <= MOST_BEHIND_NS:
            return 0
        if self._ends_ns is not None:  # what would be due after the end is not missed
            now_ns = min(now_ns, self._ends_ns + self._interval_ns - 1)
        missed = (now_ns - self.due_ns) // self._interval_ns
        self.due_ns += missed * self._interval_ns
        return missed


class Sending:
    """The sending of a series, until its schedule has ended or it is stopped.

    Attributes:
        over: Whether it has ended.
    """

    def __init__(self, run: ProbeRun, reactor: Any, clocks: Clocks, peer: Address, schedule: Schedule) -> None:
        self.over = False
        self._run = run
        self._series = run.series
        self._monotonic_ns = clocks.monotonic_ns
        self._peer = peer
        self._write = run.port.write
        self._next_probe = run.series.table.next_probe
        stats = getattr(run.port, "stats", None)  # the object stays the same, and to ask for it costs a system call
        self._errors: Mapping[int, int] = {} if stats is None else stats.send_errors
        self._errors_known: dict[int, int] = {}
        self._made: tuple[int, int] | None = None
        self._pace = _Pace(schedule, run.arrivals.look())
        self._ticker = Ticker(reactor, self._due, clocks.monotonic_ns)
        self._ticker.at(self._pace.due_ns)

    def stop(self) -> None:
        """Send no more."""
        self.over = True
        self._ticker.cancel()
        self.catch_up()

    def catch_up(self) -> None:
        """Do what was put off when the last probe was sent."""
        made, self._made = self._made, None
        if made is not None:
            self._series.probe_made(due_ns=made[0], now_ns=made[1])

    def ask(self, question: bytes) -> None:
        """Send what is no probe; it goes the way that all probes went."""
        with suppress(MessageLengthError, OSError, *_CALLERS_MISTAKES):
            self._write(question, self._peer)

    def _due(self) -> None:
        """Send what is due, as far as a turn allows, and ask to be called for the rest.

        All that can be done before a probe is written is, and the rest is put off until its answer is there: a server
        on the same machine has the processor sooner then, and answers sooner.
        """
        self.catch_up()
        pace = self._pace
        now_ns = self._run.arrivals.look()
        missed = pace.skip(now_ns)
        if missed:
            self._series.table.oddities["skipped_deadlines"] += missed
        set_for = -1
        for _ in range(PROBES_PER_TURN):
            if self.over or pace.over or pace.due_ns > now_ns + _ROUNDING_NS:
                break
            due_ns = pace.due_ns
            pace.next()
            if pace.due_ns > now_ns and not pace.over:
                set_for = pace.due_ns
                self._ticker.at(set_for)
            self._send(due_ns)
            now_ns = self._monotonic_ns()
        if pace.over:
            self.stop()
        elif pace.due_ns != set_for:
            self._ticker.at(pace.due_ns)
        self._run.sent_some()

    def _send(self, due_ns: int) -> None:
        """Send one probe, and learn whether the own machine did so."""
        self.catch_up()
        if self._errors:
            self._errors_known = dict(self._errors)
        reason = ""
        self._series.table.wire.encode(0, 0)  # only that the processor has it at hand: it halves the time that counts
        now_ns = self._monotonic_ns()  # from here to the write, every microsecond lengthens the round trip
        sequence, probe, given_up = self._next_probe(now_ns=now_ns)
        try:
            self._write(probe, self._peer)
        except _CALLERS_MISTAKES as error:
            self._series.probe_not_sent(sequence, str(error))
            self._run.end(_failure(_mistake(error)))
            return
        except MessageLengthError as error:
            reason = str(error)
        except OSError as error:  # of a reactor's own port, which has no counters
            reason = _why_not_sent(error.errno or 0)
        self._made = due_ns, now_ns
        if self._errors:
            for number, count in self._errors.items():
                if count != self._errors_known.get(number):
                    reason = _why_not_sent(number)
        if given_up is not None:
            self._run.happened(given_up)
        if reason:
            self._run.happened(self._series.probe_not_sent(sequence, reason))


class ProbePort(DatagramProtocol):
    """The port's side of a series: what arrives, by what it is.

    It takes single datagrams, not batches: those of a batch may have shared a buffer, and would have one time for all.
    """

    noisy = False
    transport: Any

    def __init__(self, run: ProbeRun, peer: Address, strangers: dict[Address, int]) -> None:
        self._peer = peer
        self._run = run
        self._series = run.series
        self._strangers = strangers

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take what may be an answer."""
        times = getattr(self.transport, "arrival_times", None)
        arrived_ns, by_kernel, now_ns = self._run.arrivals.arrived(times[0] if times else None)
        if addr == self._peer:
            event = self._series.reply_received_untrusted(
                datagram, arrived_ns=arrived_ns, kernel_time=by_kernel, read_ns=now_ns
            )
        else:
            event = self._series.stranger_received(arrived_ns=arrived_ns)
            if addr in self._strangers or len(self._strangers) < MAX_STRANGERS:
                self._strangers[addr] = self._strangers.get(addr, 0) + 1
        self._run.happened(event)

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take an ICMP error; what the own kernel says was seen at the write already."""
        if peer == self._peer and reason.icmp_type:
            text = f"{reason.reason} (says {reason.reporter})" if reason.reporter else reason.reason
            event = self._series.probe_unreachable_untrusted(quoted, text, now_ns=self._run.arrivals.look())
            self._run.happened(event)

    def stopProtocol(self) -> None:
        """Learn that the port is closed, perhaps because the reactor ends."""
        self._run.stop()


def _mistake(error: Exception) -> LocalError:
    """Return what to tell of an address that cannot be sent to."""
    return error if isinstance(error, LocalError) else InvalidAddress(": ".join(map(str, error.args)))


def _why_not_sent(number: int) -> str:
    """Return in words why the own machine did not send a probe."""
    return f"{_WHY_NOT_SENT.get(number, os.strerror(number))} ({errno.errorcode.get(number, number)})"


def _failure(error: Exception) -> Failure:
    return Failure(error)  # type: ignore[no-untyped-call]  # Twisted has no types there
