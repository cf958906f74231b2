"""A run as ``udpecho ping --json`` printed it, read back.

Theory of operation: what a comparison needs of the JSON object, checked. A file may hold anything, so whatever is not
what ``ping`` prints is an error whose text names the member.
"""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ._summary import SUMMARY_FORMAT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LARGEST_HISTOGRAM", "Bucket", "Run", "run_of_json_untrusted"]

LARGEST_HISTOGRAM: Final = 1 << 20
"""Characters of an encoded histogram that are read: one with every count different has less than a tenth of it."""


LARGEST_PAYLOAD: Final = 1 << 22
"""Bytes of one without its compression: a count takes nine at most."""

_COOKIE: Final = 8  # bytes in front of what is compressed: a cookie and a length


class Bucket(NamedTuple):
    """Round trips that a histogram does not tell apart."""

    low: float
    """Seconds."""
    high: float
    """Seconds."""
    answers: int
    """How many of them there are."""


@dataclass(frozen=True)
class Run:  # budget: they are what a summary has
    """The figures of one run; times in seconds.

    Attributes:
        address: The server's address and port.
        protocol: What answered.
        size: Bytes of a probe's payload.
        interval: Seconds between two probes.
        received: Probes with an intact answer in time.
        lost: Probes without.
        mean: Of the round trips; None where there are none.
        stddev: Their standard deviation.
        shortest: The least of them.
        longest: The greatest.
        jitter: As RFC 3550 has it; None where there are fewer than two.
        buckets: The round trips, in order.
    """

    address: str
    protocol: str
    size: int
    interval: float
    received: int
    lost: int
    mean: float | None
    stddev: float
    shortest: float
    longest: float
    jitter: float | None
    buckets: tuple[Bucket, ...]

    @property
    def settled(self) -> int:
        """Probes of which it is known what became of them."""
        return self.received + self.lost

    def clamped(self, value: float) -> float:
        """Return a value of the histogram, moved between the shortest and the longest round trip if it is outside."""
        return min(max(value, self.shortest), self.longest)


def run_of_json_untrusted(value: object) -> Run:
    """Return the run that an object as of ``udpecho ping --json`` describes.

    Args:
        value: What ``json.loads`` made of it.

    Raises:
        ValueError: It is none; the text says what is wrong.
    """
    if not isinstance(value, dict) or "format" not in value:
        raise ValueError("it is no summary of 'udpecho ping --json'")
    if value["format"] != SUMMARY_FORMAT:
        raise ValueError(f"it has format {value['format']!r}, and this version reads format {SUMMARY_FORMAT}")
    received = _count(value, "received")
    there_are = received > 0
    return Run(
        address=_text(value, "address"),
        protocol=_text(value, "protocol"),
        size=_count(value, "size"),
        interval=_number(value, "interval"),
        received=received,
        lost=_count(value, "lost"),
        mean=_number(value, "mean") if there_are else None,
        stddev=_number(value, "stddev") if there_are else 0.0,
        shortest=_number(value, "min") if there_are else 0.0,
        longest=_number(value, "max") if there_are else 0.0,
        jitter=_number(value, "jitter") if received > 1 else None,
        buckets=_buckets_untrusted(_text(value, "histogram"), received) if there_are else (),
    )


def _member(value: Mapping[str, object], name: str) -> object:
    if name not in value:
        raise ValueError(f"its member {name!r} is missing: it is no summary of 'udpecho ping --json'")
    return value[name]


def _text(value: Mapping[str, object], name: str) -> str:
    member = _member(value, name)
    if not isinstance(member, str):
        raise ValueError(f"its member {name!r} is no text")  # noqa: TRY004  # the type is the file's, not the caller's
    return member


def _count(value: Mapping[str, object], name: str) -> int:
    member = _member(value, name)
    if type(member) is not int or not 0 <= member < 2**53:
        raise ValueError(f"its member {name!r} is no count")
    return member


def _number(value: Mapping[str, object], name: str) -> float:
    member = _member(value, name)
    if type(member) not in (int, float) or not 0 <= member < 1e9:  # type: ignore[operator]  # it is a number by now
        raise ValueError(f"its member {name!r} is no number of seconds")
    number = float(member)  # type: ignore[arg-type]  # likewise
    if not math.isfinite(number):
        raise ValueError(f"its member {name!r} is no number of seconds")
    return number


def _check_unpacked_untrusted(encoded: str) -> None:
    """Raise ValueError where an encoded histogram unpacks to more than any has: a few kilobytes may hold gigabytes."""
    unpacking = zlib.decompressobj()
    unpacking.decompress(base64.b64decode(encoded)[_COOKIE:], LARGEST_PAYLOAD)
    if unpacking.unconsumed_tail:
        raise ValueError(f"more than {LARGEST_PAYLOAD:,} bytes")


def _buckets_untrusted(encoded: str, received: int) -> tuple[Bucket, ...]:
    """Return what an encoded HdrHistogram of nanoseconds holds."""
    # Inside, for a server, which imports this package, needs none.
    from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # noqa: PLC0415  # it has no types

    if not encoded:
        raise ValueError("its histogram is empty, though probes were answered")
    if len(encoded) > LARGEST_HISTOGRAM:
        raise ValueError(f"its histogram has {len(encoded):,} characters, more than any")
    try:
        _check_unpacked_untrusted(encoded)
        histogram = HdrHistogram.decode(encoded)
        buckets = tuple(
            Bucket(
                histogram.get_lowest_equivalent_value(item.value_iterated_to) / 1e9,
                histogram.get_highest_equivalent_value(item.value_iterated_to) / 1e9,
                int(item.count_added_in_this_iter_step),
            )
            for item in histogram.get_recorded_iterator()
        )
    except Exception as error:  # its exceptions have no base class of their own
        raise ValueError("its histogram is damaged") from error
    if sum(bucket.answers for bucket in buckets) != received:
        raise ValueError("its histogram holds another number of round trips than were received")
    return buckets
