"""Which probes were answered: the sequence numbers of one series, and what became of each.

Theory of operation: no I/O and no clock; times are arguments, in nanoseconds of a clock that does not go back. The last
:attr:`ProbeTable.window` probes are remembered in two rings, their send times and their fates, so that memory does not
grow with the length of a series. A probe is *received* when its first intact answer comes within the timeout, and
*lost* when the timeout has passed without one; an answer after that is *late*, and its probe stays lost. An answer is
*reordered* if a probe sent after its own was answered before (RFC 4737). Whatever else comes is counted by what is odd
about it, and changes none of the figures: sent = received + lost + what still waits, always.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import DecodeError
from ._wire import COUNTS_ONLY, PROBE_METHOD

if TYPE_CHECKING:
    from ._wire import ProbeWire, ServerSide

__all__ = ["DEFAULT_WINDOW", "ProbeEvent", "ProbeTable"]

DEFAULT_WINDOW: Final = 65536
"""Probes remembered, 9 bytes each: at the 1 ms of the shortest interval they reach back a minute."""

_UNUSED, _WAITING, _RECEIVED, _LOST, _LATE, _NOT_SENT, _TAKEN_BACK = range(7)


class ProbeEvent(NamedTuple):
    """Something that happened to a probe, or a datagram that is no answer to any."""

    kind: str
    """``reply``, ``duplicate``, ``late``, ``lost``, ``unreachable``, ``not_sent``, ``corrupted``, ``foreign``,
    ``counts`` (the answer to :data:`COUNTS_ONLY`). A ``late`` one's probe is lost, whether that was told before or
    not."""
    sequence: int = -1
    """The probe's; -1 where no probe is meant."""
    rtt_ns: int = -1
    """Nanoseconds from sending to the arrival of the answer; -1 where there is none."""
    reordered: bool = False
    server: ServerSide | None = None
    sent_ns: int = -1
    """When the probe was sent, by the clock of the arguments; -1 where no probe is meant or it is forgotten."""
    arrived_ns: int = -1
    detail: str = ""
    """What is odd, in a stable word (``wrong_sequence``), the words of an ICMP error, or an rpc server's error code."""
    newly_lost: bool = False
    """Whether this ``late`` answer is the first to tell that its probe is lost: no ``lost`` comes for it."""


