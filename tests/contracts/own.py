"""What our ports have beside Twisted's interfaces: counters, batches of writes, arrival times, the backend's name.

Theory of operation: :class:`OwnContract` is what :class:`~twistedudp.interfaces.IDatagramPort` promises anywhere, and
so it is asked of the simulator as well; :class:`KernelContract` needs the kernel for what it promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface.verify import verifyObject

from tests.contracts.bursts import SIZES, BatchWriter, payload_of
from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of, echo
from twistedudp.interfaces import IDatagramPort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

__all__ = ["KernelContract", "OwnContract"]


class OwnContract(ContractCase):
    """IDatagramPort."""

    def test_own_interface(self) -> None:
        """A port provides IDatagramPort."""
        self.assertTrue(verifyObject(IDatagramPort, self.listen(Peer())))

    def test_stats_of_a_burst(self) -> None:
        """Datagrams and bytes are counted exactly, in both directions, of whatever size and however handled."""
        for server in (Peer(echo), BatchPeer(echo), BatchWriter(echo)):
            port, clients = self.listen(server), [Peer() for _ in range(2)]
            sending = [self.listen(client) for client in clients]
            sizes = [SIZES[number % len(SIZES)] for number in range(70)] + [64] * 100
            writes = [(sending[number % 3 == 0], payload_of(number, size)) for number, size in enumerate(sizes)]
            self.send_all(port, server, writes, clients)
            stats = port.stats
            counted = (stats.datagrams_received, stats.bytes_received, stats.datagrams_sent, stats.bytes_sent)
            self.assertEqual((170, sum(sizes)) * 2, counted, type(server).__name__)
            self.assertEqual(
                ({}, 0, 0, 0), (stats.send_errors, stats.truncated, stats.callback_errors, stats.unreachable)
            )
            self.assertEqual((170, sum(sizes)), self._sum(sending, "sent"))
            self.assertEqual((170, sum(sizes)), self._sum(sending, "received"))

    def _sum(self, ports: Sequence[Any], direction: str) -> tuple[int, int]:
        """Return the datagrams and the bytes that some ports have counted together."""
        datagrams = sum(getattr(port.stats, f"datagrams_{direction}") for port in ports)
        return datagrams, sum(getattr(port.stats, f"bytes_{direction}") for port in ports)

    def test_stats_of_what_is_not_delivered(self) -> None:
        """Datagrams too large, failing callbacks, and writes after the end are counted, each as what it is."""
        for receiver in (Peer(), BatchPeer()):
            receiver.on_datagram = lambda _, datagram, __: 1 // len(datagram)
            port, sending = self.listen(receiver, max_datagram_size=100), self.listen(Peer())
            for size in (101, 100, 5000, 0):
                sending.write(b"x" * size, address_of(port))
            self.wait(lambda receiver=receiver: len(receiver.received) == 2, "not all datagrams arrived")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.provider.settle()
            stats = port.stats
            self.assertEqual((2, 100, 2), (stats.datagrams_received, stats.bytes_received, stats.truncated))
            self.assertEqual((1, 1), (stats.callback_errors, len(self.flushLoggedErrors(ZeroDivisionError))))
            self.stop(port)
            port.write(b"late", address_of(sending))
            self.assertEqual([], port.write_batch([(b"late", address_of(sending))] * 2))
            self.assertEqual((3, 0), (port.stats.written_after_stop, port.stats.datagrams_sent))

    def test_stats_of_refusals(self) -> None:
        """A datagram that its peer refuses was sent, and is no send error; the refusal is counted."""
        port, nobody = self.listen(Peer()), self.nobody()
        for _ in range(3):
            port.write(b"x", nobody)
            self.provider.settle()
        self.assertEqual((3, {}, 3), (port.stats.datagrams_sent, port.stats.send_errors, port.stats.unreachable))

    def test_stats_is_one_object(self) -> None:
        """Who keeps a port's counters sees them go on."""
        port, receiver, sending, _ = self.pair()
        stats = port.stats
        sending.write(b"x", address_of(port))
        self.wait(lambda: bool(receiver.received), "no datagram arrived")
        self.provider.settle()
        self.assertIdentical(stats, port.stats)
        self.assertEqual((1, 1), (stats.datagrams_received, sending.stats.datagrams_sent))

    def write_mixed(self, port: Any, good: Sequence[Address]) -> None:
        """Write good and bad datagrams, in one batch; the bad ones must come back, and no others."""
        bad: list[tuple[bytes, Address, str]] = [
            (b"x" * 65508, good[0], "MessageLengthError"),
            (b"a name", ("localhost", 9), "InvalidAddressError"),
            (b"six", ("::1", 9), "InvalidAddressError"),
            (b"nobody's", ("127.0.0.1", 0), "OSError"),
            (b"no port", ("127.0.0.1", 65536), "OverflowError"),
        ]
        datagrams = [(payload_of(number, 16), good[number % len(good)]) for number in range(100)]
        for at, (payload, address, _) in zip((0, 17, 34, 35, 104), bad, strict=True):
            datagrams.insert(at, (payload, address))
        refused = port.write_batch(datagrams)
        self.assertEqual([(len(each[0]), each[1]) for each in bad], [(len(each[0]), each[1]) for each in refused])
        self.assertEqual([each[2] for each in bad], [type(error).__name__ for _, _, error in refused])

    def test_write_batch(self) -> None:
        """Of a batch of writes everything arrives, in order, but what the caller did wrong, which is returned."""
        port, clients = self.listen(Peer()), [Peer() for _ in range(2)]
        good = [address_of(self.listen(client)) for client in clients]
        self.write_mixed(port, good)
        self._assert_got_mixed(clients)
        self.assertEqual((100, 1600, {}), (port.stats.datagrams_sent, port.stats.bytes_sent, port.stats.send_errors))
        self.assertEqual([], port.write_batch([]))

    def test_write_batch_inside_batch(self) -> None:
        """So it is in datagrams_received, also where the peers are those whose datagrams are being delivered."""
        for kind in (Peer, BatchPeer):
            clients = [Peer() for _ in range(2)]
            good = [address_of(self.listen(client)) for client in clients]
            server = kind(lambda peer, *_: self.write_mixed(peer.port, good))  # noqa: B023  # it ends here
            port = self.listen(server)
            clients[0].port.write(b"go", address_of(port))
            self._assert_got_mixed(clients)
            self.assertEqual((100, 1600), (port.stats.datagrams_sent, port.stats.bytes_sent))
            self.assertEqual(0, port.stats.callback_errors)

    def _assert_got_mixed(self, clients: Sequence[Peer]) -> None:
        self.wait(lambda: sum(len(client.received) for client in clients) >= 100, "not all datagrams arrived")
        self.provider.settle()
        expected = [[payload_of(number, 16) for number in range(first, 100, 2)] for first in range(2)]
        self.assertEqual(expected, [client.payloads for client in clients])

    def test_write_batch_with_refusals(self) -> None:
        """Refusals by a peer cost no other datagram of a batch its place."""
        nobody, client = self.nobody(), Peer()
        port, address = self.listen(Peer()), address_of(self.listen(client))
        batch = [(b"%d" % number, nobody if number % 4 == 1 else address) for number in range(80)]
        self.assertEqual([], port.write_batch(batch))
        self.wait(lambda: len(client.received) == 60, "not all datagrams arrived")
        self.assertEqual([b"%d" % number for number in range(80) if number % 4 != 1], client.payloads)

    def test_backend_name(self) -> None:
        """A port tells which backend serves it."""
        self.assertEqual(self.provider.backend, self.listen(Peer()).backend)

    def test_path_mtu_unknown(self) -> None:
        """Of a path from which no router has reported anything, no MTU is known."""
        self.assertIdentical(None, self.listen(Peer()).path_mtu("127.0.0.1"))

    def test_no_arrival_times(self) -> None:
        """A port that was not asked for them has no arrival times."""
        seen: list[Sequence[int]] = []
        port, receiver, sending, _ = self.pair()
        receiver.on_datagram = lambda peer, *_: seen.append(peer.port.arrival_times)
        sending.write(b"x", address_of(port))
        self.wait(lambda: bool(seen), "no datagram arrived")
        self.assertEqual([()], seen)

    def test_arrival_times(self) -> None:
        """While datagrams are delivered, the port tells for each when it came; outside of that, nothing."""

        class Times(Peer):
            """Notes the times of single datagrams."""

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                times.append((1, self.port.arrival_times))
                super().datagramReceived(datagram, addr)

        class BatchTimes(Times):
            """Notes those of batches."""

            def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
                times.append((len(datagrams), self.port.arrival_times))
                self.received += datagrams

        for kind in (Times, BatchTimes):
            times: list[tuple[int, tuple[int, ...]]] = []
            receiver = kind()
            port, sending = self.listen(receiver, timestamps=True), [self.listen(Peer()) for _ in range(2)]
            # Until Linux notes times, which it begins to do a moment after it is asked to, it tells those of reading,
            # and then what was sent first may have the later time: only for so long may there be something before this.
            for _ in range(10):
                self.send_all(port, receiver, [(sending[0], b"")])
                self.provider.settle()
            self.provider.settle()
            receiver.received.clear()
            times.clear()
            before = self.provider.nanoseconds()
            self.send_all(port, receiver, [(sending[number % 5 == 0], b"x" * (number % 3)) for number in range(150)])
            after = self.provider.nanoseconds()
            self.assertEqual([count for count, _ in times], [len(each) for _, each in times], kind.__name__)
            self.assertEqual({tuple}, {type(each) for _, each in times})
            told = [each for _, some in times for each in some]
            self.assertEqual(sorted(told), told)
            self.assertTrue(before - 10**7 <= told[0] <= told[-1] <= after, (before, told[0], told[-1], after))
            self.assertEqual((150, ()), (len(told), port.arrival_times))


