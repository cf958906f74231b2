"""The rules of nftables, as ``nft -j list ruleset`` prints them (libnftables-json(5)).

Theory of operation: the JSON names tables, chains, rules, sets and maps. Each rule is a list of statements: matches,
which narrow what it applies to, and at most one verdict. :func:`parse_ruleset` reads it for one datagram and makes of
each rule the steps that :mod:`._local_filter` follows. What is not understood here (a mark, a connection count, an
extension of iptables) matches *perhaps*; what contradicts the datagram (another protocol, another port) does not match.
JSON has no text that people write rules in, so :func:`rule_texts` takes it from ``nft -a list ruleset``, by the handles
of the rules.

Nothing is taken for granted about the shape of the JSON: what has another is something not understood.
"""

from __future__ import annotations

import json
import operator
import re
from typing import TYPE_CHECKING, Any, Final

from ._local_fields import field_equals, only_member
from ._local_filter import HOOKS, Chain, Does, Match, Ruleset, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ._local_filter import Datagram

__all__ = ["extended_tables", "parse_ruleset", "rule_texts"]

_TOO_DEEP: Final = "nft printed values inside of values without an end"

DEEPEST_VALUE: Final = 8
"""Sets inside of sets that are looked into; nft nests two."""

LONGEST_TEXT: Final = 200
"""Characters of a rule that are quoted: more does not help anybody to find it."""

_FAMILIES: Final = {"ip": (False,), "ip6": (True,), "inet": (False, True), "netdev": (False, True)}
"""Each family of tables that a datagram may meet, with whether it has IPv4 and IPv6 (False, True)."""

_VERDICTS: Final = {
    "accept": Does.ACCEPT,
    "drop": Does.DROP,
    "reject": Does.REJECT,
    "return": Does.RETURN,
    "jump": Does.JUMP,
    "goto": Does.GOTO,
    "queue": Does.ELSEWHERE,
    "dnat": Does.ELSEWHERE,
    "redirect": Does.ELSEWHERE,
    "tproxy": Does.ELSEWHERE,
    "fwd": Does.ELSEWHERE,
}
_NEUTRAL: Final = frozenset({
    *("counter", "log", "mangle", "notrack", "comment", "continue", "dup", "last", "flow", "secmark", "snat"),
    *("masquerade", "ct helper", "ct timeout", "ct expectation"),
})  # fmt: skip
"""Statements that neither narrow a rule nor decide."""

_XT_VERDICTS: Final = {
    "ACCEPT": Does.ACCEPT,
    "DROP": Does.DROP,
    "REJECT": Does.REJECT,
    "DNAT": Does.ELSEWHERE,
    "REDIRECT": Does.ELSEWHERE,
    "TPROXY": Does.ELSEWHERE,
    "NFQUEUE": Does.ELSEWHERE,
}
_XT_NEUTRAL: Final = frozenset({
    *("LOG", "NFLOG", "MARK", "CONNMARK", "CT", "AUDIT", "SET", "TRACE", "CHECKSUM", "comment"),
})  # fmt: skip
"""Extensions that neither narrow a rule nor decide, as far as their names tell."""

