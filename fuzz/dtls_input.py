"""DTLS input: bytes from anybody keep no state without a cookie, are answered by no more bytes, and harm no session.

With OpenSSL as it is. Whatever comes, from strangers or in the name of a peer that has a session: nothing raises; a
handshake begins for a cookie alone that the same address was sent for the same random, within two minutes; who has
returned none is sent no more bytes than came from him; who has sent nothing is sent nothing. What the honest client
sends is delivered, once, and nothing else is; at the end its session still carries data in both directions.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from twistedudp.dtls import DTLSContext, DTLSEndpoint, DTLSLimits
from twistedudp.dtls._facts import PeerFacts
from twistedudp.dtls._records import pack
from twistedudp.dtls._session import new_connection

from ._source import Broken, Source, chunk, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.address import Address

    from ._source import Tell

__all__ = ["MAX_SIZE", "Step", "play", "seeds"]

MAX_SIZE: Final = 128
"""Bytes of an input."""

HONEST: Final = ("192.0.2.1", 50000)
_PEERS: Final = (("192.0.2.2", 50000), ("192.0.2.2", 50001), ("2001:db8::3", 9), ("192.0.2.4", 1), HONEST)
_WAITS: Final = (0.01, 1.0, 10.0, 61.0)
_KINDS: Final = (22, 21, 23, 20, 24, 255)
_EPOCHS: Final = (0, 1, 2, 0xFFFF)
_COOKIE_LIVES: Final = 120.0
_MAX_STEPS: Final = 12  # each may cost a handshake
_FLIGHTS: Final = 10  # of a handshake, and more than it has
_RANDOM: Final = slice(27, 59)
_HELLO, _HELLO_VERIFY_REQUEST = 1, 3
_REST: Final = bytes.fromhex("0006c02bc02f00ff01000014000a00060004001d0017000d0006000404030804")
"""Of a ClientHello behind the cookie: ciphers, no compression, groups and signatures."""
_LIMITS: Final = DTLSLimits(half_open=3, half_open_per_host=2, sessions=2, idle_timeout=1e6, hello_burst=1000)


class Step(IntEnum):
    """What an input can do."""

    HELLO = 0
    """A ClientHello: from whom, whose random, which cookie, its damage."""
    DATAGRAM = 1
    """Any bytes: from whom."""
    RECORD = 2
    """A record: from whom, its type, its epoch, its number, its content."""
    REPLAY = 3
    """A datagram of the honest client's once more: from whom, which, its damage."""
    HONEST = 4
    """The honest client sends something, after its handshake if it has no session yet."""
    TIME = 5
    """Time passes: how much."""
    TOGETHER = 6
    """Three earlier datagrams come at once: for each from whom, which."""


class _Contexts(NamedTuple):
    server: DTLSContext
    client: DTLSContext


@functools.cache
def _contexts() -> _Contexts:
    """Return the contexts of both sides, made once."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server.example")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(30))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    client = DTLSContext.client(accept_any_certificate_which_is_insecure=True)
    return _Contexts(DTLSContext.server(certificate, pem), client)


class _Echo(DatagramProtocol):
    """Keeps what is delivered, and echoes."""

    noisy = False

    def __init__(self) -> None:
        self.delivered: list[tuple[bytes, Address]] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a payload."""
        self.delivered.append((datagram, addr))
        transport: Any = self.transport
        transport.write(datagram, addr)


