"""The example chat room, on the simulated network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.examples.loading import load_example
from twistedudp.plugins import construct
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.address import Address

HOST = "192.0.2.1"


class Guest(DatagramProtocol):
    """Somebody in the room."""

    noisy = False

    def __init__(self, host: str, network: SimulatedNetwork) -> None:
        self.address = (host, 5000)
        self.heard: list[bytes] = []
        self.network = network
        network.reactor(host).listenUDP(5000, self, host)

    def say(self, message: bytes) -> None:
        """Send a datagram to the room, and let it and what it causes arrive."""
        assert self.transport is not None
        self.transport.write(message, (HOST, 10000))
        self.network.advance(0.1)

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note what is heard."""
        self.heard.append(datagram)


class ChatTests(SynchronousTestCase):
    """A room and three guests."""

    def setUp(self) -> None:
        """Open the room; nobody is in it."""
        self.network = SimulatedNetwork(delay=0.01)
        self.reactor = self.network.reactor(HOST)
        self.chat = load_example("chat")
        self.room = self.open()
        self.ann, self.bob, self.cid = (Guest(f"192.0.2.{number}", self.network) for number in (11, 12, 13))

    def open(self, port: int = 10000, **options: Any) -> Any:
        """Open a room."""
        room = self.chat.ChatRoom(clock=self.reactor, **options)
        self.reactor.listenUDP(port, room, HOST)
        return room

    def test_fan_out(self) -> None:
        """A message reaches everybody else with its sender's address, the sender not."""
        for guest in (self.ann, self.bob, self.cid):
            guest.say(b"")
        self.ann.say(b"hello")
        self.assertEqual((self.ann.heard, self.bob.heard, self.cid.heard), ([], *[[b"192.0.2.11:5000> hello"]] * 2))

    def test_first_message_counts(self) -> None:
        """A message is a way in like any other; an empty datagram is heard by nobody."""
        self.ann.say(b"anybody?")
        self.bob.say(b"me")
        self.cid.say(b"")
        self.assertEqual((self.ann.heard, self.bob.heard, self.cid.heard), ([b"192.0.2.12:5000> me"], [], []))

    def test_forgotten(self) -> None:
        """A minute of silence costs the seat; anything sent keeps it."""
        self.ann.say(b"")
        self.bob.say(b"")
        self.network.advance(40)
        self.ann.say(b"")
        self.network.advance(30)
        self.assertEqual(self.room.peers, [self.ann.address])
        self.cid.say(b"who is here?")
        self.assertEqual((len(self.ann.heard), self.bob.heard), (1, []))
        self.network.advance(61)
        self.assertEqual(self.room.peers, [])

    def test_seats(self) -> None:
        """Who finds no seat is not heard, and counted; a seat that falls free is taken."""
        self.room._seats = 2
        self.ann.say(b"")
        self.bob.say(b"")
        self.cid.say(b"let me in")
        self.assertEqual((self.ann.heard, self.bob.heard, self.room.turned_away), ([], [], 1))
        self.network.advance(59.95)
        self.bob.say(b"")
        self.cid.say(b"and now?")
        self.assertEqual(self.bob.heard, [b"192.0.2.13:5000> and now?"])
        self.assertEqual(self.room.peers, [self.bob.address, self.cid.address])

    def test_long_message(self) -> None:
        """A message that would not fit one packet is not passed on, and counted."""
        self.ann.say(b"")
        self.bob.say(b"x" * 1200)
        self.bob.say(b"x" * 1201)
        self.assertEqual(([len(heard) for heard in self.ann.heard], self.room.too_long), ([1217], 1))

    def test_options(self) -> None:
        """Its parameters are its options, the clock is none, and senseless values are refused."""
        room: Any = construct(self.chat.ChatRoom, {"seats": "8", "forget_after": "5"}, "protocol 'chat'")
        self.assertEqual((room._seats, room._forget_after), (8, 5.0))
        for options in ({"seats": 1}, {"forget_after": 0}, {"forget_after": float("nan")}):
            self.assertRaises(ValueError, self.open, **options)
