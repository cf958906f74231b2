"""What a caller may ask of a port, checked before anything is bound.

Theory of operation: a wrong argument that is let pass fails later, in a turn of the reactor's or in the kernel, where
nobody knows any more who gave it. So each is looked at when the port is made, and the error names it and its value in
one sentence. What is possible but refused by the system, such as a UDP port that is taken or out of range, is not dealt
with here: it is a ``CannotListenError``, as Twisted has it.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.error import MessageLengthError

from ._addresses import family_of
from ._errors import invalid_address

__all__ = ["CALLERS_ERRORS", "MAX_RECEIVE_BUFFER", "check_bind", "check_options", "check_peer", "check_where"]

CALLERS_ERRORS: Final = (OSError, MessageLengthError, OverflowError, TypeError, ValueError, LookupError)
"""What ``send`` raises for a datagram that its caller made wrong; ``InvalidAddressError`` is a ValueError."""

MAX_RECEIVE_BUFFER: Final = 2**31 - 1
"""Bytes: SO_RCVBUF is an ``int`` (socket(7))."""


def check_bind(port: Any, receive_buffer: Any, **flags: Any) -> None:
    """Check what a socket is to be bound with; see :func:`twistedudp.transport.bind`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: The receive buffer is not one of 1 to 2,147,483,647 bytes.
    """
    if not _is_integer(port):
        raise TypeError(f"port={port!r}: it must be an int from 0 to 65535")
    if receive_buffer is not None:
        _check_size("receive_buffer", receive_buffer, "None or an int, in bytes")
        if receive_buffer > MAX_RECEIVE_BUFFER:
            raise ValueError(f"receive_buffer={receive_buffer!r}: it must be at most {MAX_RECEIVE_BUFFER} bytes")
    _check_flags(flags)


def check_where(reactor: Any, port: Any, interface: Any) -> None:
    """Check where to listen; see :func:`twistedudp.transport.listen`.

    The interface comes first, as with Twisted's ports, whose tests have it so.

    Raises:
        twisted.internet.error.InvalidAddressError: The interface is not a numeric address.
        TypeError: The reactor has neither ``addReader`` nor ``listenUDP``, or the port is no number.
    """
    if interface and family_of(interface) is None:
        raise invalid_address(interface, "not an IPv4 or IPv6 address.")
    if not hasattr(reactor, "addReader") and not hasattr(reactor, "listenUDP"):
        raise TypeError(f"reactor={reactor!r}: it must be a Twisted reactor")
    check_bind(port, None)


def check_options(protocol: Any, max_datagram_size: Any, receive_buffer: Any, **flags: Any) -> None:
    """Check what a port is to be made of, but for where it listens; see :func:`twistedudp.transport.listen`.

    Args:
        protocol: Needs ``makeConnection``, and must not be a class.
        max_datagram_size: Must be a number of bytes.
        receive_buffer: None, or a number of bytes.
        flags: Must be True or False, each.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A size is less than 1, or too large.
    """
    if isinstance(protocol, type):
        name = protocol.__name__
        raise TypeError(f"protocol={name}: it is a class; pass an instance of it, such as {name}()")
    if not hasattr(protocol, "makeConnection"):
        raise TypeError(f"protocol={protocol!r}: it must be a DatagramProtocol, or have its methods")
    _check_size("max_datagram_size", max_datagram_size, "an int, in bytes")
    check_bind(0, receive_buffer, **flags)


def check_peer(addr: Any) -> None:
    """Check that an address to write to is a pair.

    Raises:
        twisted.internet.error.InvalidAddressError: It is a text, or has no port.
    """
    if isinstance(addr, (str, bytes)) or len(addr) < 2:
        raise invalid_address(addr, "write() needs an address of the form (host, port)")


def _check_size(name: str, value: Any, kind: str) -> None:
    if not _is_integer(value):
        raise TypeError(f"{name}={value!r}: it must be {kind}")
    if value < 1:
        raise ValueError(f"{name}={value!r}: it must be at least 1 byte")


def _check_flags(flags: dict[str, Any]) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r}: it must be True or False")


def _is_integer(value: Any) -> bool:
    """Tell whether it is a number, which True and False are not meant to be."""
    return isinstance(value, int) and not isinstance(value, bool)
