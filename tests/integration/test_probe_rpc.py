"""The built-in method ``rpc.probe`` of a real ``twistd udpecho``: asked by plain sockets, and by ``Prober``.

The network between is ``twistd udpimpair``, which does to one direction what it is told and leaves the other alone. Its
chance has a fixed seed; what is counted is compared with the interval in which free chance leaves it 9,999 times of
10,000.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final
from zlib import crc32

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.binomial import binomial_bounds
from tests.integration.sockets import RealTestCase, has_ipv6_loopback, plain_socket, waiting_in
from tests.integration.twistd import Directory, RunningTwistd
from twistedudp import _msgpack
from twistedudp._prober import Prober, Schedule, new_series
from twistedudp.address import format_address
from twistedudp.methods import RPCMethods
from twistedudp.probing import COUNTS_ONLY, SMALLEST_PROBE, ProbeWire
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from twistedudp.address import Address
    from twistedudp.probing import ServerSide, Summary, Times

pytestmark = pytest.mark.heavy

COUNT: Final = 1200
INTERVAL_NS: Final = 1_000_000
UNEVEN: Final = ("delay=6ms±4ms,seed=3", Schedule(9_000_000, 150))
"""A delay spread over 8 ms, and probes so far apart that none overtakes another."""
DOUBT: Final = 0.00005
"""The probability to be outside of the interval, on each of its sides."""
SOON: Final = 0.25
"""Seconds after which an answer is late: all delays here are far shorter, also on a busy machine."""

SERVED: Final = """
from twistedudp import RPCMethods


class Nothing(RPCMethods):
    pass
