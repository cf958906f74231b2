"""What the wrapped protocol is given: payloads, alone or in batches, and word of sessions.

Theory of operation: payloads are put together while the datagrams of a batch are opened, and handed over at the batch's
end, or before something is told about a session, so that what a session brought is delivered while it still is the
peer's. An exception that the protocol lets out is logged and counted here: it must end neither the batch nor a session,
the rest of which is already out of OpenSSL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from .._rate_limit import failure_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ._limits import DTLSStats

__all__ = ["Delivery"]

_log = Logger(namespace="twistedudp.dtls")


class Delivery:
    """The way to a wrapped protocol.

    Args:
        protocol: The protocol.
        stats: Where exceptions are counted.
        clock: Returns the time in seconds.

    Attributes:
        protocol: The protocol.
        arrival_times: When the kernel received what is being delivered, in nanoseconds since the epoch; one for each.
    """

    __slots__ = ("_limit", "_payloads", "_stats", "_times", "arrival_times", "protocol")

    def __init__(self, protocol: AbstractDatagramProtocol, stats: DTLSStats, clock: Callable[[], float]) -> None:
        self.protocol = protocol
        self.arrival_times: Sequence[int] = ()
        self._payloads: list[tuple[bytes, Address]] = []
        self._times: list[int] = []
        self._stats = stats
        self._limit = failure_limit(clock)

    def add(self, payloads: Sequence[bytes], address: Address, time: int | None) -> None:
        """Put payloads of one datagram to what is to be delivered.

        Args:
            payloads: The payloads.
            address: The peer.
            time: When the datagram arrived, where the port knows.
        """
        for payload in payloads:
            self._payloads.append((payload, address))
            if time is not None:
                self._times.append(time)

    def hand_over(self, payloads: Sequence[bytes], address: Address, times: Sequence[int]) -> None:
        """Deliver payloads of one peer, after what is there."""
        self._payloads += [(payload, address) for payload in payloads]
        self._times += times
        self.deliver()

    def deliver(self) -> None:
        """Hand over what is there."""
        if not self._payloads:
            return
        payloads, self._payloads = self._payloads, []
        times, self._times = self._times, []
        receive_all: Any = getattr(self.protocol, "datagrams_received", None)
        try:
            if receive_all is not None:
                self.arrival_times = times
                self._call(receive_all, payloads)
            else:
                self._one_by_one(payloads, times)
        finally:
            self.arrival_times = ()

    def tell(self, hook: str, *arguments: object) -> None:
        """Call a method that the protocol may have, after everything that came before."""
        self.deliver()
        told: Any = getattr(self.protocol, hook, None)
        if told is not None:
            self._call(told, *arguments)

    def _one_by_one(self, payloads: list[tuple[bytes, Address]], times: list[int]) -> None:
        receive: Any = self.protocol.datagramReceived
        for index, (payload, address) in enumerate(payloads):
            self.arrival_times = times[index : index + 1]
            self._call(receive, payload, address)

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        try:
            method(*arguments)
        except Exception:  # noqa: BLE001  # whatever the protocol's own fault is
            self._stats.callback_errors += 1
            if self._limit.allowed():
                _log.failure("{protocol!r} failed over a DTLS session", protocol=self.protocol)
