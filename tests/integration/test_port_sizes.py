"""Datagrams of every size that matters come through byte for byte, alone and among others."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.integration.reactors import IPV6, BatchPeer, Peer, PortCase, echo, variants
from twistedudp import UDPClientService, UDPServerService
from twistedudp.echo import EchoProtocol

if TYPE_CHECKING:
    from tests.integration.reactors import Family

BURSTS = 20
"""Each holds every size once and fits the smallest receive buffer."""

SEED = 20261122


def sizes(family: Family) -> list[int]:
    """Return the sizes: nothing, the least, what IPv4 and IPv6 promise to carry, around an MTU, a buffer, the limit."""
    return [0, 1, 548, 1200, 1472, 1473, 8192, 8193, 65507, *([65527] if family is IPV6 else [])]


def payload_of(size: int, number: int = 0) -> bytes:
    """Return bytes that no other size or number has."""
    return random.Random(f"{SEED} {size} {number}").randbytes(size)  # noqa: S311  # to be repeatable


@variants(globals())
class Sizes(PortCase):
    """An echo server and its clients."""

    def check_each(self, server: Peer, interface: str) -> None:
        """Send one datagram of each size from a plain socket."""
        port = self.listen(server, interface)
        asking = self.plain()
        for size in sizes(self.family):
            self.assert_answers(port, asking, payload_of(size))
        self.assertEqual(server.payloads, [payload_of(size) for size in sizes(self.family)])
        expected = (len(server.received), sum(sizes(self.family)))
        stats = port.stats
        self.assertEqual((stats.datagrams_received, stats.bytes_received), expected)
        self.assertEqual((stats.datagrams_sent, stats.bytes_sent), expected)
        self.assertEqual((stats.truncated, stats.callback_errors), (0, 0))

    def test_each(self) -> None:
        """Each size alone, at a port bound to one address."""
        self.check_each(Peer(echo), self.family.host)

    def test_each_at_wildcard(self) -> None:
        """Each size alone, at a port bound to all addresses."""
        self.check_each(Peer(echo), self.family.any_host)

    def test_each_in_batches(self) -> None:
        """Each size alone, for a protocol that takes batches."""
        self.check_each(BatchPeer(echo), self.family.host)

    def check_bursts(self, server: Peer, client: Peer, interface: str) -> None:
        """Send all sizes at once from one port of ours to another, in many orders."""
        rng = random.Random(SEED)  # noqa: S311  # to be repeatable
        port = self.listen(server, interface)
        sending = self.listen(client)
        for number in range(BURSTS):
            burst = [payload_of(size, number) for size in sizes(self.family)]
            rng.shuffle(burst)
            for datagram in burst:
                sending.write(datagram, self.address_of(port))
            self.wait(lambda: len(client.received) == len(burst), lambda: sending.stats)  # noqa: B023  # it ends here
            self.assertEqual([len(one) for one in client.payloads], [len(one) for one in burst])
            self.assertEqual(client.payloads, burst)
            self.assertEqual(server.payloads, burst)
            server.received.clear()
            client.received.clear()
        for stats in (port.stats, sending.stats):
            self.assertEqual((stats.truncated, stats.dropped_by_kernel, stats.send_errors), (0, 0, {}))

    def test_bursts(self) -> None:
        """All sizes at once, in any order, keep their order and their bytes."""
        self.check_bursts(Peer(echo), Peer(), self.family.host)

    def test_bursts_at_wildcard(self) -> None:
        """So they do at a port bound to all addresses."""
        self.check_bursts(Peer(echo), Peer(), self.family.any_host)

    def test_bursts_in_batches(self) -> None:
        """So they do where both sides take batches."""
        self.check_bursts(BatchPeer(echo), BatchPeer(), self.family.host)

    def test_runs_of_one_size(self) -> None:
        """Many of one size, and a shorter one at the end, which may all travel in one buffer, come apart again."""
        for server, client in ((Peer(echo), Peer()), (BatchPeer(echo), BatchPeer())):
            port, sending = self.listen(server), self.listen(client)
            for size in (1, 548, 1200, 1472):
                burst = [payload_of(size, number) for number in range(63)] + [payload_of(size // 2)]
                for datagram in burst:
                    sending.write(datagram, self.address_of(port))
                self.wait(lambda: len(client.received) == len(burst), lambda: sending.stats)  # noqa: B023  # it ends here
                self.assertEqual(client.payloads, burst)
                client.received.clear()

    def test_services(self) -> None:
        """The client service gets back from the server service what it sent, up to the largest datagram."""
        server = self.serve(UDPServerService(self.reactor, 0, EchoProtocol, self.family.host))
        client = self.serve(
            UDPClientService(self.reactor, *server.address, timeout=self.patience, max_datagram_size=self.family.most)
        )
        for size in sizes(self.family):
            self.assertEqual(self.fired(client.echo_bytes(payload_of(size))), payload_of(size))

    def test_limit(self) -> None:
        """What exceeds a port's own limit by a byte is counted and never delivered cut; what has its size is."""
        for server in (Peer(echo), BatchPeer(echo)):
            port = self.listen(server, max_datagram_size=1200)
            asking = self.plain()
            for size in (1201, 1472, 8193, 65507):
                asking.sendto(payload_of(size), self.address_of(port))
            self.assert_answers(port, asking, payload_of(1200))
            self.assertEqual(server.payloads, [payload_of(1200)])
            self.assertEqual(port.stats.truncated, 4)
