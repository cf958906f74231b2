"""What a plain socket sees of a port, and when: the tests that need the kernel, and a clock that runs.

Theory of operation: beside the port stands a socket without any reactor. What it has sent has been sent in this order,
and what it can receive has left the port already.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from random import Random
from time import thread_time
from typing import TYPE_CHECKING

from twisted.internet import interfaces
from zope.interface.verify import verifyObject

from tests.contracts.bursts import SIZES, kinds_of_echo, payload_of
from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of, echo

if TYPE_CHECKING:
    from twistedudp.address import Address

__all__ = ["TurnContract"]

SLOW = 0.001
"""Seconds that a slow protocol takes for a datagram."""

LATE = 0.03
"""Seconds by which a slow protocol may delay a timer: several turns of 4 ms, a third of what all datagrams take."""


class TurnContract(ContractCase):
    """Order, time and the socket itself."""

    def plain(self) -> socket.socket:
        """Return a non-blocking socket on the loopback interface."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.setblocking(False)
        made.bind(("127.0.0.1", 0))
        return made

    def arrived(self, plain: socket.socket) -> list[bytes]:
        """Return what waits in a socket."""
        payloads = []
        with suppress(BlockingIOError):
            while True:
                payloads.append(plain.recv(65535))
        return payloads

    def test_system_handle(self) -> None:
        """A port provides ISystemHandle: its socket."""
        port = self.listen(Peer())
        self.assertTrue(verifyObject(interfaces.ISystemHandle, port))
        handle = port.getHandle()
        self.assertEqual((socket.SOCK_DGRAM, address_of(port)), (handle.type & 0xF, handle.getsockname()))

    def test_system_handle_after_stop(self) -> None:
        """A port that has ended has no socket."""
        port = self.listen(Peer())
        self.stop(port)
        self.assertIdentical(None, port.getHandle())

    def test_address_is_not_shared(self) -> None:
        """A port lets no other socket have its address, unless it was asked to."""
        handle = self.listen(Peer()).getHandle()
        options = [handle.getsockopt(socket.SOL_SOCKET, each) for each in (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]
        self.assertEqual([0, 0], options)

    def test_kernel_order(self) -> None:
        """Datagrams are delivered in the order in which the kernel has them, whoever sent them."""
        rng = Random(3)  # noqa: S311  # the same burst each time
        senders = [self.plain() for _ in range(3)]
        for receiver in (Peer(), BatchPeer()):
            port = self.listen(receiver)
            sent: list[tuple[bytes, Address]] = []
            for number in range(300):
                sender = senders[rng.randrange(3)]
                payload = payload_of(number, rng.choice((0, 5, 5, 5, 5, 64, 1200)))
                sender.sendto(payload, address_of(port))
                sent.append((payload, sender.getsockname()))
                if number % 50 == 49:  # a receive buffer of the kernel's usual size is full soon
                    self.wait(lambda: len(receiver.received) == len(sent), "not all datagrams arrived")  # noqa: B023  # it ends here
            differing = [pair for pair in zip(sent, receiver.received, strict=True) if pair[0] != pair[1]]
            self.assertEqual([], differing[:3], "datagrams sent, and delivered instead")

    def test_answers_to_peers_that_left(self) -> None:
        """Answers refused by peers that are there no more cost the others none of theirs, nor their order."""
        for server in kinds_of_echo():
            port = self.listen(server)
            staying = [self.plain() for _ in range(2)]
            sent: list[list[bytes]] = [[], []]
            for burst in range(3):
                leaving = self.plain()
                for number in range(42):
                    payload = payload_of(1000 * burst + number, 64 if number % 7 else 9)
                    if number % 3 == 0 or 15 < number < 24:
                        leaving.sendto(payload, address_of(port))
                    else:
                        staying[number % 2].sendto(payload, address_of(port))
                        sent[number % 2].append(payload)
                leaving.close()
                self.wait(lambda due=42 * (burst + 1): len(server.received) == due, "not all datagrams arrived")  # type: ignore[misc]  # noqa: B023  # mypy cannot infer a lambda with a default; it ends here
                self.provider.settle()
            self.assertEqual(sent, [self.arrived(each) for each in staying], type(server).__name__)

    def test_write_leaves_in_its_turn(self) -> None:
        """What is written outside of any datagram's delivery has left by the end of the reactor's turn."""
        port, plain = self.listen(Peer()), self.plain()
        seen: list[list[bytes]] = []

        def write() -> None:
            for number in range(70):
                port.write(payload_of(number, SIZES[number % 7]), plain.getsockname())
            self.provider.call_later(0, lambda: seen.append(self.arrived(plain)))

        self.provider.call_later(0, write)
        self.wait(lambda: bool(seen), "the timer never ran")
        self.assertEqual([payload_of(number, SIZES[number % 7]) for number in range(70)], seen[0])

    def test_answers_leave_in_their_turn(self) -> None:
        """What is written while datagrams are delivered has left by the end of the reactor's turn."""
        for server in (Peer(echo), BatchPeer(echo)):
            port, plain = self.listen(server), self.plain()
            seen: list[list[bytes]] = []

            def look(peer: Peer, datagram: bytes, addr: Address, seen: list[list[bytes]] = seen) -> None:
                echo(peer, datagram, addr)
                if not seen:
                    seen.append([])
                    self.provider.call_later(0, lambda: seen.extend([peer.payloads, self.arrived(plain)]))  # noqa: B023  # it ends here

            server.on_datagram = look
            for number in range(5):
                plain.sendto(b"%d" % number, address_of(port))
            self.wait(lambda seen=seen: len(seen) == 3, "the timer never ran")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.assertEqual(seen[1], seen[2])

    def test_answers_leave_before_a_late_call(self) -> None:
        """What was written in a turn comes before what is written in the next."""
        written: list[bytes] = []

        def write(peer: Peer, datagram: bytes, addr: Address) -> None:
            written.append(datagram)
            peer.port.write(datagram, addr)

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            write(peer, datagram, addr)
            if datagram == b"0":
                self.provider.call_later(0, lambda: write(peer, b"later", addr))

        for server in (Peer(answer), BatchPeer(answer)):
            port, plain = self.listen(server), self.plain()
            for number in range(5):
                plain.sendto(b"%d" % number, address_of(port))
            self.wait(lambda: len(written) == 6, "not all was written")
            self.provider.settle()
            self.assertEqual(written, self.arrived(plain))
            written.clear()

    def _delay_by(self, receiver: Peer) -> float:
        """Return by how many seconds a timer is late while datagrams wait, each of which takes a millisecond.

        They are seconds of this thread's time on a processor, so that a busy machine makes no difference.
        """
        port, plain = self.listen(receiver), self.plain()
        fired: list[float] = []

        def be_slow(*_: object) -> None:
            began = thread_time()
            if len(receiver.received) == 1:
                self.provider.call_later(0, lambda: fired.append(thread_time() - began))
            while thread_time() - began < SLOW and not fired:
                pass

        receiver.on_datagram = be_slow
        for _ in range(100):
            plain.sendto(b"x", address_of(port))
        self.wait(lambda: bool(fired), "the timer never ran")
        return fired[0]

    def test_slow_protocol(self) -> None:
        """However long a protocol takes for each of many datagrams, a timer gets its turn."""
        delay = self._delay_by(Peer())
        self.assertTrue(delay < LATE, f"a timer was {delay * 1000:.0f} ms late")

    def test_slow_batch_protocol(self) -> None:
        """... also where the protocol takes several at once."""
        delay = self._delay_by(BatchPeer())
        self.assertTrue(delay < LATE, f"a timer was {delay * 1000:.0f} ms late")
