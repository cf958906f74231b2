"""Connections that only pretend, on a clock of the test's.

Theory of operation: records have real headers, so that what reads datagrams meets what it knows; what is in them is
plain. The handshake has the flights of the real one: ClientHello, HelloVerifyRequest, ClientHello with the cookie, the
server's flight, the client's last flight, the server's. Timers are OpenSSL's, 1 s and doubling, by the clock given.
``test_connections.py`` runs one contract on these and on real Connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from OpenSSL import SSL

from twistedudp.dtls._failures import PeerRefused
from twistedudp.dtls._records import HEADER_SIZE, client_random, is_client_hello

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.dtls._facts import PeerFacts

__all__ = ["CLIENT_LAST", "HANDSHAKE", "FakeConnection", "FakePolicy", "application_record", "hello", "last", "record"]

ALERT, HANDSHAKE, DATA = 21, 22, 23
HELLO, SERVER_HELLO, HELLO_VERIFY, SERVER_DONE, CLIENT_LAST, SERVER_LAST = 1, 2, 3, 14, 16, 20


def record(kind: int, epoch: int, number: int, content: bytes) -> bytes:
    """Return a record with its header."""
    head = bytes([kind, 0xFE, 0xFD]) + epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return head + len(content).to_bytes(2, "big") + content


def message(kind: int, body: bytes) -> bytes:
    """Return a handshake message with its header."""
    size = len(body).to_bytes(3, "big")
    return bytes([kind]) + size + b"\0\0" + b"\0\0\0" + size + body


def hello(random: bytes, cookie: bytes = b"", number: int = 0) -> bytes:
    """Return a ClientHello in a record."""
    body = b"\xfe\xfd" + random + b"\0" + bytes([len(cookie)]) + cookie
    return record(HANDSHAKE, 0, number, message(HELLO, body))


def last(random: bytes, number: int = 2) -> bytes:
    """Return the last flight of the client with this random."""
    return record(HANDSHAKE, 0, number, message(CLIENT_LAST, random))


def application_record(random: bytes, payload: bytes, number: int = 1000) -> bytes:
    """Return a record of application data, as the peer with this random would make it."""
    return record(DATA, 1, number, random + payload)


class FakeConnection:
    """Pretends to be an ``OpenSSL.SSL.Connection``.

    As a real one, it does not answer a ClientHello that comes again: its own timer repeats the flight.

    Args:
        facts: Its application data.
        clock: Returns the time in seconds.
        random: The client's random; ``None`` in the server role.

    Attributes:
        fails: Lists of what the next calls of a method raise, by the method's name.
        written: The datagrams that were written into it and not read yet.
        not_drained: How often a datagram was written while another was still unread.
        calls: The names of the methods called.
    """

    def __init__(self, facts: PeerFacts, clock: Callable[[], float], random: bytes | None) -> None:
        self.app_data: Any = facts
        self.fails: dict[str, Any] = {}
        self.written: list[bytes] = []
        self.not_drained = 0
        self.calls: list[str] = []
        self.server_name: bytes | None = None
        self.mtu = 0
        self.complete = False
        self._clock = clock
        self._client = random is not None
        self._random = random or b""
        self._cookie = b""
        self._out: list[bytes] = []
        self._last_flight: list[bytes] = []
        self._timer: tuple[float, float] | None = None
        self._number = 0
        self._seen: set[int] = set()
        self._broken: SSL.Error | None = None
        self._closed = False

    def set_app_data(self, data: object, /) -> None:
        """Keep something."""
        self.app_data = data

    def set_ciphertext_mtu(self, mtu: int, /) -> None:
        """Set the bytes of the largest datagram."""
        self.mtu = mtu

    def get_cleartext_mtu(self) -> int:
        """Return what is left of them."""
        return self.mtu - HEADER_SIZE - 32

    def set_tlsext_host_name(self, name: bytes, /) -> None:
        """Note it."""
        self.server_name = name

    def get_peer_certificate(self, *, as_cryptography: Literal[True]) -> None:
        """Return nothing."""

    def bio_write(self, buf: bytes, /) -> int:
        """Take a datagram."""
        self.not_drained += bool(self.written)
        self.written.append(buf)
        return len(buf)

    def bio_read(self, bufsiz: int, /) -> bytes:
        """Return everything that is to be sent."""
        if not self._out:
            raise SSL.WantReadError
        flight = b"".join(self._out)
        self._out.clear()
        return flight[:bufsiz]

    def send(self, buf: bytes, /) -> int:
        """Make a record."""
        self._fail("send")
        if not buf:
            raise SSL.SysCallError(-1, "Unexpected EOF")
        self._out.append(record(DATA, 1, self._next(), self._random + buf))
        return len(buf)

    def recv(self, bufsiz: int, /) -> bytes:
        """Return a payload."""
        self._fail("recv")
        while self.written:
            kind, epoch, number, content = self._take()
            if kind == HANDSHAKE and content[0] == CLIENT_LAST and not self._client and number not in self._seen:
                self._seen.add(number)  # the client has not got our last flight
                self._out += self._last_flight
            if epoch != 1 or not content.startswith(self._random) or number in self._seen:
                continue
            self._seen.add(number)
            body = content[len(self._random) :]
            if kind == DATA and body:
                return body[:bufsiz]
            if kind == ALERT:
                self._closed = True
        if self._closed:
            raise SSL.ZeroReturnError
        raise SSL.WantReadError

    def shutdown(self) -> bool:
        """Make a close_notify."""
        if not self.complete:
            raise SSL.Error([("SSL routines", "", "shutdown while in init")])
        self._out.append(record(ALERT, 1, self._next(), self._random))
        return self._closed

    def DTLSv1_listen(self) -> None:
        """Look for a ClientHello with a good cookie."""
        self._fail("DTLSv1_listen")
        facts: PeerFacts = self.app_data
        assert facts.cookies is not None
        for datagram in self.written:
            if len(datagram) < 61 or not is_client_hello(datagram):
                continue
            random, cookie = client_random(datagram), datagram[61 : 61 + datagram[60]]
            if facts.cookies.verifies(cookie, facts.peer, facts.random, now=facts.now):
                self._random = random
                self.written.clear()
                return
            made = facts.cookies.make(facts.peer, facts.random, now=facts.now)
            self._out.append(record(HANDSHAKE, 0, 0, message(HELLO_VERIFY, b"\xfe\xff" + bytes([len(made)]) + made)))
        self.written.clear()
        raise SSL.WantReadError

    def do_handshake(self) -> None:
        """Take a step."""
        self.calls.append("do_handshake")
        self._fail("do_handshake")
        if self._broken is not None:
            raise self._broken
        if not self._last_flight:
            self._begin()
        while self.written and not self.complete:
            kind, epoch, _, content = self._take()
            if kind == ALERT and epoch == 0:
                self._broken = SSL.Error([("SSL routines", "", "ssl/tls alert handshake failure")])
                raise self._broken
            if kind == HANDSHAKE:
                self._step(content)
        if not self.complete:
            raise SSL.WantReadError

    def DTLSv1_get_timeout(self) -> float | None:
        """Return the seconds left."""
        return None if self._timer is None else max(0.0, self._timer[0] - self._clock())

    def DTLSv1_handle_timeout(self) -> bool:
        """Send again."""
        self._fail("DTLSv1_handle_timeout")
        if self._timer is None or self._clock() < self._timer[0] - 0.015:
            return False
        self._start_timer(2 * self._timer[1])
        self._out += self._last_flight
        return True

    def _begin(self) -> None:
        if self._client:
            self._send_flight(hello(self._random, number=self._next()))
        else:
            # Two records, as many as a server has that asks for nothing.
            kinds = (SERVER_HELLO, SERVER_DONE)
            self._send_flight(*(record(HANDSHAKE, 0, self._next(), message(kind, self._random)) for kind in kinds))

    def _step(self, content: bytes) -> None:
        kind, body = content[0], content[12:]
        if self._client and kind == HELLO_VERIFY:
            self._send_flight(hello(self._random, body[3:], self._next()))
        elif self._client and kind == SERVER_DONE and body == self._random:
            self._send_flight(record(HANDSHAKE, 0, self._next(), message(CLIENT_LAST, self._random)))
        elif self._client and kind == SERVER_LAST:
            self.complete, self._timer = True, None
        elif not self._client and kind == CLIENT_LAST and body == self._random:
            self._send_flight(record(HANDSHAKE, 0, self._next(), message(SERVER_LAST, self._random)))
            self.complete, self._timer = True, None

    def _send_flight(self, *records: bytes) -> None:
        self._last_flight = list(records)
        self._out += records
        self._start_timer(1.0)

    def _start_timer(self, seconds: float) -> None:
        self._timer = self._clock() + seconds, seconds

    def _take(self) -> tuple[int, int, int, bytes]:
        """Take a record out of the first datagram."""
        datagram = self.written[0]
        end = HEADER_SIZE + int.from_bytes(datagram[11:13], "big")
        rest = datagram[end:]
        if rest:
            self.written[0] = rest
        else:
            del self.written[0]
        number = int.from_bytes(datagram[5:11], "big")
        return datagram[0], int.from_bytes(datagram[3:5], "big"), number, datagram[HEADER_SIZE:end]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _fail(self, method: str) -> None:
        if self.fails.get(method):
            raise self.fails[method].pop(0)


class FakePolicy:
    """Pretends to be a :class:`DTLSContext`.

    Attributes:
        made: The Connections that it made.
        name: The name that all peers have; a PeerRefused is raised.
    """

    def __init__(self, clock: Callable[[], float], *, is_server: bool) -> None:
        self.generation = 0
        self.is_server = is_server
        self.made: list[FakeConnection] = []
        self.name: str | PeerRefused | None = "peer.example"
        self._clock = clock

    def connection(self, facts: PeerFacts, /) -> FakeConnection:
        """Return a new one; clients' randoms are counted."""
        random = None if self.is_server else (len(self.made) + 1).to_bytes(32, "big")
        made = FakeConnection(facts, self._clock, random)
        self.made.append(made)
        return made

    def verified_name(self, connection: object, server_name: str | None, /) -> str | None:
        """Return the name."""
        if isinstance(self.name, PeerRefused):
            raise self.name
        return self.name
