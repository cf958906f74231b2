"""Which backend serves, and on what kind of kernel."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.case import BatchPeer, Peer
from tests.transport.fakes import os_error
from tests.transport.mmsg_case import KINDS, MmsgCase, Slow
from twistedudp.errors import LocalError
from twistedudp.transport import SECONDS_PER_TURN, _batching, _capabilities, _kernel, listen
from twistedudp.transport._backend import choose_backend


class OldSocket:
    """A socket of a kernel that has not heard of UDP_SEGMENT."""

    def getsockopt(self, level: int, option: int) -> int:
        """Fail as Linux before 4.18 does."""
        assert (level, option) == (socket.IPPROTO_UDP, _kernel.UDP_SEGMENT)
        raise os_error(92)


class SegmentTests(SynchronousTestCase):
    """Whether a buffer can be left to the kernel to cut: where it cannot, it would leave as one datagram."""

    def test_old_kernel(self) -> None:
        """The kernel is asked; a refusal is not an error."""
        old: Any = OldSocket()
        self.assertFalse(_capabilities.can_segment(old))

    def test_this_kernel(self) -> None:
        """The answer is what a send would have shown."""
        if not _kernel.LINUX:
            self.assertFalse(_capabilities.can_segment(socket.socket()))
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            plain.sendmsg([b"abcd"], [_kernel.segment_option(2)], 0, other.getsockname())
            self.assertEqual(other.recv(10) == b"ab", _capabilities.can_segment(plain))

    def test_batches(self) -> None:
        """The backend in plain Python puts nothing together on such a kernel."""
        self.patch(_batching, "can_segment", lambda _: False)
        self.check("scalar")

    def check(self, backend: str) -> None:
        """Have four datagrams answered on one port."""
        reactor: Any = MemoryReactorClock()  # type: ignore[no-untyped-call]  # Twisted has no types there
        peer = BatchPeer(lambda self, datagram, addr: self.port.write_batch([(datagram, addr)] * 2))
        port: Any = listen(reactor, 0, peer, "127.0.0.1", backend=backend)
        self.addCleanup(port.connectionLost)
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(10.0)
            for number in range(4):
                client.sendto(b"%d" % number, ("127.0.0.1", port.getHost().port))
            port.doRead()
            self.assertEqual([b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"], [client.recv(99) for _ in range(8)])
        self.assertEqual(0, port.stats.sent_together)


class CompiledSegmentTests(MmsgCase):
    """The same for the compiled backend."""

    def test_old_kernel(self) -> None:
        """Each answer leaves alone."""
        self.patch(sys.modules["twistedudp.transport._mmsg._backend"], "can_segment", lambda _: False)
        for kind in KINDS:
            port, client = (
                self.listen(kind(lambda peer, datagram, addr: peer.port.write(datagram, addr))),
                self.client(),
            )
            client.take_buffers()
            for number in range(4):
                client.send(b"%d" % number, port)
            self.serve(port)
            self.assertEqual([[b"0"], [b"1"], [b"2"], [b"3"]], client.buffers())
            self.assertEqual(0, port.stats.sent_together)


class TurnTests(MmsgCase):
    """What a protocol could tell."""

    def test_replaced_method(self) -> None:
        """A protocol may replace its method while it is called: the next datagram goes to the new one."""
        protocol: Any = DatagramProtocol()
        calls: list[str] = []

        def first(_datagram: bytes, _addr: object) -> None:
            calls.append("first")
            protocol.datagramReceived = lambda *_: calls.append("second")

        protocol.datagramReceived = first
        port, client = self.listen(protocol), self.client()
        for _ in range(3):
            client.send(b"x", port)
        self.serve(port)
        self.assertEqual(["first", "second", "second"], calls)

    def test_slow_batches(self) -> None:
        """Datagrams that came in one buffer are given in small batches to a protocol that takes long for each."""
        sizes: list[int] = []

        class Sizes(BatchPeer):
            def datagrams_received(self, datagrams: Any) -> None:
                sizes.append(len(datagrams))
                super().datagrams_received(datagrams)

        port, client = self.listen(Sizes(Slow(SECONDS_PER_TURN / 2))), self.client()
        client.send_together(bytes(128), 2, port)
        self.serve(port)
        self.assertEqual(64, sum(sizes))
        self.assertEqual({1}, set(sizes[1:]), sizes)

    def test_write_batch(self) -> None:
        """What is wrong with one datagram, whatever it is, keeps no other from being sent."""
        port, client = self.listen(Peer()), self.client()
        anything: Any = [(b"1", client.address), ("2", client.address), (b"3", ("127.0.0.1",)), (b"4", client.address)]
        self.assertEqual(["2", b"3"], [datagram for datagram, _, _ in port.write_batch(anything)])
        self.assertEqual([b"1", b"4"], client.received())


class ChoiceTests(MmsgCase):
    """When the compiled backend is there and cannot serve."""

    def test_refused_by_a_sandbox(self) -> None:
        """Its system calls are tried: where a sandbox refuses them, the other one serves, and says why."""
        self.patch(sys.modules["twistedudp.transport._mmsg"], "obstacle", lambda: "recvmmsg: Function not implemented")
        choice = choose_backend()
        self.assertEqual("scalar", choice.name)
        self.assertIn("cannot run here (recvmmsg: Function not implemented)", choice.reason)
        self.assertRaises(LocalError, choose_backend, "mmsg")

    def test_without_gil(self) -> None:
        """It would end a free-threaded interpreter's freedom, so it is not even imported there."""
        if not hasattr(sys, "_is_gil_enabled"):  # before Python 3.13
            sys._is_gil_enabled = bool  # type: ignore[attr-defined]  # until the end of the test
            self.addCleanup(delattr, sys, "_is_gil_enabled")
        self.patch(sys, "_is_gil_enabled", lambda: False)
        self.assertEqual("scalar", choose_backend().name)
