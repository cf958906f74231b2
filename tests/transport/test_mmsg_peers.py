"""Peers of the compiled backend: what they are called, and how many of them are remembered."""

from __future__ import annotations

import gc
import importlib
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.case import BatchPeer, Peer, echo
from tests.transport.mmsg_case import KINDS, Client, MmsgCase, require_compiled
from twistedudp.transport._addresses import MAX_REMEMBERED, peer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

SENDERS = 20_000
GROUP = 32
"""Senders that send before the port is read."""

PORTS = st.integers(0, 65535)
IPV4 = st.binary(min_size=4, max_size=4)
IPV6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    IPV4.map(lambda host: bytes(10) + b"\xff\xff" + host),  # v4-mapped
    IPV4.map(lambda host: bytes(12) + host),  # ::, ::1, and the deprecated v4-compatible ones
    st.binary(min_size=14, max_size=14).map(lambda rest: b"\xfe\x80" + rest),  # link-local
    # Runs of zeros at any place, which the text leaves out.
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\x20\x01"]), min_size=8, max_size=8).map(b"".join),
)


def sockaddr_in(host: bytes, port: int) -> bytes:
    """Return an IPv4 address as the kernel gives it (ip(7))."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + host + bytes(8)


def sockaddr_in6(host: bytes, port: int, scope: int = 0) -> bytes:
    """Return an IPv6 address as the kernel gives it (ipv6(7))."""
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + host + struct.pack("=I", scope)


class AddressTests(SynchronousTestCase):
    """What protocols are given for an address of the kernel's, made without Python's socket module."""

    def setUp(self) -> None:
        """Find the function."""
        require_compiled()
        self.address_of: Any = importlib.import_module("twistedudp.transport._mmsg._peers").address_of

    @given(IPV4, PORTS)
    def test_ipv4(self, host: bytes, port: int) -> None:
        """Any IPv4 address."""
        expected = peer_of((socket.inet_ntop(socket.AF_INET, host), port))
        self.assertEqual(expected, self.address_of(sockaddr_in(host, port)))

    @given(IPV6, PORTS)
    def test_ipv6(self, host: bytes, port: int) -> None:
        """Any IPv6 address without a scope, v4-mapped ones as IPv4."""
        expected = peer_of((socket.inet_ntop(socket.AF_INET6, host), port, 0, 0))
        self.assertEqual(expected, self.address_of(sockaddr_in6(host, port)))

    @given(IPV6.filter(lambda host: host[:12] != bytes(10) + b"\xff\xff"), PORTS, st.integers(1, 2**32 - 1))
    def test_scope(self, host: bytes, port: int, scope: int) -> None:
        """A scope is called by its interface's name, and by its number where there is no such interface."""
        for index in (scope, 1, 2):
            expected = peer_of((socket.inet_ntop(socket.AF_INET6, host), port, 0, index))
            self.assertEqual(expected, self.address_of(sockaddr_in6(host, port, index)))

    @given(st.binary(max_size=40))
    def test_wrong_bytes(self, raw: bytes) -> None:
        """Bytes that are no such address are refused, whatever they are."""
        family = int.from_bytes(raw[:2], "little")
        if (family == socket.AF_INET and 16 <= len(raw) <= 28) or (family == socket.AF_INET6 and len(raw) == 28):
            self.address_of(raw)
        else:
            self.assertRaises(ValueError, self.address_of, raw)

    def test_wrong_lengths(self) -> None:
        """So are addresses that were cut off, or that something follows."""
        for whole in (sockaddr_in(b"\x7f\0\0\1", 9), sockaddr_in6(bytes(15) + b"\1", 9)):
            for size in range(len(whole)):
                self.assertRaises(ValueError, self.address_of, whole[:size])
            self.assertRaises(ValueError, self.address_of, whole + bytes(29 - len(whole)))
        self.assertRaises(TypeError, self.address_of, None)
        self.assertRaises(TypeError, self.address_of, bytearray(28))


