"""Requests at a rate that does not depend on the answers, as the world sends them; run as a program.

Theory of operation: it reads one JSON object per line, a phase each, and answers each with one line. ``{"rate": 2000,
"seconds": 3}`` sends by the clock, whether answers come or not, and goes on to receive for ``drain`` seconds;
``{"window": 8, "seconds": 1}`` keeps so many requests under way, which tells what the server can do. Where both have a
processor of their own, what is measured is the server. The answer has when each request was sent and when it was
answered, if it was, in seconds by one clock, in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

_SLOWEST = 0.5  # seconds without an answer after which a window's requests count as lost
_FIRST = 1 << 31  # so that every msgid has four bytes


class OpenLoop:
    """A socket, and what was sent by it.

    Args:
        host: The server's numeric address.
        port: The server's port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.connect((host, port))
        self.socket.setblocking(False)
        self.sent: list[float] = []
        self.answered: list[float | None] = []
        self.errors = 0

    def run(self, phase: dict[str, float]) -> dict[str, object]:
        """Do what one line asks for."""
        first, errors = len(self.sent), self.errors
        if "window" in phase:
            self._keep(int(phase["window"]), phase["seconds"])
        else:
            self._offer(phase["rate"], phase["seconds"])
        ends = time.monotonic() + phase.get("drain", 0.0)
        while (left := ends - time.monotonic()) > 0:
            self._receive(left)
        return {"sent": self.sent[first:], "answered": self.answered[first:], "errors": self.errors - errors}

    def _offer(self, rate: float, seconds: float) -> None:
        begun = time.monotonic()
        number, count = 0, round(rate * seconds)
        while number < count:
            now = time.monotonic()
            while number < count and begun + number / rate <= now:
                self._send()
                number += 1
            self._receive(begun + number / rate - time.monotonic())

    def _keep(self, window: int, seconds: float) -> None:
        ends = time.monotonic() + seconds
        waiting = 0
        while time.monotonic() < ends:
            while waiting < window:
                self._send()
                waiting += 1
            came = self._receive(_SLOWEST)
            waiting = waiting - came if came else 0

    def _send(self) -> None:
        number = len(self.sent)
        self.answered.append(None)
        self.sent.append(time.monotonic())
        self.socket.send(b"\x94\x00\xce" + struct.pack(">I", _FIRST + number) + b"\xa4work\x90")

    def _receive(self, seconds: float) -> int:
        """Wait for answers for so long at most; return how many came."""
        if not select.select([self.socket], [], [], max(0.0, seconds))[0]:
            return 0
        came = 0
        try:
            while True:
                answer = self.socket.recv(2048)
                came += 1
                [number] = struct.unpack_from(">I", answer, 3)
                self.answered[number - _FIRST] = time.monotonic()
                self.errors += answer[7] != 0xC0
        except BlockingIOError:
            return came


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    loop = OpenLoop(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(loop.run(json.loads(line))), flush=True)  # noqa: T201  # it is read by who started it
