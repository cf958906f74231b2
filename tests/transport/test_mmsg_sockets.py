"""The compiled backend on the kernel's sockets: what shares a system call, whose memory is whose, and how turns end."""

from __future__ import annotations

import array
import gc
import socket
import sys
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.contracts.bursts import BatchWriter
from tests.contracts.case import BatchPeer, Peer, echo
from tests.transport.mmsg_case import KINDS, MmsgCase
from twistedudp.transport._batching import DATAGRAMS_PER_BATCH, FIRST_BATCH, MAX_SEGMENTS
from twistedudp.transport._scalar import DATAGRAMS_PER_TURN, SECONDS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.transport.mmsg_case import Client
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
            # Two calls read, for all slots of the first were filled, and one sends.
            counted = port.stats.datagrams_sent, port.stats.sent_together, port.stats.system_calls
            self.assertEqual((120, 120, 3), counted)

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


class MemoryTests(MmsgCase):
    """Whose memory a datagram is."""

    def test_not_copied(self) -> None:
        """An answer leaves from the very object that was written, which is let go when it has left."""
        for kind in KINDS:
            client = self.client()
            answers = [b"%d" % number * 50 for number in range(40)] + [b"y" * 1500, b""]
            counts: list[list[int]] = []

            def references(answers: list[bytes] = answers) -> list[int]:
                return [sys.getrefcount(answer) for answer in answers[:-1]]  # the empty one is everybody's

            def writes(port: Any, addresses: list[Address]) -> None:
                for answer in answers:  # noqa: B023  # it ends here
                    port.write(answer, addresses[0])
                counts.append(references())  # noqa: B023  # likewise

            before = references()
            self.answer(kind, [client], writes)
            self.assertEqual([count + 1 for count in before], counts[-1], "one for the queue")
            self.assertEqual(before, references())
            self.assertEqual(answers, client.received())

    def test_echo_is_let_go(self) -> None:
        """A datagram that was delivered and echoed belongs to nobody but the protocol in the end."""
        for kind in KINDS:
            port, client = self.listen(peer := kind(echo)), self.client()
            for size in (0, 1, 2, 700, 700, 3000):
                client.send(bytes(range(7, 8)) * size, port)
            client.send_together(b"zz" * 30, 20, port)
            self.serve(port)
            fresh = [(b"%06d" % number, number) for number in range(3)]
            expected = {sys.getrefcount(payload) for payload, _ in fresh}
            self.assertEqual(expected, {sys.getrefcount(payload) for payload, _ in peer.received if len(payload) > 1})
            self.assertEqual(9, len(client.received()))

    def test_addresses_are_let_go(self) -> None:
        """A peer's address belongs to nobody but the protocol once the port has gone."""
        for kind in KINDS:
            peer = kind(echo)
            port = self.listen(peer)
            clients = self.clients(40)
            for number in range(200):
                clients[number % 40].send(b"%d" % number, port)
                if number % 30 == 29:
                    self.serve(port)
            addresses = list({id(addr): addr for addr in peer.peers}.values())
            self.assertEqual(40, len(addresses))
            port.connectionLost()
            peer.received.clear()
            del port
            gc.collect()
            fresh = [(str(number), number) for number in range(3)]
            self.assertEqual({sys.getrefcount(addr) for addr in fresh}, {sys.getrefcount(addr) for addr in addresses})

    def test_buffers_are_copied(self) -> None:
        """What was written as a buffer that can be changed is sent as it was then."""
        for kind in KINDS:
            client = self.client()

            def writes(port: Any, addresses: list[Address]) -> None:
                buffer = bytearray(b"first")
                port.write(buffer, addresses[0])
                buffer[:] = b"other"
                port.write(memoryview(buffer), addresses[0])
                port.write(memoryview(buffer)[1:3], addresses[0])
                buffer[:] = b"third"
                self.assertEqual([], port.write_batch([(buffer, addresses[0])]))
                buffer.clear()  # nobody has it locked
                port.write(array.array("H", [0x4241, 0x4443]), addresses[0])

            port = self.answer(kind, [client], writes)
            self.assertEqual(0, port.stats.callback_errors)
            self.assertEqual([b"first", b"other", b"th", b"third", b"ABCD"], client.received())

    def test_bytes_subclass(self) -> None:
        """A subclass of bytes is what its buffer holds."""

        class Payload(bytes):
            """Has a method that lies."""

            __slots__ = ()

            def __len__(self) -> int:
                return 1

        client = self.client()

        def writes(port: Any, addresses: list[Address]) -> None:
            port.write(Payload(b"payload"), addresses[0])

        for kind in KINDS:
            port = self.answer(kind, [client], writes)
            self.assertEqual(([b"payload"], 7), (client.received(), port.stats.bytes_sent))

    def test_no_buffer(self) -> None:
        """What is no buffer is refused with the other backend's TypeError, in a turn and outside of one."""
        client = self.client()
        for wrong in ("text", None, 5, [b"list"]):
            messages: dict[str, list[str]] = {"mmsg": [], "scalar": []}
            for backend, seen in messages.items():

                def writes(port: Any, addresses: list[Address]) -> None:
                    seen.append(str(self.assertRaises(TypeError, port.write, wrong, addresses[0])))  # noqa: B023  # it ends here

                port = self.answer(Peer, [client], writes, backend=backend)
                writes(port, [client.address])
                seen.append(str(self.assertRaises(TypeError, port.write_batch, [(wrong, client.address)])))
                self.assertEqual(0, port.stats.datagrams_sent)
            self.assertEqual(messages["scalar"], messages["mmsg"])
            self.assertEqual([], client.received())


