"""What ``udpecho ping`` reports is true: against servers of others, and through a network whose faults are known.

Each figure is compared with the interval in which it lies with a probability of 99.99 % if ping counts right. The
relay's chance has a fixed seed, so that a run which passes once passes again; the intervals are those of free chance.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.binomial import binomial_bounds
from tests.integration.foreign import FOREIGN_SERVERS, foreign_server, missing_program
from tests.integration.netns import missing_for_namespaces
from tests.integration.twistd import Directory, RunningTwistd, environment
from twistedudp.address import format_address

if TYPE_CHECKING:
    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

UDPECHO: Final = str(Path(sys.executable).parent / "udpecho")
LIMIT: Final = 120.0
DOUBT: Final = 0.00005
"""On each side of the interval: 99.99 % lie within."""
SIGMAS: Final = 3.891
"""Standard deviations of a normal distribution beyond which 0.01 % lie, on both sides together."""
COUNT: Final = 1500
INTERVAL: Final = "2ms"
HOST_DELAY: Final = 0.006
"""Seconds that relay, server and this machine may add to what the relay was told to delay: it sends within a
millisecond of the time, twice, and other tests run beside this one."""

RPC = """
from twistedudp import RPCMethods

class Nothing(RPCMethods):
    pass
"""


def ping(server: Address, *options: str) -> dict[str, Any]:
    """Run ``udpecho ping --json`` and return its object."""
    command = [UDPECHO, "ping", format_address(server), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment())
    if done.stderr:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}\n{done.stdout}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


class ForeignTests(SynchronousTestCase):
    """Echo servers of Debian, IPv4 and IPv6."""

    def answered_by(self, name: str) -> None:
        """Every probe is answered, whole and once; nothing odd is seen, and the times are possible."""
        if reason := missing_program(name) or missing_for_namespaces():
            raise SkipTest(reason)
        # ncat's echo is a program between pipes, which makes one datagram of two that wait for it.
        interval, count = ("120ms", 12) if name == "ncat" else ("10ms", 30)
        for host in ("127.0.0.1", "::1"):
            for size in (56, 1200):
                with foreign_server(name, host) as server:
                    got = ping(server, "-c", str(count), "-i", interval, "--size", str(size))
                self.assertEqual((got["sent"], got["received"], got["lost"], got["loss"]), (count, count, 0, 0.0), got)
                self.assertEqual((got["protocol"], got["size"]), ("echo", size))
                # Where each datagram has a process of its own, a slow one is overtaken.
                odd = [key for key in ODD if (name, key) != ("socat", "reordered")]
                self.assertEqual({key: got[key] for key in odd}, dict.fromkeys(odd, 0), got)
                self.assertTrue(0 < got["min"] <= got["p50"] <= got["p90"] <= got["p99"] <= got["max"] < 1, got)

    def test_socat(self) -> None:
        """socat, a process for each datagram."""
        self.answered_by("socat")

    def test_ncat(self) -> None:
        """ncat, a process for each client."""
        self.answered_by("ncat")

    def test_inetd(self) -> None:
        """The internal echo service of an inetd."""
        self.answered_by("inetutils-inetd")

    def test_all_tried(self) -> None:
        """There is a test for each of them."""
        self.assertEqual(set(FOREIGN_SERVERS), {"socat", "ncat", "inetutils-inetd"})


ODD = ("late", "duplicated", "reordered", "corrupted", "foreign", "unreachable", "not_sent")


class TruthTests(SynchronousTestCase):
    """Through ``twistd udpimpair``, whose faults are known."""

    def through(self, *effects: str, options: tuple[str, ...] = (), rpc: bool = False) -> dict[str, Any]:
        """Ping a server through a relay and return the figures."""
        with Directory() as directory:
            directory.write("nothing.py", RPC)
            served = ("--protocol", "rpc", "--protocol-option", "class=nothing:Nothing") if rpc else ()
            with RunningTwistd(*served, python_path=[directory.path]) as server:
                to = format_address(server.address)
                command = ("udpimpair", "--listen", "0", "--to", to, *effects)
                with RunningTwistd(command=command) as relay:
                    return ping(relay.address, *(options or ("-c", str(COUNT), "-i", INTERVAL)))

    def check(self, what: str, got: int, trials: int, chance: float) -> None:
        """Compare a count with the interval in which chance explains it."""
        least, greatest = binomial_bounds(trials, chance, DOUBT)
        self.assertTrue(least <= got <= greatest, f"{what}: {got} of {trials}, and {least} to {greatest} are to be")

    def check_nothing_else(self, got: dict[str, Any], *seen: str) -> None:
        """All that was not asked for is zero, and the sum is right."""
        others = [key for key in (*ODD, "lost") if key not in seen]
        self.assertEqual({key: got[key] for key in others}, dict.fromkeys(others, 0), got)
        self.assertEqual(got["sent"], got["received"] + got["lost"])

    def test_loss(self) -> None:
        """10 % each way: 19 % of the probes have no answer."""
        got = self.through("--effects", "loss=10%,seed=1")
        self.assertEqual(got["sent"], COUNT)
        self.check("lost", got["lost"], COUNT, 1 - 0.9**2)
        self.assertEqual(got["loss"], got["lost"] / COUNT)
        self.assertEqual((got["lost_there"], got["lost_back"]), (None, None))
        self.check_nothing_else(got, "lost")

    def test_loss_of_each_direction(self) -> None:
        """20 % there, 5 % back: an rpc server's count tells them apart."""
        got = self.through(
            "--effects-to-server", "loss=20%", "--effects-to-client", "loss=5%,seed=2", rpc=True
        )  # fmt: skip
        self.assertEqual((got["sent"], got["protocol"]), (COUNT, "rpc"))
        self.check("lost there", got["lost_there"], COUNT, 0.20)
        self.check("lost back", got["lost_back"], COUNT - got["lost_there"], 0.05)
        self.assertEqual(got["lost"], got["lost_there"] + got["lost_back"])
        self.check_nothing_else(got, "lost")

    def test_duplicates_of_each_direction(self) -> None:
        """10 % there, 5 % back: a probe that arrives twice is answered twice, and the server says how often."""
        got = self.through(
            "--effects-to-server", "duplicate=10%", "--effects-to-client", "duplicate=5%,seed=3", rpc=True
        )  # fmt: skip
        self.check("duplicated there", got["duplicated_there"], COUNT, 0.10)
        answers = COUNT + got["duplicated_there"]
        self.check("duplicated back", got["duplicated"] - got["duplicated_there"], answers, 0.05)
        self.check_nothing_else(got, "duplicated")
        self.assertEqual((got["lost_there"], got["lost_back"]), (0, 0))

    def test_duplicates_of_an_echo(self) -> None:
        """5 % of the answers come twice."""
        got = self.through("--effects-to-client", "duplicate=5%:3ms,seed=4")
        self.check("duplicated", got["duplicated"], COUNT, 0.05)
        self.check_nothing_else(got, "duplicated")

    def test_reordering(self) -> None:
        """10 % are held back for ten intervals: each is overtaken by at least one."""
        got = self.through("--effects-to-client", "reorder=10%:20ms,seed=5")
        self.check("reordered", got["reordered"], COUNT, 0.10)
        self.check_nothing_else(got, "reordered")

    def test_late_answers(self) -> None:
        """5 % come after the timeout: they are lost, and late."""
        got = self.through(
            "--effects-to-client", "reorder=5%:400ms,seed=6", options=("-c", "1000", "-i", "2ms", "--timeout", "0.2")
        )  # fmt: skip
        self.check("lost", got["lost"], 1000, 0.05)
        # Ping ends when the last probe has been waited for: of those of its last 0.2 s the late answer is not seen.
        self.assertTrue(0 <= got["lost"] - got["late"] <= binomial_bounds(110, 0.05, DOUBT)[1], got)
        self.assertLess(got["max"], 0.2)
        self.check_nothing_else(got, "late", "lost")

    def test_corruption(self) -> None:
        """5 % of the answers come with a flipped bit: these are no answers, wherever the bit is."""
        for rpc in (False, True):
            got = self.through("--effects-to-client", "corrupt=5%,seed=7", rpc=rpc)
            self.check("corrupted", got["corrupted"], COUNT, 0.05)
            self.assertEqual(got["lost"], got["corrupted"], got)
            self.check_nothing_else(got, "corrupted", "lost")

    def test_delay(self) -> None:
        """20 to 40 ms, evenly spread: every percentile lies where it must, and so do mean and jitter."""
        count = 240
        for _ in range(3):
            got = self.through(
                "--effects-to-client",
                "delay=30ms±10ms,seed=8",
                options=("-c", str(count), "-i", "21ms"),
                rpc=True,
            )
            # Where the host lets even the sender wait, it is the host that is measured.
            if got["schedule_error"]["p99"] < HOST_DELAY / 2:
                break
        self.check_nothing_else(got, "reordered")
        self.assertTrue(0.020 <= got["min"] <= 0.020 + HOST_DELAY, got["min"])
        for name, share in (("p50", 0.50), ("p90", 0.90), ("p99", 0.99)):
            least, greatest = binomial_bounds(count, share, DOUBT)
            # Of so many evenly spread times, the one in this place is a beta variate: bounded as the places are.
            lower, upper = 0.020 + 0.020 * least / count, 0.020 + 0.020 * min(1.0, greatest / count)
            self.assertTrue(lower <= got[name] <= upper + HOST_DELAY, f"{name}: {got[name]} of {lower} to {upper}")
        deviation = 0.020 / math.sqrt(12)
        off = SIGMAS * deviation / math.sqrt(count)
        self.assertTrue(0.030 - off <= got["mean"] <= 0.030 + off + HOST_DELAY, got["mean"])
        self.assertLess(abs(got["stddev"] - deviation), 0.0015, got["stddev"])
        # RFC 3550's is an average of neighbours' differences, of which the last sixteen or so count: a third of the
        # width on average, with a standard deviation of 0.2357 * width * sqrt(1 / 31) and a little more.
        self.assertLess(abs(got["jitter"] - 0.020 / 3), SIGMAS * 0.0012, got["jitter"])
        # Only the way back was delayed unevenly.
        self.assertGreater(got["variation_back"]["p50"], 0.003)
        self.assertLess(got["variation_there"]["p50"], 0.003)
