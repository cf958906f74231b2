"""The local ports of a client: opened for its attempts, and waited for until they are free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults

from ..address import is_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import DatagramProtocol

__all__ = ["LocalPorts"]


class LocalPorts:
    """Opens ports, each with a number of its own that the system chooses.

    Args:
        reactor: What ``listen`` wants.
        interface: The local address; empty for what the kernel chooses.
        ipv6: The address family of the peer.
        listen: Opens a port, as :func:`twistedudp.transport.listen` does.

    Attributes:
        stopping: Whether no more are opened.
    """

    __slots__ = ("_closing", "_interface", "_listen", "_reactor", "stopping")

    def __init__(self, reactor: Any, interface: str, listen: Callable[..., IListeningPort], *, ipv6: bool) -> None:
        self.stopping = False
        self._reactor = reactor
        self._listen = listen
        self._closing: set[Deferred[Any]] = set()
        self._interface = interface if interface and is_ipv6(interface) is ipv6 else "::" if ipv6 else ""

    @property
    def interface(self) -> str:
        """The numeric address that ports are bound to."""
        return self._interface or "0.0.0.0"  # noqa: S104  # what "" stands for

    def open(self, protocol: DatagramProtocol) -> IListeningPort:
        """Open a port.

        Raises:
            twisted.internet.error.CannotListenError: There is none left, or the local address is none of this machine.
        """
        return self._listen(self._reactor, 0, protocol, self._interface, return_path=False)

    def closing(self, closed: Deferred[Any]) -> None:
        """Remember that a port is being closed."""
        self._closing.add(closed)

        def forget(result: object) -> object:
            self._closing.discard(closed)
            return result

        closed.addBoth(forget)

    def all_closed(self) -> Deferred[None]:
        """Return a Deferred that fires with None when all ports are free."""
        gathered: Deferred[Any] = gatherResults(list(self._closing), consumeErrors=True)
        return gathered.addCallback(lambda _: None)
