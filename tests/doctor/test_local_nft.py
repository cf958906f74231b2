"""Rules of nftables as JSON, recorded from nft 1.0.6, and as anything that has the shape of JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROPERTY
from twistedudp.doctor._local_filter import Datagram, Does, Match, passage
from twistedudp.doctor._local_nft import LONGEST_TEXT, extended_tables, parse_ruleset, rule_texts, shortened

COSTLY = settings(PROPERTY, max_examples=PROPERTY.max_examples // 3)
"""For values that take long to make."""

DATAGRAM = Datagram(ipv6=False, port=10000, host="", looped=False)
TO_ONE = DATAGRAM._replace(host="192.0.2.1")
TO_ONE6 = Datagram(ipv6=True, port=10000, host="2001:db8::1", looped=False)
LOOPED = DATAGRAM._replace(host="127.0.0.1", looped=True)

YES, PERHAPS, NO = Match.YES, Match.PERHAPS, Match.NO

LISTING = """\
table inet filter { # handle 1
	set ports { # handle 3
		type inet_service
		elements = { 53, 9000-9100 }
	}

	chain sub { # handle 1
		udp dport 10000 reject with icmpx admin-prohibited # handle 5
	}

	chain input { # handle 2
		type filter hook input priority filter; policy drop;
		iif "lo" accept # handle 7
		udp dport { 53, 10000-10010 } drop comment "a # handle" # handle 16
	}
}
table ip nat { # handle 2
	chain input { # handle 1
		udp dport 10000 dnat to 192.0.2.9:53 # handle 7
	}
}
"""


def match(left: Any, right: Any, sign: str = "==") -> dict[str, Any]:
    """Return a match as nft writes it."""
    return {"match": {"op": sign, "left": left, "right": right}}


def field(protocol: str, name: str) -> dict[str, Any]:
    """Return a field of a header."""
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    """Return what is known of a packet besides its headers."""
    return {"meta": {"key": key}}


DPORT = field("udp", "dport")
STATE = {"ct": {"key": "state"}}
DROP = {"drop": None}


def ruleset(*statements: Any, policy: str = "accept", more: tuple[Any, ...] = (), **chain: Any) -> str:
    """Return a set of rules with one rule in its input chain."""
    base = {"family": "inet", "table": "t", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0}
    rule = {"family": "inet", "table": "t", "chain": "input", "handle": 2, "expr": list(statements)}
    entries = [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        *more,
        {"chain": {**base, "policy": policy, **chain}},
        {"rule": rule},
    ]
    return json.dumps({"nftables": entries})


class MatchTests(SynchronousTestCase):
    """Which rules match a stranger's datagram to UDP port 10000."""

    def matches(self, *statements: Any, datagram: Datagram = DATAGRAM, more: tuple[Any, ...] = ()) -> Match:
        """Return whether a rule with these statements matches."""
        (chain,) = parse_ruleset(ruleset(*statements, DROP, more=more), datagram).bases
        (step,) = chain.steps
        self.assertIs(Does.DROP, step.does)
        return step.match

    def test_ports(self) -> None:
        """Ports by numbers, names, ranges, sets and comparisons."""
        for right, sign, expected in (
            (10000, "==", YES),
            (53, "==", NO),
            (53, "!=", YES),
            (10000, "!=", NO),
            ({"range": [9000, 10000]}, "==", YES),
            ({"range": [10001, 10002]}, "==", NO),
            ({"set": [53, {"range": [10000, 10010]}]}, "==", YES),
            ({"set": [53, 123]}, "==", NO),
            ({"set": [53, 123]}, "!=", YES),
            ({"set": []}, "==", NO),
            ({"set": [{"elem": {"val": 10000, "timeout": 9}}]}, "==", YES),
            ("domain", "==", NO),
            ("10000", "==", YES),
            ("no-such-service", "==", PERHAPS),
            (10000, ">=", YES),
            (10000, ">", NO),
            (10001, "<", YES),
            (9999, "<=", NO),
            ({"set": [1]}, "<=", PERHAPS),
            (1.5, "==", PERHAPS),
            (None, "==", PERHAPS),
            (10000, "~", PERHAPS),
        ):
            self.assertIs(expected, self.matches(match(DPORT, right, sign)), (right, sign))
        self.assertIs(YES, self.matches(match(field("th", "dport"), 10000)))
        raw = {"payload": {"base": "th", "offset": 16, "len": 16}}
        self.assertIs(NO, self.matches(match(raw, 53)))
        self.assertIs(PERHAPS, self.matches(match(field("udp", "sport"), 53)))
        self.assertIs(PERHAPS, self.matches(match({"&": [DPORT, 255]}, 5)))

    def test_named_sets(self) -> None:
        """Sets by their names: those of the same table, empty ones, and ones that are not listed."""

        def named(**body: Any) -> tuple[Any, ...]:
            return ({"set": {"family": "inet", "table": "t", "name": "ports", "handle": 1, **body}},)

        self.assertIs(YES, self.matches(match(DPORT, "@ports"), more=named(elem=[53, {"range": [9999, 10001]}])))
        self.assertIs(NO, self.matches(match(DPORT, "@ports"), more=named(elem=[53])))
        self.assertIs(YES, self.matches(match(DPORT, "@ports", "!="), more=named(elem=[53])))
        self.assertIs(PERHAPS, self.matches(match(DPORT, "@ports"), more=named()))
        self.assertIs(NO, self.matches(match(DPORT, "@ports"), more=named(elem=[10000], table="other")))

    def test_protocols(self) -> None:
        """Other protocols and the other address family do not match."""
        for left, right, expected in (
            (field("tcp", "dport"), 10000, NO),
            (field("icmp", "type"), "echo-request", NO),
            (meta("l4proto"), "udp", YES),
            (meta("l4proto"), 17, YES),
            (meta("l4proto"), {"set": ["tcp", "udp"]}, YES),
            (meta("l4proto"), "tcp", NO),
            (field("ip", "protocol"), "udp", YES),
            (field("ip6", "nexthdr"), "udp", NO),
            (meta("nfproto"), "ipv4", YES),
            (meta("nfproto"), "ipv6", NO),
            (meta("protocol"), "ip", YES),
            (meta("protocol"), "ip6", NO),
            (meta("mark"), 1, PERHAPS),
            (field("ether", "saddr"), "00:00:5e:00:53:01", PERHAPS),
        ):
            self.assertIs(expected, self.matches(match(left, right)), (left, right))
        # A rule about a header that the datagram does not have does not match either way.
        self.assertIs(NO, self.matches(match(field("tcp", "dport"), 53, "!=")))

    def test_state(self) -> None:
        """A stranger's first datagram is new."""
        for right, sign, expected in (
            (["established", "related"], "in", NO),
            ("new", "==", YES),
            ({"set": ["established", "new"]}, "==", YES),
            ("invalid", "!=", YES),
            (6, "==", PERHAPS),
        ):
            self.assertIs(expected, self.matches(match(STATE, right, sign)), right)

    def test_interfaces(self) -> None:
        """Loopback is only for who asks from this machine."""
        for datagram, right, expected in (
            (DATAGRAM, "lo", NO),
            (DATAGRAM, "eth0", PERHAPS),
            (LOOPED, "lo", YES),
            (LOOPED, "eth0", NO),
            (DATAGRAM, {"set": ["lo", "eth0"]}, PERHAPS),
        ):
            for key in ("iif", "iifname"):
                self.assertIs(expected, self.matches(match(meta(key), right), datagram=datagram), (datagram, right))

    def test_addresses(self) -> None:
        """The address asked for is known, the sender's is not, apart from what it cannot be."""
        loopback = {"prefix": {"addr": "127.0.0.0", "len": 8}}
        for datagram, name, right, expected in (
            (TO_ONE, "daddr", "192.0.2.1", YES),
            (TO_ONE, "daddr", {"prefix": {"addr": "192.0.2.0", "len": 24}}, YES),
            (TO_ONE, "daddr", {"range": ["192.0.2.2", "192.0.2.9"]}, NO),
            (TO_ONE, "daddr", {"set": ["198.51.100.1", "192.0.2.1"]}, YES),
            (TO_ONE, "saddr", "192.0.2.1", PERHAPS),
            (DATAGRAM, "daddr", "192.0.2.1", PERHAPS),
            (DATAGRAM, "daddr", loopback, NO),
            (DATAGRAM, "saddr", loopback, NO),
            (LOOPED, "saddr", loopback, PERHAPS),
            (LOOPED, "daddr", loopback, YES),
            (TO_ONE, "daddr", "no address", PERHAPS),
            (TO_ONE, "daddr", {"prefix": {"addr": "192.0.2.0"}}, PERHAPS),
        ):
            self.assertIs(expected, self.matches(match(field("ip", name), right), datagram=datagram), (datagram, right))
        self.assertIs(YES, self.matches(match(field("ip6", "daddr"), "2001:db8::1"), datagram=TO_ONE6))
        self.assertIs(NO, self.matches(match(field("ip", "daddr"), "192.0.2.1"), datagram=TO_ONE6))
        self.assertIs(NO, self.matches(match(field("ip6", "daddr"), "192.0.2.1"), datagram=TO_ONE6))
        self.assertIs(NO, self.matches(match(field("ip6", "saddr"), "192.0.2.1"), datagram=TO_ONE6))

    def test_kinds_of_address(self) -> None:
        """It is sent to this machine alone."""
        kind = {"fib": {"result": "type", "flags": ["daddr"]}}
        self.assertIs(YES, self.matches(match(kind, "local")))
        self.assertIs(NO, self.matches(match(kind, "broadcast")))
        self.assertIs(YES, self.matches(match(meta("pkttype"), "host")))
        self.assertIs(NO, self.matches(match(meta("pkttype"), {"set": ["broadcast", "multicast"]})))
        self.assertIs(PERHAPS, self.matches(match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False)))

    def test_concatenations(self) -> None:
        """Several fields at once."""
        left = {"concat": [field("ip", "daddr"), DPORT]}
        for right, expected in (
            ({"set": [{"concat": ["192.0.2.1", 10000]}]}, YES),
            ({"set": [{"concat": ["192.0.2.1", 53]}, {"concat": ["192.0.2.2", 10000]}]}, NO),
            ("192.0.2.1", PERHAPS),
        ):
            self.assertIs(expected, self.matches(match(left, right), datagram=TO_ONE), right)

    def test_several(self) -> None:
        """All matches of a rule must hold; what counts or logs does not narrow it, what is not known does."""
        self.assertIs(NO, self.matches(match(DPORT, 10000), match(STATE, ["established"], "in")))
        self.assertIs(YES, self.matches(match(DPORT, 10000), {"counter": {"packets": 0, "bytes": 0}}, {"log": None}))
        self.assertIs(PERHAPS, self.matches(match(DPORT, 10000), {"ct count": {"val": 5, "inv": True}}))
        self.assertIs(PERHAPS, self.matches(match(DPORT, 10000), "what?"))