"""


class RpcServer:
    """A ``twistd udpecho`` that serves methods, for a ``with`` block.

    Args:
        interface: The address that it is bound to.
    """

    def __init__(self, interface: str = "127.0.0.1") -> None:
        self._interface = interface
        self._directory = Directory()

    def __enter__(self) -> Address:
        self._directory.write("nothing.py", SERVED)
        options = ("--protocol", "rpc", "--protocol-option", "class=nothing:Nothing", "--interface", self._interface)
        try:
            self._server = RunningTwistd(*options, python_path=[self._directory.path])
        except BaseException:
            self._directory.__exit__(None, None, None)
            raise
        return self._server.address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._server.stop()
        self._directory.__exit__(None, None, None)


class PlainTests(SynchronousTestCase):
    """What a plain socket is answered."""

    def told(self, client: socket.socket, wire: ProbeWire, sequence: int) -> ServerSide:
        """Send one probe and return what its answer says, after a look at its size."""
        client.send(wire.encode(sequence, time.monotonic_ns()))
        answer = client.recv(65535)
        self.assertEqual(len(answer), wire.size)
        server = wire.decode_untrusted(answer).server
        assert server is not None
        return server

    def check_series(self, interface: str) -> None:
        """Send series of several sizes; each has its own counts and possible times."""
        with RpcServer(interface) as address, plain_socket(interface) as client:
            client.connect(address)
            for size in (SMALLEST_PROBE, SMALLEST_PROBE + 1, 64, 307, 308, 1200, 1472, 4096, 8192):
                wire = ProbeWire(2**63 + size, size, bytes(number % 251 for number in range(size)))
                begun = time.time_ns()
                told = [self.told(client, wire, sequence) for sequence in (0, 1, 5, 5, 3, 1, COUNTS_ONLY)]
                ended = time.time_ns()
                counts = [server[:2] for server in told]
                self.assertEqual(counts, [(1, 0), (2, 0), (3, 0), (3, 1), (4, 1), (4, 2), (4, 2)])
                times = [moment for server in told for moment in server[2:]]
                # The batch's beginning is reckoned back from its end by another clock, which is none of nanoseconds.
                self.assertTrue(begun - 1000 <= times[0] and times[-1] <= ended, (begun, times, ended))
                self.assertEqual(times, sorted(times))

    def test_ipv4(self) -> None:
        """Every size, in IPv4."""
        self.check_series("127.0.0.1")

    def test_ipv6(self) -> None:
        """Every size, in IPv6."""
        if has_ipv6_loopback():
            self.check_series("::1")

    def test_without_our_code(self) -> None:
        """Bytes written and read by hand, as whoever implements docs/wire.md does it."""
        with RpcServer() as address, plain_socket() as client:
            client.connect(address)
            begun = time.time_ns()
            client.send(
                bytes.fromhex("9400ce76543211 a9") + b"rpc.probe" + bytes.fromhex("94 cffedcba9876543210 ce00000001")
                + bytes.fromhex("cf0000000000000000 c5000c") + b"twelve bytes"
            )  # fmt: skip
            answer = client.recv(65535)
        self.assertEqual(answer[:24].hex(), "9401ce76543211c097ce00000001ce00000001ce00000000")
        arrived, departed = struct.unpack(">xQxQ", answer[24:42])
        self.assertTrue(begun - 1000 <= arrived <= departed <= time.time_ns())
        check = crc32(struct.pack(">IIIQQ", 1, 1, 0, arrived, departed))
        self.assertEqual(answer[42:], b"\xce" + struct.pack(">I", check) + b"\xc5\0\6twelve")

    def test_together(self) -> None:
        """Probes and calls that come at once are each answered; a question that comes twice is answered twice."""
        wire = ProbeWire(2**63, 64, bytes(64))
        with RpcServer() as address, plain_socket() as client:
            for sequence in range(100):
                client.sendto(wire.encode(sequence, 0), address)
                client.sendto(_msgpack.encode_request(sequence, "echo", [sequence]), address)
                client.sendto(wire.encode(sequence, 0), address)
            datagrams = [client.recv(65535) for _ in range(300)]
        replies = [wire.decode_untrusted(datagram) for datagram in datagrams if len(datagram) == 64]
        self.assertEqual(sorted(reply.sequence for reply in replies), sorted([*range(100)] * 2))
        counts = [reply.server[:2] for reply in replies if reply.server]
        self.assertEqual(max(counts), (100, 100))
        self.assertEqual(len(set(counts)), 200)


class ArrivalTests(RealTestCase):
    """What a server tells that had no time for its socket."""

    BUSY = 0.02
    COUNT = 5

    async def answers(self, *, timestamps: bool) -> tuple[list[ServerSide], list[tuple[int, int]]]:
        """Send probes to a server that is busy after each of them; return the answers, and when each was sent."""
        max_wait = 2.0 if timestamps else None  # to shed stale requests they are turned on as well
        server = UDPServerService(self.reactor, 0, RPCMethods(), timestamps=timestamps, max_wait=max_wait)
        server.startService()
        self.addCleanup(server.stopService)
        assert server.address is not None
        wire, client, sent = ProbeWire(2**63, 64, bytes(64)), self.plain(), []
        client.connect(server.address)
        client.send(wire.encode(COUNTS_ONLY, 0))  # Linux begins to stamp some time after the first socket has asked
        while not (waiting := waiting_in(client)):
            await self.turn()
        for sequence in range(self.COUNT):
            begun = time.time_ns()
            client.send(wire.encode(sequence, 0))
            sent.append((begun, time.time_ns()))
            ends = time.monotonic() + self.BUSY
            while time.monotonic() < ends:
                pass
        waiting = []
        while len(waiting) < self.COUNT:
            await self.turn()
            waiting += waiting_in(client)
        return [reply.server for reply in map(wire.decode_untrusted, waiting) if reply.server], sent

    def test_by_the_kernel(self) -> Deferred[None]:
        """With the kernel's timestamps each probe came when it was sent; the wait for the server is its own time."""

        async def run() -> None:
            answers, sent = await self.answers(timestamps=True)
            for server, (begun, ended) in zip(answers, sent, strict=True):
                self.assertTrue(begun <= server.arrived_ns <= ended, (begun, server, ended))
                self.assertGreater(server.departed_ns - server.arrived_ns, self.BUSY * 1e9)

        return Deferred.fromCoroutine(run())

    def test_by_the_clock(self) -> Deferred[None]:
        """Without, they all came when the server had time for them."""

        async def run() -> None:
            answers, sent = await self.answers(timestamps=False)
            self.assertEqual(len({server.departed_ns for server in answers}), len({s.arrived_ns for s in answers}))
            for server in answers:
                self.assertGreater(server.arrived_ns, sent[-1][1] + self.BUSY * 1e9 - 1e6)
                self.assertLess(server.departed_ns - server.arrived_ns, self.BUSY * 1e9)

        return Deferred.fromCoroutine(run())


