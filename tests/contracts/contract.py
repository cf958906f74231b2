"""What a UDP port owes the protocol on it: the contract, as tests.

Theory of operation: each section, here and in the modules beside this one, is written over a
:class:`~tests.contracts.providers.PortProvider` and runs unchanged on each of them; :func:`contract_case` makes the
test case of a provider. A test named in the provider's ``expected_faults`` is turned round: it passes if and only if
it fails in the known way, so that a fault that is mended is noticed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.python import log
from zope.interface.verify import verifyObject

from tests.contracts.admission import AdmissionContract
from tests.contracts.bursts import BatchContract, BurstContract, ReplyContract
from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of, echo
from tests.contracts.multicast import MulticastContract
from tests.contracts.own import KernelContract, OwnContract
from tests.contracts.turns import TurnContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contracts.providers import Fault, PortProvider
    from twistedudp.address import Address

__all__ = ["SECTIONS", "contract_case", "contract_tests"]

ANY = "0.0.0.0"  # noqa: S104  # sent to from loopback only

KNOWN_FAULT_PATIENCE = 0.2
"""Seconds to wait for what a known fault keeps from happening."""


class LifeContract(ContractCase):
    """From listening to stopping."""

    def test_interfaces(self) -> None:
        """A port provides IListeningPort and IUDPTransport."""
        port = self.listen(Peer())
        self.assertTrue(verifyObject(interfaces.IListeningPort, port))
        self.assertTrue(verifyObject(interfaces.IUDPTransport, port))

    def test_repr_after_stop(self) -> None:
        """A port can be shown in a log at any time: before its end it tells its number, after it that it is closed."""
        port = self.listen(Peer())
        self.assertIn(str(port.getHost().port), repr(port))
        self.stop(port)
        self.assertIn("not ", repr(port))

    def test_host_after_stop(self) -> None:
        """After the end of a port its address is still the one that it had."""
        port = self.listen(Peer())
        host = port.getHost()
        self.stop(port)
        self.assertEqual(host, port.getHost())

    def test_port_zero(self) -> None:
        """Port 0 gets a free port, another one each time, which getHost tells."""
        first, second = self.listen(Peer()).getHost().port, self.listen(Peer()).getHost().port
        self.assertTrue(0 < first <= 65535, first)
        self.assertNotEqual(first, second)

    def test_host_ipv4(self) -> None:
        """The address bound to is an IPv4Address."""
        host = self.listen(Peer()).getHost()
        self.assertEqual(IPv4Address("UDP", "127.0.0.1", host.port), host)

    def test_host_ipv6(self) -> None:
        """The address bound to is an IPv6Address."""
        host = self.listen(Peer(), "::1").getHost()
        self.assertEqual(IPv6Address("UDP", "::1", host.port), host)

    def test_host_of_all_interfaces(self) -> None:
        """The empty interface is all of IPv4."""
        self.assertEqual(ANY, self.listen(Peer(), "").getHost().host)

    def test_port_taken(self) -> None:
        """A port that is taken cannot be listened on, and the error tells which."""
        number = self.listen(Peer()).getHost().port
        error = self.assertRaises(CannotListenError, self.listen, Peer(), port=number)
        self.assertEqual(("127.0.0.1", number), (error.interface, error.port))
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)

    def test_foreign_address(self) -> None:
        """An address that is not this host's cannot be listened on."""
        self.assertRaises(CannotListenError, self.listen, Peer(), "203.0.113.77")

    def test_interface_is_a_name(self) -> None:
        """A host name is not an interface."""
        self.assertRaises(InvalidAddressError, self.listen, Peer(), "localhost")

    def test_start(self) -> None:
        """The protocol is started once and knows its transport."""
        peer = Peer()
        port = self.listen(peer)
        self.assertEqual((port, 1), (peer.transport, peer.started))

    def test_failing_start_protocol(self) -> None:
        """If the protocol fails to start, the caller learns it, and the port is free."""
        number = self.free_port()
        peer = Peer()
        peer.on_start = lambda: 1 / 0
        self.assertRaises(ZeroDivisionError, self.listen, peer, port=number)
        left_open = getattr(peer.transport, "socket", None)  # by Twisted's port
        if left_open is not None:
            self.addCleanup(left_open.close)
        self.listen(Peer(), port=number)

    def test_stop(self) -> None:
        """Stopping takes until a later turn; then the protocol is stopped and has no transport."""
        peer = Peer()
        stopping = self.listen(peer).stopListening()
        self.assertEqual(0, peer.stopped)
        self.assertNoResult(stopping)
        self.wait(lambda: bool(stopping.called), "stopListening's Deferred never fired")
        self.assertEqual((None, 1, None), (self.successResultOf(stopping), peer.stopped, peer.transport))

    def test_stop_frees_the_port(self) -> None:
        """After the stop another port can have the number, and nothing is left in the reactor."""
        port = self.listen(Peer())
        number = port.getHost().port
        self.stop(port)
        self.assertEqual([], self.provider.leftovers())
        self.assertEqual(number, self.listen(Peer(), port=number).getHost().port)

    def test_stop_twice(self) -> None:
        """Stopping while it stops is harmless, and each caller is told of the end."""
        port = self.listen(Peer())
        stopping = [port.stopListening(), port.stopListening()]
        self.provider.settle()
        self.assertEqual([True, True], [bool(each.called) for each in stopping], "a Deferred never fired")
        self.assertIdentical(None, port.stopListening())

    def test_stop_inside_start_protocol(self) -> None:
        """A protocol may stop its port when it starts."""
        peer = Peer()
        peer.on_start = lambda: peer.port.stopListening()  # noqa: PLW0108  # there is no port yet
        self.listen(peer)
        self.wait(lambda: peer.stopped == 1, "the protocol was not stopped")
        self.assertEqual([], self.provider.leftovers())

    def test_stop_inside_datagram_received(self) -> None:
        """A protocol that stops its port gets no further datagram."""
        port, receiver, sending, _ = self.pair()
        receiver.on_datagram = lambda peer, *_: peer.port.stopListening()
        for payload in (b"1", b"2", b"3"):
            sending.write(payload, address_of(port))
        self.wait(lambda: receiver.stopped == 1, "the protocol was not stopped")
        self.assertEqual([b"1"], receiver.payloads)

    def test_write_after_stop(self) -> None:
        """Writing to a port that is closed does nothing."""
        port, receiver, sending, _ = self.pair()
        self.stop(sending)
        sending.write(b"late", address_of(port))
        self.provider.settle()
        self.assertEqual([], receiver.received)

    def test_log_lines(self) -> None:
        """Start and stop are a line each, with the real port."""
        lines: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            lines.append(log.textFromEventDict(event) or "")

        log.addObserver(observe)
        self.addCleanup(log.removeObserver, observe)
        peer = Peer()
        peer.noisy = True
        port = self.listen(peer)
        number = port.getHost().port
        self.stop(port)
        of_port = [line for line in lines if " starting on " in line or "UDP Port" in line]
        self.assertEqual([f"Peer starting on {number}", f"(UDP Port {number} Closed)"], of_port)


