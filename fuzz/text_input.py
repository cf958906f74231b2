"""Text input: what people type is refused in one printable line, or is what reads the same when it is written again.

That is ``HOST:PORT`` and the effects of a bad network. The first byte tells which; the rest is the text, in which bytes
that are no UTF-8 stand as in a program's arguments.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from twistedudp import address as addresses
from twistedudp.impairment import EFFECTS, Datagram, EffectError, format_effects, parse_effects

from ._source import Broken, silent

if TYPE_CHECKING:
    from twistedudp.impairment import LinkEffect

    from ._source import Tell

__all__ = ["MAX_SIZE", "WORDS", "play", "seeds"]

MAX_SIZE: Final = 256
"""Bytes of an input."""

WORDS: Final = (
    *EFFECTS,
    "±",
    ":ordered",
    "never",
    ":icmp",
    "on",
    "off",
    "ms",
    "min",
    "kbit/s",
    "KiB",
    "%",
    "[::1]:",
    "65535",
    "1",
)
"""What texts are made of."""

_LONGEST_LINE: Final = 2048  # characters of an error; it may quote the text, each byte of it as \\udcff
_CLIENT: Final = ("127.0.0.1", 50000)
_SERVER: Final = ("127.0.0.2", 10000)


def play(data: bytes, tell: Tell = silent) -> None:
    """Read one text."""
    text = data[1:].decode("utf-8", "surrogateescape")
    tell("%r", text)
    try:
        if data[:1] and data[0] & 1:
            _effects(text, tell)
        else:
            _address(text, tell)
    except EffectError as error:
        _check_line(error)
        if not data[0] & 1:
            raise Broken("an address has no effects") from error
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        _check_line(error)
        tell("refused: %s", error)


def _check_line(error: Exception) -> None:
    line = str(error)
    if not line or not line.isprintable() or len(line) > _LONGEST_LINE:
        raise Broken(f"the error is no line that can be printed: {line!r}") from error


def _address(text: str, tell: Tell) -> None:
    address = addresses.parse_host_port(text, 10000)
    tell("is %s", address)
    host, port = address
    if not host or not 1 <= port <= 65535:
        raise Broken(f"{text!r} is {address}")
    written = addresses.format_address(address)
    if addresses.parse_host_port(written, 7) != address:
        raise Broken(f"{address} is written as {written!r}, which is {addresses.parse_host_port(written, 7)}")


def _effects(text: str, tell: Tell) -> None:
    parsed = parse_effects(text)
    tell("is %s", parsed)
    again = parse_effects(str(parsed))
    if (again.terms, again.seed) != (parsed.terms, parsed.seed):
        raise Broken(f"{parsed} is read again as {again}")
    there, back = parsed.make_pair()
    written = format_effects(there, parsed.seed)
    if repr(parse_effects(written).make_pair()) != repr((there, back)):
        raise Broken(f"{there} is written as {written!r}, which is {parse_effects(written).make_pair()[0]}")
    for effect in there:
        _pass_through(effect)


def _pass_through(effect: LinkEffect) -> None:
    """Send a few datagrams through an effect at once, and look at what leaves it."""
    rng = random.Random(1)  # noqa: S311  # inputs are reproducible on purpose
    for size in (0, 1, 2000):
        for arrival in effect(Datagram(_CLIENT, _SERVER, bytes(size)), 1000.0, rng):
            if not 0.0 <= arrival.delay < float("inf") or len(arrival.datagram.payload) > size:
                raise Broken(f"{effect!r} makes {arrival} of {size} bytes")


def seeds() -> list[bytes]:
    """Return texts that are right, and some that are not."""
    effects = [effect.example for effect in EFFECTS.values()]
    effects += [
        "loss=5%,delay=20ms±5ms:ordered,duplicate=1%,seed=7",
        "gilbert=1%:25%:0.5%:90%",
        "partition=5s-9s:20s-:off",
    ]
    effects += [
        "nat=never:::1",
        "rate=64kbit/s:200ms",
        "delay=20ms±30ms",
        "los=5%",
        "seed=1,seed=2",
        "loss=2",
        "mtu=1280:x",
        "",
    ]
    peers = [
        "localhost",
        "localhost:10000",
        "[::1]:10000",
        "fe80::1%eth0",
        "::1",
        "192.0.2.1:0",
        "[::1",
        "a b:1",
        ":5",
        "",
    ]
    return [b"\x01" + text.encode() for text in effects] + [b"\x00" + text.encode() for text in peers]
