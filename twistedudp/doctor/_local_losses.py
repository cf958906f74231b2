"""Whether datagrams that reach this machine are lost before the program at the port has read them, and why.

Theory of operation: what arrives waits in the socket's receive queue, and what does not fit is dropped and counted.
Which remedy helps depends on the queue: one that is never empty belongs to a process that does not read, or not fast
enough, for which a larger buffer only delays the loss; one that is empty at times overflows in bursts, which a larger
buffer holds. A socket's counter counts other reasons as well (a wrong checksum, a filter of its own), and these are
told apart by the counters of the network namespace that grew at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..address import format_address
from ..transport._holder import PROC
from ._findings import Finding
from ._local_sockets import COUNTERS, process_facts, read_limit

if TYPE_CHECKING:
    from pathlib import Path

    from ._local_sockets import Observation, WatchedSocket

__all__ = ["examine_losses"]

NEARLY_FULL: Final = 0.9
"""The share of the receive buffer from which a queue counts as full: the next datagram may not fit into the rest."""

LARGE_BUFFER: Final = 16 * 1024 * 1024
"""Bytes that are proposed for net.core.rmem_max: half a second of a busy server's datagrams."""

_CHECKSUM_ADVICE: Final = (
    "something on the way damages them: look at the network card ('ethtool -S'), its checksum offload "
    "('ethtool -K DEVICE rx off'), and virtual network cards"
)
_RMEM_MAX: Final = "net/core/rmem_max"
_RMEM_DEFAULT: Final = "net/core/rmem_default"


def examine_losses(seen: Observation, *, proc: Path = PROC) -> list[Finding]:
    """Return findings on the receive queues and on what was dropped.

    Args:
        seen: What was seen of the port.
        proc: Where the proc file system is mounted.
    """
    findings = []
    for watched in seen.sockets:
        if max(watched.queued) > 0:
            findings.append(_queue(watched, seen, proc))
        if watched.listed.drops or watched.dropped:
            findings.append(_drops(watched, seen, proc))
    elsewhere = {name: count for name in COUNTERS if (count := seen.grown.get(name, 0))}
    if elsewhere and not any(watched.dropped for watched in seen.sockets):
        findings.append(_machine(seen, elsewhere))
    return findings


def _queue(watched: WatchedSocket, seen: Observation, proc: Path) -> Finding:
    where = _where(watched)
    looks = f"bytes waiting at {len(watched.queued)} looks in {seen.seconds:g} s: " + " ".join(map(str, watched.queued))
    size = watched.receive_buffer
    evidence = [looks, f"receive buffer: {size:,} bytes" if size is not None else "receive buffer: unknown"]
    if not watched.never_empty:
        return Finding(
            "UDP-QUEUE",
            f"datagrams waited at {where} for a moment, and were read: the queue was empty within {seen.seconds:g} s",
            tuple(evidence),
            "",
            fault=False,
        )
    full = size is not None and watched.queued[-1] >= NEARLY_FULL * size
    if full:
        how = "is full"
    elif watched.growing:
        how = "grows"
    elif len(set(watched.queued)) == 1:
        how = "stands still"
    else:
        how = "never becomes empty"
    evidence += _states(watched, proc)
    return Finding(
        "UDP-QUEUE",
        f"the receive queue of {where} {how}: {watched.queued[-1]:,} bytes wait, and the process does not read them"
        + ("" if how in {"grows", "is full", "stands still"} else " fast enough"),
        tuple(evidence),
        _reader_advice(watched, proc),
    )


def _drops(watched: WatchedSocket, seen: Observation, proc: Path) -> Finding:
    where, total = _where(watched), watched.listed.drops
    if not watched.dropped:
        return Finding(
            "UDP-KERNEL-DROPS",
            f"the kernel has dropped {total:,} datagrams for {where} since it was opened, and none within the last "
            f"{seen.seconds:g} s",
            (_grown(seen),),
            "if it goes on, ask again while it does: then the reason can be told",
            fault=False,
        )
    cause, advice = _cause(watched, seen, proc)
    size = watched.receive_buffer
    evidence = [
        f"dropped since it was opened: {total:,}",
        "bytes waiting: " + " ".join(map(str, watched.queued)),
        f"receive buffer: {size:,} bytes" if size is not None else "receive buffer: unknown",
        *_states(watched, proc),
        *_limits(proc),
        _grown(seen),
    ]
    return Finding(
        "UDP-KERNEL-DROPS",
        f"the kernel drops datagrams for {where}, {watched.dropped:,} within {seen.seconds:g} s: {cause}",
        tuple(evidence),
        advice,
    )


