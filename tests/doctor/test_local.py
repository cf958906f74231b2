"""What is said about a port, on machines that the test makes: what cannot be had in a network namespace of this one."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.doctor.local_fakes import EVERYWHERE, LOOPBACK, FakeMachine, socket_line
from tests.doctor.test_local_nft import DROP, ruleset
from tests.properties import PROPERTY
from twistedudp.doctor._local import examine_local
from twistedudp.doctor._local_diag import SocketDetails
from twistedudp.doctor._local_listeners import MOST_LISTED, is_own_address

if TYPE_CHECKING:
    from twistedudp.doctor import Finding

EVERYWHERE6 = socket_line(local="0" * 32, remote="0" * 32 + ":0000")
LIMITS = {"max": 212992, "default": 212992}


class LocalTestCase(SynchronousTestCase):
    """One machine, without rules."""

    def setUp(self) -> None:
        """Make it."""
        self.machine = FakeMachine()
        self.addCleanup(self.machine.__exit__)
        self.machine.prints("nft", ruleset())

    def examine(self, host: str = "", port: int = 10000) -> dict[str, Finding]:
        """Return the findings by their codes, with a ``+`` behind that of a fault."""
        findings = examine_local(host, port, self.machine.system)
        return {finding.code + "+" * finding.fault: finding for finding in findings}

    def only(self, code: str, host: str = "") -> Finding:
        """Return the one finding."""
        found = self.examine(host)
        self.assertEqual([code], list(found), found)
        return found[code]


class OtherSystemTests(LocalTestCase):
    """Machines that do not tell."""

    def test_other_system(self) -> None:
        """Elsewhere than on Linux one finding says what cannot be seen."""
        (finding,) = examine_local("", 10000, self.machine.system._replace(linux=False))
        self.assertEqual("UDP-LOCAL-UNKNOWN", finding.code)
        self.assertIn("this is not Linux", finding.says)
        self.assertIn("rules of the packet filter", finding.evidence[0])

    def test_no_proc(self) -> None:
        """A Linux without /proc says so as well."""
        (self.machine.proc / "net" / "udp").unlink()
        self.assertIn("net/udp", self.only("UDP-LOCAL-UNKNOWN+").says)

    def test_no_interface(self) -> None:
        """An address behind an interface that this machine lacks is none of its own."""
        for name in ("nosuch", "4000000000", "99999999999999999999"):
            finding = self.only("UDP-NO-ROUTE+", f"fe80::1%{name}")
            self.assertIn(f"no interface {name!r}", finding.says)
        self.assertNotIn("UDP-NO-ROUTE+", self.examine(f"fe80::1%{socket.if_indextoname(1)}"))

    def test_every_address(self) -> None:
        """What a server listens at for all of its addresses stands for all of them."""
        self.machine.table("udp", socket_line(local=EVERYWHERE))
        self.machine.process(7, "server", 5)
        found = self.examine()
        self.assertIn("UDP-PORT-HELD", found)
        for host in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound
            self.assertEqual(found, self.examine(host))

    def test_no_name(self) -> None:
        """What can be no name is told as such."""
        for host in ("a" * 300, "\udcff", "x..y", "\0"):
            self.assertEqual("UDP-NAME-UNKNOWN", examine_local(host, 10000, self.machine.system)[0].code)


class ListenerTests(LocalTestCase):
    """Who listens."""

    def test_kernel_tells_nothing(self) -> None:
        """Without sock_diag the buffer is unknown, and so is whether :: serves IPv4; that is then no fault."""
        self.machine.table("udp6", EVERYWHERE6)
        self.machine.process(7, "server", 5)
        finding = self.only("UDP-PORT-HELD", "127.0.0.1")
        self.assertIn("receive buffer unknown", finding.evidence[0])
        self.assertIn("IPv4 or not is unknown", finding.evidence[0])

    def test_ipv6_only(self) -> None:
        """With it that is known."""
        self.machine.table("udp6", EVERYWHERE6)
        self.machine.details = {5: SocketDetails(5, 8192, only_ipv6=True, interface=2**31)}
        finding = self.examine("127.0.0.1")["UDP-OTHER-LISTENER+"]
        self.assertIn("for IPv6 only", finding.says)
        self.assertIn("from network interface number 2147483648 only", self.examine()["UDP-PORT-HELD"].evidence[0])

    def test_process_of_nobody_here(self) -> None:
        """A socket without a process is another user's, or for root the kernel's or a container's."""
        self.machine.table("udp", socket_line(uid=4_000_000_000))
        for user, words in ((1000, "run this as root"), (0, "it is the kernel's own")):
            self.patch(os, "geteuid", lambda user=user: user)
            finding = self.only("UDP-PORT-HELD")
            self.assertIn("a process of user 4000000000 that cannot be seen", finding.says)
            self.assertIn(words, finding.advice)

    def test_many(self) -> None:
        """A large group is not listed to its end."""
        self.machine.table("udp", *(socket_line(inode=number) for number in range(MOST_LISTED + 3)))
        evidence = self.only("UDP-PORT-HELD").evidence
        self.assertEqual(MOST_LISTED, sum(line.startswith("0.0.0.0:10000: ") for line in evidence))
        self.assertIn("and 3 more sockets", evidence)

    def test_states(self) -> None:
        """A process that is stopped is told so beside its name, and one that sleeps is not."""
        self.machine.table("udp", socket_line())
        self.machine.process(7, "server", 5, status="State:\tT (stopped)\nUid:\t0\t0\t0\t0\n")
        self.machine.process(8, "child", 5, status="State:\tS (sleeping)\n")
        self.assertEqual(
            "UDP port 10000 is held by server (pid 7, user root, it is stopped), child (pid 8)",
            self.only("UDP-PORT-HELD").says,
        )

    def test_neighbours(self) -> None:
        """A free port: a server of Twisted nearby is told, before others; a client's port is none of them."""
        self.machine.table(
            "udp",
            socket_line(port=53, inode=1, uid=0),
            socket_line(port=10001, inode=2, local=LOOPBACK),
            socket_line(port=10002, inode=3, remote="0100007F:0009"),
        )
        finding = self.only("UDP-PORT-FREE+")
        self.assertIn(
            "listeners at other UDP ports: 53 (a process of user root), 10001 (a process", str(finding.evidence)
        )
        self.machine.process(7, "python3", 2, words=("/opt/bin/python3", "/opt/bin/twistd", "-n", "udpecho"))
        finding = self.only("UDP-PORT-FREE+")
        self.assertIn("but python3, pid 7 listens at UDP 127.0.0.1:10001", finding.evidence)
        self.assertIn("is 127.0.0.1:10001 the port you meant?", finding.advice)

    def test_namespaces(self) -> None:
        """Other network namespaces are looked into once each, as far as they can be seen."""
        for pid, namespace in (("self", 1), ("7", 1), ("8", 2), ("9", 2), ("10", 3)):
            (self.machine.proc / pid / "ns").mkdir(parents=True)
            (self.machine.proc / pid / "ns" / "net").symlink_to(f"net:[{namespace}]")
            if pid != "self":
                self.machine.write(f"{pid}/net/udp", "header\n" + socket_line(inode=int(pid)))
                self.machine.process(int(pid), "server", int(pid))
        told = [line for line in self.only("UDP-PORT-FREE+").evidence if "another network namespace" in line]
        self.assertEqual(2, len(told))
        self.assertIn("server (pid 8) holds UDP port 10000", told[0])

    def test_own_addresses(self) -> None:
        """Loopback is this machine's, a documentation address is not, and a group may be anybody's."""
        expected = (("127.0.0.1", True), ("192.0.2.1", False), ("224.0.0.251", True), ("fe80::1%nosuch0", True))
        for host, own in expected:
            self.assertEqual(own, is_own_address(host), host)


