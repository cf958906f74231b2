"""What strangers send, to real Connections: no memory for them, and no harm to sessions."""

from __future__ import annotations

import os
import random
import tracemalloc
from typing import Any

from tests.dtls.world import PORT, SERVER, World, notes
from twistedudp.dtls._records import is_client_hello

FORGED = 10_000


class AttackTests(World):
    """A session, and somebody else."""

    def genuine_hello(self) -> bytes:
        """Return a client's first datagram."""
        return next(datagram for datagram in self.datagrams(to_server=True) if is_client_hello(datagram))

    def test_forged_hellos_cost_no_memory(self) -> None:
        """Ten thousand ClientHellos from as many addresses: each is answered by less, and nothing is kept of any."""
        endpoint = self.serve(hello_burst=2 * FORGED)
        client = self.opened(self.client())
        hello = bytearray(self.genuine_hello())
        sent: list[int] = []
        self.patch(endpoint._port, "write", lambda datagram, _addr: sent.append(len(datagram)))

        def flood(start: int) -> None:
            for number in range(start, start + FORGED // 2):
                hello[27:31] = number.to_bytes(4, "big")
                endpoint.datagramReceived(bytes(hello), (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7))

        flood(0)
        sent.clear()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            flood(FORGED)
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertEqual((len(sent), endpoint.half_open, endpoint.sessions), (FORGED // 2, 0, 1))
        self.assertLess(max(sent), len(hello))
        self.assertLess(kept, 250_000)  # the numbers of the list above, and no 50 bytes more for each
        self.assertEqual(len(endpoint._timetable), 1)
        self.assertEqual(client.state, "open")

    def test_forged_hellos_of_addresses_that_cannot_be(self) -> None:
        """A ClientHello of UDP port 0 or of a broadcast address is nobody's error, and harms none in its batch."""
        endpoint = self.serve()
        self.opened(self.client())
        hello, stranger = self.genuine_hello(), self.stranger()
        for forged in ((SERVER, 0), ("255.255.255.255", 9)):
            endpoint.datagrams_received(((hello, forged), (hello, stranger.address)))
        self.settle()
        self.assertEqual(len(stranger.received), 2)
        self.assertEqual((endpoint.stats.dropped["source_port_zero"], endpoint.stats.not_sent["unsendable"]), (1, 1))

    def test_garbage_between_two_sessions(self) -> None:
        """Ten thousand datagrams of garbage, from the sessions' own addresses as well: both live on."""
        endpoint = self.serve(hello_burst=2 * FORGED)
        clients = [self.opened(self.client()) for _ in range(2)]
        rng = random.Random(7)  # noqa: S311  # reproducible on purpose
        genuine = self.datagrams(to_server=True)
        peers = [*endpoint._opened, ("192.0.2.66", 6)]
        for _ in range(FORGED):
            datagram = bytearray(rng.choice(genuine))
            for _ in range(rng.randrange(1, 4)):
                datagram[rng.randrange(len(datagram))] = rng.randrange(256)
            cut = rng.choice((len(datagram), rng.randrange(len(datagram) + 1)))
            endpoint.datagramReceived(bytes(datagram[:cut]), rng.choice(peers))
        for client in clients:
            client.write(b"still there")
        self.settle()
        self.assertEqual([notes(client).payloads for client in clients], 2 * [[b"still there"]])
        self.assertEqual(endpoint.stats.ended, {})
        self.assertGreater(endpoint.stats.dropped.total(), FORGED // 2)

    def test_random_bytes(self) -> None:
        """Bytes that are nothing at all are dropped without OpenSSL, and raise nothing."""
        endpoint = self.serve()
        for size in (*range(100), 2000, 65535):
            endpoint.datagramReceived(os.urandom(size), ("192.0.2.66", 6))
        self.assertEqual((endpoint.sessions, endpoint.half_open), (0, 0))

    def test_replay(self) -> None:
        """A datagram that is recorded and sent again, by either side, is delivered once."""
        endpoint = self.serve()
        client = self.opened(self.client())
        client.write(b"pay 100")
        self.settle()
        (peer,) = endpoint._opened
        for datagram in self.datagrams(to_server=True):
            for _ in range(20):
                endpoint.datagramReceived(datagram, peer)
        attempt: Any = client._attempt
        for datagram in self.datagrams(to_server=False):
            attempt.datagramReceived(datagram, (SERVER, PORT))
        self.assertEqual((notes(endpoint).payloads, notes(client).payloads), ([b"pay 100"], [b"pay 100"]))

    def test_replay_from_another_address(self) -> None:
        """A session belongs to its address: its datagrams bring a stranger nothing."""
        endpoint = self.serve()
        client = self.opened(self.client())
        client.write(b"mine")
        self.settle()
        for datagram in self.datagrams(to_server=True):
            endpoint.datagramReceived(datagram, ("192.0.2.66", 6))
        self.settle()
        self.assertEqual(notes(endpoint).payloads, [b"mine"])
        self.assertEqual((endpoint.sessions, endpoint.half_open), (1, 0))

    def test_reordered(self) -> None:
        """Datagrams that overtake each other are delivered as they come, as with UDP."""
        endpoint = self.serve()
        client = self.opened(self.client())
        (peer,) = endpoint._opened
        attempt: Any = client._attempt
        sealed = [attempt.session.seal(b"%d" % number) for number in range(20)]
        order = [*range(10, 20), *range(10)]
        endpoint.datagrams_received([(sealed[number], peer) for number in order])
        self.assertEqual(notes(endpoint).payloads, [b"%d" % number for number in order])

    def test_corrupted(self) -> None:
        """A record with any byte of it changed is not delivered; the genuine one still is."""
        endpoint = self.serve()
        client = self.opened(self.client())
        (peer,) = endpoint._opened
        attempt: Any = client._attempt
        sealed = attempt.session.seal(b"genuine")
        for place in range(len(sealed)):
            changed = bytearray(sealed)
            changed[place] ^= 1
            endpoint.datagramReceived(bytes(changed), peer)
        self.assertEqual(notes(endpoint).payloads, [])
        endpoint.datagramReceived(sealed, peer)
        self.assertEqual(notes(endpoint).payloads, [b"genuine"])

    def test_plaintext_alerts(self) -> None:
        """Alerts in the clear, which anybody can send in a peer's name, end no session that is open."""
        endpoint = self.serve()
        client = self.opened(self.client())
        (peer,) = endpoint._opened
        attempt: Any = client._attempt
        for level, kind in ((2, 40), (1, 0), (2, 48)):
            alert = b"\x15\xfe\xfd" + bytes(7) + b"\x63" + b"\0\2" + bytes([level, kind])
            endpoint.datagramReceived(alert, peer)
            attempt.datagramReceived(alert, (SERVER, PORT))
        client.write(b"still there")
        self.settle()
        self.assertEqual(notes(client).payloads, [b"still there"])

    def test_alert_in_a_handshake(self) -> None:
        """During the handshake such an alert ends an attempt; the client's next one, from a fresh port, succeeds."""
        endpoint = self.serve()
        client = self.client()
        waiting = client.open(5.0)
        attempt: Any = client._attempt
        attempt.datagramReceived(b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2\x28", (SERVER, PORT))
        self.assertEqual(client.stats.failed, {"refused": 1})
        self.settle()
        self.successResultOf(waiting)
        self.assertIsNot(client._attempt, attempt)
        self.assertEqual(endpoint.stats.opened, 1)
