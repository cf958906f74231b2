"""The echo protocol of RFC 862: what came in goes back, byte for byte.

Theory of operation: a datagram has no kind, so an echo server cannot tell a question from another server's answer.
One forged datagram between two servers that answer everything makes them answer each other for ever (CERT CA-1996-01,
CVE-2024-2169). So four senders are not answered: source port 0, which nobody can be reached at; this port itself; the
privileged ports of other machines, where such servers stand; and whoever sends to a broadcast or multicast address,
whose datagram many would answer at once. Each refusal is counted, none is logged.

A port of ours hands over what has come together, and takes the answers together: then a datagram costs one look at its
sender's port, which is enough for almost all of them. What was sent to a group comes alone.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import DatagramProtocol

from .address import is_loopback, unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import Address

__all__ = ["OWN_HOSTS_REMEMBERED", "EchoProtocol", "EchoStats"]

_PRIVILEGED_PORTS: Final = 1024
"""Ports below this one need a right to bind on most systems, and the services of RFC 862's time live there."""

OWN_HOSTS_REMEMBERED: Final = 1024
"""Answers to "is this host me?" that are used before all are forgotten: addresses come and go with interfaces, and
what was remembered wrongly then costs at most so many datagrams."""

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # recognised, not bound


@dataclass(slots=True)
class EchoStats:
    """What an :class:`EchoProtocol` did since it was made, in datagrams."""

    echoed: int = 0
    refused_port_zero: int = 0
    """From source port 0 (RFC 768: no reply is wanted)."""
    refused_own_address: int = 0
    """From the address that this server itself sends from."""
    refused_privileged_port: int = 0
    """From a source port below 1024 of another machine."""
    refused_group: int = 0
    """Sent to a broadcast or multicast address (only our own port can tell)."""


class EchoProtocol(DatagramProtocol):
    """An RFC 862 echo server that takes part in no loop.

    Args:
        answer_privileged_ports: Answer source ports below 1024 of other machines too, such as those of a client that
            root runs.

    Attributes:
        stats: The :class:`EchoStats`.
    """

    transport: Any  # our own port or any other IUDPTransport: the difference is one attribute

    def __init__(self, answer_privileged_ports: bool = False) -> None:
        self.answer_privileged_ports = answer_privileged_ports
        self.stats = EchoStats()
        self._own_port = 0
        self._own_host = ""
        self._port_tells_groups = False
        self._own_hosts: dict[str, bool] = {}
        self._own_hosts_used = 0
        self._write_batch: Callable[[Sequence[tuple[bytes, Address]]], list[Any]] | None = None

    def startProtocol(self) -> None:
        """Learn the address that this server answers from."""
        own = self.transport.getHost()
        self._own_host, self._own_port = unmapped(own.host), own.port
        self._port_tells_groups = hasattr(self.transport, "delivering_to_group")
        self._own_hosts.clear()
        self._own_hosts_used = 0
        # A subclass that answers otherwise is to be asked for each datagram.
        is_plain = type(self).datagramReceived is EchoProtocol.datagramReceived
        self._write_batch = getattr(self.transport, "write_batch", None) if is_plain else None

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send a datagram back where it came from, unless that may start a loop."""
        port = addr[1]
        if (port < _PRIVILEGED_PORTS or port == self._own_port) and self._refuses(addr):
            return
        transport = self.transport
        if self._port_tells_groups and transport.delivering_to_group:
            self.stats.refused_group += 1
            return
        transport.write(datagram, addr)
        self.stats.echoed += 1

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Do the same for all the datagrams that have come, none of them to a group; the answers leave together."""
        if self._write_batch is None:
            for datagram, addr in datagrams:
                self.datagramReceived(datagram, addr)
            return
        own_port = self._own_port
        if [True for _, (_, port) in datagrams if port < _PRIVILEGED_PORTS or port == own_port]:
            datagrams = [datagram for datagram in datagrams if not self._refuses(datagram[1])]
        refused = self._write_batch(datagrams) if datagrams else []
        self.stats.echoed += len(datagrams) - len(refused)
        if refused:
            raise refused[0][2]  # as write() would have done, for the port to log

    def _refuses(self, addr: Address) -> bool:
        """Tell whether a datagram from this sender must not be answered, and count it."""
        host, port = addr
        if port == 0:
            self.stats.refused_port_zero += 1
        elif port < _PRIVILEGED_PORTS and not self.answer_privileged_ports and not is_loopback(host):
            self.stats.refused_privileged_port += 1
        elif port == self._own_port and self._is_own_host(unmapped(host)):
            self.stats.refused_own_address += 1
        else:
            return False
        return True

    def _is_own_host(self, host: str) -> bool:
        """Tell whether a datagram from our own port number and this host was sent by us."""
        if self._own_host not in _WILDCARDS:
            return host == self._own_host
        self._own_hosts_used += 1
        if self._own_hosts_used > OWN_HOSTS_REMEMBERED:
            self._own_hosts.clear()
            self._own_hosts_used = 1
        own = self._own_hosts.get(host)
        if own is None:
            own = self._own_hosts[host] = is_loopback(host) or self._can_be_bound(host)
        return own

    @staticmethod
    def _can_be_bound(host: str) -> bool:
        """Tell whether an address is this machine's: only such a one can be bound to.

        With ``net.ipv4.ip_nonlocal_bind`` on, any can; then no sender with our own port number is answered.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as trial:
                trial.bind((host, 0))
        except OSError:
            return False
        return True
