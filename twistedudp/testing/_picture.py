"""How a ladder diagram looks: times on the left, lanes with arrows, words on the right.

Theory of operation: a line is a row of characters with a bar at each host's lane, into which an arrow is written, with
the port numbers at its ends:

    0.100  |40123 ------> 7000|  request 0x1a2b "add", 24 B, +1 ms

Dashes are datagrams and dots ICMP errors; ``>`` and ``<`` arrive, ``x`` does not. An arrow to a far host passes behind
the lanes between. Words that are too long go on below.
"""

from __future__ import annotations

import enum
import string
import textwrap
from typing import TYPE_CHECKING, Final, NamedTuple

from ._describe import arrives
from ._trace import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ._trace import TraceRecord

__all__ = ["Arrow", "Part", "Picture"]

_GAP_LEAST: Final = 15
"""Characters between two lanes: two ports of five digits and an arrow."""
_GAP_MOST: Final = 18
"""Characters after which a wider gap says nothing more."""
_WORDS: Final = 36
"""Characters for the words before gaps get more than the least."""
_WORDS_LEAST: Final = 24
"""Characters for the words at least, though the line become too long."""
_SHAFT: Final = 4
"""Characters of an arrow that ends on the way."""
_TOGETHER: Final = str.maketrans("\xa0", " ")
"""What keeps a number and its unit on one line, and becomes a space then."""


class Part(enum.Enum):
    """What of a datagram's way a line shows."""

    WHOLE = enum.auto()
    SENT = enum.auto()
    ARRIVED = enum.auto()


class Arrow(NamedTuple):
    """A line of the diagram, before it is drawn."""

    time: float
    start: str
    """The host at which it begins, by its first address; empty for a remark about no host."""
    end: str
    """The host where it ends; empty if there is none."""
    words: str
    record: TraceRecord | None = None
    """``None`` for a remark."""
    part: Part = Part.WHOLE


class Picture:
    """A diagram.

    Args:
        headings: What to write above each host's lane, by the host's first address, in the lanes' order.
        arrows: The lines, at least one.
        width: Characters of a line; more are used where the lanes need them.
    """

    def __init__(self, headings: Mapping[str, Sequence[str]], arrows: Sequence[Arrow], width: int) -> None:
        self._headings = headings
        self._arrows = arrows
        exact = all(abs(arrow.time * 1e3 - round(arrow.time * 1e3)) < 1e-6 for arrow in arrows)
        self._decimals = 3 if exact else 6
        first = max(len(self._time(arrow.time)) for arrow in arrows) + 4
        # A host alone, and the space beside it.
        lanes = max(2, len(headings))
        room = width - first - lanes - 2 - _WORDS
        self._gap = min(_GAP_MOST, max(_GAP_LEAST, room // (lanes - 1)))
        self._lanes = {name: first + index * (self._gap + 1) for index, name in enumerate(headings)}
        self._words_at = first + (lanes - 1) * (self._gap + 1) + 3
        self._words_width = max(_WORDS_LEAST, width - self._words_at)

    def lines(self) -> Iterator[str]:
        """Yield the lines from top to bottom."""
        yield from self._header()
        yield self._row("", "", {})
        before = ""
        for arrow in self._arrows:
            time = self._time(arrow.time)
            first, *more = self._wrapped(arrow.words)
            yield self._row(time if time != before else "", first, self._written(arrow))
            yield from (self._row("", words, {}) for words in more)
            before = time

    def _header(self) -> Iterator[str]:
        # The last lane's heading has the words' space as well.
        *others, _ = self._headings.values()
        if any(len(text) > self._gap for heading in others for text in heading):
            letters = [*string.ascii_uppercase, *(f"H{number}" for number in range(27, len(self._headings) + 1))]
            for letter, heading in zip(letters, self._headings.values(), strict=False):
                yield f"{letter} = {', '.join(heading)}"
            headings: list[Sequence[str]] = [[letter] for letter in letters[: len(self._headings)]]
        else:
            headings = list(self._headings.values())
        for line in range(max(map(len, headings))):
            row = ""
            for lane, heading in zip(self._lanes.values(), headings, strict=True):
                row = f"{row:<{lane}}{heading[line] if line < len(heading) else ''}"
            yield row

    def _row(self, time: str, words: str, written: Mapping[int, str]) -> str:
        row = list(f"  {time:>{min(self._lanes.values()) - 4}}".ljust(self._words_at))
        for start, text in written.items():
            row[start : start + len(text)] = text
        for lane in self._lanes.values():
            if written.get(lane) is None:
                row[lane] = "|"
        return "".join(row) + words.translate(_TOGETHER)

    def _written(self, arrow: Arrow) -> dict[int, str]:
        """Return what a line has in its lanes: where, and the text."""
        if arrow.record is None:
            return {self._lanes[arrow.start]: "*"} if arrow.start else {}
        start = self._lanes[arrow.start]
        end = self._lanes.get(arrow.end, start)
        if start == end:
            # There is nothing beyond the last lane, unless it is the only one.
            step = self._gap + 1
            end = start - step if start == max(self._lanes.values()) > min(self._lanes.values()) else start + step
            room = self._gap if arrow.end == "" or arrow.part is not Part.WHOLE else 0
        else:
            room = abs(end - start) - 1
        pieces = _pieces(arrow.record, arrow.part, room)
        if end > start:
            return {start + 1: "".join(pieces)}
        text = "".join("<" if piece == ">" else piece for piece in reversed(pieces))
        return {start - len(text): text}

    def _wrapped(self, words: str) -> list[str]:
        return textwrap.wrap(words, self._words_width, subsequent_indent="  ", break_on_hyphens=False) or [""]

    def _time(self, seconds: float) -> str:
        return f"{seconds:.{self._decimals}f}"


def _pieces(record: TraceRecord, part: Part, room: int) -> list[str]:
    """Return the pieces of an arrow from its start to its end.

    Args:
        record: The datagram.
        part: What of its way is shown.
        room: Characters between the lanes; 0 for what a host sends to itself.
    """
    dash = "." if record.error else "-"
    start, end, number = str(record.source[1]), str(record.destination[1]), str(record.number)
    head = ">" if record.fate in (Fate.DELIVERED, Fate.IN_FLIGHT) else "x"
    if part is Part.SENT:
        return [start, " ", dash * _SHAFT, number]
    if part is Part.ARRIVED:
        pieces = [number, dash * (_SHAFT - 1), head, " ", end]
        return [" " * (room - sum(map(len, pieces))), *pieces]
    if not arrives(record):
        return [start, " ", dash * _SHAFT, head]
    shaft = room - len(start) - len(end) - 3
    return [start, " ", dash * max(_SHAFT - 1, shaft), head, " ", end]
