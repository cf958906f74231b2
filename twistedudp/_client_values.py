"""What callers give a client and get from it, as values that can be relied on."""

from __future__ import annotations

import enum
import sys
from typing import Final, TypeVar

import msgspec

from .errors import DecodeError

__all__ = ["DEFAULT", "Default", "checked_timeout", "convert_untrusted"]

_T = TypeVar("_T")


class Default(enum.Enum):
    """The type of :data:`DEFAULT`."""

    DEFAULT = "the client's timeout"


DEFAULT: Final = Default.DEFAULT
"""As a call's timeout: the one that the client was given."""


def checked_timeout(timeout: object) -> float:
    """Return a timeout in seconds.

    Raises:
        ValueError: It is none.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= sys.float_info.max:
        raise ValueError(f"timeout={timeout!r}: it must be a positive number of seconds, since no call waits for ever")
    return float(timeout)


def convert_untrusted(result: object, returns: type[_T]) -> _T:
    """Return a server's result as the type that its caller wants.

    Raises:
        DecodeError: It does not fit.
    """
    try:
        return msgspec.convert(result, returns)
    except msgspec.ValidationError as error:
        name = getattr(returns, "__name__", repr(returns))
        raise DecodeError(f"the server's result does not fit {name}: {error}") from error
