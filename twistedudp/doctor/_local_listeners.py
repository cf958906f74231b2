"""Who listens at a port of this machine, and whether at the address that was asked for.

Theory of operation: a datagram goes to the socket that is bound to its very address, or else to one that is bound to
all addresses of its family; a socket bound to ``::`` has both families unless it refuses IPv4 (IPV6_V6ONLY); one that
is connected takes datagrams of its peer only. Whether an address is this machine's own is asked of the kernel: it lets
a socket be bound to it, at a port that nobody uses.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import pwd
import socket
from typing import TYPE_CHECKING, Final

from ..address import format_address, is_group, is_loopback, unmapped
from ..transport._holder import PROC, listed_sockets, socket_processes
from ._findings import Finding
from ._local_namespaces import holders_elsewhere
from ._local_sockets import process_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..transport._holder import ListedSocket, Process
    from ._local_sockets import Observation, WatchedSocket

__all__ = ["examine_listeners", "is_own_address", "looped", "serves"]

MOST_NEIGHBOURS: Final = 8
"""Listeners at other ports that are named where nobody has the port."""

MOST_LISTED: Final = 32
"""Sockets at the port that are listed one by one: a server of as many workers is rare."""

ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  # compared with, not bound to
ANY_IPV6: Final = "::"

_LISTENS: Final = 10  # TCP_LISTEN of net/tcp_states.h
_OURS: Final = ("twistd", "udpecho")
_STATES: Final = {"T": "it is stopped", "t": "a debugger holds it", "Z": "it has ended", "D": "it waits for a device"}


def serves(watched: WatchedSocket, host: str) -> bool | None:
    """Tell whether a socket takes a stranger's datagram to a numeric address; None where that cannot be told."""
    bound, wanted = watched.listed.host, unmapped(host.partition("%")[0])
    if watched.listed.connected:
        return False
    if bound == wanted:
        return True
    if ":" in wanted:
        return bound == ANY_IPV6
    if bound == ANY_IPV6:
        only_ipv6 = watched.details.only_ipv6 if watched.details is not None else None
        return None if only_ipv6 is None else not only_ipv6
    return bound == ANY_IPV4


def is_own_address(host: str) -> bool:
    """Tell whether a numeric address is one that datagrams for this machine may have; True where it cannot be told."""
    if is_group(host.partition("%")[0]):
        return True
    try:
        [(family, _, _, _, sockaddr)] = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(sockaddr)
    except (OSError, ValueError) as error:
        return not isinstance(error, OSError) or error.errno != errno.EADDRNOTAVAIL
    return True


def examine_listeners(seen: Observation, hosts: Sequence[str], *, proc: Path = PROC) -> list[Finding]:
    """Return findings on who listens, and where.

    Args:
        seen: What was seen of the port.
        hosts: The numeric addresses that are to be served; empty means any.
        proc: Where the proc file system is mounted.
    """
    foreign = [host for host in hosts if not is_own_address(host)]
    findings = [_not_own(host, seen.port) for host in foreign]
    if not seen.sockets:
        return [*findings, _free(seen.port, proc)]
    own = [host for host in hosts if host not in foreign]
    unserved = [host for host in own if not any(serves(watched, host) is not False for watched in seen.sockets)]
    if unserved:
        findings.append(_elsewhere(seen, unserved, proc, fault=len(unserved) == len(own)))
    elif not hosts:
        findings += _narrow(seen, proc)
    return [*findings, _held(seen, proc)]


def _not_own(host: str, port: int) -> Finding:
    return Finding(
        "UDP-OTHER-LISTENER",
        f"{host} is not an address of this machine: nothing can listen at {format_address((host, port))} here",
        ("the kernel refuses to bind a socket to it (EADDRNOTAVAIL)",),
        "'ip address' lists this machine's; behind a router that translates addresses, or in a container, clients use "
        "the router's or the host's, and its forwarding decides",
    )


def _free(port: int, proc: Path) -> Finding:
    neighbours = _Neighbours(proc)
    evidence = ["no socket in /proc/net/udp and udp6 has this port"]
    tcp = neighbours.at_tcp(port)
    if tcp:
        evidence.append(f"but TCP port {port} is held by {tcp}: TCP and UDP ports have nothing to do with each other")
    ours = neighbours.of_ours(port)
    evidence += [f"but {who} listens at UDP {where}" for where, who in ours]
    evidence += holders_elsewhere(port, proc)
    others = neighbours.others()
    if others and not ours:
        evidence.append("listeners at other UDP ports: " + ", ".join(others))
    if ours:
        advice = f"is {ours[0][0]} the port you meant? otherwise start the server with --port {port}"
    elif tcp:
        advice = "the program may serve TCP only, or need an option for UDP; see what it says when it starts"
    else:
        advice = (
            f"start the server: twistd udpecho --port {port} --interface {ANY_IPV4}; or see in its log why it ended"
        )
    return Finding("UDP-PORT-FREE", f"nothing listens at UDP port {port} on this machine", tuple(evidence), advice)


