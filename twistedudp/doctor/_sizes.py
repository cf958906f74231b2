"""Whether large datagrams get through: whole packets, fragments, and what the server makes of them.

Theory of operation: the sweep over sizes (:mod:`twistedudp._sweeps`) finds the largest payload that passes in one
packet, what ends it, and whether fragments pass. Here its result becomes findings. What the own interface ends is as it
should be; so is a smaller MTU that a router tells of, but it is worth knowing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import TimeoutError  # noqa: A004  # what addTimeout fails with

from .._sweeps import sweep_size
from ..address import format_address
from ._findings import Finding

if TYPE_CHECKING:
    from .._sweeps import SizeSweep
    from ..address import Address

__all__ = ["LARGEST", "LONGEST", "judge_sizes", "size_lines", "try_sizes"]

LARGEST: Final = 4000
"""Bytes of the largest payload that is tried: more than a packet of Ethernet carries, and less than rpc servers of ours
take (8,192)."""

LONGEST: Final = 15.0
"""Seconds after which it is given up: with much loss each size takes many tries."""

_SHORTEST_WAIT, _LONGEST_SPARE = 0.2, 1.0  # seconds for an answer; seconds of it beyond a round trip
_MOST_LINES: Final = 6


async def try_sizes(reactor: Any, peer: Address, *, rtt: float) -> SizeSweep | None:
    """Try large datagrams on a path that passes small ones; return None where it takes too long.

    Args:
        reactor: The reactor.
        peer: The server, which answers.
        rtt: Seconds of a round trip.

    Raises:
        twisted.internet.error.CannotListenError: There is no port to send from.
    """
    wait = max(_SHORTEST_WAIT, rtt + min(3 * rtt, _LONGEST_SPARE))
    sweeping = sweep_size(reactor, peer, timeout=wait, most=LARGEST)
    try:
        return await sweeping.addTimeout(LONGEST, reactor)
    except TimeoutError:
        return None


def size_lines(sweep: SizeSweep) -> tuple[str, ...]:
    """Return what was found, in lines."""
    lines = []
    if sweep.largest is not None:
        lines.append(f"{sweep.largest:,} bytes pass in one packet, there and back")
    last = {step.size: step for step in sweep.steps if step.outcome != "passed" and step.stage != "fragments"}
    lines += [
        f"{size:,} bytes in one packet: {_outcome(step.outcome, step.tries)}" + f" ({step.detail})" * bool(step.detail)
        for size, step in sorted(last.items())[:_MOST_LINES]
    ]
    lines += [
        f"{step.size:,} bytes in fragments: {_outcome(step.outcome, step.tries)}"
        for step in sweep.steps
        if step.stage == "fragments"
    ]
    return tuple(lines)


def _outcome(what: str, tries: int) -> str:
    words = {"silent": "not answered", "passed": "answered", "cut": "the answer was shorter"}
    return f"{words.get(what, what)}, {tries} {'try' if tries == 1 else 'tries'}"


def judge_sizes(peer: Address, sweep: SizeSweep) -> list[Finding]:
    """Return what is wrong with large datagrams; nothing where all pass."""
    evidence = size_lines(sweep)
    if sweep.cut_to is not None:
        return [_cut(peer, sweep.cut_to, evidence)]
    if sweep.largest is None:
        return []  # it answered a moment ago; the loss is told elsewhere
    if sweep.limit == "this machine":
        return [_not_sent(peer, sweep, evidence)]
    if sweep.limit == "silence":
        return [_silent(peer, sweep, evidence)]
    if sweep.limit == "server":
        return [_server(peer, sweep.largest, evidence)]
    found = [_narrow(peer, sweep, evidence)] if sweep.limit == "router" else []
    if sweep.fragments_pass is False:
        found.append(_no_fragments(peer, sweep.largest, evidence))
    return found


def _not_sent(peer: Address, sweep: SizeSweep, evidence: tuple[str, ...]) -> Finding:
    return Finding(
        "UDP-CANNOT-SEND",
        f"datagrams of up to {sweep.largest:,} bytes pass to {format_address(peer)} and back; of larger ones "
        f"{sweep.detail}",
        evidence,
        "a rule of the machine's own packet filter, perhaps: 'nft list ruleset', 'iptables -L OUTPUT -v'",
    )


def _narrow(peer: Address, sweep: SizeSweep, evidence: tuple[str, ...]) -> Finding:
    fragments = "; larger ones go in fragments, which pass as well" if sweep.fragments_pass else ""
    return Finding(
        "UDP-MTU",
        f"the path to {format_address(peer)} has an MTU of {sweep.path_mtu:,} bytes: a datagram of up to "
        f"{sweep.largest:,} bytes passes in one packet{fragments}",
        evidence,
        f"keep datagrams within {sweep.largest:,} bytes where you can: all fragments of a larger one must arrive",
        fault=False,
    )


def _silent(peer: Address, sweep: SizeSweep, evidence: tuple[str, ...]) -> Finding:
    fragments = (
        "; in fragments they pass"
        if sweep.fragments_pass
        else ", in fragments as well"
        if any(step.stage == "fragments" for step in sweep.steps)
        else ""
    )
    return Finding(
        "UDP-MTU-SILENT",
        f"datagrams of up to {sweep.largest:,} bytes pass to {format_address(peer)} and back, larger ones vanish"
        f"{fragments}: the path has an MTU of {sweep.path_mtu:,} bytes, and no router says so",
        evidence,
        "a firewall drops the routers' ICMP 'fragmentation needed' ('packet too big'): have it pass. Until then keep "
        f"datagrams within {sweep.largest:,} bytes, or lower the MTU of the interfaces at both ends to "
        f"{sweep.path_mtu:,}. A server that takes no larger ones looks the same",
    )


def _server(peer: Address, largest: int, evidence: tuple[str, ...]) -> Finding:
    return Finding(
        "UDP-CUT",
        f"{format_address(peer)} answers datagrams of up to {largest:,} bytes and no larger ones: that is the size of "
        "a buffer",
        evidence,
        f"the server takes no datagrams above {largest:,} bytes, or sends no larger answers; have it read into a "
        "buffer of 65,535 bytes, or keep within that size",
    )


def _no_fragments(peer: Address, largest: int, evidence: tuple[str, ...]) -> Finding:
    return Finding(
        "UDP-FRAGMENTS-DROPPED",
        f"datagrams that need fragments do not get through to {format_address(peer)} and back: {largest:,} bytes do, "
        "and nothing larger",
        evidence,
        f"a firewall or a router on the way drops fragments; keep datagrams within {largest:,} bytes",
    )


def _cut(peer: Address, size: int, evidence: tuple[str, ...]) -> Finding:
    return Finding(
        "UDP-CUT",
        f"{format_address(peer)} sends back only {size:,} bytes of larger datagrams",
        evidence,
        f"the server reads datagrams into a buffer of {size:,} bytes, which cuts larger ones without a word: have it "
        "call recvfrom(65535)",
    )
