"""What the network does to a port: it stays open, counts, answers the next request, and rests.

Peers that are gone send real ICMP errors. Routes, rules and forged messages need a network namespace.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from twisted.trial.unittest import SkipTest

from tests.integration import icmp
from tests.integration.addresses import add_addresses, ip_batch
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.reactors import IPV4, BatchPeer, Peer, PortCase, echo, variants
from tests.integration.sockets import LIMIT, address_of, waiting_in
from twistedudp import RPCMethods, UDPClientService, UDPServerService, errors, method

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.integration.reactors import Family
    from twistedudp.address import Address

PAIRS = 16
"""Peers of each kind: Linux sends no more than 50 ICMP errors at once."""

MANY = 150
"""Answers to one request: with as many that go elsewhere, more than a port sends by one call."""

HEAP = 100
"""Forged errors that are sent before the reactor turns: no more than the smallest receive buffer takes."""

ROUNDS = 10


class Doubling(RPCMethods):
    """Something to call."""

    @method
    def double(self, number: int) -> int:
        """Return twice the number."""
        return 2 * number


class Fault(NamedTuple):
    """A way in which the own kernel refuses a datagram."""

    name: str
    errno: int
    route: str
    """The type of route to the peer; empty for none at all, ``local`` where a rule drops it."""


FAULTS = (
    Fault("unreachable", errno.EHOSTUNREACH, "unreachable"),
    Fault("prohibited", errno.EACCES, "prohibit"),
    Fault("swallowed", errno.EINVAL, "blackhole"),
    Fault("without a route", errno.ENETUNREACH, ""),
    Fault("dropped by a rule", errno.EPERM, "local"),
)


@variants(globals())
class Refused(PortCase):
    """Real ICMP errors on loopback: nobody listens at the peer's port any more."""

    def ask(self, port: Any, count: int) -> tuple[list[socket.socket], dict[Any, bytes]]:
        """Send requests by turns from sockets that stay and from sockets that are closed before the port reads."""
        living, dying = [self.plain() for _ in range(count)], [self.plain() for _ in range(count)]
        gone = {}
        for number, (stays, leaves) in enumerate(zip(living, dying, strict=True)):
            leaves.sendto(b"from the dead %d" % number, self.address_of(port))
            gone[address_of(leaves)] = b"from the dead %d" % number
            stays.sendto(b"from the living %d" % number, self.address_of(port))
        for leaves in dying:  # not before, or one that stays might be given its port number
            leaves.close()
        return living, gone

    def check_server(self, peer: Peer, interface: str) -> None:
        """Let half of the peers of an echo server be gone, twice."""
        port = self.listen(peer, interface)
        for times in (1, 2):
            living, gone = self.ask(port, PAIRS)
            self.wait(lambda: len(peer.unreachable) >= times * PAIRS, lambda: peer.unreachable)  # noqa: B023  # it ends here
            for number, one in enumerate(living):
                self.assertEqual(one.recv(LIMIT), b"from the living %d" % number)
                self.assertEqual(waiting_in(one), [])
            told = {address: quoted for address, _, quoted in peer.unreachable[-PAIRS:]}
            self.assertEqual(told, gone)
            self.assertEqual({reason.errno for _, reason, _ in peer.unreachable}, {errno.ECONNREFUSED})
        stats = port.stats
        self.assertEqual((stats.unreachable, stats.datagrams_received), (2 * PAIRS, 4 * PAIRS))
        self.assertEqual((stats.callback_errors, stats.send_errors), (0, {}))
        self.assert_quiet(port)
        self.assert_answers(port, self.plain())

    def test_server(self) -> None:
        """A server bound to one address answers every peer that is there."""
        self.check_server(Peer(echo), self.family.host)

    def test_wildcard_server(self) -> None:
        """So does one that is bound to all of them."""
        self.check_server(Peer(echo), self.family.any_host)

    def test_batching_server(self) -> None:
        """So does one that takes its datagrams in batches."""
        self.check_server(BatchPeer(echo), self.family.host)

    def test_writer(self) -> None:
        """Of datagrams written outside of a read turn none is lost to the errors of those before it."""
        peer = Peer()
        port = self.listen(peer)
        alive, dead = self.plain(), self.plain()
        nobody = address_of(dead)
        dead.close()
        for number in range(PAIRS):
            port.write(b"lost", nobody)
            port.write(b"%d" % number, address_of(alive))
        self.wait(lambda: len(peer.unreachable) == PAIRS, lambda: peer.unreachable)
        self.assertEqual([alive.recv(LIMIT) for _ in range(PAIRS)], [b"%d" % number for number in range(PAIRS)])
        self.assertEqual(port.stats.datagrams_sent, 2 * PAIRS)
        self.assert_quiet(port)

    def test_many_writes_in_one_delivery(self) -> None:
        """Of so many that they leave in several calls none is lost to the error of one that left in the call before."""
        dead = self.plain()
        nobody = address_of(dead)
        dead.close()

        def answer(peer: Peer, _: bytes, addr: Address) -> None:
            for number in range(MANY):
                peer.port.write(b"%d" % number, addr)
                peer.port.write(b"lost", nobody)

        peer = Peer(answer)
        port = self.listen(peer)
        asking = self.plain()
        asking.sendto(b"all of it", self.address_of(port))
        self.wait(lambda: port.stats.datagrams_sent == 2 * MANY, lambda: port.stats)
        self.assertEqual(waiting_in(asking), [b"%d" % number for number in range(MANY)])
        self.assert_quiet(port)

    def test_error_that_somebody_else_met(self) -> None:
        """An error that another user of the socket has met is told all the same, and does not keep the port awake."""
        peer = Peer()
        port = self.listen(peer)
        dead = self.plain()
        nobody = address_of(dead)
        dead.close()
        port.getHandle().sendto(b"by hand", nobody)
        self.assertEqual(port.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)
        self.wait(lambda: bool(peer.unreachable), lambda: port.stats)
        self.assertEqual([(address, quoted) for address, _, quoted in peer.unreachable], [(nobody, b"by hand")])
        self.assert_quiet(port)

    def test_connected_client(self) -> None:
        """A connected port is told of each refusal, lives on, and talks to the server that is started then."""
        peer = Peer()
        port = self.listen(peer)
        waiting = self.plain()
        host, number = address_of(waiting)
        waiting.close()
        port.connect(host, number)
        for times in (1, 2, 3):
            port.write(b"anybody?")
            self.wait(lambda: peer.refused >= times, "the refusal was not told")  # noqa: B023  # it ends here
        self.assertEqual((peer.refused, port.stats.unreachable), (3, 3))
        self.assert_quiet(port)
        server = self.plain(host, number)
        port.write(b"hello")
        datagram, client = server.recvfrom(LIMIT)
        server.sendto(datagram, client)
        self.wait(lambda: peer.payloads == [b"hello"], lambda: peer.received)

    def test_client_service(self) -> None:
        """A call to a server that is not there fails at once, and the next one, with the server there, is answered."""
        place = self.plain()
        host, number = address_of(place)
        place.close()
        client = self.serve(UDPClientService(self.reactor, host, number, timeout=self.patience))
        with self.assertRaises(errors.PeerUnreachable):
            self.fired(client.call("double", 4))
        self.serve(UDPServerService(self.reactor, number, Doubling, host))
        self.assertEqual(self.fired(client.call("double", 4)), 8)
        self.assertEqual(client.stats.refused, 1)

    def test_server_service(self) -> None:
        """An rpc server whose clients leave before its responses answers the one that stays."""
        server = self.serve(UDPServerService(self.reactor, 0, Doubling, self.family.host))
        asked = UDPClientService(self.reactor, *server.address, timeout=self.patience)
        client = self.serve(asked)
        self.assertEqual(self.fired(client.call("double", 1)), 2)
        for _ in range(PAIRS):
            with self.plain() as gone:
                gone.sendto(b"\x94\x00\x07\xa6double\x91\x02", server.address)
        self.assertEqual(self.fired(client.call("double", 3)), 6)
        self.wait(lambda: server.stats.unreachable == PAIRS, lambda: server.stats)


