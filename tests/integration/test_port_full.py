"""A link that is slower than what is written: datagrams wait in order, up to a bound, and the rest is counted."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from typing import Any

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration.addresses import add_addresses
from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from twistedudp.echo import EchoProtocol
from twistedudp.transport._kernel import IP_RECVTTL, IPV6_RECVHOPLIMIT, SO_RCVBUFFORCE
from twistedudp.transport._waiting import MAX_SEND_QUEUE, MAX_SEND_QUEUE_SIZE

SIZE = 1000
"""Bytes; a datagram of this size takes some 2,300 in a send buffer, which has room for about 90 of them."""

BELOW_BOUND = 900
ABOVE_BOUND = 3000

RATE = "40mbit"
"""At it a thousand datagrams take 0.2 s."""

LARGE = 60_000

HOP_OPTIONS = (
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, IPV6_RECVHOPLIMIT),
    (socket.IPPROTO_IP, socket.IP_TTL, IP_RECVTTL),
)
"""How hop limits are set and told, in IPv6 and in IPv4."""


def numbered(number: int, size: int = SIZE) -> bytes:
    """Return a datagram that knows its place."""
    return b"%08d" % number + bytes(size - 8)


@variants(globals())
@pytest.mark.heavy
class Full(PortCase):
    """Two machines, and between them a wire that lets through one datagram after another."""

    def setUp(self) -> None:
        """Lay the wire and make it slow in both directions."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.wire = Wire()
        self.addCleanup(self.wire.__exit__)
        add_addresses(self.wire.there, "veth0", "fd00::1/64")
        add_addresses(self.wire.here, "veth0", "fd00::2/64")
        for machine in (self.wire.there, self.wire.here):
            machine.run(
                *("tc", "qdisc", "add", "dev", "veth0", "root"),
                *("tbf", "rate", RATE, "burst", "10kb", "limit", "100mb"),
            )
        ipv4 = self.family is IPV4
        self.there, self.here = (Wire.THERE, Wire.HERE) if ipv4 else ("fd00::1", "fd00::2")
        super().setUp()

    def pair(self, writer: Peer, reader: Peer) -> tuple[Any, Any]:
        """Return a port on the one machine and one on the other."""
        with self.wire.there.entered():
            writing = self.listen(writer, self.there)
        with self.wire.here.entered():
            return writing, self.listen(reader, self.here)

    def settled(self, port: Any, reader: Peer, count: int) -> None:
        """Wait until so many have arrived, and check that the port was not woken up without need."""
        turns = port.stats.turns
        self.wait(lambda: len(reader.received) >= count, lambda: (len(reader.received), port.stats))
        # Each time the socket becomes writable, which is when half of its buffer is free, several datagrams leave.
        self.assertLess(port.stats.turns - turns, count // 4)
        self.assert_quiet(port)

    def test_all_wait(self) -> None:
        """Below the bound everything written at once leaves, in order."""
        reader = Peer()
        writing, reading = self.pair(Peer(), reader)
        for number in range(BELOW_BOUND):
            writing.write(numbered(number), (self.here, reading.getHost().port))
        self.settled(writing, reader, BELOW_BOUND)
        self.assertEqual(reader.payloads, [numbered(number) for number in range(BELOW_BOUND)])
        stats = writing.stats
        self.assertEqual((stats.datagrams_sent, stats.bytes_sent), (BELOW_BOUND, BELOW_BOUND * SIZE))
        self.assertGreater(stats.send_waited, 0)
        self.assertEqual((stats.send_queue_dropped, stats.send_errors), (0, {}))

    def test_later_writes_join_the_end(self) -> None:
        """What is written while others wait does not overtake them, whoever it is for."""
        first, second = Peer(), Peer()
        writing, reading = self.pair(Peer(), first)
        with self.wire.here.entered():
            also = self.listen(second, self.here)
        written = 0

        def write_some() -> None:
            nonlocal written
            for _ in range(50):
                writing.write(numbered(written), (self.here, (reading, also)[written % 2].getHost().port))
                written += 1
            if written < BELOW_BOUND:
                self.reactor.callLater(0.002, write_some)

        write_some()
        self.wait(lambda: len(first.received) + len(second.received) >= BELOW_BOUND, lambda: writing.stats)
        self.assertEqual(first.payloads, [numbered(number) for number in range(0, BELOW_BOUND, 2)])
        self.assertEqual(second.payloads, [numbered(number) for number in range(1, BELOW_BOUND, 2)])
        self.assertGreater(writing.stats.send_waited, 0)

    def test_bound(self) -> None:
        """Above the bound what is written last is dropped, and counted."""
        reader = Peer()
        writing, reading = self.pair(Peer(), reader)
        for number in range(ABOVE_BOUND):
            writing.write(numbered(number), (self.here, reading.getHost().port))
        dropped = writing.stats.send_queue_dropped
        self.assertEqual(writing.stats.send_errors, {errno.EAGAIN: dropped})
        sent_at_once = ABOVE_BOUND - dropped - MAX_SEND_QUEUE
        self.assertGreater(dropped, 0)
        self.assertGreater(sent_at_once, 0)
        self.settled(writing, reader, ABOVE_BOUND - dropped)
        self.assertEqual(reader.payloads, [numbered(number) for number in range(ABOVE_BOUND - dropped)])
        stats = writing.stats
        self.assertEqual((stats.datagrams_sent, stats.send_waited), (ABOVE_BOUND - dropped, MAX_SEND_QUEUE))
        self.assertEqual(stats.send_queue_dropped, dropped)

    def test_bound_in_bytes(self) -> None:
        """Large datagrams reach the bound in bytes before the other one."""
        writing, reading = self.pair(Peer(), Peer())
        fitting = MAX_SEND_QUEUE_SIZE // LARGE
        for number in range(2 * fitting):
            writing.write(numbered(number, LARGE), (self.here, reading.getHost().port))
        stats = writing.stats
        self.assertEqual(stats.send_waited, fitting)
        self.assertEqual(stats.send_queue_dropped, fitting - stats.datagrams_sent)
        self.assertGreater(stats.send_queue_dropped, 0)
        writing.stopListening()  # what still waits is counted as well
        self.wait(lambda: writing.getHandle() is None, "it was not closed")
        self.assertEqual(writing.stats.datagrams_sent + writing.stats.send_queue_dropped, 2 * fitting)

    def check_replies(self, echoing: Peer) -> None:
        """Let a server have to answer faster than the link towards its client is."""
        client = Peer()
        serving, asking = self.pair(echoing, client)
        self.wire.here.run("tc", "qdisc", "del", "dev", "veth0", "root")
        for number in range(BELOW_BOUND):
            asking.write(numbered(number), (self.there, serving.getHost().port))
        self.wait(lambda: len(client.received) == BELOW_BOUND, lambda: serving.stats)
        self.assertEqual(client.payloads, [numbered(number) for number in range(BELOW_BOUND)])
        stats = serving.stats
        self.assertEqual((stats.datagrams_received, stats.datagrams_sent), (BELOW_BOUND, BELOW_BOUND))
        self.assertGreater(stats.send_waited, 0)
        self.assert_quiet(serving)

    def test_hops(self) -> None:
        """Answers that wait keep the hop limits that their questions gave them, whatever the peer sends meanwhile."""
        with self.wire.there.entered():
            serving = self.listen(EchoProtocol(), self.there, answer_hops=True)
        with self.wire.here.entered():
            asking = self.plain(self.here)
        self.wire.here.run("tc", "qdisc", "del", "dev", "veth0", "root")
        level, limit, told = HOP_OPTIONS[self.family is IPV4]
        asking.setsockopt(level, told, 1)
        asking.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 * 1024 * 1024)
        for number in range(400):
            asking.setsockopt(level, limit, 1 if number % 2 else 12)
            asking.sendto(numbered(number), (self.there, serving.getHost().port))
        self.wait(lambda: serving.stats.datagrams_sent == 200, lambda: serving.stats)
        self.assertEqual((serving.stats.hops_exhausted, serving.stats.send_errors), (200, {}))
        self.assertGreater(serving.stats.send_waited, 0)
        hops = Counter(struct.unpack("=i", asking.recvmsg(SIZE, 128)[1][0][2])[0] for _ in range(200))
        self.assertEqual(hops, {11: 200})

    def test_replies(self) -> None:
        """Answers wait in order, also those of several batches."""
        self.check_replies(Peer(echo))

    def test_replies_in_batches(self) -> None:
        """So do those of a protocol that takes batches."""
        self.check_replies(BatchPeer(echo))
