"""What sweeps have found, in sentences.

Theory of operation: pure functions from results to texts. A sentence says what was seen, and where that has two
explanations it names both: silence may be a path's or a server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._output import one_line
from ._ping_units import counted, share_text

if TYPE_CHECKING:
    from .._sweeps import RateSweep, SizeSweep

__all__ = ["rate_findings", "rate_text", "size_findings"]


def rate_text(rate: float) -> str:
    """Return a rate as people read it: ``697.9/s``, ``10,000/s``."""
    return f"{rate:,.0f}/s" if rate >= 999.5 or rate == round(rate) else f"{rate:.4g}/s"


def size_findings(found: SizeSweep) -> list[str]:
    """Return what a sweep over sizes has found."""
    if found.largest is None:
        if found.limit == "server":
            return [f"The server changes the size of what it gets: {found.steps[-1].detail}. It is no echo server."]
        if found.limit == "this machine":
            return [f"It is this machine that sends nothing to {found.address}: {found.detail}."]
        step = found.steps[-1]
        return [_no_answer(found.address, step.tries, found.detail)]
    sentences = [f"Payloads of up to {found.largest:,} bytes pass whole.", *_limit_of(found)]
    if found.fragments_pass is not None:
        sentences.append(
            "Larger datagrams pass in fragments."
            if found.fragments_pass
            else "Larger datagrams are lost: fragments do not pass."
        )
    if not found.both_ways:
        sentences.append("The server answers with short errors, so all this holds for the way there only.")
    if not found.verified:
        sentences.append("When it was tried again it did not hold: the path changes, or loses too much.")
    return sentences


def _no_answer(address: str, probes: int, reason: str) -> str:
    why = one_line(reason) if reason else "is a server running there? a firewall may be silent, too"
    return f"{address} did not answer {counted(probes, 'probe')}: {why}"


def _limit_of(found: SizeSweep) -> list[str]:
    """Say what ends the size."""
    mtu = f"The path MTU is {found.path_mtu or 0:,} bytes"
    if found.limit == "server":
        ends = (
            f"The server cuts larger ones to {found.cut_to:,} bytes; the path carries more."
            if found.cut_to is not None
            else "Larger ones stay unanswered, but that is the size of a buffer rather than of a path: "
            "the server seems to take in no more."
        )
    elif found.limit == "silence" and not found.fragments_pass:
        ends = (
            f"{mtu}. Larger ones vanish without a word: a black hole on the path, through which fragments do not pass "
            "either, or a server that takes in no more."
        )
    else:
        ends = {
            "interface": f"{mtu}, which is that of the own interface.",
            "router": f"{mtu}, as a router says by ICMP.",
            "this machine": f"It is this machine that stops larger ones: {found.detail}.",
            "none": "That is the largest that was tried: the path may carry more.",
            "silence": f"{mtu}. Larger ones that may not be fragmented vanish without a word: a black hole.",
        }[found.limit]
    return [ends]


def rate_findings(found: RateSweep) -> list[str]:
    """Return what a sweep over rates has found."""
    allowed = "nothing" if not found.max_loss else f"at most {share_text(found.max_loss)}"
    if found.bound == "no answer":
        step = found.steps[-1]
        return [_no_answer(found.address, step.sent, step.detail)]
    if found.highest is None:
        if found.bound == "this machine":
            if not any(step.sent for step in found.steps):
                return [f"It is this machine that sends nothing to {found.address}: {found.detail}."]
            return [f"It is this machine that loses probes at every rate: {found.detail}."]
        return [f"No rate was found at which {allowed} is lost; --max-loss 1% allows for some."]
    bits = found.highest * found.size * 8
    size = f"{found.size:,} bytes each, {_bits_text(bits)} of payload"
    sentences = [f"Up to {rate_text(found.highest)} {allowed} is lost ({size})."]
    if found.lost_at is not None:
        loss = max((step.loss for step in found.steps if step.rate == found.lost_at), default=0.0)
        sentences.append(f"At {rate_text(found.lost_at)} {share_text(loss)} was lost.")
    if found.bound == "this machine":
        sentences.append(f"It is this machine that cannot do more, not the network: {found.detail}.")
    if found.bound == "most_rate":
        sentences.append("That is the highest rate that was tried; --flood RATE tries up to another one.")
    if found.bound == "steps" or not found.confirmed:
        sentences.append("It was not found again when it was tried again: the limit moves.")
    return sentences


def _bits_text(bits: float) -> str:
    """Return bits per second as people read them: ``512 kbit/s``."""
    for factor, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= factor:
            return f"{bits / factor:.3g} {unit}"
    return f"{bits:.0f} bit/s"
