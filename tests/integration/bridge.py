"""A network of several hosts on a bridge, each in a namespace of its own, for tests of discovery.

Theory of operation: as in ``netns.py``. One namespace holds the bridge; a pair of virtual cards leads from it to each
host. Link-local addresses are given by hand and used at once (``nodad``), for a test has no time for duplicate address
detection. A router can be put behind one of the hosts' places: the kernel's own multicast forwarding, switched on and
fed with one route, and a host on its other side.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tests.integration.netns import NetworkNamespace
from tests.integration.twistd import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["Bridge", "Capture", "Packet", "Servers", "forward_group"]

PROGRAM: Final = Path(__file__).with_name("discovery_servers.py")
_PATIENCE: Final = 60.0

_SO_TIMESTAMPNS: Final = 35
_PACKET_OUTGOING: Final = 4
_ETH_P_ALL: Final = 3
_IPV4, _IPV6 = 0x0800, 0x86DD
_HEADER_IPV6: Final = 40


@final
class Bridge:
    """Hosts on one bridge; gone at the end of the ``with`` block.

    Args:
        hosts: How many.

    Attributes:
        hosts: Their namespaces; host number N has 198.18.0.N+1/24 and fe80::N+1, on ``veth0``.
    """

    def __init__(self, hosts: int) -> None:
        with ExitStack() as undo:
            middle = NetworkNamespace()
            undo.callback(middle.close)
            middle.run("ip", "link", "add", "bridge0", "type", "bridge", "forward_delay", "0")
            middle.run("ip", "link", "set", "bridge0", "up")
            self.hosts: list[NetworkNamespace] = []
            for number in range(hosts):
                host = NetworkNamespace()
                undo.callback(host.close)
                self.hosts.append(host)
                middle.run(
                    *("ip", "link", "add", f"port{number}", "type", "veth", "peer", "name", "veth0"),
                    *("netns", host.path),
                )
                middle.run("ip", "link", "set", f"port{number}", "master", "bridge0", "addrgenmode", "none", "up")
                host.run("ip", "link", "set", "lo", "up")
                host.run("ip", "link", "set", "veth0", "addrgenmode", "none", "up")
                host.run("ip", "address", "add", f"{self.address(number)}/24", "dev", "veth0")
                host.run("ip", "address", "add", f"{self.link_local(number)}/64", "dev", "veth0", "nodad")
            self._undo = undo.pop_all()

    @staticmethod
    def address(number: int) -> str:
        """Return a host's IPv4 address."""
        return f"198.18.0.{number + 1}"

    @staticmethod
    def link_local(number: int) -> str:
        """Return a host's IPv6 address."""
        return f"fe80::{number + 1:x}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def lose(self, number: int, percent: int) -> None:
        """Let a host drop this share of the datagrams that come to it, at random."""
        self.hosts[number].run(
            *("nft", "-f", "-"),
            text=f"""
                table inet loss {{
                    chain input {{
                        type filter hook input priority 0; policy accept;
                        meta l4proto udp numgen random mod 100 < {percent} drop
                    }}
                }}
            """,
        )


@final
class Servers:
    """A process that holds servers on one host; ended at the end of the ``with`` block.

    Args:
        host: The namespace.
        servers: A name, ``rpc`` or ``echo``, an address, and whether it is discoverable, for each.
    """

    def __init__(self, host: NetworkNamespace, servers: Sequence[tuple[str, str, str, bool]]) -> None:
        with host.entered():
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), json.dumps(servers)],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )

    def wait(self) -> list[int]:
        """Wait until they listen, and return their ports."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the servers did not start"
        ports: list[int] = json.loads(line)
        return ports

    def stop(self) -> list[dict[str, Any]]:
        """End them, and return what each counted."""
        output, _ = self._process.communicate(timeout=_PATIENCE)
        told: list[dict[str, Any]] = json.loads(output)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Packet(NamedTuple):
    """A UDP packet as it was on the wire."""

    at: int
    """Nanoseconds since the epoch, by the kernel."""
    outgoing: bool
    ttl: int
    """Or the hop limit."""
    destination: str
    source_port: int
    destination_port: int
    payload: bytes


@final
class Capture:
    """What passes a host's card from now on, before any rule of nftables can drop what comes in."""

    def __init__(self, host: NetworkNamespace) -> None:
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind(("veth0", _ETH_P_ALL))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Capture no more."""
        self._socket.close()

    def packets(self) -> list[Packet]:
        """Return the UDP packets since this was last called."""
        found: list[Packet] = []
        while True:
            try:
                data, control, _, (_, protocol, kind, *_) = self._socket.recvmsg(65536, 64)
            except BlockingIOError:
                return found
            packet = _parsed(data, protocol, control[0][2], outgoing=kind == _PACKET_OUTGOING)
            if packet is not None:
                found.append(packet)


def _parsed(data: bytes, protocol: int, stamp: bytes, *, outgoing: bool) -> Packet | None:
    if protocol == _IPV4 and data[9] == socket.IPPROTO_UDP:
        start, ttl, destination = (data[0] & 15) * 4, data[8], socket.inet_ntop(socket.AF_INET, data[16:20])
    elif protocol == _IPV6 and data[6] == socket.IPPROTO_UDP:
        start, ttl, destination = _HEADER_IPV6, data[7], socket.inet_ntop(socket.AF_INET6, data[24:40])
    else:
        return None
    seconds, nanoseconds = struct.unpack("@qq", stamp[:16])
    source, target = struct.unpack("!HH", data[start : start + 4])
    return Packet(seconds * 10**9 + nanoseconds, outgoing, ttl, destination, source, target, data[start + 8 :])


def forward_group(router: NetworkNamespace, group: str, origin: str, legs: Sequence[str]) -> socket.socket:
    """Let a namespace forward what one host sends to a group (``linux/mroute.h``); until the socket is closed.

    Args:
        router: The namespace.
        group: The group.
        origin: The host that sends.
        legs: The router's addresses: where it comes in, and where it goes out.
    """
    with router.entered():
        control = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
    control.setsockopt(socket.IPPROTO_IP, 200, 1)  # MRT_INIT
    for number, leg in enumerate(legs):
        vif = struct.pack("@HBBI4s4s", number, 0, 1, 0, socket.inet_aton(leg), bytes(4))  # threshold 1
        control.setsockopt(socket.IPPROTO_IP, 202, vif)  # MRT_ADD_VIF
    thresholds = bytes([0, 1]) + bytes(30)
    route = struct.pack(
        "@4s4sH32sIIIi", socket.inet_aton(origin), socket.inet_aton(group), 0, thresholds, 0, 0, 0, 0
    )  # fmt: skip
    control.setsockopt(socket.IPPROTO_IP, 204, route)  # MRT_ADD_MFC
    return control
