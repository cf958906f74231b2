"""What the answers and errors mean: from the record of the first question to findings.

Theory of operation: pure functions of :class:`._asking.Asked`. An answer is known by the random bits that it carries,
an ICMP error by those that it quotes; what has neither is shown and proves nothing. Causes on this machine come before
those on the way, and each kind of error makes a finding of its own: there may be several.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from ..address import format_address, is_ipv6
from ._evidence import evidence_of, milliseconds
from ._findings import Finding
from ._icmp import code_of, name_of
from ._own_machine import filtering

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._asking import Asked
    from ._exchange import Told

__all__ = ["broadcast", "judge"]

_ROUTES: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETDOWN}
)
"""What the kernel answers to a send where its routing table has no way: no route, routes of the types unreachable,
prohibit and blackhole (ip-route(8)), IPv6 switched off, the device down."""


def judge(asked: Asked) -> list[Finding]:
    """Return what the record of one address says, the weightiest first; at least one finding."""
    if asked.broadcast:
        refused = "the kernel sends there only for a socket that may broadcast: EACCES without SO_BROADCAST"
        return [broadcast(asked.peer[0], (refused,))]
    local = _local(asked)
    known = {finding.code for finding in local}
    # A rule of the own machine that rejects sends an ICMP error beside the EPERM.
    found = [*_answers(asked), *local, *(finding for finding in _icmp(asked) if finding.code not in known)]
    if found:
        return found
    others = [came for came in asked.came if came.kind == "other" and came.peer == asked.peer]
    return [_not_echo(asked)] if others else [_silent(asked) if asked.dtls is None else _dtls(asked)]


# What came back


def _answers(asked: Asked) -> list[Finding]:
    answers = [came for came in asked.came if came.peer == asked.peer and came.kind in ("reply", "duplicate", "late")]
    evidence = evidence_of(asked)
    if answers:
        first = answers[0]
        kind = "an echo server (RFC 862)" if first.protocol == "echo" else "an rpc server"
        says = f"{format_address(asked.peer)} answers after {milliseconds(first.rtt)}: {kind}"
        return [Finding("UDP-ANSWERED", says, evidence, fault=False)]
    strangers = [came for came in asked.came if came.kind == "stranger"]
    if not strangers:
        return []
    other = strangers[0].peer
    if other[0] == asked.peer[0]:
        says = f"{format_address(asked.peer)} was asked, and the answer came from another port, {other[1]}"
        advice = (
            "clients that connect() their socket, and most firewalls, drop such an answer: have the server answer "
            "from the socket that it was asked on, or mend the address translation (NAT) on the way"
        )
    else:
        says = f"{format_address(asked.peer)} was asked, and the answer came from another address, {other[0]}"
        advice = (
            "the server has several addresses and is bound to all of them, so that the kernel chooses the one it "
            f"answers from; clients drop such an answer. Bind the server to {asked.peer[0]} alone, or have it answer "
            "from the address that was asked (IP_PKTINFO, ip(7)), as twistedudp's own servers do"
        )
    return [Finding("UDP-OTHER-ADDRESS", says, evidence, advice)]


def _not_echo(asked: Asked) -> Finding:
    others = [came for came in asked.came if came.kind == "other" and came.peer == asked.peer]
    return Finding(
        "UDP-NOT-ECHO",
        f"{format_address(asked.peer)} answers, but neither as an echo server (RFC 862) nor as an rpc server: of "
        f"{others[0].size} bytes, which are not those that were sent",
        evidence_of(asked),
        "UDP gets through in both directions. Another kind of server listens there, or an echo server that changes "
        "what it is sent: it is to send back the same bytes and nothing else",
    )


def _dtls(asked: Asked) -> Finding:
    peer = format_address(asked.peer)
    return Finding(
        "UDP-DTLS",
        f"{peer} speaks DTLS: it is silent to plain UDP, and has answered a ClientHello",
        evidence_of(asked),
        f"UDP gets through in both directions; speak DTLS with it: 'udpecho ping --dtls {peer}' says what comes of the "
        "handshake, and measures",
        fault=False,
    )


def _silent(asked: Asked) -> Finding:
    peer = format_address(asked.peer)
    if asked.up is not None:
        says = f"{peer} is silent, but its host is up: it refuses datagrams to another port"
        advice = (
            f"a firewall drops what goes to port {asked.peer[1]} or what comes from it, or the process that has the "
            f"port does not answer. On the server's machine, 'udpecho doctor --local :{asked.peer[1]}' tells which"
        )
    elif asked.hops:
        hops, last = asked.hops[-1]
        says = f"{peer} is silent; the last router that let itself be seen is {last}, {hops} hops away"
        advice = (
            f"behind {last} something drops it without a word: a firewall, or the host is down. Ask who runs the "
            f"network there; on the server's machine, try 'udpecho doctor --local :{asked.peer[1]}'"
        )
    else:
        says = f"{peer} is silent: no answer and no error within {asked.waited:.1f} s"
        advice = (
            "a firewall on the way or at the host drops it without a word, the host is down, or the process that has "
            f"the port does not answer. On the server's machine, try 'udpecho doctor --local :{asked.peer[1]}'; "
            "--timeout waits longer"
        )
    return Finding("UDP-SILENT", says, evidence_of(asked), advice)


# What this machine says


def broadcast(host: str, evidence: tuple[str, ...] = ("nothing was sent",)) -> Finding:
    """Return the finding about an address that is no single server's."""
    return Finding(
        "UDP-BROADCAST",
        f"{host} is a broadcast or multicast address: it is not one server's",
        evidence,
        "name the server's own address; 'udpecho discover' asks all servers of the network. A program of yours that "
        "is to broadcast calls setBroadcastAllowed(True) on its port first",
    )


