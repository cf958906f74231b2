"""``udpecho compare``: what it reads, prints and returns."""

from __future__ import annotations

import io
import json
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cli.test_output import OutputTestCase
from tests.cli.test_program import ProgramTestCase
from tests.probing.runs import draw, summary_of
from twistedudp.cli import _compare
from twistedudp.cli._program import run

if TYPE_CHECKING:
    from collections.abc import Sequence


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def fates(seed: int, *, loss: float = 0.0, slower: float = 1.0, probes: int = 700) -> Sequence[int | None]:
    """Return what becomes of probes on a network that is known."""
    rng = random.Random(seed)  # noqa: S311  # nothing is secret
    return draw(rng, probes, loss=loss, rtt=lambda rng: slower * (0.01 + 0.01 * rng.random()))


class CompareCase(ProgramTestCase):
    """Files in a directory of the test's own."""

    def setUp(self) -> None:
        """Make the directory."""
        super().setUp()
        made = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)

    def file(self, name: str, content: object) -> str:
        """Write a file, JSON unless it is a text, and return its path."""
        path = self.folder / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def compare(self, *arguments: str) -> tuple[int, str]:
        """Run the command; return its exit status and what it printed."""
        self.stdout.truncate(0)
        self.stdout.seek(0)
        status = run(("compare", *arguments))
        self.assertEqual(self.stderr.getvalue(), "")
        return status, self.stdout.getvalue()


class StatusTests(CompareCase):
    """Exit statuses, and the verdicts behind them."""

    def setUp(self) -> None:
        """Write some runs."""
        super().setUp()
        self.good = self.file("good.json", summary_of(fates(1)))
        self.again = self.file("again.json", summary_of(fates(2)))
        self.lossy = self.file("lossy.json", summary_of(fates(3, loss=0.2)))
        self.slow = self.file("slow.json", summary_of(fates(4, slower=1.2)))

    def test_same_network(self) -> None:
        """Two runs of one network do not differ: 0, and it says so."""
        status, text = self.compare(self.good, self.again)
        self.assertEqual(status, 0)
        self.assertIn("\nNo difference, as far as these data tell.\n", text)
        self.assertEqual(text.count("no difference"), 6)

    def test_worse(self) -> None:
        """A worse run is 1, and what is worse is named."""
        status, text = self.compare(self.good, self.lossy)
        self.assertEqual(status, 1)
        self.assertIn("\nlossy is worse: loss.\n", text)
        status, text = self.compare(self.good, self.slow)
        self.assertEqual(status, 1)
        self.assertIn("\nslow is worse: mean, p50, p90, p99.\n", text)

    def test_better(self) -> None:
        """A better run is 0."""
        status, text = self.compare(self.lossy, self.good)
        self.assertEqual(status, 0)
        self.assertIn("\ngood is better: loss.\n", text)

    def test_both(self) -> None:
        """A run that is better in one figure and worse in another is 1."""
        status, text = self.compare(self.lossy, self.slow)
        self.assertEqual(status, 1)
        self.assertIn("slow is worse: mean", text)
        self.assertIn("slow is better: loss.\n", text)

    def test_margin(self) -> None:
        """With a margin differences of time below it do not count."""
        status, text = self.compare(self.good, self.slow, "--margin", "40%")
        self.assertEqual(status, 0)
        self.assertIn("negligible", text)
        self.assertEqual(self.compare(self.good, self.slow, "--margin", "5%")[0], 1)

    def test_confidence(self) -> None:
        """More confidence makes wider intervals, and the heading says which it is."""
        narrow, wide = (
            json.loads(self.compare(self.good, self.again, "--confidence", share, "--json")[1])["differences"][0]
            for share in ("80%", "99.9%")
        )
        self.assertLess(wide["low"], narrow["low"])
        self.assertGreater(wide["high"], narrow["high"])
        self.assertIn("99.9% INTERVAL", self.compare(self.good, self.again, "--confidence", "99.9%")[1])

    def test_json(self) -> None:
        """--json prints one line, an object with the files' names and the same verdicts."""
        status, text = self.compare(self.good, self.lossy, "--json")
        self.assertEqual((status, text.count("\n")), (1, 1))
        whole = json.loads(text)
        self.assertEqual((whole["a"], whole["b"], whole["worse"]), (self.good, self.lossy, ["loss"]))

    def test_json_lines(self) -> None:
        """The last line of a file of --json-lines is its summary."""
        lines = self.file("lines.json", '{"event": "reply"}\n' * 3 + json.dumps(summary_of(fates(1))) + "\n")
        self.assertEqual(self.compare(self.good, lines)[0], 0)

    def test_escapes(self) -> None:
        """A file's text cannot steer a terminal."""
        foul = {**summary_of(fates(1)), "address": "\x1b[2J\x9b1mhere", "protocol": "\x1b]0;x\x07", "target": "\x1b[2J"}
        for options in ((), ("--json",)):
            text = self.compare(self.good, self.file("foul.json", foul), *options)[1]
            self.assertNotRegex(text, "[\x1b\x9b\x07]")
            self.assertIn("u001b[2J", text)

    def test_standard_input(self) -> None:
        """A dash is standard input."""
        content = Path(self.lossy).read_bytes()
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        status, text = self.compare(self.good, "-")
        self.assertEqual(status, 1)
        self.assertIn("- is worse: loss.", text)


