"""Sweeps on real networks: narrow routers that tell so or are silent, fragments that are dropped, limited rates."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest

from tests.integration.netns import missing_for_namespaces
from tests.integration.routed import HOSTS, RoutedPath, ServerProcess
from tests.integration.sockets import RealTestCase
from twistedudp._sweeps import sweep_rate, sweep_size

if TYPE_CHECKING:
    from tests.integration.routed import Hosts
    from twistedudp._sweeps import RateSweep, SizeSweep
    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

UDPECHO: Final = str(Path(sys.executable).parent / "udpecho")

NEAR_MTU: Final = 1500
"""Of the client's own interface."""

NARROW: Final = 1337
"""Of the link behind the router: a number that no program has in a table, and above the 1,280 that IPv6 promises."""

TIMEOUT: Final = 0.3
"""Seconds; an answer takes less than a millisecond here, and nothing slow is between."""

LIMIT: Final = 250
"""Datagrams in a second that the router lets pass."""

BURST: Final = 5
"""Datagrams that it lets pass beyond, as nftables has it."""

STEP: Final = 0.4
"""Seconds for which each rate is tried."""


class SweepCase(RealTestCase):
    """A client, a router and a server behind a link that is narrow."""

    narrow: ClassVar[int] = NARROW

    def setUp(self) -> None:
        """Make the machines and enter the client's."""
        super().setUp()
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.path = RoutedPath(narrow=self.narrow)
        self.addCleanup(self.path.__exit__)
        entered = self.path.client.entered()
        entered.__enter__()
        self.addCleanup(entered.__exit__, None, None, None)

    def serve(self, hosts: Hosts, mode: str = "echo") -> Address:
        """Start a server for the rest of the test, and return its address."""
        server = ServerProcess(self.path.server, hosts.server, mode)
        self.addCleanup(server.stop)
        return hosts.server, server.port

    async def sweep(self, peer: Address, **how: Any) -> SizeSweep:
        """Sweep over sizes, and check what holds for each result."""
        found = await sweep_size(self.reactor, peer, timeout=TIMEOUT, **how)
        self.assertTrue(found.verified, found)
        self.assertTrue(found.both_ways)
        return found


class SizeTests(SweepCase):
    """What ends the size, in one family; the other is below."""

    family: ClassVar[str] = "IPv4"
    headers: ClassVar[int] = 28

    def setUp(self) -> None:
        """Name the addresses."""
        super().setUp()
        self.hosts = HOSTS[self.family]

    async def test_router_tells(self) -> None:
        """Where the router says that a datagram is too large it is believed at once, and the result is exact."""
        found = await self.sweep(self.serve(self.hosts))
        self.assertEqual((found.largest, found.path_mtu), (NARROW - self.headers, NARROW))
        self.assertEqual((found.limit, found.interface_mtu, found.fragments_pass), ("router", NEAR_MTU, True))
        # The smallest, the largest there is, the interface's, the router's, one byte more; the rest are checks.
        self.assertLessEqual(len([step for step in found.steps if step.stage == "search"]), 5)
        told = next(step for step in found.steps if step.outcome == "too large there")
        self.assertEqual((told.size, told.tries), (NEAR_MTU - self.headers, 1))

    async def test_black_hole(self) -> None:
        """Where nobody says so, the size is found all the same, and that it is silence that ends it; fragments pass."""
        self.path.rules(
            self.path.router, "output", "icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"
        )
        found = await self.sweep(self.serve(self.hosts))
        self.assertEqual((found.largest, found.path_mtu), (NARROW - self.headers, NARROW))
        self.assertEqual((found.limit, found.interface_mtu, found.fragments_pass), ("silence", NEAR_MTU, True))
        self.assertNotIn("too large there", {step.outcome for step in found.steps})

    async def test_fragments_dropped(self) -> None:
        """Where fragments are dropped, that is found as well."""
        self.path.rules(self.path.server, "prerouting", "ip frag-off & 0x3fff != 0 drop", "exthdr frag exists drop")
        found = await self.sweep(self.serve(self.hosts))
        self.assertEqual((found.largest, found.limit), (NARROW - self.headers, "router"))
        self.assertIs(found.fragments_pass, False)


class SizeIPv6Tests(SizeTests):
    """The same over IPv6, where no router cuts and the sender's own kernel does."""

    family = "IPv6"
    headers = 48


