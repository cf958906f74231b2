"""The echo protocol of RFC 862: what came in goes back, byte for byte.

Theory of operation: a datagram has no kind, so an echo server cannot tell a question from another server's answer.
One forged datagram between two servers that answer everything makes them answer each other for ever (CERT CA-1996-01,
CVE-2024-2169). So some senders are not answered: source port 0, which nobody can be reached at; this port itself; the
privileged ports of other machines and some more, where such servers stand; and whoever sends to a broadcast or
multicast address, whose datagram many would answer at once. Each refusal is counted, none is logged.

Servers on other ports are met by two more rules. Where the port can (``reflects``), an answer has a hop limit of one
less than what it answers, so that two of our own fall silent after 64 datagrams. Others are recognised by what they do:
see :mod:`twistedudp._reflectors`.

A port of ours hands over what has come together, and takes the answers together: then a datagram costs one look at its
sender's port, which is enough for almost all of them. What was sent to a group comes alone.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ._alarm import Alarm, steady_clock
from ._reflectors import REFLECTOR_PORTS, ReflectorWatch
from .address import format_address, is_loopback, unmapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import Address

__all__ = ["OWN_HOSTS_REMEMBERED", "EchoProtocol", "EchoStats"]

_PRIVILEGED_PORTS: Final = 1024
"""Ports below this one need a right to bind on most systems, and the services of RFC 862's time live there."""

OWN_HOSTS_REMEMBERED: Final = 1024
"""Answers to "is this host me?" that are used before all are forgotten: addresses come and go with interfaces, and
what was remembered wrongly then costs at most so many datagrams."""

_log = Logger(namespace="twistedudp")

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
    refused_reflector_port: int = 0
    """From another machine's port where a service stands that answers whatever comes (``REFLECTOR_PORTS``)."""
    held: int = 0
    """Answered late or not at all, because their sender looked like a reflector."""
    reflectors_cut: int = 0
    """Loops with other servers that were recognised and ended."""
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

    reflects = True
    """What is served answers whatever comes: two such servers must not answer each other for ever."""
    amplifies = False
    """It sends a peer what came from there, and no more: see ``--public``."""

    transport: Any  # our own port or any other IUDPTransport: the difference is one attribute

    def __init__(self, answer_privileged_ports: bool = False) -> None:
        self.answer_privileged_ports = answer_privileged_ports
        self.stats = EchoStats()
        self._own_port = 0
        self._own_host = ""
        self._port_tells_groups = False
        self._own_hosts: dict[str, bool] = {}
        self._own_hosts_used = 0
        self._watch = ReflectorWatch()
        self._clock: Callable[[], float] = time.monotonic
        self._alarm: Alarm | None = None
        self._suspicious_ports = REFLECTOR_PORTS
        self._write_batch: Callable[[Sequence[tuple[bytes, Address]]], list[Any]] | None = None

    def startProtocol(self) -> None:
        """Learn the address that this server answers from."""
        own = self.transport.getHost()
        self._own_host, self._own_port = unmapped(own.host), own.port
        self._port_tells_groups = hasattr(self.transport, "delivering_to_group")
        self._own_hosts.clear()
        self._own_hosts_used = 0
        self._suspicious_ports = REFLECTOR_PORTS | {self._own_port}
        reactor = getattr(self.transport, "reactor", None)
        if reactor is not None:
            self._clock = steady_clock(reactor)
            self._alarm = Alarm(reactor, self._clock, self._end_trials)
        # A subclass that answers otherwise is to be asked for each datagram.
        is_plain = type(self).datagramReceived is EchoProtocol.datagramReceived
        self._write_batch = getattr(self.transport, "write_batch", None) if is_plain else None

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send a datagram back where it came from, unless that may start a loop."""
        port = addr[1]
        if (port < _PRIVILEGED_PORTS or port in self._suspicious_ports) and self._refuses(addr):
            return
        transport = self.transport
        if self._port_tells_groups and transport.delivering_to_group:
            self.stats.refused_group += 1
            return
        now = self._clock()
        if now >= self._watch.next_look or self._watch.trials:
            for answer in self._watched(((datagram, addr),), now):
                transport.write(*answer)
                self.stats.echoed += 1
            return
        transport.write(datagram, addr)
        self.stats.echoed += 1

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Do the same for all the datagrams that have come, none of them to a group; the answers leave together."""
        if self._write_batch is None:
            for datagram, addr in datagrams:
                self.datagramReceived(datagram, addr)
            return
        suspicious = self._suspicious_ports
        if [True for _, (_, port) in datagrams if port < _PRIVILEGED_PORTS or port in suspicious]:
            datagrams = [datagram for datagram in datagrams if not self._refuses(datagram[1])]
        now = self._clock()
        if now >= self._watch.next_look or self._watch.trials:
            datagrams = self._watched(datagrams, now)
        refused = self._write_batch(datagrams) if datagrams else []
        self.stats.echoed += len(datagrams) - len(refused)
        if refused:
            raise refused[0][2]  # as write() would have done, for the port to log

    def stopProtocol(self) -> None:
        """Forget who is on trial."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._watch = ReflectorWatch()

    def _watched(self, datagrams: Sequence[tuple[bytes, Address]], now: float) -> Sequence[tuple[bytes, Address]]:
        """Look whether somebody sends back whatever he gets; return what is to be answered now."""
        watch = self._watch
        if watch.trials:
            answered: list[tuple[bytes, Address]] = []
            for datagram, addr in datagrams:
                if addr in watch.trials:
                    self.stats.held += 1
                    answered += watch.hold(datagram, addr, now)
                else:
                    answered.append((datagram, addr))
            datagrams = answered
            if self._alarm is None:
                self._end_trials(now)
        if datagrams and now >= watch.next_look and watch.look(datagrams, now):
            self._set_alarm()
        return datagrams

    def _set_alarm(self) -> None:
        deadline = self._watch.next_deadline()
        if deadline is not None and self._alarm is not None:
            self._alarm.at(deadline)

    def _end_trials(self, now: float) -> None:
        """Say who was recognised as a reflector."""
        for (host, port), is_new in self._watch.deadline_reached(now):
            self.stats.reflectors_cut += 1
            if is_new:
                _log.warn(
                    "{peer} sends back whatever it gets: it is no client but another echo server, which a forged "
                    "datagram has set upon this one; it is not answered until it is heard again by itself",
                    peer=format_address((host, port)),
                )
        self._set_alarm()

    def _refuses(self, addr: Address) -> bool:
        """Tell whether a datagram from this sender must not be answered, and count it."""
        host, port = addr
        if port == 0:
            self.stats.refused_port_zero += 1
        elif port < _PRIVILEGED_PORTS and not self.answer_privileged_ports and not is_loopback(host):
            self.stats.refused_privileged_port += 1
        elif port in REFLECTOR_PORTS and not self.answer_privileged_ports and not is_loopback(host):
            self.stats.refused_reflector_port += 1
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
