"""Every datagram is accounted for: what was sent is answered, counted as dropped by the kernel, or counted as refused.

A generator in C sends faster than a port can read into a receive buffer that is too small. Afterwards the port's
counters, the kernel's and the generator's must agree to the last datagram, in both directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration.compiling import missing_compiler
from tests.integration.generators import Generator
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from twistedudp import UDPServerService
from twistedudp.echo import EchoProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.transport import DatagramStats

COUNT = 20_000
MANY = 500_000

SMALL_BUFFER = 16_384
"""Bytes: some twenty datagrams."""

SIZE = 64
LARGE = 2000
LIMIT = 1200
"""Every eighth datagram of the generator is large, and larger than this is refused."""


class KernelView(NamedTuple):
    """What the kernel has counted for all sockets of a network (RFC 4113 has these counters)."""

    received: int
    buffer_errors: int
    errors: int

    @classmethod
    def now(cls, *, ipv6: bool) -> KernelView:
        """Read ``/proc/net/snmp`` or ``snmp6`` of the network that this thread is in."""
        if ipv6:
            lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
            counted = {name: int(value) for name, value in map(str.split, lines)}
            return cls(counted["Udp6InDatagrams"], counted["Udp6RcvbufErrors"], counted["Udp6InErrors"])
        names, values = (
            line.split()
            for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
            if line.startswith("Udp:")
        )
        found = dict(zip(names, values, strict=True))
        return cls(int(found["InDatagrams"]), int(found["RcvbufErrors"]), int(found["InErrors"]))


def drops_of(port: Any) -> int:
    """Return what ``/proc/net/udp`` says that a port's socket has lost."""
    inode = str(Path(f"/proc/self/fd/{port.getHandle().fileno()}").readlink())[len("socket:[") : -1]
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] == inode:
                return int(fields[12])
    raise AssertionError(f"the kernel does not know socket {inode}")


class AccountCase(PortCase):
    """A generator against a port."""

    def setUp(self) -> None:
        """Look for a compiler."""
        if reason := missing_compiler():
            raise SkipTest(reason)
        super().setUp()

    def volley(
        self, address: Any, stats: Callable[[], DatagramStats], count: int, refused: Callable[[], int]
    ) -> dict[str, int]:
        """Send a volley, wait until all of it is accounted for, and return the generator's figures."""
        with Generator("volley", address, count, SIZE, LARGE) as generator:
            self.wait(lambda: generator.all_sent, "the generator did not end")
            self.wait(
                lambda: stats().datagrams_received + stats().dropped_by_kernel + stats().truncated == count,
                lambda: (count, stats()),
            )
            figures = generator.figures()
        counted = stats()
        self.assertEqual(figures["sent"], count)
        self.assertEqual((figures["wrong"], figures["twice"]), (0, 0))
        # What the server sent arrived or was lost to the generator's own buffer.
        self.assertEqual(figures["received"] + figures["dropped"], counted.datagrams_sent, (figures, counted))
        # What the server received it answered, or could not send, or refused.
        lost = sum(counted.send_errors.values())
        self.assertEqual(counted.datagrams_sent + lost + refused(), counted.datagrams_received, counted)
        self.assertEqual((counted.callback_errors, counted.receive_errors), (0, {}))
        return figures

    def check_port(self, peer: Peer, count: int, interface: str) -> dict[str, int]:
        """Send a volley at an echo that has a small buffer and refuses large datagrams."""
        port = self.listen(peer, interface, receive_buffer=SMALL_BUFFER, max_datagram_size=LIMIT)
        figures = self.volley(self.address_of(port), lambda: port.stats, count, lambda: 0)
        stats = port.stats
        self.assertGreater(stats.dropped_by_kernel, 0)
        self.assertGreater(stats.truncated, 0)
        self.assertEqual(stats.dropped_by_kernel, drops_of(port))
        self.assertEqual(stats.bytes_received, stats.datagrams_received * SIZE)
        self.assertEqual(stats.bytes_sent, stats.datagrams_sent * SIZE)
        self.assert_quiet(port)
        return figures


@variants(globals())
class Accounts(AccountCase):
    """On loopback."""

    def test_plain(self) -> None:
        """A plain protocol at one address."""
        self.check_port(Peer(echo), COUNT, self.family.host)

    def test_wildcard(self) -> None:
        """A plain protocol at all addresses."""
        self.check_port(Peer(echo), COUNT, self.family.any_host)

    def test_batches(self) -> None:
        """A protocol that takes batches."""
        self.check_port(BatchPeer(echo), COUNT, self.family.host)

    def test_server_service(self) -> None:
        """Our own echo as a service; its own refusals are counted as well."""
        service = UDPServerService(
            self.reactor, 0, EchoProtocol, self.family.host, receive_buffer=SMALL_BUFFER, max_datagram_size=LIMIT
        )
        server = self.serve(service)
        self.volley(server.address, lambda: server.stats, COUNT, lambda: 0)
        self.assertEqual(server.protocol.stats.echoed, server.stats.datagrams_received)


@variants(globals(), reactors=["EPoll"])
@pytest.mark.heavy
class AccountsInNamespace(AccountCase):
    """In a network of its own, where nobody else adds to what the kernel counts."""

    def setUp(self) -> None:
        """Make the network and enter it."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        network = NetworkNamespace()
        self.addCleanup(network.close)
        network.run("ip", "link", "set", "lo", "up")
        self.inside(network)
        super().setUp()

    def check_network(self, peer: Peer) -> None:
        """Send many, and compare with what the kernel counted for both ends together."""
        figures = self.check_port(peer, MANY, self.family.host)
        port = peer.port
        kernel = KernelView.now(ipv6=self.family is not IPV4)
        dropped = port.stats.dropped_by_kernel + figures["dropped"]
        self.assertEqual(kernel.buffer_errors, dropped)
        self.assertEqual(kernel.errors, dropped)
        read = port.stats.datagrams_received + port.stats.truncated + figures["received"]
        self.assertEqual(read, figures["sent"] + port.stats.datagrams_sent - dropped)

    def test_plain(self) -> None:
        """Half a million datagrams for a plain protocol."""
        self.check_network(Peer(echo))

    def test_batches(self) -> None:
        """Half a million for a protocol that takes batches."""
        self.check_network(BatchPeer(echo))
