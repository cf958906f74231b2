"""How exact probes are at a millisecond's interval, beside a C program that does the same: and the timer behind it.

Theory of operation: the figures of our prober and of ``pingpong.c`` come from the same minute, the same server and the
same size of datagrams, so that what differs is ours. Each runs as a process of its own, as ``udpecho ping`` does. A
machine that is busy with other tests makes both late: then they run again, and the best of a few attempts counts, for a
fault in the prober shows in all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.contracts.providers import REACTORS, OurPorts
from tests.integration.compiling import compiled, missing_compiler
from tests.integration.twistd import RunningTwistd, environment
from twistedudp._pacing import Ticker

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

MS: Final = 1_000_000

ATTEMPTS: Final = 4

SIZE: Final = 64

MOST_LATE: Final = 0.001
"""Seconds by which 99 of 100 probes may leave later than planned."""

MOST_ABOVE_C: Final = 20e-6
"""Seconds by which the median round trip may be above that of the C program."""

SHORT: Final = 2
LONG: Final = 60
"""Seconds."""

_PROGRAM: Final = """
import json, sys
from twisted.internet import task
from twistedudp._prober import Prober, Schedule, new_series

def main(reactor, host, port, count, interval_ns, size):
    peer = (host, int(port))
    series = new_series("server", peer, size=int(size), interval=int(interval_ns) / 1e9)
    running = Prober(reactor, peer, series, Schedule(int(interval_ns), int(count))).run()
    return running.addCallback(lambda summary: print(json.dumps(summary.as_json())))

task.react(main, sys.argv[1:])
"""


class Figures(NamedTuple):
    """What one of the two programs says, in seconds."""

    sent: int
    received: int
    rtt: float
    """The median round trip."""
    late: float
    """The 99th percentile of the scheduling error."""


class Timed(NamedTuple):
    """Both at one attempt."""

    ours: Figures
    theirs: Figures

    @property
    def above(self) -> float:
        """By how much our median round trip is above the other one."""
        return self.ours.rtt - self.theirs.rtt

    @property
    def exact(self) -> bool:
        """Whether our figures are within their bounds."""
        return self.ours.late < MOST_LATE and self.above <= MOST_ABOVE_C

    @property
    def machine_busy(self) -> bool:
        """Whether the C program was so late that the machine is to blame."""
        return self.theirs.late > MOST_LATE / 4

    @property
    def comparable(self) -> bool:
        """Whether ours are of the same kind as C's."""
        late_enough = self.ours.late < MOST_LATE + 3 * self.theirs.late
        return late_enough and self.above <= MOST_ABOVE_C + self.theirs.rtt / 2


def _output(*command: object, seconds: int) -> Any:
    """Run a program that measures, without anything that measures it, and return what it prints."""
    variables = {name: value for name, value in environment().items() if not name.startswith("COV")}
    done = subprocess.run(
        [str(word) for word in command],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60 + 3 * seconds,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command[0]} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def _measure(address: Address, seconds: int) -> Timed:
    """Let one after the other probe a server each millisecond."""
    arguments = (*address, 1000 * seconds, MS, SIZE)
    theirs = _output(compiled("pingpong"), *arguments, seconds=seconds)
    ours = _output(sys.executable, "-c", _PROGRAM, *arguments, seconds=seconds)
    return Timed(
        Figures(ours["sent"], ours["received"], ours["p50"], ours["schedule_error"]["p99"]),
        Figures(theirs["sent"], theirs["received"], theirs["rtt"]["p50"] / 1e9, theirs["late"]["p99"] / 1e9),
    )


def _timers_open() -> int:
    """Return how many timerfds this process has."""
    return [_target(entry) for entry in Path("/proc/self/fd").iterdir()].count("anon_inode:[timerfd]")


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # the descriptor of the listing itself
        return ""


