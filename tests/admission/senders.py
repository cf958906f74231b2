"""Senders, as kernels and as people write them."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from twistedudp.admission import Admission, AdmissionStats

if TYPE_CHECKING:
    from twistedudp.admission import AdmissionPolicy
    from twistedudp.transport._mmsg._admission import Admission as CompiledAdmission

__all__ = ["KEY", "MILLISECOND", "SECOND", "admission", "compiled", "raw_address"]

KEY: Final = bytes(range(32))
"""Not random, so that a failure happens again."""

SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000


def admission(policy: AdmissionPolicy, key: bytes = KEY) -> Admission:
    """Return what decides in plain Python."""
    return Admission(policy, key=key)


def compiled(policy: AdmissionPolicy, key: bytes = KEY) -> CompiledAdmission:
    """Return what decides in C; only where it was built."""
    from twistedudp.transport._mmsg._admission import Admission as Compiled  # noqa: PLC0415  # it may not be there

    return Compiled(policy, key, AdmissionStats())


def raw_address(host: str, port: int = 4242) -> bytes:
    """Return the ``sockaddr`` of a numeric host; of IPv4-mapped IPv6 the one of a socket for both."""
    if ":" not in host:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    bare, _, scope = host.partition("%")
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, bare) + struct.pack("=I", int(scope or 0))
