"""What Prometheus reads: the counters as they stand when it asks.

Theory of operation: a collector of our own reads the counters of the targets at each scrape, so that a probe costs
nothing more. prometheus_client makes the text, in a thread of the reactor's pool (it serves WSGI): numbers are read
while they change, so each family copies the list of targets once, and the histogram's sum of buckets is its count.
Names, units and labels follow Prometheus' conventions; a label other than ``target`` is there where it must be.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..address import format_address
from ._health import DEGRADED, DOWN, UNKNOWN, UP
from ._watched import RTT_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from ._watched import Watched
    from ._watcher import Watcher

__all__ = ["TargetCollector", "registry_of"]

_NS: Final = 1e9
_TARGET: Final = ("target",)
_TARGET_STATE: Final = ("target", "state")

_COUNTERS: Final[Mapping[str, tuple[str, Callable[[Watched], int]]]] = {
    "udpprobe_probes_sent": ("Probes sent.", lambda one: one.sent),
    "udpprobe_probes_received": ("Probes with an intact answer in time.", lambda one: one.table.received),
    "udpprobe_probes_lost": ("Probes without an intact answer in time.", lambda one: one.table.lost),
    "udpprobe_probes_late": ("Lost probes that were answered after the timeout.", lambda one: one.table.late),
    "udpprobe_probes_reordered": (
        "Received probes whose answer came behind that of a later probe.",
        lambda one: one.table.reordered,
    ),
    "udpprobe_probes_duplicated": ("Further answers to answered probes.", lambda one: one.table.duplicated),
    "udpprobe_probes_corrupted": ("Answers that were changed on their way.", lambda one: one.table.corrupted),
    "udpprobe_probes_unreachable": ("ICMP errors that quote a probe.", lambda one: one.table.unreachable),
    "udpprobe_probes_not_sent": ("Probes that this machine could not send.", lambda one: one.table.not_sent),
    "udpprobe_probes_skipped": (
        "Probes left out because this process could not run at their time.",
        lambda one: one.skipped,
    ),
    "udpprobe_wrong_protocol_answers": (
        "Received probes that were not answered by the protocol asked for.",
        lambda one: one.wrong_protocol,
    ),
    "udpprobe_foreign_datagrams": (
        "Datagrams from the target's address, or about its probes, that are no answers.",
        lambda one: one.table.foreign,
    ),
    "udpprobe_name_lookup_failures": ("Look-ups of the target's name without an address.", lambda one:
    one.lookup_failures),
}  # fmt: skip


class TargetCollector(Collector):
    """The figures of a watcher's targets, and of the watcher itself.

    Args:
        watcher: The watcher.
        own: Counters beside, by name without ``_total``: what it counts, and a callable that returns the count.
    """

    def __init__(self, watcher: Watcher, own: Mapping[str, tuple[str, Callable[[], int]]]) -> None:
        self._watcher = watcher
        self._own = own

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what is in the registry beside is known not to clash."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each family with its values."""
        targets = list(self._watcher.targets.values())
        yield from _states(targets)
        for name, (about, count) in _COUNTERS.items():
            family = CounterMetricFamily(name, about, labels=_TARGET)
            for one in targets:
                family.add_metric((one.target.name,), count(one))
            yield family
        yield _oddities(targets)
        yield _histogram(targets)
        yield from _window(targets)
        yield from self._watchers_own(len(targets))

    def _watchers_own(self, targets: int) -> Iterator[Metric]:
        watcher = self._watcher
        yield GaugeMetricFamily("udpprobe_targets", "Targets that are probed.", value=targets)
        stats = [port.stats for port in watcher.ports]
        counts: dict[str, tuple[str, int]] = {
            "udpprobe_stranger_datagrams": ("Datagrams from no target's address.", watcher.strangers),
            "udpprobe_clock_steps": ("How often the wall clock was set.", watcher.clock_steps),
            "udpprobe_receive_buffer_drops": (
                "Datagrams lost to a full receive buffer of this process, as the kernel counts them.",
                sum(one.dropped_by_kernel for one in stats),
            ),
            "udpprobe_send_errors": (
                "Datagrams that this machine's kernel refused to send.",
                sum(sum(one.send_errors.values()) for one in stats),
            ),
            **{name: (about, count()) for name, (about, count) in self._own.items()},
        }
        for name, (about, value) in counts.items():
            yield CounterMetricFamily(name, about, value=value)
        backends = sorted({port.backend for port in watcher.ports})
        yield InfoMetricFamily(
            "udpprobe_build",
            "What runs here.",
            value={
                "version": _version("twistedudp"),
                "twisted": _version("twisted"),
                "python": platform.python_version(),
                "backend": ",".join(backends),
            },
        )