class Slow:
    """Takes its time for each datagram, and notes them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, peer: Peer, datagram: bytes, addr: Address) -> None:
        """Be busy, and answer."""
        ends = time.perf_counter() + self.seconds
        while time.perf_counter() < ends:
            pass
        peer.port.write(datagram, addr)


class LeftoverTests(MmsgCase):
    """What was read, and could not be delivered in its turn."""

    TOGETHER = b"".join(b"%02d" % number for number in range(64))

    def start(self, kind: type[Peer], on_datagram: Callable[..., object]) -> tuple[Peer, Any, Client]:
        """Send 64 datagrams in one buffer and 30 alone to a port that is slow."""
        port, client = self.listen(peer := kind(on_datagram)), self.client()
        client.send_together(self.TOGETHER, 2, port)
        for number in range(64, 94):
            client.send(b"%02d" % number, port)
        return peer, port, client

    def test_delivered_later(self) -> None:
        """A slow protocol gets the rest in later turns, before anything newer, while other timers have theirs."""
        peer, port, client = self.start(Peer, Slow(SECONDS_PER_TURN / 3))
        ticks: list[int] = []

        def note() -> None:
            ticks.append(len(peer.received))
            if len(peer.received) < 95:
                self.reactor.callLater(0, note)

        self.reactor.callLater(0, note)
        self.turn(port)
        self.assertTrue(1 <= len(peer.received) <= 8, len(peer.received))
        self.assertEqual(1, port.stats.turns_cut_short)
        client.send(b"94", port)
        for number in range(300):
            if len(peer.received) == 95:
                break
            if number % 3 == 0:
                self.turn(port)  # woken by the socket
            else:
                self.tick()  # or by a timer
        self.assertEqual([b"%02d" % number for number in range(95)], peer.payloads)
        self.assertEqual(peer.payloads, client.received())
        self.assertTrue(len(set(ticks)) > 8, ticks)
        self.assertEqual(95, port.stats.datagrams_received)
        self.serve(port)
        self.assertEqual(95, len(peer.received))

    def test_batches_delivered_later(self) -> None:
        """A protocol that takes batches gets no more in a turn than its bound, and the rest later."""
        port, client = self.listen(peer := BatchPeer(echo)), self.client()
        for _ in range(3):
            client.send_together(self.TOGETHER, 2, port)
        self.turn(port)
        self.assertTrue(1 <= len(peer.received) <= DATAGRAMS_PER_TURN)
        self.serve(port)
        self.assertEqual([b"%02d" % number for number in range(64)] * 3, peer.payloads)
        self.assertEqual([b"%02d" % number for number in range(64)] * 3, client.received())

    def test_batch_size(self) -> None:
        """No batch is larger than its bound, though one buffer brings more, and nothing is lost in between."""
        sizes: list[int] = []

        class Counting(BatchPeer):
            """Notes the size of batches."""

            def datagrams_received(self, datagrams: Any) -> None:
                sizes.append(len(datagrams))
                super().datagrams_received(datagrams)
                datagrams.clear()

        port, client = self.listen(peer := Counting()), self.client()
        for _ in range(6):
            client.send(b"alone", port)
            client.send_together(self.TOGETHER, 2, port)
        self.serve(port)
        self.assertEqual(6 * 65, len(peer.received))
        self.assertTrue(max(sizes) <= DATAGRAMS_PER_BATCH, sizes)
        self.assertEqual(sum(sizes), port.stats.datagrams_received)

    def test_stop_in_the_middle(self) -> None:
        """A port that is stopped delivers nothing more, leaves no timer, but sends what was written before."""
        for kind in KINDS:
            for ending in ("stopListening", "connectionLost"):

                def on_datagram(peer: Peer, datagram: bytes, addr: Address, ending: str = ending) -> None:
                    peer.port.write(datagram, addr)
                    if len(peer.received) == 5:
                        getattr(peer.port, ending)()

                class Careful(kind):  # type: ignore[misc, valid-type]  # either of two known classes
                    """Stops to look at a batch when it is over."""

                    def datagrams_received(self, datagrams: Any) -> None:
                        for datagram, addr in datagrams[:5]:
                            self.datagramReceived(datagram, addr)

                if kind is Peer:
                    del Careful.datagrams_received
                peer, port, client = self.start(Careful, on_datagram)
                self.serve(port)
                self.assertEqual([b"%02d" % number for number in range(5)], peer.payloads)
                self.assertEqual(peer.payloads, client.received())
                self.assertEqual(1, peer.stopped)
                self.assertEqual([], self.reactor.getDelayedCalls())

    def test_stop_between_turns(self) -> None:
        """A port that is stopped while a rest waits never delivers it."""
        for ending in ("stopListening", "connectionLost"):
            peer, port, _ = self.start(Peer, Slow(SECONDS_PER_TURN / 3))
            self.turn(port)
            delivered = len(peer.received)
            self.assertTrue(delivered < 64)
            getattr(port, ending)()
            self.turn(port)
            self.serve(port)
            self.assertEqual((delivered, 1), (len(peer.received), peer.stopped))
            self.assertEqual([], self.reactor.getDelayedCalls())

    def test_exception_in_the_middle(self) -> None:
        """A protocol that fails on some gets all others, and what it had written leaves."""

        def on_datagram(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, addr)
            if int(datagram) % 10 == 3:
                raise ZeroDivisionError

        peer, port, client = self.start(Peer, on_datagram)
        self.serve(port)
        self.assertEqual([b"%02d" % number for number in range(94)], peer.payloads)
        self.assertEqual(peer.payloads, client.received())
        self.assertEqual(10, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(10, port.stats.callback_errors)
        peer, port, client = self.start(BatchPeer, on_datagram)
        self.serve(port)
        self.assertEqual(peer.payloads, client.received())
        self.assertEqual(port.stats.callback_errors, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual((False, ()), (port.delivering_to_group, port.arrival_times))

    def test_turn_ends(self) -> None:
        """A turn delivers no more datagrams than its bound, whoever else waits."""
        for kind in KINDS:
            port, client = self.listen(peer := kind()), self.client()
            for number in range(3 * DATAGRAMS_PER_TURN):
                client.send(b"%d" % number, port)
            delivered = 0
            while delivered < 3 * DATAGRAMS_PER_TURN:
                self.turn(port)
                self.assertTrue(len(peer.received) <= delivered + DATAGRAMS_PER_TURN)
                delivered = len(peer.received)
            self.assertEqual([b"%d" % number for number in range(3 * DATAGRAMS_PER_TURN)], peer.payloads)


class ReentryTests(MmsgCase):
    """A turn in the midst of a turn."""

    def test_turn_inside_a_turn(self) -> None:
        """A protocol that has its own port read changes nothing: order, answers and turns."""

        def on_datagram(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram + b"1", addr)
            peer.port.doRead()
            peer.port.write(datagram + b"2", addr)

        for kind in KINDS:
            port, client = self.listen(peer := kind(on_datagram)), self.client()
            for number in range(30):
                client.send(b"%02d" % number, port)
            self.serve(port)
            self.assertEqual([b"%02d" % number for number in range(30)], peer.payloads)
            answers = [b"%02d%d" % (number, which) for number in range(30) for which in (1, 2)]
            self.assertEqual((answers, 0), (client.received(), port.stats.callback_errors))

    def test_other_port_inside_a_turn(self) -> None:
        """Ports that read each other's in the midst of their turns do not mix up what they have read."""
        for kind in KINDS:
            ports: list[Any] = []

            def on_datagram(peer: Peer, datagram: bytes, addr: Address, ports: list[Any] = ports) -> None:
                peer.port.write(datagram, addr)
                for port in ports:
                    port.doRead()
                peer.port.write(datagram, addr)

            peers = [kind(on_datagram) for _ in range(3)]
            ports += [self.listen(peer) for peer in peers]
            client = self.client()
            for number in range(90):
                client.send(b"%02d" % number, ports[number % 3])
            self.turn(ports[0])
            self.serve(*ports)
            for first, peer in enumerate(peers):
                self.assertEqual([b"%02d" % number for number in range(first, 90, 3)], peer.payloads)
            self.assertEqual(sorted([b"%02d" % number for number in range(90)] * 2), sorted(client.received()))

    def test_turn_inside_a_batch(self) -> None:
        """A batch that is written from an iterator which has the port read meanwhile loses nothing."""
        port, client, asking = self.listen(peer := Peer(echo)), self.client(), self.client()
        asking.send(b"question", port)

        def batch() -> Any:
            for number in range(10):
                if number == 5:
                    self.serve(port)
                yield b"%d" % number, client.address

        self.assertEqual([], port.write_batch(batch()))
        self.assertEqual([b"%d" % number for number in range(10)], client.received())
        self.assertEqual(([b"question"], [b"question"]), (peer.payloads, asking.received()))

    def test_finalizer(self) -> None:
        """Ports that are read by finalizers, wherever the garbage collector runs in a turn, mix up nothing either."""
        for kind in KINDS:
            port, other = self.listen(peer := kind(echo), "::"), self.listen(other_peer := kind(echo), "::")
            ran: list[int] = []

            class Garbage:
                """Reads both ports when it is found, and leaves more of its kind."""

                def __init__(self) -> None:
                    self.cycle = self

                def __del__(self) -> None:
                    if len(ran) < 300:  # noqa: B023  # it ends here
                        ran.append(1)  # noqa: B023  # likewise
                        port.doRead()  # noqa: B023  # likewise
                        other.doRead()  # noqa: B023  # likewise
                        Garbage()  # noqa: B023  # likewise

            clients = [self.client("127.0.0.1" if number % 2 else "::1") for number in range(60)]
            for client in clients:
                client.send(b"%d" % client.address[1], port)
                client.send(b"other %d" % client.address[1], other)
            thresholds = gc.get_threshold()
            gc.set_threshold(1)
            try:
                Garbage()
                for _ in range(5):
                    self.turn(port)
            finally:
                gc.set_threshold(*thresholds)
            self.assertTrue(len(ran) > 3, len(ran))
            self.serve(port, other)
            self.assertEqual([client.address for client in clients], peer.peers)
            self.assertEqual([b"%d" % client.address[1] for client in clients], peer.payloads)
            self.assertEqual([client.address for client in clients], other_peer.peers)
            self.assertEqual([b"other %d" % client.address[1] for client in clients], other_peer.payloads)
            for client in clients:
                answers = [b"%d" % client.address[1], b"other %d" % client.address[1]]
                self.assertEqual(answers, sorted(client.received()))

    def test_last_reference(self) -> None:
        """A port of which nobody knows any more in the midst of its turn ends that turn in peace."""
        for kind in KINDS:
            client = self.client()
            held: list[Any] = []

            def on_datagram(peer: Peer, datagram: bytes, addr: Address, held: list[Any] = held) -> None:
                if held:
                    peer.port.write(datagram, addr)
                    peer.port.connectionLost()
                    held.clear()
                    self.reactor.readers.clear()
                    gc.collect()

            held.append(self.listen(kind(on_datagram)))
            self._cleanups.pop()  # it holds the port
            client.send_together(b"abcdef", 1, held[0])
            held[0].doRead()
            self.assertEqual([b"a"], client.received()[:1])


