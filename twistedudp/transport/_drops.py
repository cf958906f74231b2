"""What the kernel has dropped because a socket's receive buffer was full.

Theory of operation: Linux keeps one counter for each socket. It tells it with the datagrams that follow a loss
(SO_RXQ_OVFL, socket(7)), so that the losses at the end of a burst remain untold until the next datagram; and it tells
it when asked (SO_MEMINFO, Linux 4.12), which is exact and costs nothing for each datagram. So it is asked, and only
where it cannot be, what came with datagrams counts. The counter has 32 bits and begins anew with each socket; the port
counts on.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from . import _kernel

if TYPE_CHECKING:
    from ._stats import DatagramStats

__all__ = ["KernelDrops"]


class KernelDrops:
    """Brings ``dropped_by_kernel`` up to date for one socket.

    Args:
        handle: The socket.
        stats: The port's counters.

    Attributes:
        asked: Whether the kernel can be asked, as far as is known.
    """

    __slots__ = ("_handle", "_lost", "_seen", "_stats", "asked")

    def __init__(self, handle: socket.socket, stats: DatagramStats) -> None:
        self._handle = handle
        self._stats = stats
        self.asked = _kernel.LINUX
        self._seen = 0
        self._lost = stats.dropped_by_kernel

    def refresh(self) -> None:
        """Ask the kernel, where it can be asked."""
        if not self.asked:
            return
        try:
            drops = _kernel.parse_drops(
                self._handle.getsockopt(socket.SOL_SOCKET, _kernel.SO_MEMINFO, _kernel.MEMINFO_SIZE)
            )
        except OSError:  # before Linux 4.12, or closed
            drops = None
        if drops is None:
            self.asked = False
        else:
            self._count(drops)

    def told(self, count: int) -> None:
        """Take what came with a datagram, which may be older than what the kernel said when asked.

        Args:
            count: The value of the control message (SO_RXQ_OVFL).
        """
        if not self.asked:
            self._count(count)

    def _count(self, count: int) -> None:
        self._lost += (count - self._seen) & 0xFFFFFFFF
        self._seen = count
        self._stats.dropped_by_kernel = self._lost