def _held(seen: Observation, proc: Path) -> Finding:
    sockets = seen.sockets
    who = _who(sockets, proc)
    evidence = [_line(watched, proc) for watched in sockets[:MOST_LISTED]]
    if len(sockets) > MOST_LISTED:
        evidence.append(f"and {len(sockets) - MOST_LISTED} more sockets")
    hosts = [watched.listed.host for watched in sockets if not watched.listed.connected]
    shared = sorted({host for host in hosts if hosts.count(host) > 1})
    evidence += [
        f"{hosts.count(host)} sockets share {format_address((host, seen.port))}: with SO_REUSEPORT each peer is given "
        "to one of them, with SO_REUSEADDR the one that was bound last gets everything"
        for host in shared
    ]
    advice = ""
    if not all(watched.processes for watched in sockets):
        advice = (
            "run this as root to see whose process it is (or 'sudo ss -ulpn')"
            if os.geteuid()
            else "it is the kernel's own, or of a process that this container does not show: look on the host"
        )
    elif len({process.name for watched in sockets for process in watched.processes}) > 1 and shared:
        advice = "different programs share the port, and each gets a part of the datagrams: stop one of them"
    return Finding("UDP-PORT-HELD", f"UDP port {seen.port} is held by {who}", tuple(evidence), advice, fault=False)


def _line(watched: WatchedSocket, proc: Path) -> str:
    """Return a socket as a line of evidence."""
    listed = watched.listed
    size = watched.receive_buffer
    parts = [
        f"{format_address((listed.host, listed.port))}: {_who([watched], proc)}",
        f"{listed.queued:,} bytes in the receive queue",
        f"receive buffer {size:,} bytes" if size is not None else "receive buffer unknown (the kernel does not tell)",
        f"{listed.drops:,} datagrams dropped since it was opened",
    ]
    if listed.connected:
        parts.append(f"connected: it takes datagrams from {format_address(listed.peer)} only")
    details = watched.details
    if listed.host == ANY_IPV6:
        only = details.only_ipv6 if details is not None else None
        parts.append("IPv4 or not is unknown" if only is None else "IPv6 only" if only else "IPv4 as well")
    if details is not None and details.interface:
        parts.append(f"from network interface {_interface_name(details.interface)} only")
    return ", ".join(parts)


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return f"number {index}"


def _elsewhere(seen: Observation, unserved: Sequence[str], proc: Path, *, fault: bool) -> Finding:
    wanted = " and ".join(format_address((host, seen.port)) for host in unserved)
    listening = [watched for watched in seen.sockets if not watched.listed.connected]
    if not listening:
        says = f"{_who(seen.sockets, proc)} has UDP port {seen.port} for one peer only, so nothing listens at {wanted}"
        return Finding(
            "UDP-OTHER-LISTENER",
            says,
            tuple(_line(watched, proc) for watched in seen.sockets),
            "it is connected: a client's port, not a server's; start the server at another port, or stop that program",
            fault,
        )
    bound = " and ".join(_places(listening, seen.port))
    only = ""
    if any(watched.listed.host == ANY_IPV6 for watched in listening):
        only = " for IPv6 only (IPV6_V6ONLY)"
    elif all(watched.listed.host == ANY_IPV4 for watched in listening):
        only = ", which is IPv4 only"
    return Finding(
        "UDP-OTHER-LISTENER",
        f"{_who(listening, proc)} listens at {bound}{only}, and nothing listens at {wanted}",
        (f"the kernel refuses datagrams to {wanted} (ICMP port unreachable), unless a rule drops them before",),
        _where_to_listen(unserved),
        fault,
    )


def _where_to_listen(unserved: Sequence[str]) -> str:
    host = unserved[0]
    if any(":" in host for host in unserved):
        return f"start it with --interface {ANY_IPV6} (all of IPv6 and IPv4), or with --interface {host} for this alone"
    return (
        f"start it with --interface {ANY_IPV4} (all of IPv4) or {ANY_IPV6} (IPv6 as well), or with --interface {host} "
        "for this alone"
    )


