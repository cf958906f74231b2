"""What the doctor says on a server's own machine: each fault is really made, in a network of its own.

The verdicts on packet filter rules are compared with what the kernel does with a datagram that comes in over a wire.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import ANY

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.sockets import PATIENCE, plain_socket, waiting_in
from twistedudp.doctor._local import System, examine_local
from twistedudp.doctor._local_rules import read_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twistedudp.doctor import Finding

pytestmark = pytest.mark.heavy

ANY4: Final = "0.0.0.0"  # noqa: S104  # in a network of the test's own
NOBODY: Final = 65534
SMALL_BUFFER: Final = 4096
ARRIVAL: Final = 0.15
"""Seconds after which a datagram that crosses a virtual wire is not to come any more; it takes some 20 us."""

HOLD: Final = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
held.bind((sys.argv[1], int(sys.argv[2])))
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""
"""A program that holds a port and never reads from it."""


@pytest.mark.heavy
class LocalCase(SynchronousTestCase):
    """A machine with a server, and another one, joined by a wire; the test runs on the server's."""

    THERE6: Final = "fd00:198:18::1"

    def setUp(self) -> None:
        """Make both and enter the server's until the end of the test."""
        if reason := missing_for_namespaces():
            raise SkipTest(reason)
        self.wire = Wire()
        self.addCleanup(self.wire.__exit__)
        self.wire.there.run("ip", "address", "add", f"{self.THERE6}/64", "dev", "veth0", "nodad")
        self.wire.here.run("ip", "address", "add", "fd00:198:18::2/64", "dev", "veth0", "nodad")
        inside = self.wire.there.entered()
        inside.__enter__()
        self.addCleanup(inside.__exit__, None, None, None)

    def bound(self, host: str = ANY4, port: int = 0, **options: int) -> socket.socket:
        """Return a socket at a port, with options of SOL_SOCKET by their names."""
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.settimeout(PATIENCE)
        for name, value in options.items():
            level = socket.IPPROTO_IPV6 if name.startswith("IPV6") else socket.SOL_SOCKET
            made.setsockopt(level, getattr(socket, name), value)
        made.bind((host, port))
        return made

    def holder(self, host: str = ANY4, port: int = 0) -> tuple[subprocess.Popen[str], int]:
        """Start a program that holds a port and does not read, and return it with its port."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        assert process.stdout is not None  # it is a pipe
        return process, int(process.stdout.readline())

    def examine(self, host: str, port: int, while_looking: Callable[[], object] = lambda: None) -> list[Finding]:
        """Examine a port; between two looks something happens instead of a pause."""
        return examine_local(host, port, System(sleep=lambda _: while_looking()))

    def only(self, findings: list[Finding], code: str) -> Finding:
        """Return the finding with a code, of which there must be one."""
        found = [finding for finding in findings if finding.code == code]
        self.assertEqual(1, len(found), [finding.as_json() for finding in findings])
        return found[0]

    def assert_codes(self, expected: list[str], findings: list[Finding]) -> None:
        """Check which findings there are; ``+`` marks a fault."""
        told = [finding.code + "+" * finding.fault for finding in findings]
        self.assertEqual(expected, told, [finding.as_json() for finding in findings])


def port_of(bound: socket.socket) -> int:
    """Return the port of a socket."""
    port: int = bound.getsockname()[1]
    return port


def flood(port: int, count: int, host: str = "127.0.0.1", size: int = 100) -> Callable[[], None]:
    """Return what sends so many datagrams to a port of this machine."""

    def send() -> None:
        with plain_socket(host) as sender:
            for _ in range(count):
                sender.sendto(bytes(size), (host, port))

    return send


class HolderTests(LocalCase):
    """Who has the port, and at which address."""

    def test_held(self) -> None:
        """A holder is told by name, pid and user, its buffer is the one that it has, and nothing is wrong."""
        process, port = self.holder()
        findings = self.examine("", port)
        self.assert_codes(["UDP-PORT-HELD"], findings)
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        who = f"{name} (pid {process.pid}, user root)"
        self.assertEqual(f"UDP port {port} is held by {who}", findings[0].says)
        line, accepted = findings[0].evidence
        self.assertEqual(
            f"0.0.0.0:{port}: {who}, 0 bytes in the receive queue, receive buffer {2 * SMALL_BUFFER:,} bytes, "
            "0 datagrams dropped since it was opened",
            line,
        )
        self.assertEqual(f"packet filter: no rule for UDP port {port} stops it", accepted)

    def test_shared(self) -> None:
        """A group of workers and a socket of the other family are all told."""
        first = self.bound(SO_REUSEPORT=1)
        port = port_of(first)
        self.bound(port=port, SO_REUSEPORT=1)
        self.bound("::1", port)
        finding = self.only(self.examine("", port), "UDP-PORT-HELD")
        self.assertEqual(2, sum(line.startswith(f"0.0.0.0:{port}: ") for line in finding.evidence))
        self.assertEqual(1, sum(line.startswith(f"[::1]:{port}: ") for line in finding.evidence))
        self.assertTrue(any(line.startswith(f"2 sockets share 0.0.0.0:{port}: ") for line in finding.evidence))
        self.assertEqual(1, finding.says.count(f"pid {os.getpid()}"), finding.says)

    def test_two_programs(self) -> None:
        """Two programs that share a port take each other's datagrams, and the advice says so."""
        first = self.bound(SO_REUSEPORT=1)
        script = HOLD.replace(
            "held.bind", "open('/proc/self/comm', 'w').write('other'); held.setsockopt(1, 15, 1); held.bind"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, ANY4, str(port_of(first))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        assert process.stdout is not None  # it is a pipe
        process.stdout.readline()
        finding = self.only(self.examine("", port_of(first)), "UDP-PORT-HELD")
        self.assertIn(f"other (pid {process.pid}", finding.says)
        self.assertIn("different programs share the port", finding.advice)

    def test_unprivileged(self) -> None:
        """Another user is told whose port it is and what root would see; nothing of that is a fault."""
        _, port = self.holder()
        with unprivileged():
            findings = self.examine("", port)
        self.assert_codes(["UDP-PORT-HELD", "UDP-RULES-UNREADABLE"], findings)
        self.assertEqual(f"UDP port {port} is held by a process of user root that cannot be seen", findings[0].says)
        self.assertIn("run this as root", findings[0].advice)
        self.assertIn(f"receive buffer {2 * SMALL_BUFFER:,} bytes", findings[0].evidence[0])

    def test_free(self) -> None:
        """A port that nobody has: a TCP listener there, and the same program's UDP port, are told as near misses."""
        tcp = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(tcp.close)
        port = tcp.getsockname()[1]
        other = self.bound("127.0.0.1")
        findings = self.examine("", port)
        self.assert_codes(["UDP-PORT-FREE+"], findings)
        evidence = findings[0].evidence
        self.assertIn("no socket in /proc/net/udp and udp6 has this port", evidence)
        self.assertTrue(any(line.startswith(f"but TCP port {port} is held by ") for line in evidence), evidence)
        self.assertTrue(any(line.endswith(f"at UDP 127.0.0.1:{port_of(other)}") for line in evidence), evidence)
        self.assertIn(f"127.0.0.1:{port_of(other)}", findings[0].advice)

    def test_other_namespace(self) -> None:
        """A port that is free here and held in another network of this machine, as a container's is, is told."""
        with self.wire.here.entered():
            process, port = self.holder()
        finding = self.only(self.examine("", port), "UDP-PORT-FREE")
        told = [line for line in finding.evidence if "another network namespace" in line]
        self.assertTrue(any(f"(pid {process.pid})" in line for line in told), finding.evidence)

    def test_other_address(self) -> None:
        """A server on loopback only does not serve the address asked for: what to start it with is told, and helps."""
        bound = self.bound("127.0.0.1")
        port = port_of(bound)
        findings = self.examine(Wire.THERE, port)
        self.assert_codes(["UDP-OTHER-LISTENER+", "UDP-PORT-HELD"], findings)
        self.assertIn(f"listens at 127.0.0.1:{port}, and nothing listens at {Wire.THERE}:{port}", findings[0].says)
        self.assertIn("--interface 0.0.0.0", findings[0].advice)
        self.assertEqual("refused", self.fate(port))
        bound.close()
        wide = self.bound(port=port)
        self.assert_codes(["UDP-PORT-HELD"], self.examine(Wire.THERE, port))
        self.assertEqual("arrived", self.fate(port, wide))

    def test_loopback_only(self) -> None:
        """Where no address was asked for, a server on loopback is no fault, but its reach is told."""
        bound = self.bound("127.0.0.1")
        findings = self.examine("", port_of(bound))
        self.assert_codes(["UDP-OTHER-LISTENER", "UDP-PORT-HELD"], findings)
        self.assertIn("no other machine can reach it", findings[0].says)

    def test_ipv6_only(self) -> None:
        """A socket that refuses IPv4 is told apart from one that takes both."""
        for only, codes in ((1, ["UDP-OTHER-LISTENER+", "UDP-PORT-HELD"]), (0, ["UDP-PORT-HELD"])):
            bound = self.bound("::", IPV6_V6ONLY=only)
            findings = self.examine(Wire.THERE, port_of(bound))
            self.assert_codes(codes, findings)
            if only:
                self.assertIn("for IPv6 only (IPV6_V6ONLY)", findings[0].says)
                self.assert_codes(["UDP-OTHER-LISTENER", "UDP-PORT-HELD"], self.examine("", port_of(bound)))
            self.assertEqual("refused" if only else "arrived", self.fate(port_of(bound), bound))
            self.assert_codes(["UDP-PORT-HELD"], self.examine(self.THERE6, port_of(bound)))

    def test_ipv4_only(self) -> None:
        """A socket of IPv4 does not serve an IPv6 address."""
        findings = self.examine(self.THERE6, port_of(self.bound()))
        self.assert_codes(["UDP-OTHER-LISTENER+", "UDP-PORT-HELD"], findings)
        self.assertIn("which is IPv4 only", findings[0].says)
        self.assertIn("--interface ::", findings[0].advice)

    def test_connected(self) -> None:
        """A client's port is no server's."""
        bound = self.bound(Wire.THERE)
        bound.connect((Wire.HERE, 9))
        findings = self.examine(Wire.THERE, port_of(bound))
        self.assert_codes(["UDP-OTHER-LISTENER+", "UDP-PORT-HELD"], findings)
        self.assertIn("for one peer only", findings[0].says)

    def test_foreign_address(self) -> None:
        """An address that this machine does not have is told as such."""
        findings = self.examine("192.0.2.7", port_of(self.bound()))
        self.assert_codes(["UDP-OTHER-LISTENER+", "UDP-PORT-HELD"], findings)
        self.assertIn("192.0.2.7 is not an address of this machine", findings[0].says)

    def test_name(self) -> None:
        """A name is looked up; one that is none is told."""
        port = port_of(self.bound())
        self.assert_codes(["UDP-PORT-HELD"], self.examine("127.0.0.1", port))
        self.assert_codes(["UDP-NAME-UNKNOWN+"], self.examine("no.such.name.invalid", port))

    def fate(self, port: int, receiver: socket.socket | None = None) -> str:
        """Return what becomes of a datagram from the other machine; see :func:`fate_of`."""
        return fate_of(self.wire, port, receiver)


def fate_of(wire: Wire, port: int, receiver: socket.socket | None = None) -> str:
    """Return what becomes of a datagram from the other machine: arrived, refused or silence."""
    with wire.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((Wire.THERE, port))
        sender.send(b"there?")
        ready = select.select([sender, *([receiver] if receiver else [])], [], [], ARRIVAL)[0]
        if not ready:
            return "silence"
        if receiver in ready:
            assert receiver is not None  # it is in a list without None
            waiting_in(receiver)
            return "arrived"
        return "refused" if sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) else "answered"


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a moment, with the effective rights of nobody; the programs that are started meanwhile as well."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class LossTests(LocalCase):
    """Queues that fill, and what is dropped."""

    def test_momentary_queue(self) -> None:
        """A datagram that waits for a moment is no fault."""
        bound = self.bound("127.0.0.1")
        port = port_of(bound)
        flood(port, 1)()
        findings = self.examine("127.0.0.1", port, lambda: waiting_in(bound))
        self.assert_codes(["UDP-PORT-HELD", "UDP-QUEUE"], findings)
        self.assertIn("for a moment", findings[1].says)

    def test_standing_queue(self) -> None:
        """Datagrams that nobody reads are told, while none is lost yet; who was stopped is told as well."""
        process, port = self.holder()
        process.send_signal(signal.SIGSTOP)
        self.addCleanup(process.send_signal, signal.SIGCONT)
        flood(port, 1)()
        findings = self.examine("127.0.0.1", port)
        self.assert_codes(["UDP-QUEUE+", "UDP-PORT-HELD"], findings)
        self.assertIn(f"the receive queue of 0.0.0.0:{port}", findings[0].says)
        self.assertIn("stands still", findings[0].says)
        self.assertIn(f"kill -CONT {process.pid}", findings[0].advice)

    def test_growing_queue(self) -> None:
        """A queue that grows is told apart from one that stands still."""
        bound = self.bound("127.0.0.1")
        port = port_of(bound)
        flood(port, 1)()
        findings = self.examine("127.0.0.1", port, flood(port, 1))
        self.assert_codes(["UDP-QUEUE+", "UDP-PORT-HELD"], findings)
        self.assertIn("grows", findings[0].says)

    def test_full_queue(self) -> None:
        """A process that does not read while it is flooded: the queue is full, the loss is counted and explained."""
        process, port = self.holder()
        flood(port, 100)()
        findings = self.examine("127.0.0.1", port, flood(port, 20))
        self.assert_codes(["UDP-QUEUE+", "UDP-KERNEL-DROPS+", "UDP-PORT-HELD"], findings)
        queue, drops, _ = findings
        self.assertIn("is full", queue.says)
        self.assertIn("100 within 0.5 s", drops.says)
        self.assertIn("the process does not read fast enough", drops.says)
        self.assertIn(
            f"it sleeps and does not read: it waits for something else (see 'cat /proc/{process.pid}", drops.advice
        )
        dropped = int(drops.evidence[0].removeprefix("dropped since it was opened: "))
        self.assertTrue(100 + 90 < dropped < 200, dropped)
        self.assertTrue(any("RcvbufErrors +100" in line for line in drops.evidence), drops.evidence)

    def test_small_buffer(self) -> None:
        """A process that reads, but whose buffer does not hold a burst, is told to ask for more."""
        bound = self.bound("127.0.0.1", SO_RCVBUF=SMALL_BUFFER)
        port = port_of(bound)

        def burst() -> None:
            waiting_in(bound)
            flood(port, 40)()
            waiting_in(bound)

        findings = self.examine("127.0.0.1", port, burst)
        self.assert_codes(["UDP-KERNEL-DROPS+", "UDP-PORT-HELD"], findings)
        self.assertIn("too small for the bursts", findings[0].says)
        self.assertIn("let the program ask for a larger buffer", findings[0].advice)

    def test_default_buffer(self) -> None:
        """A process that asked for no buffer has the default, and that is told."""
        bound = self.bound("127.0.0.1")
        port = port_of(bound)

        def burst() -> None:
            flood(port, 400)()
            waiting_in(bound)

        finding = self.only(self.examine("127.0.0.1", port, burst), "UDP-KERNEL-DROPS")
        self.assertIn("has net.core.rmem_default", finding.advice)

    def test_past_drops(self) -> None:
        """What was lost before is told, but is no fault: whether it goes on cannot be said."""
        bound = self.bound("127.0.0.1", SO_RCVBUF=SMALL_BUFFER)
        port = port_of(bound)
        flood(port, 40)()
        waiting_in(bound)
        findings = self.examine("127.0.0.1", port)
        self.assert_codes(["UDP-PORT-HELD", "UDP-KERNEL-DROPS"], findings)
        self.assertIn("none within the last", findings[1].says)

    def test_socket_filter(self) -> None:
        """Datagrams that the program's own filter refuses are not laid at the buffer's door."""
        bound = self.bound("127.0.0.1")
        attach_drop_all(bound)
        port = port_of(bound)
        finding = self.only(self.examine("127.0.0.1", port, flood(port, 5)), "UDP-KERNEL-DROPS")
        self.assertTrue(finding.fault)
        self.assertIn("25 within", finding.says)
        self.assertIn("SO_ATTACH_FILTER", finding.says)

    def test_wrong_checksum(self) -> None:
        """Datagrams that arrive damaged are told as such: large ones of a socket, of small ones only that there are."""
        bound = self.bound()
        port = port_of(bound)

        def large() -> None:
            self.send_damaged(port, 1000)
            self.assertEqual([], waiting_in(bound))

        finding = self.only(self.examine("", port, large), "UDP-KERNEL-DROPS")
        self.assertIn("5 within 0.5 s: they arrive with a wrong checksum", finding.says)
        other = self.bound()
        finding = self.only(self.examine("", port_of(other), lambda: self.send_damaged(port, 10)), "UDP-KERNEL-DROPS")
        self.assertFalse(finding.fault)
        self.assertIn("does not tell for which port: 5 for a wrong checksum", finding.says)

    def send_damaged(self, port: int, size: int) -> None:
        """Send a datagram with a wrong checksum from the other machine; the kernel checks large ones when read."""
        payload = bytes(size)
        header = b"".join(number.to_bytes(2, "big") for number in (9, port, 8 + len(payload), 0xDEAD))
        with self.wire.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            raw.sendto(header + payload, (Wire.THERE, 0))

    def test_others_drops(self) -> None:
        """What another program loses is told as another's."""
        bound, other = self.bound("127.0.0.1"), self.bound("127.0.0.1", SO_RCVBUF=SMALL_BUFFER)
        findings = self.examine("127.0.0.1", port_of(bound), flood(port_of(other), 40))
        self.assert_codes(["UDP-PORT-HELD", "UDP-KERNEL-DROPS"], findings)
        self.assertIn(f"not for port {port_of(bound)}", findings[1].says)


