"""Asking the packet filter's programs, which the test makes, and what their rules become."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.doctor.local_fakes import FakeMachine
from tests.doctor.test_local_iptables import SAVED
from tests.doctor.test_local_nft import DROP, field, match, ruleset
from twistedudp.doctor import _local_rules
from twistedudp.doctor._local_filter import Datagram
from twistedudp.doctor._local_rules import MOST_QUOTED, Rules, examine_rules, read_rules

if TYPE_CHECKING:
    from twistedudp.doctor import Finding

IPV4 = Datagram(ipv6=False, port=10000, host="", looped=False)
IPV6 = IPV4._replace(ipv6=True)
PORT = match(field("udp", "dport"), 10000)
XT = {"xt": {"type": "match", "name": "conntrack"}}
DENIED = "echo 'Operation not permitted (you must be root)' >&2; exit 1"


class ReadTests(SynchronousTestCase):
    """Which programs are asked, and what they say."""

    def setUp(self) -> None:
        """Make a machine without programs."""
        self.machine = FakeMachine()
        self.addCleanup(self.machine.__exit__)

    def read(self) -> Rules:
        """Ask."""
        return read_rules(proc=self.machine.proc, path=str(self.machine.programs))

    def test_nothing_installed(self) -> None:
        """Without any program nothing is known, and each is named."""
        rules = self.read()
        self.assertFalse(rules.read)
        self.assertEqual(
            ("nft is not installed", "iptables-save is not installed", "ip6tables-save is not installed"), rules.unread
        )

    def test_nft(self) -> None:
        """Where nft knows everything, nobody else is asked."""
        self.machine.prints("nft", ruleset(DROP))
        self.machine.program("iptables-save", "exit 9")
        rules = self.read()
        self.assertEqual((ruleset(DROP), {}, ()), (rules.nft, rules.saved, rules.unread))
        self.assertEqual(rules.nft, rules.listing)

    def test_no_rules(self) -> None:
        """Nothing is not the same as unknown."""
        self.machine.program("iptables-save", "true")
        self.machine.program("ip6tables-save", "true")
        rules = self.read()
        self.assertEqual((True, ()), (rules.read, rules.unread))

    def test_extensions(self) -> None:
        """Where nft names extensions of iptables, iptables is asked as well."""
        self.machine.prints("nft", ruleset(XT, DROP))
        self.machine.prints("iptables-save", SAVED)
        rules = self.read()
        self.assertEqual({False: SAVED}, rules.saved)
        self.assertEqual(("ip6tables-save is not installed",), rules.unread)

    def test_old_iptables(self) -> None:
        """Where the old iptables is in use, which nft does not know, it is asked."""
        self.machine.prints("nft", ruleset(DROP))
        self.machine.prints("iptables-save", SAVED)
        self.machine.prints("ip6tables-save", "")
        for name in ("ip_tables_names", "ip6_tables_names"):
            self.machine.write(f"net/{name}", "")
        self.assertEqual({}, self.read().saved)
        for name in ("ip_tables_names", "ip6_tables_names"):
            self.machine.write(f"net/{name}", "filter\n")
            self.assertEqual({False: SAVED, True: ""}, self.read().saved)
            self.machine.write(f"net/{name}", "")

    def test_failures(self) -> None:
        """A program that refuses, prints too much, takes too long or cannot be run is told in its own words."""
        self.patch(_local_rules, "MOST_OUTPUT", 1000)
        self.patch(_local_rules, "PATIENCE", 0.1)
        self.patch(os, "geteuid", lambda: 1000)
        for script, words in (
            (DENIED, "it takes the rights of root; nft says: Operation not permitted (you must be root)"),
            ("exit 3", "it takes the rights of root; nft says: status 3"),
            ("head -c 2000 /dev/zero", "nft printed more than 1,000 bytes"),
            ("exec sleep 60", "nft did not answer within 0.1 s"),
        ):
            self.machine.program("nft", script)
            rules = self.read()
            self.assertEqual(words, rules.unread[0])
            self.assertFalse(rules.read)
        (self.machine.programs / "nft").write_bytes(b"\x7fELF")
        self.assertEqual("nft cannot be run: Exec format error", self.read().unread[0])


class ExamineTests(SynchronousTestCase):
    """Rules become findings."""

    def examine(self, rules: Rules, *datagrams: Datagram) -> tuple[list[Finding], list[str]]:
        """Return findings and evidence for datagrams to port 10000."""
        return examine_rules(rules, datagrams or (IPV4,))

    def test_pass(self) -> None:
        """Rules that stop nothing are evidence."""
        findings, evidence = self.examine(Rules(nft=ruleset(match(field("udp", "dport"), 53), DROP)))
        self.assertEqual(([], ["packet filter: no rule for UDP port 10000 stops it"]), (findings, evidence))

    def test_unknown(self) -> None:
        """Rules that could not be read are no evidence."""
        (finding,), evidence = self.examine(Rules(unread=("nft is not installed",)))
        self.assertEqual(("UDP-RULES-UNREADABLE", False, []), (finding.code, finding.fault, evidence))
        self.assertEqual("install nftables and run as root: ", finding.advice[: finding.advice.index("'sudo")])

    def test_garbage(self) -> None:
        """What is no list of rules is told as not understood."""
        (finding,), evidence = self.examine(Rules(nft="<rules>"), IPV4, IPV6)
        self.assertEqual(("UDP-RULES-UNREADABLE", []), (finding.code, evidence))
        self.assertIn("what nft prints is not understood", finding.evidence[0])

    def test_families(self) -> None:
        """A rule of one family is told so where both matter, and once where it is of both."""
        rules = Rules(nft=ruleset(PORT, DROP))
        (finding,), _ = self.examine(rules, IPV4, IPV6)
        self.assertNotIn("over IPv", finding.says)
        only = Rules(nft=ruleset(PORT, DROP).replace('"inet"', '"ip"'))
        (finding,), _ = self.examine(only, IPV4, IPV6)
        self.assertIn("port 10000 over IPv4: ", finding.says)
        (finding,), _ = self.examine(only, IPV4)
        self.assertNotIn("over IPv", finding.says)

    def test_both_sources(self) -> None:
        """Tables that iptables explains better are taken from it, and the rest from nft."""
        nft = ruleset(XT, DROP).replace('"inet"', '"ip"').replace('"t"', '"filter"')
        saved = SAVED.replace("{rule}", "-A INPUT -p udp -m udp --dport 10000 -j ACCEPT")
        findings, evidence = self.examine(Rules(nft=nft, saved={False: saved}))
        self.assertEqual([], findings)
        self.assertIn("accepted by iptables, table filter, chain INPUT: -A INPUT -p udp", evidence[0])
        (finding,), _ = self.examine(Rules(nft=nft))
        self.assertIn("may stop some", finding.says)
        (finding,), _ = self.examine(Rules(nft=ruleset(PORT, DROP), saved={False: saved}))
        self.assertTrue(finding.fault)

    def test_dormant(self) -> None:
        """A table that is switched off stops nothing, though its rules read as if."""
        listing = (
            "table inet t { # handle 1\n\tflags {flags}\n\n\tchain input { # handle 1\n"
            "\t\ttype filter hook input priority filter; policy accept;\n\t\tdrop # handle 2\n\t}\n}\n"
        )
        for flags, found in (("dormant", 0), ("owner,dormant", 0), ("owner", 1)):
            rules = Rules(nft=ruleset(PORT, DROP), listing=listing.replace("{flags}", flags))
            self.assertEqual(found, len(self.examine(rules)[0]), flags)

    def test_advice(self) -> None:
        """What to do goes by who made the rule."""
        (finding,), _ = self.examine(Rules(saved={False: SAVED}))
        self.assertEqual("put a rule in front of it: iptables -I INPUT -p udp --dport 10000 -j ACCEPT", finding.advice)
        (finding,), _ = self.examine(Rules(nft=ruleset(PORT, DROP)))
        self.assertEqual(
            "put a rule in front of it: nft insert rule inet t input udp dport 10000 accept", finding.advice
        )
        (finding,), _ = self.examine(Rules(nft=ruleset(PORT, {"redirect": {"port": 9}})))
        self.assertIn("does not see them", finding.advice)

    def test_limits(self) -> None:
        """A limit is told with what it does to the rest, and is no fault."""
        limit = {"limit": {"rate": 10, "per": "second"}}
        (finding,), _ = self.examine(Rules(nft=ruleset(PORT, limit, {"accept": None}, policy="drop")))
        self.assertFalse(finding.fault)
        self.assertIn("drops some datagrams to UDP port 10000, for it depends on their rate: policy drop", finding.says)
        self.assertIn("has exceeded the rate of table inet t, chain input: ", finding.evidence[1])

    def test_many_doubts(self) -> None:
        """What may match is told in one finding, of bearable length."""
        mark = match({"meta": {"key": "mark"}}, 1)
        rule = ruleset(mark, DROP)
        entry = rule[rule.index(', {"rule"') : rule.rindex("]}")]
        many = "".join(entry.replace("1", str(number)) for number in range(100, 100 + MOST_QUOTED + 3))
        (finding,), _ = self.examine(Rules(nft=rule[: rule.index(', {"rule"')] + many + "]}"))
        self.assertIn(f"{MOST_QUOTED + 3} packet filter rules may stop some", finding.says)
        self.assertEqual(MOST_QUOTED + 1, len(finding.evidence))
        self.assertEqual("and 3 more", finding.evidence[-1])
        self.assertFalse(finding.fault)