class VerdictTests(SynchronousTestCase):
    """What rules do."""

    def told(self, text: str, datagram: Datagram = DATAGRAM) -> list[tuple[Does, bool, bool]]:
        """Return what a datagram meets: what is done, for sure, at a rate."""
        hits = passage(parse_ruleset(text, datagram))
        return [(hit.does, hit.certain, hit.limited) for hit in hits]

    def test_verdicts(self) -> None:
        """Verdicts of each kind."""
        for statement, does in (
            (DROP, Does.DROP),
            ({"reject": {"type": "icmpx", "expr": "admin-prohibited"}}, Does.REJECT),
            ({"accept": None}, Does.ACCEPT),
            ({"dnat": {"addr": "192.0.2.9", "port": 53}}, Does.ELSEWHERE),
            ({"redirect": {"port": 77}}, Does.ELSEWHERE),
            ({"queue": {"num": 1}}, Does.ELSEWHERE),
        ):
            self.assertEqual([(does, True, False)], self.told(ruleset(match(DPORT, 10000), statement)))

    def test_no_verdict(self) -> None:
        """A rule that decides nothing is nothing."""
        self.assertEqual([], self.told(ruleset(match(DPORT, 10000), {"counter": None})))

    def test_limits(self) -> None:
        """A rate, for all or for each sender."""
        limit = {"limit": {"rate": 10, "burst": 5, "per": "second", "inv": True}}
        meter = {"meter": {"key": field("ip", "saddr"), "stmt": limit, "size": 65535, "name": "m"}}
        dynamic = {"set": {"op": "add", "elem": field("ip", "saddr"), "stmt": [limit], "set": "@m"}}
        for statement in (limit, meter, dynamic):
            self.assertEqual([(Does.DROP, False, True)], self.told(ruleset(match(DPORT, 10000), statement, DROP)))
        plain = {"set": {"op": "add", "elem": field("ip", "saddr"), "set": "@m"}}
        self.assertEqual([(Does.DROP, False, False)], self.told(ruleset(plain, DROP)))

    def test_verdict_maps(self) -> None:
        """A map from ports or states to verdicts, in the rule or by its name."""
        elements = [[53, {"accept": None}], [10000, DROP]]
        named = {"map": {"family": "inet", "table": "t", "name": "m", "handle": 9, "elem": elements}}
        for data, expected in (
            ({"set": elements}, [(Does.DROP, True, False)]),
            ("@m", [(Does.DROP, True, False)]),
            ({"set": [[53, DROP]]}, []),
            ({"set": [["no-such-service", DROP], "?", [1]]}, [(Does.DROP, False, False)]),
            (7, [(Does.UNKNOWN, False, False)]),
        ):
            text = ruleset({"vmap": {"key": DPORT, "data": data}}, more=(named,))
            self.assertEqual(expected, self.told(text), data)

    def test_jumps(self) -> None:
        """Jumps go to chains of the same table."""
        sub = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 8}}
        rule = {"rule": {"family": "inet", "table": "t", "chain": "sub", "handle": 9, "expr": [DROP]}}
        other = {"rule": {"family": "inet", "table": "other", "chain": "sub", "handle": 9, "expr": [{"accept": None}]}}
        jump = {"jump": {"target": "sub"}}
        self.assertEqual([(Does.DROP, True, False)], self.told(ruleset(jump, more=(sub, other, rule))))

    def test_families(self) -> None:
        """A table of the other family is not met; one of an interface perhaps; hooks for what leaves never."""
        self.assertEqual([], self.told(ruleset(DROP, hook="output")))
        self.assertEqual([], self.told(ruleset(DROP, hook="forward", policy="drop")))
        self.assertEqual([(Does.DROP, False, False)], self.told(ruleset(DROP, hook="ingress", dev="eth0")))
        for family, ipv6, met in (("ip", False, 1), ("ip", True, 0), ("ip6", True, 1), ("bridge", False, 0)):
            text = ruleset(DROP).replace('"inet"', f'"{family}"')
            self.assertEqual(met, len(self.told(text, DATAGRAM._replace(ipv6=ipv6))), (family, ipv6))

    def test_extensions(self) -> None:
        """What iptables made with extensions: targets by their names, matches perhaps."""

        def xt(kind: str, name: Any) -> dict[str, Any]:
            return {"xt": {"type": kind, "name": name}}

        for statements, expected in (
            ([xt("target", "REJECT")], [(Does.REJECT, True, False)]),
            ([xt("target", "LOG")], []),
            ([xt("target", "DNAT")], [(Does.ELSEWHERE, True, False)]),
            ([xt("target", "ODD")], [(Does.UNKNOWN, True, False)]),
            ([xt("match", "comment"), DROP], [(Does.DROP, True, False)]),
            ([xt("match", "conntrack"), DROP], [(Does.DROP, False, False)]),
            ([{"xt": None}, DROP], [(Does.DROP, False, False)]),
        ):
            text = ruleset(*statements)
            self.assertEqual(expected, self.told(text), statements)
            self.assertEqual({"inet t"}, extended_tables(text))
            self.assertEqual([], parse_ruleset(text, DATAGRAM, without={"inet t"}).bases)
        self.assertEqual(set(), extended_tables(ruleset(DROP)))


