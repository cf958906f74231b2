"""The TCP port that metrics are read from.

Theory of operation: as with UDP ports, it is bound while options are parsed, where a taken one can be told in one line
and a daemon has not forked yet, and handed on.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from ..address import format_address, is_ipv6
from ..errors import LocalError

__all__ = ["MAX_CONNECTIONS", "bind_metrics_port"]

MAX_CONNECTIONS: Final = 32
"""Connections at once: a Prometheus has one, and there are a few of them. Each beyond is closed at once."""


def bind_metrics_port(port: int, interface: str) -> socket.socket:
    """Bind the TCP port of the metrics.

    Args:
        port: The number; 0 picks a free one.
        interface: A numeric address of this machine.

    Raises:
        LocalError: It cannot be had; the text says why and what to do, in one line.
    """
    family = socket.AF_INET6 if is_ipv6(interface) else socket.AF_INET
    bound = None
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(socket.getaddrinfo(interface, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4])
        bound.listen(MAX_CONNECTIONS)
        bound.setblocking(False)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise LocalError(_explained(error, port, interface)) from error
    return bound


def _explained(error: OSError, port: int, interface: str) -> str:
    where = format_address((interface, port))
    if error.errno == errno.EADDRINUSE:
        return (
            f"--metrics: TCP port {where} is in use (ss -ltnp tells by whom); stop it, or choose another port (0 picks "
            "a free one)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"--metrics: TCP port {where} needs a right that this process does not have; choose one from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"--metrics-interface: {interface} is not an address of this machine ('ip address' lists them); write one "
            "of these, or 0.0.0.0 or :: for all of them"
        )
    return f"--metrics: TCP port {where} cannot be bound: {error.strerror or os.strerror(error.errno or 0)}"
