"""The benchmarks: their figures are sane, and a reply that is wrong does not go unnoticed.

How fast anything is, no test can say on a machine that does other things too; how much memory a call takes, it can.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twistedudp
from tests.checkout import ROOT, SCRIPTS
from twistedudp.transport._backend import choose_backend

LIMIT = 240.0
"""Seconds after which a benchmark that has not ended never will."""

OTHERS = {"rpcudp": "rpcudp >= 5.0.1", "aiocoap": "aiocoap >= 0.4.17"}
"""The contestants that may be missing, and what the benchmark says to install."""


class BenchmarkTestCase(SynchronousTestCase):
    """A test that runs benchmarks with the Python that runs the tests."""

    def setUp(self) -> None:
        """Make a directory for what they write."""
        self.folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.figures = self.folder / "figures.json"

    def run_program(self, program: Path, *arguments: str) -> tuple[int, str]:
        """Run a program to its end, and return its exit status and all that it printed."""
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            cwd=self.folder,
            # Where this process found the package, so that it need not be installed to be measured.
            env={**os.environ, "PYTHONPATH": str(Path(twistedudp.__file__).parent.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout

    def run_planted(self, name: str, module: str, right: str, wrong: str, *arguments: str) -> tuple[int, str]:
        """Run a benchmark from a copy in which a module has one text replaced by another."""
        copy = self.folder / "benchmarks"
        shutil.copytree(ROOT / "benchmarks", copy, ignore=shutil.ignore_patterns("__pycache__"))
        source = (copy / module).read_text(encoding="utf-8")
        self.assertIn(right, source)
        (copy / module).write_text(source.replace(right, wrong, 1), encoding="utf-8")
        return self.run_program(copy / name, *arguments)

    def read_figures(self) -> dict[str, Any]:
        """Return what a benchmark wrote for programs."""
        figures: dict[str, Any] = json.loads(self.figures.read_text(encoding="utf-8"))
        return figures


@pytest.mark.heavy
class RPCTests(BenchmarkTestCase):
    """``benchmarks/rpc``."""

    def test_quick(self) -> None:
        """Everybody who is installed is measured in each round, and the figures can be true."""
        status, output = self.run_program(ROOT / "benchmarks" / "rpc", "--quick", "--json", str(self.figures))
        self.assertEqual(status, 0, output)
        figures = self.read_figures()
        expected = ["twistedudp", "idempotent", *filter(find_spec, OTHERS), "own-port", "twisted-port"]
        self.assertEqual([row["name"] for row in figures["contestants"]], expected)
        for row in figures["contestants"]:
            self.assertEqual(len(row["rounds"]), 2)
            for one in row["rounds"]:
                self.assertEqual((one["wrong"], one["failed"]), (0, 0))
                self.assertTrue(0 < one["p50"] <= one["p99"], one)
                # A call that takes a tenth of a microsecond was not made, one that takes ten milliseconds hung.
                for side in ("server", "client"):
                    self.assertTrue(0.1 < one[side] < 10_000, one)
                # Each process has one thread that works: it cannot have used more time than passed, but for rounding.
                self.assertLess(max(one["server"], one["client"]) * one["rate"], 1.1e6, one)
            self.assertIn(row["label"], output)
        for text in ("server µs", "client µs", "calls/s", figures["machine"]["processor"], "msgpack 1."):
            self.assertIn(text, output)
        self.check_targets(figures)

    def check_targets(self, figures: dict[str, Any]) -> None:
        """Fail if the limits are not scaled by the C server's figure, or a verdict is not that of its limit."""
        medians = {row["name"]: row["median"] for row in figures["contestants"]}
        floor = figures["c_recvmmsg_sendmmsg"]
        self.assertEqual(len(floor), 2 if EchoTestCase.skip is None else 0)
        limits = [there / 1.75 * statistics.median(floor) for there in (4.5, 7.0)] if floor else []
        targets = figures["targets"]
        for target, limit, side in zip(targets[: len(limits)], limits, ("server", "client"), strict=True):
            self.assertAlmostEqual(target["limit"], limit)
            self.assertAlmostEqual(target["measured"], medians["twistedudp"][side])
            self.assertEqual(target["reached"], round(target["measured"], 1) <= round(limit, 1))
        for target in targets[len(limits) :]:
            self.assertEqual((target["limit"], target["reached"]), (8.0, target["measured"] >= 8.0))
        self.assertEqual(len(targets), len(limits) + 2 * ("rpcudp" in medians))

    def test_backend(self) -> None:
        """Both sides run on the backend that is asked for; one that cannot run is a line, not a traceback."""
        arguments = ("twistedudp", "--rounds", "1", "--calls", "100", "--json", str(self.figures))
        status, output = self.run_program(ROOT / "benchmarks" / "rpc", *arguments, "--backend", "scalar")
        self.assertEqual(status, 0, output)
        self.assertEqual(self.read_figures()["backend"]["name"], "scalar")
        status, output = self.run_planted(
            "rpc", "_echo_contestants.py", "choose_backend(name)", 'choose_backend("other")', "--backend", "mmsg"
        )
        self.assertEqual(status, 2, output)
        self.assertRegex(output, r"^benchmarks/rpc: there is no backend 'other'.*: pip install --force-reinstall \.\n$")

    def test_not_installed(self) -> None:
        """Who is not installed is left out, and one line says how to install it."""
        nothing = "benchmarks/rpc: nothing is left to measure"
        for name, requirement in OTHERS.items():
            status, output = self.run_planted(
                "rpc", "_contestants.py", f'"{requirement}", "{name}")', f'"{requirement}", "no_{name}")', name
            )
            self.assertEqual(
                (status, output),
                (2, f'{name} is left out, for it is not installed: pip install "{requirement}"\n{nothing}\n'),
            )
            shutil.rmtree(self.folder / "benchmarks")

    def test_wrong_replies(self) -> None:
        """A server that answers one call in thirty wrongly is found out: exit status 1, and a line with the number."""
        spoilt = 'return text if int(text) % 30 else "wrong"'
        status, output = self.run_planted(
            "rpc", "_ours.py", "return text", spoilt, "twistedudp", "--rounds", "1", "--calls", "300"
        )
        self.assertEqual(status, 1, output)
        self.assertRegex(output, r"twistedudp: (1\d|2\d) wrong replies, 0 calls without one; its figures mean nothing")

    def test_wrong_datagrams(self) -> None:
        """A datagram that comes back changed is found out as well."""
        status, output = self.run_planted(
            "rpc", "_floor.py", "write(datagram, addr)", "write(datagram[::-1], addr)", "own-port", "--quick"
        )
        self.assertEqual(status, 1, output)
        self.assertRegex(output, r"own-port: \d+ wrong replies")

    def test_failed_calls(self) -> None:
        """Calls that fail are counted with the first reason, and are no reason to hang."""
        status, output = self.run_planted(
            "rpc", "_ours.py", "return text", "raise ValueError(text)", "twistedudp", "--rounds", "1", "--calls", "100"
        )
        self.assertEqual(status, 1, output)
        self.assertIn("0 wrong replies, 200 calls without one (ErrorReplyReceived: method_failed", output)

    def test_server_that_ends(self) -> None:
        """A process that ends before its time is told, and nothing waits for it."""
        status, output = self.run_planted("rpc", "_ours.py", "_reactor.run()", "raise SystemExit(3)", "twistedudp")
        self.assertEqual(status, 1, output)
        self.assertEqual(output.splitlines()[-1], "benchmarks/rpc: twistedudp: 'serve' ended with exit status 3")

    def test_arguments(self) -> None:
        """What cannot be measured is refused with a line that says what can."""
        for arguments, reason in (
            (["nobody"], "'nobody' is no contestant; there are twistedudp, idempotent"),
            (["--calls", "1000000"], "--calls: from 100 to 90,000"),
            (["--rounds", "-1"], "--rounds: at least 1"),
            (["--in-flight", "0"], "--in-flight: from 1 to 1,000"),
        ):
            status, output = self.run_program(ROOT / "benchmarks" / "rpc", *arguments)
            self.assertEqual(status, 2, output)
            self.assertIn(reason, output)


