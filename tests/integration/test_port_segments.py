"""Where the kernel refuses UDP_SEGMENT, every datagram is sent all the same, and the refusal is met and told once.

A socket that sends no checksums is refused it by every kernel, whatever the device; some devices refuse it as well, but
which do depends on the kernel.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from tests.integration.sockets import waiting_in
from twistedudp.transport import _capabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

SO_NO_CHECK: Final = 11  # asm-generic/socket.h
UDP_NO_CHECK6_TX: Final = 101  # linux/udp.h
UDP_NO_CHECK6_RX: Final = 102

PEERS = 24
"""More than there may be before the fault is taken to be the socket's."""

BURST = 5
ROUNDS = 3


class Together(BatchPeer):
    """Answers each batch at once."""

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Send a batch back."""
        self.port.write_batch(datagrams)


@variants(globals())
class Segments(PortCase):
    """A server whose socket the kernel sends no segments for."""

    def setUp(self) -> None:
        """Let it be told again: it is told once in a process."""
        super().setUp()
        _capabilities._said.clear()

    def check(self, peer: Peer, *, refused: bool) -> Any:
        """Ask bursts of several peers that meet in each turn, and look at what was logged."""
        port = self.listen(peer)
        clients = [self.plain() for _ in range(PEERS)]
        if refused:
            level, option = (
                (socket.SOL_SOCKET, SO_NO_CHECK) if self.family is IPV4 else (socket.IPPROTO_UDP, UDP_NO_CHECK6_TX)
            )
            port.getHandle().setsockopt(level, option, 1)
        if self.family is not IPV4:  # an IPv6 receiver drops what has no checksum unless it is told not to
            for one in clients:
                one.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
        expected = [b"%d" % number + bytes(500) for number in range(BURST)]
        for rounds in range(1, ROUNDS + 1):
            for one in clients:
                for datagram in expected:
                    one.sendto(datagram, self.address_of(port))
            count = rounds * PEERS * BURST
            self.wait(lambda: port.stats.datagrams_sent == count, lambda: port.stats)  # noqa: B023  # it ends here
            for one in clients:
                self.assertEqual(waiting_in(one), expected)
        self.assertEqual((port.stats.send_errors, port.stats.callback_errors), ({}, 0))
        return port

    def said(self) -> int:
        """Return how often it was logged."""
        return sum(event.get("capability") == "UDP_SEGMENT" for event in self.log.events)

    def test_refused(self) -> None:
        """A plain protocol's answers all leave, one by one, and the log says so once if they were to leave together."""
        port = self.check(Peer(echo), refused=True)
        self.assertEqual(port.stats.sent_together, 0)
        self.assertEqual(self.said(), 1 if self.backend == "mmsg" else 0)

    def test_refused_in_batches(self) -> None:
        """So do those of a protocol that takes batches."""
        port = self.check(Together(), refused=True)
        self.assertEqual((port.stats.sent_together, self.said()), (0, 1))

    def test_allowed(self) -> None:
        """Without the obstacle they leave together: the tests above see a difference."""
        port = self.check(Together(), refused=False)
        self.assertGreater(port.stats.sent_together, 0)
        self.assertEqual(self.said(), 0)
