"""Which of the sockets that this process was started with is to be served: systemd's socket activation.

Theory of operation: the protocol is that of sd_listen_fds(3). Whoever starts a server passes sockets from descriptor 3
on and says so in variables of the environment: ``LISTEN_FDS`` how many, ``LISTEN_PID`` to which process,
``LISTEN_FDNAMES`` what they are called. Twisted's own reader of these wants names, which others than systemd leave out,
and its endpoints know streams only. The variables are removed, for a child of this process must not take them for its
own, and so is what would let a child inherit the sockets.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from .address import format_address
from .transport._addresses import peer_of
from .transport._inherited import InheritedSocketError, describe_descriptor

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .address import Address

__all__ = ["SOCKET_NAME", "Passed", "address_of", "choose", "forget", "passed_descriptors"]

SOCKET_NAME: Final = "udpecho"
"""``FileDescriptorName=`` of the socket that is meant, where several are passed."""

FIRST_DESCRIPTOR: Final = 3
"""``SD_LISTEN_FDS_START``."""

MOST_DESCRIPTORS: Final = 1024
"""More than anybody passes; a larger number is surely a mistake."""

_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Passed(NamedTuple):
    """A descriptor that this process was started with."""

    descriptor: int
    name: str
    """Empty where it has none."""


def forget(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Remove from an environment what tells of passed sockets, and return it."""
    return {name: environ.pop(name) for name in _VARIABLES if name in environ}


def passed_descriptors(environ: MutableMapping[str, str], pid: int) -> list[Passed]:
    """Return the sockets that were passed, and remove from the environment what says so.

    Args:
        environ: The environment of this process.
        pid: Its number.

    Raises:
        InheritedSocketError: The variables are not what sd_listen_fds(3) says, or meant for another process.
    """
    given = forget(environ)
    count = given.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdigit() and len(count) < 10 and int(count) <= MOST_DESCRIPTORS):
        raise InheritedSocketError(
            f"LISTEN_FDS={count!r} is not a number of sockets from 0 to {MOST_DESCRIPTORS}; unset it to bind a port"
        )
    if not int(count):
        return []
    meant = given.get("LISTEN_PID", "")
    if meant != str(pid):
        whose = f"is {meant!r}" if meant else "is missing"
        raise InheritedSocketError(
            f"LISTEN_FDS={count} says that sockets were passed, but LISTEN_PID {whose} and this process is {pid}: "
            "start it by 'exec' where a shell stands between, or give the socket by --fd, or unset LISTEN_FDS"
        )
    names = given.get("LISTEN_FDNAMES", "").split(":")
    passed = [
        Passed(FIRST_DESCRIPTOR + index, names[index] if index < len(names) else "") for index in range(int(count))
    ]
    for descriptor, _ in passed:
        with suppress(OSError):  # it is not open, which is told if it is the one to be served
            os.set_inheritable(descriptor, False)
    return passed


def choose(passed: list[Passed]) -> int:
    """Return the descriptor to be served: the one that is called ``udpecho``, else the first UDP socket.

    Raises:
        InheritedSocketError: There is none; the text says what was passed instead.
    """
    wanted = [each for each in passed if each.name == SOCKET_NAME] or passed
    told = {each.descriptor: describe_descriptor(each.descriptor) for each in wanted}
    for descriptor, reason in told.items():
        if not reason:
            return descriptor
    reasons = "; ".join(f"{descriptor} {reason}" for descriptor, reason in told.items())
    raise InheritedSocketError(f"none of the descriptors passed (LISTEN_FDS) is a UDP socket to serve: {reasons}")


def address_of(descriptor: int, port: int | None, interface: str | None) -> Address:
    """Return what an inherited socket is bound to.

    Args:
        descriptor: The socket.
        port: The port that was asked for, None if none was.
        interface: Likewise.

    Raises:
        InheritedSocketError: It cannot be served, or is bound to something else than was asked for.
    """
    reason = describe_descriptor(descriptor)
    if reason:
        raise InheritedSocketError(f"the descriptor {descriptor} {reason}")
    with socket.socket(fileno=os.dup(descriptor)) as handle:
        address = peer_of(handle.getsockname())
    if port not in (None, address[1]) or interface not in (None, address[0]):
        raise InheritedSocketError(
            f"the inherited socket (descriptor {descriptor}) is bound to {format_address(address)}, which --port and "
            "--interface contradict; leave them out"
        )
    return address
