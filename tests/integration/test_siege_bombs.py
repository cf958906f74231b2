"""Bombs, garbage, forged proofs and what looks like DTLS: nothing of it is answered, logged or remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.siege import payloads
from tests.siege.case import RPC, SiegeTestCase
from tests.siege.field import SERVER, Traffic
from tests.siege.processes import HonestClients
from tests.siege.siege import SUCCESS, TRUST

SECONDS = 2.0
RATE = 3000
MOST_GROWTH = 8 * 2**20
"""Bytes by which the peak of a server's memory may be higher: a batch of the largest datagrams takes 4 MB, and one bomb
of 1,400 bytes would take 5 MB of a careless decoder."""


@pytest.mark.heavy
class BombTests(SiegeTestCase):
    """An rpc server that is sent what it must not choke on."""

    def peak(self) -> int:
        """Return the most memory that the server has had, in bytes."""
        text = Path(f"/proc/{self.servers[0].process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(text.partition("VmHWM:")[2].split()[0])

    def attacked(self, sent: list[payloads.Payload]) -> None:
        """Send it all in turn, from everywhere, and check that only honest clients were answered."""
        port = self.serve(*RPC, "--trust", TRUST)
        with HonestClients(self.field.clients, (SERVER, port), "idempotent", rate=50, seconds=SECONDS) as clients:
            clients.wait()
            before, traffic = self.peak(), Traffic(self.field, port)
            self.addCleanup(traffic.close)
            self.forge(port, sent, rate=RATE, seconds=SECONDS)
            figures = clients.figures()
        self.settle(port)
        self.assertGreaterEqual(figures["answered"], SUCCESS * figures["calls"], figures)
        self.assertLess(self.peak() - before, MOST_GROWTH)
        seen = [one for one in traffic.take() if one.peer.startswith("10.")]
        self.assertGreater(sum(one.coming for one in seen), RATE * SECONDS / 2)
        self.assertEqual([one for one in seen if not one.coming], [])

    def test_bombs(self) -> None:
        """Nested headers, claimed sizes, and a thousand empty containers cost no memory, and nobody is answered."""
        self.attacked(payloads.bombs())

    def test_garbage(self) -> None:
        """Bytes without meaning, forged proofs of address, responses and DTLS to a server without it, likewise."""
        seed = 20261122
        sent = payloads.noise(seed) + payloads.dtls_junk(seed) + payloads.replies() + payloads.proofs()
        self.attacked(sent)