class TextTests(SynchronousTestCase):
    """Rules as people write them."""

    def test_texts(self) -> None:
        """Each rule is known by table, chain and handle."""
        self.assertEqual(
            {
                ("inet filter", "sub", 5): "udp dport 10000 reject with icmpx admin-prohibited",
                ("inet filter", "input", 7): 'iif "lo" accept',
                ("inet filter", "input", 16): 'udp dport { 53, 10000-10010 } drop comment "a # handle"',
                ("ip nat", "input", 7): "udp dport 10000 dnat to 192.0.2.9:53",
            },
            rule_texts(LISTING),
        )

    def test_quoted(self) -> None:
        """A rule has its text, and its JSON where there is none."""
        texts = {("inet t", "input", 2): "udp dport 10000 drop"}
        for known, text in ((texts, "udp dport 10000 drop"), ({}, '[{"drop": null}]')):
            (hit,) = passage(parse_ruleset(ruleset(DROP), DATAGRAM, known))
            self.assertEqual(("table inet t, chain input", text), (hit.where, hit.text))

    def test_shortened(self) -> None:
        """A rule is one line of bearable length."""
        self.assertEqual("a b c", shortened(" a\n b\tc "))
        self.assertEqual(LONGEST_TEXT, len(shortened("x" * 1000)))

    @PROPERTY
    @given(st.text(alphabet=st.sampled_from('table chain{}#\n\t"handle 0123456789inet x'), max_size=200))
    def test_any_listing(self, text: str) -> None:
        """Any text has some rules or none."""
        for table, chain, handle in rule_texts(text):
            self.assertIsInstance(handle, int)
            self.assertEqual((str, str), (type(table), type(chain)))