class NamespaceCase(PortCase):
    """A test in a network of its own, which has a loopback device with two more addresses and no other."""

    def setUp(self) -> None:
        """Make the network and enter it."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.network = NetworkNamespace()
        self.addCleanup(self.network.close)
        ip_batch(self.network, "link set lo up")
        add_addresses(self.network, "lo", self._with_bits(self.family.near), self._with_bits(self.family.far))
        self.inside(self.network)
        super().setUp()

    def _with_bits(self, host: str) -> str:
        return f"{host}/{self.family.bits}"

    def refuse(self, fault: Fault, number: int) -> Callable[[], object]:
        """Let the kernel refuse datagrams to the far address, where ports from a number on are; return what ends it."""
        run = self.network.run
        if fault.route == "local":
            rules = (
                f"table inet faults {{ chain out {{ type filter hook output priority 0; udp dport {number} drop; }}; }}"
            )
            run("nft", "-f", "-", text=rules)
            return lambda: run("nft", "delete", "table", "inet", "faults")
        far_with_bits = self._with_bits(self.family.far)
        route = f"{fault.route} {far_with_bits}"
        ip_batch(self.network, f"address del {far_with_bits} dev lo", *([f"route add {route}"] if fault.route else []))

        def undo() -> None:
            if fault.route:
                ip_batch(self.network, f"route del {route}")
            add_addresses(self.network, "lo", far_with_bits)

        return undo


@variants(globals())
@pytest.mark.heavy
class NoRoute(NamespaceCase):
    """Datagrams that the own kernel does not let out."""

    def check_server(self, peer: Peer, interface: str) -> None:
        """Let an echo server be unable to answer half of its peers, for each reason there is."""
        port = self.listen(peer, interface)
        server = (self.family.near, port.getHost().port)
        near, far = self.plain(self.family.near), self.plain(self.family.far)
        expected: dict[int, int] = {}
        for fault in FAULTS:
            for number in range(PAIRS):
                far.sendto(b"far %d" % number, server)
                near.sendto(b"near %d" % number, server)
            received = port.stats.datagrams_received + 2 * PAIRS
            undo = self.refuse(fault, address_of(far)[1])
            self.wait(lambda: port.stats.datagrams_received == received, lambda: port.stats)  # noqa: B023  # it ends here
            undo()
            self.assertEqual([near.recv(LIMIT) for _ in range(PAIRS)], [b"near %d" % number for number in range(PAIRS)])
            self.assertEqual(waiting_in(far), [], fault)
            expected[fault.errno] = PAIRS
            self.assertEqual((port.stats.send_errors, port.stats.callback_errors), (expected, 0), fault)
            self.assert_quiet(port)
            far.sendto(b"and now?", server)
            self.wait(lambda: port.stats.datagrams_received == received + 1, lambda: port.stats)  # noqa: B023  # likewise
            self.assertEqual(far.recv(LIMIT), b"and now?", fault)

    def test_server(self) -> None:
        """A server bound to one address counts the answers that cannot leave, and sends the others."""
        self.check_server(Peer(echo), self.family.near)

    def test_wildcard_server(self) -> None:
        """So does one that is bound to all of them."""
        self.check_server(Peer(echo), self.family.any_host)

    def test_batching_server(self) -> None:
        """So does one that takes its datagrams in batches."""
        self.check_server(BatchPeer(echo), self.family.near)

    def test_writer(self) -> None:
        """A write outside of a read turn that cannot leave is counted and raises nothing."""
        port = self.listen(Peer(), self.family.near)
        far = self.plain(self.family.far)
        for fault in FAULTS:
            undo = self.refuse(fault, address_of(far)[1])
            port.write(b"lost", address_of(far))
            self.ports.settle()
            undo()
            self.assertEqual(port.stats.send_errors.get(fault.errno), 1, fault)
            port.write(b"found", address_of(far))
            self.ports.settle()
            self.assertEqual(far.recv(LIMIT), b"found", fault)
        self.assert_quiet(port)

    def test_client_service(self) -> None:
        """A client that cannot send says so or repeats, and its next call is answered."""
        place = self.serve(UDPServerService(self.reactor, 0, Doubling, self.family.far))
        client = self.serve(UDPClientService(self.reactor, *place.address, interface=self.family.near, timeout=0.2))
        for fault in FAULTS:
            undo = self.refuse(fault, place.address[1])
            with self.assertRaises((errors.PeerUnreachable, errors.RequestTimedOut), msg=fault):
                self.fired(client.call("double", 1))
            undo()
            self.assertEqual(self.fired(client.call("double", 2, timeout=self.patience)), 4)


def kinds_of(family: Family) -> Sequence[tuple[tuple[int, int], int]]:
    """Return what a router may say about a datagram: type and code, and the MTU if it names one."""
    if family is IPV4:
        unreachable = [((3, code), 0) for code in (0, 1, 2, 3, 5, 9, 13)]
        return [*unreachable, ((3, 4), 0), ((3, 4), 68), ((3, 4), 1400), ((11, 0), 0), ((12, 0), 0)]
    return [*(((1, code), 0) for code in range(5)), ((2, 0), 0), ((2, 0), 1280), ((3, 0), 0), ((4, 0), 0)]


@variants(globals())
class Forged(NamespaceCase):
    """ICMP errors that anybody can send, if he guesses two addresses."""

    def setUp(self) -> None:
        """Make the raw socket they come from."""
        super().setUp()
        self.raw = icmp.raw_socket(self.family.far)
        self.addCleanup(self.raw.close)
        self.unreachable = icmp.PORT_UNREACHABLE if self.family is IPV4 else icmp.PORT_UNREACHABLE_6

    def forge(self, sender: Address, receiver: Address, quoted: bytes, kind: tuple[int, int], mtu: int = 0) -> None:
        """Tell a sender that a datagram did not arrive."""
        self.raw.sendto(icmp.error_about(sender, receiver, quoted, kind=kind, mtu=mtu), (sender[0], 0))

    def test_every_kind(self) -> None:
        """After each kind of error the peer that it is about, and another one, are answered with all sizes."""
        peer = Peer(echo)
        port = self.listen(peer, self.family.near)
        server = self.address_of(port)
        first, second = self.plain(self.family.far), self.plain(self.family.near)
        for kind, mtu in kinds_of(self.family):
            for quoted in (b"", b"anything", bytes(1200)):
                self.forge(server, address_of(first), quoted, kind, mtu)
            for size in (0, 64, 1400, 8192):
                self.assert_answers(port, second, bytes(size))
                self.assert_answers(port, first, bytes(size))
        self.assertGreater(port.stats.unreachable, 0)
        self.assertEqual(port.stats.callback_errors, 0)
        self.assert_quiet(port)

    def check_heap(self, peer: Peer, interface: str) -> None:
        """Send heaps of errors together with requests of the peers that they are about."""
        port = self.listen(peer, interface)
        server = (self.family.near, port.getHost().port)
        asking = [self.plain(self.family.far) for _ in range(PAIRS)]
        for times in range(1, ROUNDS + 1):
            for number in range(HEAP):
                one = asking[number % PAIRS]
                self.forge(server, address_of(one), b"forged", self.unreachable)
                one.sendto(b"%d" % number, server)
            self.wait(
                lambda: (port.stats.datagrams_received, port.stats.unreachable) == (times * HEAP, times * HEAP),  # noqa: B023  # it ends here
                lambda: port.stats,
            )
        answers = sum(len(waiting_in(one)) for one in asking)
        self.assertEqual((answers, port.stats.datagrams_sent), (ROUNDS * HEAP, ROUNDS * HEAP))
        self.assertEqual(port.stats.callback_errors, 0)
        self.assertEqual({quoted for _, _, quoted in peer.unreachable}, {b"forged"})
        self.assert_quiet(port)

    def test_heap(self) -> None:
        """Errors are counted, each of them, and no request that comes between them is lost."""
        self.check_heap(Peer(echo), self.family.near)

    def test_heap_at_wildcard(self) -> None:
        """Nor at a port that is bound to all addresses."""
        self.check_heap(Peer(echo), self.family.any_host)

    def test_heap_in_batches(self) -> None:
        """Nor at one whose protocol takes batches."""
        self.check_heap(BatchPeer(echo), self.family.near)

    def test_client_service(self) -> None:
        """Errors about what a client did not send are counted, and its call is answered."""
        true = self.plain(self.family.far)
        client = self.serve(UDPClientService(self.reactor, *address_of(true), timeout=self.patience))
        call = client.call("double", 4)
        self.ports.settle()
        request, asking = true.recvfrom(LIMIT)
        for _ in range(HEAP):
            self.forge(asking[:2], address_of(true), b"forged", self.unreachable)
        self.wait(lambda: client.stats.rejected["unmatched_icmp"] == HEAP, lambda: client.stats.rejected)
        self.assertNoResult(call)
        # A request is [0, msgid, method, params] and its response [1, msgid, error, result]: the id is the same.
        msgid = request[2 : 2 + {0xCE: 5, 0xCD: 3, 0xCC: 2}.get(request[2], 1)]
        true.sendto(b"\x94\x01" + msgid + b"\xc0\x08", asking)
        self.assertEqual(self.fired(call), 8)
        self.assertEqual(client.stats.refused, 0)
