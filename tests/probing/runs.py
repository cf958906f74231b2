"""Runs of networks that are known, as ``udpecho ping`` would have summed them up."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from twistedudp.probing import ProbeSeries, ProbeWire, SeriesNames
from twistedudp.probing._runs import Bucket, Run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

__all__ = ["draw", "run_of", "summary_of"]

ADDRESS = "192.0.2.1:10000"
SIZE = 64
INTERVAL = 0.01
_NS = 1_000_000_000
_BITS = 11  # of which an HdrHistogram with three digits keeps a value's highest


def draw(
    rng: random.Random, probes: int, *, loss: float = 0.0, rtt: Callable[[random.Random], float]
) -> list[int | None]:
    """Return what becomes of probes: round trips in nanoseconds, None for those that are lost.

    Args:
        rng: Where chance comes from.
        probes: How many.
        loss: The share that is lost, each independently of the others.
        rtt: Returns a round trip in seconds.
    """
    return [None if rng.random() < loss else max(1, round(rtt(rng) * _NS)) for _ in range(probes)]


def summary_of(fates: Sequence[int | None], *, size: int = SIZE, interval: float = INTERVAL) -> dict[str, object]:
    """Return the JSON object that ``udpecho ping`` prints of a run, read back as from a file."""
    wire = ProbeWire(1 << 63, size, bytes(size))
    series = ProbeSeries(wire, SeriesNames("example", ADDRESS, interval), timeout_ns=3600 * _NS, window=4)
    now = 0
    for rtt in fates:
        now += 100 * _NS
        _, probe, _ = series.next_probe(due_ns=now, now_ns=now)
        if rtt is not None:
            series.reply_received_untrusted(probe, arrived_ns=now + rtt)
    series.deadline_reached(now_ns=now + 7200 * _NS)
    summary: dict[str, object] = json.loads(json.dumps(series.summary().as_json()))
    return summary


def run_of(fates: Sequence[int | None]) -> Run:
    """Return the run that a comparison reads from such an object, by a shorter way."""
    times = [rtt for rtt in fates if rtt is not None]
    mean = sum(times) / len(times)
    jitter = 0.0
    for before, after in pairwise(times):
        jitter += (abs(after - before) - jitter) / 16
    buckets = Counter((time >> shift, shift) for time in times for shift in (max(0, time.bit_length() - _BITS),))
    return Run(
        address=ADDRESS,
        protocol="echo",
        size=SIZE,
        interval=INTERVAL,
        received=len(times),
        lost=len(fates) - len(times),
        mean=mean / _NS,
        stddev=math.sqrt(sum((time - mean) ** 2 for time in times) / len(times)) / _NS,
        shortest=min(times) / _NS,
        longest=max(times) / _NS,
        jitter=jitter / _NS,
        buckets=tuple(
            Bucket((place << shift) / _NS, ((place + 1 << shift) - 1) / _NS, count)
            for (place, shift), count in sorted(buckets.items(), key=lambda item: item[0][0] << item[0][1])
        ),
    )