def host_of(number: int) -> str:
    """Return a loopback address that is no other number's."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


class ManyPeersTests(MmsgCase):
    """More peers than are remembered."""

    def ask(self, port: Any, numbers: Sequence[int], asked: str) -> list[list[tuple[bytes, Address]]]:
        """Send datagrams from addresses of their own, let the port have a turn, and return the answers to each."""
        clients = [Client(host_of(number)) for number in numbers]
        try:
            for number, client in zip(numbers, clients, strict=True):
                client.send(b"%d" % number, port, asked)
            self.serve(port)
            return [client.received_from() for client in clients]
        finally:
            for client in clients:
                client.handle.close()

    def test_answered_on_the_right_path(self) -> None:
        """However many others have been heard, each is answered from the address that it asked."""
        for kind in KINDS:
            protocol = kind(lambda peer, *_: peer.received.clear())
            port = self.listen(protocol, "")
            there = ("127.0.0.7", port.getHost().port)
            held = [self.client(host_of(number)) for number in range(MAX_REMEMBERED * 2, 0, -41)]
            for client in held:
                client.send(b"first", port, "127.0.0.7")
            self.serve(port)
            others = range(10_000, 10_000 + MAX_REMEMBERED * 2)
            for number in others[::GROUP]:
                self.ask(port, range(number, number + GROUP), "127.0.0.8")
            protocol.on_datagram = echo
            for client in held:
                client.send(b"again", port, "127.0.0.7")
            self.serve(port)
            self.assertEqual([[(b"again", there)]] * len(held), [client.received_from() for client in held])
            port.connectionLost()

    def test_bounded(self) -> None:
        """Twenty thousand senders leave no more than two generations of them behind, and the rest is counted.

        Those that were forgotten belong to nobody any more, and all do when the port has gone.
        """
        for kind in KINDS:
            seen: list[int] = []
            peers: list[Address] = []

            def answer(
                peer: Peer, datagram: bytes, addr: Address, seen: list[int] = seen, peers: list[Address] = peers
            ) -> None:
                seen.append(int(datagram))
                peers.append(addr)
                echo(peer, datagram, addr)
                peer.received.clear()

            port = self.listen(kind(answer), "")
            there = ("127.0.0.5", port.getHost().port)
            for first in range(0, SENDERS, GROUP):
                numbers = range(first, first + GROUP)
                self.assertEqual([[(b"%d" % number, there)] for number in numbers], self.ask(port, numbers, there[0]))
            self.assertEqual(list(range(SENDERS)), seen)
            forgotten = port.stats.routes_forgotten
            self.assertTrue(SENDERS - 2 * MAX_REMEMBERED <= forgotten < SENDERS, forgotten)
            fresh = [(str(number), number) for number in range(3)]
            (alone,) = {sys.getrefcount(addr) for addr in fresh}
            held = sum(sys.getrefcount(addr) > alone for addr in peers)
            # What was forgotten may still have its place in the table of raw addresses, which has 4,096.
            self.assertTrue(MAX_REMEMBERED <= held <= 3 * MAX_REMEMBERED, held)
            port.connectionLost()
            gc.collect()
            self.assertEqual({alone}, {sys.getrefcount(addr) for addr in peers})

    def test_forgotten_is_never_fewer(self) -> None:
        """A write to somebody who was never heard does not set the count of forgotten peers back."""
        port = self.listen(BatchPeer(), "")
        for number in range(0, 3 * MAX_REMEMBERED, GROUP):
            self.ask(port, range(number, number + GROUP), "127.0.0.5")
        before = port.stats.routes_forgotten
        self.assertTrue(before > 0)
        port.write(b"hello", self.client().address)
        self.assertTrue(port.stats.routes_forgotten >= before, (before, port.stats.routes_forgotten))

    def test_peers_of_both_families(self) -> None:
        """IPv4 and IPv6 peers of one port, whose raw addresses have one length, are told apart, and so are ports."""
        port = self.listen(protocol := Peer(echo), "::")
        clients = [self.client(host) for host in ("127.0.0.1", "::1") * 20]
        for client in clients:
            client.send(b"%d" % client.address[1], port)
            self.serve(port)
        for _ in range(3):
            self.serve(port)
        self.assertEqual([client.address for client in clients], protocol.peers)
        for client in clients:
            here = client.address[0], port.getHost().port
            self.assertEqual([(b"%d" % client.address[1], here)], client.received_from())

    def test_an_address_is_one_object(self) -> None:
        """A peer's address is made once, and is the same object for each of its datagrams."""
        for kind in KINDS:
            port = self.listen(protocol := kind())
            client = self.client()
            for _ in range(10):
                client.send(b"x", port)
                self.serve(port)
            self.assertEqual(1, len({id(addr) for addr in protocol.peers}))