class PacingTests(SynchronousTestCase):
    """A probe each millisecond."""

    def assert_exact(self, seconds: int, good: Callable[[Timed], bool]) -> None:
        """Check that one of some attempts is good."""
        if reason := missing_compiler():
            raise SkipTest(reason)
        tried: list[Timed] = []
        with RunningTwistd() as server:
            for _ in range(ATTEMPTS):
                timed = _measure(server.address, seconds)
                tried.append(timed)
                self.assertEqual(timed.ours.sent, 1000 * seconds)
                self.assertGreater(timed.ours.received, 0.99 * timed.ours.sent)
                if good(timed):
                    return
        self.fail("\n".join(map(str, tried)))

    def test_short(self) -> None:
        """99 of 100 leave within a millisecond of their time, and the median round trip is 20 us above C's at most.

        Where C's are late as well, it is the machine: then ours are not to be much later, and no answer is to be.
        """
        self.assert_exact(SHORT, lambda timed: timed.exact or (timed.machine_busy and timed.comparable))

    @pytest.mark.slow
    def test_long(self) -> None:
        """The same for a minute, on a machine that does nothing else."""
        self.assert_exact(LONG, lambda timed: timed.exact)


class TimerTests(SynchronousTestCase):
    """The timerfd on each reactor."""

    def ports(self, name: str) -> OurPorts:
        """Return what runs a reactor."""
        made: OurPorts = type(f"{name}Ports", (OurPorts,), {"make_reactor": staticmethod(REACTORS[name])})()
        return made

    def on_each(self, check: Callable[[OurPorts], None]) -> None:
        """Check something on each reactor, and that nothing is left of it."""
        for name in REACTORS:
            ports = self.ports(name)
            try:
                check(ports)
                self.assertEqual(ports.leftovers(), [], name)
                self.assertEqual(_timers_open(), 0, name)
            finally:
                ports.close()

    def test_ticks(self) -> None:
        """A hundred ticks of a millisecond come at their times, never early, and do not drift."""

        def check(ports: OurPorts) -> None:
            start = time.monotonic_ns() + MS
            late: list[int] = []

            def tick() -> None:
                late.append(time.monotonic_ns() - start - len(late) * MS)
                if len(late) < 100:
                    ticker.at(start + len(late) * MS)
                else:
                    ticker.cancel()

            ticker = Ticker(ports.reactor, tick, time.monotonic_ns)
            self.assertTrue(ticker.precise)
            ticker.at(start)
            self.assertTrue(ports.run_until(lambda: len(late) == 100))
            self.assertGreaterEqual(min(late), 0)
            # On a busy machine some are late, but lateness that added up would be in the last ones, all of them.
            self.assertLess(min(late[-30:]), MS)

        self.on_each(check)

    def test_earlier_and_later(self) -> None:
        """It can be set anew to an earlier and to a later time, and to one that has passed."""

        def check(ports: OurPorts) -> None:
            called: list[int] = []

            def called_often(times: int) -> bool:
                return len(called) == times

            ticker = Ticker(ports.reactor, lambda: called.append(time.monotonic_ns()), time.monotonic_ns)
            start = time.monotonic_ns()
            for due in (start + 3600 * 1000 * MS, start + 5 * MS):
                ticker.at(due)
            self.assertTrue(ports.run_until(lambda: len(called) == 1))
            self.assertGreaterEqual(called[0], start + 5 * MS)
            for due in (start, 0, -5):
                ticker.at(due)
                many = len(called) + 1
                self.assertTrue(ports.run_until(partial(called_often, many)))
            ticker.at(time.monotonic_ns() + 2 * MS)
            ticker.at(time.monotonic_ns() + 3600 * 1000 * MS)
            ports.settle()
            self.assertEqual(len(called), 4)
            ticker.cancel()

        self.on_each(check)

    def test_cancelled_from_inside(self) -> None:
        """Cancelled by its own callback it closes its descriptor; what it raises is logged and harms nobody."""

        def check(ports: OurPorts) -> None:
            called: list[int] = []

            def tick() -> None:
                called.append(1)
                if len(called) == 2:
                    ticker.cancel()
                ticker.at(0)
                raise ZeroDivisionError

            ticker = Ticker(ports.reactor, tick, time.monotonic_ns)
            ticker.at(0)
            self.assertTrue(ports.run_until(lambda: len(called) == 2))
            ports.settle()
            self.assertEqual(len(called), 2)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

        self.on_each(check)

    def test_reactor_ends(self) -> None:
        """A reactor that shuts down closes the descriptor."""
        ports = self.ports("EPoll")
        ticker = Ticker(ports.reactor, lambda: None, time.monotonic_ns)
        ticker.at(time.monotonic_ns() + 10**12)
        self.assertEqual(_timers_open(), 1)
        ports.reactor.disconnectAll()
        ticker.cancel()
        self.assertEqual(_timers_open(), 0)
        ports.close()
