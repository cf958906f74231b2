"""The service: start, reload, what is logged, what is told to others, the end."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import succeed
from twisted.logger import LogLevel, eventAsText

from tests.simulation import PORT, SERVER, Echo, SimulatedTestCase
from twistedudp.watch import SettingError, Settings, Target, UDPProbeService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from twistedudp.watch import StateChange

FAST = Settings(interval=0.5, jitter=0.0, timeout=0.2, down_after=3)


class Notifier:
    """Keeps what it is told.

    Attributes:
        told: The changes.
        stopped: How often it was stopped.
    """

    def __init__(self) -> None:
        self.told: list[StateChange] = []
        self.stopped = 0

    @property
    def counters(self) -> Mapping[str, tuple[str, Callable[[], int]]]:
        """See ``_notify.Notifier``."""
        return {"udpprobe_test_changes_told": ("Changes told.", lambda: len(self.told))}

    def tell(self, change: StateChange) -> None:
        """Keep it."""
        self.told.append(change)

    def stop(self) -> Deferred[Any]:
        """Count it."""
        self.stopped += 1
        return succeed(None)


class ServiceTests(SimulatedTestCase):
    """On a simulated network, with signals of this process."""

    def setUp(self) -> None:
        """Make a service with one target."""
        super().setUp()
        self.targets = {"web": Target("web", SERVER, PORT, FAST)}
        self.mistake: SettingError | None = None
        self.notifier = Notifier()
        self.service = UDPProbeService(self.here, self.read, self.targets, notifiers=[self.notifier])
        self.here.callFromThread = lambda call: self.here.callLater(0, call)  # type: ignore[attr-defined]  # it has none

    def read(self) -> dict[str, Target]:
        """Return the targets, or fail."""
        if self.mistake is not None:
            raise self.mistake
        return self.targets

    def start(self) -> None:
        """Start it until the end of the test."""
        self.service.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop it if it runs."""
        if self.service.running:
            done = self.service.stopService()
            self.advance()
            self.successResultOf(done)

    def lines(self) -> list[tuple[str, str]]:
        """Return what was logged by us since this was last asked: levels and texts."""
        lines = [
            (event["log_level"].name, eventAsText(event, includeTimestamp=False, includeSystem=False))
            for event in self.log.events
            if event["log_namespace"] == "twistedudp"
        ]
        self.log.events.clear()
        return lines

    def test_changes(self) -> None:
        """A change is one log event with its fields, and is told to others; bad news are warnings."""
        listening = self.serve(Echo())
        self.start()
        self.advance(3)
        listening.stopListening()
        self.advance(4)
        events = [event for event in self.log.events if "state" in event]
        self.assertEqual(
            [eventAsText(event, includeTimestamp=False, includeSystem=False) for event in events],
            [
                f"web ({SERVER}:{PORT}) is up: it answers",
                f"web ({SERVER}:{PORT}) is down: 3 probes in a row failed: the network says: Connection refused",
            ],
        )
        self.assertEqual([event["log_level"] for event in events], [LogLevel.info, LogLevel.warn])
        fields = {name: events[1][name] for name in ("target", "address", "state", "previous", "reason", "p50", "loss")}
        told = self.notifier.told[1]
        self.assertEqual(fields, {name: getattr(told, name) for name in fields})
        self.assertEqual((told.state, told.previous, told.reason), ("down", "up", "unreachable"))

    def test_start_and_stop(self) -> None:
        """Both are logged; SIGHUP does afterwards what it did before; who is told of changes is stopped too."""
        before = signal.getsignal(signal.SIGHUP)
        self.start()
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
        self.stop()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)
        self.assertEqual(self.lines(), [("info", "udpprobe watches 1 targets"), ("info", "udpprobe has stopped")])
        self.assertEqual(self.notifier.stopped, 1)
        self.assertEqual(self.ports_bound(), [])

    def test_reload(self) -> None:
        """SIGHUP reads the targets again, and what has changed is one line."""
        self.start()
        self.advance(1)
        self.lines()
        self.targets = {**self.targets, "new": Target("new", SERVER, PORT + 1, FAST)}
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(list(self.service.watcher.targets), ["web"])  # a signal comes in the midst of anything
        self.advance(0)
        self.assertEqual(list(self.service.watcher.targets), ["web", "new"])
        self.assertEqual(self.lines(), [("info", "udpprobe watches 2 targets: 1 added, 0 removed, 0 changed")])
        self.assertEqual((self.service.reloads, self.service.reloads_failed), (1, 0))

    def test_bad_reload(self) -> None:
        """Wrong targets keep the old ones, and why is one line."""
        self.start()
        self.advance(1)
        self.lines()
        watched = self.service.watcher.targets["web"]
        self.mistake = SettingError("/etc/targets.toml: targets.web.size: 'big' is wrong")
        self.service.reload()
        self.assertIs(self.service.watcher.targets["web"], watched)
        text = "/etc/targets.toml: targets.web.size: 'big' is wrong; the targets stay as they were"
        self.assertEqual(self.lines(), [("error", text)])
        self.assertEqual((self.service.reloads, self.service.reloads_failed), (0, 1))