ECHO_FIELDS = {
    *("replies", "cpu", "rate", "p50", "p99", "generator", "sent", "verified"),
    *("lost", "late", "duplicate", "altered", "buffer"),
}


def echo_contestants() -> list[str]:
    """Return those that can take part here, in the order of the tables."""
    compiled = True
    try:
        choose_backend("mmsg")
    except twistedudp.errors.LocalError:
        compiled = False
    there = {
        "mmsg": compiled,
        "mmsg-wildcard": compiled,
        "udpecho": find_spec("twisted.plugins.twistedudp_plugin") is not None,
        "uvloop": find_spec("uvloop") is not None,
        "go": shutil.which("go") is not None,
        "node": shutil.which("node") is not None,
    }
    names = "c-segment c-mmsg c-recvfrom mmsg mmsg-wildcard udpecho scalar scalar-wildcard twisted tutorial asyncio"
    names += " uvloop go node"
    return [name for name in names.split() if there.get(name, True)]


class EchoTestCase(BenchmarkTestCase):
    """A test that runs ``benchmarks/echo``, which is for Linux and builds its load generator."""

    skip: str | None = None
    if not sys.platform.startswith("linux"):
        skip = "the load generator uses recvmmsg and sendmmsg, which are Linux's"
    elif not (shutil.which("cc") or shutil.which("gcc")):
        skip = "there is no C compiler to build the load generator with (Debian: gcc)"

    def run_echo(self, *arguments: str) -> tuple[int, str]:
        """Run the benchmark once round, with few replies, and return its exit status and what it printed."""
        few = ("--rounds", "1", "--replies", "300", "--warm-up", "100", "--no-wire", "--json", str(self.figures))
        return self.run_program(ROOT / "benchmarks" / "echo", *few, *arguments)

    def run_planted_echo(self, right: str, wrong: str, *arguments: str, module: str = "_echo_serve.py") -> str:
        """Run the benchmark with a fault in it, which it must find, and return what it printed."""
        few = ("--rounds", "1", "--replies", "600", "--warm-up", "0", "--timeout", "0.3", "--window", "16")
        status, output = self.run_planted("echo", module, right, wrong, *few, "--json", str(self.figures), *arguments)
        self.assertEqual(status, 1, output)
        return output

    def measured(self) -> dict[str, list[dict[str, Any]]]:
        """Return all measurements of the first round on loopback, by contestant."""
        return {
            row["name"]: [{**one, **one["rounds"][0]} for one in row["measured"]]
            for row in self.read_figures()["loopback"]["contestants"]
        }


