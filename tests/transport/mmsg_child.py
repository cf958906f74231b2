"""A program that runs a port while chosen system calls fail, and prints what happened.

    LD_PRELOAD=.../mmsg_shim.so python mmsg_child.py

Theory of operation: each line that it reads is a scenario, a JSON object; each line that it writes says what happened
in it. There is no reactor: a step is a read turn of the port, and what the clients got is looked at afterwards.
A scenario has:

``batches``
    Whether the protocol takes several datagrams at once.
``backend``, ``interface``, ``clients``, ``connected``
    The port and how many plain sockets there are; the port may be connected to the first.
``steps``
    A list of objects, done in turn, each with some of:

    ``script``
        What the shim shall do from now on; see ``mmsg_shim.c``. Its counts begin anew.
    ``asks``
        The clients, by their index, that send a datagram to the port, in this order.
    ``answers``
        What the protocol writes while the last of these is delivered: ``[client, payload]`` each.
    ``later``
        What is written outside of any turn; a client of -1 is the address of no client at all, with UDP port 70000.
    ``in_batch``
        Whether all of that is written by ``write_batch``.
    ``log_writes``
        A payload that is written to the first client whenever something is logged.
    ``close``
        Whether the port is closed.

What is printed has an object for each step: what each client ``received``, what was ``raised`` or refused, what was
told to be ``unreachable``, the ``stats`` of the port, what the shim ``calls`` counted, what was in the ``log``, and
whether the port is ``watching`` for room.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import sys
from dataclasses import asdict
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogBeginner

from twistedudp.transport import _capabilities, listen

CALLS = ("sendmmsg", "sendmsg", "sendto", "recvmmsg", "segment", "pktinfo")
HOST = "127.0.0.1"
UNSENDABLE = (HOST, 70000)
PATIENCE = 10.0
"""Seconds to wait for what must come at once."""

_shim = ctypes.CDLL(None)


class Protocol(DatagramProtocol):
    """Writes what the step says, once as many datagrams have come as were sent."""

    noisy = False

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.due = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Learn who asks, and write."""
        self.scenario.heard(int(datagram), addr)
        self.due -= 1
        if not self.due:
            self.scenario.write(self.scenario.answers)

    def peer_unreachable(self, peer: Any, reason: Any, _: bytes) -> None:
        """Note what was said to be unreachable."""
        self.scenario.unreachable.append(reason.errno)


class BatchProtocol(Protocol):
    """The same for a port that delivers several datagrams at once."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Take one after the other."""
        for datagram, addr in datagrams:
            self.datagramReceived(datagram, addr)


class Scenario:
    """One port and its clients."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        _capabilities._said.clear()  # what is said once in a process, is to be said in each scenario
        self.reactor: Any = MemoryReactorClock()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.protocol = (BatchProtocol if plan.get("batches") else Protocol)(self)
        interface = plan.get("interface", HOST)
        port: Any = listen(self.reactor, 0, self.protocol, interface, backend=plan.get("backend", "mmsg"))
        self.port = port
        self.clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1 + plan.get("clients", 1))]
        for client in self.clients:
            client.settimeout(PATIENCE)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            client.bind((HOST, 0))
        self.marking = self.clients.pop()
        self.addresses = [client.getsockname() for client in self.clients]
        self.raised: list[str] = []
        self.unreachable: list[int] = []
        self.step: dict[str, Any] = {}
        self.answers: list[tuple[int, str]] = []
        if plan.get("connected"):
            self.port.connect(*self.addresses[0])

    def run(self) -> list[dict[str, Any]]:
        """Do all steps and return what happened in each."""
        try:
            return [self.do(step) for step in self.plan["steps"]]
        finally:
            _shim.shim_set(-1, b"")
            self.port.connectionLost()
            for client in (*self.clients, self.marking):
                client.close()

    def do(self, step: dict[str, Any]) -> dict[str, Any]:
        """Do one step."""
        self.step = step
        events.clear()
        self.raised.clear()
        self.unreachable.clear()
        handle = self.port.getHandle()
        if "script" in step and _shim.shim_set(handle.fileno(), step["script"].encode()):
            raise ValueError(f"the shim does not understand {step['script']}")
        number = self.port.getHost().port
        if "asks" in step:
            self.protocol.due, self.answers = len(step["asks"]), step.get("answers", [])
        for index in step.get("asks", []):
            self.clients[index].sendto(b"%d" % index, (HOST, number))
        observers[:] = [self.write_to_first] if "log_writes" in step else []
        self.write(step.get("later", []))
        _all_of(self.marking, number)
        if step.get("close"):
            self.port.connectionLost()
        else:
            self.port.doRead()
            for _ in range(10):  # what is to be told after the turn
                self.reactor.advance(0)
        observers.clear()
        return {
            "received": [_all_of(client, number) for client in self.clients],
            "raised": self.raised.copy(),
            "unreachable": self.unreachable.copy(),
            "stats": asdict(self.port.stats),
            "calls": {call: _shim.shim_count(call.encode()) for call in CALLS},
            "log": events.copy(),
            "watching": bool(select.select([self.port.fileno()], [], [], 0)[0]) if self.port.fileno() >= 0 else False,
        }

    def heard(self, index: int, addr: Any) -> None:
        """Write to a client by the very address that the port has for it."""
        self.addresses[index] = addr

    def write(self, datagrams: list[tuple[int, str]]) -> None:
        """Write datagrams, one by one or at once."""
        parts = [(text.encode(), UNSENDABLE if index < 0 else self.addresses[index]) for index, text in datagrams]
        if self.step.get("in_batch"):
            self.raised += [type(error).__name__ for _, _, error in self.port.write_batch(parts)]
            return
        for part in parts:
            try:
                self.port.write(*part)
            except (OSError, ValueError, OverflowError) as error:  # noqa: PERF203  # each has its own
                self.raised.append(type(error).__name__)

    def write_to_first(self) -> None:
        """Write because something was logged."""
        self.port.write(self.step["log_writes"].encode(), self.addresses[0])


def _all_of(client: socket.socket, port: int) -> list[str]:
    """Return what waits in a socket from a port; what a process beside this one sends to a number used again is not."""
    own = client.getsockname()
    client.sendto(b"", own)
    found: list[str] = []
    while True:
        payload, sender = client.recvfrom(65536)
        if sender == own:
            return found
        if sender[1] == port:
            found.append(payload.decode())


events: list[str] = []
observers: list[Any] = []


def observe(event: Any) -> None:
    """Note what is logged, and let the scenario know."""
    events.append(formatEvent(event))
    for observer in observers:
        observer()


def main() -> None:
    """Do one scenario after the other."""
    observer: Any = observe
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    for line in sys.stdin:
        print(json.dumps(Scenario(json.loads(line)).run()), flush=True)  # noqa: T201  # that is how it answers


if __name__ == "__main__":
    main()
