"""Where a siege takes place: hosts on a bridge, one of which sends from every address there is.

Theory of operation: see ``bridge.py``. The server's answers to forged addresses go to the attacker's host, its gateway,
and end there: a host that does not forward drops them in silence. What passes the server's card is counted by
nftables, outside of everything that is attacked; what the server's kernel drops, and what its processes read, is read
from ``/proc``.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tests.integration.addresses import add_addresses, ip_batch
from tests.integration.bridge import Bridge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


__all__ = [
    "CLIENTS",
    "HEADERS",
    "NEIGHBOUR",
    "SERVER",
    "SERVER6",
    "STRANGERS",
    "Datagram",
    "Field",
    "Passed",
    "Traffic",
]

SERVER: Final = Bridge.address(0)
CLIENTS: Final = Bridge.address(2)
"""The honest clients that a server trusts."""
STRANGERS: Final = Bridge.address(3)
"""The honest clients that it does not know."""
NEIGHBOUR: Final = Bridge.address(4)
"""Other servers."""
SERVER6: Final = "fd00:1::1"

HEADERS: Final = 28
"""Bytes of the headers of IPv4 and UDP, without options."""

_SO_RCVBUFFORCE: Final = 33
_PACKET_OUTGOING: Final = 4
_ETH_P_ALL: Final = 3
_IPV4, _IPV6 = 0x0800, 0x86DD
_ATTACKER: Final = 1
_HOSTS: Final = 5


class Passed(NamedTuple):
    """What nftables counted of one kind."""

    datagrams: int
    octets: int
    """With the headers of IP and UDP."""

    @property
    def payload(self) -> int:
        """Bytes without the headers (of IPv4)."""
        return self.octets - HEADERS * self.datagrams


@final
class Field:
    """The hosts; gone at the end of the ``with`` block.

    Attributes:
        server: The namespace of the server.
        attacker: That of the attacker, to whom all addresses lead that nobody has.
        clients: That of the honest clients that the server trusts.
        strangers: That of other honest clients.
        neighbour: That of other servers.
    """

    def __init__(self) -> None:
        with ExitStack() as undo:
            bridge = undo.enter_context(Bridge(_HOSTS))
            self.server, self.attacker, self.clients, self.strangers, self.neighbour = bridge.hosts
            for number, host in enumerate(bridge.hosts):
                # One packet for each datagram: else several that leave together are counted as one.
                host.run("ip", "link", "set", "veth0", "gso_max_segs", "1")
                host.run("sysctl", "-q", "-w", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in ("all", "veth0")))
                add_addresses(host, "veth0", f"fd00:1::{number + 1:x}/64")
            gateways = Bridge.address(_ATTACKER), f"fd00:1::{_ATTACKER + 1:x}"
            ip_batch(self.server, *(f"route add default via {gateway}" for gateway in gateways))
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def count(self, coming: Mapping[str, str], going: Mapping[str, str]) -> None:
        """Have the server's kernel count what passes its card, by rules in the words of nftables.

        Args:
            coming: Rules for what comes in, by their names.
            going: Rules for what goes out, by their names; all names are different.
        """
        names = "".join(f"counter {name} {{}}\n" for name in (*coming, *going))
        chains = []
        for chain, hook, rules in (("coming", "prerouting", coming), ("going", "postrouting", going)):
            lines = "\n".join(f"{rule} counter name {name}" for name, rule in rules.items())
            chains.append(f"chain {chain} {{ type filter hook {hook} priority -400; policy accept;\n{lines}\n}}")
        self.server.run("nft", "-f", "-", text=f"table inet siege {{\n{names}{chr(10).join(chains)}\n}}\n")

    def counted(self) -> dict[str, Passed]:
        """Return what the rules of :meth:`count` have counted."""
        listed = json.loads(self.server.run("nft", "-j", "list", "counters"))["nftables"]
        every = [entry["counter"] for entry in listed if "counter" in entry]
        return {one["name"]: Passed(one["packets"], one["bytes"]) for one in every}

    def kernel(self) -> dict[str, int]:
        """Return the server's kernel's counters of UDP over IPv4, such as ``InDatagrams`` and ``RcvbufErrors``."""
        with self.server.entered():
            names, values = re.findall("^Udp: (.*)$", Path("/proc/thread-self/net/snmp").read_text(), re.MULTILINE)
        return dict(zip(names.split(), map(int, values.split()), strict=True))


class Datagram(NamedTuple):
    """What passed the server's card."""

    coming: bool
    """Whether it came in; otherwise it went out."""
    peer: str
    """The host at the other end, or what is said to be it."""
    port: int
    """That host's port."""
    payload: bytes


@final
class Traffic:
    """What passes the server's card from now on, as the kernel copies it to a packet socket (packet(7)).

    Args:
        field: Where.
        port: The server's port; no other traffic is looked at.
    """

    def __init__(self, field: Field, port: int) -> None:
        self._port = port
        with field.server.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64_000_000)
            self._socket.bind(("veth0", _ETH_P_ALL))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Look no more."""
        self._socket.close()

    def take(self) -> list[Datagram]:
        """Return the datagrams since this was last called."""
        found: list[Datagram] = []
        while True:
            try:
                data, (_, protocol, kind, *_) = self._socket.recvfrom(65536)
            except BlockingIOError:
                return found
            seen = self._parsed(data, protocol, coming=kind != _PACKET_OUTGOING)
            if seen is not None:
                found.append(seen)

    def _parsed(self, data: bytes, protocol: int, *, coming: bool) -> Datagram | None:
        if protocol == _IPV4 and data[9] == socket.IPPROTO_UDP:
            start, family, source, destination = (data[0] & 15) * 4, socket.AF_INET, data[12:16], data[16:20]
        elif protocol == _IPV6 and data[6] == socket.IPPROTO_UDP:
            start, family, source, destination = 40, socket.AF_INET6, data[8:24], data[24:40]
        else:
            return None
        ports = struct.unpack("!HH", data[start : start + 4])
        if ports[coming] != self._port:
            return None
        peer = socket.inet_ntop(family, source if coming else destination)
        return Datagram(coming, peer, ports[not coming], data[start + 8 :])
