"""The page that Prometheus reads.

Theory of operation: it is prometheus_client's own resource for twisted.web, on a port that is bound already.
Connections are few and short: there is a bound on their number and on how long one may be idle, and those that are open
at the end are closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from ..address import format_address
from ._metrics_port import MAX_CONNECTIONS

if TYPE_CHECKING:
    import socket

    from prometheus_client import CollectorRegistry
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

__all__ = ["MetricsPage"]

_SECONDS_OF_A_CONNECTION: Final = 60
"""Seconds without a byte after which a connection is closed; a scrape interval, so that it can be used again."""

_log = Logger(namespace="twistedudp")


class _QuietSite(Site):
    """A site that does not log each request: one comes every few seconds, for ever."""

    noisy = False
    displayTracebacks = False

    def log(self, request: Any) -> None:
        """Log nothing."""


class _FewConnections(WrappingFactory):
    """Bounds the connections, and knows them so that they can be closed.

    Attributes:
        refused: Connections closed at once because there were too many.
    """

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.refused = 0

    def logPrefix(self) -> str:
        """Return what the log calls it."""
        return "udpprobe's metrics"

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Serve a connection unless there are too many."""
        if len(self.protocols) >= MAX_CONNECTIONS:
            self.refused += 1
            return None
        return super().buildProtocol(addr)

    def close_all(self) -> None:
        """Close every connection."""
        for protocol in list(self.protocols):
            protocol.transport.abortConnection()


class MetricsPage:
    """Serves ``/metrics``.

    Args:
        reactor: Provides IReactorSocket and, for the page is made in a thread, a thread pool.
        bound: The socket to listen on; it is taken.
        registry: What is served.
    """

    def __init__(self, reactor: Any, bound: socket.socket, registry: CollectorRegistry) -> None:
        # Inside, for it imports the global reactor.
        from prometheus_client.twisted import MetricsResource  # noqa: PLC0415  # see above

        root = Resource()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        root.putChild(b"metrics", MetricsResource(registry=registry))  # type: ignore[no-untyped-call]  # nor has it
        page = Data(b'<a href="metrics">metrics</a>\n', "text/html")  # type: ignore[no-untyped-call]  # likewise
        root.putChild(b"", page)
        site: Any = _QuietSite(root, timeout=_SECONDS_OF_A_CONNECTION)  # type: ignore[no-untyped-call]  # likewise
        self._factory = _FewConnections(site)
        self._port: Any = reactor.adoptStreamPort(bound.fileno(), bound.family, self._factory)
        host, number = bound.getsockname()[:2]
        bound.close()  # the reactor has a copy
        self.address = format_address((host, number))
        _log.info("metrics are served on http://{address}/metrics", address=self.address)

    @property
    def refused(self) -> int:
        """Connections closed at once because there were too many."""
        return self._factory.refused

    def stop(self) -> Deferred[Any]:
        """Close the port and the connections; the Deferred fires when the port is closed."""
        self._factory.close_all()
        return maybeDeferred(self._port.stopListening)
