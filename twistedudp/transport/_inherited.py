"""A UDP socket that somebody else has bound and this process was started with.

Theory of operation: a supervisor such as systemd binds a port with its own rights, keeps it while the server restarts,
and lets the server inherit the socket as a numbered descriptor. What comes so is not trusted to be what was meant: each
property that a port relies on is looked at, and the error names the descriptor and what it is. Then the socket gets the
options of our own sockets and is a :class:`~twistedudp.transport.BoundSocket` as any other. Its copy in the supervisor
is the same socket: what is set here holds there as well.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from ..address import format_address, unmapped
from ..errors import LocalError
from ._addresses import ANY_HOSTS, peer_of
from ._bound import BoundSocket, set_options

__all__ = ["InheritedSocketError", "adopt", "describe_descriptor"]

_STANDARD_STREAMS = 3
"""Descriptors below this are standard input, output and error, which a daemon replaces: the socket is copied."""

_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "Unix"}
_TYPES = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram", socket.SOCK_RAW: "raw"}


class InheritedSocketError(LocalError):
    """A descriptor is no UDP socket that can be served; the text says what it is."""


def describe_descriptor(descriptor: int) -> str:
    """Return in some words what a descriptor is; empty if it is a UDP socket, bound and without a peer."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return "is not open"
    if not stat.S_ISSOCK(mode):
        return "is no socket"
    with socket.socket(fileno=os.dup(descriptor)) as handle:
        return _foreign_kind(handle) or _unfit_state(handle)


def _foreign_kind(handle: socket.socket) -> str:
    """Return what a socket is that is no UDP socket; empty for one."""
    internet = handle.family in (socket.AF_INET, socket.AF_INET6)
    if internet and handle.type == socket.SOCK_STREAM:
        return "is a TCP socket (with systemd: write ListenDatagram=, not ListenStream=)"
    if not internet or handle.type != socket.SOCK_DGRAM:
        return f"is a {_FAMILIES.get(handle.family, 'foreign')} {_TYPES.get(handle.type, 'other')} socket"
    if handle.proto != socket.IPPROTO_UDP:
        return f"is a datagram socket of IP protocol {handle.proto}, not of UDP"
    return ""


def _unfit_state(handle: socket.socket) -> str:
    """Return what is wrong with a UDP socket; empty where nothing is."""
    host, port = handle.getsockname()[:2]
    if not port:
        return "is a UDP socket that is not bound"
    if unmapped(host) != host:
        return f"is an IPv6 socket that is bound to the IPv4 address {unmapped(host)}; let it be an IPv4 socket"
    with suppress(OSError):  # as it should be: there is no peer
        return f"is a UDP socket that is connected, to {format_address(peer_of(handle.getpeername()))}"
    return ""


def adopt(descriptor: int, *, receive_buffer: int | None = None) -> BoundSocket:
    """Take an inherited UDP socket, to be served in place of one from :func:`twistedudp.transport.bind`.

    Args:
        descriptor: Its number. It is the result's from now on, but for 0, 1 and 2, which stay open.
        receive_buffer: As for :func:`twistedudp.transport.bind`.

    Raises:
        InheritedSocketError: It is no UDP socket that is bound and has no peer.
    """
    told = describe_descriptor(descriptor)
    if told:
        raise InheritedSocketError(f"the descriptor {descriptor} {told}")
    if descriptor < _STANDARD_STREAMS:
        descriptor = os.dup(descriptor)
    handle = socket.socket(fileno=descriptor)
    try:
        handle.setblocking(False)
        handle.set_inheritable(False)
        # systemd sets it; as long as it is set, any process that asks for it takes part of the datagrams away.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        host, _ = peer_of(handle.getsockname())
        set_options(handle, wildcard=host in ANY_HOSTS)
        return BoundSocket(handle, host, receive_buffer)
    except OSError as error:
        handle.close()
        text = os.strerror(error.errno or errno.EINVAL)
        raise InheritedSocketError(f"the descriptor {descriptor} cannot be made ready to serve: {text}") from error
