"""The whole examination, step by step.

Theory of operation: the name is looked up, each of its addresses is asked, and the first that answers is tried further:
loss and rate first, since what is known of them tells how often a large datagram must be tried. Whatever stops a step
becomes a finding, never an exception. Each step has an end: with a timeout of T seconds the name takes T at most, each
of four addresses T, the series of probes 10 and four times T (their answers may take as long as the first one), and
the sizes 15. That is a minute or so with the T of 4 that is usual; where three addresses are silent and the fourth
answers quickly, 45 seconds.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, InvalidAddressError

from .._resolve import resolve
from ..address import format_address, is_group, is_ip, is_ipv6, is_unspecified
from ._asking import ask
from ._findings import Finding
from ._judge import broadcast, judge
from ._own_machine import port_range, receive_default, udp_sockets
from ._rates import judge_rates, measure
from ._sizes import LONGEST, judge_sizes, size_lines, try_sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._resolve import AddressFamily
    from .._sweeps import SizeSweep
    from ..address import Address
    from ._asking import Asked
    from ._rates import Rates

__all__ = ["DEFAULT_TIMEOUT", "MOST_ADDRESSES", "Thoroughness", "examine"]

DEFAULT_TIMEOUT: Final = 4.0
"""Seconds of silence that are believed: a machine that asks its network for a host that is not there (ARP, neighbour
discovery) takes three until it says so."""

MOST_ADDRESSES: Final = 4
"""Addresses of a name that are asked; programs try no more."""


class Thoroughness(NamedTuple):
    """How far to go."""

    timeout: float = DEFAULT_TIMEOUT
    """Seconds after which silence is believed, for each address."""
    quick: bool = False
    """Only ask; leave sizes and rates out."""
    receive_buffer: int | None = None
    """Bytes of the receive buffer to try; None takes what this system gives to a program that asks for none."""


def examine(
    reactor: Any,
    host: str,
    port: int,
    *,
    family: AddressFamily | None = None,
    how: Thoroughness = Thoroughness(),  # noqa: B008  # a value
    on_step: Callable[[str], object] = lambda _: None,
) -> Deferred[list[Finding]]:
    """Find out whether UDP gets through to a server, how far, and why not.

    Args:
        reactor: The reactor.
        host: A name or a numeric address.
        port: The server's port.
        family: Leave out the addresses of the other family.
        how: How far to go.
        on_step: Called with what is being done now, a few words.

    Returns:
        A Deferred that fires with the findings, the weightiest first; at least one. It does not fail for anything that
        network, server or this machine do. Cancelling it leaves nothing behind.
    """
    return Deferred.fromCoroutine(_examine(_Examination(reactor, how, on_step), host, port, family))


class _Examination(NamedTuple):
    reactor: Any
    how: Thoroughness
    on_step: Callable[[str], object]


async def _examine(this: _Examination, host: str, port: int, family: AddressFamily | None) -> list[Finding]:
    this.on_step(f"looking up {host}")
    addresses, late = await _look_up(this, host, port, family)
    if not addresses:
        return [_unknown(this, host, family, late=late)]
    found: list[Finding] = []
    reached = False
    for address in addresses[:MOST_ADDRESSES]:
        findings, answered = await _examine_address(this, address, further=not reached)
        # A program takes the first address of a name: what is wrong with those behind one that answers is told, but
        # stops nobody.
        found += [replace(finding, fault=False) for finding in findings] if reached else findings
        reached = reached or answered
    return sorted(found, key=lambda finding: finding.code != "UDP-ANSWERED") if reached else found


async def _look_up(
    this: _Examination, host: str, port: int, family: AddressFamily | None
) -> tuple[list[Address], bool]:
    """Return the addresses of a host, and whether the name server took too long."""
    if not is_ip(host):
        try:
            host.encode("idna")  # as the resolver will, whose error would go to the log only
        except UnicodeError:
            return [], False
    done: Deferred[list[Address]] = Deferred()
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        finish([])

    def finish(addresses: list[Address]) -> None:
        if not done.called:
            done.callback(addresses)

    timer = this.reactor.callLater(this.how.timeout, give_up)
    try:
        resolve(this.reactor, host, port, family, finish)
        return list(dict.fromkeys(await done)), bool(late)
    finally:
        if timer.active():
            timer.cancel()


async def _examine_address(this: _Examination, peer: Address, *, further: bool) -> tuple[list[Finding], bool]:
    """Return what is found at one address, and whether it answers."""
    if is_group(peer[0]):
        return [broadcast(peer[0])], False
    if is_unspecified(peer[0]):
        text = f"{peer[0]} is what a server listens at, for all of its addresses; nobody can be asked there"
        return [Finding("UDP-NO-ROUTE", text, (), "name an address of the server, 127.0.0.1 on this machine")], False
    if _wants_interface(peer[0]):
        text = f"{peer[0]} is a link-local address, which says nothing without the interface that it is behind"
        advice = f"write the interface too: {peer[0]}%eth0 ('ip link' lists this machine's)"
        return [Finding("UDP-NO-ROUTE", text, (), advice)], False
    this.on_step(f"asking {format_address(peer)}")
    findings: list[Finding] = []
    try:
        asked = await ask(this.reactor, peer, timeout=this.how.timeout)
        findings = judge(asked)
        if findings[0].code == "UDP-ANSWERED" and further and not this.how.quick:
            findings = await _try_further(this, asked, findings)
    except CannotListenError as error:
        findings = [*findings, _no_port(peer, error)]
    except InvalidAddressError as error:
        text = f"nothing can be sent to {peer[0]}: {error.args[-1]}"
        findings = [Finding("UDP-NO-ROUTE", text, (), "'ip link' lists this machine's interfaces")]
    return findings, findings[0].code == "UDP-ANSWERED"


def _wants_interface(host: str) -> bool:
    """Tell whether an address is one of IPv6 that each link has anew (RFC 4007), and does not name its link."""
    return is_ipv6(host) and "%" not in host and ip_address(host).is_link_local


async def _try_further(this: _Examination, asked: Asked, findings: list[Finding]) -> list[Finding]:
    peer = asked.peer
    rtt = next(came.rtt for came in asked.came if came.rtt >= 0)
    this.on_step(f"measuring loss and rate to {format_address(peer)}")
    buffer = this.how.receive_buffer or receive_default()
    rates = await measure(this.reactor, peer, rtt=rtt, receive_buffer=buffer)
    this.on_step(f"trying large datagrams to {format_address(peer)}")
    sizes = await try_sizes(this.reactor, peer, rtt=rtt)
    answered = findings[0]
    told = replace(answered, evidence=(*answered.evidence, *_good(rates, sizes)))
    wrong_sizes = judge_sizes(peer, sizes) if sizes is not None else []
    return [told, *findings[1:], *judge_rates(peer, rates), *wrong_sizes]


def _good(rates: Rates, sizes: SizeSweep | None) -> list[str]:
    """Return what is right with a path, in lines."""
    lines = []
    fast = rates.fast
    if rates.slow is None and not fast.refused:
        lines.append(f"{fast.sent} more at {fast.rate:,.0f} per second, {fast.burst} of them at once: all answered")
    if fast.duplicated:
        lines.append(f"{fast.duplicated} answers came more than once")
    if sizes is None:
        return [
            *lines,
            f"large datagrams: nothing certain within {LONGEST:g} s; 'udpecho ping --sweep-size' takes longer",
        ]
    if sizes.largest is None and sizes.cut_to is None:
        why = f" ({sizes.detail})" if sizes.detail else ""
        return [*lines, f"large datagrams: not tried, for small ones were not answered any more{why}"]
    lines += [line for line in size_lines(sizes) if " pass" in line or "fragments: answered" in line]
    return lines


def _unknown(this: _Examination, host: str, family: AddressFamily | None, *, late: bool) -> Finding:
    kind = {"ipv4": "IPv4 ", "ipv6": "IPv6 "}.get(family or "", "")
    if late:
        return Finding(
            "UDP-NAME-UNKNOWN",
            f"{host!r} could not be looked up: the name server did not answer within {this.how.timeout:g} s",
            ("nothing was sent to the server",),
            "look at the name servers of this machine (/etc/resolv.conf), or write the server's address",
        )
    return Finding(
        "UDP-NAME-UNKNOWN",
        f"the name {host!r} has no {kind}address",
        ("nothing was sent to the server",),
        "check the spelling, and the name in the DNS or in /etc/hosts: 'getent ahosts NAME' shows what this machine "
        "makes of it" + (f"; without -{kind[3]} the other family is tried as well" if kind else ""),
    )


def _no_port(peer: Address, error: CannotListenError) -> Finding:
    """Return the finding of a machine that gives no port to send from."""
    cause = error.socketError
    number = cause.errno if isinstance(cause, OSError) else None
    given = port_range()
    if number in (errno.EADDRINUSE, errno.EAGAIN) and given is not None:
        taken = udp_sockets(*given)
        count = given[1] - given[0] + 1
        held = "" if taken is None else f", {taken:,} of them in use"
        return Finding(
            "UDP-PORTS-EXHAUSTED",
            f"this machine has no free UDP port to send from: all of {given[0]} to {given[1]} are taken",
            (
                f"bind to port 0: {os.strerror(number)} ({errno.errorcode[number]})",
                f"net.ipv4.ip_local_port_range: {given[0]} to {given[1]}, {count:,} ports{held}",
            ),
            "'ss -uanp' shows who holds them: a program that opens a socket for each request, perhaps; "
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535' widens the range",
        )
    if number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
        version = "IPv6" if ":" in peer[0] else "IPv4"
        return Finding(
            "UDP-NO-ROUTE",
            f"this machine has no {version}: {os.strerror(number)}",
            (f"a socket for {version}: {errno.errorcode[number]}",),
            f"switch {version} on, or use the other family's address of the server",
        )
    return Finding(
        "UDP-CANNOT-SEND",
        f"this machine gives no socket to send from: {cause}",
        (f"bind to port 0: {cause}",),
        "too many open files, perhaps ('ulimit -n'), or no rights",
    )
