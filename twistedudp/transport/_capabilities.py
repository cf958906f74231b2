"""What this kernel, or a device of this host, cannot do, said once.

Theory of operation: whatever makes a port faster but is not needed is tried, and left alone by a socket on which it
does not work. An operator wants to know of it, but once and not for each socket.
"""

from __future__ import annotations

import socket

from twisted.logger import Logger

from . import _kernel

__all__ = ["can_segment", "lacking"]

_log = Logger(namespace="twistedudp.transport")
_said: set[str] = set()


def can_segment(handle: socket.socket) -> bool:
    """Tell whether a socket cuts a buffer into datagrams (UDP_SEGMENT), and log once if it does not.

    It must be asked: kernels before Linux 4.18 skip a control message that they do not know (``ip_cmsg_send`` and
    ``ip6_datagram_send_ctl`` pass over other levels), and would send the whole buffer as one datagram.

    Args:
        handle: The socket.
    """
    if not _kernel.LINUX:
        return False
    try:
        handle.getsockopt(socket.IPPROTO_UDP, _kernel.UDP_SEGMENT)
    except OSError as error:
        lacking("UDP_SEGMENT", error)
        return False
    return True


def lacking(capability: str, error: OSError) -> None:
    """Log once in a process that something does not work here, and that nothing is lost by it but speed.

    Args:
        capability: What the kernel calls it.
        error: What it said.
    """
    if capability not in _said:
        _said.add(capability)
        _log.info(
            "{capability} does not work here ({reason}): slower, but no loss",
            capability=capability,
            reason=error.strerror,
        )
