"""What can be typed behind ``udpecho ping``, and what cannot; nothing here reaches the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.cli.test_program import ProgramTestCase
from twistedudp.cli import _ping_run
from twistedudp.cli._ask import Server
from twistedudp.cli._ping_options import _SMALLEST, MOST_WINDOW, window_for
from twistedudp.cli._program import run
from twistedudp.probing import DEFAULT_WINDOW, SMALLEST_PROBE

if TYPE_CHECKING:
    from twistedudp.cli._ping_options import PingPlan


class PlanTests(ProgramTestCase):
    """What is typed, as the plan of a run."""

    def planned(self, *arguments: str) -> PingPlan:
        """Return the plan that a command line makes."""
        plans: list[PingPlan] = []

        def run_ping(plan: PingPlan, family: str | None) -> int:
            plans.append(plan)
            self.family = family
            return 0

        self.patch(_ping_run, "run_ping", run_ping)
        self.assertEqual(run(["ping", *arguments]), 0, self.stderr.getvalue())
        return plans[0]

    def test_defaults(self) -> None:
        """Without options probes of 64 bytes leave every 200 ms until Ctrl-C, and answers have two seconds."""
        plan = self.planned("server.example")
        self.assertEqual((plan.host, plan.port), ("server.example", 10000))
        self.assertEqual((plan.interval, plan.count, plan.duration), (0.2, None, None))
        self.assertEqual((plan.timeout, plan.size), (2.0, 64))
        self.assertEqual(
            (plan.limits.loss, plan.limits.p50, plan.limits.p99, plan.limits.jitter), (None, None, None, None)
        )
        self.assertFalse(plan.outputs.takes_stdout)

    def test_all(self) -> None:
        """Every option arrives, in the units in which people write them."""
        plan = self.planned(
            "-i", "1ms", "-c", "1,000", "-w", "2min", "--timeout", "500ms", "--size", "1400", "--max-loss", "1%",
            "--max-p50", "0.02", "--max-p99", "50ms", "--max-jitter", "300us", "--plain", "-q", "--json", "--csv", "a",
            "--plot", "b.png", "-6", "[::1]:7",
        )  # fmt: skip
        self.assertEqual((plan.host, plan.port, self.family), ("::1", 7, "ipv6"))
        self.assertEqual((plan.interval, plan.count, plan.duration), (0.001, 1000, 120.0))
        self.assertEqual((plan.timeout, plan.size), (0.5, 1400))
        self.assertEqual(
            (plan.limits.loss, plan.limits.p50, plan.limits.p99, plan.limits.jitter), (0.01, 0.02, 0.05, 0.0003)
        )
        outputs = plan.outputs
        self.assertTrue(outputs.plain and outputs.quiet and outputs.json and not outputs.json_lines)
        self.assertEqual((outputs.csv, outputs.plot), ("a", "b.png"))

    def test_flood(self) -> None:
        """A rate is the other way to say how often."""
        for text, interval in (
            ("5000", 1 / 5000),
            ("10k", 1 / 10_000),
            ("0.5/s", 2.0),
            ("0.001", 1000.0),
            ("1.5k/s", 1 / 1500),
        ):
            self.assertEqual(self.planned("--flood", text, "::1").interval, interval)

    def test_own_standard_output(self) -> None:
        """Standard output belongs to a program with --json, --json-lines or --csv -."""
        for option in (["--json"], ["--json-lines"], ["--csv", "-"]):
            self.assertTrue(self.planned(*option, "::1").outputs.takes_stdout, option)
        self.assertFalse(self.planned("--csv", "file", "::1").outputs.takes_stdout)

    def test_status(self) -> None:
        """The status of the run is that of the program."""
        self.patch(_ping_run, "run_ping", lambda *_: 1)
        self.assertEqual(run(["ping", "::1"]), 1)


class MisuseTests(ProgramTestCase):
    """What cannot be meant is one line, exit status 2, and nothing is sent."""

    def test_values(self) -> None:
        """Each option says what can be written."""
        for arguments, text in (
            (["-i", "soon"], "--interval soon: write a time, such as 0.2, 200ms or 5s"),
            (["-i", "0"], "--interval 0: it must be above 0"),
            (["-i", "0.5ms"], "--interval 0.5ms: the shortest is 1ms; --flood RATE sends more often"),
            (["-w", "-3"], "--duration -3: write a time"),
            (["--timeout", "2x"], "--timeout 2x: write a time"),
            (["--max-p99", "1 %"], "--max-p99 1 %: write a time"),
            (["--max-p50", ""], "--max-p50 : write a time"),
            (["--max-jitter", "nan"], "--max-jitter nan: write a time"),
            (["--max-loss", "150%"], "--max-loss 150%: write a share from 0% to 100%"),
            (["-c", "0"], "--count 0: write how many probes to send, from 1 to 4,294,967,294"),
            (["-c", "4294967295"], "--count 4294967295: write how many"),
            (["-c", "²"], "--count ²: write how many"),
            (["-c", "9" * 5000], "write how many"),
            (["--size", "big"], "--size big: write a number of bytes"),
            (["--size", "55"], "--size 55: too small: a probe carries its number, its time and what an rpc server"),
            (["--size", "65528"], "--size 65528: too large: a UDP datagram carries at most 65,507 bytes over IPv4"),
            (["--flood", "0"], "--flood 0: write how many probes a second"),
            (
                ["-c", "1", "--flood", "0.0009"],
                "--flood 0.0009: write how many probes a second, at least 0.001 and at most",
            ),
            (["--flood", "0." + "0" * 400 + "1"], "--flood 0.000000000000000000: write how many"),
            (["--flood", "2000001"], "at most 1,000,000"),
            (["--flood", "-1"], "--flood -1: write how many"),
        ):
            self.assertIn(text, self.misuse("ping", "127.0.0.1", *arguments))

    def test_together(self) -> None:
        """Options that contradict each other are told together."""
        for arguments, text in (
            (["-i", "1s", "--flood", "5"], "--interval and --flood exclude each other"),
            (["--json", "--json-lines"], "--json and --json-lines exclude each other: only one can have standard"),
            (["--json-lines", "--csv", "-"], "--json-lines and --csv - exclude each other"),
            (["-4", "-6"], "-4 and -6 exclude each other"),
            (["--sweep-size", "--sweep-rate"], "--sweep-size and --sweep-rate exclude each other"),
            (["--sweep-size", "--csv", "x"], "--csv means nothing with --sweep-size: leave it out"),
            (["--sweep-size", "-i", "1s"], "--interval means nothing with --sweep-size: leave it out"),
            (["--sweep-rate", "--json-lines"], "--json-lines means nothing with --sweep-rate: leave it out"),
            (
                ["--dtls", "--ca", "x", "--sweep-rate"],
                "--dtls and --sweep-rate exclude each other: a sweep is of plain",
            ),
            (["--ca", "x"], "--ca belongs to --dtls, which is not given"),
            (["--dtls", "--size", "1164"], "--size 1164: with --dtls at most 1,163 bytes"),
            (["--plot", "x.gif"], "--plot x.gif: the name of the picture must end in .png, .svg or .pdf"),
        ):
            self.assertIn(text, self.misuse("ping", "127.0.0.1", *arguments))

    def test_group(self) -> None:
        """A multicast address is no server."""
        self.assertIn("is a broadcast or multicast address", self.misuse("ping", "-c", "1", "224.0.0.1"))


class SweepTests(ProgramTestCase):
    """``--sweep-size`` and ``--sweep-rate`` hand their options on."""

    def test_handed_on(self) -> None:
        """Each sweep gets the server and its own options, and its status is the program's."""
        from twistedudp.cli import _sweep  # noqa: PLC0415  # it imports Twisted

        calls: list[tuple[Any, dict[str, Any]]] = []
        for name, status in (("sweep_size_command", 0), ("sweep_rate_command", 1)):

            def command(server: Any, status: int = status, **named: Any) -> int:
                calls.append((server, named))
                return status

            self.patch(_sweep, name, command)
        self.assertEqual(run(["ping", "--sweep-size", "--timeout", "1s", "--json", "-6", "[::1]:7"]), 0)
        self.assertEqual(
            run(["ping", "::1", "--sweep-rate", "--flood", "9k", "--max-loss", "1%", "-w", "3", "--size", "99"]), 1
        )
        (first, size), (_, rate) = calls
        self.assertEqual(first, Server("::1", 7, 1.0, "ipv6"))
        self.assertEqual(size, {"as_json": True, "plain": False})
        self.assertEqual(
            rate,
            {
                "as_json": False, "plain": False, "size": 99, "most_rate": 9000.0, "max_loss": 0.01,
                "seconds_per_step": 3.0,
            },
        )  # fmt: skip