class _Wire:
    """The port: keeps what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, Address]] = []

    def write(self, data: bytes, addr: Address) -> None:
        """Take a datagram."""
        self.written.append((data, addr))


class _Play:  # budget: a server, its surroundings, and the model of what it may keep and send
    """One input played to one server."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.wire = _Wire()
        self.echo = _Echo()
        number = iter(range(1, 1000))
        self.server = DTLSEndpoint(
            self.echo,
            _contexts().server,
            reactor=self.clock,
            limits=_LIMITS,
            random_bytes=lambda size: next(number).to_bytes(size, "big"),
        )
        port: Any = self.wire
        self.server.makeConnection(port)
        self.cookies: dict[tuple[Address, bytes, bytes], float] = {}
        self.balance: Counter[Address] = Counter()
        self.proven: set[Address] = set()
        self.received: list[bytes] = []
        self.client: Any = None
        self.sent: list[bytes] = []
        self.recorded: list[bytes] = []

    @property
    def begun(self) -> int:
        """How many handshakes have ever begun."""
        stats = self.server.stats
        return self.server.half_open + stats.failed.total() + stats.opened

    def receive(self, *datagrams: tuple[bytes, Address]) -> list[bytes]:
        """Let datagrams come at once, check what became of it, and return what the honest client was sent."""
        begun, start, now = self.begun, len(self.wire.written), self.clock.seconds()
        good = [addr for datagram, addr in datagrams if self._brings_cookie(datagram, addr)]
        self.received += [datagram for datagram, _ in datagrams]
        for datagram, addr in datagrams:
            self.balance[addr] += len(datagram)
            self.tell("%s sends %s", addr, datagram)
        self.proven.update(good)
        self.server.datagrams_received(datagrams)
        if self.begun - begun > len(good):
            raise Broken(f"{self.begun - begun} handshakes have begun for {len(good)} cookies")
        written = self.wire.written[start:]
        if strange := {addr for _, addr in written} - {addr for _, addr in datagrams}:
            raise Broken(f"{strange} were sent something, who had sent nothing")
        for data, addr in written:
            self.tell("%s is sent %s", addr, data)
            if data[0] == 22 and data[13] == _HELLO_VERIFY_REQUEST:
                for hello in (one for one, peer in datagrams if peer == addr):
                    self.cookies[addr, hello[_RANDOM], data[28:]] = now
        self._check_peers()
        return [data for data, addr in written if addr == HONEST]

    def _brings_cookie(self, datagram: bytes, addr: Address) -> bool:
        """Tell whether a datagram is a ClientHello with a cookie that its sender was sent."""
        if len(datagram) < 60 or datagram[0] != 22 or datagram[13] != _HELLO:
            return False
        start = 61 + datagram[59]
        cookie = datagram[start : start + datagram[start - 1]] if start <= len(datagram) else b""
        made = self.cookies.get((addr, datagram[_RANDOM], cookie))
        return made is not None and self.clock.seconds() - made < _COOKIE_LIVES

    def _check_peers(self) -> None:
        sent: Counter[Address] = Counter()
        for data, addr in self.wire.written:
            sent[addr] += len(data)
        for addr in set(sent) - self.proven:
            if sent[addr] > self.balance[addr]:
                raise Broken(f"{addr} has sent {self.balance[addr]} bytes and was sent {sent[addr]}")
        if not set(self.echo.delivered) <= {(payload, HONEST) for payload in self.sent}:
            raise Broken(f"{self.echo.delivered} was delivered, {self.sent} was sent")
        if len(self.echo.delivered) != len(set(self.echo.delivered)):
            raise Broken(f"a payload was delivered twice: {self.echo.delivered}")
        if self.server.stats.callback_errors:
            raise Broken("the server's own protocol has raised")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in which only handshakes under way may be sent something."""
        begun, start = self.begun, len(self.wire.written)
        self.clock.advance(seconds)
        if self.begun != begun or {addr for _, addr in self.wire.written[start:]} - self.proven:
            raise Broken("strangers are sent something after a while")

    def exchange(self) -> None:
        """Have the honest client send something, which must be delivered and come back."""
        if self.client is None and not self._shake_hands():
            return
        payload = b"honest %d" % len(self.sent)
        self.sent.append(payload)
        self.client.send(payload)
        answers = self._send(self.client.bio_read(65536))
        if (payload, HONEST) not in self.echo.delivered:
            raise Broken(f"{payload!r} was not delivered, its session is lost")
        for answer in answers:
            self.client.bio_write(answer)
        if self.client.recv(65536) != payload:
            raise Broken(f"{payload!r} was not echoed")

    def _send(self, datagram: bytes) -> list[bytes]:
        self.recorded.append(datagram)
        return self.receive((datagram, HONEST))

    def _shake_hands(self) -> bool:
        """Let the honest client shake hands; return whether there was room for it."""
        client, full = new_connection(_contexts().client, PeerFacts(), _LIMITS.mtu), "half_open_full"
        before = self.server.stats.dropped[full]
        for _ in range(_FLIGHTS):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            try:
                flight = client.bio_read(65536)
            except SSL.WantReadError:
                break
            for datagram in pack(flight, _LIMITS.mtu):
                for answer in self._send(datagram):
                    client.bio_write(answer)
        if self.server.session_number(HONEST) is not None:
            self.client = client
        elif self.server.stats.dropped[full] == before:
            raise Broken("the honest client is refused")
        return self.client is not None

    @staticmethod
    def hello(random: bytes, cookie: bytes) -> bytes:
        """Return a ClientHello (RFC 6347 section 4.2.1)."""
        number = bytes([0, bool(cookie)])
        body = b"\xfe\xfd" + random + b"\0" + bytes([len(cookie)]) + cookie + _REST
        size = len(body).to_bytes(3, "big")
        message = bytes([_HELLO]) + size + number + bytes(3) + size + body
        return b"\x16\xfe\xff" + bytes(6) + number + len(message).to_bytes(2, "big") + message


def play(data: bytes, tell: Tell = silent) -> None:
    """Play one input to one server."""
    source, one = Source(data), _Play(tell)
    try:
        steps: tuple[Callable[[Source, _Play], None], ...] = (
            _hello, _datagram, _record, _replay, _honest, _time, _together,
        )  # fmt: skip
        for _ in range(_MAX_STEPS):
            if not source:
                break
            source.choose(steps)(source, one)
        if one.client is not None:
            one.exchange()
    finally:
        one.server.close_sessions()


def _hello(source: Source, one: _Play) -> None:
    peer, random = source.choose(_PEERS), bytes([source.byte() % 4]) * 32
    which, damage = source.byte(), source.byte()
    known = [(addr, cookie) for addr, of, cookie in one.cookies if of == random]
    own = [cookie for addr, cookie in known if addr == peer]
    others = [cookie for addr, cookie in known if addr != peer]
    cookies = (b"", *own[-1:], *others[-1:], bytes([which]) * 32, bytes([which]) * (which % 64))
    one.receive((_damaged(one.hello(random, cookies[which % len(cookies)]), damage), peer))


def _datagram(source: Source, one: _Play) -> None:
    peer = source.choose(_PEERS)
    one.receive((source.chunk(), peer))


def _record(source: Source, one: _Play) -> None:
    peer, kind, epoch, number = source.choose(_PEERS), source.choose(_KINDS), source.choose(_EPOCHS), source.byte()
    content = source.chunk()
    head = bytes([kind, 0xFE, 0xFD]) + epoch.to_bytes(2, "big") + bytes(5) + bytes([number])
    one.receive((head + len(content).to_bytes(2, "big") + content, peer))


def _replay(source: Source, one: _Play) -> None:
    peer, which, damage = source.choose(_PEERS), source.byte(), source.byte()
    if one.recorded:
        one.receive((_damaged(one.recorded[which % len(one.recorded)], damage), peer))


def _honest(_: Source, one: _Play) -> None:
    one.exchange()


def _time(source: Source, one: _Play) -> None:
    one.pass_time(source.choose(_WAITS))


def _together(source: Source, one: _Play) -> None:
    chosen = [(source.choose(_PEERS), source.byte()) for _ in range(3)]
    if one.received:
        one.receive(*((one.received[which % len(one.received)], peer) for peer, which in chosen))


def _damaged(datagram: bytes, damage: int) -> bytes:
    """Change one byte, cut the end off, or leave the datagram as it is: 0."""
    if damage == 0 or not datagram:
        return datagram
    if damage >= 224:
        return datagram[: len(datagram) * (damage - 223) // 33]
    place = damage % len(datagram)
    return datagram[:place] + bytes([datagram[place] ^ (1 << damage % 7)]) + datagram[place + 1 :]


def seeds() -> list[bytes]:
    """Return series to begin with."""
    honest, together = bytes([Step.HONEST]), bytes([Step.TOGETHER])

    def hello(peer: int = 0, random: int = 0, cookie: int = 0, damage: int = 0) -> bytes:
        return bytes([Step.HELLO, peer, random, cookie, damage])

    def record(peer: int, kind: int, epoch: int, content: bytes) -> bytes:
        return bytes([Step.RECORD, peer, kind, epoch, 9]) + chunk(content)

    def replay(peer: int, which: int, damage: int = 0) -> bytes:
        return bytes([Step.REPLAY, peer, which, damage])

    def time(which: int) -> bytes:
        return bytes([Step.TIME, which])

    own, other, proven = 1, 2, hello() + hello(0, 0, 1)
    return [
        hello() + hello(1) + hello(2) + hello(3),
        proven + time(1) + time(1) + record(0, 1, 0, b"\x02\x28"),
        hello() + hello(1) + hello(1, 0, other) + hello(0, 1, own) + hello(0, 0, 3) + hello(0, 0, 33),
        hello() + time(3) + hello(0, 0, 1) + hello(1) + time(3) + time(3) + hello(1, 0, 1),
        proven + hello(0, 1) + hello(0, 1, 1) + hello(1) + hello(1, 0, 1) + hello(2) + hello(2, 0, 1),
        *(hello(0, 0, 0, damage) for damage in (1, 12, 14, 20, 27, 60, 70, 225, 240, 254)),
        honest + honest + replay(4, 3) + replay(4, 4) + replay(0, 3) + replay(4, 3, 20),
        honest + hello(4) + hello(4, 1) + hello(4, 0, 3) + honest,
        honest + hello(4) + hello(4, 0, 1) + honest + record(4, 1, 0, b"\x02\x28") + honest,
        honest + replay(4, 0) + replay(4, 1) + replay(4, 2) + replay(3, 0) + replay(3, 1) + replay(4, 1, 30),
        honest + record(4, 1, 0, b"\x02\x28") + record(4, 1, 1, bytes(32)) + record(4, 2, 1, bytes(40)),
        honest + record(4, 0, 0, bytes(12)) + record(4, 3, 0, b"\1") + record(4, 2, 2, bytes(40)) + time(3),
        honest + together + bytes([4, 0, 4, 2, 0, 3]) + honest,
        bytes([Step.DATAGRAM, 0]) + chunk(b"hello") + bytes([Step.DATAGRAM, 4]) + chunk(b"") + honest,
    ]