def registry_of(collector: TargetCollector) -> CollectorRegistry:
    """Return a registry with these figures and those of the process; the global one stays out of it."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


def _states(targets: list[Watched]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "udpprobe_up", "Whether the target answers: 1 when it is up or degraded, 0 otherwise.", labels=_TARGET
    )
    state = GaugeMetricFamily("udpprobe_state", "1 for the state that the target is in, else 0.", labels=_TARGET_STATE)
    changes = CounterMetricFamily("udpprobe_state_changes", "How often a state has begun.", labels=_TARGET_STATE)
    info = InfoMetricFamily("udpprobe_target", "Where the target's probes are sent to.", labels=_TARGET)
    for one in targets:
        name, now = one.target.name, one.health.state
        up.add_metric((name,), now in (UP, DEGRADED))
        for known in (UNKNOWN, UP, DEGRADED, DOWN):
            state.add_metric((name, known), known == now)
        for known in (UP, DEGRADED, DOWN):
            changes.add_metric((name, known), one.changes.get(known, 0))
        address = one.address
        info.add_metric(
            (name,),
            {"address": format_address(address) if address else "", "host": one.target.host},
        )
    yield from (up, state, changes, info)


def _oddities(targets: list[Watched]) -> Metric:
    family = CounterMetricFamily(
        "udpprobe_oddities", "What was odd, by kind; docs/udpprobe.md names them.", labels=("target", "kind")
    )
    for one in targets:
        for kind, count in list(one.table.oddities.items()):
            family.add_metric((one.target.name, kind), count)
    return family


def _histogram(targets: list[Watched]) -> Metric:
    family = HistogramMetricFamily("udpprobe_rtt_seconds", "Round trips of the received probes.", labels=_TARGET)
    bounds = [*map(floatToGoString, RTT_BUCKETS), "+Inf"]
    for one in targets:
        total = 0
        buckets: list[Any] = []
        for bound, count in zip(bounds, one.rtt_counts.tolist(), strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric((one.target.name,), buckets, one.rtt_sum_ns / _NS)
    return family


def _window(targets: list[Watched]) -> Iterator[Metric]:
    loss = GaugeMetricFamily(
        "udpprobe_window_loss_ratio", "Share of failures among the target's last probes.", labels=_TARGET
    )
    rtt = GaugeMetricFamily(
        "udpprobe_window_rtt_seconds", "Round trip of the target's last probes.", labels=("target", "quantile")
    )
    jitter = GaugeMetricFamily(
        "udpprobe_jitter_seconds", "Interarrival jitter of the round trips (RFC 3550).", labels=_TARGET
    )
    for one in targets:
        name, lost = one.target.name, one.rolling.loss
        if lost is not None:
            loss.add_metric((name,), lost)
        for percent, quantile in ((50, "0.5"), (99, "0.99")):
            value = one.rolling.percentile_ns(percent)
            if value is not None:
                rtt.add_metric((name, quantile), value / _NS)
        jitter.add_metric((name,), one.jitter.value_ns / _NS)
    yield from (loss, rtt, jitter)
