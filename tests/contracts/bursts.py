"""Many datagrams at once: order, sizes and peers, for every way in which a protocol may answer.

Theory of operation: the compiled backend reads and writes many datagrams with a system call and puts answers of equal
size to one peer into one buffer, which the kernel cuts up. What that could break, it would break here: the shapes of
bursts are chosen for the places where such a run begins, ends, or is too long. Each shape is echoed by protocols of
three kinds: one that gets and writes one datagram at a time, one that gets several, and one that writes several as
well. A port that knows nothing of batches serves all of them alike.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of, echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

__all__ = ["BatchContract", "BurstContract", "ReplyContract"]

Shape: TypeAlias = "list[tuple[int, int]]"
"""A burst: for each datagram the index of the client that sends it, and its size in bytes."""

SIZES = (0, 1, 2, 63, 64, 65, 548, 1199, 1200, 1201, 1472, 1473, 4096, 8192)
"""Bytes: around the limits of segments, of Ethernet's frames, and of Twisted's own port."""


class BatchWriter(Peer):
    """A protocol that takes several datagrams at once, and echoes them at once where the port can."""

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Note them and send them all back."""
        self.received += datagrams
        if refused := self.port.write_batch(datagrams):
            raise AssertionError(refused)


def kinds_of_echo() -> list[Peer]:
    """Return echo servers of every kind; of the last, ports that know no batches call ``datagramReceived``."""
    return [Peer(echo), BatchPeer(echo), BatchWriter(echo)]