class LossTests(LocalTestCase):
    """Why datagrams are dropped: what no test can make without harm to this machine."""

    def setUp(self) -> None:
        """Have a server with a buffer of 8,192 bytes, and settings of the kernel."""
        super().setUp()
        self.machine.process(7, "server", 5)
        for name, value in LIMITS.items():
            self.machine.write(f"sys/net/core/rmem_{name}", f"{value}\n")
        self.lost = 0

    def lose(self, counter: str, *, buffer: int | None = 8192, queued: int = 0, state: str = "S") -> dict[str, Finding]:
        """Examine while datagrams are lost, and a counter tells why."""

        def more() -> None:
            self.lost += 1
            self.machine.table("udp", socket_line(drops=self.lost, queued=queued))
            self.machine.counters({"InErrors": self.lost, counter: self.lost})

        self.machine.details = {5: SocketDetails(5, buffer, only_ipv6=None, interface=0)}
        self.machine.write("7/status", f"State:\t{state} (so)\n")
        self.machine.while_waiting = more
        more()
        return self.examine()

    def test_memory(self) -> None:
        """The memory of all UDP sockets is used up."""
        finding = self.lose("MemErrors")["UDP-KERNEL-DROPS+"]
        self.assertIn("5 within 0.5 s: no memory left for UDP sockets", finding.says)
        self.assertIn("udp_mem", finding.advice)

    def test_unknown_reason(self) -> None:
        """No counter that tells grew: something attached to the socket refuses them."""
        self.assertIn("SO_ATTACH_FILTER", self.lose("InDatagrams")["UDP-KERNEL-DROPS+"].says)

    def test_buffers(self) -> None:
        """What to do about a small buffer: ask for one, ask for a larger one, or raise the limit."""
        for buffer, maximum, advice in (
            (212992, 4194304, "the program asks for no buffer of its own"),
            (
                8192,
                4194304,
                "let the program ask for a larger buffer (SO_RCVBUF), and allow it: sysctl -w net.core.",
            ),
            (8192, 67108864, "let the program ask for a larger buffer (SO_RCVBUF)"),
            (8388608, 4194304, "it has as much as this system allows: sysctl -w net.core.rmem_max=16777216, and start"),
            (134217728, 67108864, "it has as much as this system allows: sysctl -w net.core.rmem_max=134217728"),
            (None, 4194304, "let the program ask for more (SO_RCVBUF; udpecho asks for 4 MiB)"),
        ):
            self.machine.write("sys/net/core/rmem_max", f"{maximum}\n")
            finding = self.lose("RcvbufErrors", buffer=buffer)["UDP-KERNEL-DROPS+"]
            self.assertIn("too small for the bursts", finding.says)
            self.assertTrue(finding.advice.startswith(advice), finding.advice)
            self.assertNotIn("rmem_max=16777216" if maximum > 16777216 else "\0", finding.advice)

    def test_readers(self) -> None:
        """What to do about a full queue goes by the state of the process."""
        for state, words in (("S", "it sleeps and does not read"), ("R", "it is busy"), ("T", "kill -CONT 7")):
            found = self.lose("RcvbufErrors", queued=8000, state=state)
            self.assertEqual(["UDP-QUEUE+", "UDP-KERNEL-DROPS+"], list(found)[:2])
            for code in ("UDP-QUEUE+", "UDP-KERNEL-DROPS+"):
                self.assertIn(words, found[code].advice)
            self.assertIn("is full", found["UDP-QUEUE+"].says)
        (self.machine.proc / "7" / "fd" / "0").unlink()
        found = self.lose("RcvbufErrors", queued=8000)
        self.assertIn("run this as root to see which it is", found["UDP-QUEUE+"].advice)

    def test_slow_reader(self) -> None:
        """A queue that is never empty, but not full, and now shorter, now longer."""
        sizes = iter([5, 9, 5, 9, 5, 9])

        def change() -> None:
            self.machine.table("udp", socket_line(queued=next(sizes)))

        change()
        self.machine.while_waiting = change
        self.assertIn("never becomes empty", self.examine()["UDP-QUEUE+"].says)


