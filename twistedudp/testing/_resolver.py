"""Host names on the simulated network: a table instead of a name server.

Theory of operation: the ``IHostnameResolver`` that each simulated reactor has. As with the real one, the answer never
comes inside ``resolveHostName``, addresses resolve to themselves, and a name that nobody knows completes without an
address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer

from ..address import is_ip, is_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IAddress, IReactorTime, IResolutionReceiver

__all__ = ["SimulatedResolver"]


@implementer(IHostResolution)
class SimulatedResolution:
    """A look-up that is under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cancel: Callable[[], None] | None = None

    def started(self, cancel: Callable[[], None]) -> None:
        """Say how to give the look-up up."""
        self._cancel = cancel

    def finished(self) -> None:
        """Nothing is left to give up."""
        self._cancel = None

    def cancel(self) -> None:
        """Give the look-up up: the receiver hears nothing more of it; harmless when it is over."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()


@implementer(IHostnameResolver)
class SimulatedResolver:
    """Looks host names up in the network's table.

    Args:
        clock: What the answers are scheduled with.
        look_up: Returns the addresses of a name, none if it is not known.
        delay: Returns the seconds that a look-up takes.
    """

    def __init__(
        self, clock: IReactorTime, look_up: Callable[[str], Sequence[str]], delay: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._look_up = look_up
        self._delay = delay

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Start a look-up; see ``IHostnameResolver.resolveHostName``."""
        resolution = SimulatedResolution(hostName)
        transport: Literal["TCP", "UDP"] = "UDP" if transportSemantics == "UDP" else "TCP"

        def answer() -> None:
            resolution.finished()
            for host in [hostName] if is_ip(hostName) else self._look_up(hostName):
                kind = IPv6Address if is_ipv6(host) else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind(transport, host, portNumber))
            resolutionReceiver.resolutionComplete()

        resolutionReceiver.resolutionBegan(resolution)
        call = self._clock.callLater(self._delay(), answer)
        resolution.started(call.cancel)
        return resolution
