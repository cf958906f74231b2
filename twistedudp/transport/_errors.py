"""The errors of ports: Twisted's own, with types, and one that Twisted lacks.

Theory of operation: code written for Twisted's port catches Twisted's exceptions, hence a port of ours raises them.
They are made here, because their constructors have no annotations, which ``mypy --strict`` does not let pass.
"""

from __future__ import annotations

import errno

from twisted.internet.error import CannotListenError, InvalidAddressError

from ..errors import LocalError

__all__ = ["BroadcastNotAllowed", "cannot_listen", "invalid_address"]


class BroadcastNotAllowed(LocalError, PermissionError):
    """A datagram was written to a broadcast address on a port that may not broadcast.

    Call ``transport.setBroadcastAllowed(True)`` first; it needs no special right. It is also a
    :class:`PermissionError` with ``errno`` EACCES, as Twisted's own port raises it.

    Attributes:
        host: The broadcast address.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            errno.EACCES,
            f"{host} is a broadcast address; call setBroadcastAllowed(True) on the port before writing to it",
        )
        self.host = host


def cannot_listen(interface: str, port: int, reason: object) -> CannotListenError:
    """Return the error of a port that cannot be bound; ``reason`` is an :class:`OSError`, or a text."""
    return CannotListenError(interface, port, reason)  # type: ignore[no-untyped-call]  # Twisted has no types there


def invalid_address(host: object, reason: str) -> InvalidAddressError:
    """Return the error of an address that cannot be one of this port's, which is a :class:`ValueError`."""
    return InvalidAddressError(host, reason)  # type: ignore[no-untyped-call]  # Twisted has no types there
