"""Which pump drives a client's core: the plain one, or the one that goes through DTLS.

Theory of operation: OpenSSL is an extra, and its import takes its time, so it is left to who gave certificates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._pump import RequestPump
from .address import LARGEST_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .address import Address
    from .core import Requester
    from .dtls import DTLSContext, DTLSLimits

    Security: TypeAlias = tuple[DTLSContext, DTLSLimits | None]

__all__ = ["make_pump", "max_payload"]


def max_payload(security: Security | None) -> int:
    """Return how many bytes one datagram carries at most, whatever the address family."""
    if security is None:
        return LARGEST_PAYLOAD
    from ._secure_link import payload_limit  # noqa: PLC0415  # see above

    return payload_limit(security[1])


def make_pump(
    reactor: Any,
    requester: Requester,
    deliver: Any,
    *,
    interface: str,
    security: Security | None,
    host_of: Callable[[Address], str],
) -> RequestPump:
    """Return a client's pump.

    Args:
        reactor: The reactor.
        requester: The core.
        deliver: Called with each request that has got its outcome.
        interface: The local address to send from; empty for what the kernel chooses.
        security: The certificates and bounds of DTLS; ``None`` for plain UDP.
        host_of: Returns the host that the client was given for an address: whom its certificate must name.
    """
    if security is None:
        return RequestPump(reactor, requester, interface, deliver)
    from ._secure_link import make_secure_pump  # noqa: PLC0415  # see above

    return make_secure_pump(reactor, requester, deliver, *security, host_of=host_of, interface=interface)
