"""What is said about a UDP port on the server's own machine: who has it, what is lost there, what a filter forbids.

Theory of operation: three questions, each a module of its own, about one observation of half a second: who listens,
and where (:mod:`._local_listeners`); whether datagrams wait or are dropped (:mod:`._local_losses`); which rules of the
packet filter stop them (:mod:`._local_rules`). Nothing is sent and nothing is changed. Everything read is text of the
kernel or of a program, and none of it is trusted to have the shape that is expected: what is not understood is left
out or told as unknown.
"""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from ..address import canonical, is_ip, is_unspecified
from ..transport._holder import PROC
from ..transport._kernel import LINUX
from ._findings import Finding
from ._local_diag import ask_kernel
from ._local_filter import Datagram
from ._local_listeners import ANY_IPV4, examine_listeners, looped, serves
from ._local_losses import examine_losses
from ._local_rules import PROGRAMS, examine_rules, read_rules
from ._local_sockets import watch_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ._local_diag import SocketDetails
    from ._local_sockets import Observation

__all__ = ["THIS_SYSTEM", "System", "examine_local"]


class System(NamedTuple):
    """What is examined, and by what means."""

    linux: bool = LINUX
    """Whether this is Linux: elsewhere nothing is known."""
    proc: Path = PROC
    """Where the proc file system is mounted."""
    programs: str = PROGRAMS
    """Where the packet filter's programs are, as in the variable PATH."""
    ask: Callable[[int], dict[int, SocketDetails]] = ask_kernel
    """What tells of the sockets at a port beyond the tables in proc."""
    sleep: Callable[[float], object] = time.sleep
    """What waits for some seconds, between two looks."""


THIS_SYSTEM: Final = System()


def examine_local(host: str, port: int, system: System = THIS_SYSTEM) -> list[Finding]:
    """Return what this machine tells of one of its UDP ports. It blocks for about a second.

    Args:
        host: The address that is to be served, or a name of it; empty for any of this machine's.
        port: The UDP port.
        system: What is examined, for tests.

    Returns:
        The findings, faults first and then those on who listens. There is at least one.
    """
    host = "" if is_ip(host) and is_unspecified(host) else host  # it stands for every address, as no host does
    if missing := _missing_interface(host):
        return [
            Finding(
                "UDP-NO-ROUTE",
                f"this machine has no interface {missing!r}, so it has no address {host}",
                (),
                f"'ip address' lists the interfaces and their addresses; :{port} looks at all of them",
            )
        ]
    try:
        hosts = _numeric(host)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return [
            Finding(
                "UDP-NAME-UNKNOWN",
                f"{host!r} is no address, and as a name it does not resolve: {reason}",
                (),
                f"leave it out (:{port}), or write one of this machine's addresses ('ip address' lists them)",
            )
        ]
    if not system.linux:
        return [_unknown("this is not Linux")]
    proc = system.proc
    seen = watch_port(port, proc=proc, sleep=system.sleep, ask=system.ask)
    if not seen.readable:
        return [_unknown(f"there is no {proc / 'net' / 'udp'}")]
    *narrow, about = examine_listeners(seen, hosts, proc=proc)
    filtered, evidence = examine_rules(read_rules(proc=proc, path=system.programs), _datagrams(seen, hosts))
    about = replace(about, evidence=(*about.evidence, *evidence))
    findings = [*narrow, about, *examine_losses(seen, proc=proc), *filtered]
    return sorted(findings, key=lambda finding: not finding.fault)


def _unknown(why: str) -> Finding:
    return Finding(
        "UDP-LOCAL-UNKNOWN",
        f"this system does not tell what was asked: {why}",
        ("not seen: who has the port, its receive queue, what was dropped, and the rules of the packet filter",),
        "use the system's own tools: 'netstat -an -p udp', 'lsof -iUDP', 'netstat -s -p udp'; on Linux, mount /proc",
    )


def _missing_interface(host: str) -> str:
    """Return the interface that an address names, where there is none of that name; else an empty text."""
    name = host.partition("%")[2] if is_ip(host) else ""
    if not name:
        return ""
    try:
        _ = socket.if_indextoname(int(name)) if name.isdecimal() else str(socket.if_nametoindex(name))
    except (OSError, OverflowError):
        return name
    return ""


def _numeric(host: str) -> list[str]:
    """Return the addresses that a host stands for.

    Raises:
        OSError: It does not resolve.
        UnicodeError: It cannot be a name.
    """
    if not host:
        return []
    if is_ip(host):
        return [canonical(host) if "%" not in host else host]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _datagrams(seen: Observation, hosts: Sequence[str]) -> list[Datagram]:
    """Return the datagrams whose way through the rules matters: those that a listener takes."""
    within = looped(seen, hosts)
    if hosts:
        return [Datagram(":" in host, seen.port, host, within) for host in hosts]
    bound = {watched.listed.host for watched in seen.sockets if not watched.listed.connected}
    one = bound.pop() if len(bound) == 1 and not bound & {ANY_IPV4, "::"} else ""
    if one:
        return [Datagram(":" in one, seen.port, one, within)]
    families = {
        ipv6
        for watched in seen.sockets
        for ipv6 in (False, True)
        if _takes(watched.listed.host, ipv6=ipv6) or (not ipv6 and serves(watched, ANY_IPV4) is not False)
    }
    return [Datagram(ipv6, seen.port, "", within) for ipv6 in sorted(families or {False, True})]


def _takes(host: str, *, ipv6: bool) -> bool:
    return (":" in host) is ipv6