class DeliveryContract(ContractCase):
    """Datagrams, from one port to another."""

    def deliver(self, payload: bytes, interface: str = "127.0.0.1") -> None:
        """Send a datagram, which must arrive as it is, and only once."""
        port, receiver, sending, _ = self.pair(interface)
        sending.write(payload, address_of(port, interface))
        self.wait(lambda: bool(receiver.received), "no datagram arrived")
        self.provider.settle()
        (arrived, source) = receiver.received[0]
        self.assertEqual(1, len(receiver.received))
        self.assertEqual(len(payload), len(arrived), f"{len(arrived)} of {len(payload)} bytes arrived")
        self.assertEqual((payload, address_of(sending, interface)), (arrived, source))

    def test_datagram(self) -> None:
        """A datagram arrives with its sender's address."""
        self.deliver(b"hello")

    def test_empty_datagram(self) -> None:
        """An empty datagram arrives."""
        self.deliver(b"")

    def test_8193_bytes(self) -> None:
        """A datagram just above Twisted's usual limit arrives whole."""
        self.deliver(bytes(range(256)) * 32 + b"!")

    def test_20000_bytes(self) -> None:
        """A large datagram arrives whole."""
        self.deliver(bytes(range(200)) * 100)

    def test_largest_datagram(self) -> None:
        """The largest datagram of IPv4 arrives whole."""
        self.deliver((bytes(range(251)) * 262)[:65507])

    def test_ipv6(self) -> None:
        """IPv6 works, and its addresses are pairs as well."""
        self.deliver(b"six", "::1")

    def test_larger_than_the_limit(self) -> None:
        """A datagram larger than the port takes is dropped, one that just fits is delivered."""
        port, receiver, sending, _ = self.pair(max_datagram_size=100)
        for size in (101, 100, 60000, 99):
            sending.write(b"x" * size, address_of(port))
        self.wait(lambda: 99 in map(len, receiver.payloads), "the last datagram did not arrive")
        self.assertEqual([100, 99], list(map(len, receiver.payloads)))

    def test_order(self) -> None:
        """Datagrams arrive in the order in which they were sent."""
        port, receiver, sending, _ = self.pair()
        payloads = [b"%d" % number for number in range(100)]
        for payload in payloads:
            sending.write(payload, address_of(port))
        self.wait(lambda: len(receiver.received) == 100, "not all datagrams arrived")
        self.assertEqual(payloads, receiver.payloads)

    def test_write_sequence(self) -> None:
        """A sequence is one datagram."""
        port, receiver, sending, _ = self.pair()
        sending.writeSequence([b"one", b"", b"two"], address_of(port))
        self.wait(lambda: bool(receiver.received), "no datagram arrived")
        self.provider.settle()
        self.assertEqual([b"onetwo"], receiver.payloads)

    def test_many_empty_datagrams(self) -> None:
        """However many datagrams wait, a timer gets its turn."""
        port, receiver, sending, _ = self.pair()
        delivered: list[int] = []

        def set_timer(*_: object) -> None:
            receiver.on_datagram = None
            self.provider.call_later(0, lambda: delivered.append(len(receiver.received)))

        receiver.on_datagram = set_timer
        for _ in range(1000):
            sending.write(b"", address_of(port))
        self.wait(lambda: bool(delivered), "the timer never ran")
        most = self.provider.most_before_a_timer
        self.assertTrue(delivered[0] <= most, f"{delivered[0]} datagrams were delivered before the timer")

    def test_exception_in_datagram_received(self) -> None:
        """A protocol that fails on a datagram gets the next one, and the failure is in the log."""
        port, receiver, sending, _ = self.pair()
        receiver.on_datagram = lambda *_: 1 / 0
        sending.write(b"1", address_of(port))
        sending.write(b"2", address_of(port))
        self.wait(lambda: len(receiver.received) == 2, "the port delivers no more")
        self.provider.settle()
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_dual_stack_shows_ipv4(self) -> None:
        """A port on "::" serves IPv4 as well and shows its addresses as IPv4."""
        receiver, sender = Peer(echo), Peer()
        port, sending = self.listen(receiver, "::"), self.listen(sender)
        sending.write(b"four", address_of(port))
        self.wait(lambda: bool(sender.received), "no answer came")
        self.assertEqual([address_of(sending)], receiver.peers)
        self.assertEqual([(b"four", address_of(port))], sender.received)

    def test_dual_stack_writes_ipv4(self) -> None:
        """A port on "::" can write to an IPv4 address that it has not heard of."""
        receiver = Peer()
        port, sending = self.listen(receiver), self.listen(Peer(), "::")
        sending.write(b"four", address_of(port))
        self.wait(lambda: bool(receiver.received), "no datagram arrived")
        self.assertEqual([(b"four", address_of(sending))], receiver.received)

    def test_answer_from_the_address_asked(self) -> None:
        """A port on all interfaces answers from the address that was asked: a connected client sees the answer."""
        port, client = self.listen(Peer(echo), ""), Peer()
        asking = self.listen(client)
        asking.connect("127.0.0.5", port.getHost().port)
        asking.write(b"question", None)
        self.wait(lambda: bool(client.received), "no answer came")
        self.assertEqual([(b"question", address_of(port, "127.0.0.5"))], client.received)

    def test_later_answer_from_the_address_asked(self) -> None:
        """So does an answer that is written after others have asked at other addresses."""
        server, early, late = Peer(), Peer(), Peer()
        port = self.listen(server, "")
        for client, host in ((early, "127.0.0.5"), (late, "127.0.0.6")):
            asking = self.listen(client)
            asking.connect(host, port.getHost().port)
            asking.write(b"question", None)
        self.wait(lambda: len(server.received) == 2, "not all questions arrived")
        for datagram, (host, number) in server.received:
            port.write(datagram, (str(host), number))
        self.wait(lambda: bool(early.received and late.received), "no answer came")

    def test_delivering_to_group(self) -> None:
        """While a broadcast is delivered, and only then, the port says so: also where others come with it."""
        sending = self.listen(Peer(), "")
        sending.setBroadcastAllowed(True)
        for kind in (Peer, BatchPeer):
            said: list[tuple[bytes, object]] = []
            receiver = kind(lambda peer, data, _: said.append((data, getattr(peer.port, "delivering_to_group", None))))  # noqa: B023  # it ends here
            port = self.listen(receiver, "")
            for payload, host in ((b"1", "127.0.0.1"), (b"2", self.provider.broadcast), (b"3", "127.0.0.1")):
                sending.write(payload, address_of(port, host))
            self.wait(lambda: len(said) == 3, "not all datagrams arrived")  # noqa: B023  # it ends here
            self.assertEqual([(b"1", False), (b"2", True), (b"3", False)], said, kind.__name__)
            self.assertFalse(port.delivering_to_group)


