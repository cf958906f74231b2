"""The peers of an rpc server that speak through DTLS: each session is a peer of its own.

Theory of operation: a protocol over DTLS is told of sessions by their addresses, and a session may follow another on
the same address: the client was restarted, or it is somebody else by now. What is kept for the former, such as
responses for requests that repeat, is not for the latter. So each session gets a :class:`SessionAddress`, by which
requests are known from their arrival to their answer. It is never equal to another's, and where its session is no more,
what is to be sent there is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .address import SessionAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .address import Address

__all__ = ["SecurePeers"]


class SecurePeers:
    """The sessions that are open, by the addresses of their peers; as many as the endpoint allows."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Address, SessionAddress] = {}

    def verified(self, addr: Address, certificate_name: str | None) -> None:
        """Learn of a session; one that was open with this address is no more."""
        peer = self._open[addr] = SessionAddress(addr)
        peer.certificate_name = certificate_name

    def lost(self, addr: Address, transport: Any) -> None:
        """Learn that a session is no more, unless another one has taken its place already."""
        if transport is None or transport.session_number(addr) is None:
            self._open.pop(addr, None)

    def of(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """Return datagrams that have come, with their sessions as their senders."""
        known = self._open
        return [(datagram, known.get(addr, addr)) for datagram, addr in datagrams]

    def to(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """Return datagrams that are to be sent, with their peers' plain addresses, less those of ended sessions."""
        known = self._open
        plain = [(payload, peer, (peer[0], peer[1])) for payload, peer in datagrams]
        return [(payload, addr) for payload, peer, addr in plain if known.get(addr) is peer]
