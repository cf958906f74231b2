"""From the record of the first question to findings: who says what, and what is believed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.doctor._asking import Asked
from twistedudp.doctor._dtls import client_hello, speaks_dtls
from twistedudp.doctor._exchange import Came, Sent, Told
from twistedudp.doctor._judge import judge
from twistedudp.dtls._records import client_random, is_client_hello
from twistedudp.interfaces import Unreachable

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.doctor import Finding

PEER = ("192.0.2.1", 7)
PEER6 = ("2001:db8::1", 7)
ROUTER = "198.51.100.1"
OWN = "192.0.2.99"


HELLO_VERIFY = b"\x16\xfe\xff" + bytes(10) + b"\3" + bytes(18)


def asked(peer: Address = PEER, **members: Any) -> Asked:
    """Return a record in which one probe was sent, and nothing else happened that is not said."""
    blank = Asked(
        peer=peer,
        where=("0.0.0.0", 50000),  # noqa: S104  # nothing is bound
        own_host=OWN,
        sent=[Sent(0.0, 0, 0)],
        came=[],
        told=[],
        send_errors={},
        broadcast=False,
        waited=4.0,
        hops=[],
        up=None,
        knocked=True,
    )
    return blank._replace(**members)


def told(icmp: tuple[int, int], reporter: str, *, peer: Address = PEER, sequence: int = 0, short: bool = False) -> Told:
    """Return an ICMP error that quotes the first probe, unless told otherwise."""
    return Told(0.01, peer, Unreachable(errno.EHOSTUNREACH, "No route to host", *icmp, reporter), sequence, short)


def came(kind: str, peer: Address = PEER, **members: Any) -> Came:
    """Return a datagram of 64 bytes."""
    return Came(0.02, peer, kind, 64, "echo", 0.02 if kind == "reply" else -1.0, b"\x1b[2Jxyz")._replace(**members)


class JudgeCase(SynchronousTestCase):
    """A test that judges a record."""

    def codes(self, record: Asked) -> list[str]:
        """Return the codes of what is found."""
        return [finding.code for finding in judge(record)]

    def only(self, record: Asked) -> Finding:
        """Return the only finding."""
        [finding] = judge(record)
        return finding


class AnswerTests(JudgeCase):
    """Datagrams that came."""

    def test_answered(self) -> None:
        """An answer is one, with its protocol and round trip, and no fault."""
        finding = self.only(asked(came=[came("reply")]))
        self.assertEqual((finding.code, finding.fault), ("UDP-ANSWERED", False))
        self.assertIn("answers after 20 ms: an echo server", finding.says)
        rpc = self.only(asked(came=[came("late", protocol="rpc", rtt=3.0)]))
        self.assertIn("answers after 3 s: an rpc server", rpc.says)

    def test_answer_and_stranger(self) -> None:
        """What came from elsewhere beside an answer does not make it wrong."""
        self.assertEqual(self.codes(asked(came=[came("stranger", (ROUTER, 7)), came("reply")])), ["UDP-ANSWERED"])

    def test_other_address(self) -> None:
        """An answer from another address names both, and the fix; from another port it is another fix."""
        finding = self.only(asked(came=[came("stranger", ("192.0.2.5", 7))]))
        self.assertEqual(finding.code, "UDP-OTHER-ADDRESS")
        self.assertIn("another address, 192.0.2.5", finding.says)
        self.assertIn("IP_PKTINFO", finding.advice)
        port = self.only(asked(came=[came("stranger", (PEER[0], 999))]))
        self.assertIn("another port, 999", port.says)
        self.assertIn("NAT", port.advice)

    def test_not_echo(self) -> None:
        """Other bytes from the right address are shown in hexadecimal; from elsewhere they count nothing."""
        finding = self.only(asked(came=[came("other")]))
        self.assertEqual(finding.code, "UDP-NOT-ECHO")
        self.assertTrue(any("1b 5b 32 4a" in line for line in finding.evidence), finding.evidence)
        self.assertEqual(self.codes(asked(came=[came("other", (ROUTER, 7))])), ["UDP-SILENT"])

    def test_answer_after_an_error(self) -> None:
        """A server that was refused first and answered then is told as both."""
        found = self.codes(asked(told=[told((3, 3), PEER[0])], came=[came("reply")]))
        self.assertEqual(found, ["UDP-ANSWERED", "UDP-REFUSED"])

    def test_evidence_is_bounded(self) -> None:
        """A flood of datagrams is some lines of evidence and their number."""
        finding = self.only(asked(came=[came("other")] * 500))
        self.assertLess(len(finding.evidence), 20)
        self.assertTrue(any("and 490 more of these" in line for line in finding.evidence), finding.evidence)


class ErrorTests(JudgeCase):
    """ICMP errors, by type, code and sender."""

    def test_kinds(self) -> None:
        """Each type and code of both families makes its finding, and one that nobody knows is told by its numbers."""
        for peer, kinds in (
            (
                PEER,
                {
                    "UDP-NET-UNREACHABLE": [(3, 0), (3, 6), (3, 11)],
                    "UDP-HOST-UNREACHABLE": [(3, 1), (3, 7), (3, 8), (3, 12)],
                    "UDP-PROHIBITED": [(3, 9), (3, 10), (3, 13), (3, 14), (3, 15), (3, 3)],
                    "UDP-UNREACHABLE": [(3, 2), (3, 5), (11, 0), (11, 1), (12, 0), (3, 77)],
                },
            ),
            (
                PEER6,
                {
                    "UDP-NET-UNREACHABLE": [(1, 0), (1, 2)],
                    "UDP-HOST-UNREACHABLE": [(1, 3)],
                    "UDP-PROHIBITED": [(1, 1), (1, 5), (1, 6), (1, 4)],
                    "UDP-UNREACHABLE": [(3, 0), (3, 1), (4, 1), (1, 77)],
                },
            ),
        ):
            for code, numbers in kinds.items():
                for icmp in numbers:
                    finding = self.only(asked(peer, told=[told(icmp, ROUTER, peer=peer)]))
                    self.assertEqual(finding.code, code, icmp)
                    self.assertIn(ROUTER, finding.says)
                    self.assertIn(f"{icmp[0]}/{icmp[1]}, ", "".join(finding.evidence))

    def test_refused(self) -> None:
        """Port unreachable is the host's refusal only if the host sent it."""
        self.assertEqual(self.codes(asked(told=[told((3, 3), PEER[0])])), ["UDP-REFUSED"])
        self.assertEqual(self.codes(asked(PEER6, told=[told((1, 4), PEER6[0], peer=PEER6)])), ["UDP-REFUSED"])
        finding = self.only(asked(told=[told((3, 3), ROUTER)]))
        self.assertEqual(finding.code, "UDP-PROHIBITED")
        self.assertIn("another address of the host", finding.advice)

    def test_own_machine(self) -> None:
        """A reject by the own address is a local rule, unless the own machine is the one that was asked."""
        self.assertEqual(self.codes(asked(told=[told((3, 13), OWN)])), ["UDP-LOCAL-FIREWALL"])
        self.assertEqual(self.codes(asked(told=[told((3, 3), OWN)])), ["UDP-LOCAL-FIREWALL"])
        itself = asked((OWN, 7), told=[told((3, 3), OWN, peer=(OWN, 7))])
        self.assertEqual(self.codes(itself), ["UDP-REFUSED"])

    def test_link_local(self) -> None:
        """ICMP errors name link-local addresses without their interface; they are the same hosts all the same."""
        peer = ("fe80::1%eth0", 7)
        blank = asked(peer, own_host="fe80::9%eth0")
        for icmp, reporter, code in (
            ((1, 4), "fe80::1", "UDP-REFUSED"),
            ((1, 4), "fe80::2", "UDP-PROHIBITED"),
            ((1, 1), "fe80::9", "UDP-LOCAL-FIREWALL"),
            ((1, 1), "fe80::2", "UDP-PROHIBITED"),
        ):
            self.assertEqual(self.codes(blank._replace(told=[told(icmp, reporter, peer=peer)])), [code], reporter)
        [finding] = judge(blank._replace(told=[told((1, 1), "fe80::1", peer=peer)]))
        self.assertIn("the firewall of the host itself", finding.says)

    def test_no_neighbour(self) -> None:
        """Host unreachable from the own address means that nobody answered on the own network."""
        self.assertIn("this machine itself cannot reach", self.only(asked(told=[told((3, 1), OWN)])).says)

    def test_forged(self) -> None:
        """An error that quotes what was never sent proves nothing, whatever it says."""
        finding = self.only(asked(told=[told((3, 13), ROUTER, sequence=-1)]))
        self.assertEqual(finding.code, "UDP-SILENT")
        self.assertTrue(any("forged, perhaps" in line for line in finding.evidence), finding.evidence)

    def test_short_quotes(self) -> None:
        """One that quotes too little counts where nothing is proven, but never as a closed port."""
        short = told((3, 1), ROUTER, sequence=-1, short=True)
        self.assertEqual(self.codes(asked(told=[short])), ["UDP-HOST-UNREACHABLE"])
        closed = told((3, 3), PEER[0], sequence=-1, short=True)
        self.assertEqual(self.codes(asked(told=[closed])), ["UDP-SILENT"])
        self.assertEqual(self.codes(asked(told=[short, told((3, 13), ROUTER)])), ["UDP-PROHIBITED"])

    def test_several(self) -> None:
        """Different errors, or the same of different routers, are findings of their own; repeated ones are one."""
        errors = [told((3, 13), ROUTER), told((3, 13), ROUTER), told((3, 1), ROUTER), told((3, 13), "198.51.100.2")]
        self.assertEqual(self.codes(asked(told=errors)), ["UDP-PROHIBITED", "UDP-HOST-UNREACHABLE", "UDP-PROHIBITED"])