def _cause(watched: WatchedSocket, seen: Observation, proc: Path) -> tuple[str, str]:
    """Return why a socket loses datagrams, and what helps."""
    grown = seen.grown
    if grown.get("RcvbufErrors"):
        size = watched.receive_buffer
        if watched.never_empty and (size is None or min(watched.queued) >= size / 2):
            return "its receive buffer is full, for the process does not read fast enough", _reader_advice(
                watched, proc
            )
        return "its receive buffer is too small for the bursts that come", _buffer_advice(watched, proc)
    if grown.get("MemErrors"):
        return COUNTERS["MemErrors"], "raise it: sysctl -w net.ipv4.udp_mem='MIN PRESSURE MAX' (pages; udp(7))"
    if grown.get("InCsumErrors"):
        return "they arrive with a wrong checksum", _CHECKSUM_ADVICE
    cause = (
        "not for want of buffer: a filter that is attached to the socket (SO_ATTACH_FILTER, BPF) or a policy of IPsec "
        "refuses them"
    )
    return cause, "look at what the program, or the service manager that started it, attaches to its sockets"


def _buffer_advice(watched: WatchedSocket, proc: Path) -> str:
    limit, default, size = read_limit(_RMEM_MAX, proc), read_limit(_RMEM_DEFAULT, proc), watched.receive_buffer
    raise_limit = f"sysctl -w net.core.rmem_max={max(LARGE_BUFFER, 2 * (limit or 0))}"
    if size is None:
        return f"let the program ask for more (SO_RCVBUF; udpecho asks for 4 MiB), and allow it: {raise_limit}"
    if limit is not None and size >= 2 * limit:  # the kernel doubles what is asked for (socket(7))
        return f"it has as much as this system allows: {raise_limit}, and start the program again"
    if size == default:
        return (
            "the program asks for no buffer of its own and has net.core.rmem_default: let it ask (SO_RCVBUF; udpecho "
            f"asks for 4 MiB), or sysctl -w net.core.rmem_default={LARGE_BUFFER}, and start it again"
        )
    larger = "" if limit is None or limit >= LARGE_BUFFER else f", and allow it: {raise_limit}"
    return f"let the program ask for a larger buffer (SO_RCVBUF){larger}"


def _reader_advice(watched: WatchedSocket, proc: Path) -> str:
    states = {process_facts(process.pid, proc)[1] for process in watched.processes}
    pids = " ".join(str(process.pid) for process in watched.processes)
    if states & {"T", "t"}:
        return f"it is stopped (Ctrl-Z, SIGSTOP or a debugger): kill -CONT {pids}"
    if not pids:
        return "see what that program does instead of reading; run this as root to see which it is"
    if states == {"S"}:
        return (
            f"it sleeps and does not read: it waits for something else (see 'cat /proc/{pids.split()[0]}/stack' as "
            "root, or 'py-spy dump' for Python); start it again if it hangs"
        )
    return f"it is busy: see 'top -p {pids.replace(' ', ',')}'; let several processes share the port (SO_REUSEPORT)"


def _states(watched: WatchedSocket, proc: Path) -> list[str]:
    words = {"R": "runs", "S": "sleeps", "D": "waits for a device", "T": "is stopped", "t": "is held by a debugger"}
    lines = []
    for process in watched.processes:
        state = process_facts(process.pid, proc)[1]
        if state in words:
            lines.append(f"{process.name} (pid {process.pid}) {words[state]}")
    return lines


def _limits(proc: Path) -> list[str]:
    lines = []
    for name in (_RMEM_DEFAULT, _RMEM_MAX):
        value = read_limit(name, proc)
        if value is not None:
            lines.append(f"{name.replace('/', '.')} = {value}")
    return lines


def _machine(seen: Observation, grown: dict[str, int]) -> Finding:
    reasons = "; ".join(f"{count:,} for {COUNTERS[name]}" for name, count in grown.items())
    if "InCsumErrors" in grown:
        whose = "the kernel does not tell for which port"
        advice = _CHECKSUM_ADVICE
    else:
        whose = f"not for port {seen.port}, as its sockets count"
        advice = "another program's socket loses them: 'ss -uamn' shows whose ('d' in skmem)"
    return Finding(
        "UDP-KERNEL-DROPS",
        f"this machine dropped UDP datagrams within {seen.seconds:g} s, {whose}: {reasons}",
        (_grown(seen),),
        advice,
        fault=False,
    )


def _grown(seen: Observation) -> str:
    told = ", ".join(f"{name} +{seen.grown.get(name, 0)}" for name in ("InDatagrams", "InErrors", *COUNTERS))
    return f"all UDP sockets within {seen.seconds:g} s (/proc/net/snmp): {told}"


def _where(watched: WatchedSocket) -> str:
    where = format_address((watched.listed.host, watched.listed.port))
    processes = ", ".join(f"{process.name}, pid {process.pid}" for process in watched.processes)
    return f"{where} ({processes})" if processes else where
