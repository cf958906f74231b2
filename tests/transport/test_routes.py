"""The ways back to the peers."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import InvalidAddressError
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import OTHER, PEER, FakeSocket, arrived, drop_count, pktinfo, pktinfo6
from twistedudp.transport import DatagramStats, _kernel
from twistedudp.transport._addresses import MAX_REMEMBERED
from twistedudp.transport._routes import MAX_LOCAL_ADDRESSES, Routes

PEER6 = ("2001:db8::7", 4242, 0, 0)


class RoutesTestCase(SynchronousTestCase):
    """Routes of a socket that does what the test says."""

    drops: int | None = 0

    def routes(
        self, family: socket.AddressFamily, *, wildcard: bool, to_group: bool = False, return_path: bool = True
    ) -> Routes:
        """Make the routes of a socket."""
        self.handle = FakeSocket(family)
        self.handle.drops = self.drops
        self.stats = DatagramStats()
        handle: Any = self.handle
        return Routes(handle, self.stats, wildcard=wildcard, to_group=to_group, return_path=return_path)


class OneAddressTests(RoutesTestCase):
    """Sockets bound to one address."""

    def test_ipv4(self) -> None:
        """IPv4 needs nothing: the peer's address itself will do."""
        routes = self.routes(socket.AF_INET, wildcard=False)
        self.handle.arrivals = [(b"x", PEER)]
        self.assertEqual((b"x", PEER), routes.receive(100))
        self.assertEqual((None, False), (routes.current, routes.to_group))

    def test_ipv6(self) -> None:
        """IPv6 peers are pairs, and the kernel's address is kept for the answer, now and later."""
        routes = self.routes(socket.AF_INET6, wildcard=False)
        peers = []
        for _ in range(2):
            self.handle.arrivals = [(b"x", PEER6)]
            peers.append(routes.receive(100)[1])
            self.assertEqual((PEER6, []), routes.current)
        self.assertEqual([PEER6[:2], PEER6[:2]], peers)
        self.assertIdentical(peers[0], peers[1])
        self.assertEqual((PEER6, []), routes.to(peers[0]))

    def test_group(self) -> None:
        """A socket bound to a group gets nothing else."""
        self.assertTrue(self.routes(socket.AF_INET, wildcard=False, to_group=True).to_group)

    def test_unheard(self) -> None:
        """To a peer not heard of the kernel chooses the way; it is looked at once."""
        routes = self.routes(socket.AF_INET, wildcard=False)
        route = routes.to(PEER)
        self.assertEqual((PEER, []), route)
        self.assertIdentical(route, routes.to((*PEER,)))

    def test_refused(self) -> None:
        """What is no address is never remembered as one."""
        routes = self.routes(socket.AF_INET, wildcard=False)
        for _ in range(2):
            self.assertRaises(InvalidAddressError, routes.to, ("localhost", 9))

    def test_name_of_the_old_generation(self) -> None:
        """A peer that was silent for long has the same name still, and loses nothing by it."""
        routes = self.routes(socket.AF_INET6, wildcard=False)
        self.handle.arrivals = [(b"", ("2001:db8::1", port, 0, 0)) for port in range(MAX_REMEMBERED + 1)]
        peers = [routes.receive(100)[1] for _ in range(MAX_REMEMBERED + 1)]
        self.handle.arrivals = [(b"", ("2001:db8::1", 0, 0, 0))]
        self.assertIdentical(peers[0], routes.receive(100)[1])


