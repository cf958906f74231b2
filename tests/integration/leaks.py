"""A program that sends compiled ports millions of datagrams of all kinds, and tells what it holds more afterwards.

    python tests/integration/leaks.py DATAGRAMS

Theory of operation: a datagram that is sent on loopback is in the receiver's queue when the system call returns. So the
process is sender and receiver at once, turn by turn: no second process, no waiting, no loss, and each turn the same. A
round has, on ports of each kind: bursts of single datagrams and of datagrams that the kernel cuts from one buffer
(UDP_SEGMENT), of many sizes, empty and too large ones among them; peers never heard before; exceptions in callbacks;
answers; writes that fail because of the caller and because of the network, ICMP errors and a port that comes and goes.
What is bounded fills its bounds in a first part that is not measured. The second part begins and ends with a collection
of garbage; the differences are printed as JSON.

It runs by itself, because a test runner's process grows for reasons of its own.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import random
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import ILogObserver, globalLogBeginner
from zope.interface import implementer

from twistedudp.transport import listen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted.logger import LogEvent

    from twistedudp.address import Address

UDP_SEGMENT: Final = 103  # <linux/udp.h>
UDP_GRO: Final = 104
SIZES: Final = (1, 64, 64, 64, 64, 548, 1200)
BURST: Final = 48
"""Datagrams sent before the port is read: they fit into any receive buffer."""
SMALL: Final = 1300
"""Bytes that one of the ports takes at most."""
FIRST: Final = 50_000
"""Datagrams before the measuring begins, at least."""
PATIENCE: Final = 20.0
"""Seconds after which something is lost."""
FAULT: Final = b"!" * 1000
"""A payload that the protocol answers and then fails at."""
ODD: Final = 1000
"""Bytes of what is written in vain: if one of them is kept each time, ``heap`` tells."""


class FaultInCallback(Exception):
    """What the protocols raise when a payload asks for it."""


class Echo(DatagramProtocol):
    """Answers each datagram, and sometimes raises an exception."""

    noisy = False
    unreachable = 0

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer, then fail if asked for it."""
        assert self.transport is not None
        self.transport.write(datagram, addr)
        if datagram.startswith(FAULT):
            raise FaultInCallback(datagram)

    def peer_unreachable(self, peer: Address, reason: Any, quoted: Any) -> None:
        """Count an ICMP error."""
        self.unreachable += 1


class BatchEcho(Echo):
    """Answers batches of datagrams."""

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Answer all of them at once, then fail if one asks for it."""
        transport: Any = self.transport
        transport.write_batch(datagrams)
        if any(datagram.startswith(FAULT) for datagram, _ in datagrams):
            raise FaultInCallback


class Sink(DatagramProtocol):
    """Takes datagrams and answers none."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Nothing."""


class Holdings(NamedTuple):
    """What this process holds."""

    rss: int
    """Resident memory in bytes."""
    blocks: int
    """Blocks of Python's allocator."""
    objects: int
    """Objects that the garbage collector tracks."""
    heap: int
    """Bytes that C code has from malloc, where the C library tells (glibc does)."""
    references: int
    """References to objects that every datagram meets, where these are counted (from Python 3.12 on None is not)."""

    @classmethod
    def now(cls, shared: Sequence[object]) -> Holdings:
        """Collect garbage and look."""
        gc.collect()
        objects = len(gc.get_objects())
        references = sum(map(sys.getrefcount, shared))
        resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
        return cls(int(resident.split()[1]) * 1024, sys.getallocatedblocks(), objects, heap(), references)


class MallocInformation(ctypes.Structure):
    """What mallinfo2(3) returns: struct mallinfo2 of <malloc.h>."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def heap() -> int:
    """Return how many bytes malloc has given away and not got back, 0 where that cannot be told."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = MallocInformation
    told = mallinfo2()
    return int(told.uordblks + told.hblkhd)


