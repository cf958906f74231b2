"""The summary of a series, as values and as the JSON object that programs read.

Theory of operation: plain values in base units: counts, and seconds as floats. What is not known is ``None``. The
histogram is part of it, so that two runs can be compared later by more than their percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ._figures import Distribution, OneWay
    from ._series import SeriesNames
    from ._table import ProbeTable

__all__ = ["PERCENTILES", "SUMMARY_FORMAT", "Summary", "Times"]

SUMMARY_FORMAT: Final = 1
"""The version of the JSON object; it changes when a member changes its meaning, not when one is added."""

_COUNTS: Final = (
    "sent", "received", "lost", "late", "duplicated", "reordered", "corrupted", "foreign", "unreachable", "not_sent",
)  # fmt: skip
"""Counters that a summary takes over from the table as they are."""

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


def _seconds(nanoseconds: float) -> float:
    return nanoseconds / 1e9


@dataclass(frozen=True)
class Times:
    """A distribution of durations in seconds; all None where there is none."""

    min: float | None = None
    mean: float | None = None
    stddev: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, durations: Distribution) -> Times:
        """Return those of a distribution."""
        if not durations.count:
            return cls()
        p50, p90, p99, p999 = (_seconds(durations.percentile_ns(percent)) for percent in PERCENTILES)
        return cls(
            min=_seconds(durations.shortest_ns),
            mean=_seconds(durations.mean_ns),
            stddev=_seconds(durations.deviation_ns),
            p50=p50,
            p90=p90,
            p99=p99,
            p999=p999,
            max=_seconds(durations.longest_ns),
        )

    def as_json(self) -> dict[str, float | None]:
        """Return it as a JSON object; the 99.9th percentile is called ``p99.9``."""
        return {("p99.9" if field.name == "p999" else field.name): getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Summary:
    """The figures of one series; times in seconds.

    Attributes:
        target: The server as the user named it.
        address: Its address and port.
        protocol: ``"echo"``, ``"rpc"``, ``"rpc, without rpc.probe"``; empty where nothing answered.
        size: Bytes of a probe's payload.
        interval: Seconds between two probes, as asked for.
        duration: Seconds from the first probe to the last thing that happened.
        sent: Probes sent.
        received: Probes with an intact answer in time.
        lost: Probes without one.
        late: Of the lost ones, those answered after the timeout.
        duplicated: Further answers to answered probes.
        reordered: Received ones whose answer came behind a later probe's.
        corrupted: Answers changed on their way.
        foreign: Datagrams that were no answers of this series.
        unreachable: ICMP errors that quote a probe.
        not_sent: Probes that this machine itself did not send.
        oddities: What was odd, by stable words.
        rtt: Round trips of the received ones.
        jitter: Interarrival jitter (RFC 3550) of the round trips at the end.
        histogram: The round trips as an encoded HdrHistogram, in nanoseconds; empty where there are none.
        schedule_error: How much later than planned the probes were sent.
        kernel_times: Whether the kernel told when answers arrived.
        lost_there: Probes that did not reach the server; None where it does not tell. Where it was not asked for its
            counts at the end, those up to the last answered one.
        lost_back: Answers that did not come back; likewise. Late ones did: ``lost = there + back + late``.
        duplicated_there: Probes that reached the server more than once; likewise.
        server_time: Seconds that the server took; likewise.
        variation_there: How much the delay differs from probe to probe on the way there; likewise.
        variation_back: The same on the way back.
    """

    target: str
    address: str
    protocol: str
    size: int
    interval: float
    duration: float
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int
    corrupted: int
    foreign: int
    unreachable: int
    not_sent: int
    oddities: dict[str, int]
    rtt: Times
    jitter: float | None
    histogram: str
    schedule_error: Times
    kernel_times: bool
    lost_there: int | None
    lost_back: int | None
    duplicated_there: int | None
    server_time: Times
    variation_there: Times
    variation_back: Times

    @property
    def loss(self) -> float | None:
        """The share of the settled probes that were lost, 0 to 1; None while none is settled."""
        settled = self.received + self.lost
        return self.lost / settled if settled else None

    @classmethod
    def of(
        cls,
        *,
        table: ProbeTable,
        names: SeriesNames,
        protocol: str,
        duration_ns: int,
        rtt: Distribution,
        jitter_ns: float,
        one_way: OneWay | None,
        schedule_error: Distribution,
        kernel_times: bool,
    ) -> Summary:
        """Put one together; :meth:`ProbeSeries.summary` does."""
        counts: dict[str, Any] = {name: getattr(table, name) for name in _COUNTS}
        return cls(
            target=names.target,
            address=names.address,
            protocol=protocol,
            size=table.wire.size,
            interval=names.interval,
            duration=_seconds(duration_ns),
            **counts,
            oddities=dict(sorted(table.oddities.items())),
            rtt=Times.of(rtt),
            jitter=_seconds(jitter_ns) if rtt.count > 1 else None,
            histogram=rtt.encoded() if rtt.count else "",
            schedule_error=Times.of(schedule_error),
            kernel_times=kernel_times,
            **_directions(table, one_way),
        )

    def as_json(self) -> dict[str, object]:
        """Return it as the object that ``udpecho ping --json`` prints; the round trips' members stand at its top."""
        whole: dict[str, object] = {"format": SUMMARY_FORMAT}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "rtt":
                whole |= self.rtt.as_json()
            else:
                whole[field.name] = value.as_json() if isinstance(value, Times) else value
            if field.name == "lost":
                whole["loss"] = self.loss
        return whole


def _directions(table: ProbeTable, one_way: OneWay | None) -> dict[str, Any]:
    """Return the members of a summary that an rpc server tells of each direction."""
    if one_way is None:
        none = dict.fromkeys(("lost_there", "lost_back", "duplicated_there"))
        return {**none, **dict.fromkeys(("server_time", "variation_there", "variation_back"), Times())}
    sent = table.sent if one_way.counted else table.sent_until(one_way.highest)
    there, back = one_way.split(sent, table.received + table.late) or (None, None)
    if there is not None and back is not None and there + back > table.lost:
        there = back = None  # what is still open cannot be told from what is lost
    return {
        "lost_there": there,
        "lost_back": back,
        "duplicated_there": one_way.duplicates_there,
        "server_time": Times.of(one_way.server_time),
        "variation_there": Times.of(one_way.variation_there),
        "variation_back": Times.of(one_way.variation_back),
    }
