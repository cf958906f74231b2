"""Findings: what the doctor found out, as values with a stable code.

Theory of operation: each thing that the doctor tells apart has a code, which programs and people's notes may rely on,
and a line in :data:`CODES` that says what it stands for; docs/doctor.md has a section on each. A :class:`Finding` is
one of them as it was met: a sentence, the evidence for it, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CODES", "FINDINGS_FORMAT", "Finding", "findings_as_json"]

FINDINGS_FORMAT: Final = 1
"""The version of the JSON object; it changes when a member changes its meaning, not when one is added."""

CODES: Final = {
    # From the client's side
    "UDP-ANSWERED": "the server answers",
    "UDP-NOT-ECHO": "something answers, but with other bytes than an echo server or an rpc server would send",
    "UDP-DTLS": "the server speaks DTLS: it answers a ClientHello, and says nothing to plain UDP",
    "UDP-CUT": "the server sends back only the beginning of large datagrams",
    "UDP-OTHER-ADDRESS": "the answer comes from another address than the one that was asked",
    "UDP-REFUSED": "the host is up, and nothing listens at this port (ICMP port unreachable)",
    "UDP-SILENT": "nothing comes back at all: a firewall drops it, the host is down, or the service does not answer",
    "UDP-PROHIBITED": "a firewall refuses it and says so (ICMP administratively prohibited)",
    "UDP-HOST-UNREACHABLE": "a router cannot reach the host (ICMP host unreachable)",
    "UDP-NET-UNREACHABLE": "a router has no way to the network (ICMP network unreachable)",
    "UDP-UNREACHABLE": "an ICMP error of another kind came back",
    "UDP-NAME-UNKNOWN": "the name does not resolve",
    "UDP-MTU": "the path carries smaller packets than this machine's interface, and a router says so",
    "UDP-MTU-SILENT": "packets above a certain size vanish on the way, and no router says so",
    "UDP-FRAGMENTS-DROPPED": "small datagrams pass and large ones do not: fragments are dropped on the way",
    "UDP-LOSS": "datagrams are lost at random, at any rate",
    "UDP-RATE-LIMITED": "datagrams are lost above a certain rate",
    "UDP-NO-ROUTE": "this machine has no route to the server",
    "UDP-PORTS-EXHAUSTED": "this machine has no free UDP port to send from",
    "UDP-LOCAL-FIREWALL": "a rule of this machine forbids the sending",
    "UDP-RECEIVE-BUFFER": "answers reach this machine and are dropped there: the socket's receive buffer is full",
    "UDP-BROADCAST": "the address is a broadcast or multicast address, which no single server has",
    "UDP-CANNOT-SEND": "this machine's kernel refuses to send for another reason",
    # From the server's own machine (--local)
    "UDP-PORT-HELD": "a process listens at the port, and this is who",
    "UDP-PORT-FREE": "nothing listens at the port",
    "UDP-QUEUE": "datagrams wait in the receive queue: the process does not read them fast enough",
    "UDP-KERNEL-DROPS": "the kernel has dropped datagrams for this socket",
    "UDP-OTHER-LISTENER": "a process listens at the port, but not at the address asked for",
    "UDP-RULE": "a packet filter rule matches the port",
    "UDP-RULES-UNREADABLE": "the packet filter's rules cannot be read",
    "UDP-LOCAL-UNKNOWN": "this system does not tell who listens at which port",
}
"""Each code and what it stands for. A code once given keeps its meaning; new ones may be added."""


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found.

    Attributes:
        code: One of :data:`CODES`.
        says: It in one sentence, with the figures and addresses of this case.
        evidence: What was done and what came of it, a line each.
        advice: What to do about it; empty where there is nothing to do.
        fault: Whether something is wrong: the exit status of the command goes by it.
    """

    code: str
    says: str
    evidence: tuple[str, ...] = ()
    advice: str = ""
    fault: bool = True

    def __post_init__(self) -> None:
        """Hold the code to the list.

        Raises:
            ValueError: It is none of them.
        """
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is no code of a finding")

    def as_json(self) -> dict[str, Any]:
        """Return it as the object of ``--json``."""
        return {
            "code": self.code,
            "fault": self.fault,
            "says": self.says,
            "evidence": list(self.evidence),
            "advice": self.advice,
        }


def findings_as_json(target: str, findings: Iterable[Finding], **more: object) -> dict[str, Any]:
    """Return findings as the object that ``udpecho doctor --json`` prints.

    Args:
        target: The server as the user named it.
        findings: In the order of their weight.
        more: Further members.
    """
    found = list(findings)
    return {
        "format": FINDINGS_FORMAT,
        "target": target,
        "ok": not any(finding.fault for finding in found),
        **more,
        "findings": [finding.as_json() for finding in found],
    }