class WriteContract(ContractCase):
    """What may be written, and to whom."""

    def test_too_large(self) -> None:
        """What UDP cannot carry is refused at the write."""
        port = self.listen(Peer())
        self.assertRaises(MessageLengthError, port.write, b"x" * 65508, address_of(port))

    def test_hostname(self) -> None:
        """A host name is refused at the write: nobody looks it up."""
        port = self.listen(Peer())
        for host in ("localhost", "", "127.0.0.1.", "127.1"):
            self.assertRaises(InvalidAddressError, port.write, b"x", (host, 9))

    def test_other_family(self) -> None:
        """An address of the other family is refused at the write."""
        self.assertRaises(InvalidAddressError, self.listen(Peer()).write, b"x", ("::1", 9))
        self.assertRaises(InvalidAddressError, self.listen(Peer(), "::1").write, b"x", ("127.0.0.1", 9))

    def test_port_zero_as_destination(self) -> None:
        """Port 0 is nobody's."""
        error = self.assertRaises(OSError, self.listen(Peer()).write, b"x", ("127.0.0.1", 0))
        self.assertEqual(errno.EINVAL, error.errno)

    def test_broadcast_needs_leave(self) -> None:
        """A broadcast is refused until it is allowed."""
        port = self.listen(Peer(), "")
        address = self.provider.broadcast, self.free_port()
        self.assertFalse(port.getBroadcastAllowed())
        self.assertRaises(PermissionError, port.write, b"x", address)
        port.setBroadcastAllowed(True)
        self.assertTrue(port.getBroadcastAllowed())
        port.write(b"x", address)

    def test_broadcast(self) -> None:
        """An allowed broadcast arrives at ports on all interfaces, with its sender's address."""
        receiver = Peer()
        port, sending = self.listen(receiver, ""), self.listen(Peer(), "")
        sending.setBroadcastAllowed(True)
        sending.write(b"all", (self.provider.broadcast, port.getHost().port))
        self.wait(lambda: bool(receiver.received), "no datagram arrived")
        self.assertEqual([(b"all", sending.getHost().port)], [(data, addr[1]) for data, addr in receiver.received])

    def test_mutable_payload(self) -> None:
        """What is written is what the buffer holds at the write, not what becomes of it."""
        buffer = bytearray()

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            buffer[:] = datagram * 2
            peer.port.write(buffer, addr)
            peer.port.write(memoryview(buffer)[1:], addr)

        port, receiver, sending, sender = self.pair()
        receiver.on_datagram = answer
        self.send_all(port, receiver, [(sending, b"%d" % number) for number in range(10, 30)])
        self.wait(lambda: len(sender.received) == 40, "not all answers arrived")
        expected = [b"%d%d" % (number, number) for number in range(10, 30)]
        self.assertEqual([part for whole in expected for part in (whole, whole[1:])], sender.payloads)

    def test_connected(self) -> None:
        """A connected port writes without an address, and hears its peer only."""
        port, server, connected, client = self.pair()
        connected.connect(*address_of(port))
        connected.write(b"1", None)
        connected.write(b"2", address_of(port))
        self.wait(lambda: len(server.received) == 2, "not all datagrams arrived")
        self.listen(Peer()).write(b"stranger", address_of(connected))
        port.write(b"friend", address_of(connected))
        self.wait(lambda: bool(client.received), "no datagram arrived")
        self.provider.settle()
        self.assertEqual([(b"friend", address_of(port))], client.received)

    def test_connected_writes_to_its_peer_only(self) -> None:
        """A connected port refuses to write to another."""
        port = self.listen(Peer())
        port.connect("127.0.0.1", self.free_port())
        self.assertRaises((AssertionError, InvalidAddressError), port.write, b"x", address_of(port))

    def test_address_needed(self) -> None:
        """A port that is not connected refuses to write to nobody."""
        self.assertRaises((AssertionError, InvalidAddressError), self.listen(Peer()).write, b"x", None)

    def test_connect_twice(self) -> None:
        """A connected port cannot be connected again."""
        port = self.listen(Peer())
        port.connect("127.0.0.1", 9)
        self.assertRaises(RuntimeError, port.connect, "127.0.0.1", 9)

    def test_connect_to_a_name(self) -> None:
        """A host name cannot be connected to."""
        self.assertRaises(InvalidAddressError, self.listen(Peer()).connect, "localhost", 9)


