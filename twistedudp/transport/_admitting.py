"""Admission at a port: the policy, its counters, and what is said in the log.

Theory of operation: every datagram is decided about before anything else is done with it. The compiled backend does so
by itself (``_mmsg/_admission.pyx``). The one in plain Python reads through an :class:`AdmittedSocket`, which passes on
what is let in and reads on past what is not, so that a port without a policy does not even ask. Ports that are not ours
are given an :class:`AdmittedProtocol`, which stands before the real one. All keep their counters in one
:class:`PortAdmission`, and tell it of what they refused, a few at a time.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from .._refusals import RefusalLog
from ..admission import PACKET, Admission, AdmissionPolicy, AdmissionStats, weight_of
from . import _kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..address import Address
    from ..admission import Refusals
    from ._stats import DatagramStats

__all__ = ["READS_IN_A_ROW", "AdmittedProtocol", "AdmittedSocket", "PortAdmission", "check_admission"]

READS_IN_A_ROW: Final = 128
"""Datagrams that are refused before the port is told that there is nothing: a read turn has as many, and a flood of
datagrams that are not let in must not keep the reactor for longer than one of others."""

_KEY_SIZE: Final = 32
_SEGMENTS: Final = (socket.IPPROTO_UDP, _kernel.UDP_GRO)

_log = Logger(namespace="twistedudp.transport")


def check_admission(admission: object) -> None:
    """Check the argument of that name.

    Raises:
        TypeError: It is neither None nor a policy.
    """
    if admission is not None and not isinstance(admission, AdmissionPolicy):
        raise TypeError(f"admission={admission!r}: it must be None or a twistedudp.AdmissionPolicy")


class PortAdmission:
    """A port's policy, with what belongs to it for the port's whole life.

    Args:
        policy: Who is let in.
        clock: Returns monotonic nanoseconds.
        key: What the places of senders in the tables follow from; random if it is not given.
        log: Where refusals are told.

    Attributes:
        policy: As given.
        stats: The counters.
        clock: As given.
        key: As above.
    """

    __slots__ = ("_decider", "_refusals", "clock", "key", "policy", "stats")

    def __init__(
        self,
        policy: AdmissionPolicy,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        key: bytes = b"",
        log: Logger = _log,
    ) -> None:
        self.policy = policy
        self.stats = AdmissionStats()
        self.clock = clock
        self.key = key or os.urandom(_KEY_SIZE)
        self._decider: Admission | None = None
        self._refusals = RefusalLog(lambda: clock() / 1e9, log, would_refuse=policy.log_only)

    @property
    def decider(self) -> Admission:
        """What decides in plain Python; made at its first use, since its tables take 2 MiB."""
        if self._decider is None:
            self._decider = Admission(self.policy, key=self.key, stats=self.stats)
        return self._decider

    def admits(self, host: str, size: int) -> bool:
        """Decide about one datagram of so many bytes, in plain Python, and tell of its refusal."""
        decider = self.decider
        let_in = decider.admits(host, self.clock(), weight_of(size))
        if decider.has_refused:
            self.tell(decider.take_refusals())
        return let_in

    def tell(self, refusals: Iterable[Refusals]) -> None:
        """Log what was refused, as far as it is to be logged."""
        for reason, host, number in refusals:
            self._refusals.refused(reason, host, self._why(reason), number)

    def close(self) -> None:
        """Log how many refusals were not logged: the port stops."""
        self._refusals.close()

    def _why(self, reason: str) -> str:
        policy = self.policy
        if reason == "denied":
            return "its network is denied"
        if reason == "not_allowed":
            return "its network is not among the allowed"
        if reason == "host_rate":
            who, rate = "the host", policy.rate
        elif reason == "network_rate":
            who, rate = "the network", policy.rate * policy.network_factor
        else:
            who, rate = "all senders together", policy.total_rate
        return f"{who} sent more than {rate:,g} datagrams of up to {PACKET:,} bytes a second"


class AdmittedSocket:
    """A socket from which only what is let in is read; anything else about it is the socket's own.

    Args:
        handle: The socket.
        admission: The policy and its counters.
        stats: The port's counters, for the system calls that read what was refused.
    """

    def __init__(self, handle: socket.socket, admission: PortAdmission, stats: DatagramStats) -> None:
        self._handle = handle
        self._admission = admission
        self._decider = admission.decider
        self._stats = stats

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def recvfrom(self, size: int) -> tuple[bytes, Any]:
        """Receive the next datagram that is let in; see :meth:`socket.socket.recvfrom`.

        Raises:
            BlockingIOError: There is none, or too many in a row were refused: then others may be waiting.
        """
        decider, clock = self._decider, self._admission.clock
        try:
            for _ in range(READS_IN_A_ROW):
                received = self._handle.recvfrom(size)
                if decider.admitted(received[1][0], clock(), 1, weight_of(len(received[0]))):
                    return received
                self._stats.system_calls += 1
        finally:
            if decider.has_refused:
                self._admission.tell(decider.take_refusals())
        raise self._enough()

    def recvmsg(self, size: int, ancillary_size: int) -> tuple[bytes, _kernel.Ancillary, int, Any]:
        """Receive the next buffer of which anything is let in; see :meth:`socket.socket.recvmsg`.

        A buffer may hold several datagrams (UDP_GRO). If only some of them are let in, it is cut.

        Raises:
            BlockingIOError: As :meth:`recvfrom`.
        """
        decider, clock = self._decider, self._admission.clock
        try:
            for _ in range(READS_IN_A_ROW):
                received = self._handle.recvmsg(size, ancillary_size)
                buffer, ancillary, flags, sockaddr = received
                segment = _segment_size(ancillary)
                count = max(1, -(-len(buffer) // segment)) if segment else 1
                weight = weight_of(segment if count > 1 else len(buffer))
                let_in = decider.admitted(sockaddr[0], clock(), count, weight)
                if let_in == count:
                    return received
                if let_in:
                    return buffer[: let_in * segment], ancillary, flags, sockaddr
                self._stats.system_calls += 1
        finally:
            if decider.has_refused:
                self._admission.tell(decider.take_refusals())
        raise self._enough()

    def _enough(self) -> BlockingIOError:
        self._stats.system_calls -= 1  # whoever is told that there is nothing counts one himself
        return BlockingIOError("refused so many in a row")


class AdmittedProtocol(DatagramProtocol):
    """A protocol on a port that is not ours, to which only what is let in is passed on.

    Args:
        protocol: The real one.
        admission: The policy and its counters.
    """

    def __init__(self, protocol: Any, admission: PortAdmission) -> None:
        self._protocol = protocol
        self._admission = admission
        self.noisy = getattr(protocol, "noisy", True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def makeConnection(self, transport: Any) -> None:
        """Start the real protocol: the port is its transport."""
        self._protocol.makeConnection(transport)

    def doStop(self) -> None:
        """Stop the real protocol."""
        self._protocol.doStop()
        self._admission.close()

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Pass on what is let in."""
        if self._admission.admits(addr[0], len(datagram)):
            self._protocol.datagramReceived(datagram, addr)

    def connectionRefused(self) -> None:
        """Pass it on."""
        self._protocol.connectionRefused()

    def logPrefix(self) -> str:
        """Return the real protocol's name in the log."""
        prefix = getattr(self._protocol, "logPrefix", None)
        return type(self._protocol).__name__ if prefix is None else str(prefix())


def _segment_size(ancillary: _kernel.Ancillary) -> int:
    """Return the bytes of each datagram where a buffer holds several, else 0."""
    for level, kind, data in ancillary:
        if (level, kind) == _SEGMENTS:
            return _kernel.parse_segment_size(data)
    return 0