def attach_drop_all(bound: socket.socket) -> None:
    """Attach a filter that refuses everything (SO_ATTACH_FILTER with "ret #0")."""
    import ctypes  # noqa: PLC0415  # here only

    instruction = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\0\0", 8)  # struct sock_filter: BPF_RET | BPF_K, 0

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    bound.setsockopt(socket.SOL_SOCKET, 26, bytes(Program(1, ctypes.addressof(instruction))))


def chain(*rules: str, policy: str = "accept", more: str = "") -> str:
    """Return rules of the input chain as nft reads them."""
    body = "\n".join(rules)
    head = f"type filter hook input priority 0; policy {policy};"
    return f"table inet t {{\n{more}\nchain input {{\n{head}\n{body}\n}}\n}}\n"


SET: Final = "set blocked {\ntype inet_service\nflags interval\nelements = { 53, 10000-10099 }\n}"
MAP: Final = "map fates {\ntype inet_service : verdict\nelements = { 10000 : drop, 53 : accept }\n}"
SUB: Final = """
chain sub {
    udp dport 10001 return
    tcp dport 22 accept
    udp dport 10000 reject with icmpx admin-prohibited
}
"""

RULES: Final = {
    "nothing": ("", "arrived", []),
    "rule": (chain("udp dport 10000 drop"), "silence", ["udp dport 10000 drop"]),
    "reject": (chain("udp dport 10000 reject"), "refused", ["udp dport 10000 reject"]),
    "other port": (chain("udp dport 10001 drop", "udp sport 10000 counter", "tcp dport 10000 drop"), "arrived", []),
    "policy": (
        chain("iif lo accept", "ct state established,related accept", policy="drop"),
        "silence",
        ["policy drop"],
    ),
    "policy, let in": (chain("iif lo accept", "udp dport { 53, 10000 } accept", policy="drop"), "arrived", []),
    "set": (chain("udp dport @blocked drop", more=SET), "silence", ["udp dport @blocked drop"]),
    "anonymous set": (chain("udp dport { 1, 9000-10000 } drop"), "silence", ["udp dport { 1, 9000-10000 } drop"]),
    "negation": (chain("udp dport != 53 drop"), "silence", ["udp dport != 53 drop"]),
    "negated set": (chain("udp dport != { 53, 10000 } drop"), "arrived", []),
    "comparison": (chain("udp dport >= 1024 drop", "udp dport < 1024 drop"), "silence", ["udp dport >= 1024 drop"]),
    "map": (chain("udp dport vmap @fates", more=MAP), "silence", ["udp dport vmap @fates"]),
    "state map": (chain("ct state vmap { established : accept, new : drop }"), "silence", [ANY]),
    "jump": (chain("udp dport 9999-10001 jump sub", "drop", more=SUB), "refused", [ANY]),
    "goto": (chain("meta l4proto udp goto sub", "drop", more=SUB.replace("10000", "9")), "arrived", []),
    "return": (chain("jump sub", more=SUB.replace("10001", "10000")), "arrived", []),
    "any protocol": (chain("meta l4proto { tcp, udp } th dport 10000 drop"), "silence", [ANY]),
    "concatenation": (chain("ip daddr . udp dport { 198.18.0.1 . 10000 } drop"), "silence", [ANY]),
    "another's address": (chain("ip daddr 198.18.0.9 drop", "ip6 daddr ::/0 drop"), "arrived", []),
    "own address": (chain("ip daddr 198.18.0.0/24 udp dport 10000 drop"), "silence", [ANY]),
    "type of address": (chain("fib daddr type local meta pkttype host drop"), "silence", [ANY]),
    "order": (chain("udp dport 10000 accept", "udp dport 10000 drop"), "arrived", []),
    "raw payload": (chain("meta l4proto udp @th,16,16 10000 drop"), "silence", [ANY]),
    "prerouting": (
        chain("udp dport 10000 drop").replace("hook input priority 0", "hook prerouting priority -300"),
        "silence",
        ["udp dport 10000 drop"],
    ),
    "sent elsewhere": (
        "table ip n {\nchain p {\ntype nat hook prerouting priority -100;\nudp dport 10000 redirect to :9\n}\n}\n",
        "refused",
        ["udp dport 10000 redirect to :9"],
    ),
}
"""Rules, what becomes of a datagram to port 10000, and the rules that are said to stop it."""

