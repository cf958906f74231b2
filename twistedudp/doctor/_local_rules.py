"""Which rules of this machine's packet filter stand in the way of a UDP port.

Theory of operation: the rules are asked for by their own programs, for the kernel's interface to them has no other
stable form: ``nft`` knows all of them but those of the old iptables, and names extensions of iptables without saying
what they do. So ``iptables-save`` and ``ip6tables-save`` are asked as well where one of these is in use or ``nft`` is
not to be had. All of them need the rights of root. What they print is followed by :mod:`._local_filter`, for IPv4 and
IPv6, and becomes findings: one for each rule that acts on every datagram or on those above a rate, and one for all that
may act on some, since that depends on the sender.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..transport._holder import PROC
from ._findings import Finding
from ._local_filter import Does, passage, told_once
from ._local_iptables import parse_saved_rules
from ._local_nft import dormant_tables, extended_tables, parse_ruleset, rule_texts, shortened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from ._local_filter import Datagram, Hit, Ruleset

__all__ = ["PROGRAMS", "Rules", "RulesNotReadable", "examine_rules", "findings_of_hits", "read_rules"]

PATIENCE: Final = 10.0
"""Seconds for one program; the largest sets of rules take some two."""

MOST_OUTPUT: Final = 64 * 1024 * 1024
"""Bytes of a program's output that are read: some hundred thousand rules."""

MOST_QUOTED: Final = 8
"""Rules that may match, of which each is quoted in the evidence; the rest is counted."""

