"""One series of probes on the network: a port, a timer, and the account that :mod:`.probing` keeps.

Theory of operation: probes leave at ``start + n * interval`` by the monotonic clock, never at "an interval after the
last one", so that lateness does not add up; what has come due meanwhile leaves in the same turn. Each probe carries the
time at which it is written, taken immediately before. They are written one by one and not as a batch: in a batch all
but the last would wait for the others, and nobody would know which of them the own machine has refused. An answer's
arrival is what the kernel says, brought over to the monotonic clock, so that a busy process does not lengthen a round
trip.

When the schedule has ended, the answers under way are waited for, each until its timeout. Then an rpc server is asked
for its counts, which split the loss into there and back, and the port is closed.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import fail, succeed
from twisted.internet.error import CannotListenError

from . import transport
from ._pacing import clocks_of
from ._probe_run import MAX_STRANGERS, ProbePort, ProbeRun, Sending
from .address import canonical, format_address, is_ip, is_ipv6, max_payload
from .errors import CannotSend, InvalidAddress, LocalError
from .probing import DEFAULT_PROBE_SIZE, DEFAULT_WINDOW, ProbeSeries, ProbeWire, SeriesNames

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import DatagramProtocol

    from ._pacing import Clocks
    from .address import Address
    from .probing import ProbeEvent, Summary

__all__ = ["MAX_STRANGERS", "Prober", "Schedule", "Way", "new_series"]

_NS: Final = 1_000_000_000

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG = 10, 23, 62  # <linux/in.h>, <linux/in6.h>
_PMTUDISC_PROBE: Final = 3
"""<linux/in.h>: DF is set, and what the kernel believes of the path's MTU, which may be old or forged, is ignored."""


class Way(Protocol):
    """Another way to the server than a port of the prober's own: a session that is open already."""

    def begin(self, protocol: DatagramProtocol) -> Any:
        """Be the protocol's transport, and return what serves as its port."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When probes are to be sent; with neither a count nor a duration, until :meth:`Prober.stop`."""

    interval_ns: int
    """Nanoseconds between two probes."""
    count: int | None = None
    """How many probes."""
    duration_ns: int | None = None
    """Nanoseconds from the first probe on in which probes are sent."""


def new_series(
    target: str,
    peer: Address,
    *,
    size: int = DEFAULT_PROBE_SIZE,
    interval: float,
    timeout: float = 2.0,
    window: int = DEFAULT_WINDOW,
) -> ProbeSeries:
    """Return a series with a random session and random padding.

    Args:
        target: The server as the user named it.
        peer: Its numeric address and its port.
        size: Bytes of each probe.
        interval: Seconds between two probes.
        timeout: Seconds after which an answer is late.
        window: Probes remembered at once; see :class:`~twistedudp.probing.ProbeTable`.

    Raises:
        ValueError: The size is too small, or too large for the address's family.
    """
    most = max_payload(peer[0])
    if size > most:
        raise ValueError(f"size={size}: a UDP datagram to {peer[0]} carries at most {most:,} bytes")
    session = 1 << 63 | secrets.randbits(63)  # MessagePack writes what is less than 2^32 in fewer bytes
    wire = ProbeWire(session, size, secrets.token_bytes(size))
    names = SeriesNames(target, format_address(peer), interval)
    return ProbeSeries(wire, names, timeout_ns=round(timeout * _NS), window=window)


