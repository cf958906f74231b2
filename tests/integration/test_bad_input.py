"""Every kind of bad input, sent to a real rpc server and a real client by plain sockets.

After each: it is counted, nothing answers it, nothing is logged, and the next valid request is answered.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from twisted.internet.defer import CancelledError

from tests.integration.sockets import LIMIT, RealTestCase, address_of, waiting_in
from twistedudp import errors
from twistedudp.methods import RPCMethods, method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twistedudp.address import Address
    from twistedudp.protocol import RPCServerProtocol

NESTED = b"\x91" * 1025 + b"\xc0"
HUGE = b"\xdd\xff\xff\xff\xff"
HEADERS = b"\xdc\x10\x00" * 1000

VALUES: dict[str, bytes] = {
    "truncated text": b"\xa5tex",
    "nothing": b"",
    "trailing bytes": b"\xc0\x00",
    "1,025 nested arrays": NESTED,
    "an array32 that claims 4 G items": HUGE,
    "a map32 that claims 4 G items": b"\xdf\xff\xff\xff\xff",
    "a bin32 that claims 4 GB": b"\xc6\xff\xff\xff\xff",
    "nested array16 headers": HEADERS,
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "a key that is no text": b"\x81\x01\x02",
    "a key that is bytes": b"\x81\xc4\x01a\x02",
    "an unknown extension": b"\xd4\x05\x00",
    "a large extension": b"\xc9\x00\x00\x10\x00\x05" + bytes(4096),
    "a bad timestamp": b"\xd6\xff" + b"\xff" * 3,
    "invalid UTF-8": b"\xa2\xff\xfe",
    "a reserved byte": b"\xc1",
}
"""Bad msgpack values by what is bad about them; they are put in the place of a parameter or of a result."""


def requests() -> Iterator[tuple[str, bytes, str]]:
    """Yield what a server must drop: what it is, the datagram, and the reason by which it is counted."""
    good: bytes = msgpack.packb([0, 7, "echo", [1]])
    yield "an empty datagram", b"", "malformed"
    yield "a letter", b"x", "malformed"
    yield "an HTTP request", b"GET / HTTP/1.1\r\n\r\n", "malformed"
    for size in range(1, len(good)):
        yield f"a request cut to {size} bytes", good[:size], "malformed"
    yield "two requests in one datagram", good * 2, "malformed"
    for what, value in VALUES.items():
        yield what, b"\x94\x00\x07\xa4echo\x91" + value, "malformed"
    for what, message in (
        ("a msgid that is negative", [0, -1, "echo", [1]]),
        ("a msgid of 33 bits", [0, 2**32, "echo", [1]]),
        ("a msgid that is no number", [0, None, "echo", [1]]),
        ("a name that is bytes", [0, 7, b"echo", [1]]),
        ("parameters that are a map", [0, 7, "echo", {"value": 1}]),
        ("too few fields", [0, 7, "echo"]),
        ("too many fields", [0, 7, "echo", [1], 1]),
        ("an unknown type", [3, 7, "echo", [1]]),
        ("a type that is true", [False, 7, "echo", [1]]),
        ("no list", {"type": 0}),
        ("an empty list", []),
    ):
        yield what, msgpack.packb(message), "malformed"
    yield "a response", msgpack.packb([1, 7, None, "forged"]), "not_a_request"
    yield "an error", msgpack.packb([1, 7, "forged", None]), "not_a_request"
    yield "too many bytes", msgpack.packb([0, 7, "echo", ["x" * 8192]]), "too_large"


class Counting(RPCMethods):
    """Counts how often it runs."""

    def __init__(self) -> None:
        self.ran = 0

    @method
    def run(self) -> int:
        """Run."""
        self.ran += 1
        return self.ran


class ServerTests(RealTestCase):
    """A real rpc server."""

    def setUp(self) -> None:
        """Start it, and make a plain socket to send from."""
        super().setUp()
        self.methods = Counting()
        server = self.server(self.methods)
        assert server.address is not None
        self.address: Address = server.address
        protocol: Any = server.protocol
        self.protocol: RPCServerProtocol = protocol
        self.plain_one = self.plain()
        self.good = 0

    async def check_alive(self) -> None:
        """Send a valid request and check that its response is the first thing that comes back."""
        self.good += 1
        self.plain_one.sendto(msgpack.packb([0, self.good, "run", []]), self.address)
        await self.until(lambda: self.protocol.stats.responses == self.good)
        self.assertEqual(
            [msgpack.unpackb(datagram) for datagram in waiting_in(self.plain_one)], [[1, self.good, None, self.good]]
        )

    async def test_each(self) -> None:
        """Each is counted by its reason, not answered, not logged, and the next request is answered."""
        for what, datagram, reason in requests():
            before = self.protocol.stats.rejected[reason]
            self.plain_one.sendto(datagram, self.address)
            await self.check_alive()
            self.assertEqual(self.protocol.stats.rejected[reason], before + 1, what)
        self.assertEqual(sum(self.protocol.stats.errors.values()), 0)
        self.assertEqual(self.methods.ran, self.good)

    async def test_notifications(self) -> None:
        """The same bad values in a notification."""
        for what, value in VALUES.items():
            before = self.protocol.stats.rejected["malformed"]
            self.plain_one.sendto(b"\x93\x02\xa4echo\x91" + value, self.address)
            await self.check_alive()
            self.assertEqual(self.protocol.stats.rejected["malformed"], before + 1, what)

    async def test_random(self) -> None:
        """Ten thousand random datagrams: all are counted, none is answered, the server lives."""
        source = random.Random(20261122)  # noqa: S311  # to be repeatable
        sent = 0
        for _ in range(100):
            for _ in range(100):
                # Half of them begin like a request, so that they get further than to the first byte.
                head = b"" if source.random() < 0.5 else b"\x94\x00\x01"
                self.plain_one.sendto(head + source.randbytes(source.randrange(200)), self.address)
                sent += 1
            await self.check_alive()
        self.assertEqual(sum(self.protocol.stats.rejected.values()), sent)
        self.assertEqual(self.protocol.stats.requests, self.good)

    async def test_flat_list(self) -> None:
        """A flat list of 1,000 numbers is no bad input, for a foreign client neither."""
        numbers = list(range(1000))
        self.plain_one.sendto(msgpack.packb([0, 1, "echo", [numbers]]), self.address)
        await self.until(lambda: self.protocol.stats.responses == 1)
        self.assertEqual(msgpack.unpackb(self.plain_one.recv(LIMIT)), [1, 1, None, numbers])


class ClientTests(RealTestCase):
    """A real client, whose server is a plain socket."""

    def setUp(self) -> None:
        """Start it; long timeouts, so that nothing is sent twice."""
        super().setUp()
        self.peer = self.plain()
        self.caller = self.client(*address_of(self.peer), timeout=60.0)
        self.port: Address = ("", 0)

    def request(self) -> int:
        """Take a request that the client has sent and return its msgid."""
        datagram, self.port = self.peer.recvfrom(LIMIT)
        message = msgpack.unpackb(datagram)
        self.assertEqual(message[0], 0)
        msgid: int = message[1]
        return msgid

    async def counted(self, counter: str, datagram: bytes) -> None:
        """Send a datagram to the client that only increments one of its counters."""
        before = getattr(self.caller.stats, counter)
        self.peer.sendto(datagram, self.port)
        await self.until(lambda: getattr(self.caller.stats, counter) > before)

    async def rejected(self, reason: str, datagram: bytes, sender: Any = None) -> None:
        """Send the client a datagram and wait until it is counted."""
        before = self.caller.stats.rejected[reason]
        (sender or self.peer).sendto(datagram, self.port)
        await self.until(lambda: self.caller.stats.rejected[reason] > before)

    async def check_alive(self) -> None:
        """Make a call that is answered."""
        call = self.caller.call("run")
        await self.turn()
        self.peer.sendto(msgpack.packb([1, self.request(), None, "alive"]), self.port)
        self.assertEqual(await call, "alive")

    async def test_each(self) -> None:
        """Each is counted and not answered while a call waits, which is then answered after all."""
        for what, head, value in (
            *((what, b"\x94\x01\xce????\xc0", value) for what, value in VALUES.items()),
            ("an empty datagram", b"", b""),
            ("random text", b"hello", b""),
            ("too few fields", b"\x93\x01\xce????", b"\xc0"),
            ("too many fields", b"\x95\x01\xce????", b"\xc0\xc0\xc0"),
        ):
            call = self.caller.call("run")
            await self.turn()
            msgid = self.request()
            await self.rejected("malformed", head.replace(b"????", msgid.to_bytes(4, "big")) + value)
            self.assertFalse(call.called, what)
            self.peer.sendto(msgpack.packb([1, msgid, None, what]), self.port)
            self.assertEqual(await call, what)
        await self.turn()
        self.assertEqual(waiting_in(self.peer), [])
        self.assertEqual(self.caller.stats.rejected, {"malformed": len(VALUES) + 4})

    async def test_wrong_answers(self) -> None:
        """A request sent to a client; replies from the wrong peer, with the wrong id, twice, late, after cancel."""
        stranger = self.plain()
        call = self.caller.call("run")
        msgid = self.request()
        answer = msgpack.packb([1, msgid, None, "right"])
        await self.rejected("not_a_response", msgpack.packb([0, msgid, "run", [1]]))
        await self.rejected("not_a_response", msgpack.packb([2, "run", []]))
        await self.rejected("wrong_peer", answer, stranger)
        await self.rejected("unmatched", msgpack.packb([1, msgid ^ 1, None, "wrong"]))
        self.assertFalse(call.called)
        self.peer.sendto(answer, self.port)
        self.assertEqual(await call, "right")
        await self.counted("duplicate", answer)
        await self.check_alive()

        late = self.caller.call("run", timeout=0.01)
        await self.turn()
        msgid = self.request()
        await self.assertFailure(late, errors.RequestTimedOut)
        await self.counted("late", msgpack.packb([1, msgid, None, "late"]))
        while waiting_in(self.peer):
            await self.turn()
        await self.check_alive()

        cancelled = self.caller.call("run")
        await self.turn()
        msgid = self.request()
        cancelled.cancel()
        await self.assertFailure(cancelled, CancelledError)
        await self.counted("late", msgpack.packb([1, msgid, None, "cancelled"]))
        await self.check_alive()
        self.assertEqual(waiting_in(stranger), [])

    async def test_reflected_request_of_another(self) -> None:
        """A request that is reflected with one byte changed is no reflection."""
        call = self.caller.call("run", "text")
        datagram, self.port = self.peer.recvfrom(LIMIT)
        await self.rejected("not_a_response", datagram[:-1] + b"T")
        self.peer.sendto(datagram, self.port)
        await self.assertFailure(call, errors.PeerReflects)

    async def test_random(self) -> None:
        """Ten thousand random datagrams change nothing for a call that waits."""
        source = random.Random(20261123)  # noqa: S311  # to be repeatable
        call = self.caller.call("run")
        msgid = self.request()
        sent = 0
        for _ in range(100):
            for _ in range(100):
                head = b"" if source.random() < 0.5 else b"\x94\x01\xce" + msgid.to_bytes(4, "big") + b"\xc0\xdc"
                self.peer.sendto(head + source.randbytes(source.randrange(100)), self.port)
                sent += 1
            await self.until(lambda: sum(self.caller.stats.rejected.values()) == sent)  # noqa: B023  # awaited at once
        self.assertFalse(call.called)
        self.peer.sendto(msgpack.packb([1, msgid, None, "right"]), self.port)
        self.assertEqual(await call, "right")

    async def test_what_a_peer_would_refuse(self) -> None:
        """What the other side would refuse is refused before it is sent, and names the limit and the place."""
        deep: list[object] = []
        for _ in range(16):
            deep = [deep]
        for value, kind, text in (
            (deep, errors.LimitExceeded, "params[0][0]"),
            ([[] for _ in range(1100)], errors.LimitExceeded, "1,024"),
            ({"map": {1: 2}}, errors.EncodeError, "params[0]['map']"),
            ("x" * 8192, errors.DatagramTooLarge, "8,192"),
        ):
            error = await self.assertFailure(self.caller.call("echo", value), kind)
            self.assertIn(text, str(error))
        await self.turn()
        self.assertEqual(waiting_in(self.peer), [])