class UsageTests(CompareCase):
    """What cannot be compared is wrong usage, told in one line."""

    def test_files(self) -> None:
        """Files that are missing, no JSON, or no summaries are named with what is wrong."""
        right = self.file("right.json", summary_of(fates(1, probes=20)))
        summary: dict[str, Any] = summary_of(fates(1, probes=20))
        for content, reason in (
            ("", "it is no JSON; write one with 'udpecho ping --json'"),
            ("[" * 100_000, "it is no JSON"),
            ("\xff\xfe", "it is no JSON"),
            ("[1, 2]", "it is no summary of 'udpecho ping --json'"),
            ({**summary, "format": 99}, "it has format 99, and this version reads format 1"),
            ({**summary, "histogram": ""}, "its histogram is empty"),
            ({key: value for key, value in summary.items() if key != "histogram"}, "its member 'histogram' is missing"),
        ):
            wrong = self.file("wrong.json", content)
            for arguments in ((right, wrong), (wrong, right)):
                self.assertIn(f"wrong.json: {reason}", self.misuse("compare", *arguments))
        self.assertRegex(self.misuse("compare", right, "missing.json"), "missing.json cannot be read: No such file")
        self.assertRegex(self.misuse("compare", right, str(self.folder)), "cannot be read: Is a directory")

    def test_too_large(self) -> None:
        """A file that has no end is not read to it."""
        self.patch(_compare, "LARGEST_FILE", 100)
        long = self.file("long.json", "x" * 101)
        self.assertIn("has more than 100 bytes", self.misuse("compare", long, long))

    def test_options(self) -> None:
        """Shares that are none, and standard input twice, are refused."""
        right = self.file("right.json", summary_of(fates(1, probes=20)))
        for option in (
            "--confidence=0",
            "--confidence=100%",
            "--confidence=99.9999999999999999%",
            "--confidence=99.99999%",
            "--confidence=much",
            "--margin=-1%",
            "--margin=200%",
        ):
            self.assertIn(option.partition("=")[0], self.misuse("compare", right, right, option))
        self.assertIn("not both", self.misuse("compare", "-", "-"))


class TableTests(OutputTestCase):
    """The table on terminals and elsewhere."""

    def written(self, *names: str) -> list[str]:
        """Compare runs under these names and return the lines printed."""
        made = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
        self.addCleanup(made.cleanup)
        folder = Path(made.name)
        paths = []
        for number, name in enumerate(names):
            path = folder / str(number) / name
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(summary_of(fates(number, loss=0.2 * number))), encoding="utf-8")
            paths.append(str(path))
        self.assertEqual(run(("compare", *paths)), 1)
        return [COLOUR.sub("", line) for line in self.screen_now.written().decode().splitlines()]

    def test_narrow_terminal(self) -> None:
        """At 80 columns no line is longer, and no figure is cut."""
        self.screen_now = self.terminal(COLUMNS="80")
        lines = self.written("a-long-name.json", "b-longer-name.json")
        self.assertTrue(all(len(line) <= 80 for line in lines), lines)
        self.assertEqual([line.split()[0] for line in lines[1:7]], ["loss", "mean", "p50", "p90", "p99", "jitter"])
        self.assertEqual(lines[0].split()[:2], ["a-long-na…", "b-longer-…"])
        self.assertNotIn("…", "".join(lines[1:7]))

    def test_not_a_terminal(self) -> None:
        """Elsewhere a sentence is one line."""
        self.screen_now = self.screen()
        lines = self.written("a.json", "b.json")
        self.assertTrue(any(line.startswith("All 6 intervals") and line.endswith("than one.") for line in lines), lines)

    def test_same_names(self) -> None:
        """Two files of one name are told apart as A and B; a name cannot steer the terminal."""
        self.screen_now = self.screen()
        lines = self.written("x.json", "x.json")
        self.assertEqual(lines[0].split()[:2], ["A", "B"])
        self.assertTrue(any(line.startswith("B is worse") for line in lines))
        self.screen_now = self.screen()
        self.assertNotIn("\x1b", "".join(self.written("a.json", "b\x1b[2J.json")))