class ProbeTable:  # budget: counters are what it is for
    """The probes of one series.

    Args:
        wire: How they look.
        timeout_ns: Nanoseconds after which an answer is late.
        window: Probes remembered; when more wait for their answers at once, the oldest are given up as lost.

    Attributes:
        wire: As given.
        sent: Probes sent.
        received: Of these, those with an intact answer in time.
        lost: Of these, those without.
        late: Of the lost ones, those answered after the timeout.
        reordered: Of the received ones, those whose answer came behind a later probe's.
        duplicated: Further answers to probes that had one.
        corrupted: Answers that were changed on their way; their probes are lost unless another answer comes.
        foreign: Datagrams that are no answers to this series.
        unreachable: ICMP errors that quote a probe.
        not_sent: Probes that the own machine did not send; they are not among the sent ones.
        errors: Of the received ones, those answered with an error by an rpc server without ``rpc.probe``.
        counts_asked: Whether an answer to :data:`COUNTS_ONLY` can be one.
        oddities: What was odd about ``foreign``, ``corrupted`` and everything else, by stable words.
    """

    def __init__(self, wire: ProbeWire, *, timeout_ns: int, window: int = DEFAULT_WINDOW) -> None:
        self.wire = wire
        self.timeout_ns = timeout_ns
        self.window = window
        self.sent = self.received = self.lost = self.late = self.reordered = self.duplicated = 0
        self.corrupted = self.foreign = self.unreachable = self.not_sent = self.errors = 0
        self.oddities: Counter[str] = Counter()
        self.counts_asked = False
        self._sent_ns = array("q", bytes(8 * window))
        self._fates = bytearray(window)
        self._next = 0
        self._oldest = 0  # the first that may still be waiting
        self._highest = -1  # of those answered in time

    @property
    def waiting(self) -> int:
        """Probes whose fate is open."""
        return self.sent - self.received - self.lost

    @property
    def next_sequence(self) -> int:
        """The number that the next probe will have."""
        return self._next

    def next_probe(self, *, now_ns: int) -> tuple[int, bytes, ProbeEvent | None]:
        """Return the next probe's number and bytes, and the event of one that had to be given up for it."""
        sequence = self._next
        given_up = None
        if sequence - self._oldest >= self.window:
            given_up = self._settle_oldest()
            if given_up is not None:
                self.oddities["window_full"] += 1
        place = sequence % self.window
        self._sent_ns[place] = now_ns
        self._fates[place] = _WAITING
        self._next += 1
        self.sent += 1
        return sequence, self.wire.encode(sequence, now_ns), given_up

    def probe_not_sent(self, sequence: int, reason: str) -> ProbeEvent:
        """Take a probe back that could not be sent at all."""
        place = sequence % self.window
        if self._known(sequence) and self._fates[place] == _WAITING:
            self._fates[place] = _NOT_SENT
            self.sent -= 1
            self.not_sent += 1
        return ProbeEvent("not_sent", sequence, detail=reason)

    def reply_received_untrusted(self, datagram: bytes, *, arrived_ns: int, read_ns: int = -1) -> ProbeEvent:
        """Take a datagram that came from the server; cannot fail.

        Args:
            datagram: Its payload.
            arrived_ns: When it arrived.
            read_ns: When it was read, where that is another time: it counts where the other cannot be true.
        """
        try:
            reply = self.wire.decode_untrusted(datagram)
        except DecodeError:
            return self._odd_untrusted(datagram, arrived_ns)
        sequence = reply.sequence
        if sequence == COUNTS_ONLY and self.counts_asked:
            return ProbeEvent("counts", server=reply.server, arrived_ns=arrived_ns)
        place = sequence % self.window
        fate, sent_ns = self._fates[place], self._sent_ns[place]
        if not self._known(sequence) or fate in (_NOT_SENT, _TAKEN_BACK):
            forgotten = sequence < self._next - self.window
            return self._foreign("forgotten_sequence" if forgotten else "wrong_sequence", arrived_ns)
        if reply.sent_ns not in (-1, sent_ns):
            return self._corrupted(sequence, arrived_ns)
        rtt_ns = arrived_ns - sent_ns
        if rtt_ns < 0:  # the clock by which it arrived was set and set back
            self.oddities["answered_before_sent"] += 1
            rtt_ns = max(0, read_ns - sent_ns)
        kind, reordered = self._settle(fate, place, sequence, rtt_ns)
        if reply.error and kind == "reply":
            self.errors += 1
        newly_lost = kind == "late" and fate == _WAITING
        return ProbeEvent(kind, sequence, rtt_ns, reordered, reply.server, sent_ns, arrived_ns, reply.error, newly_lost)

    def stranger_received(self, *, arrived_ns: int) -> ProbeEvent:
        """Count a datagram that came from another address than the server's."""
        return self._foreign("from_another_address", arrived_ns)

    def probe_unreachable_untrusted(self, quoted: bytes, reason: str, *, now_ns: int) -> ProbeEvent:
        """Take an ICMP error; one that quotes no probe of this series is an oddity, for it may be forged.

        Old routers quote too little to tell (RFC 792 asks for no more than the UDP header), which has its own word.
        """
        sequence = self.wire.quoted_sequence_untrusted(quoted)
        if not (self._known(sequence) or (sequence == COUNTS_ONLY and self.counts_asked)):
            what = "icmp_error_without_quote" if self.wire.quote_too_short(quoted) else "forged_icmp_error"
            self.oddities[what] += 1
            return ProbeEvent("foreign", arrived_ns=now_ns, detail=what)
        self.unreachable += 1
        sent_ns = self._sent_ns[sequence % self.window] if self._known(sequence) else -1
        return ProbeEvent("unreachable", sequence, sent_ns=sent_ns, arrived_ns=now_ns, detail=reason)

    def deadline_reached(self, *, now_ns: int) -> list[ProbeEvent]:
        """Give up the probes whose timeout has passed; return an event for each."""
        events = []
        while self._oldest < self._next:
            place = self._oldest % self.window
            if self._fates[place] == _WAITING and self._sent_ns[place] + self.timeout_ns > now_ns:
                break
            event = self._settle_oldest()
            if event is not None:
                events.append(event)
        return events

    def next_deadline(self) -> int | None:
        """Return when the next probe is to be given up, in nanoseconds; None while none waits."""
        while self._oldest < self._next:
            place = self._oldest % self.window
            if self._fates[place] == _WAITING:
                return self._sent_ns[place] + self.timeout_ns
            self._oldest += 1
        return None

    def stop_waiting(self) -> int:
        """Take back the probes that still wait for their answers; return how many these were."""
        taken = self.waiting
        for sequence in range(max(self._oldest, self._next - self.window), self._next):
            place = sequence % self.window
            if self._fates[place] == _WAITING:
                self._fates[place] = _TAKEN_BACK
        self.sent -= taken
        if taken:
            self.oddities["unanswered_at_stop"] += taken
        return taken

    def sent_until(self, sequence: int) -> int:
        """Return how many probes have left up to one of those remembered, that one included; -1 if it is forgotten."""
        if not self._known(sequence):
            return -1
        after = sum(self._fates[later % self.window] != _NOT_SENT for later in range(sequence + 1, self._next))
        return self.sent + self.oddities["unanswered_at_stop"] - after

    def _known(self, sequence: int) -> bool:
        return max(0, self._next - self.window) <= sequence < self._next

    def _settle(self, fate: int, place: int, sequence: int, rtt_ns: int) -> tuple[str, bool]:
        """Count an intact answer; return the kind of its event and whether it is reordered."""
        if fate in (_RECEIVED, _LATE):
            self.duplicated += 1
            return "duplicate", False
        if fate == _WAITING and rtt_ns <= self.timeout_ns:
            self._fates[place] = _RECEIVED
            self.received += 1
            reordered = sequence < self._highest
            self.reordered += reordered
            self._highest = max(self._highest, sequence)
            return "reply", reordered
        if fate == _WAITING:  # the deadline has passed, and nobody has said so yet
            self.lost += 1
        self._fates[place] = _LATE
        self.late += 1
        return "late", False

    def _settle_oldest(self) -> ProbeEvent | None:
        """Pass on to the next probe; return the event of this one if it becomes lost."""
        sequence = self._oldest
        self._oldest += 1
        place = sequence % self.window
        if self._fates[place] != _WAITING:
            return None
        self._fates[place] = _LOST
        self.lost += 1
        return ProbeEvent("lost", sequence, sent_ns=self._sent_ns[place])

    def _odd_untrusted(self, datagram: bytes, arrived_ns: int) -> ProbeEvent:
        """Say what is odd about a datagram that is no answer: changed on its way, or of another origin."""
        if self.wire.resembles_untrusted(datagram, self._next):
            if len(datagram) != self.wire.size:
                self.oddities["wrong_size"] += 1
            return self._corrupted(-1, arrived_ns)
        return self._foreign("other_series" if PROBE_METHOD.encode() in datagram[:32] else "not_a_probe", arrived_ns)

    def _corrupted(self, sequence: int, arrived_ns: int) -> ProbeEvent:
        self.corrupted += 1
        return ProbeEvent("corrupted", sequence, arrived_ns=arrived_ns, detail="corrupted")

    def _foreign(self, what: str, arrived_ns: int) -> ProbeEvent:
        self.foreign += 1
        self.oddities[what] += 1
        return ProbeEvent("foreign", arrived_ns=arrived_ns, detail=what)