@pytest.mark.heavy
class EchoTests(EchoTestCase):
    """``benchmarks/echo``: who is measured, and what it writes down."""

    def test_all(self) -> None:
        """Everybody who is there is measured with each load, and each reply is right and comes once."""
        document = self.folder / "tables.md"
        document.write_text("before\n<!-- figures: echo -->\nold\n<!-- end: echo -->\nafter\n", encoding="utf-8")
        loads = [(1, 1), (1, 8), (64, 1), (64, 8)]
        arguments = ["--window", "1", "--window", "64", "--clients", "1", "--clients", "8", "--rounds", "2"]
        status, output = self.run_echo(*arguments, "--markdown", str(document))
        self.assertEqual(status, 0, output)
        figures = self.read_figures()
        self.assertLessEqual(
            {"processor", "cores", "kernel", "python", "packages", "programs"}, set(figures["machine"])
        )
        self.assertEqual((figures["benchmark"], figures["rounds"], figures["size"]), ("echo", 2, 64))
        rows = figures["loopback"]["contestants"]
        self.assertEqual([row["name"] for row in rows], echo_contestants(), output)
        for row in rows:
            self.assertIn(row["label"], output)
            self.assertEqual([(one["window"], one["clients"]) for one in row["measured"]], loads)
            for one in row["measured"]:
                self.assertEqual(len(one["rounds"]), 2)
                for measured in one["rounds"]:
                    self.check(measured)
        self.check_targets(figures)
        for server in next(row["server"] for row in rows if row["name"] == "scalar"):
            self.assertEqual((server["backend"], server["reactor"]), ("scalar", "EPollReactor"))
            # Twice the loads, each of at least 100 replies that count nothing and 300 that do.
            self.assertGreaterEqual(server["counted"]["datagrams_received"], 4 * 400)
        text = document.read_text(encoding="utf-8")
        self.assertRegex(
            text, r"(?s)^before\n<!-- figures: echo -->\n.*\| C recvmmsg/sendmmsg \|.*<!-- end: echo -->\nafter\n$"
        )
        self.assertNotIn("old", text)

    def check(self, measured: dict[str, Any]) -> None:
        """Fail if a measurement lacks a figure, or one cannot be true."""
        self.assertEqual(set(measured), ECHO_FIELDS)
        self.assertGreaterEqual(measured["replies"], 300)
        # All that were sent were answered, once.
        self.assertEqual(measured["sent"], measured["verified"])
        self.assertGreaterEqual(measured["verified"], measured["replies"] + 100)
        self.assertEqual([measured[what] for what in ("lost", "late", "duplicate", "altered")], [0, 0, 0, 0])
        self.assertTrue(0 < measured["p50"] <= measured["p99"], measured)
        # A reply takes more than a tenth of a microsecond; a process with one thread no more time than passed.
        self.assertGreater(measured["cpu"], 0.1)
        self.assertLess(measured["cpu"] * measured["rate"], 2e6, measured)

    def check_targets(self, figures: dict[str, Any]) -> None:
        """Fail if a ratio is not the median of the rounds' ratios, or the verdict is not that of its limit."""
        found = {
            (row["name"], one["window"], one["clients"]): one["rounds"]
            for row in figures["loopback"]["contestants"]
            for one in row["measured"]
        }
        targets = figures["targets"]
        # Two numbers of clients for each of the nine lines of the table.
        self.assertEqual(len(targets), 18)
        for target in targets:
            both = [found.get((target[who], target["window"], target["clients"])) for who in ("contestant", "against")]
            if None in both:
                self.assertEqual((target["measured"], target["verdict"]), (None, "not measured"))
                continue
            one, other = ([rounds[target["figure"]] for rounds in side or []] for side in both)
            ratio = statistics.median(mine / theirs for mine, theirs in zip(one, other, strict=True))
            self.assertAlmostEqual(target["measured"], ratio)
            reached = "reached" if round(ratio, 2) <= target["limit"] else "not reached"
            self.assertEqual(target["verdict"], reached)

    def test_many_clients(self) -> None:
        """A thousand client sockets take turns where the window is smaller, and share it where it is larger."""
        status, output = self.run_echo("c-mmsg", "--clients", "1000", "--window", "64", "--window", "2000")
        self.assertEqual(status, 0, output)
        for one in self.measured()["c-mmsg"]:
            self.assertEqual((one["lost"], one["altered"], one["sent"]), (0, 0, one["verified"]))

    def test_quick(self) -> None:
        """A quick run has the loads that the targets speak of, and at window 1 only those that they compare."""
        status, output = self.run_echo("--quick", "twisted", "tutorial")
        self.assertEqual(status, 0, output)
        loads = {name: [(one["window"], one["clients"]) for one in rows] for name, rows in self.measured().items()}
        at_64 = [(64, 1), (64, 8), (64, 1000)]
        self.assertEqual(loads, {"twisted": [(1, 1), (1, 8), *at_64], "tutorial": at_64})

    def test_script(self) -> None:
        """``scripts/bench`` runs it, with the options of a look and its own ones behind its name."""
        status, output = self.run_program(
            SCRIPTS / "bench", "--installed", "--quick", "echo", "tutorial", "--replies", "200", "--window", "64"
        )
        self.assertEqual(status, 0, output)
        self.assertEqual(len(re.findall(r"(?m)^ Python, recvfrom/sendto +\d", output)), 3, output)
        self.assertIn("One round.", output)

    def test_wire(self) -> None:
        """Over a wire each reply is a packet of its own; where no wire can be made, one line says why."""
        status, output = self.run_echo("c-segment", "--window", "64", "--clients", "1", "--wire", "--spin")
        self.assertEqual(status, 0, output)
        on_wire = self.read_figures()["wire"]
        if on_wire is None:
            self.assertRegex(output, r"(?m)^The wire is left out: .*(root's rights|not installed)")
        else:
            self.assertIn("Wire without segmentation offload: 64 under way in all, 1 client", output)
            self.check(on_wire["contestants"][0]["measured"][0]["rounds"][0])

    def test_segmentation_offload(self) -> None:
        """A wire on which the kernel does not cut what UDP_SEGMENT put together is found out."""
        status, output = self.run_planted(
            "echo", "_echo_wire.py", "_switch_offload_off()\n", "pass\n",
            "c-segment", "--rounds", "1", "--replies", "20000", "--window", "64", "--clients", "1", "--wire",
        )  # fmt: skip
        if "The wire is left out:" not in output:
            self.assertEqual(status, 1, output)
            self.assertRegex(output, r"wire: [\d,]+ replies came in [\d,]+ packets: segmentation offload is not off")

    def test_not_there(self) -> None:
        """Who is not there is left out with a line that says what to do; without anybody the exit status is 2."""
        status, output = self.run_planted(
            "echo", "_echo_contestants.py", "choose_backend(name)", 'choose_backend("other")', "mmsg"
        )
        self.assertEqual(status, 2, output)
        self.assertRegex(
            output, r"^mmsg is left out: there is no backend 'other'.*: pip install --force-reinstall \.\n"
        )
        self.assertTrue(output.endswith("\nbenchmarks/echo: nothing is left to measure\n"), output)

    def test_no_compiler(self) -> None:
        """Without a C compiler one line says what to install."""
        self.patch(os, "environ", {**os.environ, "CC": "no-such-compiler"})
        status, output = self.run_echo("tutorial")
        self.assertEqual(status, 2, output)
        self.assertRegex(output, r"^benchmarks/echo: the C compiler 'no-such-compiler' .*: install gcc .*\n$")

    def test_warnings_are_errors(self) -> None:
        """A warning of the C compiler is an error, told in one line."""
        for source in ("echo_load", "echo_floor"):
            status, output = self.run_planted(
                "echo", f"{source}.c", "\nint main(", "\nstatic int unused;\nint main(", "c-mmsg"
            )
            self.assertEqual(status, 2, output)
            self.assertRegex(
                output, rf"^benchmarks/echo: {source} cannot be built by .*error: .unused. defined but not used.*\n$"
            )
            shutil.rmtree(self.folder / "benchmarks")

    def test_arguments(self) -> None:
        """What cannot be measured is refused with a line that says what can."""
        for arguments, reason in (
            (["nobody"], "'nobody' is no contestant; there are c-segment, c-mmsg"),
            (["--rounds", "0"], "--rounds: from 1 to 1,000"),
            (["--window", "0"], "--window: from 1 to 4,096"),
            (["--clients", "10001"], "--clients: from 1 to 10,000"),
            (["--size", "31"], "--size: from 32 to 1,472"),
            (["--json", str(self.folder / "none" / "file")], "--json: there is no folder"),
            (["--markdown", str(self.folder / "none" / "file")], "--markdown: there is no folder"),
        ):
            status, output = self.run_program(ROOT / "benchmarks" / "echo", *arguments)
            self.assertEqual(status, 2, output)
            self.assertIn(reason, output)


