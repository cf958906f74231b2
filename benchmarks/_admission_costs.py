"""What it costs to decide whether a datagram is let in: compiled, and in plain Python.

Theory of operation: no socket and no datagram is involved, only source addresses, as the kernel writes them for the
compiled one and as text for the other. The compiled one runs in a loop of its own module, with a look at the clock for
every 64 decisions, as a read turn has. Those who may send as much as they like meet rates that are never used up, and
take the whole way through both tables: that is what a server pays. Refusals are cheaper. Told is processor time, since
a machine has other things to do as well.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from ipaddress import ip_network
from typing import Any, Final

from _costs import Cost, Costs

from twistedudp.admission import Admission, AdmissionPolicy, AdmissionStats
from twistedudp.transport._backend import choose_backend

__all__ = ["LIMIT", "measure"]

LIMIT: Final = 0.3
"""Microseconds that a decision may take on the compiled backend."""

UNUSED: Final = AdmissionPolicy(rate=1e7, burst=1_000_000, total_rate=1e7)
"""Rates that nothing here uses up."""

LISTS: Final = AdmissionPolicy(
    rate=1e7,
    burst=1_000_000,
    total_rate=1e7,
    deny=tuple(ip_network((0x0B00_0000 + number * 512, 24)) for number in range(1000)),
)
"""The same, and a thousand denied networks."""

CASES: Final = {
    "one peer, let in": (UNUSED, 1, 4),
    "one peer, over its rate": (AdmissionPolicy(), 1, 4),
    "1,000 peers, let in": (UNUSED, 1000, 4),
    "1,000 peers, let in, 1,000 networks denied": (LISTS, 1000, 4),
    "1,000 peers of IPv6, let in": (UNUSED, 1000, 6),
    "random sources": (UNUSED, 0, 4),
    "random sources of IPv6": (UNUSED, 0, 6),
    "random sources, all over their rate": (AdmissionPolicy(), 0, 4),
}
"""The policy, how many peers there are (0: each datagram has another), and the IP version."""

_PURE_SHARE: Final = 20  # of as many decisions as the compiled one makes


def measure(quick: bool) -> Costs | str:
    """Measure all cases, in rounds.

    Returns:
        The table; or why there is none.
    """
    rounds, decisions = (3, 100_000) if quick else (7, 1_000_000)
    compiled = choose_backend().name == "mmsg"
    rows: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, (policy, peers, version) in CASES.items():
            if compiled:
                spent = _compiled(policy, _raw_sources(peers or decisions, version), decisions)
                rows.setdefault((name, "compiled"), []).append(spent)
            spent = _pure(policy, _sources(peers or decisions // _PURE_SHARE, version), decisions // _PURE_SHARE)
            rows.setdefault((name, "plain Python"), []).append(spent)
    return Costs(
        name="admission",
        title="Deciding whether a datagram is let in",
        columns=("who sends", "decided", "µs each", "at most"),
        rows=[
            Cost(labels, values, LIMIT if labels[1] == "compiled" else None) for labels, values in sorted(rows.items())
        ],
        note="A port without an admission policy does not ask.",
    )


def _numbers(count: int, version: int) -> list[int]:
    """Return addresses as numbers: the same in each run, and all over the Internet."""
    rng = random.Random(count)  # noqa: S311  # any will do
    return [rng.getrandbits(32 if version == 4 else 128) for _ in range(count)]


def _raw_sources(count: int, version: int) -> tuple[bytes, int]:
    """Return addresses as the kernel has them, one behind the other, and the size of one."""
    if version == 4:
        made = [struct.pack("=H2xI8x", socket.AF_INET, number) for number in _numbers(count, version)]
    else:
        made = [
            struct.pack("=H6x16sI", socket.AF_INET6, number.to_bytes(16, "big"), 0)
            for number in _numbers(count, version)
        ]
    return b"".join(made), len(made[0])


def _sources(count: int, version: int) -> list[str]:
    """Return addresses as text."""
    family, size = (socket.AF_INET, 4) if version == 4 else (socket.AF_INET6, 16)
    return [socket.inet_ntop(family, number.to_bytes(size, "big")) for number in _numbers(count, version)]


def _compiled(policy: AdmissionPolicy, sources: tuple[bytes, int], decisions: int) -> float:
    """Return the microseconds of a decision in C."""
    from twistedudp.transport._mmsg._admission import Admission as Compiled  # noqa: PLC0415  # it may not be there

    raw, size = sources
    decider = Compiled(policy, os.urandom(32), AdmissionStats())
    rounds = max(1, decisions // (len(raw) // size))
    decider.run(raw, size, 1)
    started = time.thread_time()
    decider.run(raw, size, rounds)
    return (time.thread_time() - started) / (rounds * (len(raw) // size)) * 1e6


def _pure(policy: AdmissionPolicy, sources: list[str], decisions: int) -> float:
    """Return the microseconds of a decision in plain Python, with the look at the clock that each of them has."""
    decider: Any = Admission(policy, key=os.urandom(32))
    clock = time.monotonic_ns
    admitted = decider.admitted
    rounds = max(1, decisions // len(sources))
    if rounds > 1:  # peers that come again are known
        for host in sources:
            admitted(host, clock(), 1)
    started = time.thread_time()
    for _ in range(rounds):
        for host in sources:
            admitted(host, clock(), 1)
    return (time.thread_time() - started) / (rounds * len(sources)) * 1e6
