"""Admission on real sockets and reactors: senders from many loopback addresses, services by default."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from twisted.logger import eventAsText

from tests.integration.leaks import UDP_SEGMENT
from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from tests.integration.sockets import waiting_in
from twistedudp.admission import AdmissionPolicy
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOW = 0.001
"""Datagrams per second: what is refused stays so for the length of a test."""


class AdmissionCase(PortCase):
    """A port, and plain sockets of several hosts and networks."""

    def _assert_nothing_logged(self) -> None:
        """Take out what the port says of refusals; anything else is one too many."""
        events = self.log.events
        events[:] = [event for event in events if "refused" not in eventAsText(event)]
        super()._assert_nothing_logged()

    def senders(self, *hosts: str) -> list[socket.socket]:
        """Return sockets bound to addresses of the loopback network, of which there are 16 million."""
        made = []
        for host in hosts:
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(one.close)
            one.bind((host, 0))
            made.append(one)
        return made

    def send(self, senders: Sequence[socket.socket], port: Any, each: int) -> None:
        """Send so many datagrams from each in turn."""
        for number in range(each):
            for sender in senders:
                sender.sendto(b"%d" % number, ("127.0.0.1", port.getHost().port))

    def wait_seen(self, served: Any, count: int) -> None:
        """Wait until a port or a service has let in or refused so many."""

        def seen() -> int:
            total: int = served.stats.datagrams_received + served.admission_stats.refused.total()
            return total

        self.wait(lambda: seen() >= count, lambda: (served.stats, served.admission_stats))


@variants(globals(), reactors=["EPoll", "Asyncio"], families=[IPV4])
class Admission(AdmissionCase):
    """Hosts, networks and all together."""

    def test_hosts_and_networks(self) -> None:
        """Each host has its burst, its network so many times as much, and another network has its own."""
        for kind in (Peer, BatchPeer):
            server = kind(echo)
            policy = AdmissionPolicy(rate=SLOW, burst=5, network_factor=2.0, total_rate=0)
            port = self.listen(server, self.family.any_host, admission=policy)
            near = self.senders("127.1.0.1", "127.1.0.2", "127.1.0.3")
            far = self.senders("127.1.1.1")
            for sender in [*near, *far]:
                self.send([sender], port, 8)
            self.wait_seen(port, 32)
            self.assertEqual([5, 5, 0, 5], [len(waiting_in(sender)) for sender in [*near, *far]])
            self.assertEqual(Counter(host_rate=3 * 3, network_rate=8), port.admission_stats.refused)

    def test_size_together(self) -> None:
        """Datagrams that the kernel delivers in one buffer count for what each of them is, not for their sum."""
        port = self.listen(server := BatchPeer(), admission=AdmissionPolicy(rate=SLOW, burst=7))
        (sender,) = self.senders("127.1.0.1")
        cut = [(socket.IPPROTO_UDP, UDP_SEGMENT, (1200).to_bytes(2, sys.byteorder))]
        sender.sendmsg([bytes(12_000)], cut, 0, ("127.0.0.1", port.getHost().port))
        self.wait_seen(port, 10)
        self.assertEqual([1200] * 7, list(map(len, server.payloads)))

    def test_total_and_trust(self) -> None:
        """All together have a rate; who is trusted is let in beside it, and is not counted in."""
        server = Peer()
        trust = (ip_network("127.9.0.0/16"),)
        policy = AdmissionPolicy(rate=SLOW, burst=50, total_rate=10.0, trust=trust)
        port = self.listen(server, self.family.any_host, admission=policy)
        strangers = self.senders(*(f"127.{number}.0.1" for number in range(20, 40)))
        friends = self.senders("127.9.8.7")
        self.send(friends, port, 60)
        self.send(strangers, port, 2)
        self.send(friends, port, 60)
        self.wait_seen(port, 160)
        let_in = Counter(host for host, _ in server.peers)
        self.assertEqual(120, let_in.pop("127.9.8.7"))
        self.assertTrue(
            10 <= let_in.total() <= 15, let_in
        )  # the machine may be slow, and a tenth of a second is one more
        self.assertEqual({"total_rate"}, set(port.admission_stats.refused))


@variants(globals(), reactors=["EPoll", "Asyncio"], families=[IPV4])
class ServiceAdmission(AdmissionCase):
    """Services."""

    def serving(self, interface: str, **options: Any) -> tuple[UDPServerService, Peer]:
        """Start a service."""
        protocol = Peer()
        return self.serve(UDPServerService(self.reactor, 0, protocol, interface, **options)), protocol

    def test_default(self) -> None:
        """A service that others can reach has the default policy, and one on loopback none; None turns it off."""
        self.assertIsNone(self.serving("127.0.0.1")[0].admission_stats)
        self.assertIsNone(self.serving(self.family.any_host, admission=None)[0].admission_stats)
        service, protocol = self.serving(self.family.any_host)
        assert service.admission_stats is not None
        (sender,) = self.senders("127.3.0.1")
        assert service.address is not None
        for number in range(2600):  # its burst is 2,000, and 1,000 a second
            sender.sendto(b"x", ("127.0.0.1", service.address[1]))
            if number % 100 == 99:
                self.wait_seen(service, number + 1)
        refused = service.admission_stats.refused
        self.assertEqual(2600, refused["host_rate"] + len(protocol.received))
        self.assertGreaterEqual(len(protocol.received), 2000)

    def test_own_policy(self) -> None:
        """A service has the policy that it was given, on loopback too."""
        service, protocol = self.serving("127.0.0.1", admission=AdmissionPolicy(rate=SLOW, burst=3))
        assert service.address is not None
        for sender in self.senders("127.0.0.5"):
            for _ in range(10):
                sender.sendto(b"x", service.address)
        self.wait_seen(service, 10)
        self.assertEqual(3, len(protocol.received))