class UnreachableContract(ContractCase):
    """ICMP errors."""

    def test_survives_refusal(self) -> None:
        """A port goes on after a datagram of its was refused."""
        port, receiver, sending, _ = self.pair()
        port.write(b"x", self.nobody())
        self.provider.settle()
        sending.write(b"after", address_of(port))
        self.wait(lambda: receiver.payloads == [b"after"], "the port delivers no more")
        self.assertEqual(0, receiver.stopped)

    def test_refusal_costs_no_other_datagram(self) -> None:
        """A refusal takes neither a datagram to another peer nor one from another peer along."""
        port, receiver, other, innocent = self.pair()
        nobody = self.nobody()
        for _ in range(3):
            port.write(b"x", nobody)
            port.write(b"out", address_of(other))
            other.write(b"in", address_of(port))
            self.provider.settle()
        self.assertEqual(([b"out"] * 3, [b"in"] * 3), (innocent.payloads, receiver.payloads))

    def test_unreachable_is_told(self) -> None:
        """The protocol is told who refused what, and not from inside its own write."""
        for interface in ("127.0.0.1", "::1"):
            nobody = self.nobody(interface)
            sender = Peer()
            port = self.listen(sender, interface)
            port.write(b"a question", nobody)
            port.write(b"another", nobody)
            self.assertEqual([], sender.unreachable)
            self.wait(lambda sender=sender: len(sender.unreachable) == 2, "the protocol was not told")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.assertEqual([nobody, nobody], [peer for peer, _, _ in sender.unreachable])
            self.assertEqual([b"a question", b"another"], [quoted for _, _, quoted in sender.unreachable])
            self.assertEqual({errno.ECONNREFUSED}, {reason.errno for _, reason, _ in sender.unreachable})

    def test_connected_survives_refusal(self) -> None:
        """A connected port learns of a refusal by connectionRefused and goes on."""
        client, server = Peer(), Peer()
        port = self.listen(client)
        number = self.free_port()
        port.connect("127.0.0.1", number)
        port.write(b"too early", None)
        self.wait(lambda: client.refused > 0, "the protocol was not told")
        self.listen(server, port=number).write(b"now", address_of(port))
        self.wait(lambda: client.payloads == [b"now"], "the port delivers no more")
        port.write(b"again", None)
        self.wait(lambda: server.payloads == [b"again"], "the port writes no more")