def _local(asked: Asked) -> list[Finding]:
    found = []
    numbers = dict(asked.send_errors)
    for told in asked.told:
        if not told.reason.icmp_type:
            numbers.setdefault(told.reason.errno, 1)
    for number in numbers:
        if number == errno.EPERM:
            found.append(_forbidden(asked, "the kernel refused to send it (EPERM)"))
        elif number in _ROUTES:
            found.append(_no_route(asked, number))
        elif number in (errno.EAGAIN, errno.ENOBUFS):
            continue
        else:
            found.append(
                Finding(
                    "UDP-CANNOT-SEND",
                    f"this machine cannot send to {asked.peer[0]}: {os.strerror(number)}",
                    evidence_of(asked),
                    "look into this machine's log (dmesg); the error's name says more",
                )
            )
    return found


def _forbidden(asked: Asked, how: str) -> Finding:
    return Finding(
        "UDP-LOCAL-FIREWALL",
        f"a rule of this machine's own packet filter forbids sending to {format_address(asked.peer)}: {how}",
        (*evidence_of(asked), *filtering()),
        "look for the rule in the output chains: 'nft list ruleset', 'iptables -L OUTPUT -v'; a full table of "
        "connections (net.netfilter.nf_conntrack_max) refuses in the same way",
    )


def _no_route(asked: Asked, number: int) -> Finding:
    version = "-6" if is_ipv6(asked.peer[0]) else "-4"
    return Finding(
        "UDP-NO-ROUTE",
        f"this machine has no route to {asked.peer[0]}: {os.strerror(number)} ({errno.errorcode[number]})",
        evidence_of(asked),
        f"'ip {version} route get {asked.peer[0]}' shows what the routing table says; a default route is missing, "
        "the interface is down, or a route forbids it",
    )


# What the network says


def _icmp(asked: Asked) -> list[Finding]:
    ipv6 = is_ipv6(asked.peer[0])
    errors = [told for told in asked.told if told.reason.icmp_type]
    proven = [told for told in errors if told.sequence >= 0]
    # Old routers quote too little for a proof: what they say counts where nothing better is known, but that a port is
    # closed is too easily forged.
    believed = proven or [told for told in errors if told.short and code_of(told.reason, ipv6=ipv6) != "UDP-REFUSED"]
    found: dict[tuple[str, str], Finding] = {}
    for told in believed:
        code = _code_for(asked, told)
        key = (code, told.reason.reporter)
        if key not in found:
            found[key] = _SAYERS[code](asked, told)
    return list(found.values())