@pytest.mark.heavy
class EchoFaultTests(EchoTestCase):
    """``benchmarks/echo`` notices what is wrong with a server."""

    def faulty(self, wrong: str, *arguments: str) -> dict[str, Any]:
        """Let the tutorial's server answer wrongly, and return what was measured of it."""
        output = self.run_planted_echo("handle.sendto(payload, peer)", wrong, "tutorial", "--clients", "4", *arguments)
        self.assertRegex(output, r"(?m)^benchmarks/echo: tutorial: of [\d,]+ replies .*; its figures mean nothing$")
        (measured,) = self.measured()["tutorial"]
        return measured

    def test_altered(self) -> None:
        """Replies with a bit changed, cut, grown or empty are altered, and the requests that they answer are lost."""
        for wrong in (
            "payload[:-1] + bytes([payload[-1] ^ 1])",
            "payload[:8] + bytes([payload[8] ^ 1]) + payload[9:]",
            "payload[:-1]",
            'payload + b"x"',
            'b""',
            "bytes(2000)",
        ):
            one = self.faulty(f"handle.sendto(payload if payload[8] % 50 else {wrong}, peer)")
            self.assertGreaterEqual(one["altered"], 12, wrong)
            self.assertEqual((one["altered"], one["duplicate"]), (one["lost"], 0), wrong)
            shutil.rmtree(self.folder / "benchmarks")

    def test_other_client(self) -> None:
        """A reply that goes to another client than the one that asked is altered."""
        last = 'globals().setdefault("last", [peer])'
        other = f"next((each for each in reversed({last}) if each != peer), peer)"  # the last ones may be its own
        one = self.faulty(f"{last}.append(peer); handle.sendto(payload, {other} if payload[8] % 50 == 0 else peer)")
        self.assertGreater(one["altered"], 0)
        self.assertEqual((one["altered"], one["duplicate"]), (one["lost"], 0))

    def test_duplicate(self) -> None:
        """A reply that comes twice is a duplicate, also the last one."""
        one = self.faulty("[handle.sendto(payload, peer) for _ in range(1 if payload[8] % 50 else 2)]")
        self.assertGreaterEqual(one["duplicate"], 12)
        self.assertEqual((one["lost"], one["altered"], one["sent"]), (0, 0, one["verified"]))
        shutil.rmtree(self.folder / "benchmarks")
        one = self.faulty("[handle.sendto(payload, peer) for _ in range(2)]")
        self.assertEqual((one["duplicate"], one["lost"]), (one["sent"], 0))

    def test_lost(self) -> None:
        """A request that is not answered is lost after its time, and the others go on."""
        one = self.faulty("payload[8] % 50 and handle.sendto(payload, peer)")
        self.assertGreaterEqual(one["lost"], 12)
        self.assertEqual((one["altered"], one["duplicate"], one["sent"]), (0, 0, one["verified"] + one["lost"]))

    def test_late(self) -> None:
        """Replies that come after their time are lost and late, not duplicates."""
        nap = 'payload[8:16] != bytes([200, *[0] * 7]) or __import__("time").sleep(0.8)'
        one = self.faulty(f"{nap}; handle.sendto(payload, peer)")
        self.assertGreater(one["late"], 0)
        self.assertEqual((one["late"], one["duplicate"], one["altered"]), (one["lost"], 0, 0))

    def test_silent(self) -> None:
        """A server that answers no more is told at once, not waited for."""
        output = self.run_planted_echo("handle.sendto(payload, peer)", "pass", "tutorial", "--clients", "1")
        self.assertEqual(output, "benchmarks/echo: tutorial: no reply for 3.0 s: the server hangs (16 under way)\n")

    def test_ends(self) -> None:
        """A server that ends is told."""
        output = self.run_planted_echo("handle.sendto(payload, peer)", "os._exit(1)", "tutorial", "--clients", "1")
        self.assertEqual(
            output, "benchmarks/echo: tutorial: nobody listens there any more: Connection refused (16 under way)\n"
        )

    def test_cannot_start(self) -> None:
        """A server that cannot start is told with its own reason."""
        output = self.run_planted_echo("bind((address, 0))", 'bind(("192.0.2.1", 0))', "tutorial")
        self.assertRegex(
            output, r"^benchmarks/echo: tutorial: its server ended with exit status 3: OSError: .*Cannot assign"
        )

    def test_counters(self) -> None:
        """A server of ours that counts otherwise than the load generator is found out."""
        output = self.run_planted_echo(
            "name: getattr(stats, name) for", "name: getattr(stats, name) + 9999 for", "scalar", "--clients", "1"
        )
        self.assertRegex(
            output, r"^benchmarks/echo: scalar: it counted [\d,]+ datagrams_received, but [\d,]+ were sent"
        )

    def test_guards(self) -> None:
        """``twistd udpecho`` without its guard against its own datagrams is not what is to be measured."""
        if find_spec("twisted.plugins.twistedudp_plugin") is None:
            raise SkipTest("twistedudp is not installed, so that twistd does not know udpecho")
        right = "_tell_port(reactor, protocol.transport)"
        output = self.run_planted_echo(right, f"protocol._own_host = 'x'; {right}", "udpecho", "--clients", "1")
        self.assertRegex(
            output, r"^benchmarks/echo: udpecho: a datagram from its own address was refused 0 times, not once"
        )


