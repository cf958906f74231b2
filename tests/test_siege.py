"""What a siege says of its figures: its verdicts, and its tables in a terminal."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.siege import payloads
from tests.siege.attacks import all_attacks
from tests.siege.field import HEADERS, Passed
from tests.siege.report import tables
from tests.siege.siege import Outcome, faults_of

PORTS = {"echo": 1, "rpc": 2, "dtls": 3}
LONG = "trusted, DTLS, long sessions"


def passed(datagrams: int, payload: int) -> Passed:
    """Return what nftables counts of datagrams with so much payload in all."""
    return Passed(datagrams, payload + HEADERS * datagrams)


def outcome(**changed: Passed) -> Outcome:
    """Return what became of a siege in which everything held, but for what is changed."""
    made = Outcome(120.0, all_attacks(PORTS, 1))
    names = [*(attack.name for attack in made.attacks), "own_loop", "foreign_loop", "half_open"]
    made.passed = {f"{name}_{way}": passed(0, 0) for name in names for way in ("in", "out")} | changed
    made.sent = {name: {"sent": 360_000, "bytes": 42_000_000, "seconds": 120.0} for name in [*names, "off_path_1"]}
    client = {"calls": 2400, "answered": 2400, "wrong": 0, "failed": {}, "ports": 4, "kept": 4}
    made.clients = {LONG: {**client, "p50": 1.5, "p99": 1234.5, "retransmitted": 0}}
    server = {"lives": True, "tracebacks": 0, "log_bytes": 999_999, "grown": 5 * 2**20, "resident": 2**26}
    made.servers = {name: {**server, "processor": 37.8} for name in PORTS}
    made.kernel = {"InDatagrams": 1_761_765, "RcvbufErrors": 0}
    return made


class VerdictTests(SynchronousTestCase):
    """``faults_of``, of what there is over DTLS."""

    def fault(self, found: Outcome) -> str:
        """Return the only fault."""
        [fault] = faults_of(found)
        return fault

    def test_held(self) -> None:
        """Nothing is at fault where everything held, and a ClientHello is answered by fewer bytes."""
        hellos = {"dtls_hellos_in": passed(10, 930), "dtls_hellos_out": passed(10, 600)}
        self.assertEqual(faults_of(outcome(**hellos)), [])

    def test_larger_answers(self) -> None:
        """More bytes than came from addresses that are not proven are a fault over DTLS, be they ever so few."""
        found = outcome(dtls_hellos_in=passed(10, 930), dtls_hellos_out=passed(10, 931))
        self.assertEqual(self.fault(found), "ClientHellos, no cookie: 931 bytes answered for 930")

    def test_answered_garbage(self) -> None:
        """So is any answer to what is no ClientHello."""
        found = outcome(dtls_garbage_in=passed(10, 930), dtls_garbage_out=passed(1, 15))
        self.assertEqual(self.fault(found), "garbage and stray records, DTLS: 1 datagrams were answered")

    def test_lost_session(self) -> None:
        """So is a session that a trusted client had to begin anew, though all its calls were answered."""
        found = outcome()
        found.clients[LONG]["kept"] = 3
        self.assertEqual(self.fault(found), f"{LONG}: 1 of 4 sessions were lost")


class TableTests(SynchronousTestCase):
    """``tables`` in a terminal."""

    def test_width(self) -> None:
        """No line is longer than that of a terminal, no colour is used, and numbers stand under their heads' ends."""
        found = outcome()
        found.left_out = "DTLS needs more than what is installed: pip install 'twistedudp[dtls]' brings it"
        for width in (80, 120):
            lines = tables(found, width).splitlines()
            self.assertLessEqual(max(map(len, lines)), width)
            self.assertNotIn("\x1b", "".join(lines))
            [server] = [line for line in lines if line.startswith("dtls ")]
            self.assertEqual(server.split(), ["dtls", "64.0", "5.0", "37.8", "999,999", "0"])
            head = next(line for line in lines if line.startswith("server "))
            self.assertEqual(len(head), len(server))
            self.assertIn("No server spoke DTLS", "\n".join(lines))

    def test_markdown(self) -> None:
        """Without a width they are Markdown: one line for each attack."""
        rows = [line for line in tables(outcome()).splitlines() if line.startswith("| ClientHellos, ")]
        self.assertEqual([row.count(" | ") for row in rows], [6, 6, 6])


class PayloadTests(SynchronousTestCase):
    """What is sent to a DTLS server."""

    def test_records(self) -> None:
        """What must not be answered is no ClientHello; the parts that are random are in the datagram."""
        made = payloads.session_records(1, 200)
        self.assertEqual([one for one in made if one.data[0] == 22 and one.data[13:14] == b"\1"], [])
        self.assertEqual([one for one in made if one.random_from + one.random_length > len(one.data)], [])
        self.assertGreater(len({one.data for one in made}), 150)

    def test_hellos(self) -> None:
        """A ClientHello has its random and its cookie where it says."""
        for cookie in (b"", bytes(range(32))):
            hello, random_at = payloads.client_hello(cookie)
            self.assertEqual(hello[random_at : random_at + 32], bytes(32))
            self.assertEqual(hello[random_at + 33 : random_at + 34 + len(cookie)], bytes([len(cookie)]) + cookie)
