"""The fuzz targets without the fuzzer: every input that is kept, every planted bug, how scripts/fuzz reads figures."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fuzz._methods import MethodFault
from fuzz._source import Broken, Source, chunk
from tests.checkout import ROOT, load_script
from twistedudp.errors import DTLSUnavailable

try:
    from fuzz.planted import PLANTS, planted
    from fuzz.targets import TARGETS
except DTLSUnavailable as error:
    raise SkipTest(str(error)) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = ROOT / "fuzz" / "corpus"
REGRESSIONS = ROOT / "fuzz" / "regressions"

MAX_CORPUS = 128 * 1024
"""Bytes of all corpora together: they are replayed by every test run."""


class TargetTestCase(SynchronousTestCase):
    """A test that plays inputs."""

    def tearDown(self) -> None:
        """Take the tracebacks from the log that methods of the server's target leave there on purpose."""
        self.flushLoggedErrors(MethodFault)


class ReplayTests(TargetTestCase):
    """No input that is kept breaks its target."""

    def play_all(self, name: str) -> None:
        """Play a target's seeds, corpus and regressions."""
        target = TARGETS[name]
        for number, seed in enumerate(target.seeds()):
            with self.named(f"seed {number} of {name}"):
                target.play(seed)
        for folder in (CORPUS / name, REGRESSIONS / name):
            for path in sorted(folder.iterdir()):
                with self.named(str(path)):
                    target.play(path.read_bytes())

    @contextlib.contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Say which input it was."""
        try:
            yield
        except Exception as error:
            raise AssertionError(f"{name} breaks its target: {error!r}") from error

    def test_server_input(self) -> None:
        """Those of the server."""
        self.play_all("server_input")

    def test_client_input(self) -> None:
        """Those of the client."""
        self.play_all("client_input")

    def test_codec(self) -> None:
        """Those of the codec."""
        self.play_all("codec")

    def test_dtls_input(self) -> None:
        """Those of a DTLS port."""
        self.play_all("dtls_input")

    def test_probe_input(self) -> None:
        """Those of the probes."""
        self.play_all("probe_input")

    def test_text_input(self) -> None:
        """Those of the texts."""
        self.play_all("text_input")

    def test_aloud(self) -> None:
        """What an input means can be told."""
        aloud = load_script("_fuzz").aloud
        for target in TARGETS.values():
            for seed in target.seeds():
                with contextlib.redirect_stdout(io.StringIO()) as told:
                    target.play(seed, aloud)
                self.assertTrue(told.getvalue())

    def test_every_target(self) -> None:
        """Each target says its invariant in one line, has a corpus and seeds that fit, and bugs are planted for it."""
        self.assertEqual({path.name for path in CORPUS.iterdir()}, set(TARGETS))
        for name, target in TARGETS.items():
            self.assertRegex(target.invariant, r"\A[A-Z][A-Za-z]+( input)?: .+\.\Z", name)
            sizes = [path.stat().st_size for path in (CORPUS / name).iterdir()]
            self.assertGreater(len(sizes), 10, name)
            self.assertLessEqual(max([*sizes, *map(len, target.seeds())]), target.max_size, name)
            self.assertIn(name, {bug.target for bug in PLANTS.values()})

    def test_size(self) -> None:
        """The corpora are small."""
        self.assertLess(sum(path.stat().st_size for path in CORPUS.rglob("*")), MAX_CORPUS)


class PlantTests(TargetTestCase):
    """The invariants see what they are there to see."""

    def test_each(self) -> None:
        """Each planted bug breaks its target, by an input that breaks nothing without it."""
        for name, bug in PLANTS.items():
            data = (REGRESSIONS / bug.target / name).read_bytes()
            play = TARGETS[bug.target].play
            play(data)
            with planted(name), self.assertRaises((Broken, IndexError), msg=name):
                play(data)
            play(data)

    def test_no_other(self) -> None:
        """A bug breaks no target that does not use what it is in."""
        with planted("raises-index-error"):
            for seed in TARGETS["codec"].seeds():
                TARGETS["codec"].play(seed)


class SourceTests(SynchronousTestCase):
    """How inputs are read."""

    def test_chunks(self) -> None:
        """A chunk of any length is read as it was written, and what follows it too."""
        for size in (0, 1, 254, 255, 256, 1000, 65535):
            data = bytes(size)
            source = Source(chunk(data) + b"\x07")
            self.assertEqual((source.chunk(), source.byte(), bool(source)), (data, 7, False))

    def test_end(self) -> None:
        """After the end everything is zero or empty; a length beyond it is cut."""
        source = Source(b"\x09ab")
        self.assertEqual((source.chunk(), source.byte(), source.chunk()), (b"ab", 0, b""))
        self.assertEqual(Source(b"").choose("abc"), "a")

    def test_choose(self) -> None:
        """Every byte chooses something."""
        self.assertEqual([Source(bytes([number])).choose("abc") for number in (0, 1, 2, 3, 255)], list("abcaa"))


class FiguresTests(SynchronousTestCase):
    """What scripts/fuzz makes of the words of libFuzzer, without one."""

    def setUp(self) -> None:
        """Load the script."""
        self.script = load_script("_fuzz")

    def outcome(self, *lines: str) -> Any:
        """Return what lines of libFuzzer's say."""
        outcome = self.script.Outcome()
        for line in lines:
            outcome.read(line)
        return outcome

    def test_figures(self) -> None:
        """Executions, edges and inputs are libFuzzer's own, the last ones."""
        outcome = self.outcome(
            "INFO: Seed: 1",
            "#2\tINITED cov: 79 ft: 79 corp: 1/1b exec/s: 0 rss: 59Mb",
            "#8192\tpulse  cov: 349 ft: 898 corp: 91/833b lim: 17 exec/s: 481 rss: 61Mb",
            "#10000\tDONE   cov: 359 ft: 951 corp: 99/952b lim: 17 exec/s: 476 rss: 61Mb",
            "Done 10000 runs in 21 second(s)",
            "stat::number_of_executed_units: 10001",
        )
        self.assertEqual(self.script._figures("codec", outcome), "codec: 10,001 executions, 359 edges, 99 inputs")
        self.assertEqual(len(outcome.words), 2)

    def short_run(self, outcome: object) -> tuple[int, str]:
        """Return the exit status and the output of a short run that has this outcome."""
        with patch.object(self.script, "_fuzz", lambda *_: outcome), contextlib.redirect_stdout(io.StringIO()) as told:
            return self.script.short_run("text_input", CORPUS), told.getvalue()

    def test_enough(self) -> None:
        """10,000 executions without a finding are enough, and the figures are printed."""
        status, told = self.short_run(self.script.Outcome(executions=10_000, edges=300, inputs=70))
        self.assertEqual(status, 0)
        self.assertIn("text_input: 10,000 executions, 300 edges, 70 inputs", told)

    def test_too_few(self) -> None:
        """One less is a failure."""
        status, told = self.short_run(self.script.Outcome(executions=9_999, edges=300))
        self.assertEqual(status, 1)
        self.assertIn("only 9,999 executions, at least 10,000 are demanded", told)

    def test_died(self) -> None:
        """So is a fuzzer that ends by itself, whose last words are shown."""
        status, told = self.short_run(self.script.Outcome(executions=20_000, status=1, words=["no such module"]))
        self.assertEqual(status, 1)
        self.assertIn("no such module\ntext_input: the fuzzer ended with status 1", told)

    def test_finding(self) -> None:
        """A finding is shown with its traceback, its bytes, and the command that replays it."""
        words = [
            "before",
            " === Uncaught Python exception: ===",
            "IndexError: x",
            "Traceback ...",
            "==5== ERROR",
            "after",
        ]
        outcome = self.script.Outcome(finding=b"\x00a:1", kind="timeout", status=77, words=words)
        status, told = self.short_run(outcome)
        self.assertEqual(status, 1)
        self.assertNotIn("before", told)
        self.assertNotIn("after", told)
        self.assertIn("IndexError: x\nTraceback ...\ntext_input is broken (timeout) by 4 bytes: 00613a31\n", told)
        self.assertIn("replay it by: scripts/fuzz text_input --replay 00613a31\n", told)

    def test_shortened(self) -> None:
        """A finding is told without the bytes that it does not need; one that cannot be seen again is left as it is."""
        with planted("raises-index-error"):
            self.assertEqual(len(self.script._shortened("text_input", b"\x00some.host.example:255")), 6)
        data = b"\x00some.host.example:5432"
        self.assertEqual(self.script._shortened("text_input", data), data)

    def test_no_coverage(self) -> None:
        """The fuzzer's process is not measured by coverage, and hashes the same each time."""
        with patch.dict(os.environ, {"COVERAGE_PROCESS_CONFIG": "x", "COV_CORE_SOURCE": "x", "HOME": "/h"}):
            variables = self.script._variables()
        self.assertEqual((variables["HOME"], variables["PYTHONHASHSEED"]), ("/h", "0"))
        self.assertEqual([name for name in variables if name.startswith("COV")], [])

    def test_words(self) -> None:
        """Words are written as libFuzzer's dictionaries have them."""
        self.assertEqual(self.script._escaped("±5%".encode()), "\\xc2\\xb15\\x25")

    def test_replay(self) -> None:
        """An input is replayed from a file or from hexadecimal; what is neither is told."""
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as told:
            path = Path(folder) / "input"
            path.write_bytes(b"\x00localhost:80")
            self.assertEqual(self.script.replay("text_input", str(path)), 0)
        self.assertIn("is ('localhost', 80)\ntext_input holds: Text input: what people type", told.getvalue())
        with self.assertRaisesRegex(self.script.FuzzingNotPossible, "'xyz' is neither a file"):
            self.script.replay("text_input", "xyz")