_COMPARISONS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge
}  # fmt: skip
_OTHER_PROTOCOLS: Final = frozenset(
    {"tcp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "igmp", "ah", "esp", "comp", "arp"}
)


def parse_ruleset(
    text: str,
    datagram: Datagram,
    texts: Mapping[tuple[str, str, int], str] | None = None,
    without: Collection[str] = (),
) -> Ruleset:
    """Return the chains that a datagram meets.

    Args:
        text: The JSON.
        datagram: The datagram.
        texts: The rules as people write them, by table, chain and handle; see :func:`rule_texts`.
        without: Tables to leave out, because they are read elsewhere.

    Raises:
        ValueError: It is no JSON, or not of nft's shape.
    """
    try:
        return _read(_entries(text), datagram, texts or {}, without)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def _read(
    entries: list[tuple[str, dict[str, Any]]],
    datagram: Datagram,
    texts: Mapping[tuple[str, str, int], str],
    without: Collection[str],
) -> Ruleset:
    sets = {
        f"{_name(body, 'family', 'table')} @{body.get('name')}": body.get("elem")
        for kind, body in entries
        if kind in {"set", "map"}
    }
    chains: dict[str, Chain] = {}
    for kind, body in entries:
        apart = _name(body, "family", "table") in without
        if kind == "chain" and not apart and datagram.ipv6 in _FAMILIES.get(str(body.get("family")), ()):
            chains[_name(body, "family", "table", "name")] = _chain(body)
    for kind, body in entries:
        chain = chains.get(_name(body, "family", "table", "chain")) if kind == "rule" else None
        if chain is not None:
            chain.steps.extend(_Rule(body, datagram, sets, texts).steps())
    return Ruleset([chain for chain in chains.values() if chain.hook], chains)


def extended_tables(text: str) -> set[str]:
    """Return the tables (``ip filter``) with extensions of iptables, which the JSON names without saying what they do.

    Raises:
        ValueError: It is no JSON, or not of nft's shape.
    """
    entries = _entries(text)
    try:
        return {
            _name(body, "family", "table") for kind, body in entries if kind == "rule" and '"xt"' in json.dumps(body)
        }
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def rule_texts(listing: str) -> dict[tuple[str, str, int], str]:
    """Return the rules in ``nft -a list ruleset`` by table (``inet filter``), chain and handle."""
    texts = {}
    table = chain = ""
    for line in listing.splitlines():
        if opened := re.match(r"table (\S+ \S+) \{", line):
            table, chain = opened[1], ""
        elif opened := re.match(r"\tchain (\S+) \{", line):
            chain = opened[1]
        elif found := re.fullmatch(r"\t\t(.+) # handle (\d{1,20})", line):
            texts[table, chain, int(found[2])] = found[1].strip()
    return texts


def dormant_tables(listing: str) -> set[str]:
    """Return the tables that are switched off, from ``nft -a list ruleset``: the JSON of nft 1.0.6 leaves flags out."""
    table, dormant = "", set()
    for line in listing.splitlines():
        if opened := re.match(r"table (\S+ \S+) \{", line):
            table = opened[1]
        elif re.match(r"\tflags .*\bdormant\b", line):
            dormant.add(table)
    return dormant


def _entries(text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        listed = json.loads(text)["nftables"]
        return [
            (kind, body)
            for entry in listed
            if isinstance(entry, dict)
            for kind, body in entry.items()
            if isinstance(body, dict)
        ]
    except (RecursionError, KeyError, TypeError, IndexError) as error:
        raise ValueError("nft printed no list of rules") from error


def _name(body: dict[str, Any], *members: str) -> str:
    return " ".join(str(body.get(member)) for member in members)


def _chain(body: dict[str, Any]) -> Chain:
    hook, priority = body.get("hook"), body.get("prio")
    return Chain(
        where=f"table {_name(body, 'family', 'table')}, chain {body.get('name')}",
        hook=hook if isinstance(hook, str) and hook in HOOKS else "",
        priority=priority if isinstance(priority, int) else 0,
        drops=body.get("policy") == "drop",
        reached=Match.PERHAPS if "dev" in body else Match.YES,
    )


class _Rule:
    """One rule, read for one datagram.

    Args:
        body: Its JSON.
        datagram: The datagram.
        sets: The elements of the named sets and maps.
        texts: The rules as people write them.
    """

    def __init__(
        self,
        body: dict[str, Any],
        datagram: Datagram,
        sets: Mapping[str, Any],
        texts: Mapping[tuple[str, str, int], str],
    ) -> None:
        self._table = _name(body, "family", "table")
        self._datagram = datagram
        self._sets = sets
        statements = body.get("expr")
        self._statements: list[Any] = statements if isinstance(statements, list) else []
        handle = body.get("handle")
        key = (self._table, str(body.get("chain")), handle if isinstance(handle, int) else -1)
        self._text = shortened(texts.get(key) or json.dumps(self._statements))

    def steps(self) -> Iterator[Step]:
        """Yield what it does, none if it neither decides nor jumps, or matches nothing."""
        match, limited = Match.YES, False
        for statement in self._statements:
            kind, body = only_member(statement)
            if kind == "match":
                match = min(match, self._matches(body))
            elif kind == "limit":
                limited = True
            elif kind in {"meter", "set"}:  # a rate of each sender, or a set that fills by itself
                limited = limited or '"limit"' in json.dumps(body)
                match = match if limited else min(match, Match.PERHAPS)
            elif kind == "vmap":
                yield from self._branches(body, match, limited=limited)
            elif kind == "xt":
                does, holds = _extension(body)
                match = min(match, holds)
                if does is not None:
                    yield self._step(match, does, limited=limited)
            elif kind in _VERDICTS:
                target = str(body.get("target")) if isinstance(body, dict) else ""
                yield self._step(match, _VERDICTS[kind], target, limited=limited)
            elif kind not in _NEUTRAL:
                match = min(match, Match.PERHAPS)

    def _step(self, match: Match, does: Does, target: str = "", *, limited: bool) -> Step:
        return Step(self._text, match, does, f"{self._table} {target}", limited)

    def _branches(self, body: Any, match: Match, *, limited: bool) -> Iterator[Step]:
        """Yield what a verdict map does: one step for each of its elements."""
        key, data = (body.get("key"), body.get("data")) if isinstance(body, dict) else (None, None)
        elements = self._elements(data)
        if elements is None:
            yield self._step(min(match, Match.PERHAPS), Does.UNKNOWN, limited=limited)
            return
        for element in elements:
            if isinstance(element, list) and len(element) == 2:
                kind, verdict = only_member(element[1])
                holds = min(match, self._equals(key, element[0]))
                if kind in _VERDICTS and holds is not Match.NO:
                    target = str(verdict.get("target")) if isinstance(verdict, dict) else ""
                    yield self._step(holds, _VERDICTS[kind], target, limited=limited)

    def _elements(self, value: Any) -> list[Any] | None:
        """Return the elements of a set or map, None where it is none or not known."""
        if isinstance(value, str) and value.startswith("@"):
            found = self._sets.get(f"{self._table} {value}", [])  # an empty one has no elements in the JSON
            return found if isinstance(found, list) else None
        if isinstance(value, dict) and isinstance(value.get("set"), list):
            return list(value["set"])
        return None

    def _matches(self, body: Any) -> Match:
        if not isinstance(body, dict):
            return Match.PERHAPS
        sign, left, right = str(body.get("op")), body.get("left"), body.get("right")
        field = _field(left, self._datagram)
        if field == "none":
            return Match.NO
        if sign in {"==", "in"}:
            return self._equals(left, right)
        if sign == "!=":
            return self._equals(left, right).inverted()
        compare = _COMPARISONS.get(sign)
        if compare is not None and field == "dport" and isinstance(right, int):
            return Match.YES if compare(self._datagram.port, right) else Match.NO
        return Match.PERHAPS

    def _equals(self, left: Any, right: Any, depth: int = 0) -> Match:
        """Tell whether a field of the datagram is a value, or among several."""
        if depth > DEEPEST_VALUE:
            return Match.PERHAPS
        elements = right if isinstance(right, list) else self._elements(right)
        if elements is not None:
            return max((self._equals(left, element, depth + 1) for element in elements), default=Match.NO)
        kind, body = only_member(right)
        if kind == "elem" and isinstance(body, dict):
            return self._equals(left, body.get("val"), depth + 1)
        lefts, rights = only_member(left), (kind, body)
        if lefts[0] == "concat" or rights[0] == "concat":
            if lefts[0] == rights[0] and isinstance(lefts[1], list) and isinstance(body, list):
                pairs = zip(lefts[1], body, strict=False)
                return min((self._equals(one, other, depth + 1) for one, other in pairs), default=Match.PERHAPS)
            return Match.PERHAPS
        return field_equals(_field(left, self._datagram), right, self._datagram)


def shortened(text: str) -> str:
    """Return a rule as it is quoted: in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _extension(body: Any) -> tuple[Does | None, Match]:
    """Return what an extension of iptables does, and whether it matches."""
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or name in _XT_NEUTRAL:
        return None, Match.YES if isinstance(name, str) else Match.PERHAPS
    if isinstance(body, dict) and body.get("type") == "target":
        return _XT_VERDICTS.get(name, Does.UNKNOWN), Match.YES
    return None, Match.PERHAPS


def _field(left: Any, datagram: Datagram) -> str:
    """Return which field of the datagram a match looks at: "none" if it has no such field, "" if it is not known."""
    kind, body = only_member(left)
    if not isinstance(body, dict):
        return ""
    if kind == "payload":
        return _payload_field(body, datagram)
    if kind == "meta":
        key = body.get("key")
        return {"iif": "iifname"}.get(key, key) if isinstance(key, str) else ""
    if kind == "ct" and body.get("key") == "state":
        return "ct state"
    if kind == "fib" and body.get("result") == "type" and "daddr" in json.dumps(body.get("flags")):
        return "type of daddr"
    return ""


def _payload_field(body: dict[str, Any], datagram: Datagram) -> str:
    protocol, field = str(body.get("protocol")), str(body.get("field"))
    if protocol in {"udp", "th"} and field == "dport":
        return "dport"
    if body.get("base") == "th" and (body.get("offset"), body.get("len")) == (16, 16):
        return "dport"
    if protocol in {"ip", "ip6"}:
        if datagram.ipv6 is not (protocol == "ip6"):
            return "none"
        return {"protocol": "l4proto", "nexthdr": "l4proto", "daddr": "daddr", "saddr": "saddr"}.get(field, "")
    return "none" if protocol in _OTHER_PROTOCOLS else ""
