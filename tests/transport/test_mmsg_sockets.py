"""The compiled backend on the kernel's sockets: how turns begin and end, and what may happen in their midst."""

from __future__ import annotations

import gc
import socket
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.contracts.bursts import BatchWriter
from tests.contracts.case import BatchPeer, Peer, echo
from tests.transport.mmsg_case import KINDS, MmsgCase, Slow
from twistedudp.transport._batching import DATAGRAMS_PER_BATCH, FIRST_BATCH
from twistedudp.transport._scalar import DATAGRAMS_PER_TURN, SECONDS_PER_TURN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.mmsg_case import Client
    from twistedudp.address import Address


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
            feeder = self.client()
            fed: list[bytes] = []
            over: list[bool] = []

            class Garbage:
                """Reads both ports when it is found, one of which has something, and leaves more of its kind."""

                def __init__(self) -> None:
                    self.cycle = self

                def __del__(self) -> None:
                    if not over and len(fed) < 2000:  # noqa: B023  # it ends here
                        for _ in range(8):  # as many slots as are read at first
                            fed.append(b"fed %d" % len(fed))  # noqa: B023  # likewise
                            feeder.send(fed[-1], other)  # noqa: B023  # likewise
                        port.doRead()  # noqa: B023  # likewise
                        other.doRead()  # noqa: B023  # likewise
                        Garbage()

            clients = [self.client("127.0.0.1" if number % 2 else "::1") for number in range(60)]
            for client in clients:
                client.send(b"%d" % client.address[1], port)
            self.marking.received()
            thresholds = gc.get_threshold()
            gc.set_threshold(1)
            try:
                Garbage()
                for _ in range(5):
                    port.doRead()
            finally:
                gc.set_threshold(*thresholds)
                over.append(True)
                gc.collect()
            # Since Python 3.12 the collector waits for the interpreter's next look, and a turn has fewer of those.
            self.assertGreater(len(fed), 24 if sys.version_info < (3, 12) else 8)
            self.serve(port, other)
            self.assertEqual([client.address for client in clients], peer.peers)
            self.assertEqual([b"%d" % client.address[1] for client in clients], peer.payloads)
            self.assertEqual([(each, feeder.address) for each in fed], other_peer.received)
            self.assertEqual(fed, feeder.received())
            for client in clients:
                self.assertEqual([b"%d" % client.address[1]], client.received())

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
