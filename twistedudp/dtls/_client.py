"""The client's side (signatures first)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import transport as ports
from ._limits import DTLSLimits, DTLSStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ._context import DTLSContext

__all__ = ["DTLSClient"]


class DTLSClient:
    """A session with one server, for a protocol to which it is the transport.

    It has a state: ``"idle"``, ``"shaking"`` (hands), ``"open"``, ``"stopped"``. A ``write`` or :meth:`open` while idle
    begins a handshake; payloads wait for it (up to 16, 16 KiB: the oldest are dropped). A handshake that fails, or does
    not come on, is begun anew with a fresh Connection from a fresh port, until its deadline. Certificates that do not
    hold, alerts and refusals by the network can be forged by who spoofs the server's address, and are believed when
    they come twice. A session that the server closes, or that is idle, leaves the client idle: the next write begins
    anew. A server that forgot its session says nothing: when answers stay away, call :meth:`begin_anew`.

    Args:
        reactor: Provides IReactorTime, and ports as :func:`twistedudp.listen` wants them.
        address: The server's numeric address and port.
        server_name: What the server's certificate must be for: the host name that the user typed, or an address.
        context: A client's context.
        protocol: The protocol to wrap; its ``datagrams_received``, if it has one, gets batches. Beside ``peer_verified``
            and ``peer_lost`` it may have ``session_failed(error)``: a handshake that a write began has failed
            (DTLSHandshakeFailed); the payloads that waited for it are dropped.
        interface: The local address to send from; empty for what the kernel chooses.
        limits: The bounds; of them ``mtu``, ``handshake_timeout`` (of handshakes that a write begins) and
            ``idle_timeout`` matter here.
        listen: Opens a port, as :func:`twistedudp.transport.listen` does.

    Attributes:
        address: The server's address.
        protocol: The wrapped protocol; ``makeConnection`` is called at the construction.
        stats: The counters.
        proves_addresses: True.
        payload_limit: Bytes of the largest payload that surely fits: ``limits.mtu`` less 37.
        state: See above.

    Raises:
        DTLSConfigurationError: The context is a server's, or ``server_name`` cannot be the name of a host.
    """

    proves_addresses = True

    def __init__(
        self,
        reactor: Any,
        address: Address,
        server_name: str,
        context: DTLSContext,
        protocol: AbstractDatagramProtocol,
        *,
        interface: str = "",
        limits: DTLSLimits = DTLSLimits(),  # noqa: B008  # it is frozen
        listen: Callable[..., IListeningPort] = ports.listen,
    ) -> None:
        self.address = address
        self.protocol = protocol
        self.stats = DTLSStats()
        self.state = "idle"

    def open(self, timeout: float) -> Deferred[None]:
        """Have a session, by a handshake if there is none yet.

        Args:
            timeout: Seconds.

        Returns:
            A Deferred that fires with None when the session is open and the server verified, and fails with
            DTLSHandshakeFailed. Several may wait for one handshake, each until its own deadline; cancelling one leaves
            the others.
        """
        raise NotImplementedError

    def begin_anew(self) -> None:
        """Forget the session or the handshake under way: the next one is begun from a fresh port.

        Whoever waits for a handshake goes on waiting, for the fresh one. Payloads that wait stay.
        """

    def peer_certificate_name(self, addr: Address | None = None) -> str | None:
        """Return the server's verified name; ``None`` without a session, and where any certificate is accepted."""
        raise NotImplementedError

    def session_number(self, addr: Address | None = None) -> int | None:
        """Return the number of the session that is open, never used twice; ``None`` where there is none."""
        raise NotImplementedError

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram in the session, or when there is one.

        Raises:
            twisted.internet.error.MessageLengthError: It is empty, which DTLS does not carry, or does not fit the MTU.
            twisted.internet.error.InvalidAddressError: It is for another than this client's server.
        """

    def write_batch(
        self, datagrams: Sequence[tuple[bytes, Address]]
    ) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams at once, in order; otherwise as :meth:`write`; returns what it would have raised."""
        raise NotImplementedError

    def stopListening(self) -> Deferred[None]:
        """End the session, telling the server (close_notify), stop the protocol and close the port.

        Whoever waits for a handshake fails with RequestAborted.

        Returns:
            A Deferred that fires with None when the port is free.
        """
        raise NotImplementedError
