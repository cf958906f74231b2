"""The doctor's measurements on paths that answer and are broken all the same, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from twisted.internet.defer import Deferred, gatherResults

from tests.integration.examining import CLOSED, LARGEST_USUAL, DoctorCase
from tests.integration.routed import HOSTS
from tests.integration.twistd import environment

if TYPE_CHECKING:
    from twistedudp.doctor import Finding

pytestmark = pytest.mark.heavy

LARGEST_NARROW: Final = {"IPv4": 1272, "IPv6": 1252}
"""Bytes of the largest payload in one packet of 1,300 bytes."""

LARGE_BUFFER: Final = 4 * 1024 * 1024

UDPECHO: Final = str(Path(sys.executable).parent / "udpecho")


class SlowCase(DoctorCase):
    """Faults that take seconds to examine: over both families at once."""

    async def examine_both(self, **how: Any) -> dict[str, list[Finding]]:
        """Examine a server thoroughly over each family."""
        # A busy machine may drop what comes in while it does something else; only one test wants that.
        how = {"quick": False, "receive_buffer": LARGE_BUFFER, **how}
        found = await gatherResults(
            [
                Deferred.fromCoroutine(self.examine(hosts.server, self.ports[family], **how))
                for family, hosts in HOSTS.items()
            ],
            consumeErrors=True,
        )
        return dict(zip(HOSTS, found, strict=True))

    async def beside_both(self, code: str, **how: Any) -> dict[str, Finding]:
        """Do so, and return the only finding beside each answer, which must have a code."""
        found = await self.examine_both(**how)
        for findings in found.values():
            self.assertEqual([finding.code for finding in findings], ["UDP-ANSWERED", code], findings)
        return {family: findings[1] for family, findings in found.items()}

    def setUp(self) -> None:
        """Start a server for each family."""
        super().setUp()
        self.ports = {family: self.serve(hosts.server) for family, hosts in HOSTS.items()}

    def to_servers(self, rule: str) -> list[str]:
        """Return a rule for what goes to each server."""
        return [f"udp dport {port} {rule}" for port in self.ports.values()]


@pytest.mark.heavy
class WholeTests(SlowCase):
    """Paths without a fault, and servers and machines with one."""

    async def test_answered(self) -> None:
        """A server that answers is all there is to say; figures are the evidence, and nothing is a fault."""
        for family, found in (await self.examine_both()).items():
            [finding] = found
            self.assertEqual((finding.code, finding.fault), ("UDP-ANSWERED", False))
            self.assertIn("an echo server", finding.says)
            whole = f"{LARGEST_USUAL[family]:,} bytes pass in one packet"
            self.assert_evidence(finding, "64 bytes, from", "all answered", whole, "bytes in fragments: answered")

    async def test_cut(self) -> None:
        """A server that cuts what does not fit its buffer is told with the buffer's size."""
        self.ports = {family: self.serve(hosts.server, "cuts") for family, hosts in HOSTS.items()}
        for finding in (await self.beside_both("UDP-CUT")).values():
            self.assertIn("only 1,024 bytes of", finding.says)
            self.assertTrue(finding.fault)

    async def test_receive_buffer(self) -> None:
        """Answers that do not fit the receive buffer are the own machine's loss, and the path's is none."""
        for finding in (await self.beside_both("UDP-RECEIVE-BUFFER", receive_buffer=1)).values():
            self.assertRegex(finding.says, r"this machine itself dropped \d+ answers")
            self.assertIn("net.core.rmem_max", finding.advice)
            self.assertTrue(finding.fault)


@pytest.mark.heavy
class NarrowTests(SlowCase):
    """A router with a smaller MTU towards the server."""

    narrow = 1300

    async def test_mtu(self) -> None:
        """A smaller MTU that the router tells of is named, and is no fault as long as fragments pass."""
        for family, finding in (await self.beside_both("UDP-MTU")).items():
            self.assertIn("an MTU of 1,300 bytes", finding.says)
            self.assertIn(f"up to {LARGEST_NARROW[family]:,} bytes passes in one packet", finding.says)
            self.assertFalse(finding.fault)

    async def test_mtu_silent(self) -> None:
        """Where the router's word is dropped the largest datagram that passes is found to the byte."""
        self.path.rules(
            self.path.router,
            "output",
            "icmp type destination-unreachable icmp code frag-needed drop",
            "icmpv6 type packet-too-big drop",
        )
        for family, finding in (await self.beside_both("UDP-MTU-SILENT")).items():
            self.assertIn(f"up to {LARGEST_NARROW[family]:,} bytes pass", finding.says)
            self.assertIn("an MTU of 1,300 bytes", finding.says)
            self.assertTrue(finding.fault)


