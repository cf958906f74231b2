"""The compiled backend on the kernel's sockets: which datagrams share a buffer, on the way out and on the way in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.contracts.case import BatchPeer, Peer, echo
from tests.transport.mmsg_case import KINDS, MmsgCase
from twistedudp.transport._batching import MAX_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

LARGEST_RUN = 65_000
"""Bytes that are sent in one buffer at most."""

LARGEST_SEGMENT = 1472
"""Bytes of a datagram that shares a buffer, at most: what Ethernet carries."""


def sizes_of(buffers: Sequence[Sequence[bytes]]) -> list[list[int]]:
    """Return the sizes of the datagrams in some buffers."""
    return [[len(datagram) for datagram in buffer] for buffer in buffers]


class RunTests(MmsgCase):
    """Which datagrams share a buffer, and so a system call."""

    def runs(self, sizes: Sequence[int], kind: type[Peer] = Peer) -> list[list[int]]:
        """Have datagrams of these sizes written to one client, and return the sizes in the buffers that it gets."""
        payloads = [(b"%06d" % number * (1 + size // 6))[:size] for number, size in enumerate(sizes)]
        client = self.client()
        client.take_buffers()
        port = self.write_all([client], [(0, payload) for payload in payloads], kind)
        buffers = client.buffers()
        self.assertEqual(payloads, [datagram for buffer in buffers for datagram in buffer])
        self.assertEqual((len(payloads), sum(sizes)), (port.stats.datagrams_sent, port.stats.bytes_sent))
        self.assertEqual(sum(len(buffer) for buffer in buffers if len(buffer) > 1), port.stats.sent_together)
        self.assertEqual({}, port.stats.send_errors)
        # One call reads, one sends each queue of 128.
        self.assertEqual(1 + -(-len(sizes) // 128), port.stats.system_calls)
        return sizes_of(buffers)

    def test_equal_sizes(self) -> None:
        """Equal ones leave together, however many fit, and by how few of them it is exceeded."""
        for kind in KINDS:
            for count in (1, 2, 63, MAX_SEGMENTS):
                self.assertEqual([[10] * count], self.runs([10] * count, kind))
            self.assertEqual([[10] * 64, [10]], self.runs([10] * 65, kind))
            self.assertEqual([[10] * 64, [10] * 64], self.runs([10] * 128, kind))
            self.assertEqual([[10] * 64, [10] * 64, [10]], self.runs([10] * 129, kind))
            self.assertEqual([[10] * 64, [10] * 64, [10] * 64, [10] * 8], self.runs([10] * 200, kind))

    def test_shorter_one(self) -> None:
        """A shorter one ends a run, and what follows begins another."""
        self.assertEqual([[9, 9, 9, 4], [9, 9]], self.runs([9, 9, 9, 4, 9, 9]))
        self.assertEqual([[9, 4], [4, 4, 1], [1, 1]], self.runs([9, 4, 4, 4, 1, 1, 1]))

    def test_longer_one(self) -> None:
        """A longer one begins a run."""
        self.assertEqual([[9, 9], [10, 10, 9], [10]], self.runs([9, 9, 10, 10, 9, 10]))
        self.assertEqual([[1], [2], [3], [4]], self.runs([1, 2, 3, 4]))

    def test_empty_ones(self) -> None:
        """Empty ones never join, for the kernel could not tell them, and nothing joins them."""
        self.assertEqual([[5, 5], [0], [5], [0], [0]], self.runs([5, 5, 0, 5, 0, 0]))
        self.assertEqual([[0]] * 70, self.runs([0] * 70))

    def test_bytes_of_a_run(self) -> None:
        """A run has less than 64 KiB, else the kernel would refuse it."""
        for size in (1000, 1024, 1200, LARGEST_SEGMENT):
            most = LARGEST_RUN // size
            self.assertEqual([[size] * min(most, 64)], self.runs([size] * min(most, 64)))
            self.assertEqual(
                [[size] * most, [size] * 2] if most < 64 else [[size] * 64, [size] * 2],
                self.runs([size] * (min(most, 64) + 2)),
            )
        whole = [1250] * (LARGEST_RUN // 1250)  # 65,000 exactly
        self.assertEqual([whole], self.runs(whole))
        self.assertEqual([whole, [1]], self.runs([*whole, 1]))

    def test_large_datagrams(self) -> None:
        """What exceeds Ethernet's MTU has a buffer for itself, up to the largest datagram that there is."""
        self.assertEqual([[LARGEST_SEGMENT + 1]] * 3, self.runs([LARGEST_SEGMENT + 1] * 3))
        self.assertEqual([[65507], [65507], [1, 1]], self.runs([65507, 65507, 1, 1]))

    def test_random_sizes(self) -> None:
        """A run is a longest one, whatever the sizes: what could have joined did."""
        sizes = [(number * number * 7 + number // 3) % 4 for number in range(120)]
        expected: list[list[int]] = []
        for size in sizes:
            last = expected[-1] if expected else [0]
            joins = 0 < size <= last[0] == last[-1] and len(last) < 64
            expected[-1:] = [[*last, size]] if joins else [*expected[-1:], [size]]
        self.assertEqual(expected, self.runs(sizes))

    def test_peers_by_turns(self) -> None:
        """Answers to eight peers, written by turns, are put together for each peer, in its own order."""
        for kind in KINDS:
            clients = self.clients(8)
            for client in clients:
                client.take_buffers()
            plan = [(number % 8, b"%02d" % (number // 8)) for number in range(120)]
            port = self.write_all(clients, plan, kind)
            for client in clients:
                self.assertEqual([[b"%02d" % number for number in range(15)]], client.buffers())
            self.assertEqual((120, 120), (port.stats.datagrams_sent, port.stats.sent_together))
            # One sends, and two read: all slots of the first were filled; no second one where the turn's time was over.
            self.assertIn(port.stats.system_calls, (2, 3))

    def test_peers_with_mixed_sizes(self) -> None:
        """With sizes of all kinds, everyone gets what is theirs, in order, also when the queue leaves in between."""
        for kind in KINDS:
            clients = self.clients(8)
            plan = [(number * 5 % 8, b"x" * (number * 11 % 4) + b"%d" % (number % 10)) for number in range(500)]
            plan += [(number % 3, b"") for number in range(9)]
            self.write_all(clients, plan, kind)
            for index, client in enumerate(clients):
                self.assertEqual([payload for to, payload in plan if to == index], client.received())

    def test_from_where_it_was_asked(self) -> None:
        """Answers that leave from different addresses never share a buffer, though they go to one peer."""
        for kind in KINDS:
            client = self.client()
            asked = ["127.0.0.5", "127.0.0.5", "127.0.0.6", "127.0.0.5", "127.0.0.6", "127.0.0.6"]
            port = self.listen(kind(echo), "")
            for host in asked:
                client.send(host.encode(), port, host)
            self.serve(port)
            number = port.getHost().port
            expected = [(host.encode(), (host, number)) for host in asked]
            self.assertEqual(sorted(expected), sorted(client.received_from()))
            self.assertEqual(6, port.stats.datagrams_received)

    def test_strangers(self) -> None:
        """Who was not heard in the turn gets single datagrams: an ICMP error about a run would not name them all."""
        stranger = self.client()
        stranger.take_buffers()
        self.answer(Peer, self.clients(1), lambda port, _: [port.write(b"x", stranger.address) for _ in range(5)])
        self.assertEqual([[b"x"]] * 5, stranger.buffers())

    def test_heard_earlier(self) -> None:
        """So does who was heard in an earlier turn only, in a batch too."""
        for kind in KINDS:
            for in_batch in (False, True):
                earlier, now = self.client(), self.client()
                earlier.take_buffers()
                port = self.listen(peer := kind())
                earlier.send(b"x", port)
                self.serve(port)
                batch = [(b"later", peer.peers[0])] * 5

                def write(peer: Peer, *_: object, batch: Any = batch, in_batch: bool = in_batch) -> None:
                    if in_batch:
                        peer.port.write_batch(batch)
                    else:
                        for each in batch:
                            peer.port.write(*each)

                peer.on_datagram = write
                now.send(b"y", port)
                self.serve(port)
                self.assertEqual([[b"later"]] * 5, earlier.buffers())

    def test_outside_of_turns(self) -> None:
        """So does everyone outside of any turn; such writes have left when the call returns."""
        for kind in KINDS:
            client = self.client()
            client.take_buffers()
            port = self.listen(peer := kind())
            client.send(b"x", port)
            self.serve(port)
            port.write(b"one", peer.peers[0])
            self.assertEqual([[b"one"]], client.buffers())
            self.assertEqual([], port.write_batch([(b"two", peer.peers[0])] * 3))
            self.assertEqual([[b"two"]] * 3, client.buffers())
            port.write(b"equal", (peer.peers[0][0], peer.peers[0][1]))
            self.assertEqual([[b"equal"]], client.buffers())

    def test_write_batch(self) -> None:
        """What is written by write_batch in a turn is put together as well."""
        clients = self.clients(2)
        for client in clients:
            client.take_buffers()

        def writes(port: Any, addresses: list[Address]) -> None:
            self.assertEqual(
                [], port.write_batch([(b"%d" % (number // 2), addresses[number % 2]) for number in range(8)])
            )

        for kind in KINDS:
            self.answer(kind, clients, writes)
            self.assertEqual([[[b"0", b"1", b"2", b"3"]]] * 2, [client.buffers() for client in clients])

    def test_mistake_in_the_midst(self) -> None:
        """A write that is refused in the midst of a run leaves what was written before and after it alone."""
        client = self.client()

        def writes(port: Any, addresses: list[Address]) -> None:
            port.write(b"1", addresses[0])
            self.assertRaises(MessageLengthError, port.write, b"x" * 65508, addresses[0])
            port.write(b"2", addresses[0])
            self.assertRaises(InvalidAddressError, port.write, b"x", ("localhost", 1))
            self.assertRaises(TypeError, port.write, "text", addresses[0])
            port.write(b"3", addresses[0])

        for kind in KINDS:
            port = self.answer(kind, [client], writes)
            self.assertEqual(([b"1", b"2", b"3"], 0), (client.received(), port.stats.callback_errors))

    def test_stranger_in_the_midst(self) -> None:
        """The order is kept for a peer that is written to by two names for one address."""
        client = self.client()

        def writes(port: Any, addresses: list[Address]) -> None:
            for number in range(6):
                host = "::ffff:127.0.0.1" if number % 3 == 1 else addresses[0][0]
                port.write(b"%d" % number, (host, addresses[0][1]))

        for kind in KINDS:
            self.answer(kind, [client], writes, interface="::")
            self.assertEqual([b"%d" % number for number in range(6)], client.received())


class TogetherTests(MmsgCase):
    """Several datagrams that the kernel hands over in one buffer (UDP_GRO)."""

    def deliver(self, buffers: Sequence[tuple[int, int]], kind: type[Peer], **options: Any) -> tuple[list[bytes], Any]:
        """Send buffers that the kernel cuts, deliver all of it, and return what was delivered, and the port."""
        port = self.listen(peer := kind(), **options)
        client = self.client()
        self.sent: list[bytes] = []
        for number, (total, size) in enumerate(buffers):
            payload = bytes((number + at * 31 + at // size) % 256 for at in range(total))
            client.send_together(payload, size, port)
            self.sent += [payload[at : at + size] for at in range(0, total, size)]
        self.serve(port)
        self.assertEqual({client.address}, {*peer.peers, client.address})
        return peer.payloads, port

    def test_taken_apart(self) -> None:
        """Datagrams of a buffer are delivered one by one, in order, the odd last one too."""
        for kind in KINDS:
            for total, size in (
                (2, 1),
                (3, 2),
                (64, 1),
                (640, 10),
                (641, 11),
                (1300, 1200),
                (2401, 1200),
                (65000, 1400),
            ):
                delivered, port = self.deliver([(total, size)], kind)
                self.assertEqual(self.sent, delivered, (total, size))
                self.assertEqual((len(self.sent), total), (port.stats.datagrams_received, port.stats.bytes_received))
                self.assertEqual(len(self.sent), port.stats.received_together)

    def test_many_buffers(self) -> None:
        """Buffers by turns with single datagrams, and more of them than a turn may deliver."""
        buffers = [(64, 1), (5, 5), (100, 3), (1, 1), (6400, 100), (7, 3), (64, 1), (63, 1), (2400, 1200)] * 3
        for kind in KINDS:
            delivered, port = self.deliver(buffers, kind)
            self.assertEqual(self.sent, delivered)
            self.assertEqual(len(self.sent), port.stats.datagrams_received)
            self.assertTrue(port.stats.turns_cut_short > 0)

    def test_size_limit(self) -> None:
        """The limit is one for datagrams, not for buffers: what is too large of a buffer is dropped and counted."""
        for kind in KINDS:
            for limit, delivered_sizes, truncated in (
                (100, [100] * 6 + [50], 0),
                (99, [50], 6),
                (50, [50], 6),
                (49, [], 7),
            ):
                delivered, port = self.deliver([(650, 100)], kind, max_datagram_size=limit)
                self.assertEqual(delivered_sizes, [len(each) for each in delivered], limit)
                counted = port.stats.datagrams_received, port.stats.truncated, port.stats.received_together
                self.assertEqual((len(delivered_sizes), truncated, 7), counted)

    def test_path(self) -> None:
        """Each of them is answered from the address that was asked."""
        for kind in KINDS:
            port, client = self.listen(kind(echo), ""), self.client("127.0.0.9")
            client.send_together(b"aabbc", 2, port)
            self.serve(port)
            there = ("127.0.0.9", port.getHost().port)
            self.assertEqual([(b"aa", there), (b"bb", there), (b"c", there)], client.received_from())

    def test_times(self) -> None:
        """Each of them has the buffer's time of arrival."""

        class Times(BatchPeer):
            """Notes the times."""

            def datagrams_received(self, datagrams: Any) -> None:
                times.append(self.port.arrival_times)

        times: list[tuple[int, ...]] = []
        port, client = self.listen(Times(), timestamps=True), self.client()
        before = time.time_ns()
        client.send_together(b"aabbc", 2, port)
        client.send(b"d", port)
        self.serve(port)
        ((first, second, third, fourth),) = times
        self.assertTrue(before - 10**7 <= first == second == third < fourth <= time.time_ns(), times)
        self.assertEqual((), port.arrival_times)

    def test_times_one_by_one(self) -> None:
        """One by one, each is delivered with its own time."""
        times: list[tuple[int, ...]] = []
        port, client = (
            self.listen(Peer(lambda peer, *_: times.append(peer.port.arrival_times)), timestamps=True),
            self.client(),
        )
        for number in range(5):
            client.send(b"%d" % number, port)
        self.serve(port)
        self.assertEqual([1] * 5, [len(each) for each in times])
        self.assertEqual(5, len(set(times)))
        self.assertEqual(sorted(times), times)
