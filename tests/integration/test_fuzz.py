"""scripts/fuzz with the fuzzer: the short run, the long run, and bugs that are planted and found."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

import pytest

from tests.checkout import ROOT
from tests.test_scripts import LIMIT, ScriptTestCase
from twistedudp.errors import DTLSUnavailable

try:
    from fuzz.planted import PLANTS
except DTLSUnavailable as error:
    raise SkipTest(str(error)) from error

FIGURES = re.compile(r"^(\w+): ([\d,]+) executions, ([\d,]+) edges, ([\d,]+) inputs", re.MULTILINE)


class FuzzTestCase(ScriptTestCase):
    """A test that runs the fuzzer."""

    def setUp(self) -> None:
        """Skip the test where there is no fuzzer, and copy the corpora, so that the checkout's stay as they are."""
        if importlib.util.find_spec("atheris") is None:
            raise SkipTest("atheris is not installed: it has wheels for Linux on x86_64 only")
        super().setUp()
        self.corpora = Path(tempfile.mkdtemp(prefix="twistedudp-corpora-"))
        self.addCleanup(shutil.rmtree, self.corpora)

    def fuzz(self, *arguments: str) -> tuple[int, str]:
        """Run scripts/fuzz on the copy of the corpora."""
        return self.run_script("fuzz", "--corpus", str(self.corpora), *arguments)


@pytest.mark.heavy
class PlantedTests(FuzzTestCase):
    """The short run finds bugs."""

    def found(self, name: str) -> None:
        """Check that the short run of a plant's target finds it, and that the command replays what it shows."""
        bug = PLANTS[name]
        shutil.copytree(ROOT / "fuzz" / "corpus" / bug.target, self.corpora / bug.target)
        with patch.dict(os.environ, {"TWISTEDUDP_FUZZ_PLANT": name}):
            status, output = self.fuzz("--short", bug.target)
            self.assertEqual(status, 1, output)
            replayed = re.search(r"^replay it by: scripts/fuzz (.+)$", output, re.MULTILINE)
            assert replayed is not None, output
            self.assertIn("Traceback", output)
            status, output = self.run_script("fuzz", *replayed[1].split())
            self.assertEqual(status, 1, output)
        status, output = self.run_script("fuzz", *replayed[1].split())
        self.assertEqual(status, 0, output)

    def test_server_input(self) -> None:
        """A response to another port."""
        self.found("wrong-peer")

    def test_client_input(self) -> None:
        """A response that counts though it is another's."""
        self.found("takes-any-peer")

    def test_codec(self) -> None:
        """An exception of the wrong type."""
        self.found("leaks-index-error")

    def test_dtls_input(self) -> None:
        """A session that ends for a ClientHello which anybody can send in its peer's name."""
        self.found("ends-sessions")

    def test_dtls_cookies(self) -> None:
        """A handshake that begins for a cookie which is not its sender's."""
        self.found("believes-any-cookie")

    def test_text_input(self) -> None:
        """Another one, of what people type."""
        self.found("raises-index-error")


@pytest.mark.heavy
class RunTests(FuzzTestCase):
    """The runs."""

    def test_short(self) -> None:
        """The short run prints at least 10,000 executions and the edges, keeps nothing, and ends with status 0."""
        status, output = self.fuzz("--short", "text_input")
        self.assertEqual(status, 0, output)
        [(target, executions, edges, _)] = FIGURES.findall(output)
        self.assertEqual(target, "text_input")
        self.assertGreaterEqual(int(executions.replace(",", "")), 10_000)
        self.assertGreater(int(edges.replace(",", "")), 100)
        self.assertEqual(list((self.corpora / "text_input").iterdir()), [])

    def test_long(self) -> None:
        """The long run shows its progress and keeps what is new; the corpus can then be minimised."""
        status, output = self.fuzz("--seconds", "2", "text_input")
        self.assertEqual(status, 0, output)
        self.assertTrue(FIGURES.search(output.partition(" s  ")[2]), output)
        kept = len(list((self.corpora / "text_input").iterdir()))
        self.assertGreater(kept, 10)
        self.assertIn(f"text_input: {kept} new inputs kept in {self.corpora}/text_input", output)
        status, output = self.fuzz("--minimise", "text_input")
        self.assertEqual(status, 0, output)
        left = len(list((self.corpora / "text_input").iterdir()))
        self.assertIn(f"text_input: {kept} inputs became {left}", output)
        self.assertGreater(left, 10)

    def test_interrupted(self) -> None:
        """Ctrl-C ends the long run with status 130; what is new is kept."""
        with self.start("fuzz", "--corpus", str(self.corpora), "--seconds", "600", "text_input") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if " executions, " in line:
                    os.killpg(process.pid, signal.SIGINT)
                    break
            output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 130, output)
        self.assertGreater(len(list((self.corpora / "text_input").iterdir())), 10, output)
        self.nothing_is_left(process)


class UsageTests(ScriptTestCase):
    """What is asked for wrongly is told in one line."""

    def test_wrong(self) -> None:
        """A target that is none, an input without a target or that is none, a folder that is none."""
        for arguments, text in (
            (
                ("server",),
                (
                    "there is no target 'server', there are client_input, codec, dtls_input, probe_input, "
                    "server_input, text_input"
                ),
            ),
            (("--replay", "00"), "name the target whose input it is"),
            (("codec", "--replay", "hello"), "'hello' is neither a file that can be read nor bytes in hexadecimal"),
            (("codec", "--corpus", "/nowhere"), "there is no folder /nowhere"),
        ):
            status, output = self.run_script("fuzz", *arguments)
            self.assertEqual((status, output.count("\n")), (2, 1), output)
            self.assertTrue(output.startswith("scripts/fuzz: "), output)
            self.assertIn(text, output)

    def test_seconds(self) -> None:
        """A time that is none."""
        status, output = self.run_script("fuzz", "--seconds", "0")
        self.assertEqual(status, 2)
        self.assertIn("'0' is no number of seconds", output)

    def test_help(self) -> None:
        """The help has the targets."""
        status, output = self.run_script("fuzz", "--help")
        self.assertEqual(status, 0)
        self.assertIn("server_input", output)
