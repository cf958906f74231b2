"""The trace as a ladder diagram: a column for each host, an arrow for each datagram, time going down.

Theory of operation: what happened is first put into its one order. A datagram's sending knows how many fates had been
decided before it, and a fate its rank, so the two interleave without looking at times, many of which are equal. A
datagram that arrives gets one line if nothing that its receiver saw lies between the sending and the arrival, and
nothing that it sent at an earlier time than the arrival's: then the line may stand at the sending, and no two lines
contradict each other. Otherwise it gets two, with its number on both. What a line looks like is :mod:`._picture`'s
part.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ._describe import arrives, ascii_line, describe, fate_of, tries, what_arrives
from ._picture import Arrow, Part, Picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ._trace import Trace, TraceNote, TraceRecord

__all__ = ["WIDTH", "Window", "draw"]

WIDTH: Final = 80
"""Characters of a line, unless told otherwise: a terminal's."""

_Moment: TypeAlias = "tuple[int, int, int, int]"
"""A place in the one order of all that happened."""


class Window(NamedTuple):
    """Which part of a trace is drawn."""

    hosts: Sequence[str] = ()
    """The columns, by the hosts' first addresses; none for all that have a part."""
    since: float = 0.0
    """Seconds; what was before is left out."""
    until: float = math.inf
    """Seconds; what was after is left out."""
    last: int | None = None
    """How many datagrams at most, the latest."""


def draw(
    trace: Trace,
    addresses: Mapping[str, Sequence[str]],
    names: Mapping[str, Sequence[str]],
    window: Window,
    width: int = WIDTH,
) -> str:
    """Draw a trace; see :meth:`SimulatedNetwork.explain`.

    Args:
        trace: What to draw.
        addresses: The addresses of each host, by the first of them.
        names: The table of host names.
        window: The part to draw.
        width: Characters of a line.
    """
    everything = list(trace)
    attempts = tries(everything)
    records, since = _in_window(everything, window)
    notes = [note for note in trace.notes if note.host in {"", *(window.hosts or addresses)}]
    words = {record.number: describe(record, attempts.get(record.number, 1), addresses) for record in records}
    placed = [*_arrows(records, notes, words, since), *_remarks(notes)]
    placed = [(moment, arrow) for moment, arrow in placed if since <= arrow.time <= window.until]
    arrows = [arrow for _, arrow in sorted(placed, key=lambda item: item[0])]
    taking_part = {host for arrow in arrows for host in (arrow.start, arrow.end)}
    columns = list(window.hosts) or [name for name in addresses if name in taking_part] or list(addresses)
    headings = {name: _heading(addresses[name], names) for name in columns}
    drawn = {arrow.record.number for arrow in arrows if arrow.record}
    left_out = trace.forgotten + len(everything) - len(drawn)
    lines = [f"({left_out:,} more datagrams were sent, which are not shown)"] if left_out else []
    lines += Picture(headings, arrows, width).lines() if arrows and columns else ["(nothing was sent)"]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _in_window(records: list[TraceRecord], window: Window) -> tuple[list[TraceRecord], float]:
    """Return the records that have a part in a window, and where that begins once the last ones are chosen."""
    hosts = {"", *window.hosts}
    chosen = [
        record
        for record in records
        if any(window.since <= time <= window.until for time in (record.time, record.settled_at or record.time))
        and (not window.hosts or (record.sender in hosts and record.receiver in hosts))
    ]
    if window.last is None or window.last >= len(chosen):
        return chosen, window.since
    chosen = chosen[len(chosen) - max(0, window.last) :]
    return chosen, max(window.since, chosen[0].time) if chosen else math.inf


def _arrows(
    records: list[TraceRecord], notes: list[TraceNote], words: Mapping[int, str], since: float
) -> Iterator[tuple[_Moment, Arrow]]:
    on_one_line = _on_one_line(records, notes)
    for record in records:
        text = words[record.number]
        fate = fate_of(record)
        whole = Arrow(record.time, record.sender, record.receiver, text + fate, record, Part.WHOLE)
        if record.number in on_one_line and (record.time >= since or not arrives(record)):
            yield _sent(record), whole
        else:
            yield _sent(record), whole._replace(words=text, part=Part.SENT)
            arrival = whole._replace(words=what_arrives(record) + fate, part=Part.ARRIVED)
            yield _settled(record), arrival._replace(time=record.settled_at or 0.0)


def _remarks(notes: list[TraceNote]) -> Iterator[tuple[_Moment, Arrow]]:
    for note in notes:
        yield _noted(note), Arrow(note.time, note.host, note.host, ascii_line(note.text))


def _on_one_line(records: list[TraceRecord], notes: list[TraceNote]) -> set[int]:
    """Return the numbers of the datagrams that need no second line for their arrival."""
    hosts: defaultdict[str, _HostStory] = defaultdict(_HostStory)
    for record in records:
        hosts[record.sender].sendings.append((record.time, _sent(record)))
        if arrives(record):
            hosts[record.receiver].arrivals.append(record)
    for note in notes:
        hosts[note.host].notes.append(_noted(note))
    apart = {record.number for story in hosts.values() for record in story.with_two_lines()}
    return {record.number for record in records} - apart


class _HostStory:
    """What a host did and saw, each in order."""

    def __init__(self) -> None:
        self.sendings: list[tuple[float, _Moment]] = []
        self.notes: list[_Moment] = []
        self.arrivals: list[TraceRecord] = []
        """In the order of sending."""

    def with_two_lines(self) -> Iterator[TraceRecord]:
        """Yield the arrivals before which the host did or saw something, after they were sent."""
        # The first arrival among those that were sent later: before it, a datagram was not overtaken.
        overtaken_at: list[_Moment] = []
        first: _Moment = (2**62, 0, 0, 0)
        for record in reversed(self.arrivals):
            overtaken_at.append(first)
            first = min(first, _settled(record))
        second_lines: list[_Moment] = []
        for record in self.arrivals:
            start, end = _sent(record), _settled(record)
            if (
                overtaken_at.pop() < end
                or self._sent_between(record, start)
                or _any_between(self.notes, start, end)
                or _any_between(second_lines, start, end)
            ):
                bisect.insort(second_lines, end)
                yield record

    def _sent_between(self, record: TraceRecord, start: _Moment) -> bool:
        # Not at the very time of the arrival: a burst whose datagrams are answered one by one is told well as it is.
        place = bisect.bisect_right(self.sendings, (record.time, start))
        return place < len(self.sendings) and self.sendings[place][0] < (record.settled_at or 0.0)


def _any_between(moments: list[_Moment], start: _Moment, end: _Moment) -> bool:
    place = bisect.bisect_right(moments, start)
    return place < len(moments) and moments[place] < end


def _sent(record: TraceRecord) -> _Moment:
    return record.fates_before, 0, record.number, 1


def _noted(note: TraceNote) -> _Moment:
    return note.fates_before, 0, note.number, 0


def _settled(record: TraceRecord) -> _Moment:
    return record.rank, 1, 0, 0


def _heading(addresses: Sequence[str], names: Mapping[str, Sequence[str]]) -> list[str]:
    known = (name for name, meant in names.items() if name != "localhost" and not {*addresses}.isdisjoint(meant))
    return [*map(ascii_line, [*known][:1]), *addresses]
