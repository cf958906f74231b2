"""The sockets at a port, watched on a machine that the test makes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.doctor.local_fakes import FakeMachine, socket_line
from tests.properties import PROPERTY
from twistedudp.doctor._local_diag import SocketDetails
from twistedudp.doctor._local_sockets import LOOKS, PAUSE, parse_snmp, process_facts, read_limit, watch_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twistedudp.doctor._local_sockets import Observation, WatchedSocket

SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 20
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 1000 2 7 900 4 0 1 0 2
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
UdpLite: 5 5 5 5 5 5 5 5 5
"""
SNMP6 = """\
Ip6InReceives                   	30
Udp6InDatagrams                 	10
Udp6InErrors                    	3
Udp6RcvbufErrors                	3
UdpLite6InDatagrams             	5
"""
STATUS = "Name:\tserver\nUmask:\t0022\nState:\tT (stopped)\nPid:\t7\nUid:\t0\t1000\t0\t0\nGid:\t0\t0\t0\t0\n"


class WatchTests(SynchronousTestCase):
    """Several looks."""

    def setUp(self) -> None:
        """Make a machine."""
        self.machine = FakeMachine()
        self.addCleanup(self.machine.__exit__)

    def watch(self) -> Observation:
        """Watch port 10000."""
        system = self.machine.system
        return watch_port(10000, proc=system.proc, sleep=system.sleep, ask=system.ask)

    def only(self) -> WatchedSocket:
        """Watch the one socket."""
        (watched,) = self.watch().sockets
        return watched

    def test_nothing(self) -> None:
        """Nobody there, though there are others."""
        self.machine.table("udp", socket_line(port=10001))
        seen = self.watch()
        self.assertEqual(((), True), (seen.sockets, seen.readable))
        self.assertEqual([PAUSE] * (LOOKS - 1), self.machine.pauses)
        self.assertAlmostEqual(PAUSE * (LOOKS - 1), seen.seconds)

    def test_no_tables(self) -> None:
        """A system without such tables."""
        (self.machine.proc / "net" / "udp").unlink()
        self.assertFalse(self.watch().readable)

    def test_both_families(self) -> None:
        """Sockets of both families, with their processes and what the kernel tells of them."""
        self.machine.table("udp", socket_line(inode=5))
        self.machine.table("udp6", socket_line(local="0" * 32, remote="0" * 32 + ":0000", inode=6))
        self.machine.process(7, "server", 5, 6)
        self.machine.process(8, "worker", 6)
        self.machine.details = {6: SocketDetails(6, 8192, only_ipv6=False, interface=0)}
        first, second = self.watch().sockets
        self.assertEqual(("0.0.0.0", "::"), (first.listed.host, second.listed.host))  # noqa: S104  # compared with
        self.assertEqual(([7], [7, 8]), tuple([process.pid for process in one.processes] for one in (first, second)))
        self.assertEqual((None, 8192), (first.receive_buffer, second.receive_buffer))

    def test_queue(self) -> None:
        """What waits at each look: growing, never empty, and not."""
        for queued, growing, never_empty in (
            ((0, 0, 0, 0, 0, 0), False, False),
            ((1, 2, 3, 4, 5, 6), True, True),
            ((0, 0, 0, 0, 0, 1), True, False),
            ((5, 5, 5, 5, 5, 5), False, True),
            ((5, 9, 5, 9, 5, 9), False, True),
            ((9, 0, 9, 9, 9, 9), False, False),
        ):
            self.show(iter([socket_line(queued=size) for size in queued]))
            watched = self.only()
            self.assertEqual((queued, growing, never_empty), (watched.queued, watched.growing, watched.never_empty))

    def show(self, lines: Iterator[str]) -> None:
        """Have one line after another in the table, from one look to the next."""
        self.machine.table("udp", next(lines))
        self.machine.while_waiting = partial(self.show, lines)

    def test_drops(self) -> None:
        """What is dropped meanwhile, also where the counter begins anew."""
        for before, after, dropped in ((0, 0, 0), (5, 7, 2), (2**32 - 1, 1, 2)):
            self.machine.table("udp", socket_line(drops=before))
            self.machine.while_waiting = partial(self.machine.table, "udp", socket_line(drops=after))
            watched = self.only()
            self.assertEqual((after, dropped), (watched.listed.drops, watched.dropped))

    def test_come_and_gone(self) -> None:
        """A socket that was opened anew meanwhile has nothing to do with its predecessor."""
        self.machine.table("udp", socket_line(inode=5, drops=100))
        self.machine.while_waiting = lambda: self.machine.table("udp", socket_line(inode=6, drops=3))
        self.assertEqual((6, 0), (self.only().listed.inode, self.only().dropped))
        self.machine.while_waiting = lambda: self.machine.table("udp")
        self.assertEqual((), self.watch().sockets)

    def test_counters(self) -> None:
        """What the whole machine's counters grew by, IPv4 and IPv6 together."""
        self.machine.write("net/snmp", SNMP)
        self.machine.write("net/snmp6", SNMP6)

        def grow() -> None:
            self.machine.write("net/snmp", SNMP.replace("900 4", "900 6"))
            self.machine.write("net/snmp6", SNMP6.replace("RcvbufErrors                	3", "RcvbufErrors 4"))

        self.machine.while_waiting = grow
        grown = self.watch().grown
        self.assertEqual({"RcvbufErrors": 3}, {name: count for name, count in grown.items() if count})


class TextTests(SynchronousTestCase):
    """Texts of the kernel."""

    def test_snmp(self) -> None:
        """Counters of UDP, and of nothing else."""
        counters = parse_snmp(SNMP, SNMP6)
        self.assertEqual(
            (1010, 10, 7, 1, 2),
            tuple(counters[name] for name in ("InDatagrams", "InErrors", "RcvbufErrors", "InCsumErrors", "MemErrors")),
        )
        self.assertEqual({}, parse_snmp("", ""))

    @PROPERTY
    @given(st.text(alphabet=st.sampled_from("Udp6: \n0123456789InErrors\t") | st.characters(), max_size=200))
    def test_any_snmp(self, text: str) -> None:
        """Any text has some counters or none."""
        for count in parse_snmp(
            f"Udp: InErrors {text}\nUdp: 1 {text}\n{text}", f"Udp6InErrors {text}\n{text}"
        ).values():
            self.assertTrue(count >= 0)

    def test_process(self) -> None:
        """A process's user is its effective one; what cannot be read is not known."""
        with FakeMachine() as machine:
            machine.process(7, "server", status=STATUS)
            machine.process(8, "odd", status="State:\nUid:\tx\ty\n")
            self.assertEqual((1000, "T"), process_facts(7, machine.proc))
            self.assertEqual((None, ""), process_facts(9, machine.proc))
            self.assertEqual(None, process_facts(8, machine.proc)[0])

    def test_limit(self) -> None:
        """A setting of the kernel, and what is none."""
        with FakeMachine() as machine:
            machine.write("sys/net/core/rmem_max", "212992\n")
            machine.write("sys/net/core/rmem_default", "many\n")
            limits = [read_limit(f"net/core/rmem_{name}", machine.proc) for name in ("max", "default", "none")]
        self.assertEqual([212992, None, None], limits)
