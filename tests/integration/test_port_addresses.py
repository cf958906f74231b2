"""Ports of a host with several addresses answer from the one that was asked, on a network of two machines."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.unittest import SkipTest

from tests.integration.addresses import add_addresses
from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.reactors import IPV4, IPV6, BatchPeer, Peer, PortCase, echo, variants
from tests.integration.sockets import LIMIT, address_of, plain_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.integration.netns import NetworkNamespace
    from twistedudp.address import Address

SERVER_HOSTS: Final = {"IPv4": (Wire.THERE, "198.18.0.5", "198.18.0.6"), "IPv6": ("fd00::1", "fd00::5")}
"""The server's addresses; the kernel answers from one of them if it is not told."""
CLIENT_HOST: Final = {"IPv4": Wire.HERE, "IPv6": "fd00::2"}

GROUP: Final = {"IPv4": "239.255.19.1", "IPv6": "ff12::1901"}
"""Multicast addresses of local scope (RFC 2365, RFC 4291)."""
BROADCAST: Final = "198.18.0.255"

ROUNDS = 8
MARK = b"%d to %s"


class Later(Peer):
    """An echo that answers in a later turn of the reactor, and knows what was sent to a group."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(self._note)
        self.to_group: list[bool] = []
        self._reactor = reactor

    def _note(self, _: Peer, datagram: bytes, addr: Address) -> None:
        self.to_group.append(self.port.delivering_to_group)
        self._reactor.callLater(0, self.port.write, datagram, addr)


class WireCase(PortCase):
    """A server in one namespace, clients in another, two cards and a wire between them."""

    def setUp(self) -> None:
        """Lay the wire and give both sides their addresses."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.wire = Wire()
        self.addCleanup(self.wire.__exit__)
        add_addresses(self.wire.there, "veth0", "198.18.0.5/24", "198.18.0.6/24", "fd00::1/64", "fd00::5/64")
        add_addresses(self.wire.here, "veth0", "fd00::2/64")
        self.hosts = SERVER_HOSTS[self.family.name]
        super().setUp()

    def served(self, protocol: Peer, interface: str, **options: Any) -> Any:
        """Return a port on the server's machine."""
        with self.wire.there.entered():
            return self.listen(protocol, interface, **options)

    def client(self, host: str | None = None) -> socket.socket:
        """Return a socket on the client's machine."""
        with self.wire.here.entered():
            made = plain_socket(CLIENT_HOST[self.family.name] if host is None else host)
        self.addCleanup(made.close)
        return made

    def arrived(self, port: Any, count: int) -> None:
        """Let the server's port read until it has had so many datagrams."""
        self.wait(lambda: port.stats.datagrams_received >= count, lambda: port.stats)


@variants(globals())
class Multihomed(WireCase):
    """A port bound to all addresses of a machine that has three of IPv4 and two of IPv6."""

    def check_connected(self, make: Callable[[], Peer]) -> None:
        """Let clients that have connected their sockets ask each address, all before the port reads."""
        for interface in {self.family.any_host, "::"}:
            port = self.served(make(), interface)
            clients: list[tuple[socket.socket, str]] = []
            for host in self.hosts * 2:
                one = self.client()
                one.connect((host, port.getHost().port))
                clients.append((one, host))
            for number in range(ROUNDS):
                for one, host in clients:
                    one.send(MARK % (number, host.encode()))
            self.arrived(port, ROUNDS * len(clients))
            for one, host in clients:
                replies = [one.recv(LIMIT) for _ in range(ROUNDS)]  # from elsewhere, the kernel would not deliver them
                self.assertEqual(replies, [MARK % (number, host.encode()) for number in range(ROUNDS)])

    def test_connected_clients(self) -> None:
        """Clients with connected sockets get their answers, several at once."""
        self.check_connected(lambda: Peer(echo))

    def test_connected_clients_of_batches(self) -> None:
        """So they do from a protocol that takes batches."""
        self.check_connected(lambda: BatchPeer(echo))

    def test_connected_clients_later(self) -> None:
        """So they do if they are answered later."""
        self.check_connected(lambda: Later(self.reactor))

    def check_alternating(self, peer: Peer) -> None:
        """Let one socket ask two addresses by turns, all before the port reads."""
        port = self.served(peer, self.family.any_host)
        asking = self.client()
        asked = [self.hosts[number % 2] for number in range(4 * ROUNDS)]
        for number, host in enumerate(asked):
            asking.sendto(MARK % (number, host.encode()), (host, port.getHost().port))
        self.arrived(port, len(asked))
        replies = [asking.recvfrom(LIMIT) for _ in asked]
        self.assertEqual(
            sorted((payload, sender[0]) for payload, sender in replies),
            sorted((MARK % (number, host.encode()), host) for number, host in enumerate(asked)),
        )

    def test_alternating(self) -> None:
        """A client that asks two addresses by turns gets each answer from the one that it asked."""
        self.check_alternating(Peer(echo))

    def test_alternating_batches(self) -> None:
        """So it does where the protocol takes batches."""
        self.check_alternating(BatchPeer(echo))

    def test_without_return_path(self) -> None:
        """A port that was told not to care answers from whichever address: the tests above see the difference."""
        port = self.served(Peer(echo), self.family.any_host, return_path=False)
        asking = self.client()
        for host in self.hosts:
            asking.sendto(b"who?", (host, port.getHost().port))
        self.arrived(port, len(self.hosts))
        senders = {asking.recvfrom(LIMIT)[1][0] for _ in self.hosts}
        self.assertEqual(len(senders), 1)