def payload_of(number: int, size: int) -> bytes:
    """Return a payload that is like no other, as far as its size allows."""
    return (b"%d," % number * (size // 2 + 1))[:size]


class BurstContract(ContractCase):
    """Bursts come back byte for byte and in order, each datagram to the peer that sent it."""

    def assert_echoed(self, shape: Shape, hosts: Sequence[str] = ("127.0.0.1",), interface: str = "127.0.0.1") -> None:
        """Send a burst to an echo server of each kind, and check what it gets and what its clients get.

        Args:
            shape: The burst.
            hosts: Where the clients are, in turn.
            interface: What the server listens on.
        """
        clients = [Peer() for _ in range(1 + max(client for client, _ in shape))]
        sending = [self.listen(client, hosts[index % len(hosts)]) for index, client in enumerate(clients)]
        sent = [payload_of(number, size) for number, (_, size) in enumerate(shape)]
        for server in kinds_of_echo():
            port = self.listen(server, interface)
            writes = [(sending[client], payload) for (client, _), payload in zip(shape, sent, strict=True)]
            self.send_all(port, server, writes, clients)
            expected = [[payload for whence, payload in writes if whence is each] for each in sending]
            for client, from_client, due in zip(clients, sending, expected, strict=True):
                host = from_client.getHost()
                arrived = [payload for payload, peer in server.received if peer == (host.host, host.port)]
                self.assert_same(due, arrived, f"arrived at the {type(server).__name__} from {host}")
                self.assert_same(due, client.payloads, f"came back from the {type(server).__name__}")
                self.assertEqual(
                    set(client.peers) - {address_of(port, host.host)}, set(), "answers came from elsewhere"
                )
                client.received.clear()

    def assert_same(self, expected: list[bytes], payloads: list[bytes], what: str) -> None:
        """Compare payloads and tell of the first that differs: of hundreds, unittest shows too much and too slowly."""
        for at, (due, payload) in enumerate(zip(expected, payloads, strict=False)):
            if due != payload:
                told = [f"{len(each)} bytes {each[:12]!r}" for each in (payload, due)]
                self.fail(f"datagram {at} that {what} has {told[0]} instead of {told[1]}")
        self.assertEqual(len(expected), len(payloads), f"datagrams that {what}")

    def test_burst_of_mixed_sizes(self) -> None:
        """Hundreds of datagrams of all sizes from several peers."""
        rng = Random(4)  # noqa: S311  # the same burst each time
        self.assert_echoed([(rng.randrange(5), rng.choice(SIZES)) for _ in range(400)])

    def test_burst_of_equal_sizes_among_peers(self) -> None:
        """Datagrams of equal size from several peers, by turns and in short runs."""
        in_turn = [(number % 4, 64) for number in range(100)]
        self.assert_echoed(in_turn + [(number // 3 % 4, 1200) for number in range(100)])

    def test_burst_with_shorter_ones(self) -> None:
        """A run of equal sizes with shorter ones in it: at its start, in the middle, and at its end."""
        self.assert_echoed([(0, 10 if number % 25 in {0, 7, 8, 24} else 100) for number in range(200)])

    def test_burst_with_longer_ones(self) -> None:
        """A run of equal sizes with longer ones in it."""
        self.assert_echoed([(0, 101 if number % 25 in {0, 7, 8, 24} else 100) for number in range(200)])

    def test_burst_with_empty_ones(self) -> None:
        """A run of equal sizes with empty ones in it, and a run of empty ones."""
        self.assert_echoed([(0, 0 if number % 5 == 2 else 16) for number in range(150)] + [(0, 0)] * 100)

    def test_burst_of_one_size(self) -> None:
        """More datagrams of one size to one peer than the kernel takes in one buffer (64; 128 from Linux 6.9 on)."""
        self.assert_echoed([(0, 32)] * 300)

    def test_burst_of_one_byte(self) -> None:
        """The smallest segments that there are."""
        self.assert_echoed([(0, 1)] * 200)

    def test_burst_of_much(self) -> None:
        """Datagrams of one size to one peer that together exceed what a buffer may hold (64 KiB)."""
        self.assert_echoed([(0, 1200)] * 120 + [(0, 1472)] * 60 + [(0, 8192)] * 20)

    def test_burst_of_large_ones(self) -> None:
        """Datagrams so large that a buffer just holds two or three of them, or just does not, or one only."""
        sizes = [size for size in (21835, 21836, 32753, 32754, 65507) for _ in range(6)]
        self.assert_echoed([(0, size) for size in sizes] + [(0, 65507 if each % 5 == 3 else 64) for each in range(25)])

    def test_burst_of_ipv6(self) -> None:
        """All of this over IPv6."""
        rng = Random(6)  # noqa: S311  # the same burst each time
        shape = [(rng.randrange(3), rng.choice(SIZES)) for _ in range(150)]
        self.assert_echoed(shape + [(number % 2, 64) for number in range(100)] + [(0, 64)] * 100, ["::1"], "::1")

    def test_burst_of_both_families(self) -> None:
        """IPv4 and IPv6 peers of one port by turns, each shown in its own family."""
        rng = Random(46)  # noqa: S311  # the same burst each time
        shape = [(rng.randrange(4), rng.choice(SIZES)) for _ in range(150)]
        self.assert_echoed(shape + [(number // 3 % 4, 64) for number in range(150)], ["127.0.0.1", "::1"], "::")

    def test_burst_at_several_addresses(self) -> None:
        """A port on all interfaces answers each of many from the address that was asked, by turns."""
        rng = Random(5)  # noqa: S311  # the same burst each time
        shape = [(rng.randrange(4), rng.choice(SIZES)) for _ in range(150)]
        hosts = [f"127.0.0.{number}" for number in (2, 3, 4, 5)]
        self.assert_echoed(shape + [(number % 4, 64) for number in range(100)], hosts, "")

    def test_burst_of_one_peer_at_several_addresses(self) -> None:
        """A peer that asks a port on all interfaces at several addresses gets each answer from the one it asked."""
        hosts = [f"127.0.0.{2 + number // 4 % 3 + (number % 4 == 3)}" for number in range(120)]
        for server in kinds_of_echo():
            client = Peer()
            port, asking = self.listen(server, ""), self.listen(client)
            for number, host in enumerate(hosts):
                asking.write(b"%03d" % number, address_of(port, host))
            self.wait(lambda client=client: len(client.received) == len(hosts), "not all answers arrived")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            expected = [(b"%03d" % number, address_of(port, host)) for number, host in enumerate(hosts)]
            differing = [pair for pair in zip(expected, client.received, strict=True) if pair[0] != pair[1]]
            self.assertEqual([], differing[:3], f"the {type(server).__name__} answered otherwise")

    def test_burst_of_connected_port(self) -> None:
        """A connected port writes and gets a burst, and so does one that answers."""
        sizes = [SIZES[number % len(SIZES)] for number in range(70)] + [64] * 150
        sent = [payload_of(number, size) for number, size in enumerate(sizes)]
        for server in kinds_of_echo():
            port, client = self.listen(server), BatchPeer()
            connected = self.listen(client)
            connected.connect(*address_of(port))
            self.send_all(port, server, [(connected, payload) for payload in sent], [client])
            self.assert_same(sent, client.payloads, f"came back from the {type(server).__name__}")
            number = port.getHost().port
            self.stop(port)
            again = self.listen(server, port=number)  # a connected echo server, at the same address
            again.connect(*address_of(connected))
            client.received.clear()
            self.send_all(again, server, [(connected, payload) for payload in sent], [client])
            self.assert_same(sent, client.payloads, f"came back from a connected {type(server).__name__}")


class BatchContract(ContractCase):
    """Protocols that can take several datagrams at once: whether a port knows of it makes no difference to them."""

    def test_batches(self) -> None:
        """Every datagram comes once, as it is and in order, alone or with others, from whomever it is."""
        receiver = BatchPeer()
        port = self.listen(receiver)
        sending = [self.listen(Peer()) for _ in range(2)]
        payloads = [b"%d" % number * (number % 7) for number in range(150)]
        for number, payload in enumerate(payloads):
            sending[number % 3 == 0].write(payload, address_of(port))
        self.wait(lambda: len(receiver.received) == len(payloads), "not all datagrams arrived")
        self.provider.settle()
        self.assertEqual(payloads, receiver.payloads)
        peers = [address_of(sending[number % 3 == 0]) for number in range(len(payloads))]
        self.assertEqual(peers, receiver.peers)

    def test_answers_in_a_batch(self) -> None:
        """What is written while several are delivered reaches those that it is for, in order."""
        port = self.listen(BatchPeer(echo))
        senders = [Peer() for _ in range(3)]
        sending = [self.listen(sender) for sender in senders]
        for number in range(90):
            sending[number % 3].write(b"%d" % number, address_of(port))
        self.wait(lambda: all(len(sender.received) == 30 for sender in senders), "not all answers arrived")
        for number, sender in enumerate(senders):
            self.assertEqual([b"%d" % each for each in range(number, 90, 3)], sender.payloads)

    def test_exception_in_a_batch(self) -> None:
        """A protocol that fails is logged, and gets what comes later."""
        receiver = BatchPeer(lambda *_: 1 / 0)
        port, sending = self.listen(receiver), self.listen(Peer())
        sending.write(b"1", address_of(port))
        self.wait(lambda: len(receiver.received) == 1, "no datagram arrived")
        self.provider.settle()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        receiver.on_datagram = None
        sending.write(b"2", address_of(port))
        self.wait(lambda: receiver.payloads == [b"1", b"2"], "the port delivers no more")


class ReplyContract(ContractCase):
    """What a protocol may do while many datagrams are being delivered, whether it takes them one by one or not."""

    def setUp(self) -> None:
        """Make three clients."""
        super().setUp()
        self.clients = [Peer() for _ in range(3)]
        self.sending = [self.listen(client) for client in self.clients]

    def ask(self, port: Any, count: int = 60) -> list[list[bytes]]:
        """Send numbers to a port, from each client in turn; return what each client has sent."""
        for number in range(count):
            self.sending[number % 3].write(b"%d" % number, address_of(port))
        return [[b"%d" % each for each in range(number, count, 3)] for number in range(3)]

    def assert_answered(self, expected: list[list[bytes]], what: str = "") -> None:
        """Wait until each client has what it should get, and check that it is this, in order, and nothing else."""
        self.wait(
            lambda: all(len(client.received) >= len(due) for client, due in zip(self.clients, expected, strict=True)),
            f"not all answers arrived {what}",
        )
        self.assertEqual(expected, [client.payloads for client in self.clients], what)
        for client in self.clients:
            client.received.clear()

    def test_several_answers(self) -> None:
        """A protocol may write several datagrams for each that it gets: each peer gets its own in order."""

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            for piece in (datagram, datagram * 3, b"", datagram):
                peer.port.write(piece, addr)

        for server in (Peer(answer), BatchPeer(answer)):
            asked = self.ask(self.listen(server))
            self.assert_answered([[piece for each in due for piece in (each, each * 3, b"", each)] for due in asked])

    def test_writes_to_third_peers(self) -> None:
        """A protocol may write to others than the one whose datagram it is given."""

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, address_of(watching))
            peer.port.write(b"-" + datagram, addr)
            peer.port.write(b"+" + datagram, watching_address)

        for server in (Peer(answer), BatchPeer(answer)):
            watcher = Peer()
            watching = self.listen(watcher)
            watching_address = address_of(watching)
            asked = self.ask(self.listen(server))
            self.assert_answered([[b"-" + each for each in due] for due in asked])
            self.wait(lambda watcher=watcher: len(watcher.received) == 120, "not all datagrams arrived")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.assertEqual([mark + each for each in server.payloads for mark in (b"", b"+")], watcher.payloads)

    def test_writes_to_another_family(self) -> None:
        """A port on "::" tells an IPv4 peer from an IPv6 one with the same number, in whatever family one was heard."""
        four, six = Peer(), Peer()
        heard = self.listen(four)
        number = heard.getHost().port
        self.listen(six, "::1", number)

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram + b" to 6", ("::1", number))
            peer.port.write(datagram + b" to 4", addr)
            peer.port.write(datagram + b" to 4 in another way", ("::ffff:127.0.0.1", number))

        for server in (Peer(answer), BatchPeer(answer)):
            port = self.listen(server, "::")
            for count in range(20):
                heard.write(b"%d" % count, address_of(port))
            self.wait(lambda: len(four.received) == 40 and len(six.received) == 20, "not all datagrams arrived")
            self.assertEqual([b"%d to 6" % count for count in range(20)], six.payloads)
            ways = (b" to 4", b" to 4 in another way")
            self.assertEqual([b"%d%s" % (count, way) for count in range(20) for way in ways], four.payloads)
            four.received.clear()
            six.received.clear()

    def test_answers_later(self) -> None:
        """A protocol may answer later, to an address that is equal to the peer's and not identical."""

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            host, number = addr
            again = "".join([host[:4], host[4:]]), int(str(number))
            self.provider.call_later(0, lambda: peer.port.write(datagram, again))

        for server in (Peer(answer), BatchPeer(answer)):
            self.assert_answered(self.ask(self.listen(server)))

    def test_writes_through_another_port(self) -> None:
        """A protocol may write through another port than the one that it is called by."""
        outlet = self.listen(Peer())

        def answer(_: Peer, datagram: bytes, addr: Address) -> None:
            outlet.write(datagram, addr)

        for server in (Peer(answer), BatchPeer(answer)):
            asked = self.ask(self.listen(server))
            self.wait(lambda: all(len(client.received) == 20 for client in self.clients), "not all answers arrived")
            self.assertEqual({address_of(outlet)}, {peer for client in self.clients for peer in client.peers})
            self.assert_answered(asked)

    def test_written_before_stop(self) -> None:
        """What a protocol writes before it stops the port, in the same call, is sent."""

        def answer_and_stop(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, addr)
            peer.port.write(b"bye", addr)
            peer.port.stopListening()
            peer.port.write(b"bye", addr)

        for server in (Peer(answer_and_stop), BatchPeer(answer_and_stop)):
            self.ask(self.listen(server), 1)
            self.assert_answered([[b"0", b"bye", b"bye"], [], []])

    def test_written_when_it_stops(self) -> None:
        """What a protocol writes in stopProtocol is sent."""
        address = address_of(self.sending[0])
        for server in (Peer(), BatchPeer()):
            port = self.listen(server)
            server.on_stop = lambda port=port: port.write(b"bye", address)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.stop(port)
            self.assert_answered([[b"bye"], [], []])

    def test_stop_inside_burst(self) -> None:
        """A protocol that stops its port gets none of the datagrams that wait, and what it wrote before is sent."""

        def answer_five(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, addr)
            if len(peer.received) == 5:
                peer.port.stopListening()

        server = Peer(answer_five)
        asked = self.ask(self.listen(server))
        self.wait(lambda: server.stopped == 1, "the protocol was not stopped")
        self.assertEqual([b"0", b"1", b"2", b"3", b"4"], server.payloads)
        self.assert_answered([asked[0][:2], asked[1][:2], asked[2][:1]])

    def test_stop_inside_batch(self) -> None:
        """A protocol that stops its port in a batch gets no further one."""

        class Stops(BatchPeer):
            def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
                self.sizes = [*getattr(self, "sizes", []), len(datagrams)]
                super().datagrams_received(datagrams)

        for hosts in (["127.0.0.1"], ["127.0.0.1", "127.0.0.1", "127.0.0.2"]):  # another address begins another batch
            server = Stops(lambda peer, *_: len(peer.received) > 1 or peer.port.stopListening())
            port = self.listen(server, "")
            for number in range(60):
                self.sending[0].write(b"%d" % number, address_of(port, hosts[number % len(hosts)]))
            self.wait(lambda server=server: server.stopped == 1, "the protocol was not stopped")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            first = getattr(server, "sizes", [1])[0]  # of ports that know no batches, a datagram
            self.assertEqual([first], [len(server.received)], "datagrams came after the stop")

    def test_stop_with_datagrams_waiting(self) -> None:
        """A port that is stopped while datagrams wait delivers none of them."""
        for server in (Peer(), BatchPeer()):
            port = self.listen(server)
            self.ask(port)
            self.stop(port)
            self.provider.settle()
            self.assertEqual((1, []), (server.stopped, server.received))

    def test_exceptions_inside_burst(self) -> None:
        """A protocol that fails on some datagrams gets the others, and what it wrote before it failed is sent."""

        def answer_and_fail(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, addr)
            if int(datagram) % 7 == 3:
                raise ZeroDivisionError

        server = Peer(answer_and_fail)
        self.assert_answered(self.ask(self.listen(server)))
        self.assertEqual(9, len(self.flushLoggedErrors(ZeroDivisionError)))
        server = BatchPeer(answer_and_fail)  # it fails for the rest of a batch with it
        self.ask(self.listen(server))
        self.provider.settle()
        answered = [[each for each in server.payloads if int(each) % 3 == number] for number in range(3)]
        self.assert_answered(answered)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_callers_faults_inside_burst(self) -> None:
        """What cannot be sent is refused at the write, and costs no other datagram its place."""
        refused: list[str] = []

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(datagram, addr)
            for payload, address in wrong:
                try:
                    peer.port.write(payload, address)
                except (MessageLengthError, InvalidAddressError, OSError) as error:  # noqa: PERF203  # as a protocol would
                    refused.append(type(error).__name__)
            peer.port.write(datagram, addr)

        for server in (Peer(answer), BatchPeer(answer)):
            port = self.listen(server)
            wrong: list[tuple[bytes, Address]] = [
                (b"x" * 65508, address_of(self.sending[0])),
                (b"x", ("localhost", 9)),
                (b"x", ("::1", 9)),
                (b"x", ("127.0.0.1", 0)),
            ]
            asked = self.ask(port)
            self.assert_answered([[each for each in due for _ in range(2)] for due in asked])
            expected = ["MessageLengthError", "InvalidAddressError", "InvalidAddressError", "OSError"]
            self.assertEqual(expected * 60, refused)
            refused.clear()

    def test_refusals_inside_burst(self) -> None:
        """Datagrams that a peer refuses, in the middle of others, cost none of these its place."""
        nobody = self.nobody()

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            if int(datagram) % 4 == 1:
                peer.port.write(datagram, nobody)
            peer.port.write(datagram, addr)
            peer.port.write(datagram, addr)  # of equal size, so that both may leave in one buffer
            if int(datagram) % 4 < 2:
                peer.port.write(b"x", nobody)

        for server in (Peer(answer), BatchPeer(answer)):
            port = self.listen(server)
            for what in ("at first", "after all refusals"):
                asked = self.ask(port)
                self.assert_answered([[each for each in due for _ in range(2)] for due in asked], what)
                self.provider.settle()

    def test_burst_of_writes_with_refusals(self) -> None:
        """So it is with datagrams that a protocol writes outside of any batch."""
        nobody = self.nobody()
        port = self.listen(Peer())
        for number in range(60):
            port.write(b"%d" % number, address_of(self.sending[number % 3]))
            if number % 5 == 2:
                port.write(b"x", nobody)
        self.assert_answered([[b"%d" % each for each in range(number, 60, 3)] for number in range(3)])
