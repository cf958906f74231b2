"""What people type, as the values that are sent.

Theory of operation: pure functions, apart from reading standard input. Whatever cannot be meant ends in
``Misuse``, whose text tells how to write it.
"""

from __future__ import annotations

import json
import math
import os
import sys

import click

from ..address import LARGEST_PAYLOAD

__all__ = ["Misuse", "datagram", "parameter"]

_MOST_HEX = 4 * LARGEST_PAYLOAD
"""Bytes of hexadecimal text that are read: two digits for each byte, and as much white space."""


class Misuse(click.UsageError):
    """A usage error whose text tells what to write instead; Click's own do not."""


def datagram(text: str, *, hexadecimal: bool) -> bytes:
    """Return the bytes that ``udpecho send`` shall send.

    Args:
        text: The argument TEXT; ``-`` reads standard input to its end.
        hexadecimal: The text, or what is read, is hexadecimal digits, with white space as you like.

    Raises:
        Misuse: It is more than a datagram can carry, or not hexadecimal.
    """
    # The bytes that were typed, whatever the locale made of them.
    typed = _standard_input(_MOST_HEX if hexadecimal else LARGEST_PAYLOAD) if text == "-" else os.fsencode(text)
    return _from_hex(typed) if hexadecimal else typed


def _standard_input(limit: int) -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise Misuse("standard input is closed: there is nothing to send; write TEXT instead of -")
    # One byte more than the limit tells that there is too much; all of it might be without an end.
    read = sys.stdin.buffer.read(limit + 1)
    if len(read) > limit:
        raise Misuse(
            f"standard input has more than {limit:,} bytes, and one datagram carries at most {LARGEST_PAYLOAD:,} "
            "(65,507 over IPv4); send it in pieces"
        )
    if not read:
        click.echo("udpecho: standard input is empty: an empty datagram is sent", err=True)
    return read


def _from_hex(typed: bytes) -> bytes:
    try:
        return bytes.fromhex(typed.decode("ascii"))
    except ValueError as error:
        raise Misuse("--hex takes pairs of the digits 0-9 and a-f, such as 'c0 ff ee'") from error


def parameter(text: str) -> object:
    """Return the value of one ARG: its JSON value, and the text itself where it is no JSON.

    Raises:
        Misuse: It begins like a list, a map or a quoted text, but is no JSON: a slip, not a bare word.
    """
    try:
        value: object = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise Misuse("an argument is nested too deeply to be sent") from error
    except ValueError as error:
        if text.startswith(("[", "{", '"')):
            where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
            raise Misuse(f"{_shortened(text)} is not JSON{where}; quote it for the shell: '{{...}}'") from error
        return text
    return value


def _no_constant(name: str) -> object:
    """Refuse NaN and Infinity, which Python's reader accepts and JSON does not have: they are bare words."""
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """Refuse a number beyond the range of floats, of which Python's reader would make an infinity."""
    number = float(text)
    if math.isinf(number):
        raise Misuse(f"{_shortened(text)} is beyond the range of numbers; to send it as a text write '\"{text}\"'")
    return number


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