class WildcardTests(RoutesTestCase):
    """Sockets bound to all addresses."""

    def receive(self, routes: Routes, *ancillary: tuple[int, int, bytes], peer: Any = PEER) -> Any:
        """Let a datagram arrive."""
        self.handle.arrivals = [(b"x", list(ancillary), peer)]
        return routes.receive(100)[1]

    def asked(self, host: str) -> Any:
        """Return the control messages of an answer from a host of ours."""
        return _kernel.parse_return_path(pktinfo(host)[2]).ancillary

    def test_answer(self) -> None:
        """The way back leaves from the address that was asked."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.assertEqual(PEER, self.receive(routes, pktinfo("192.0.2.1")))
        self.assertEqual((PEER, self.asked("192.0.2.1")), routes.current)

    def test_later(self) -> None:
        """Each peer's way is remembered, the last one that it came on."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.receive(routes, pktinfo("192.0.2.1"))
        self.receive(routes, pktinfo("192.0.2.2"), peer=OTHER)
        self.assertEqual(self.asked("192.0.2.1"), routes.to(PEER)[1])
        self.receive(routes, pktinfo("192.0.2.3"))
        self.assertEqual(self.asked("192.0.2.3"), routes.to(PEER)[1])
        self.assertEqual(self.asked("192.0.2.2"), routes.to(OTHER)[1])

    def test_forget(self) -> None:
        """A way that leads nowhere any more is forgotten, and the kernel chooses."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.receive(routes, pktinfo("192.0.2.1"))
        routes.forget(PEER)
        self.assertEqual((PEER, []), routes.to(PEER))

    def test_group(self) -> None:
        """A broadcast is told from what follows it."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.receive(routes, pktinfo("192.0.2.1", "192.0.2.255"))
        self.assertTrue(routes.to_group)
        self.receive(routes, pktinfo("192.0.2.1"))
        self.assertFalse(routes.to_group)

    def test_dual_stack(self) -> None:
        """A dual-stack socket has both kinds of peers, and IPv4 ones by their IPv4 address."""
        routes = self.routes(socket.AF_INET6, wildcard=True)
        mapped = ("::ffff:192.0.2.7", 4242, 0, 0)
        for _ in range(2):
            both = (pktinfo6("::ffff:192.0.2.1"), pktinfo("192.0.2.1"))
            self.assertEqual(PEER, self.receive(routes, *both, peer=mapped))
            self.assertEqual((mapped, self.asked("192.0.2.1")), routes.current)
        self.assertEqual(PEER6[:2], self.receive(routes, pktinfo6("2001:db8::1"), peer=PEER6))
        self.assertEqual((PEER6, [pktinfo6("2001:db8::1", 0)]), routes.current)
        self.assertEqual((("::ffff:192.0.2.8", 4242, 0, 0), []), routes.to(OTHER))

    def test_drops(self) -> None:
        """What the kernel dropped is counted, where it tells it with datagrams only."""
        self.drops = None
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.receive(routes, drop_count(3), pktinfo("192.0.2.1"))
        self.assertEqual((3, self.asked("192.0.2.1")), (self.stats.dropped_by_kernel, routes.to(PEER)[1]))

    def test_times(self) -> None:
        """When a datagram arrived is told beside the address asked, on sockets of every kind."""
        for family, wildcard, return_path, peer in (
            (socket.AF_INET, True, True, PEER),
            (socket.AF_INET, True, False, PEER),
            (socket.AF_INET, False, True, PEER),
            (socket.AF_INET6, False, True, PEER6),
            (socket.AF_INET6, True, True, PEER6),
        ):
            routes = self.routes(family, wildcard=wildcard, return_path=return_path)
            routes.take_times()
            asked = [pktinfo6("2001:db8::1") if family == socket.AF_INET6 else pktinfo("192.0.2.1")]
            for time in (7, 2_000_000_009):
                self.assertEqual(peer[:2], self.receive(routes, arrived(time), *(asked if wildcard else ()), peer=peer))
                self.assertEqual(time, routes.arrived)
            if wildcard and return_path:
                self.assertEqual(_kernel.parse_return_path(asked[0][2]).ancillary, routes.to(peer[:2])[1])

    def test_time_alone(self) -> None:
        """A time without the address asked is not taken for one."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        routes.take_times()
        self.receive(routes, arrived(7))
        self.assertEqual((7, [b""]), (routes.arrived, list(routes._paths)))

    def test_untold(self) -> None:
        """Where the kernel does not tell the address asked, it may choose one."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.receive(routes)
        self.assertEqual((PEER, []), routes.current)

    def test_million_peers(self) -> None:
        """However many peers there are, a bounded number is remembered, and the others are counted."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        count = 3 * MAX_REMEMBERED
        for port in range(count):
            self.receive(routes, pktinfo("192.0.2.1"), peer=("192.0.2.7", port))
        self.assertTrue(len(routes.known) <= 2 * MAX_REMEMBERED)
        self.assertEqual(count - len(routes.known), self.stats.routes_forgotten)

    def test_among_others(self) -> None:
        """The address asked is found among other messages, before and behind it, which the socket's owner asked for."""
        stranger = (socket.IPPROTO_TCP, 2, b"stranger")
        for before, behind in (([stranger], []), ([stranger], [stranger]), ([], [stranger]), ([drop_count(1)], [])):
            routes = self.routes(socket.AF_INET, wildcard=True)
            self.receive(routes, *before, pktinfo("192.0.2.1"), *behind)
            self.assertEqual(self.asked("192.0.2.1"), routes.to(PEER)[1])

    def test_many_local_addresses(self) -> None:
        """Peers that ask at ever new addresses of this host cost no lasting memory."""
        routes = self.routes(socket.AF_INET, wildcard=True)
        for number in range(MAX_LOCAL_ADDRESSES + 10):
            host = f"127.0.{number // 256}.{number % 256}"
            self.receive(routes, pktinfo(host))
            self.assertEqual(self.asked(host), routes.to(PEER)[1])
        self.assertEqual(10, len(routes._paths))

    def test_not_wanted(self) -> None:
        """Ports that answer nobody, a client's own, do not ask for it: the peer's address will do, whatever came."""
        routes = self.routes(socket.AF_INET, wildcard=True, return_path=False)
        self.handle.arrivals = [(b"x", PEER)]
        self.assertEqual((b"x", PEER), routes.receive(100))
        self.assertEqual((None, False), (routes.current, routes.to_group))
        self.assertEqual((PEER, []), routes.to(PEER))
        routes = self.routes(socket.AF_INET6, wildcard=True, return_path=False)
        self.handle.arrivals = [(b"x", PEER6), (b"y", ("::ffff:192.0.2.7", 4242, 0, 0))]
        self.assertEqual([(b"x", PEER6[:2]), (b"y", PEER)], [routes.receive(100) for _ in range(2)])

    def test_other_systems(self) -> None:
        """Where the kernel cannot tell the address asked, nothing is asked of it."""
        self.patch(_kernel, "LINUX", False)
        routes = self.routes(socket.AF_INET, wildcard=True)
        self.handle.arrivals = [(b"x", PEER)]
        self.assertEqual((b"x", PEER), routes.receive(100))
