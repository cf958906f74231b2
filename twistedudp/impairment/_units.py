"""Numbers with units, as people write them in the text form of effects.

Theory of operation: a number is read and written as a decimal fraction and becomes a binary one at the very end, so
that ``20ms`` is the float ``0.02`` and what is written is read back as the same float.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Final

from ._effect import EffectError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "bits_text",
    "bytes_text",
    "is_time",
    "parse_bits",
    "parse_bytes",
    "parse_number",
    "parse_percent",
    "parse_seconds",
    "parse_whole",
    "percent_text",
    "seconds_text",
]

# Of its own, since a program may change decimal's; 60 digits hold any product of a float's 17 and a unit's.
_EXACT: Final = Context(prec=60, traps=[])

# Bounded: what is no number is told in good time, and any float is written with fewer digits.
_NUMBER: Final = re.compile(r"(\d{1,30}(?:\.\d{0,400})?|\.\d{1,400})\s*([^\d.].*|)", re.ASCII)

_PERCENT: Final = {"%": Decimal("0.01"), "": Decimal(1)}
_SECONDS: Final = {
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # the micro sign
    "μs": Decimal("1e-6"),  # the Greek letter, which looks the same
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
}
_BITS: Final = {
    f"{prefix}bit{ending}": Decimal(1000**power)
    for power, prefix in enumerate(("", "k", "m", "g"))
    for ending in ("", "/s", "ps")
}
_BYTES: Final = {
    "": Decimal(1),
    "b": Decimal(1),
    "byte": Decimal(1),
    "bytes": Decimal(1),
    "kb": Decimal(1000),
    "kib": Decimal(1024),
    "mb": Decimal(1000_000),
    "mib": Decimal(1024 * 1024),
}


def parse_percent(text: str) -> float:
    """Read a probability: ``5%`` or ``0.05``.

    Raises:
        EffectError: It is none.
    """
    value = float(_parse(text, _PERCENT, "a probability, such as 5% or 0.05"))
    # Without this "5" would be refused as out of range, and leave the reader to guess why.
    if value > 1 and "%" not in text:
        raise EffectError(quoted(text), f"is no probability: write {quoted(text.strip())[1:-1]}%, or a fraction of 1")
    return value


def parse_seconds(text: str) -> Decimal:
    """Read a time: ``20ms``, ``1.5s``, ``300us``, ``2min``; returns seconds.

    Raises:
        EffectError: It is none.
    """
    return _parse(text, _SECONDS, "a time with its unit: us, ms, s or min, such as 20ms")


def parse_bits(text: str) -> float:
    """Read a rate: ``800bit/s``, ``64kbit``, ``1.5mbit``, ``1gbit``; returns bits per second.

    Raises:
        EffectError: It is none.
    """
    return float(_parse(text, _BITS, "a rate in bit/s, kbit/s, mbit/s or gbit/s, such as 1mbit"))


def parse_bytes(text: str) -> int:
    """Read a size: ``1400``, ``1400B``, ``64kB``, ``64KiB``, ``1MB``; returns bytes.

    Raises:
        EffectError: It is none, or no whole number of bytes.
    """
    return _whole(text, _parse(text, _BYTES, "a size in B, kB, KiB, MB or MiB, such as 1400B"))


def parse_whole(text: str) -> int:
    """Read a whole number.

    Raises:
        EffectError: It is none.
    """
    return _whole(text, _parse(text, {"": Decimal(1)}, "a whole number"))


def parse_number(text: str) -> float:
    """Read a number without a unit.

    Raises:
        EffectError: It is none.
    """
    return float(_parse(text, {"": Decimal(1)}, "a number"))


def is_time(text: str) -> bool:
    """Tell whether a text is a number with a unit of time."""
    match = _NUMBER.fullmatch(text.strip())
    return match is not None and match[2].lower() in _SECONDS


def percent_text(value: float) -> str:
    """Write a probability; :func:`parse_percent` reads it back."""
    return f"{_times(value, 100)}%"


def seconds_text(value: float) -> str:
    """Write a time; :func:`parse_seconds` reads it back."""
    if value >= 1 or not value:
        return f"{_times(value, 1)}s"
    return f"{_times(value, 1000)}ms" if value >= 0.001 else f"{_times(value, 1000_000)}us"


def bits_text(value: float) -> str:
    """Write a rate; :func:`parse_bits` reads it back."""
    for unit in ("gbit", "mbit", "kbit"):
        if value >= _BITS[unit]:
            return _plain(_EXACT.divide(Decimal(repr(value)), _BITS[unit])) + unit
    return f"{_times(value, 1)}bit"


def bytes_text(value: int) -> str:
    """Write a size; :func:`parse_bytes` reads it back."""
    return f"{value}B" if value % 1000 or not value else f"{value // 1000}kB"


def _parse(text: str, units: Mapping[str, Decimal], what: str) -> Decimal:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise EffectError(quoted(text), f"is not {what}")
    return _EXACT.multiply(Decimal(match[1]), units[match[2].lower()])


def _whole(text: str, value: Decimal) -> int:
    if value != value.to_integral_value(context=_EXACT):
        raise EffectError(quoted(text), "is not a whole number")
    return int(value)


def _times(value: float, factor: int) -> str:
    return _plain(_EXACT.multiply(Decimal(repr(value)), Decimal(factor)))


def _plain(value: Decimal) -> str:
    return format(value.normalize(_EXACT), "f")