DOUBTFUL: Final = {
    "sender": (chain("ip saddr 198.18.0.2 udp dport 10000 drop"), "may stop some"),
    "accepted sender": (chain("ip saddr 198.18.0.7 accept", policy="drop"), "may stop some"),
    "interface": (chain('iifname "veth0" udp dport 10000 drop'), "may stop some"),
    "mark": (chain("meta mark 1 drop"), "may stop some"),
    "limit": (chain("udp dport 10000 limit rate over 10/second drop"), "drops some datagrams"),
    "meter": (chain("udp dport 10000 meter m { ip saddr limit rate over 5/second } drop"), "drops some datagrams"),
    "what exceeds a limit": (
        chain("udp dport 10000 limit rate 10/second accept", policy="drop"),
        "drops some datagrams",
    ),
}
"""Rules that stop some datagrams, and how that is said."""


class RuleTests(LocalCase):
    """Rules of nftables."""

    def load(self, rules: str) -> None:
        """Have these rules and no others."""
        self.wire.there.run("nft", "-f", "-", text=f"flush ruleset\n{rules}")

    def test_as_the_kernel_does(self) -> None:
        """What is said about each set of rules is what the kernel does with a datagram over the wire."""
        bound = self.bound(port=10000)
        for name, (rules, fate, texts) in RULES.items():
            self.load(rules)
            self.assertEqual(fate, fate_of(self.wire, 10000, bound), name)
            for host in (Wire.THERE, ""):
                if not host and ("address" in name or "daddr" in rules):
                    continue  # without an address, what concerns one is in doubt
                told = [finding for finding in self.examine(host, 10000) if finding.code == "UDP-RULE"]
                self.assertEqual(texts, [finding.evidence[0].partition(": ")[2] for finding in told], (name, host))
                self.assertTrue(all(finding.fault for finding in told), name)

    def test_quoted(self) -> None:
        """A rule is quoted with its table and chain, and the advice can be followed: then datagrams arrive."""
        bound = self.bound(port=10000)
        self.load(chain("udp dport 9000-10099 counter drop", policy="drop"))
        finding = self.only(self.examine("", 10000), "UDP-RULE")
        self.assertEqual(
            "table inet t, chain input: udp dport 9000-10099 counter packets 0 bytes 0 drop", finding.evidence[0]
        )
        self.assertIn("drops datagrams to UDP port 10000", finding.says)
        command = finding.advice.partition("put a rule in front of it: ")[2].split()
        self.assertEqual("nft", command[0])
        self.wire.there.run(*command)
        self.assertEqual("arrived", fate_of(self.wire, 10000, bound))
        findings = self.examine("", 10000)
        self.assert_codes(["UDP-PORT-HELD"], findings)
        self.assertIn(
            "packet filter: accepted by table inet t, chain input: udp dport 10000 accept", findings[0].evidence
        )

    def test_doubtful(self) -> None:
        """Rules that depend on the sender or on a rate are told as such, and are no faults."""
        self.bound(port=10000)
        for name, (rules, words) in DOUBTFUL.items():
            self.load(rules)
            finding = self.only(self.examine("", 10000), "UDP-RULE")
            self.assertIn(words, finding.says, name)
            self.assertFalse(finding.fault, name)

    def test_loopback(self) -> None:
        """A rule that lets loopback in counts for who asks at 127.0.0.1, and for nobody else."""
        self.bound(port=10000)
        self.load(chain("iif lo accept", policy="drop"))
        self.assert_codes(["UDP-PORT-HELD"], self.examine("127.0.0.1", 10000))
        self.assert_codes(["UDP-RULE+", "UDP-PORT-HELD"], self.examine(Wire.THERE, 10000))

    def test_families(self) -> None:
        """A rule for one family only is told with it, where the server has both."""
        self.bound("::", 10000)
        self.load("table ip6 t {\nchain input {\ntype filter hook input priority 0;\nudp dport 10000 drop\n}\n}\n")
        finding = self.only(self.examine("", 10000), "UDP-RULE")
        self.assertIn("over IPv6", finding.says)
        self.load(chain("udp dport 10000 drop"))
        self.assertNotIn("over IPv", self.only(self.examine("", 10000), "UDP-RULE").says)

    def test_unreadable(self) -> None:
        """Without the rights of root, or without nft, it is said that nothing is known, and what to do."""
        port = port_of(self.bound())
        self.load(chain("udp dport 1-65535 drop"))
        with unprivileged():
            finding = self.only(self.examine("", port), "UDP-RULES-UNREADABLE")
        self.assertIn("it takes the rights of root", finding.evidence[0])
        self.assertIn("sudo nft list ruleset", finding.advice)
        rules = read_rules(path="/nowhere")
        self.assertIn("nft is not installed", rules.unread)
        self.assertFalse(rules.read)


class CommandTests(LocalCase):
    """The command itself, with its real pauses."""

    def run_doctor(self, *arguments: str) -> tuple[int, str]:
        """Run it inside and return its exit status and output."""
        program = shutil.which("udpecho", path=str(Path(sys.executable).parent))
        assert program is not None  # it is installed beside Python
        done = subprocess.run(
            [program, "doctor", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def test_json(self) -> None:
        """A server that is all right has exit status 0; one at another address 1, and the codes are there."""
        _, port = self.holder("127.0.0.1")
        status, output = self.run_doctor("--local", f"127.0.0.1:{port}", "--json")
        told: dict[str, Any] = json.loads(output)
        self.assertEqual((0, True, ["UDP-PORT-HELD"]), (status, told["ok"], [one["code"] for one in told["findings"]]))
        status, output = self.run_doctor("--local", f"{Wire.THERE}:{port}")
        self.assertEqual(1, status, output)
        self.assertIn("UDP-OTHER-LISTENER (fault): ", output)
