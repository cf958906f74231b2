"""Addresses of network namespaces, ready for use.

Theory of operation: ``ip address add`` returns before an IPv6 address can be used. Unless told otherwise the kernel
first asks its neighbours for a second or two whether somebody else has it; then it adds the route to it from a queue of
work, up to some milliseconds later, and until then datagrams to it are lost. So it is told not to ask, and the table of
routes is looked at until the route is there.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.integration.netns import NetworkNamespace

__all__ = ["add_addresses", "await_local", "ip_batch"]

_PATIENCE: Final = 10.0
_LOCAL: Final = 0x8000_0000  # RTF_LOCAL of <linux/ipv6_route.h>


def ip_batch(namespace: NetworkNamespace, *commands: str) -> None:
    """Have ``ip`` do several things in a namespace."""
    namespace.run("ip", "-batch", "-", text="\n".join(commands) + "\n")


def add_addresses(namespace: NetworkNamespace, device: str, *addresses: str) -> None:
    """Give a device addresses, as ``host/bits``, and wait until each can be used; the device must be up."""
    ip_batch(namespace, *(f"address add {one} dev {device}{' nodad' if ':' in one else ''}" for one in addresses))
    await_local(namespace, *(one.partition("/")[0] for one in addresses))


def await_local(namespace: NetworkNamespace, *hosts: str) -> None:
    """Wait until a namespace takes datagrams to its own IPv6 addresses.

    Raises:
        AssertionError: It never does.
    """
    missing = {socket.inet_pton(socket.AF_INET6, host).hex() for host in hosts if ":" in host}
    ends = time.monotonic() + _PATIENCE
    while missing:
        with namespace.entered():
            routes = [line.split() for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
        missing -= {fields[0] for fields in routes if int(fields[8], 16) & _LOCAL}
        if time.monotonic() > ends:
            raise AssertionError(f"{', '.join(hosts)}: the addresses cannot be used after {_PATIENCE:.0f} s")
