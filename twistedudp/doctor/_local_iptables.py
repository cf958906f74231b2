"""The rules of iptables, as ``iptables-save`` and ``ip6tables-save`` print them (iptables(8), iptables-extensions(8)).

Theory of operation: the text has a table after ``*``, chains with their policies after ``:``, and a rule on each line
that begins with ``-A``. :func:`parse_saved_rules` reads it for one datagram. An option that it does not know, such as
an extension's, makes the rule match *perhaps*. The order of the tables is the kernel's, not that of the text.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from ._local_fields import field_equals
from ._local_filter import Chain, Does, Match, Ruleset, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ._local_filter import Datagram

__all__ = ["parse_saved_rules"]

_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
"""``linux/netfilter_ipv4.h``"""
_HOOKS: Final = {"PREROUTING": "prerouting", "INPUT": "input"}
_TARGETS: Final = {
    "ACCEPT": Does.ACCEPT,
    "DROP": Does.DROP,
    "REJECT": Does.REJECT,
    "RETURN": Does.RETURN,
    "DNAT": Does.ELSEWHERE,
    "REDIRECT": Does.ELSEWHERE,
    "TPROXY": Does.ELSEWHERE,
    "NFQUEUE": Does.ELSEWHERE,
    "QUEUE": Does.ELSEWHERE,
}
_NEUTRAL: Final = frozenset({
    *("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "AUDIT", "SET", "TRACE", "CHECKSUM", "TOS"),
    *("DSCP", "TTL", "HL", "CLASSIFY", "SNAT", "MASQUERADE", "TEE", "TCPMSS", "CONNSECMARK", "SECMARK", "RATEEST"),
})  # fmt: skip
"""Targets after which the datagram goes on to the next rule."""

_FIELDS: Final = {
    "-p": "l4proto",
    "--protocol": "l4proto",
    "-i": "iifname",
    "--in-interface": "iifname",
    "-s": "saddr",
    "--source": "saddr",
    "-d": "daddr",
    "--destination": "daddr",
    "--dport": "dport",
    "--destination-port": "dport",
    "--dports": "dport",
    "--state": "ct state",
    "--ctstate": "ct state",
    "--pkt-type": "pkttype",
    "--dst-type": "type of daddr",
}
_LIMITS: Final = ("--limit", "--hashlimit-above", "--hashlimit-upto")
_TEXTS: Final = frozenset({"--comment", "--log-prefix", "--nflog-prefix"})
"""Options whose value may be anything."""

_PLAIN: Final = (
    *("-m", "--comment", "--limit-burst", "--log-", "--nflog-", "--reject-with", "--hashlimit-", "--to-destination"),
    *("--to-ports", "--on-ip", "--on-port", "--queue-", "--zone", "--tproxy-mark"),
)
"""Options, or their beginnings, that have a value and do not narrow the rule."""


def parse_saved_rules(text: str, datagram: Datagram) -> Ruleset:
    """Return the chains that a datagram meets.

    Args:
        text: What ``iptables-save`` printed, or ``ip6tables-save`` for a datagram of IPv6.
        datagram: The datagram.
    """
    program = "ip6tables" if datagram.ipv6 else "iptables"
    chains: dict[str, Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy = (*line[1:].split(), "", "")[:2]
            hook = _HOOKS.get(name, "") if table in _PRIORITIES else ""
            where = f"{program}, table {table}, chain {name}"
            priority = _PRIORITIES.get(table, 0)
            chains[f"{table} {name}"] = Chain(where, hook=hook, priority=priority, drops=policy == "DROP")
        elif line.startswith("-A ") and (words := _words(line)):
            chain = chains.get(f"{table} {words[1]}")
            if chain is not None:
                chain.steps.extend(_Rule(line, words[2:], table, chains, datagram).steps())
    return Ruleset([chain for chain in chains.values() if chain.hook], chains)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed: whatever it means, it is not understood
        words = [*line.split(), "--"]
    return words if len(words) > 1 else []


class _Rule:
    """One rule, read for one datagram."""

    def __init__(
        self, line: str, words: list[str], table: str, chains: Mapping[str, Chain], datagram: Datagram
    ) -> None:
        self._line = line
        self._table = table
        self._chains = chains
        self._datagram = datagram
        self._match = Match.YES
        self._limited = False
        self._target = ""
        self._goes = Does.JUMP
        self._read(words)

    def _read(self, words: list[str]) -> None:
        place = 0
        while place < len(words):
            inverted = words[place] == "!"
            place += inverted
            values: list[str] = []
            option = words[place] if place < len(words) else ""
            place += 1
            while place < len(words) and (
                (option in _TEXTS and not values) or not (words[place].startswith("-") or words[place] == "!")
            ):
                values.append(words[place])
                place += 1
            self._option(option, values[0] if values else "", inverted=inverted)

    def _option(self, option: str, value: str, *, inverted: bool) -> None:
        if option in {"-j", "--jump", "-g", "--goto"}:
            self._target = value
            self._goes = Does.GOTO if option in {"-g", "--goto"} else Does.JUMP
        elif option in _LIMITS:
            self._limited = True
        elif option in _FIELDS:
            match = self._compare(_FIELDS[option], value)
            self._match = min(self._match, match.inverted() if inverted else match)
        elif not option.startswith(_PLAIN):
            self._match = min(self._match, Match.PERHAPS)

    def _compare(self, field: str, value: str) -> Match:
        if field == "l4proto":
            return Match.YES if value in {"udp", "17", "all", "0"} else Match.NO
        if field == "iifname" and value.endswith("+"):  # any interface whose name begins so
            return Match.PERHAPS if value == "+" or not self._datagram.looped else Match.NO
        parts = value.split(",")
        if field == "dport":
            matches = (field_equals(field, {"range": _ends(part)}, self._datagram) for part in parts)
        else:
            known = (part.lower() if field != "iifname" else part for part in parts)
            matches = (field_equals(field, part, self._datagram) for part in known)
        return max(matches, default=Match.PERHAPS)

    def steps(self) -> Iterator[Step]:
        """Yield what it does, nothing if it neither decides nor jumps."""
        target = self._target
        chain = f"{self._table} {target}"
        if not target or target in _NEUTRAL:
            return
        does = self._goes if chain in self._chains else _TARGETS.get(target, Does.UNKNOWN)
        yield Step(self._line.strip(), self._match, does, chain, self._limited)


def _ends(part: str) -> list[str]:
    """Return the ends of a range of ports: ``53`` or ``1024:65535``, either end of which may be left out."""
    first, colon, last = part.partition(":")
    return [first or "0", last or "65535"] if colon else [part, part]
