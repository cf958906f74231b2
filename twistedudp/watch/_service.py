"""The whole of ``twistd udpprobe`` as a service: the watcher, who is told of changes, the metrics page, SIGHUP.

Theory of operation: everything that can be found wrong was found while options were parsed; here it is put together and
started. SIGHUP reads the file of targets again, in the reactor and at once, for it is small.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import gatherResults
from twisted.logger import Logger, LogLevel

from ._health import UP
from ._target import SettingError
from ._watcher import Watcher

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from ._notify import Notifier
    from ._target import Target
    from ._watched import StateChange

__all__ = ["UDPProbeService"]

_log = Logger(namespace="twistedudp")


class UDPProbeService(Service):
    """Probes targets until it is stopped.

    Args:
        reactor: The reactor.
        read: Returns the targets; called at the start and on SIGHUP. A :class:`SettingError` keeps the old ones.
        targets: What it returned when options were parsed.
        notifiers: Who is told of changes beside the log.
        metrics: A bound TCP socket to serve metrics on; None serves none.

    Attributes:
        watcher: Who probes.
        reloads: How often targets were read again.
        reloads_failed: How often that failed.
    """

    def __init__(
        self,
        reactor: Any,
        read: Callable[[], Mapping[str, Target]],
        targets: Mapping[str, Target],
        *,
        notifiers: Sequence[Notifier] = (),
        metrics: socket.socket | None = None,
    ) -> None:
        self.watcher = Watcher(reactor, self._changed)
        self.reloads = self.reloads_failed = 0
        self._reactor = reactor
        self._read = read
        self._targets = targets
        self._notifiers = notifiers
        self._metrics = metrics
        self._page: Any = None
        self._previous: Any = None

    def startService(self) -> None:
        """Begin to probe, serve metrics, and listen to SIGHUP."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self._previous = signal.signal(signal.SIGHUP, self._hung_up)
        self.watcher.set_targets(self._targets)
        self.watcher.start()
        _log.info("udpprobe watches {count} targets", count=len(self._targets))
        if self._metrics is not None:
            self._page = self._serve_metrics(self._metrics)
            self._metrics = None

    def stopService(self) -> Deferred[Any]:
        """Stop; what notifiers still have to tell is dropped.

        Returns:
            A Deferred that fires when ports and connections are closed and no command runs any more.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        if self._previous is not None:
            signal.signal(signal.SIGHUP, self._previous)
        ending = [self.watcher.stop(), *(notifier.stop() for notifier in self._notifiers)]
        if self._page is not None:
            ending.append(self._page.stop())
            self._page = None
        _log.info("udpprobe has stopped")
        return gatherResults(ending)

    def reload(self) -> None:
        """Read the targets again, and watch those; where they are wrong, the old ones stay and it is logged why."""
        try:
            targets = self._read()
        except SettingError as error:
            self.reloads_failed += 1
            _log.error("{error}; the targets stay as they were", error=error)
            return
        self.reloads += 1
        added, removed, changed = self.watcher.set_targets(targets)
        _log.info(
            "udpprobe watches {count} targets: {added} added, {removed} removed, {changed} changed",
            count=len(targets),
            added=added,
            removed=removed,
            changed=changed,
        )

    def _hung_up(self, *_: object) -> None:
        self._reactor.callFromThread(self.reload)  # a signal comes in the midst of anything

    def _changed(self, change: StateChange) -> None:
        where = f" ({change.address})" if change.address else ""
        fields = {key: value for key, value in change._asdict().items() if key != "time"}
        _log.emit(
            LogLevel.info if change.state == UP else LogLevel.warn,
            "{target}{where} is {state}: {says}",
            where=where,
            **fields,
        )
        for notifier in self._notifiers:
            notifier.tell(change)

    def _serve_metrics(self, bound: socket.socket) -> Any:
        from ._metrics import TargetCollector, registry_of  # noqa: PLC0415  # an extra, which not everybody installs
        from ._web import MetricsPage  # noqa: PLC0415  # likewise

        own: dict[str, tuple[str, Callable[[], int]]] = {
            "udpprobe_reloads": ("How often targets were read again.", lambda: self.reloads),
            "udpprobe_reload_failures": ("How often that failed.", lambda: self.reloads_failed),
            "udpprobe_metrics_connections_refused": (
                "Connections to this page closed at once because there were too many.",
                lambda: self._page.refused,
            ),
        }
        for notifier in self._notifiers:
            own.update(notifier.counters)
        return MetricsPage(self._reactor, bound, registry_of(TargetCollector(self.watcher, own)))