PROGRAMS: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where the programs are looked for: nft is seldom on the path of those who are not root."""

_TABLES: Final = ("filter", "nat", "mangle", "raw", "security")
_SAVERS: Final = {False: "iptables-save", True: "ip6tables-save"}


class RulesNotReadable(Exception):
    """A program that knows the rules cannot be used; its text says why, in words that follow "because"."""


@dataclass(frozen=True)
class Rules:
    """The rules of this machine, as texts.

    Attributes:
        nft: The JSON of ``nft``; empty where it is not to be had.
        listing: The rules as ``nft`` writes them for people.
        saved: The output of ``iptables-save`` (False) and ``ip6tables-save`` (True), where they were asked.
        unread: Why something cannot be read, a line each.
    """

    nft: str = ""
    listing: str = ""
    saved: dict[bool, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def read(self) -> bool:
        """Whether there is anything to go by."""
        return bool(self.nft or self.saved)

    def rulesets(self, datagram: Datagram) -> list[Ruleset]:
        """Return the chains that a datagram meets, of each source.

        Raises:
            RulesNotReadable: What ``nft`` printed is not understood.
        """
        saved = self.saved.get(datagram.ipv6, "")
        rulesets = [parse_saved_rules(saved, datagram)] if saved else []
        if self.nft:
            family = "ip6" if datagram.ipv6 else "ip"
            try:
                twice = extended_tables(self.nft).intersection(f"{family} {table}" for table in _TABLES)
                without = (twice if saved else set()) | dormant_tables(self.listing)
                rulesets.append(parse_ruleset(self.nft, datagram, rule_texts(self.listing), without))
            except ValueError as error:
                raise RulesNotReadable(f"what nft prints is not understood ({error})") from error
        return rulesets


def read_rules(*, proc: Path = PROC, path: str = PROGRAMS) -> Rules:
    """Ask the programs for the rules of this network namespace.

    Args:
        proc: Where the proc file system is mounted.
        path: Where the programs are looked for.
    """
    unread: list[str] = []

    def asked(*command: str) -> str | None:
        try:
            return _output(path, *command)
        except RulesNotReadable as error:
            unread.append(str(error))
            return None

    nft = asked("nft", "-j", "list", "ruleset") or ""
    listing = asked("nft", "-a", "list", "ruleset") if nft else ""
    installed = shutil.which("nft", path=path) is not None
    saved: dict[bool, str] = {}
    if _wants_iptables(nft, proc) or not installed:
        texts = {ipv6: asked(program) for ipv6, program in _SAVERS.items()}
        saved = {ipv6: text for ipv6, text in texts.items() if text is not None}
        if len(saved) == len(_SAVERS) and not installed:  # what there is of iptables is all there is to know
            unread.clear()
    return Rules(nft, listing or "", saved, tuple(unread))


def _wants_iptables(nft: str, proc: Path) -> bool:
    """Tell whether there are rules that nft does not know, or does not explain."""
    try:
        if nft and extended_tables(nft):
            return True
    except ValueError:  # told later, when it is read in full
        pass
    in_use = False
    with suppress(OSError):  # not root, or a kernel without the old iptables
        in_use = bool((proc / "net" / "ip_tables_names").read_bytes().strip())
    with suppress(OSError):
        in_use |= bool((proc / "net" / "ip6_tables_names").read_bytes().strip())
    return in_use


def _output(path: str, program: str, *arguments: str) -> str:
    """Run a program and return what it printed.

    Raises:
        RulesNotReadable: It is not there, has failed, takes too long or prints too much.
    """
    found = shutil.which(program, path=path)
    if found is None:
        raise RulesNotReadable(f"{program} is not installed")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        try:
            status = subprocess.run(  # noqa: S603  # a program of the system, with fixed arguments
                [found, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=complaint,
                timeout=PATIENCE,
                check=False,
                env={"PATH": PROGRAMS, "LC_ALL": "C"},
            ).returncode
        except subprocess.TimeoutExpired:
            raise RulesNotReadable(f"{program} did not answer within {PATIENCE:g} s") from None
        except OSError as error:
            raise RulesNotReadable(f"{program} cannot be run: {error.strerror or error}") from error
        for file in (output, complaint):
            file.seek(0)
        text = output.read(MOST_OUTPUT + 1)
        if status:
            said = shortened(complaint.read(4096).decode("utf-8", "replace")) or f"status {status}"
            root = "" if os.geteuid() == 0 else "it takes the rights of root; "
            raise RulesNotReadable(f"{root}{program} says: {said}")
    if len(text) > MOST_OUTPUT:
        raise RulesNotReadable(f"{program} printed more than {MOST_OUTPUT:,} bytes")
    return text.decode("utf-8", "replace")


def examine_rules(rules: Rules, datagrams: Iterable[Datagram]) -> tuple[list[Finding], list[str]]:
    """Return findings on what the rules do with datagrams to a port, and lines of evidence on what was looked at.

    Args:
        rules: The rules.
        datagrams: One of each address family that matters; all to the same port.
    """
    hits: dict[Hit, list[bool]] = {}
    unread = list(rules.unread)
    followed = list(datagrams)
    port = followed[0].port if followed else 0
    read = rules.read
    for datagram in followed:
        try:
            rulesets = rules.rulesets(datagram)
        except RulesNotReadable as error:
            unread.append(str(error))
            read = False
            break
        for hit in told_once(hit for ruleset in rulesets for hit in passage(ruleset)):
            hits.setdefault(hit, []).append(datagram.ipv6)
    findings = findings_of_hits(port, hits, both=len(followed) > 1)
    if unread:
        findings.append(_unreadable(port, unread))
    evidence = [f"packet filter: accepted by {_quoted(hit)}" for hit in hits if hit.does is Does.ACCEPT]
    if read and not any(hit.does is not Does.ACCEPT for hit in hits):
        evidence.append(f"packet filter: no rule for UDP port {port} stops it")
    return findings, evidence


def _unreadable(port: int, unread: Collection[str]) -> Finding:
    reasons = list(dict.fromkeys(unread))
    missing = any("not installed" in reason for reason in reasons)
    rights = any("root" in reason or "permitted" in reason for reason in reasons)
    return Finding(
        "UDP-RULES-UNREADABLE",
        f"whether a packet filter rule stops datagrams to UDP port {port} is not known",
        tuple(reasons),
        ("run this as root: " if rights else "install nftables and run as root: " if missing else "look yourself: ")
        + f"'sudo nft list ruleset', and look for 'udp dport {port}' and for 'policy drop'; "
        "or 'sudo iptables-save' where that is in use",
        fault=False,
    )


def findings_of_hits(port: int, hits: dict[Hit, list[bool]], *, both: bool) -> list[Finding]:
    """Return findings on the rules that were met.

    Args:
        port: The port.
        hits: The rules, each with the address families (is it IPv6?) that meet it.
        both: Whether both families were looked at.
    """
    findings, doubtful = [], []
    for hit, families in hits.items():
        kind = "" if not both or len(families) > 1 else " over IPv6" if families[0] else " over IPv4"
        if hit.does is Does.ACCEPT:
            continue
        if hit.certain or hit.limited or hit.spared:
            findings.append(_acting(port, hit, kind))
        else:
            doubtful.append(hit)
    if doubtful:
        findings.append(_doubtful(port, doubtful))
    return findings


def _acting(port: int, hit: Hit, kind: str) -> Finding:
    some = "" if hit.certain else "some "
    evidence = [_quoted(hit)]
    if hit.spared:
        evidence.append(f"what it meets has exceeded the rate of {hit.spared}")
    return Finding(
        "UDP-RULE",
        f"a packet filter rule {hit.does.value} {some}datagrams to UDP port {port}{kind}"
        f"{'' if hit.certain else ', for it depends on their rate'}: {hit.text}",
        tuple(evidence),
        _advice(port, hit),
        fault=hit.certain,
    )


def _advice(port: int, hit: Hit) -> str:
    if hit.does is Does.ELSEWHERE:
        return "the program at this port does not see them: take the rule out, or ask where it sends them"
    if not hit.certain:
        return "this is meant to hold floods back; where it holds back those who are welcome, raise the rate"
    accept = f"udp dport {port} accept"
    program, comma, rest = hit.where.partition(", ")
    if program.endswith("tables") and comma:
        chain = rest.rpartition(" ")[2]
        return f"put a rule in front of it: {program} -I {chain} -p udp --dport {port} -j ACCEPT"
    place = hit.where.removeprefix("table ").replace(", chain ", " ")
    return f"put a rule in front of it: nft insert rule {place} {accept}"


def _doubtful(port: int, hits: list[Hit]) -> Finding:
    quoted = [_quoted(hit) for hit in hits[:MOST_QUOTED]]
    if len(hits) > MOST_QUOTED:
        quoted.append(f"and {len(hits) - MOST_QUOTED} more")
    rules = "a packet filter rule" if len(hits) == 1 else f"{len(hits)} packet filter rules"
    return Finding(
        "UDP-RULE",
        f"{rules} may stop some datagrams to UDP port {port}, depending on their sender or on what cannot be told here",
        tuple(quoted),
        "look whether they apply to those who get no answer; 'nft monitor trace' shows a datagram's way (nft(8))",
        fault=False,
    )


def _quoted(hit: Hit) -> str:
    return f"{hit.where}: {hit.text}"
