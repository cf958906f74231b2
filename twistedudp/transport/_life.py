"""What a port has between its start and its end: the socket, the backend that serves it, and what the reactor watches.

Theory of operation: what is registered with the reactor on Linux is not the socket but a private epoll descriptor that
holds the socket alone: a socket whose error queue is used raises EPOLLERR, on which the epoll and poll reactors close a
descriptor for good and uvloop stops reading, whereas an epoll descriptor is only ever readable. It needs no system call
of its own: reading the socket empties it. When datagrams wait for room in the send buffer, the epoll descriptor is
asked to wait for that as well, and is then readable because of either; elsewhere the port becomes a writer of the
reactor's, as any Twisted transport does.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ILoggingContext

from . import _kernel
from ._backend import PortSocket, make_backend
from ._bound import ask_hops, ask_timestamps
from ._unreachable import UnreachableReports

if TYPE_CHECKING:
    import socket

    from ._admitting import PortAdmission
    from ._backend import Backend
    from ._bound import BoundSocket
    from ._stats import DatagramStats

__all__ = ["Life", "PortOptions", "prefix_of"]


@dataclass(slots=True, frozen=True)
class PortOptions:
    """What a port was asked for beside its address; see :func:`twistedudp.transport.listen`."""

    receive_buffer: int | None
    return_path: bool
    reuse_port: bool
    timestamps: bool
    answer_hops: bool = False
    admission: PortAdmission | None = None


class Life:
    """A port from startListening to the end of stopListening.

    Args:
        port: The port, which the reactor will call.
        bound: The socket to serve; it is taken.
        backend: The name of the backend that is to serve it.
        stats: The port's counters.
        options: What else the port was asked for.

    Attributes:
        handle: The socket.
        backend: What reads and writes it.
        reports: What the network says about datagrams sent, and how large they may be.
        stopping: Whether the end has begun.

    Raises:
        OSError: There is no descriptor left; the socket is closed.
    """

    __slots__ = ("_port", "_writing", "backend", "epoll", "handle", "reports", "stopping")

    def __init__(self, port: Any, bound: BoundSocket, backend: str, stats: DatagramStats, options: PortOptions) -> None:
        self.handle: socket.socket = bound.take()
        self.stopping = False
        self._port = port
        self._writing = False
        self.epoll: select.epoll | None = None
        stats.receive_buffer = bound.receive_buffer
        self.reports = UnreachableReports(self.handle, port.protocol, stats, port.reactor)
        try:
            if _kernel.LINUX:  # only now, after any fork, for a child would share it with its parent
                self.epoll = select.epoll()
                self.epoll.register(self.handle.fileno(), select.EPOLLIN)
            self.backend: Backend = make_backend(backend, self._port_socket(bound, stats, options))
        except BaseException:
            self._close_descriptors()
            raise

    def fileno(self) -> int:
        """Return the descriptor that the reactor watches."""
        return self.handle.fileno() if self.epoll is None else self.epoll.fileno()

    def watch_writable(self, wanted: bool) -> None:  # as PortSocket has it
        """Have the port called when the socket can take more, or no longer.

        Args:
            wanted: Whether datagrams wait for room in the send buffer.
        """
        if wanted == self._writing:
            return
        self._writing = wanted
        if self.epoll is not None:
            self.epoll.modify(self.handle.fileno(), select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)
        elif wanted:
            self._port.reactor.addWriter(self._port)
        else:
            self._port.reactor.removeWriter(self._port)

    def close(self) -> None:
        """Send what the kernel still takes, and close the descriptors."""
        try:
            self.backend.refresh_stats()  # the kernel's counters are gone with the socket
            self.backend.close()
            self.watch_writable(False)  # as PortSocket has it
        finally:
            self._close_descriptors()

    def _port_socket(self, bound: BoundSocket, stats: DatagramStats, options: PortOptions) -> PortSocket:
        return PortSocket(
            handle=self.handle,
            protocol=self._port.protocol,
            stats=stats,
            reports=self.reports,
            reactor=self._port.reactor,
            watch_writable=self.watch_writable,
            wildcard=bound.wildcard,
            to_group=bound.to_group,
            return_path=options.return_path,
            size_limit=self._port.max_datagram_size,
            timestamps=options.timestamps and ask_timestamps(self.handle),
            answer_hops=options.answer_hops and ask_hops(self.handle),
            admission=options.admission,
        )

    def _close_descriptors(self) -> None:
        if self.epoll is not None:
            self.epoll.close()
        self.handle.close()


def prefix_of(protocol: Any) -> str:
    """Return a protocol's name in the log, as Twisted's ports do."""
    return str(protocol.logPrefix()) if ILoggingContext.providedBy(protocol) else type(protocol).__name__