class WindowTests(ProgramTestCase):
    """How many probes are remembered."""

    def test_window(self) -> None:
        """All that wait at once are, and as many again, within the bound; the default is the least."""
        self.assertEqual(window_for(0.2, 2.0, DEFAULT_WINDOW), DEFAULT_WINDOW)
        self.assertEqual(window_for(1 / 1024, 128.0, DEFAULT_WINDOW), 262_145)
        self.assertEqual(window_for(1e-6, 86400.0, DEFAULT_WINDOW), MOST_WINDOW)

    def test_smallest(self) -> None:
        """The smallest size that is taken is that of the smallest probe."""
        self.assertEqual(_SMALLEST, SMALLEST_PROBE)


class HelpTests(ProgramTestCase):
    """``udpecho ping --help``."""

    def test_help(self) -> None:
        """Each option is in it, and the exit statuses are; no line is too long for a terminal."""
        self.assertEqual(run(["ping", "--help"]), 0)
        text = self.stdout.getvalue()
        for option in (
            "-i, --interval TIME", "-c, --count NUMBER", "-w, --duration TIME", "--timeout TIME", "--size BYTES",
            "--flood RATE", "-4", "-6", "--plain", "--json", "--json-lines", "--csv FILE", "--plot FILE",
            "--max-loss SHARE", "--max-p99 TIME", "-q, --quiet", "--sweep-size", "--sweep-rate", "Exit status: 0",
        ):  # fmt: skip
            self.assertIn(option, text)
        self.assertLess(max(map(len, text.splitlines())), 81)
