"""A client, a router and a server, each in a network namespace, with both families of addresses.

Theory of operation: as :mod:`tests.integration.netns`, with a hop in between, so that a router can refuse, drop or be
narrow, and be told from the host behind it. The server has a second address. Addresses are of networks set aside for
tests (RFC 2544, RFC 5737) and for private use (RFC 4193).
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.integration.addresses import add_addresses, ip_batch
from tests.integration.netns import NetworkNamespace

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HOSTS", "Hosts", "RoutedPath", "ServerProcess"]


class Hosts(NamedTuple):
    """The addresses of one family."""

    server: str
    second: str
    """The server's other address; it answers from :attr:`server` where nothing else is said."""
    router_near: str
    """The router's, towards the server."""
    router_far: str
    """The router's, towards the client."""
    client: str
    absent: str
    """An address of the server's network that nobody has."""
    absent_near: str
    """Likewise of the client's network."""
    elsewhere: str
    """An address of a network to which the router has no route."""
    bits: int


HOSTS: Final = {
    "IPv4": Hosts(
        *("198.18.0.1", "198.18.0.3", "198.18.0.2", "198.19.0.2", "198.19.0.1"),
        *("198.18.0.9", "198.19.0.9", "203.0.113.1", 24),
    ),
    "IPv6": Hosts(
        *("fd00:1::1", "fd00:1::3", "fd00:1::2", "fd00:2::2", "fd00:2::1"),
        *("fd00:1::9", "fd00:2::9", "2001:db8::1", 64),
    ),
}

_QUICK_NEIGHBOURS: Final = ("mcast_solicit=1", "ucast_solicit=1", "retrans_time_ms=100")
"""A neighbour that is not there is known to be so after a tenth of a second instead of three seconds."""


class RoutedPath:
    """The three machines; gone at the end of the ``with`` block.

    Args:
        narrow: The MTU of the link between router and server.

    Attributes:
        server: The server's namespace.
        router: The router's.
        client: The client's.
    """

    def __init__(self, *, narrow: int = 1500) -> None:
        with ExitStack() as undo:
            machines = []
            for _ in range(3):
                machines.append(NetworkNamespace())
                undo.callback(machines[-1].close)
                machines[-1].run("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0")
            self.server, self.router, self.client = machines
            self._join(self.server, "near", narrow)
            self._join(self.client, "far", 1500)
            for machine in machines:  # else some of the ICMP errors that tests wait for are never sent
                machine.run("sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
            self.router.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            every = HOSTS.values()
            add_addresses(self.router, "near", *(f"{hosts.router_near}/{hosts.bits}" for hosts in every))
            add_addresses(self.router, "far", *(f"{hosts.router_far}/{hosts.bits}" for hosts in every))
            add_addresses(self.server, "near", *(f"{hosts.server}/{hosts.bits}" for hosts in every))
            add_addresses(self.client, "far", *(f"{hosts.client}/{hosts.bits}" for hosts in every))
            ip_batch(self.server, *(f"route add default via {hosts.router_near}" for hosts in every))
            ip_batch(self.client, *(f"route add default via {hosts.router_far}" for hosts in every))
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def rules(self, machine: NetworkNamespace, hook: str, *rules: str) -> None:
        """Have a machine's packet filter do something.

        Args:
            machine: Whose.
            hook: Where: ``forward``, ``input``, ``output``, ``prerouting``.
            rules: In the words of nftables.
        """
        chain = f"chain test {{ type filter hook {hook} priority -400; policy accept; {'; '.join(rules)}; }}"
        machine.run("nft", "-f", "-", text=f"table inet doctor_{hook} {{ {chain}; }}")

    def second_address(self) -> None:
        """Give the server its second addresses, which it does not answer from by itself."""
        ip_batch(self.server, f"address add {HOSTS['IPv4'].second}/24 dev near")
        # Of several IPv6 addresses the kernel prefers those that are not deprecated (RFC 6724 section 5, rule 3).
        ip_batch(self.server, f"address add {HOSTS['IPv6'].second}/64 dev near nodad preferred_lft 0")

    def forget_neighbours_quickly(self, machine: NetworkNamespace, device: str) -> None:
        """Have a machine find out soon that a neighbour is not there."""
        for family in ("ipv4", "ipv6"):
            machine.run("sysctl", "-q", "-w", *(f"net.{family}.neigh.{device}.{one}" for one in _QUICK_NEIGHBOURS))

    def _join(self, machine: NetworkNamespace, device: str, mtu: int) -> None:
        machine.run(*("ip", "link", "add", device, "type", "veth", "peer", "name", device, "netns", self.router.path))
        for end in (self.router, machine):
            ip_batch(end, "link set lo up", f"link set {device} gso_max_segs 1 mtu {mtu} up")


_SERVER: Final = """
import socket, sys
mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
bound = socket.socket(family, socket.SOCK_DGRAM)
bound.bind((host, port))
other = socket.socket(family, socket.SOCK_DGRAM)
print(bound.getsockname()[1], flush=True)
while True:
    datagram, peer = bound.recvfrom(1024 if mode == "cuts" else 65535)
    if mode == "mute":
        continue
    answer = datagram.upper()[::-1] if mode == "changes" else datagram
    (other if mode == "other port" else bound).sendto(answer, peer)
"""
"""An echo server as people write it, and some that go wrong."""


class ServerProcess:
    """A plain Python server in a namespace.

    Args:
        namespace: Where.
        host: What it is bound to.
        mode: ``echo``, ``cuts`` (a buffer of 1,024 bytes), ``changes``, ``mute``, ``other port``.

    Attributes:
        port: Its UDP port.
    """

    def __init__(self, namespace: NetworkNamespace, host: str, mode: str = "echo") -> None:
        with namespace.entered():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, mode, host, "0"], stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
