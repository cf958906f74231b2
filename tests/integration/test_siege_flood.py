"""Floods from a million forged addresses: memory does not grow with them, and whom the server trusts is served."""

from __future__ import annotations

import pytest

from tests.siege.case import RPC, SiegeTestCase
from tests.siege.flood import DENIED, capacity_of, flood
from tests.siege.siege import MOST_GROWTH, SUCCESS, TRUST

SOURCES = 1_000_000
SETTLED = 2 * 2**20
"""Bytes by which a server may still grow when all its tables are full: what its allocator keeps in pieces."""


@pytest.mark.heavy
class FloodTests(SiegeTestCase):
    """A server that trusts some clients, and is flooded at half of what it can read and refuse."""

    def attacked(self, kind: str, *options: str, seconds: float = 0.0) -> None:
        """Flood a server twice; by default for so long that every source has sent once."""
        self.serve(*options, "--trust", TRUST, "--deny", DENIED)
        [server] = self.servers
        rate = capacity_of(self.field, server) / 2
        grown = []
        for _ in range(2):
            flooded = flood(self.field, server, rate, seconds or SOURCES / rate, kind)
            self.assertGreaterEqual(flooded.success, SUCCESS, flooded)
            self.assertEqual(flooded.clients["wrong"], 0)
            self.assertGreater(flooded.sent, 0.5 * rate * (seconds or SOURCES / rate))
            grown.append(flooded.grown)
        self.assertLess(grown[0], MOST_GROWTH)
        self.assertLess(grown[1], SETTLED)

    def test_requests(self) -> None:
        """Requests to run a method: trusted clients' calls are answered, and the memory is constant."""
        self.attacked("rpc", *RPC, seconds=2.5)

    def test_echo(self) -> None:
        """Datagrams to be echoed, likewise."""
        self.attacked("echo", seconds=1.5)

    @pytest.mark.slow
    def test_every_source(self) -> None:
        """Each of a million sources has sent, twice."""
        self.attacked("rpc", *RPC)