class MoreSizeTests(SweepCase):
    """What is the same in both families."""

    async def test_believed_already(self) -> None:
        """What the kernel has learned before is not taken for the truth: a path that has become wider is found."""
        peer = self.serve(HOSTS["IPv4"])
        await self.sweep(peer)
        for machine in (self.path.router, self.path.server):
            machine.run("ip", "link", "set", "near", "mtu", str(NEAR_MTU))
        found = await self.sweep(peer)
        self.assertEqual((found.largest, found.path_mtu, found.limit), (NEAR_MTU - 28, NEAR_MTU, "interface"))

    async def test_server_cuts(self) -> None:
        """A server whose buffer is smaller than the path is told apart: its answers are shorter than the probes."""
        found = await self.sweep(self.serve(HOSTS["IPv4"], "cuts"))
        self.assertEqual((found.largest, found.cut_to, found.limit), (1024, 1024, "server"))
        self.assertIsNone(found.path_mtu)
        self.assertIs(found.fragments_pass, True)  # a cut answer to what needs fragments says as much

    async def test_loss(self) -> None:
        """With 20 % lost each way, which is no matter of size, the size found is the same."""
        self.path.rules(self.path.router, "forward", "meta l4proto udp numgen random mod 100 < 20 drop")
        found = await self.sweep(self.serve(HOSTS["IPv4"]))
        self.assertEqual((found.largest, found.limit), (NARROW - 28, "router"))

    async def test_not_sent(self) -> None:
        """A rule of this machine's is told apart, whether it stops all sizes or the larger ones."""
        host, port = peer = self.serve(HOSTS["IPv4"])
        self.path.rules(self.path.client, "output", f"udp dport {port} udp length > 1008 drop")
        found = await self.sweep(peer)
        self.assertEqual((found.largest, found.limit, found.path_mtu), (1000, "this machine", None))
        self.assertIn("Operation not permitted", found.detail)
        self.path.rules(self.path.client, "output", f"ip daddr {host} drop")
        found = await sweep_size(self.reactor, peer, timeout=TIMEOUT)
        self.assertEqual((found.largest, found.limit, found.probes), (None, "this machine", 0))
        self.assertIn("Operation not permitted", found.detail)
        rates = await sweep_rate(self.reactor, peer, seconds_per_step=STEP, timeout=TIMEOUT)
        self.assertEqual((rates.highest, rates.bound, len(rates.steps)), (None, "this machine", 1))
        self.assertIn("Operation not permitted", rates.detail)

    async def test_no_server(self) -> None:
        """An address to which nothing can be sent is wrong usage, told in a line."""
        for sweep in ("--sweep-size", "--sweep-rate"):
            for host, words in (
                ("[fe80::1%nosuch]", b"udpecho: fe80::1%nosuch: there is no network interface 'nosuch'\n"),
                ("127.255.255.255", b"udpecho: 127.255.255.255 is a broadcast address; a sweep asks one server"),
            ):
                _, complaints, status = await getProcessOutputAndValue(
                    UDPECHO, ("ping", f"{host}:9", sweep), os.environ
                )  # type: ignore[no-untyped-call]  # Twisted has not annotated it
                self.assertEqual((complaints[: len(words)], status), (words, 2))

    async def test_command(self) -> None:
        """The command prints one JSON object with the same result."""
        host, port = self.serve(HOSTS["IPv4"])
        printed, complaints, status = await getProcessOutputAndValue(
            UDPECHO, ("ping", f"{host}:{port}", "--sweep-size", "--timeout", "300ms", "--json"), os.environ
        )  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        self.assertEqual((complaints, status), (b"", 0))
        whole = json.loads(printed)
        self.assertEqual((whole["format"], whole["largest"], whole["limit"]), (1, NARROW - 28, "router"))


class RateTests(SweepCase):
    """A rate that a router limits."""

    narrow = NEAR_MTU

    async def sweep_rates(self, peer: Address, **how: Any) -> RateSweep:
        """Sweep over rates."""
        return await sweep_rate(self.reactor, peer, seconds_per_step=STEP, timeout=TIMEOUT, **how)

    @pytest.mark.heavy
    async def test_limit(self) -> None:
        """A limit is found within the resolution and what its bucket holds, and it is the network's."""
        limit = f"udp dport != 53 limit rate over {LIMIT}/second burst {BURST} packets drop"
        host = HOSTS["IPv4"].server
        self.path.rules(self.path.router, "forward", f"ip daddr {host} {limit}")
        found = await self.sweep_rates(self.serve(HOSTS["IPv4"]))
        self.assertEqual((found.bound, found.confirmed), ("loss", True), found)
        assert found.highest is not None
        assert found.lost_at is not None
        self.assertTrue(LIMIT / (1 + found.resolution) <= found.highest <= LIMIT + 2 * BURST / STEP, found)
        self.assertTrue(LIMIT <= found.lost_at <= found.highest * (1 + found.resolution), found)