class CollectorTests(MmsgCase):
    """Ports, backends and protocols that refer to each other."""

    def test_collected(self) -> None:
        """A port that has ended is collected together with its protocol, without a warning, wherever it ended."""
        for kind in KINDS:
            for ending in ("quiet", "after a turn", "with a rest", "in a turn"):
                client = self.client()

                def on_datagram(peer: Peer, datagram: bytes, addr: Address, ending: str = ending) -> None:
                    peer.port.write(datagram, addr)
                    if ending == "in a turn" and peer.port is not None:
                        peer.port.connectionLost()
                    if ending == "with a rest":
                        Slow(SECONDS_PER_TURN)(peer, datagram, addr)

                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    protocol: Any = kind(on_datagram if ending != "in a turn" or kind is Peer else echo)
                    from_here: Any = self.listen(protocol)
                    self._cleanups.pop()  # it holds the port
                    protocol.cycle = from_here
                    if ending != "quiet":
                        client.send_together(b"x" * 64, 1, from_here)
                        from_here.doRead()
                    from_here.connectionLost()
                    known = weakref.ref(protocol), weakref.ref(from_here)
                    del protocol, from_here, on_datagram
                    self.reactor.readers.clear()
                    gc.collect()
                    self.assertEqual((None, None), (known[0](), known[1]()), (kind, ending))
                    self.assertEqual([], [str(each.message) for each in caught])
                self.assertEqual([], self.reactor.getDelayedCalls())

    def test_backend_in_a_cycle(self) -> None:
        """So is a backend that nobody has stopped, with all that it has read and not delivered."""
        client = self.client()
        protocol: Any = Peer(Slow(SECONDS_PER_TURN / 2))
        port: Any = self.listen(protocol)
        self._cleanups.pop()  # it holds the port
        client.send_together(b"x" * 64, 1, port)
        self.turn(port)
        self.assertEqual(1, len(self.reactor.getDelayedCalls()))
        protocol.cycle = port
        known = weakref.ref(protocol)
        handle = port.getHandle()
        epoll = port._life.epoll
        del port, protocol
        self.reactor.readers.clear()
        self.reactor.calls.clear()
        gc.collect()
        self.assertIdentical(None, known())
        handle.close()
        epoll.close()


