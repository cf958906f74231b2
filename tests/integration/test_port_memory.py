"""A million source addresses, which anybody can forge, leave nothing behind in a server's memory."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest

from tests.integration.addresses import ip_batch
from tests.integration.compiling import missing_compiler
from tests.integration.generators import Generator
from tests.integration.netns import NetworkNamespace, missing_for_namespaces
from tests.integration.reactors import PortCase, variants

MILLION = 1_000_000
SOME = 160_000
FIRST = 100_000
"""Source addresses after which every cache has been full several times over."""

ALLOWED = 2 * 1024 * 1024
"""Bytes by which the process may grow afterwards; to remember an address takes hundreds."""


class Echo(DatagramProtocol):
    """Answers everybody."""

    noisy = False
    transport: Any

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram back."""
        self.transport.write(datagram, addr)


class BatchEcho(Echo):
    """Answers everybody, together."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Send a batch back."""
        self.transport.write_batch(datagrams)


class Hoard(Echo):
    """What must not be: it remembers whom it answered."""

    def __init__(self) -> None:
        self.known: dict[Any, bytearray] = {}

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Send a datagram back and remember to whom."""
        self.known[addr] = bytearray(1024)
        super().datagramReceived(datagram, addr)


def resident() -> int:
    """Return the bytes of this process that are in memory, without what earlier tests have left to be used again."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class CrowdCase(PortCase):
    """A network of its own, where any address of a large network can be sent from."""

    patience = 200.0

    def setUp(self) -> None:
        """Make the network and enter it."""
        if reason := missing_compiler() or missing_for_namespaces():
            raise SkipTest(reason)
        network = NetworkNamespace()
        self.addCleanup(network.close)
        ip_batch(network, "link set lo up", "route add local fd00:64::/64 dev lo")
        self.inside(network)
        super().setUp()

    def crowd(self, port: Any, count: int, skip: int) -> None:
        """Let so many new addresses ask, each once, and be answered."""
        before = port.stats.datagrams_sent
        with Generator("scatter", self.address_of(port), count, skip) as generator:
            self.wait(lambda: generator.ended, lambda: port.stats)
            self.assertEqual(generator.figures()["received"], count)
        self.assertEqual(port.stats.datagrams_sent - before, count)

    def growth(self, protocol: DatagramProtocol, interface: str, most: int) -> int:
        """Return by how many bytes the process grows after the caches are full."""
        port = self.listen(protocol, interface)
        self.crowd(port, FIRST, 0)
        before = resident()
        self.crowd(port, most - FIRST, FIRST)
        grown = resident() - before
        self.assertEqual((port.stats.datagrams_received, port.stats.callback_errors), (most, 0))
        return grown


@variants(globals(), reactors=["EPoll"])
@pytest.mark.heavy
class Crowd(CrowdCase):
    """So many addresses, each of which sends one datagram, that what remembered them would show."""

    def test_wildcard(self) -> None:
        """A port bound to all addresses, which remembers return paths, forgets them."""
        self.assertLess(self.growth(Echo(), self.family.any_host, SOME), ALLOWED)

    def test_hoarding(self) -> None:
        """A protocol that remembers its peers takes more than is allowed: the check sees what it is there to see."""
        self.assertGreater(self.growth(Hoard(), self.family.host, SOME), 2 * ALLOWED)


@variants(globals(), reactors=["EPoll"])
@pytest.mark.slow
class Million(CrowdCase):
    """A million of them."""

    def test_one_address(self) -> None:
        """A port bound to one address."""
        self.assertLess(self.growth(Echo(), self.family.host, MILLION), ALLOWED)

    def test_wildcard(self) -> None:
        """A port bound to all addresses."""
        self.assertLess(self.growth(Echo(), self.family.any_host, MILLION), ALLOWED)

    def test_batches(self) -> None:
        """A protocol that takes batches."""
        self.assertLess(self.growth(BatchEcho(), self.family.any_host, MILLION), ALLOWED)
