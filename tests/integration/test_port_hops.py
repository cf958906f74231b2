"""Hop limits of answers: one less than those of what came, so that servers which answer everything fall silent."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from twistedudp.echo import EchoProtocol
from twistedudp.server import UDPServerService
from twistedudp.transport._kernel import IP_RECVTTL, IPV6_RECVHOPLIMIT

if TYPE_CHECKING:
    from typing import Any

IPV6_UNICAST_HOPS = 16
"""``linux/in6.h``"""

PAIRS = ((2, 1), (3, 2), (64, 63), (65, 64), (66, 64), (128, 64), (255, 64))
"""Hop limits of questions, and of their answers: the received one less 1, at most 64."""

MOST_IN_LOOP = 100
"""Datagrams that one forged datagram may cause between two servers of ours."""


@variants(globals())
class Hops(PortCase):
    """Ports with ``answer_hops``, asked with hop limits of all kinds."""

    def asking(self, hops: int) -> socket.socket:
        """Return a socket that asks with a hop limit, and is told those of the answers."""
        made = self.plain()
        self.limit(made, hops)
        if self.family is IPV4:
            made.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
        return made

    def limit(self, asking: socket.socket, hops: int) -> None:
        """Let a socket send with another hop limit from now on."""
        if self.family is IPV4:
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        else:
            asking.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops)

    def answers(self, asking: socket.socket, count: int) -> list[tuple[bytes, int]]:
        """Return so many answers with their hop limits."""
        found = []
        for _ in range(count):
            answer, ancillary, _, _ = asking.recvmsg(65535, 128)
            [hops] = [struct.unpack("=i", data)[0] for _, _, data in ancillary]
            found.append((answer, hops))
        return found

    def check(self, port: Any) -> None:
        """Ask with each hop limit, several times at once, some of them larger than others."""
        asked = {}
        for hops, _ in PAIRS:
            asking = self.asking(hops)
            asked[hops] = asking, [bytes([number, hops]) * (1 + 600 * (number == 3)) for number in range(6)]
        for number in range(6):
            for asking, questions in asked.values():
                asking.sendto(questions[number], self.address_of(port))
        self.wait(lambda: port.stats.datagrams_sent >= 6 * len(PAIRS), lambda: port.stats)
        for hops, back in PAIRS:
            asking, questions = asked[hops]
            self.assertEqual(self.answers(asking, 6), [(question, back) for question in questions])
        self.assertEqual(port.stats.hops_exhausted, 0)

    def test_echo(self) -> None:
        """Each answer has a hop limit of one less than its question, at most 64."""
        self.check(self.listen(Peer(echo), answer_hops=True))

    def test_batches(self) -> None:
        """So it is where answers leave together."""
        self.check(self.listen(BatchPeer(echo), answer_hops=True))

    def test_wildcard(self) -> None:
        """So it is where a port has all addresses, and answers from the one that was asked."""
        self.check(self.listen(BatchPeer(echo), self.family.any_host, answer_hops=True))

    def test_one_socket(self) -> None:
        """The questions of one peer may come with different hop limits, in one turn."""
        port = self.listen(EchoProtocol(), answer_hops=True)
        asking = self.asking(64)
        for hops in (64, 10, 10, 64, 2, 64):
            self.limit(asking, hops)
            asking.sendto(b"%3d" % hops, self.address_of(port))
        self.wait(lambda: port.stats.datagrams_sent == 6, lambda: port.stats)
        found = self.answers(asking, 6)
        self.assertEqual([int(answer) - 1 for answer, _ in found], [hops for _, hops in found])

    def test_exhausted(self) -> None:
        """What came with its last hop is not answered, and counted; others are."""
        for protocol in (Peer(echo), BatchPeer(echo), EchoProtocol()):
            port = self.listen(protocol, answer_hops=True)
            last, other = self.asking(1), self.asking(2)
            for _ in range(3):
                last.sendto(b"the last", self.address_of(port))
                other.sendto(b"one more", self.address_of(port))
            self.wait(lambda: port.stats.datagrams_sent == 3, lambda: port.stats)  # noqa: B023  # waited for here
            self.assertEqual(port.stats.hops_exhausted, 3)
            self.assertEqual(self.answers(other, 3), [(b"one more", 1)] * 3)
            last.setblocking(False)
            self.assertRaises(BlockingIOError, last.recv, 100)

    def test_later(self) -> None:
        """An answer that is written later has the limit as well."""
        kept: list[Any] = []
        port = self.listen(Peer(lambda _, datagram, addr: kept.append((datagram, addr))), answer_hops=True)
        asking = self.asking(7)
        asking.sendto(b"later", self.address_of(port))
        self.wait(lambda: bool(kept), "nothing came")
        port.write(*kept[0])
        self.assertEqual(self.answers(asking, 1), [(b"later", 6)])

    def test_off(self) -> None:
        """Unless it is asked for, answers have the usual hop limit."""
        port = self.listen(BatchPeer(echo))
        asking = self.asking(7)
        asking.sendto(b"usual", self.address_of(port))
        self.wait(lambda: port.stats.datagrams_sent == 1, lambda: port.stats)
        [(_, hops)] = self.answers(asking, 1)
        self.assertGreater(hops, 7)

    def test_loop(self) -> None:
        """Two echo servers that one datagram sets upon each other fall silent."""
        first, second = (
            self.serve(UDPServerService(self.reactor, 0, EchoProtocol, self.family.host)) for _ in range(2)
        )
        first.protocol.transport.write(b"as if it were forged", second.address)
        servers = first, second
        self.wait(lambda: any(server.stats.hops_exhausted for server in servers), lambda: first.stats)
        received = sum(server.stats.datagrams_received for server in servers)
        self.assertLessEqual(received, MOST_IN_LOOP)
        self.run_for(0.05)
        self.assertEqual(sum(server.stats.datagrams_received for server in servers), received)

    def test_loop_with_rpc(self) -> None:
        """Nothing but an error goes back and forth once between an echo server and one that serves methods."""
        from twistedudp import RPCMethods  # noqa: PLC0415  # only this test wants it

        echoing = self.serve(UDPServerService(self.reactor, 0, EchoProtocol, self.family.host))
        serving = self.serve(UDPServerService(self.reactor, 0, RPCMethods(), self.family.host))
        echoing.protocol.transport.write(b"\x94\x00\x01\xa4none\x90", serving.address)
        self.wait(lambda: bool(serving.protocol.stats.rejected["not_a_request"]), lambda: serving.protocol.stats)
        self.assertEqual((echoing.stats.datagrams_received, serving.stats.datagrams_received), (1, 2))