class ProberTests(RealTestCase):
    """What ``Prober`` makes of it, through a network that treats the two directions differently."""

    async def through(self, *effects: str, schedule: Schedule = Schedule(INTERVAL_NS, COUNT)) -> Summary:  # noqa: B008  # frozen
        """Probe the server through a relay, and check what holds for all."""
        count = schedule.count
        with RpcServer() as server:
            command = ("udpimpair", "--listen", "0", "--to", format_address(server), *effects)
            with RunningTwistd(command=command) as relay:
                series = new_series("relay", relay.address, interval=schedule.interval_ns / 1e9, timeout=SOON)
                got = await Prober(self.reactor, relay.address, series, schedule).run()
        self.assertEqual((got.protocol, got.sent, got.received + got.lost), ("rpc", count, count))
        self.assertEqual((got.corrupted, got.foreign, got.unreachable, got.not_sent, got.late), (0, 0, 0, 0, 0), got)
        assert got.server_time.min is not None
        assert got.server_time.p50 is not None
        assert got.rtt.p50 is not None
        self.assertTrue(0 <= got.server_time.min <= got.server_time.p50 < got.rtt.p50, got)
        self.assertLess(got.server_time.p50, 0.002)
        return got

    def check(self, what: str, got: int | None, trials: int, chance: float) -> None:
        """Compare a count with the interval in which chance explains it."""
        least, greatest = binomial_bounds(trials, chance, DOUBT)
        assert got is not None
        self.assertTrue(least <= got <= greatest, f"{what}: {got} of {trials}, and {least} to {greatest} are to be")

    def test_loss_there(self) -> Deferred[None]:
        """20 % lost on the way there, and nothing on the way back."""

        async def run() -> None:
            got = await self.through("--effects-to-server", "loss=20%,seed=1")
            self.check("lost there", got.lost_there, COUNT, 0.2)
            self.assertEqual((got.lost, got.lost_back, got.duplicated_there), (got.lost_there, 0, 0))

        return Deferred.fromCoroutine(run())

    def test_loss_back(self) -> Deferred[None]:
        """20 % lost on the way back, and nothing on the way there."""

        async def run() -> None:
            got = await self.through("--effects-to-client", "loss=20%,seed=2")
            self.check("lost back", got.lost_back, COUNT, 0.2)
            self.assertEqual((got.lost, got.lost_there, got.duplicated_there), (got.lost_back, 0, 0))

        return Deferred.fromCoroutine(run())

    def test_duplicates_there(self) -> Deferred[None]:
        """20 % come to the server twice, which answers both and says so."""

        async def run() -> None:
            got = await self.through("--effects-to-server", "duplicate=20%,seed=3")
            self.check("duplicated there", got.duplicated_there, COUNT, 0.2)
            self.assertEqual((got.lost, got.duplicated), (0, got.duplicated_there))

        return Deferred.fromCoroutine(run())

    def test_duplicates_back(self) -> Deferred[None]:
        """20 % of the answers come twice: the server has had nothing twice."""

        async def run() -> None:
            got = await self.through("--effects-to-client", "duplicate=20%,seed=4")
            self.check("duplicated back", got.duplicated, COUNT, 0.2)
            self.assertEqual((got.lost, got.duplicated_there), (0, 0))

        return Deferred.fromCoroutine(run())

    def test_uneven_there(self) -> Deferred[None]:
        """A delay on the way there that differs from probe to probe shows there, and the way back is even."""

        async def run() -> None:
            got = await self.through("--effects-to-server", UNEVEN[0], schedule=UNEVEN[1])
            self.check_variations(got.variation_there, got.variation_back)

        return Deferred.fromCoroutine(run())

    def test_uneven_back(self) -> Deferred[None]:
        """The same on the way back."""

        async def run() -> None:
            got = await self.through("--effects-to-client", UNEVEN[0], schedule=UNEVEN[1])
            self.check_variations(got.variation_back, got.variation_there)

        return Deferred.fromCoroutine(run())

    def check_variations(self, uneven: Times, even: Times) -> None:
        """Look at how delays differ from probe to probe: spread over 8 ms, by a third of that on average."""
        assert uneven.mean is not None
        assert uneven.p50 is not None
        assert even.mean is not None
        assert even.p50 is not None
        # 150 differences, of which neighbours depend on each other: within half a millisecond, and what the host adds,
        # which the even way shows; it comes on top of both delays of a difference.
        self.assertTrue(0.0021 < uneven.mean < 0.0034 + 2 * even.mean, (uneven, even))
        self.assertTrue(0.0017 < uneven.p50 < 0.0032 + 2 * even.p50, (uneven, even))
        self.assertLess(even.p50, uneven.p50 / 2)
