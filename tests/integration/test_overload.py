"""A server that is asked for twice what it can do: real processes, real sockets, exact accounts.

Theory of operation: the server's method takes a millisecond of processor time, so that its capacity is about 1,000
requests a second. Server and generator have a processor of their own each, but other tests may want these too: so rates
are told per second of processor time that the server had, and for how long it was idle is told apart. The kernel counts
both (``schedstat``): a server that works for nothing shows in the first, one that sheds too much in the second.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.twistd import Directory, RunningTwistd, environment
from twistedudp import _msgpack
from twistedudp.messages import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

_GENERATOR: Final = Path(__file__).parent / "open_loop.py"
_PATIENCE: Final = 60.0

_SERVER: Final = """
import os, sys, time
from twisted.internet import reactor
from twistedudp import RPCMethods, UDPServerService, method
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
try:
    os.setpriority(os.PRIO_PROCESS, 0, -15)
except PermissionError:
    pass
max_wait = float(sys.argv[1]) or None
class Work(RPCMethods):
    @method(idempotent=True)
    def work(self) -> None:
        ends = time.thread_time_ns() + 1_000_000
        while time.thread_time_ns() < ends:
            pass
    @method(idempotent=True)
    def report(self) -> dict[str, object]:
        stats = service.protocol.stats
        return {"responses": stats.responses, "errors": dict(stats.errors), "rejected": dict(stats.rejected),
                "repeated": stats.repeated, "dropped": service.stats.dropped_by_kernel}
service = UDPServerService(reactor, 0, Work(), max_wait=max_wait)
def start():
    service.startService()
    print(service.address[1], flush=True)
reactor.callWhenRunning(start)
reactor.run()
"""


class Phase(NamedTuple):
    """What came of one phase.

    Attributes:
        requests: When each request was sent, and when it was answered; seconds by one clock.
        errors: How many were answered with an error.
        worked: For how many seconds the server had its processor.
        delayed: For how many it could have worked and had none.
        idle: The part of the time that is neither.
    """

    requests: list[tuple[float, float | None]]
    errors: int
    worked: float
    delayed: float
    idle: float

    def goodput(self, within: float, until: float) -> float:
        """Return the answers that came in time, before the end of the load, for each second that the server worked."""
        good = sum(at is not None and at - sent <= within and at <= until for sent, at in self.requests)
        return good / self.worked

    def p99(self, since: float = 0.0) -> float:
        """Return how long 99 % of those waited that were sent from a time on; without an answer it is for ever."""
        waits = sorted(float("inf") if at is None else at - sent for sent, at in self.requests if sent >= since)
        return waits[int(0.99 * len(waits))]


class Pair:
    """A server and a generator, ended at the end of the ``with`` block.

    Args:
        max_wait: The server's; 0 sheds nothing.

    Attributes:
        address: The server's.
        sent: Requests that the generator has sent.
    """

    def __init__(self, max_wait: float) -> None:
        self.sent = 0
        self._server = self._start([sys.executable, "-c", _SERVER, str(max_wait)])
        port = int(self._line(self._server))
        self.address = ("127.0.0.1", port)
        self._generator = self._start([sys.executable, str(_GENERATOR), "127.0.0.1", str(port)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._generator, self._server):
            process.kill()
            process.communicate()

    def phase(self, *, seconds: float, **what: float) -> Phase:
        """Let the generator do something."""
        (worked, delayed), begun = self._times(), time.monotonic()
        assert self._generator.stdin is not None
        self._generator.stdin.write(json.dumps({"seconds": seconds, **what}) + "\n")
        self._generator.stdin.flush()
        came = json.loads(self._line(self._generator))
        took = time.monotonic() - begun
        worked, delayed = (now - before for now, before in zip(self._times(), (worked, delayed), strict=True))
        requests = list(zip(came["sent"], came["answered"], strict=True))
        self.sent += len(requests)
        return Phase(requests, came["errors"], worked, delayed, 1 - (worked + delayed) / took)

    def report(self) -> dict[str, Any]:
        """Return the server's counters."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(_PATIENCE)
            asking.sendto(_msgpack.encode_request(1, "report", []), self.address)
            answer = _msgpack.decode_untrusted(asking.recv(65535))
        assert isinstance(answer, Response)
        assert isinstance(answer.result, dict), answer
        return answer.result

    def memory(self) -> int:
        """Return the server's resident memory, in bytes."""
        pages = Path(f"/proc/{self._server.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _times(self) -> tuple[float, float]:
        """Return for how many seconds the server has had its processor, and has waited for it."""
        worked, delayed, _ = Path(f"/proc/{self._server.pid}/schedstat").read_text(encoding="ascii").split()
        return int(worked) / 1e9, int(delayed) / 1e9

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True, bufsize=1
        )

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{process.args!r} ended with status {process.wait(_PATIENCE)}"
        return line