@pytest.mark.heavy
class OutstandingTests(BenchmarkTestCase):
    """``benchmarks/outstanding``."""

    def test_quick(self) -> None:
        """A waiting call takes at most 1 KiB, and every call ends once, as it must."""
        status, output = self.run_program(ROOT / "benchmarks" / "outstanding", "--quick", "--json", str(self.figures))
        self.assertEqual(status, 0, output)
        rows = self.read_figures()["rows"]
        self.assertEqual([(row["count"], row["server"]) for row in rows], [(1000, "silent"), (1000, "answering")])
        for row in rows:
            # Less than its datagram, its Deferred and a place in a table it cannot take.
            self.assertTrue(300 < row["traced_bytes"] <= 1024, row)
        self.assertEqual([run["timed_out"] for run in rows[0]["runs"]], [1000, 1000])
        self.assertEqual([run["right"] for run in rows[1]["runs"]], [1000, 1000])

    def test_wrong_replies(self) -> None:
        """A server that answers everybody with the same text is found out."""
        status, output = self.run_planted(
            "outstanding", "_waiting.py", "None, params[0]]", "None, 'same']", "--server", "answering", "--count", "100"
        )
        self.assertEqual(status, 1, output)
        self.assertIn("100 calls, answering server: 0 ended as they must; others: {'wrong reply': 100}", output)

    def test_too_much_memory(self) -> None:
        """Calls that take more than they may are told."""
        status, output = self.run_planted(
            "outstanding", "outstanding", "Final = 1024", "Final = 200", "--server", "silent", "--count", "100"
        )
        self.assertEqual(status, 1, output)
        self.assertRegex(output, r"100 calls, silent server: [\d,]+ bytes each, more than 200\n")

    def test_arguments(self) -> None:
        """More calls than a client lets wait are refused."""
        status, output = self.run_program(ROOT / "benchmarks" / "outstanding", "--count", "262145")
        self.assertEqual(status, 2, output)
        self.assertIn("--count: from 100 to 262,144", output)