def _code_for(asked: Asked, told: Told) -> str:
    """Return the code of the finding that an error makes, by what it says and who says it."""
    code = code_of(told.reason, ipv6=is_ipv6(asked.peer[0]))
    reporter = told.reason.reporter
    if code == "UDP-REFUSED" and reporter != _host(asked):
        code = "UDP-PROHIBITED"  # not the host's own word
    if code == "UDP-PROHIBITED" and _is_own(asked, reporter):
        return "UDP-LOCAL-FIREWALL"
    return code


def _is_own(asked: Asked, reporter: str) -> bool:
    return reporter == asked.own_host.partition("%")[0] != _host(asked)


def _host(asked: Asked) -> str:
    """Return the address as ICMP errors name it: without the interface of a link-local one."""
    return asked.peer[0].partition("%")[0]


def _name(asked: Asked, told: Told) -> str:
    return name_of(told.reason, ipv6=is_ipv6(asked.peer[0]))


def _refused(asked: Asked, told: Told) -> Finding:
    return Finding(
        "UDP-REFUSED",
        f"{asked.peer[0]} is up and refuses: nothing listens on UDP port {asked.peer[1]} at this address "
        f"({_name(asked, told)}, from the host itself)",
        evidence_of(asked),
        "start the server, or check its port and the address it is bound to (a server bound to 127.0.0.1 is reached "
        f"from its own machine only): 'udpecho doctor --local :{asked.peer[1]}' there tells. A firewall on the host "
        "itself can refuse in the same words",
    )


def _prohibited(asked: Asked, told: Told) -> Finding:
    reporter = told.reason.reporter
    host_itself = reporter == _host(asked)
    who = "the firewall of the host itself" if host_itself else f"the router {reporter}"
    return Finding(
        "UDP-PROHIBITED",
        f"{who} refuses datagrams to {format_address(asked.peer)}: {_name(asked, told)}",
        evidence_of(asked),
        f"a rule there rejects it; whoever runs {reporter} must allow UDP port {asked.peer[1]} to {asked.peer[0]}"
        + ("" if host_itself else f" (or {reporter} is another address of the host: then nothing listens there)")
        * (code_of(told.reason, ipv6=is_ipv6(asked.peer[0])) == "UDP-REFUSED"),
    )


def _rejected_here(asked: Asked, told: Told) -> Finding:
    return _forbidden(asked, f"it rejects it with {_name(asked, told)}")


def _host_unreachable(asked: Asked, told: Told) -> Finding:
    reporter = told.reason.reporter
    if _is_own(asked, reporter):
        says = f"this machine itself cannot reach {asked.peer[0]}, which would be on its own network"
        advice = (
            "nobody there answers to the address (ARP, neighbour discovery): the host is down, has another address, "
            "or this machine's netmask is too wide; 'ip neighbour' shows the state"
        )
    else:
        says = f"the router {reporter} cannot reach the host {asked.peer[0]} ({_name(asked, told)})"
        advice = f"the host is down or not connected behind {reporter}, or a firewall there says so to hide it"
    return Finding("UDP-HOST-UNREACHABLE", says, evidence_of(asked), advice)


def _net_unreachable(asked: Asked, told: Told) -> Finding:
    return Finding(
        "UDP-NET-UNREACHABLE",
        f"the router {told.reason.reporter} has no way to the network of {asked.peer[0]} ({_name(asked, told)})",
        evidence_of(asked),
        f"check the address; if it is right, a route is missing at {told.reason.reporter}, and whoever runs that "
        "router must mend it",
    )


def _unreachable(asked: Asked, told: Told) -> Finding:
    loop = "; datagrams run in a circle between routers" if "exceeded in transit" in _name(asked, told) else ""
    return Finding(
        "UDP-UNREACHABLE",
        f"{told.reason.reporter} reports about datagrams to {format_address(asked.peer)}: {_name(asked, told)}{loop}",
        evidence_of(asked),
        f"show the evidence to whoever runs {told.reason.reporter}",
    )


_SAYERS: Final[dict[str, Callable[[Asked, Told], Finding]]] = {
    "UDP-REFUSED": _refused,
    "UDP-PROHIBITED": _prohibited,
    "UDP-LOCAL-FIREWALL": _rejected_here,
    "UDP-HOST-UNREACHABLE": _host_unreachable,
    "UDP-NET-UNREACHABLE": _net_unreachable,
    "UDP-UNREACHABLE": _unreachable,
}
