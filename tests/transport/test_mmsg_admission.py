"""Admission in the compiled backend: decided from the kernel's bytes, before there is an object for a datagram."""

from __future__ import annotations

import sys
from collections import Counter
from ipaddress import ip_network

from tests.transport.mmsg_case import KINDS, MmsgCase
from twistedudp.admission import AdmissionPolicy
from twistedudp.transport import DATAGRAMS_PER_TURN

SLOW = 0.001
LOOPBACK = (ip_network("127.0.0.0/8"),)


class MmsgAdmissionTests(MmsgCase):
    """Ports that are read by hand."""

    def test_several_in_a_buffer(self) -> None:
        """A buffer counts as the datagrams in it, and is cut behind the last that is let in; the last may be short."""
        for kind in KINDS:
            client = self.client()
            port = self.listen(peer := kind(), admission=AdmissionPolicy(rate=SLOW, burst=9))
            client.send_together(b"aabbccddeef", 2, port)
            client.send_together(b"gghhiijjkk", 2, port)
            client.send_together(b"llmm", 2, port)
            self.serve(port)
            self.assertEqual([b"aa", b"bb", b"cc", b"dd", b"ee", b"f", b"gg", b"hh", b"ii"], peer.payloads)
            self.assertEqual(port.admission_stats.refused, Counter(host_rate=2 + 2))
            self.assertEqual(9, port.stats.datagrams_received)

    def test_one_of_a_buffer(self) -> None:
        """Where one datagram of a buffer is let in, it is delivered as if it had come alone."""
        client = self.client()
        port = self.listen(peer := KINDS[0](), admission=AdmissionPolicy(rate=SLOW, burst=1))
        client.send_together(b"aabbcc", 2, port)
        self.serve(port)
        self.assertEqual([b"aa"], peer.payloads)
        self.assertEqual(port.admission_stats.refused, Counter(host_rate=2))

    def test_empty_datagrams(self) -> None:
        """Empty datagrams count, are let in, and are refused, as others."""
        client = self.client()
        port = self.listen(peer := KINDS[0](), admission=AdmissionPolicy(rate=SLOW, burst=2))
        for _ in range(5):
            client.send(b"", port)
        self.serve(port)
        self.assertEqual([b"", b""], peer.payloads)
        self.assertEqual(port.admission_stats.refused, Counter(host_rate=3))

    def test_no_peer_is_learnt(self) -> None:
        """Nothing is remembered of who is refused: no address is made, and no peer."""
        port = self.listen(KINDS[0](), admission=AdmissionPolicy(deny=LOOPBACK))
        first, *others = self.clients(200)
        first.send(b"x", port)
        self.serve(port)
        before = sys.getallocatedblocks()
        for client in others:
            client.send(b"x", port)
        self.serve(port)
        self.assertLess(sys.getallocatedblocks() - before, 150, "a peer takes five")
        self.assertEqual(port.admission_stats.refused, Counter(denied=200))

    def test_turn_is_bounded(self) -> None:
        """A turn ends though all of its datagrams were refused, and the rest is read in the next."""
        client = self.client()
        port = self.listen(KINDS[0](), admission=AdmissionPolicy(deny=LOOPBACK))
        for _ in range(3 * DATAGRAMS_PER_TURN):
            client.send(b"x", port)
        self.turn(port)
        self.assertLessEqual(port.admission_stats.refused["denied"], DATAGRAMS_PER_TURN)
        self.serve(port)
        self.assertEqual(port.admission_stats.refused, Counter(denied=3 * DATAGRAMS_PER_TURN))
        self.assertEqual(0, port.stats.datagrams_received)

    def test_too_large_counts(self) -> None:
        """A datagram that is too large for the port was let in before, and takes its token."""
        client = self.client()
        policy = AdmissionPolicy(rate=SLOW, burst=2)
        port = self.listen(peer := KINDS[0](), admission=policy, max_datagram_size=10)
        for payload in (b"x" * 11, b"one", b"two"):
            client.send(payload, port)
        self.serve(port)
        self.assertEqual([b"one"], peer.payloads)
        self.assertEqual((1, 1), (port.stats.truncated, port.admission_stats.refused["host_rate"]))

    def test_ports_apart(self) -> None:
        """Each port has tables of its own."""
        client = self.client()
        peers = [KINDS[0]() for _ in range(2)]
        for port in [self.listen(peer, admission=AdmissionPolicy(rate=SLOW, burst=2)) for peer in peers]:
            for _ in range(3):
                client.send(b"x", port)
            self.serve(port)
        self.assertEqual([2, 2], [len(peer.received) for peer in peers])