class SlotTests(MmsgCase):
    """How many datagrams one call reads."""

    def test_calls(self) -> None:
        """They are read by few calls: eight at first, and twice as many each time up to 64."""
        for kind in KINDS:
            for _ in range(5):  # a machine that is busy may end a turn early
                port, client = self.listen(peer := kind()), self.client()
                for number in range(FIRST_BATCH * 15 + 1):
                    client.send(b"%d" % number, port)
                self.turn(port)
                if not port.stats.turns_cut_short:
                    break
            self.assertEqual(FIRST_BATCH * 15 + 1, len(peer.received))
            self.assertEqual((5, 5), (port.stats.system_calls, port.stats.batches))

    def test_full_slots(self) -> None:
        """Slots hold the largest datagrams, each with its own address, at any number of them."""
        for kind in KINDS:
            port, clients = self.listen(peer := kind(echo), receive_buffer=8 * 1024 * 1024), self.clients(4)
            expected = []
            for number in range(40):
                payload = (b"%02d" % number) * 32753 + b"x"
                clients[number % 4].send(payload, port)
                expected.append((payload, clients[number % 4].address))
                if number % 10 == 9:
                    self.serve(port)
            self.serve(port)
            self.assertTrue(expected == peer.received)
            for index, client in enumerate(clients):
                self.assertTrue([payload for payload, _ in expected[index::4]] == client.received())

    def test_alternating_lengths(self) -> None:
        """A short datagram in a slot that held a long one has nothing of it."""
        port, client = self.listen(peer := Peer()), self.client()
        sent = []
        for turn in range(6):
            for number in range(8):
                payload = b"%d" % number * (5000 if turn % 2 == 0 else number)
                client.send(payload, port)
                sent.append(payload)
            self.serve(port)
        self.serve(port)
        self.assertEqual(sent, peer.payloads)


