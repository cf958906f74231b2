"""Which code reads and writes a port's socket, and what both sides know of each other.

Theory of operation: a port owns the life of a socket and hands everything about it to a backend in one
:class:`PortSocket`. There are two backends behind the one surface :class:`Backend`: ``mmsg``, compiled, which moves
many datagrams with one system call (Linux), and ``scalar``, in plain Python, which runs everywhere. The compiled one is
taken where it was built and works; ``TWISTEDUDP_BACKEND`` in the environment, or ``backend=`` of a port, decides
otherwise. Which one serves, and why, is logged once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from twisted.logger import Logger

from ..errors import LocalError
from . import _kernel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from ..address import Address
    from ._admitting import PortAdmission
    from ._scalar import Refused
    from ._stats import DatagramStats
    from ._unreachable import UnreachableReports

__all__ = [
    "BACKENDS",
    "ENVIRONMENT_VARIABLE",
    "Backend",
    "BackendChoice",
    "PortSocket",
    "choose_backend",
    "make_backend",
]

BACKENDS: Final = ("mmsg", "scalar")
"""The names of the backends, the preferred one first."""

ENVIRONMENT_VARIABLE: Final = "TWISTEDUDP_BACKEND"
"""The environment variable that names the backend for all ports which are not told."""

_log = Logger(namespace="twistedudp.transport")
_announced: set[str] = set()
_NOT_BUILT: Final = "the compiled one was not built when twistedudp was installed (is there a C compiler?)"


@dataclass(slots=True)
class PortSocket:
    """A bound socket and all that a backend needs to serve it."""

    handle: socket.socket
    protocol: Any
    stats: DatagramStats
    reports: UnreachableReports
    reactor: Any
    """Provides ``callLater``."""
    watch_writable: Callable[[bool], None]
    """Have ``send_waiting`` or ``read_turn`` called when the socket can take more; False ends it."""
    wildcard: bool
    """Whether it takes datagrams for any address of this host."""
    to_group: bool
    """Whether it is bound to a broadcast or multicast address."""
    return_path: bool
    """Whether answers are to leave from the address that was asked."""
    size_limit: int
    """Bytes of the largest datagram to deliver."""
    timestamps: bool
    """Whether the kernel is to tell when each datagram arrived (SO_TIMESTAMPNS)."""
    admission: PortAdmission | None = None
    """Who is let in; None for everybody."""
    answer_hops: bool = False
    """Whether the kernel tells the hop limit of each datagram, and answers are to have one less (IP_RECVTTL)."""


class Backend(Protocol):
    """What a port needs of a backend; the port owns the socket, the backend reads and writes it."""

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the datagrams being delivered arrived, in nanoseconds since the epoch; empty if not asked for."""

    def read_turn(self) -> None:
        """Send what waited for room, then deliver what has arrived, within the bounds of a turn. Raises nothing."""

    def send_waiting(self) -> None:
        """Send what waited for room in the send buffer. Raises nothing."""

    def send(self, datagram: bytes, addr: Address | None) -> None:
        """Send one datagram; the network's faults are counted, the caller's raised."""

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams; return those that ``send`` would have raised an error for."""

    def connect(self, addr: Address) -> None:
        """Let the socket have one peer, to which ``send`` then sends without an address."""

    def stop(self) -> None:
        """Deliver nothing any more, also if a turn is just running; ``send`` goes on until the socket is closed."""

    def close(self) -> None:
        """Send what still waits if the kernel takes it, count the rest as dropped; the socket is about to be closed."""

    def refresh_stats(self) -> None:
        """Bring those counters up to date which the kernel keeps."""


class BackendChoice(NamedTuple):
    """A backend's name, and why it is this one."""

    name: str
    reason: str


def choose_backend(wanted: str | None = None) -> BackendChoice:
    """Decide which backend serves a port.

    Args:
        wanted: ``"mmsg"`` or ``"scalar"``; None asks the environment, and then takes the best that there is.

    Raises:
        LocalError: There is no backend of that name, or it cannot run here; the message says why.
    """
    source = "backend= asks for it"
    if wanted is None:
        wanted = os.environ.get(ENVIRONMENT_VARIABLE) or None
        source = f"{ENVIRONMENT_VARIABLE} asks for it"
    if wanted is not None and wanted not in BACKENDS:
        raise LocalError(f"there is no backend {wanted!r} ({source}); the backends are {' and '.join(BACKENDS)}")
    if wanted == "scalar":
        return BackendChoice("scalar", source)
    obstacle = _why_not_compiled()
    if obstacle:
        if wanted is not None:
            raise LocalError(f"the backend {wanted!r} ({source}) cannot run: {obstacle}; {_cure(obstacle, source)}")
        return BackendChoice("scalar", obstacle)
    return BackendChoice("mmsg", source if wanted else "it was built and the system has recvmmsg")


def make_backend(name: str, port_socket: PortSocket) -> Backend:
    """Return a backend that serves a socket.

    Args:
        name: As :func:`choose_backend` gave it.
        port_socket: The socket and what belongs to it.
    """
    if name == "mmsg":
        from ._mmsg import MmsgBackend  # noqa: PLC0415  # it may not have been built

        return MmsgBackend(port_socket)
    from ._admitting import AdmittedSocket  # noqa: PLC0415  # only where it serves
    from ._batching import BatchingBackend  # noqa: PLC0415  # only where it serves
    from ._routes import Routes  # noqa: PLC0415  # likewise
    from ._scalar import ScalarBackend  # noqa: PLC0415  # likewise

    handle, admission = port_socket.handle, port_socket.admission
    source: Any = handle if admission is None else AdmittedSocket(handle, admission, port_socket.stats)
    routes = Routes(
        source,
        port_socket.stats,
        wildcard=port_socket.wildcard,
        to_group=port_socket.to_group,
        return_path=port_socket.return_path,
    )
    if port_socket.answer_hops:
        routes.take_hops()
    make = BatchingBackend if hasattr(port_socket.protocol, "datagrams_received") else ScalarBackend
    return make(
        handle,
        port_socket.protocol,
        port_socket.stats,
        routes,
        port_socket.reports,
        size_limit=port_socket.size_limit,
        watch_writable=port_socket.watch_writable,
        timestamps=port_socket.timestamps,
    )


def announce(choice: BackendChoice) -> None:
    """Log which backend serves, once in a process for each of them."""
    if choice.name not in _announced:
        _announced.add(choice.name)
        _log.info("UDP ports are served by the backend {name}: {reason}", name=choice.name, reason=choice.reason)


def _cure(obstacle: str, source: str) -> str:
    """Return what to do about a backend that was asked for and cannot run."""
    without = f"unset {ENVIRONMENT_VARIABLE}" if ENVIRONMENT_VARIABLE in source else "leave out backend="
    if obstacle == _NOT_BUILT:
        return f"install a C compiler and Python's headers and reinstall twistedudp, or {without}"
    return without


def _why_not_compiled() -> str:
    """Return what keeps the compiled backend from running, empty if nothing does."""
    if not _kernel.LINUX:
        return "the compiled one is for Linux"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():  # CPython 3.13, free-threaded: importing it would end that
        return "the compiled one relies on the GIL"
    try:
        from . import _mmsg  # noqa: PLC0415  # whether it was built is the question
    except (ImportError, ValueError) as error:  # ValueError: modules that were built at different times
        if isinstance(error, ModuleNotFoundError):
            return _NOT_BUILT
        return f"the compiled one cannot be loaded ({error})"
    obstacle = _mmsg.obstacle()
    return f"the compiled one cannot run here ({obstacle})" if obstacle else ""
