"""A server's DTLS: what stands between its port and its protocol.

Theory of operation: the port is given a :class:`DTLSEndpoint`, which is the protocol's transport. A new one is made at
each start, for sessions do not outlive a port. OpenSSL is imported where DTLS is asked for and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import LocalError

if TYPE_CHECKING:
    from twisted.internet.protocol import AbstractDatagramProtocol

    from .dtls import DTLSContext, DTLSEndpoint, DTLSLimits, DTLSStats

__all__ = ["OverDTLS", "over_dtls"]


class OverDTLS:
    """Makes endpoints.

    Args:
        reactor: Provides IReactorTime.
        context: The certificates.
        limits: The bounds; ``None`` for the usual ones.
    """

    def __init__(self, reactor: Any, context: DTLSContext, limits: DTLSLimits | None) -> None:
        self._reactor = reactor
        self._context = context
        self._limits = limits
        self._endpoint: DTLSEndpoint | None = None

    def wrap(self, protocol: AbstractDatagramProtocol) -> AbstractDatagramProtocol:
        """Return what a port is to be given for a protocol."""
        from .dtls import DTLSEndpoint, DTLSLimits  # noqa: PLC0415  # an extra, which not everybody has

        limits = self._limits or DTLSLimits()
        self._endpoint = DTLSEndpoint(protocol, self._context, reactor=self._reactor, limits=limits)
        return self._endpoint

    @property
    def stats(self) -> DTLSStats | None:
        """The counters since the last start, ``None`` before the first."""
        return None if self._endpoint is None else self._endpoint.stats


def over_dtls(
    reactor: Any, context: DTLSContext | None, limits: DTLSLimits | None, discoverable: str | None
) -> OverDTLS | None:
    """Return a server's DTLS, ``None`` for plain UDP.

    Raises:
        LocalError: It is to be discoverable as well.
    """
    if context is None:
        return None
    if discoverable is not None:
        raise LocalError(
            "discoverable= and dtls= exclude each other: questions and their answers travel in the clear, and whoever "
            "asks has shown no certificate"
        )
    return OverDTLS(reactor, context, limits)