class GroupTests(MmsgCase):
    """Datagrams that were not sent to this host alone."""

    def test_delivering_to_group(self) -> None:
        """The port tells for each of them, and puts none of them into a batch."""
        for kind in KINDS:
            for interface in ("", "::"):
                said: list[tuple[bytes, bool]] = []
                batches: list[int] = []

                class Telling(kind):  # type: ignore[misc, valid-type]  # either of two known classes
                    """Notes what the port says."""

                    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                        said.append((datagram, self.port.delivering_to_group))  # noqa: B023  # it ends here
                        super().datagramReceived(datagram, addr)

                if kind is BatchPeer:

                    def datagrams_received(self: Any, datagrams: Any, batches: list[int] = batches) -> None:
                        batches.append(len(datagrams))
                        BatchPeer.datagrams_received(self, datagrams)

                    Telling.datagrams_received = datagrams_received
                peer = Telling(echo)
                port, client = self.listen(peer, interface), self.client()
                client.handle.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                hosts = ["127.0.0.1", "127.0.0.2", "127.255.255.255", "127.255.255.255", "127.0.0.2", "127.0.0.2"]
                for number, host in enumerate(hosts):
                    client.send(b"%d" % number, port, host)
                self.serve(port)
                self.assertEqual([(b"%d" % number, number in (2, 3)) for number in range(6)], said)
                self.assertFalse(port.delivering_to_group)
                self.assertEqual([1, 1, 2] if kind is BatchPeer else [], batches)
                answered = client.received_from()
                self.assertEqual([b"%d" % number for number in range(6)], sorted(payload for payload, _ in answered))
                self.assertEqual(["127.0.0.2"] * 3, [host for payload, (host, _) in answered if payload in b"145"])


