"""A process of ``benchmarks/outstanding``: makes calls that all wait at once, and tells what they took.

    python _waiting.py COUNT SERVER TRACED

SERVER is ``silent`` or ``answering``, TRACED 1 for tracemalloc, which counts bytes exactly and makes everything slower,
and 0 for time and resident memory.

Theory of operation: the calls are made in one go, without a turn of the reactor in between, so that none can end
before all are made. Each has a text of its own. What lies between memory before and after is theirs: the request, its
datagram, its place in every table, its Deferred; not the list of the Deferreds, which was made before, and not the
callbacks, which are the caller's and are added after. Then the reactor runs until each has fired.
"""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from _ours import client_options
from _session import PAYLOAD_SIZE, processor_time, tell
from twisted.internet import defer, reactor, task
from twisted.python.failure import Failure

from twistedudp import UDPClientService
from twistedudp.errors import RequestTimedOut

_reactor: Any = reactor  # Twisted declares a module here

_SILENT_TIMEOUT: Final = 1.0
"""Seconds after which a call fails that nobody answers, and as many more as it takes to send them all again."""
_PER_CALL: Final = 40e-6
_ANSWERED_TIMEOUT: Final = 60.0
"""Seconds that a call may take which is answered: the server begins late, and its socket overflows at first."""

_ANSWERER: Final = """
import socket, sys, msgpack
server = socket.socket(fileno=int(sys.argv[1]))
sys.stdin.readline()
while True:
    datagram, peer = server.recvfrom(65535)
    _, msgid, _, params = msgpack.unpackb(datagram)
    server.sendto(msgpack.packb([1, msgid, None, params[0]]), peer)
"""
"""A server that reads nothing until it is told so, and then answers every datagram with its parameter."""


def resident() -> int:
    """Return the bytes of memory that this process has in use (Linux; 0 where it cannot be told)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def memory(traced: bool) -> int:
    """Return the bytes in use, by Python's own count or the kernel's."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] if traced else resident()


class Outcomes:
    """Counts how each call ended."""

    def __init__(self, count: int) -> None:
        self.fired = bytearray(count)
        self.right = 0
        self.timed_out = 0
        self.other: dict[str, int] = {}
        self.left = count
        self.all: defer.Deferred[None] = defer.Deferred()

    def add(self, result: object, number: int) -> None:
        """Note the outcome of a call."""
        self.fired[number] += 1
        if isinstance(result, Failure):
            if isinstance(result.value, RequestTimedOut):
                self.timed_out += 1
            else:
                name = type(result.value).__name__
                self.other[name] = self.other.get(name, 0) + 1
        elif result == text_of(number):
            self.right += 1
        else:
            self.other["wrong reply"] = self.other.get("wrong reply", 0) + 1
        self.left -= 1
        if not self.left:
            self.all.callback(None)


def text_of(number: int) -> str:
    """Return the text of a call."""
    return f"{number:0{PAYLOAD_SIZE}d}"


async def measure(count: int, answering: bool, traced: bool) -> None:
    """Make the calls, measure, wait for their outcomes, and tell all of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        bound.bind(("127.0.0.1", 0))
        with _answerer(bound) as answerer:
            try:
                await _measure(count, bound.getsockname()[1], answerer if answering else None, traced)
            finally:
                answerer.kill()


def _answerer(bound: socket.socket) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _ANSWERER, str(bound.fileno())]
    return subprocess.Popen(command, pass_fds=[bound.fileno()], stdin=subprocess.PIPE, text=True)


async def _measure(count: int, port: int, answerer: subprocess.Popen[str] | None, traced: bool) -> None:
    timeout = _SILENT_TIMEOUT + count * _PER_CALL if answerer is None else _ANSWERED_TIMEOUT
    # A peer that answers is sent no more than the client's own window; to the silent one all datagrams are sent.
    options = client_options(count) if answerer is None else {}
    async with UDPClientService(_reactor, "127.0.0.1", port, timeout=timeout, **options) as client:
        await _warm(client)
        outcomes = Outcomes(count)
        calls: list[Any] = [None] * count
        if traced:
            tracemalloc.start()
        before = memory(traced)
        began, (user, system) = perf_counter(), processor_time()
        for number in range(count):
            calls[number] = client.call("repeat", text_of(number))
        seconds, (user_after, system_after) = perf_counter() - began, processor_time()
        used = memory(traced) - before
        waiting = sum(not call.called for call in calls)
        tracemalloc.stop()
        for number, call in enumerate(calls):
            call.addBoth(outcomes.add, number)
        if answerer is not None:
            assert answerer.stdin is not None  # noqa: S101  # it is a pipe
            answerer.stdin.write("\n")
            answerer.stdin.flush()
        ended = perf_counter()
        await outcomes.all
        # Whatever fires twice does so by then: nothing is waiting any more, and late responses have arrived.
        await task.deferLater(_reactor, 0.1)
        tell(
            count=count,
            used=used,
            made=seconds,
            processor=user_after + system_after - user - system,
            waiting=waiting,
            until_all_fired=perf_counter() - ended - 0.1,
            once=sum(times == 1 for times in outcomes.fired),
            right=outcomes.right,
            timed_out=outcomes.timed_out,
            other=outcomes.other,
        )


async def _warm(client: UDPClientService) -> None:
    """Do what only the first call does: resolve the address and open the port."""
    first = client.call("repeat", "")
    await task.deferLater(_reactor, 0.05)
    first.addErrback(lambda _: None)
    first.cancel()


def main(count: str, server: str, traced: str) -> None:
    """Measure once; ends with SystemExit."""
    answering = server == "answering"
    task.react(lambda _: defer.Deferred.fromCoroutine(measure(int(count), answering, traced == "1")))


if __name__ == "__main__":
    main(*sys.argv[1:])