WORDS = (
    *("nftables", "chain", "rule", "set", "map", "family", "table", "name", "hook", "prio", "policy", "expr"),
    *("match", "op", "left", "right", "payload", "protocol", "field", "meta", "key", "ct", "fib", "concat"),
    *("range", "prefix", "elem", "vmap", "data", "jump", "goto", "target", "limit", "xt", "type", "handle"),
    *("addr", "len", "val", "flags", "result", "&", "=="),
)
VALUES = st.sampled_from(
    ["inet", "ip", "t", "input", "udp", "dport", "daddr", "iif", "state", "@m", "drop", "lo", "127.0.0.1", "in", "type"]
) | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)  # fmt: skip
JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)
CHAIN = {"family": "inet", "table": "t", "name": "input", "hook": "input", "prio": 0, "policy": "drop"}
RULE = {"family": "inet", "table": "t", "chain": "input", "handle": 1}


class AnyJSONTests(SynchronousTestCase):
    """Nothing that nft might print ends in an exception that was not foreseen."""

    def follow(self, text: str) -> None:
        """Read and follow a text for several datagrams."""
        for datagram in (TO_ONE, TO_ONE6):
            try:
                hits = passage(parse_ruleset(text, datagram))
                extended_tables(text)
            except ValueError:
                continue
            for hit in hits:
                self.assertIsInstance(hit.text, str)

    @PROPERTY
    @given(JSON)
    def test_any_value(self, value: Any) -> None:
        """Any JSON."""
        self.follow(json.dumps(value))
        self.follow(json.dumps({"nftables": value}))

    @COSTLY
    @given(st.lists(st.dictionaries(st.sampled_from(["chain", "rule", "set", "map"]), JSON, max_size=1), max_size=4))
    def test_any_entries(self, entries: Any) -> None:
        """Any chains, rules and sets."""
        self.follow(json.dumps({"nftables": [{"chain": CHAIN}, *entries]}))

    @COSTLY
    @given(st.lists(st.dictionaries(st.sampled_from(WORDS), JSON, max_size=2), max_size=4), JSON, JSON, JSON)
    def test_any_statements(self, statements: Any, left: Any, right: Any, sign: Any) -> None:
        """Any statements in a rule."""
        expressions = [
            *statements,
            match(left, right, sign),
            match(DPORT, right, sign),
            {"vmap": {"key": left, "data": {"set": [[right, DROP]]}}},
            {"xt": right},
            {"jump": left},
            DROP,
        ]
        rules = [{"rule": {**RULE, "expr": [one, DROP]}} for one in expressions]
        self.follow(json.dumps({"nftables": [{"chain": CHAIN}, *rules]}))

    def test_deep(self) -> None:
        """JSON that is nested without an end is refused."""
        for text in ("[" * 100_000, '{"nftables":' * 5000, json.dumps({"nftables": 5}), "", "{}", "nothing"):
            with self.assertRaises(ValueError):
                parse_ruleset(text, DATAGRAM)
            with self.assertRaises(ValueError):
                extended_tables(text)
        deep: Any = 10000
        for _ in range(300):
            deep = {"set": [deep]}
        (hit,) = passage(parse_ruleset(ruleset(match(DPORT, deep), DROP), DATAGRAM))
        self.assertFalse(hit.certain)