@pytest.mark.heavy
class SecurityTests(BenchmarkTestCase):
    """``benchmarks/security``."""

    PROGRAM = ROOT / "benchmarks" / "security"

    def test_admission(self) -> None:
        """Every case is measured, in C where that was built, and its figures can be true."""
        status, output = self.run_program(self.PROGRAM, "admission", "--quick", "--json", str(self.figures))
        self.assertEqual(status, 0, output)
        rows = self.read_figures()["parts"]["admission"]["rows"]
        decided = {"plain Python", *(["compiled"] if choose_backend().name == "mmsg" else [])}
        cases = {row["who sends"] for row in rows}
        self.assertEqual({(row["who sends"], row["decided"]) for row in rows}, {(a, b) for a in cases for b in decided})
        self.assertGreater(len(cases), 5)
        for row in rows:
            self.assertEqual(len(row["rounds"]), 3)
            # It takes two multiplications in C; in Python not as long as a whole datagram does.
            self.assertTrue(0.002 < row["median"] < (0.3 if row["decided"] == "compiled" else 100), row)
            self.assertIn(row["who sends"], output)
        self.assertIn(self.read_figures()["machine"]["processor"], output)

    def test_limit(self) -> None:
        """A limit that is not kept is told, and is the exit status."""
        if choose_backend().name != "mmsg":
            raise SkipTest("there is a limit for the compiled backend only")
        status, output = self.run_planted(
            "security", "_admission_costs.py", "LIMIT: Final = 0.3", "LIMIT: Final = 0.0001", "admission", "--quick"
        )
        self.assertEqual(status, 1, output)
        self.assertRegex(output, r"admission, one peer, let in, compiled: 0\.\d+ µs each, more than 0\.0001\n")

    def test_arguments(self) -> None:
        """A part that there is not, and a folder that there is not, are refused before anything is measured."""
        for arguments, text in (
            (["nothing"], "there is no part 'nothing'; the parts are admission"),
            (["--json", "/nowhere/figures.json"], "--json: there is no folder /nowhere"),
        ):
            status, output = self.run_program(self.PROGRAM, *arguments)
            self.assertEqual(status, 2, output)
            self.assertIn(text, output)