class LocalTests(JudgeCase):
    """Errors of the own kernel."""

    def test_routes(self) -> None:
        """What a routing table answers is a missing route."""
        for number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL):
            finding = self.only(asked(sent=[], send_errors={number: 1}, knocked=False))
            self.assertEqual(finding.code, "UDP-NO-ROUTE")
            self.assertIn(errno.errorcode[number], finding.says)

    def test_route_told_as_an_error(self) -> None:
        """A missing route that the port has told, too, is one finding."""
        local = Told(0.0, PEER, Unreachable(errno.ENETUNREACH, "Network is unreachable", 0, 0, ""), 0, False)  # a value
        self.assertEqual(self.codes(asked(told=[local])), ["UDP-NO-ROUTE"])
        self.assertEqual(self.codes(asked(told=[local], send_errors={errno.ENETUNREACH: 2})), ["UDP-NO-ROUTE"])

    def test_firewall(self) -> None:
        """EPERM is a rule, and the ICMP error of the same rule is no second finding."""
        record = asked(send_errors={errno.EPERM: 2}, told=[told((3, 3), OWN)])
        self.assertEqual(self.codes(record), ["UDP-LOCAL-FIREWALL"])

    def test_others(self) -> None:
        """Any other error is told by its name; a full send buffer is none."""
        self.assertIn("Input/output error", self.only(asked(send_errors={errno.EIO: 1})).says)
        self.assertEqual(self.codes(asked(send_errors={errno.ENOBUFS: 1})), ["UDP-SILENT"])

    def test_broadcast(self) -> None:
        """A broadcast address is nothing but that."""
        self.assertEqual(self.codes(asked(broadcast=True, sent=[], send_errors={errno.EACCES: 1})), ["UDP-BROADCAST"])