SECTIONS = (
    LifeContract,
    DeliveryContract,
    WriteContract,
    UnreachableContract,
    BatchContract,
    BurstContract,
    ReplyContract,
    MulticastContract,
    TurnContract,
    OwnContract,
    KernelContract,
    AdmissionContract,
)
"""Every part of the contract."""


def contract_tests() -> dict[str, type[ContractCase]]:
    """Return every test of the contract, by name, with its section."""
    return {name: section for section in SECTIONS for name in vars(section) if name.startswith("test_")}


def contract_case(section: type[ContractCase], provider: type[PortProvider]) -> type[ContractCase]:
    """Return a section of the contract as a test case for a provider's ports."""
    body: dict[str, Any] = {
        "provider_class": provider,
        "__doc__": f"{section.__doc__} Ports: {provider.name}.",
        "__module__": "tests.contracts.test_ports",
    }
    for name, fault in provider.expected_faults.items():
        if name in vars(section):
            body[name] = _turned_round(getattr(section, name), fault)
    return type(section.__name__.replace("Contract", provider.name) + "Tests", (section,), body)


def _turned_round(test: Callable[[Any], None], fault: Fault) -> Callable[[Any], None]:
    """Return a test that passes if and only if the given one fails in the known way."""

    def fails_as_known(self: ContractCase) -> None:
        if fault.in_vain:
            self.provider.patience = KNOWN_FAULT_PATIENCE
        try:
            test(self)
        except Exception as error:  # noqa: BLE001  # a broken port may fail in any way; the symptom tells which
            self.assertIn(fault.symptom, str(error), f"it fails in another way than known: {fault.reason}")
            self.provider.settle()
            self.flushLoggedErrors()
            return
        self.fail(f"the known fault is gone, take it off the list: {fault.reason}")

    fails_as_known.__doc__ = f"Known fault: {fault.reason}."
    return fails_as_known