class ScriptTests(BenchmarkTestCase):
    """``scripts/bench``."""

    def test_one(self) -> None:
        """It hands over the options of the benchmark that is named, and ends as that does."""
        arguments = ["--installed", "rpc", "twistedudp", "--rounds", "1", "--calls", "200"]
        status, output = self.run_program(SCRIPTS / "bench", *arguments)
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"(?m)^│ twistedudp, each call runs once +│ +\d")
        self.assertNotRegex(output, "rpcudp.*│")
        status, output = self.run_program(SCRIPTS / "bench", "--installed", "--quick", "rpc", "nobody")
        self.assertEqual(status, 2, output)

    def test_markdown(self) -> None:
        """All benchmarks put their tables into one document, and leave what is around them as it is."""
        copy = self.folder / "checkout"
        for folder in ("benchmarks", "scripts"):
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("echo", "rpc", "outstanding", "security"):
            (copy / "benchmarks" / name).write_text(
                "import sys; from pathlib import Path; from _report import put_into\n"
                f"put_into(Path(sys.argv[-1]), '{name}', ' '.join(sys.argv[1:-1]))\n",
                encoding="utf-8",
            )
        document = self.folder / "tables.md"
        document.write_text("# Figures\n\n<!-- figures: rpc -->\n<!-- end: rpc -->\n\nThe end.\n", encoding="utf-8")
        for _ in range(2):
            status, output = self.run_program(
                copy / "scripts" / "bench", "--installed", "--quick", "--markdown", str(document)
            )
            self.assertEqual(status, 0, output)
        self.assertEqual(
            document.read_text(encoding="utf-8"),
            "# Figures\n\n<!-- figures: rpc -->\n\n--quick --markdown\n\n<!-- end: rpc -->\n\nThe end.\n\n"
            "<!-- figures: echo -->\n\n--rounds 1 --seconds 0.2 --quick --markdown\n\n<!-- end: echo -->\n\n"
            "<!-- figures: outstanding -->\n\n--quick --markdown\n\n<!-- end: outstanding -->\n\n"
            "<!-- figures: security -->\n\n--quick --markdown\n\n<!-- end: security -->\n",
        )
