"""One function to listen, whatever the reactor.

Theory of operation: our own port needs a reactor with file descriptors on a POSIX system, which all but a few are. For
these few the reactor's own ``listenUDP`` serves, so that a program need not ask where it runs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IReactorFDSet

from ..interfaces import IDatagramPort
from ._admitting import AdmittedProtocol, PortAdmission, check_admission
from ._arguments import check_options, check_where
from ._bound import check_bound
from ._errors import cannot_listen
from ._port import MAX_DATAGRAM_SIZE, DatagramPort

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..admission import AdmissionPolicy
    from ._bound import BoundSocket
    from ._port import PortReactor

__all__ = ["listen"]


def listen(
    reactor: Any,
    port: int,
    protocol: AbstractDatagramProtocol,
    interface: str = "",
    max_datagram_size: int = MAX_DATAGRAM_SIZE,
    *,
    receive_buffer: int | None = None,
    bound: BoundSocket | None = None,
    return_path: bool = True,
    reuse_port: bool = False,
    timestamps: bool = False,
    answer_hops: bool = False,
    admission: AdmissionPolicy | None = None,
    backend: str | None = None,
) -> IListeningPort:
    """Listen on a UDP port; the arguments are those of ``reactor.listenUDP``.

    Args:
        reactor: The reactor. Where it has no file descriptors, or the system is not POSIX, its own ``listenUDP``
            serves: then neither ICMP errors are told nor are the bounds of this port in force.
        port: The UDP port; 0 lets the kernel choose.
        protocol: A ``DatagramProtocol``.
        interface: A numeric address of this host. ``""`` means all of IPv4, ``"::"`` all of IPv6 and IPv4.
        max_datagram_size: Bytes of the largest datagram to deliver; larger ones are dropped and counted.
        receive_buffer: The receive buffer to ask the kernel for, in bytes; a smaller one granted is logged once. None
            asks for 4 MiB and is content with less.
        bound: A socket from :func:`bind` to listen on; ``port``, ``interface``, ``receive_buffer`` and ``reuse_port``
            are its own.
        return_path: Let answers leave from the address that was asked, where the port has several. A client, which
            answers nobody, saves a microsecond for each datagram without.
        reuse_port: Let other sockets have the same port (SO_REUSEPORT); see :func:`bind`.
        timestamps: Have the kernel tell when each datagram arrived, for ``arrival_times`` of the port; Linux only.
        answer_hops: Give each answer a hop limit of one less than that of what came, at most 64, and send none where
            that is 0. For protocols that answer whatever comes: two of them that answer each other then fall silent
            after 64 datagrams (RFC 862 carries nothing that tells an answer from a question). Linux only.
        admission: Who may send to this port and how often, decided before anything else is done with a datagram; see
            ``admission_stats`` of the port. None lets everybody in, which is right for a client.
        backend: ``"mmsg"`` or ``"scalar"``, what is to read and write the socket. None asks the environment variable
            ``TWISTEDUDP_BACKEND`` and then takes the best there is. Nothing where ``listenUDP`` serves.

    Returns:
        A :class:`DatagramPort`, or what ``reactor.listenUDP`` returned.

    Raises:
        twisted.internet.error.CannotListenError: The port is taken, needs more rights, the address is not this host's,
            or this kind of reactor or system has no ``reuse_port``.
        twisted.internet.error.InvalidAddressError: ``interface`` is not a numeric address.
        twistedudp.errors.LocalError: There is no such backend, or it cannot run here.
        TypeError: An argument is of the wrong kind.
        ValueError: A size is less than 1 byte or too large.
    """
    check_where(reactor, port, interface)
    flags = {
        "return_path": return_path, "reuse_port": reuse_port, "timestamps": timestamps, "answer_hops": answer_hops,
    }  # fmt: skip
    if IReactorFDSet.providedBy(reactor) and os.name == "posix":
        where = port, protocol, interface, max_datagram_size
        others: dict[str, Any] = {"receive_buffer": receive_buffer, "admission": admission, **flags}
        own = DatagramPort(cast("PortReactor", reactor), *where, bound=bound, backend=backend, **others)
        own.startListening()
        return own
    check_options(protocol, max_datagram_size, receive_buffer, **flags)
    check_bound(bound)
    check_admission(admission)
    if bound is not None:
        port, interface = bound.port, bound.interface
        bound.close()
    elif reuse_port:
        raise cannot_listen(interface, port, "this reactor cannot share a UDP port (reuse_port=True)")
    where = port, protocol, interface, max_datagram_size
    return _listen_elsewhere(reactor, where, timestamps=timestamps, admission=admission)


def _listen_elsewhere(
    reactor: Any, where: tuple[int, Any, str, int], *, timestamps: bool, admission: AdmissionPolicy | None
) -> IListeningPort:
    """Listen on the reactor's own port: a simulated one, which can all that ours can, or Twisted's.

    Args:
        reactor: The reactor.
        where: The arguments of its ``listenUDP``.
        timestamps: As :func:`listen` has it.
        admission: Likewise.
    """
    port, protocol, interface, max_datagram_size = where
    admitted = None
    if admission is not None:
        admitted = PortAdmission(admission, clock=lambda: round(reactor.seconds() * 1e9))
        if not getattr(reactor, "ports_take_admission", False):
            protocol = AdmittedProtocol(protocol, admitted)
    theirs: IListeningPort = reactor.listenUDP(port, protocol, interface, max_datagram_size)
    made: Any = theirs
    if IDatagramPort.providedBy(theirs):
        made.timestamps, made.admission = timestamps, admitted
    elif admitted is not None:
        made.admission_stats = admitted.stats
    return theirs