class ConnectedTests(MmsgCase):
    """Ports with one peer."""

    def connected(self, on_datagram: Any = None, kind: type[Peer] = Peer) -> tuple[Peer, Any, Client]:
        """Return a port that is connected to a client."""
        client = self.client()
        port = self.listen(peer := kind(on_datagram))
        port.connect(*client.address)
        return peer, port, client

    def test_write(self) -> None:
        """Written to with and without the address, by write and write_batch, in and out of turns."""

        def on_datagram(peer: Peer, _: bytes, addr: Address) -> None:
            peer.port.write(b"1")
            peer.port.write(b"2", addr)
            peer.port.write_batch([(b"3", addr), (b"4", None)])

        for kind in KINDS:
            peer, port, client = self.connected(on_datagram, kind)
            client.take_buffers()
            self.assertEqual([], port.write_batch([(b"0", None)] * 3))
            self.assertEqual([[b"0"]] * 3, client.buffers(), "it was never heard")
            client.send(b"go", port)
            self.serve(port)
            self.assertEqual([[b"1", b"2", b"3", b"4"]], client.buffers())
            port.write(b"5", client.address)
            self.assertEqual([[b"5"]], client.buffers())
            self.assertEqual([client.address], peer.peers)
            self.assertEqual((8, 8, {}), (port.stats.datagrams_sent, port.stats.bytes_sent, port.stats.send_errors))

    def test_others(self) -> None:
        """Others are neither heard nor written to, nor taken for the peer when they wrote before."""
        client, other = self.clients(2)
        port = self.listen(peer := Peer())
        other.send(b"before", port)
        port.connect(*client.address)
        other.send(b"after", port)
        client.send(b"peer", port)
        self.serve(port)
        self.assertEqual([(b"before", other.address), (b"peer", client.address)], peer.received)
        self.assertRaises(InvalidAddressError, port.write, b"x", other.address)
        refused = port.write_batch([(b"1", client.address), (b"x", other.address), (b"2", client.address)])
        self.assertEqual([(b"x", other.address)], [each[:2] for each in refused])
        self.assertEqual(([b"1", b"2"], []), (client.received(), other.received()))
        self.assertRaises(RuntimeError, port.connect, *other.address)

    def test_too_large(self) -> None:
        """What UDP cannot carry is refused at the write, in a batch and outside of a turn too."""
        _, port, client = self.connected()
        self.assertRaises(MessageLengthError, port.write, b"x" * 65508)
        refused = port.write_batch([(b"1", client.address), (b"x" * 65508, client.address), (b"2", client.address)])
        self.assertEqual([MessageLengthError], [type(error) for _, _, error in refused])
        self.assertEqual([b"1", b"2"], client.received())

    def test_refused(self) -> None:
        """A peer that is not there costs no datagram to be sent, and is told."""
        peer, port, client = self.connected()
        address = client.address
        client.handle.close()
        for _ in range(3):
            port.write(b"x")
        self.serve(port)
        self.assertEqual(3, len(peer.unreachable))
        self.assertEqual({(address, b"x")}, {(host, quoted) for host, _, quoted in peer.unreachable})
        self.assertEqual(({}, 3), (port.stats.send_errors, port.stats.datagrams_sent))


