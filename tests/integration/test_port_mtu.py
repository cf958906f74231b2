"""A router with a smaller MTU on the way: it is learned, nothing is lost for ever, and who may not fragment is told."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from twisted.internet.error import MessageLengthError
from twisted.trial.unittest import SkipTest

from tests.integration.addresses import add_addresses, ip_batch
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from tests.integration.sockets import plain_socket, waiting_in

if TYPE_CHECKING:
    from typing_extensions import Self

NEAR_MTU: Final = 1500
FAR_MTU: Final = 1300
"""Above 1,280, which IPv6 promises."""

SIZE: Final = 1400
"""Bytes: fits the first link, but not the second."""

FITS: Final = 1200
BURST: Final = 12

IP_MTU_DISCOVER: Final = 10  # <linux/in.h>
IPV6_MTU_DISCOVER: Final = 23  # <linux/in6.h>
PMTUDISC_DO: Final = 2  # never fragment


class Route:
    """A server, a router and a client, each in a namespace, with the smaller MTU between router and client."""

    SERVER: Final = {"IPv4": "198.18.0.1", "IPv6": "fd00:1::1"}
    CLIENT: Final = {"IPv4": "198.19.0.1", "IPv6": "fd00:2::1"}
    _ROUTER_NEAR: Final = ("198.18.0.2", "fd00:1::2")
    _ROUTER_FAR: Final = ("198.19.0.2", "fd00:2::2")

    def __init__(self) -> None:
        with ExitStack() as undo:
            machines = []
            for _ in range(3):
                machines.append(NetworkNamespace())
                # Routers that ask for a second whether an address is free do not pass anything on meanwhile.
                machines[-1].run("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0")
                undo.callback(machines[-1].close)
            self.server, self.router, self.client = machines
            self._join(self.server, "near", NEAR_MTU)
            self._join(self.client, "far", FAR_MTU)
            self.router.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            add_addresses(self.router, "near", f"{self._ROUTER_NEAR[0]}/24", f"{self._ROUTER_NEAR[1]}/64")
            add_addresses(self.router, "far", f"{self._ROUTER_FAR[0]}/24", f"{self._ROUTER_FAR[1]}/64")
            for machine, device, hosts, gateways in (
                (self.server, "near", self.SERVER, self._ROUTER_NEAR),
                (self.client, "far", self.CLIENT, self._ROUTER_FAR),
            ):
                add_addresses(machine, device, f"{hosts['IPv4']}/24", f"{hosts['IPv6']}/64")
                ip_batch(machine, *(f"route add default via {gateway}" for gateway in gateways))
            self._undo = undo.pop_all()

    def _join(self, machine: NetworkNamespace, device: str, mtu: int) -> None:
        machine.run(*("ip", "link", "add", device, "type", "veth", "peer", "name", device, "netns", self.router.path))
        for end in (machine, self.router):
            ip_batch(end, "link set lo up", f"link set {device} mtu {mtu} up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


@variants(globals())
@pytest.mark.heavy
class SmallMTU(PortCase):
    """A server whose answers do not fit all of the way."""

    def setUp(self) -> None:
        """Make the three machines."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.route = Route()
        self.addCleanup(self.route.__exit__)
        self.server_host = self.route.SERVER[self.family.name]
        self.client_host = self.route.CLIENT[self.family.name]
        super().setUp()

    def served(self, protocol: Peer, interface: str | None = None) -> Any:
        """Return a port on the server's machine."""
        with self.route.server.entered():
            return self.listen(protocol, self.server_host if interface is None else interface)

    def client(self) -> socket.socket:
        """Return a socket on the client's machine."""
        with self.route.client.entered():
            made = plain_socket(self.client_host)
        self.addCleanup(made.close)
        return made

    def ask(self, port: Any, asking: socket.socket, burst: list[bytes]) -> list[bytes]:
        """Ask for all of a burst, let the server answer, and return what comes."""
        received = port.stats.datagrams_received + len(burst)
        for datagram in burst:
            asking.sendto(datagram, (self.server_host, port.getHost().port))
        self.wait(lambda: port.stats.datagrams_received == received, lambda: port.stats)
        self.ports.settle()
        return waiting_in(asking)

    def check(self, peer: Peer, interface: str) -> None:
        """Ask for a burst of answers that need fragments."""
        port = self.served(peer, interface)
        asking = self.client()
        burst = [b"%04d" % number + bytes(SIZE - 4) for number in range(BURST)]

        self.assertIsNone(port.path_mtu(self.client_host))
        # The client knows the small MTU, it is its own card's, and sends fragments.
        self.ask(port, asking, burst)
        # Linux lets routers cut what it was given in one buffer (UDP_SEGMENT, IPv4), but not what was sent alone.
        self.ask(port, asking, burst[:1])
        self.assertEqual(port.path_mtu(self.client_host), FAR_MTU)
        stats = port.stats
        self.assertGreater(stats.path_mtu_reports, 0)
        self.assertEqual((stats.unreachable, stats.callback_errors, stats.send_errors), (0, 0, {}))
        # What met the router first is lost, perhaps; from now on nothing is.
        for _ in range(3):
            self.assertEqual(self.ask(port, asking, burst), burst)
        self.assertEqual(peer.unreachable, [])
        self.assert_quiet(port)

    def test_learned(self) -> None:
        """The MTU is learned from the router, and then every answer arrives, in fragments."""
        self.check(Peer(echo), self.server_host)

    def test_learned_at_wildcard(self) -> None:
        """So it is at a port bound to all addresses."""
        self.check(Peer(echo), self.family.any_host)

    def test_learned_in_batches(self) -> None:
        """So it is where a protocol takes batches."""
        self.check(BatchPeer(echo), self.server_host)

    def test_too_long(self) -> None:
        """Where fragments are forbidden, a write that cannot pass raises, and names the MTU; what fits still passes."""
        port = self.served(Peer())
        asking = self.client()
        client = asking.getsockname()[:2]
        level, option = (
            (socket.IPPROTO_IP, IP_MTU_DISCOVER) if self.family is IPV4 else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER)
        )
        port.getHandle().setsockopt(level, option, PMTUDISC_DO)
        with self.assertRaises(MessageLengthError):
            port.write(bytes(NEAR_MTU), client)
        port.write(bytes(SIZE), client)  # nobody knows yet; the router will tell
        self.wait(lambda: port.path_mtu(self.client_host) is not None, lambda: port.stats)
        with self.assertRaises(MessageLengthError) as raised:
            port.write(bytes(SIZE), client)
        self.assertIn(f"{FAR_MTU:,}", str(raised.exception))
        port.write(bytes(FITS), client)
        self.ports.settle()
        self.assertEqual(waiting_in(asking), [bytes(FITS)])
        self.assertEqual(port.stats.datagrams_sent, 2)
        self.assert_quiet(port)