@pytest.mark.heavy
class LossTests(SlowCase):
    """Datagrams are lost, at random or above a rate, or if they are in fragments."""

    async def test_fragments_dropped(self) -> None:
        """What needs fragments does not pass, what is whole does."""
        self.path.rules(self.path.router, "prerouting", "ip frag-off & 0x1fff != 0 drop", "exthdr frag exists drop")
        for family, finding in (await self.beside_both("UDP-FRAGMENTS-DROPPED")).items():
            self.assertTrue(finding.fault)
            self.assertIn(f"{LARGEST_USUAL[family]:,} bytes do", finding.says)

    async def test_random_loss(self) -> None:
        """Loss that does not go by the rate is no limit, and its share is named."""
        self.path.rules(self.path.router, "forward", *self.to_servers("numgen random mod 100 < 20 drop"))
        for finding in (await self.beside_both("UDP-LOSS")).values():
            # Of 700 probes 20 % are lost: 14 % to 26 % in all but one of 10,000 runs.
            share = float(finding.says.partition("%")[0])
            self.assertTrue(13 < share < 27, finding.says)
            self.assertTrue(finding.fault)

    async def test_own_limit(self) -> None:
        """What a rule of this machine holds back is not said to be answered, nor to be lost on the way."""
        self.path.rules(
            self.path.client, "output", *self.to_servers("limit rate over 200/second burst 50 packets drop")
        )
        for found in (await self.examine_both()).values():
            self.assertEqual([finding.code for finding in found][:2], ["UDP-ANSWERED", "UDP-LOCAL-FIREWALL"], found)
            self.assertTrue(found[1].fault)
            self.assert_evidence(found[1], "not sent: Operation not permitted")
            self.assertFalse(any("all answered" in line for line in found[0].evidence), found)

    async def test_rate_limited(self) -> None:
        """A limit is told from loss, and its rate is found."""
        self.path.rules(
            self.path.router, "forward", *self.to_servers("limit rate over 40/second burst 30 packets drop")
        )
        for finding in (await self.beside_both("UDP-RATE-LIMITED")).values():
            rate = float(finding.says.rpartition("about ")[2].partition(" ")[0])
            self.assertTrue(36 < rate < 44, finding.says)
            self.assertTrue(finding.fault)


@pytest.mark.heavy
class CommandTests(DoctorCase):
    """The command in a broken network, as a process."""

    def run_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``udpecho doctor`` on the client's machine."""
        return subprocess.run(
            [UDPECHO, "doctor", *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment()
        )

    def test_json(self) -> None:
        """A fault is JSON on request, with the exit status 1."""
        target = f"{self.hosts.server}:{CLOSED}"
        done = self.run_command("--json", target)
        said = json.loads(done.stdout)
        self.assertEqual((done.returncode, done.stderr, said["ok"], said["target"]), (1, "", False, target))
        [finding] = said["findings"]
        self.assertEqual((finding["code"], finding["fault"]), ("UDP-REFUSED", True))
        self.assertEqual(sorted(finding), ["advice", "code", "evidence", "fault", "says"])

    def test_text(self) -> None:
        """An answer is text and the exit status 0, and nothing else is printed."""
        target = f"{self.hosts.server}:{self.serve()}"
        done = self.run_command("--quick", target)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith(f"UDP-ANSWERED: {target} answers after"), done.stdout)

    def test_mistyped(self) -> None:
        """What can be no host is a finding, and nothing is logged beside it."""
        for host, code in (
            ("a..b", "UDP-NAME-UNKNOWN"),
            ("a" * 64 + ".example", "UDP-NAME-UNKNOWN"),
            ("[fe80::1%nosuch]", "UDP-NO-ROUTE"),
            ("[fe80::1]", "UDP-NO-ROUTE"),
        ):
            done = self.run_command(f"{host}:9")
            self.assertEqual((done.returncode, done.stderr), (1, ""), host)
            self.assertTrue(done.stdout.startswith(f"{code} (fault): "), done.stdout)

    def test_silence_is_short(self) -> None:
        """Silence takes less than five seconds by default, beside the start of the program."""
        began = time.monotonic()
        self.run_command("--quick", f"{self.hosts.server}:{self.serve()}")
        started = time.monotonic()
        self.path.rules(self.path.router, "forward", "meta l4proto udp drop")
        done = self.run_command(f"{self.hosts.server}:{CLOSED}")
        self.assertLess(time.monotonic() - started - (started - began), 5.0)
        self.assertIn("UDP-SILENT (fault)", done.stdout)


for _case in (DoctorCase, SlowCase):
    del globals()[_case.__name__]
del _case