class CallbackTests(MmsgCase):
    """Writes from wherever a protocol is called."""

    def test_start(self) -> None:
        """What startProtocol writes has left when the port listens."""
        for kind in KINDS:
            client = self.client()
            peer = kind()
            peer.on_start = lambda peer=peer, client=client: [
                peer.port.write(b"%d" % n, client.address) for n in range(3)
            ]  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.listen(peer)
            self.assertEqual([b"0", b"1", b"2"], client.received())

    def test_stop(self) -> None:
        """What stopProtocol writes leaves, also if the port ends in the midst of a turn."""
        for kind in KINDS:
            for in_turn in (False, True):
                client = self.client()

                def on_datagram(peer: Peer, datagram: bytes, addr: Address, in_turn: bool = in_turn) -> None:
                    peer.port.write(datagram, addr)
                    if in_turn:
                        peer.port.connectionLost()

                peer = kind(on_datagram)
                port = self.listen(peer)
                peer.on_stop = lambda port=port, client=client: port.write(b"last", client.address)  # type: ignore[misc]  # as above
                client.send(b"first", port)
                self.serve(port)
                port.connectionLost()
                self.assertEqual([b"first", b"last"], client.received())
                self.assertEqual(0, port.stats.callback_errors)

    def test_unreachable(self) -> None:
        """What peer_unreachable writes leaves, in a turn's end and outside of one."""
        for kind in KINDS:
            client, gone = self.client(), self.client()

            class Telling(kind):  # type: ignore[misc, valid-type]  # either of two known classes
                """Writes when it is told."""

                def peer_unreachable(self, peer: Address, reason: Any, quoted: bytes) -> None:
                    self.port.write(b"gone: " + quoted, client.address)  # noqa: B023  # it ends here
                    self.port.write_batch([(b"again", client.address)])  # noqa: B023  # likewise

            port = self.listen(peer := Telling(echo))
            gone.send(b"x", port)
            gone.handle.close()
            self.serve(port)
            self.assertEqual([b"x"], peer.payloads)
            self.assertEqual([b"gone: x", b"again"], client.received())
            self.assertEqual((3, {}), (port.stats.datagrams_sent, port.stats.send_errors))

    def test_innocent_peers(self) -> None:
        """Of answers to peers, some of which have gone, everyone else's arrive, in order, however many there are."""
        for kind in KINDS:
            clients, gone = self.clients(4), self.clients(4)
            addresses = [each.address for each in (*clients, *gone)]
            for each in gone:
                each.handle.close()
            port = self.listen(kind())
            for number in range(200):
                port.write(b"%d" % number, addresses[number * 3 % 8])
                if number % 50 == 9:
                    self.serve(port)
            for index, client in enumerate(clients):
                self.assertEqual([b"%d" % n for n in range(200) if n * 3 % 8 == index], client.received())
            self.assertEqual((200, {}), (port.stats.datagrams_sent, port.stats.send_errors))

    def test_families(self) -> None:
        """Ports of each family at once, with peers of each."""
        for kind in (Peer, BatchPeer, BatchWriter):
            for interface, hosts in (
                ("127.0.0.1", ["127.0.0.1"]),
                ("::1", ["::1"]),
                ("::", ["127.0.0.1", "::1", "127.0.0.3"]),
            ):
                port, clients = self.listen(peer := kind(echo), interface), [self.client(host) for host in hosts]
                for number in range(60):
                    clients[number % len(clients)].send(b"%d" % (number // 7), port)
                self.serve(port)
                self.assertEqual(60, len(peer.received))
                for index, client in enumerate(clients):
                    expected = [b"%d" % (number // 7) for number in range(index, 60, len(clients))]
                    here = client.address[0], port.getHost().port
                    self.assertEqual([(each, here) for each in expected], client.received_from())