class KernelContract(ContractCase):
    """What only the kernel can tell."""

    def test_system_calls_are_counted(self) -> None:
        """A burst costs at least one call and one batch, and no more than two calls for each datagram."""
        port, receiver, sending, _ = self.pair()
        receiver.on_datagram = echo
        self.send_all(port, receiver, [(sending, b"x")] * 100)
        self.provider.settle()
        stats = port.stats
        self.assertTrue(1 <= stats.batches <= 100, stats.batches)
        self.assertTrue(2 <= stats.system_calls <= 220, stats.system_calls)

    def test_arrival_times_are_the_kernels(self) -> None:
        """Datagrams sent one after the other have times one after the other, though they are read at once.

        Linux begins to note times a moment after the first socket of the system asks for it, and until then tells when
        a datagram was read (net/core/dev.c, net_enable_timestamp): so there are several attempts.
        """
        times: list[int] = []
        port, receiver, sending, _ = self.pair(timestamps=True)
        receiver.on_datagram = lambda peer, *_: times.extend(peer.port.arrival_times)
        for _ in range(50):
            times.clear()
            between = []
            for _ in range(3):
                sending.write(b"x", address_of(port))
                between.append(self.provider.nanoseconds())
            self.wait(lambda: len(times) == 3, "not all datagrams arrived")
            if times[0] <= between[0] <= times[1] <= between[1] <= times[2] <= between[2]:
                return
            self.provider.settle()
        self.fail(f"arrived at {times}, were sent before {between}")
