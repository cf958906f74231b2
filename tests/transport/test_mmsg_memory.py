"""The compiled backend on the kernel's sockets: whose memory a datagram, an address and a port are, and until when."""

from __future__ import annotations

import array
import gc
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from tests.contracts.case import Peer, echo
from tests.transport.mmsg_case import KINDS, MmsgCase, Slow
from twistedudp.transport._scalar import SECONDS_PER_TURN

if TYPE_CHECKING:
    from twistedudp.address import Address


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
                ((_, _, error),) = port.write_batch([(wrong, client.address)])
                seen.append(f"{type(error).__name__}: {error}")
                self.assertEqual(0, port.stats.datagrams_sent)
            self.assertEqual(messages["scalar"], messages["mmsg"])
            self.assertEqual([], client.received())


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