def _narrow(seen: Observation, proc: Path) -> list[Finding]:
    """Return a finding where only this machine itself, or only one family, is served; nobody said that it matters."""
    listening = [watched for watched in seen.sockets if not watched.listed.connected]
    if not listening:
        return [_elsewhere(seen, [ANY_IPV4], proc, fault=True)]
    bound = " and ".join(_places(listening, seen.port))
    if all(is_loopback(watched.listed.host) for watched in listening):
        return [
            Finding(
                "UDP-OTHER-LISTENER",
                f"{_who(listening, proc)} listens at {bound} only: no other machine can reach it",
                ("these are loopback addresses, which never leave this machine",),
                f"if others are to reach it, start it with --interface {ANY_IPV4} (all of IPv4) or {ANY_IPV6} (IPv6 as "
                "well)",
                fault=False,
            )
        ]
    if all(":" in watched.listed.host and serves(watched, ANY_IPV4) is False for watched in listening):
        return [
            Finding(
                "UDP-OTHER-LISTENER",
                f"{_who(listening, proc)} listens at {bound} for IPv6 only: nobody reaches it over IPv4",
                (),
                f"if it is to serve IPv4, start it with --interface {ANY_IPV6} (both) or {ANY_IPV4} (IPv4)",
                fault=False,
            )
        ]
    return []


def _places(sockets: Iterable[WatchedSocket], port: int) -> list[str]:
    return list(dict.fromkeys(format_address((watched.listed.host, port)) for watched in sockets))


def _who(sockets: Iterable[WatchedSocket], proc: Path) -> str:
    """Return the processes that have one of the sockets, or whose they are where no process is to be seen."""
    sockets = list(sockets)
    processes = sorted({process for watched in sockets for process in watched.processes})
    named = [_named(process, proc) for process in processes]
    hidden = {watched.listed.uid for watched in sockets if not watched.processes}
    named += [f"a process of user {_user(uid)} that cannot be seen" for uid in sorted(hidden)]
    return ", ".join(named)


def _named(process: Process, proc: Path) -> str:
    uid, state = process_facts(process.pid, proc)
    parts = [f"pid {process.pid}"]
    if uid is not None:
        parts.append(f"user {_user(uid)}")
    if state in _STATES:
        parts.append(_STATES[state])
    return f"{process.name} ({', '.join(parts)})"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


class _Neighbours:
    """Who listens at other ports, for those who look at a wrong one."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._udp = [listed for listed in listed_sockets(proc) if not listed.connected]
        self._tcp = [listed for listed in listed_sockets(proc, ("tcp", "tcp6")) if listed.state == _LISTENS]
        self._processes = socket_processes({listed.inode for listed in (*self._udp, *self._tcp)}, proc)

    def at_tcp(self, port: int) -> str:
        """Return who listens at this TCP port, empty if nobody does."""
        found = [listed for listed in self._tcp if listed.port == port]
        return ", ".join(dict.fromkeys(self._name(listed) for listed in found))

    def of_ours(self, port: int) -> list[tuple[str, str]]:
        """Return the UDP listeners that are servers of Twisted, or have a neighbouring port in a TCP program."""
        there = {process for listed in self._tcp if listed.port == port for process in self._of(listed)}
        return [
            (format_address((listed.host, listed.port)), self._name(listed))
            for listed in self._udp
            if any(process in there or self._is_ours(process) for process in self._of(listed))
        ][:MOST_NEIGHBOURS]

    def others(self) -> list[str]:
        """Return the other UDP listeners, the first few by their ports."""
        found = sorted(self._udp, key=lambda listed: listed.port)
        return list(dict.fromkeys(f"{listed.port} ({self._name(listed)})" for listed in found))[:MOST_NEIGHBOURS]

    def _of(self, listed: ListedSocket) -> list[Process]:
        return self._processes.get(listed.inode, [])

    def _name(self, listed: ListedSocket) -> str:
        having = ", ".join(f"{process.name}, pid {process.pid}" for process in self._of(listed))
        return having or f"a process of user {_user(listed.uid)}"

    def _is_ours(self, process: Process) -> bool:
        try:
            words = (self._proc / str(process.pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return any(os.fsdecode(word).rpartition("/")[2] in _OURS for word in words)


def looped(seen: Observation, hosts: Sequence[str]) -> bool:
    """Tell whether the datagrams that matter come from this machine itself."""
    concerned = list(hosts) or [watched.listed.host for watched in seen.sockets if not watched.listed.connected]
    return bool(concerned) and all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for host in concerned)