class RuleTests(LocalTestCase):
    """Which datagrams are followed through the rules."""

    def told(self, family: str, host: str = "") -> bool:
        """Return whether a rule that drops everything of a family is told as a fault."""
        self.machine.prints("nft", ruleset(DROP).replace('"inet"', f'"{family}"'))
        return "UDP-RULE+" in self.examine(host)

    def test_family_of_the_listener(self) -> None:
        """Rules of a family that nobody serves do not matter."""
        self.machine.table("udp", socket_line())
        self.assertEqual([True, False], [self.told(family) for family in ("ip", "ip6")])
        self.machine.table("udp")
        self.assertEqual([True, True], [self.told(family) for family in ("ip", "ip6")])
        for only, both in ((True, [False, True]), (False, [True, True]), (None, [True, True])):
            self.machine.table("udp6", EVERYWHERE6)
            self.machine.details = {5: SocketDetails(5, 8192, only_ipv6=only, interface=0)}
            self.assertEqual(both, [self.told(family) for family in ("ip", "ip6")], only)

    def test_family_of_the_host(self) -> None:
        """Where an address is asked for, its family counts."""
        self.machine.table("udp", socket_line())
        self.assertEqual([True, False], [self.told(family, "127.0.0.1") for family in ("ip", "ip6")])

    def test_evidence(self) -> None:
        """Rules that let datagrams in are evidence beside who listens."""
        self.machine.table("udp", socket_line())
        self.assertIn("packet filter: no rule for UDP port 10000 stops it", self.only("UDP-PORT-HELD").evidence)


ODD = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)


class AnythingTests(SynchronousTestCase):
    """Whatever a proc file system and the programs hold, there are findings and no exception."""

    @settings(PROPERTY, max_examples=PROPERTY.max_examples // 3)
    @given(st.dictionaries(
        st.sampled_from(["net/udp6", "net/tcp", "net/snmp", "net/snmp6", "7/comm", "7/status", "7/cmdline",
                         "sys/net/core/rmem_max", "net/ip_tables_names"]), ODD), ODD)  # fmt: skip
    def test_any_file(self, files: dict[str, bytes], table: bytes) -> None:
        """Any bytes in any file."""
        with FakeMachine() as machine:
            machine.process(7, "server", 5)
            for name, content in files.items():
                machine.write(name, content)
            machine.write("net/udp", b"header\n" + socket_line(local=EVERYWHERE).encode() + table)
            findings = examine_local("", 10000, machine.system._replace(programs=""))
        told: list[Any] = [finding.as_json() for finding in findings]
        self.assertTrue(any(one["code"] == "UDP-PORT-HELD" for one in told), told)
