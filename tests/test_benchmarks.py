"""The benchmarks: their figures are sane, and a reply that is wrong does not go unnoticed.

How fast anything is, no test can say on a machine that does other things too; how much memory a call takes, it can.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.checkout import ROOT, SCRIPTS

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
        self.assertEqual(output, "benchmarks/rpc: twistedudp: 'serve' ended with exit status 3\n")

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


class ScriptTests(BenchmarkTestCase):
    """``scripts/bench``."""

    def test_one(self) -> None:
        """It hands over the options of the benchmark that is named, and ends as that does."""
        arguments = ["--installed", "rpc", "twistedudp", "--rounds", "1", "--calls", "200"]
        status, output = self.run_program(SCRIPTS / "bench", *arguments)
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r"(?m)^│ twistedudp, each call runs once +│ +\d")
        self.assertNotIn("rpcudp.*│", output)
        status, output = self.run_program(SCRIPTS / "bench", "--installed", "--quick", "rpc", "nobody")
        self.assertEqual(status, 2, output)
