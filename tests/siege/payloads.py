"""What an attacker sends: bytes without meaning, bombs, requests, replies, and what looks like DTLS.

Theory of operation: an attack takes its payloads in turn from a list; of each a part may be random every time, which
``forge.c`` fills in, so that a few dozens stand for millions. All are made from a seed.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from twistedudp import _msgpack

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Payload",
    "as_file",
    "bombs",
    "client_hello",
    "client_hellos",
    "dtls_junk",
    "echoes",
    "noise",
    "proofs",
    "replies",
    "requests",
    "session_records",
]

_HEAD: Final = struct.Struct("!HHH")
_LARGEST: Final = 1400
"""Bytes; a raw socket does not cut a packet into fragments."""
_MSGID: Final = 0x11223344
_RANDOM: Final = 32
"""Bytes of the random of a ClientHello, and of our cookies."""


class Payload(NamedTuple):
    """What a datagram carries."""

    data: bytes
    random_from: int = 0
    """Where the part begins that is random each time."""
    random_length: int = 0


def as_file(payloads: Iterable[Payload]) -> bytes:
    """Return payloads as ``forge.c`` reads them."""
    return b"".join(_HEAD.pack(len(one.data), one.random_from, one.random_length) + one.data for one in payloads)


def noise(seed: int, count: int = 64) -> list[Payload]:
    """Return bytes without meaning: of any size, some all random, some that begin as a message does; one is empty."""
    rng = random.Random(seed)  # noqa: S311  # to be repeatable
    made = [Payload(b"")]
    for _ in range(count - 1):
        size = rng.choice((1, 2, 3, 12, 13, 64, 300, _LARGEST))
        begin = rng.choice((b"", b"", b"\x94\x00", b"\x94\x01", b"\x93\x02", b"\x94\x00\xce"))[: size - 1]
        made.append(Payload(begin + rng.randbytes(size - len(begin)), len(begin), min(256, size - len(begin))))
    return made


def bombs() -> list[Payload]:
    """Return what makes careless decoders allocate or recurse: nested headers, claimed sizes, many empty containers."""
    bodies = [
        b"\xdc\xff\xff" * (_LARGEST // 3),
        b"\xde\xff\xff\xa1k" * (_LARGEST // 5),
        b"\xdd\xff\xff\xff\xff" * (_LARGEST // 5),
        b"\xdd\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        b"\x91" * 1025,
        b"\x81\xa1k" * 400,
        b"\xdc" + struct.pack("!H", 1390) + b"\x80" * 1390,
        b"\xdc" + struct.pack("!H", 1390) + b"\x90" * 1390,
        b"\xc7\x0c\xff" + struct.pack("!Iq", 3_999_999_999, 2**62),
        b"\x82\xa1k\x01\xa1k\x02",
        b"\xc1",
        b"\xa4\xff\xfe\xfd\xfc",
    ]
    # Alone, as the parameters of a request that is otherwise right, and as the result of a response.
    call = _msgpack.encode_request(_MSGID, "add", ())[:-1]
    response = _msgpack.encode_response(_MSGID, None, None)[:-1]
    made = [Payload(body[:_LARGEST]) for body in bodies]
    made += [Payload((call + b"\x92" + body + b"\x01")[:_LARGEST], 3, 4) for body in bodies]
    made += [Payload((response + body)[:_LARGEST], 3, 4) for body in bodies]
    return made


def requests(method: str, *params: object) -> list[Payload]:
    """Return a request that a server runs; its number is random each time."""
    return [Payload(_msgpack.encode_request(_MSGID, method, params), 3, 4)]


def replies(result: object = "forged") -> list[Payload]:
    """Return responses with random numbers: a result, an error, and one that wants an address proven."""
    wanted = {"code": "unproven_address", "message": "prove it", "data": bytes(16)}
    made = (
        _msgpack.encode_response(_MSGID, None, result),
        _msgpack.encode_response(_MSGID, {"code": "forged", "message": "forged"}, None),
        _msgpack.encode_response(_MSGID, wanted, None),
    )
    return [Payload(data, 3, 4) for data in made]


def proofs() -> list[Payload]:
    """Return proofs of an address with random tokens, and ones of another form."""
    head = b"\x93\x02\xa9rpc.prove\x91\xc4"
    return [
        Payload(head + b"\x10" + bytes(16), len(head) + 1, 16),
        Payload(head + b"\x08" + bytes(8), len(head) + 1, 8),
        Payload(b"\x93\x02\xa9rpc.prove\x91\xc0"),
    ]


def echoes(size: int = 32) -> list[Payload]:
    """Return what an echo server sends back: random bytes, at least eight."""
    return [Payload(bytes(size), 0, size)]


def client_hellos(seed: int, *, cookies: bool) -> list[Payload]:
    """Return ClientHellos that are right, of a new client each time: without a cookie, or with one that is forged."""
    rng = random.Random(seed)  # noqa: S311  # to be repeatable
    made = [client_hello(rng.randbytes(_RANDOM) if cookies else b"") for _ in range(16 if cookies else 1)]
    return [Payload(hello, random_at, _RANDOM) for hello, random_at in made]


def dtls_junk(seed: int, count: int = 64) -> list[Payload]:
    """Return ClientHellos of DTLS 1.2, right but for their cookie, and ones that are cut, wrong or of another kind."""
    rng = random.Random(seed)  # noqa: S311  # to be repeatable
    made = []
    for number in range(count):
        hello, random_at = client_hello(b"" if number % 2 else rng.randbytes(_RANDOM))
        if number % 4 == 2:
            hello = hello[: rng.randrange(1, len(hello))]
        elif number % 4 == 3:
            at = rng.randrange(len(hello))
            hello = hello[:at] + rng.randbytes(1) + hello[at + 1 :]
        made.append(Payload(hello, random_at, _RANDOM) if random_at + _RANDOM <= len(hello) else Payload(hello))
    others = (20, 21, 23, 24, 25)  # ChangeCipherSpec, alert, data, heartbeat, connection id
    heads = [struct.pack("!BHHIHH", kind, 0xFEFD, 1, 0, 7, 64) for kind in others]
    made += [Payload(head + rng.randbytes(64), len(head), 64) for head in heads]
    return made


def session_records(seed: int, count: int = 64) -> list[Payload]:
    """Return records as somebody forges them who knows the addresses of a session but not its keys; none is answered.

    Data, alerts, the handshake's messages and ChangeCipherSpec, of the epoch of the session, in the clear, or of one to
    come; alone and several at once, cut, or with a length that is not theirs.
    """
    rng = random.Random(seed)  # noqa: S311  # to be repeatable
    made = [Payload(_record(21, 0, bytes(pair), rng)) for pair in ((2, 40), (2, 48), (1, 0), (2, 80), (1, 90))]
    made += [Payload(_record(22, 0, bytes([0, 0, 0, 0]) + bytes(8), rng)), Payload(_record(20, 0, b"\x01", rng))]
    while len(made) < count:
        size = rng.choice((2, 16, 26, 40, 64, 300, 1300))
        data = _record(rng.choice((20, 21, 22, 23, 23, 23)), rng.choice((0, 1, 1, 1, 2, 0xFFFF)), bytes(size), rng)
        if data[0] == 22:  # not a ClientHello
            data = data[:13] + rng.choice((b"\x00", b"\x02", b"\x0b", b"\x10", b"\x14")) + data[14:]
        if rng.random() < 0.2:
            data = data[: rng.randrange(1, len(data))]
        if rng.random() < 0.2:
            data += _record(23, 1, rng.randbytes(40), rng)
        random_at = min(len(data), 25)
        made.append(Payload(data, random_at, len(data) - random_at))
    return made


def client_hello(cookie: bytes) -> tuple[bytes, int]:
    """Return a ClientHello (RFC 6347 section 4.2.1) in its record, and where its random bytes begin.

    With a cookie it is a client's second message; the cookie begins 34 bytes after the random.
    """
    number = int(bool(cookie))
    ciphers = struct.pack("!HHHH", 6, 0xC02B, 0xC02F, 0x00FF)
    groups = struct.pack("!HHHHH", 10, 6, 4, 0x001D, 0x0017)
    signatures = struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0804)
    extensions = groups + signatures
    body = b"\xfe\xfd" + bytes(_RANDOM) + b"\x00" + bytes([len(cookie)]) + cookie + ciphers + b"\x01\x00"
    body += struct.pack("!H", len(extensions)) + extensions
    size = len(body).to_bytes(3, "big")
    handshake = b"\x01" + size + struct.pack("!H", number) + bytes(3) + size
    record = struct.pack("!BHHIHH", 22, 0xFEFF, 0, 0, number, len(handshake) + len(body))
    return record + handshake + body, len(record) + len(handshake) + 2


def _record(kind: int, epoch: int, content: bytes, rng: random.Random) -> bytes:
    """Return a record of DTLS 1.2 with any number."""
    return struct.pack("!BHHIHH", kind, 0xFEFD, epoch, 0, rng.randrange(2**16), len(content)) + content