class DTLSTests(JudgeCase):
    """A ClientHello that was answered."""

    def test_answered(self) -> None:
        """It is told in the place of silence, and is no fault; whatever else is known goes before."""
        hello = came("other", head=HELLO_VERIFY)
        finding = self.only(asked(dtls=hello, up=told((3, 3), PEER[0], peer=(PEER[0], 33434))))
        self.assertEqual((finding.code, finding.fault), ("UDP-DTLS", False))
        self.assertIn("after a ClientHello (DTLS) its answer, 64 bytes", "".join(finding.evidence))
        self.assertEqual(self.codes(asked(dtls=hello, came=[came("reply")])), ["UDP-ANSWERED"])

    def test_recognised(self) -> None:
        """A cookie, the server's hello and an alert are answers; a hello sent back, other records and text are none."""
        hello = client_hello(bytes(32))
        self.assertTrue(is_client_hello(hello))
        self.assertEqual(client_random(client_hello(bytes(range(32)))), bytes(range(32)))
        for head in (HELLO_VERIFY, HELLO_VERIFY[:13] + b"\2", b"\x15\xfe\xfd" + bytes(11)):
            self.assertTrue(speaks_dtls(head))
        for head in (hello[:32], b"\x17\xfe\xfd" + bytes(29), b"\x16\xfe\xfd", b"a line of text for a change", b""):
            self.assertFalse(speaks_dtls(head))


class SilenceTests(JudgeCase):
    """Nothing came."""

    def test_nothing(self) -> None:
        """Silence says how long it was waited for, and where to look."""
        finding = self.only(asked())
        self.assertEqual((finding.code, finding.fault), ("UDP-SILENT", True))
        self.assertIn("within 4.0 s", finding.says)
        self.assertIn("--local :7", finding.advice)

    def test_host_is_up(self) -> None:
        """A host that refuses another port is up."""
        finding = self.only(asked(up=told((3, 3), PEER[0], peer=(PEER[0], 33434)), hops=[(1, ROUTER)]))
        self.assertIn("its host is up", finding.says)

    def test_hops(self) -> None:
        """Routers that were seen are evidence, and the last one is in the sentence."""
        finding = self.only(asked(hops=[(1, "192.0.2.254"), (3, ROUTER)]))
        self.assertIn(f"the last router that let itself be seen is {ROUTER}, 3 hops away", finding.says)
        self.assertIn(f"routers that reported probes of few hops: 1 192.0.2.254, 3 {ROUTER}", finding.evidence)