@unittest.skipUnless(
    sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1, "server and generator need a processor each, on Linux"
)
@pytest.mark.heavy
class OverloadTests(SynchronousTestCase):
    """Twice the capacity."""

    def overload(self, max_wait: float, seconds: float, *, patience: float | None = None) -> dict[str, float]:
        """Measure the peak, offer twice that, and see what happens.

        Args:
            max_wait: The server's; 0 sheds nothing.
            seconds: For how long.
            patience: Seconds after which a caller leaves; ``max_wait`` by default.

        Returns:
            The figures.
        """
        within = patience or max_wait
        with Pair(max_wait) as pair:
            pair.phase(window=4, seconds=0.3)  # all code has run once
            calm = pair.phase(rate=100, seconds=0.7, drain=0.05)
            peak = pair.phase(window=8, seconds=1.0)
            best = peak.goodput(within, float("inf"))
            before = pair.memory()
            load = pair.phase(rate=2 * best, seconds=seconds)
            ended = load.requests[-1][0]
            grown = pair.memory() - before
            after = pair.phase(rate=100, seconds=1.7, drain=0.3)
            report = pair.report()  # in its turn: when all the others were served, or shed
        figures = {
            "peak": best,
            "offered": len(load.requests) / seconds,
            "goodput": load.goodput(within, ended),
            "share": load.goodput(within, ended) / best,
            "p99 before": calm.p99(),
            "p99 after 1 s": after.p99(ended + 1.0),
            "idle": load.idle,
            "delayed": after.delayed,
            "stale": report["rejected"].get("stale", 0),
            "dropped": report["dropped"],
            "grown": grown,
        }
        self.assertEqual(report["errors"], {})
        counted = report["responses"] + sum(report["rejected"].values()) + report["repeated"]
        figures["unaccounted"] = pair.sent - counted - report["dropped"]
        return figures

    def check(self, figures: dict[str, float]) -> None:
        """Check what a server promises under overload."""
        self.assertGreater(figures["share"], 0.8, figures)
        self.assertLess(figures["idle"], 0.15, figures)
        self.assertLess(figures["p99 after 1 s"], max(3 * figures["p99 before"], 0.03) + figures["delayed"], figures)
        self.assertGreater(figures["stale"], 0, figures)
        self.assertEqual(figures["unaccounted"], 0, figures)
        self.assertLess(figures["grown"], 4 << 20, figures)

    def test_short(self) -> None:
        """With patience of a second: goodput, recovery, memory and accounts."""
        self.check(self.overload(1.0, 2.5))

    @pytest.mark.slow
    def test_long(self) -> None:
        """The same with the default of 2 s, for a quarter of a minute."""
        self.check(self.overload(2.0, 15.0))

    @pytest.mark.slow
    def test_without_it(self) -> None:
        """Without shedding hardly anybody is answered in time, and a second after the load nobody is yet."""
        figures = self.overload(0.0, 4.0, patience=0.5)
        self.assertLess(figures["share"], 0.5, figures)
        self.assertGreater(figures["p99 after 1 s"], 0.5, figures)
        self.assertEqual(figures["unaccounted"], 0, figures)


_SLOW: Final = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twistedudp import RPCMethods, method
class Methods(RPCMethods):
    @method(max_running=8)
    async def slow(self, seconds: float) -> float:
        await deferLater(reactor, seconds)
        return seconds
    @method
    def quick(self, number: int) -> int:
        return number
"""


@pytest.mark.heavy
class StarvationTests(SynchronousTestCase):
    """``twistd udpecho`` with a slow method that everybody calls."""

    RUNNING, CALLERS, SECONDS = 8, 60, 0.6

    def setUp(self) -> None:
        """Start a server, and callers with a port each."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        directory.write("slow_and_quick.py", _SLOW)
        options = ("--protocol", "rpc", "--protocol-option", "class_=slow_and_quick:Methods")
        server = RunningTwistd(*options, python_path=[directory.path])
        self.addCleanup(server.stop)
        self.address = server.address
        self.callers = [self.caller() for _ in range(self.CALLERS)]
        self.other = self.caller()
        self.numbers = itertools.count(1)

    def caller(self) -> socket.socket:
        """Return a socket that is connected to the server."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.connect(self.address)
        made.settimeout(_PATIENCE)
        return made

    def answer(self, caller: socket.socket) -> Response:
        """Return the next answer that a caller gets."""
        answer = _msgpack.decode_untrusted(caller.recv(65535))
        assert isinstance(answer, Response)
        return answer

    def quick_calls(self, until: Callable[[list[float]], bool]) -> list[float]:
        """Call the quick method again and again, and return how long each call took."""
        took: list[float] = []
        while not until(took):
            begun = time.monotonic()
            number = next(self.numbers)
            self.other.send(_msgpack.encode_request(number, "quick", [number]))
            self.assertEqual(self.answer(self.other).result, number)
            took.append(time.monotonic() - begun)
        return took

    def test_others_are_served(self) -> None:
        """Eight of its callers wait, the rest is told when to come back, and a quick method takes its usual time."""
        calm = sorted(self.quick_calls(lambda took: len(took) == 200))
        for caller in self.callers:
            caller.send(_msgpack.encode_request(1, "slow", [self.SECONDS]))
        begun = time.monotonic()
        meanwhile = sorted(self.quick_calls(lambda _: time.monotonic() > begun + 0.8 * self.SECONDS))
        waiting = []
        hints = []
        for caller in self.callers:
            if not select.select([caller], [], [], 0)[0]:
                waiting.append(caller)
                continue
            error = self.answer(caller).error
            assert isinstance(error, dict)
            self.assertEqual(error["code"], "busy")
            hints.append(error["data"]["retry_after"])
        self.assertEqual((len(waiting), len(hints)), (self.RUNNING, self.CALLERS - self.RUNNING))
        self.assertTrue(all(0.05 <= hint <= 30 for hint in hints), hints)
        self.assertGreater(len(meanwhile), 100)
        middle, worst = meanwhile[len(meanwhile) // 2], meanwhile[int(0.99 * len(meanwhile))]
        self.assertLess(middle, 3 * calm[100] + 0.001)
        self.assertLess(worst, max(3 * calm[198], 0.2 * self.SECONDS))
        self.assertEqual([self.answer(caller).result for caller in waiting], [self.SECONDS] * self.RUNNING)
        (again,) = [caller for caller in self.callers if caller not in waiting][:1]
        self.quick_calls(lambda _: time.monotonic() > begun + min(hints))
        again.send(_msgpack.encode_request(2, "slow", [0.0]))
        self.assertEqual(self.answer(again).result, 0.0)