@variants(globals())
class Groups(WireCase):
    """Datagrams to many: the protocol can tell, and its answer leaves from an address of its own."""

    def ask(self, port: Any, hosts: Sequence[str]) -> list[tuple[bytes, Any]]:
        """Send a datagram to each host and return the answers."""
        asking = self.client()
        scope = 0
        with self.wire.here.entered():
            card = socket.if_nametoindex("veth0")
        if self.family is IPV4:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(CLIENT_HOST["IPv4"]))
        else:
            asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, card)
            scope = card
        for host in hosts:
            where = (host, port.getHost().port)
            asking.sendto(host.encode(), where if self.family is IPV4 else (*where, 0, scope))
        self.arrived(port, len(hosts))
        self.ports.settle()
        return [asking.recvfrom(LIMIT) for _ in hosts]

    def join(self, port: Any) -> None:
        """Let a port be of the group, on the card."""
        group = socket.inet_pton(port.getHandle().family, GROUP[self.family.name])
        if self.family is IPV4:
            request = group + socket.inet_aton(self.hosts[0])
            port.getHandle().setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            return
        with self.wire.there.entered():
            request = group + struct.pack("@I", socket.if_nametoindex("veth0"))
        port.getHandle().setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)

    def test_flagged(self) -> None:
        """What was sent to a group is told from what was sent to the host, in any order."""
        peer = Later(self.reactor)
        port = self.served(peer, self.family.any_host)
        self.join(port)
        many = [GROUP[self.family.name], *([BROADCAST] if self.family is IPV4 else [])]
        asked = [self.hosts[0], *many, self.hosts[1], *many, self.hosts[1]]
        replies = self.ask(port, asked)
        self.assertEqual(peer.payloads, [host.encode() for host in asked])
        self.assertEqual(peer.to_group, [host in many for host in asked])
        self.assertFalse(port.delivering_to_group)
        self.assertTrue({sender[0] for _, sender in replies} <= set(self.hosts), replies)

    def test_batches(self) -> None:
        """A protocol that takes batches gets them one by one, between its batches."""
        peer = Later(self.reactor)
        batches: list[int] = []

        class Batching(BatchPeer):
            def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
                batches.append(len(datagrams))
                self.port.write_batch(datagrams)

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                peer.to_group.append(self.port.delivering_to_group)
                self.port.write(datagram, addr)

        port = self.served(Batching(), self.family.any_host)
        self.join(port)
        group = GROUP[self.family.name]
        asked = [self.hosts[0], self.hosts[0], group, self.hosts[0], group]
        replies = self.ask(port, asked)
        self.assertEqual(peer.to_group, [True, True])
        self.assertEqual(sum(batches), 3)
        self.assertEqual(sorted(payload for payload, _ in replies), sorted(host.encode() for host in asked))


@variants(globals(), families=[IPV6])
class LinkLocal(WireCase):
    """Addresses that mean nothing without the card."""

    def setUp(self) -> None:
        """Give both cards such an address: those that they give themselves can be used only after some seconds."""
        super().setUp()
        self.server = self.link_local(self.wire.there, "fe80::51")
        self.clients = self.link_local(self.wire.here, "fe80::52")
        self.inside(self.wire.there)  # the name of a card is asked of the network that the thread is in

    def link_local(self, machine: NetworkNamespace, host: str) -> str:
        """Give a machine's card an address, and return it with its scope."""
        add_addresses(machine, "veth0", f"{host}/64")
        with machine.entered():
            return f"{host}%{socket.if_nametoindex('veth0')}"

    def check(self, peer: Peer, interface: str) -> None:
        """Let a client with a link-local address ask the server's one."""
        port = self.served(peer, self.server if interface == "link" else interface)
        asking = self.client("::")
        asking.connect((self.server.partition("%")[0], port.getHost().port, 0, int(self.clients.partition("%")[2])))
        for number in range(ROUNDS):
            asking.send(b"%d" % number)
        self.arrived(port, ROUNDS)
        self.assertEqual([asking.recv(LIMIT) for _ in range(ROUNDS)], [b"%d" % number for number in range(ROUNDS)])
        peer_host = {addr[0] for _, addr in peer.received}
        # The scope of a peer is the card on this machine by which it is reached.
        self.assertEqual(peer_host, {f"{asking.getsockname()[0].partition('%')[0]}%veth0"})
        port.write(b"later", peer.received[0][1])
        self.ports.settle()
        self.assertEqual(asking.recv(LIMIT), b"later")
        self.assertEqual(address_of(asking)[1], peer.received[0][1][1])

    def test_wildcard(self) -> None:
        """A port bound to all addresses."""
        self.check(Peer(echo), "::")

    def test_bound(self) -> None:
        """A port bound to the link-local address."""
        self.check(Peer(echo), "link")

    def test_batches(self) -> None:
        """A protocol that takes batches."""
        self.check(BatchPeer(echo), "::")