@implementer(ILogObserver)
class Rounds:
    """The ports, and all that is done to them.

    Attributes:
        sent: Datagrams sent to the ports.
        logged: Exceptions in the log.
    """

    def __init__(self) -> None:
        self.reactor = EPollReactor()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.numbers = itertools.count()
        self.random = random.Random(4)  # noqa: S311  # sizes and addresses, the same in each run
        self.ports = [
            self.port(Echo(), "127.0.0.1"),
            self.port(Echo(), "", timestamps=True),
            self.port(BatchEcho(), "127.0.0.1", timestamps=True),
            self.port(BatchEcho(), "::1"),
            self.port(Echo(), "::"),
            self.port(Sink(), "127.0.0.1", max_datagram_size=SMALL),
        ]
        self.sent = 0
        self.logged = 0
        self.clients = [self.client(port) for port in self.ports for _ in range(2)]
        self.refused = self.address_of_nobody()

    def port(self, protocol: DatagramProtocol, interface: str, **options: Any) -> Any:
        """Make a port."""
        return listen(self.reactor, 0, protocol, interface, backend="mmsg", **options)

    def client(self, port: Any) -> socket.socket:
        """Return a socket that is connected to a port."""
        made = socket.socket(port.addressFamily, socket.SOCK_DGRAM)
        made.connect(self.address(port))
        # So that answers which left together are read together.
        made.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        return made

    def address(self, port: Any) -> Address:
        """Return where a port is reached."""
        return "::1" if port.addressFamily == socket.AF_INET6 else "127.0.0.1", port.getHost().port

    def address_of_nobody(self) -> Address:
        """Return an address at which no socket is."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            host, port = probe.getsockname()
            return host, port

    def __call__(self, event: LogEvent) -> None:
        """Count an exception in the log."""
        self.logged += "log_failure" in event

    def deliver(self, port: Any, client: socket.socket, sizes: Sequence[int]) -> None:
        """Let a port read what was sent to it, and take the answers.

        They are there at once, unless the kernel, when it is busy, leaves loopback to a thread of its own.

        Args:
            port: The port.
            client: The socket that sent to it.
            sizes: The sizes of what it sent.
        """
        self.sent += len(sizes)
        due = port.stats.datagrams_received + port.stats.truncated + len(sizes)
        deadline = time.monotonic() + PATIENCE
        while port.stats.datagrams_received + port.stats.truncated < due and time.monotonic() < deadline:
            port.doRead()
        owed = sum(sizes) if port is not self.ports[-1] else 0
        client.settimeout(PATIENCE)
        while owed > 0:
            owed -= len(client.recv(65536))

    def singly(self, port: Any, client: socket.socket, sizes: Sequence[int]) -> None:
        """Send datagrams one by one."""
        for size in sizes:
            client.send(bytes(size))
        self.deliver(port, client, sizes)

    def together(self, port: Any, client: socket.socket, size: int, count: int) -> None:
        """Send datagrams of one size with one system call."""
        cut = [(socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
        client.sendmsg([bytes(size * count)], cut)
        self.deliver(port, client, [size] * count)

    def stranger(self, port: Any) -> None:
        """Send to a port from an address that it has not heard before, or not for long."""
        with socket.socket(port.addressFamily, socket.SOCK_DGRAM) as client:
            if port.addressFamily == socket.AF_INET:
                number = next(self.numbers)
                client.bind((f"127.{1 + number // 65536 % 254}.{number // 256 % 256}.{1 + number % 254}", 0))
            else:  # there is one loopback address only
                while client.getsockname()[1] == 0:
                    with suppress(OSError):  # taken
                        client.bind(("::1", 10_000 + next(self.numbers) % 50_000))
            client.sendto(bytes(64), self.address(port))
            self.deliver(port, client, (64,))

    def fill(self) -> None:
        """Meet strangers until each port has just begun a new generation in its memory of peers.

        So that the memory holds as much as the last time; between it is up to twice as much, for all ports at once.
        """
        waiting = [(port, port.stats.routes_forgotten) for port in self.ports]
        while waiting:
            for port, _ in waiting:
                self.stranger(port)
            waiting = [(port, forgotten) for port, forgotten in waiting if port.stats.routes_forgotten <= forgotten]

    def wrong_writes(self, port: Any) -> Iterator[type[BaseException]]:
        """Write what cannot be sent, and yield the errors."""
        host = "::1" if port.addressFamily == socket.AF_INET6 else "127.0.0.1"
        for payload, addr in (
            (bytes(70_000), (host, 9)),
            (bytes(ODD), ("a name", 9)),
            (bytes(ODD), (host, 0)),
            (bytes(ODD), ("127.255.255.255", 9)),  # broadcast, or an address of the other family
        ):
            try:
                port.write(payload, addr)
            except (MessageLengthError, InvalidAddressError, OSError) as error:  # noqa: PERF203  # each is one
                yield type(error)
        port.write_batch([(bytes(70_000), (host, 9)), (bytes(ODD), ("a name", 9)), (bytes(ODD), (host, 9))])
        port.write(bytes(ODD), (host, self.refused[1]))

    def one(self) -> None:
        """Do everything once."""
        for port, client in zip((port for port in self.ports for _ in range(2)), self.clients, strict=True):
            for _ in range(4):
                size = self.random.choice(SIZES)
                self.together(port, client, size, min(BURST, 60_000 // size))
            self.singly(port, client, [self.random.choice(SIZES) for _ in range(BURST)])
        for port, client in zip(self.ports, self.clients[::2], strict=True):
            self.singly(port, client, (0, 1472, 8192, 65_507, 0))
            client.send(FAULT)
            self.deliver(port, client, (len(FAULT),))
            assert len(list(self.wrong_writes(port))) == 4
            port.doRead()
        for port in self.ports:
            self.stranger(port)
        self.coming_and_going()
        self.reactor.iterate(0)

    def coming_and_going(self) -> None:
        """Open a port, leave datagrams unread in it, and close it."""
        port = self.port(Echo(), "127.0.0.1")
        with self.client(port) as client:
            client.send(bytes(ODD))
            port.connect(*client.getsockname())
            port.doRead()
            client.send(bytes(ODD))
            port.stopListening()
            self.reactor.iterate(0)

    def delivered(self) -> int:
        """Return how many datagrams the ports have delivered or dropped as too large."""
        return sum(port.stats.datagrams_received + port.stats.truncated for port in self.ports)


def main(datagrams: int) -> dict[str, Any]:
    """Run, and return what was found."""
    rounds = Rounds()
    globalLogBeginner.beginLoggingTo([rounds], redirectStandardIO=False)
    while rounds.sent < max(FIRST, datagrams // 10):
        rounds.one()
    rounds.fill()
    rounds.fill()  # the first time there may have been no older generation
    shared = [None, True, b"", (), 0, *rounds.ports, *(port.protocol for port in rounds.ports), rounds, type(rounds)]
    first = rounds.sent
    before = Holdings.now(shared)
    while rounds.sent - first < datagrams:
        rounds.one()
    rounds.fill()
    after = Holdings.now(shared)
    return {
        "datagrams": rounds.sent - first,
        "lost": rounds.sent - rounds.delivered(),
        "logged": rounds.logged,
        "unreachable": sum(port.stats.unreachable for port in rounds.ports),
        "before": before._asdict(),
        "growth": {name: new - old for name, old, new in zip(before._fields, before, after, strict=True)},
    }


if __name__ == "__main__":
    json.dump(main(int(sys.argv[1])), sys.stdout)