class Prober:
    """Send a series of probes to one server, and fire with the summary.

    Args:
        reactor: Any reactor, real or simulated.
        peer: The server's numeric address and port.
        series: From :func:`new_series`; for this prober alone.
        schedule: When to send.
        on_event: Called with each event; what it raises is logged.
        interface: The local address to send from; empty for what the kernel chooses.
        dont_fragment: Send with DF set (IP_PMTUDISC_PROBE, ip(7); IPV6_DONTFRAG), whatever the kernel believes of the
            path's MTU. A probe larger than the own device's MTU is then told as ``not_sent``.
        clocks: Others than the machine's, for tests.
        way: How probes get to the peer, such as a :class:`~._secure_probes.ProbeSessions`, which is closed at the end;
            None opens a port. ``interface`` and ``dont_fragment`` are for that port only.

    Attributes:
        strangers: How many datagrams came from which other addresses; at most :data:`MAX_STRANGERS` of these.

    Raises:
        InvalidAddress: The peer or the interface is not numeric, or they are of different families.
    """

    def __init__(
        self,
        reactor: Any,
        peer: Address,
        series: ProbeSeries,
        schedule: Schedule,
        *,
        on_event: Callable[[ProbeEvent], None] | None = None,
        interface: str = "",
        dont_fragment: bool = False,
        clocks: Clocks | None = None,
        way: Way | None = None,
    ) -> None:
        self.strangers: dict[Address, int] = {}
        self._reactor = reactor
        self._peer = _checked(peer, interface)
        self._schedule = schedule
        self._interface = interface
        self._dont_fragment = dont_fragment
        self._way = way
        self._clocks = clocks_of(reactor) if clocks is None else clocks
        self._run = ProbeRun(reactor, self._clocks, series, on_event)

    @property
    def port(self) -> IListeningPort | None:
        """The port while probes are sent and answers waited for, None at other times."""
        return None if self._run.ended else self._run.port

    def run(self) -> Deferred[Summary]:
        """Open a port, probe, and close it; once for each prober.

        Returns:
            A Deferred that fires with the :class:`~twistedudp.probing.Summary` when the schedule has ended, every
            answer is in or timed out, an rpc server was asked for its counts, and the port is closed. It fails with
            ``CannotSend`` where ``interface`` is no address of this machine, and with another ``LocalError`` where
            there is no port to be had or the peer cannot be sent to at all (a broadcast address, UDP port 0).
            Cancelling it ends everything at once.

        Raises:
            LocalError: It has been called before.
        """
        run = self._run
        if run.ended and run.port is None:  # stopped before
            return succeed(run.series.summary())
        if run.port is not None:
            raise LocalError("a Prober runs once; make another one, with another series")
        try:
            self._open(run)
        except CannotListenError as error:
            return fail(_no_port(error, self._interface))
        run.begin(Sending(run, self._reactor, self._clocks, self._peer, self._schedule))
        return run.done

    def stop(self) -> None:
        """End at once: the Deferred of :meth:`run` fires with the summary of what there is.

        Probes whose answers were still awaited are neither received nor lost then, nor among the sent ones; how many
        they were stands among the oddities as ``unanswered_at_stop``.
        """
        self._run.stop()

    def _open(self, run: ProbeRun) -> None:
        protocol = ProbePort(run, self._peer, self.strangers)
        if self._way is not None:
            run.port = self._way.begin(protocol)
            return
        ipv6 = is_ipv6(self._peer[0])
        run.port = transport.listen(
            self._reactor,
            0,
            protocol,
            self._interface or ("::" if ipv6 else ""),
            return_path=False,
            timestamps=True,
        )
        handle = run.port.getHandle() if self._dont_fragment and hasattr(run.port, "getHandle") else None
        if handle is None:
            return
        if ipv6:
            handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            handle.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)  # else the own kernel fragments for its device
        else:
            handle.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)


def _checked(peer: Address, interface: str) -> Address:
    """Return the peer as ports spell it."""
    for host in (peer[0], interface):
        if host and not is_ip(host):
            raise InvalidAddress(f"{host!r} is not a numeric address")
    if interface and is_ipv6(interface) is not is_ipv6(peer[0]):
        raise InvalidAddress(f"interface={interface!r} is of another address family than {peer[0]}")
    return canonical(peer[0]), peer[1]


def _no_port(error: CannotListenError, interface: str) -> LocalError:
    """Return what to tell where no port can be opened."""
    number = getattr(error.socketError, "errno", 0)
    if number == errno.EADDRNOTAVAIL:
        return CannotSend(interface)
    reason = os.strerror(number) if number else str(error.socketError)
    return LocalError(f"this machine gives no UDP port to probe from: {reason}")
