"""The commands that the README names: scripts/demo and scripts/test, and what they rest on."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.checkout import ROOT, SCRIPTS, load_script

LIMIT = 120.0
"""Seconds after which a script that has not ended never will."""


SAMPLE = """
import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

class A(SynchronousTestCase):
    def test_passes(self): pass
    def test_fails(self): self.fail("x")
    def test_skips(self): raise SkipTest("no socat")
    @pytest.mark.slow
    def test_slow(self): pass
"""


class ScriptTestCase(SynchronousTestCase):
    """A test that runs a script with the Python that runs the tests, so that no environment is made."""

    def setUp(self) -> None:
        """Make a directory that holds whatever the script puts into the temporary directory."""
        self.folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a script in a session of its own, in an empty directory."""
        variables = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHONPATH")}
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / name), "--installed", *arguments],
            cwd=self.folder,
            env={**variables, "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run_script(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run a script to its end, and return its exit status and its output."""
        with self.start(name, *arguments) as process:
            output, _ = process.communicate(timeout=LIMIT)
        self.nothing_is_left(process)
        return process.returncode, output

    def nothing_is_left(self, process: subprocess.Popen[str]) -> None:
        """Check that no process of a script's session lives, and that the temporary directory is empty."""
        alive = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        self.assertEqual([pid for pid in alive if session_of(pid) == process.pid], [])
        self.assertEqual(list(self.folder.iterdir()), [])


def session_of(pid: int) -> int | None:
    """Return the session of a process, unless it is gone or a zombie that nobody has to wait for."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[3])
    return None


class DemoTests(ScriptTestCase):
    """``scripts/demo``."""

    def test_demo(self) -> None:
        """It shows each thing it promises, ends with status 0, and leaves neither a process nor a file."""
        status, output = self.run_script("demo")
        self.assertEqual(status, 0, output)
        for shown in (
            "got  'Hello, UDP server! Grüße, 你好'",
            "got  [3.14159, 2.71828, 1.41421]",
            "'position': {'x': 1.5, 'y': -2}",
            "20 requests in flight, 20 answers",
            "mean([3.14159, 2.71828, 1.41421]) -> 2.42469",
            "division_by_zero",
            "PeerUnreachable after ",
            "RequestTimedOut after 0.5",
            "All 7 steps did what they say.",
        ):
            self.assertIn(shown, output)

    def interrupted(self, number: signal.Signals, step: str) -> tuple[int, str]:
        """Send a signal to the demonstration when it begins a step, and return its exit status and its output."""
        output = ""
        with self.start("demo") as process:
            assert process.stdout is not None
            for line in process.stdout:
                output += line
                if line.startswith(step):
                    process.send_signal(number)
            process.wait(LIMIT)
        self.nothing_is_left(process)
        return process.returncode, output

    def test_interrupted(self) -> None:
        """Ctrl-C at any step ends it at once, with status 130, and leaves neither a process nor a file."""
        for step in ("1.", "2.", "4.", "5.", "7."):
            started = time.monotonic()
            status, output = self.interrupted(signal.SIGINT, step)
            self.assertEqual(status, 130, output)
            self.assertNotIn("Traceback", output)
            self.assertNotIn("All 7", output)
            self.assertLess(time.monotonic() - started, LIMIT / 2)

    def test_terminated(self) -> None:
        """SIGTERM, as a supervisor sends it, is cleaned up after as well."""
        status, output = self.interrupted(signal.SIGTERM, "5.")
        self.assertNotEqual(status, 0)
        self.assertNotIn("Traceback", output)

    def test_failure(self) -> None:
        """A step that does not show what it says ends it with a line that says so, and status 1."""
        # A calculator that cannot count, in a copy of the checkout's two folders that the script uses.
        copy = self.folder / "checkout"
        for name in ("scripts", "examples"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.cache"))
        calculator = copy / "examples" / "calculator" / "calculator.py"
        calculator.write_text(calculator.read_text(encoding="utf-8").replace("/ len(numbers)", "/ 7"), encoding="utf-8")
        before = set(self.folder.iterdir())
        done = subprocess.run(
            [sys.executable, str(copy / "scripts" / "demo"), "--installed"],
            env={**os.environ, "TMPDIR": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (1, "scripts/demo: this step failed: the mean is wrong\n"))
        self.assertEqual(set(self.folder.iterdir()), before)


class TestTests(ScriptTestCase):
    """``scripts/test``."""

    def test_steps(self) -> None:
        """It runs every check there is, the tests of two kinds apart, and trial."""
        status, output = self.run_script("test", "--list")
        self.assertEqual(status, 0, output)
        steps = [line.partition(":")[0] for line in output.splitlines()]
        self.assertEqual(
            steps,
            [
                "backend",
                "ruff check",
                "ruff format",
                "mypy --strict",
                "lint-imports",
                "pytest",
                "pytest of programs",
                "pytest of probes",
                "pytest of ports",
                "pytest with pytest-twisted",
                "trial",
                *(["fuzz"] if sys.platform == "linux" and platform.machine() == "x86_64" else []),
                "pytest of a siege",
            ],
        )

    def test_one_test(self) -> None:
        """One file or name runs in pytest alone, and the last line counts what was run."""
        chosen = str(ROOT / "tests" / "test_architecture.py")
        status, output = self.run_script("test", chosen, "-k", "test_counting or test_all")
        self.assertEqual((status, output.splitlines()[-1]), (0, "2 passed, 0 failed, 0 skipped"), output)

    def test_failing(self) -> None:
        """A test that fails makes it fail, and is counted."""
        test = self.folder / "test_that_fails.py"
        test.write_text("def test_that_fails():\n    assert False\n\ndef test_other():\n    pass\n", encoding="utf-8")
        with self.start("test", str(test)) as process:
            output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual((process.returncode, output.splitlines()[-1]), (1, "1 passed, 1 failed, 0 skipped"), output)
        self.assertRegex(output, r"(?m)^pytest +FAILED ")

    def test_full(self) -> None:
        """--full asks Hypothesis for far more examples, leaves out no slow test, and runs the sanitizers."""
        _, quick = self.run_script("test", "--list")
        _, full = self.run_script("test", "--list", "--full")
        self.assertIn("not slow", quick)
        self.assertIn("--without-slow", quick)
        self.assertNotIn("slow", full)
        added = {line.partition(":")[0] for line in full.splitlines()}
        added -= {line.partition(":")[0] for line in quick.splitlines()}
        self.assertEqual(added, {"AddressSanitizer"} if sys.platform == "linux" else set())
        profile = "import tests, hypothesis; print(hypothesis.settings.default.max_examples)"
        found = [
            int(
                subprocess.run(
                    [sys.executable, "-c", profile],
                    cwd=ROOT,
                    env={**os.environ, "HYPOTHESIS_PROFILE": name},
                    capture_output=True,
                    check=True,
                    timeout=LIMIT,
                ).stdout
            )
            for name in ("quick", "full")
        ]
        self.assertGreaterEqual(found[1], 10 * found[0])


class ServingTests(SynchronousTestCase):
    """The step of ``scripts/test`` that tells which backend serves."""

    def serving(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        return subprocess.run(
            [sys.executable, str(SCRIPTS / "_serving.py")],
            cwd=tempfile.gettempdir(),
            env={**os.environ, "PYTHONPATH": str(Path(twistedudp.__file__).parent.parent), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )

    def test_told(self) -> None:
        """One line names the backend and the reason."""
        done = self.serving(TWISTEDUDP_BACKEND="scalar", TWISTEDUDP_REQUIRE_COMPILED="")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout, "UDP ports are served by the backend scalar: TWISTEDUDP_BACKEND asks for it\n")

    def test_demanded(self) -> None:
        """It fails where the compiled backend is demanded and another serves."""
        done = self.serving(TWISTEDUDP_BACKEND="scalar", TWISTEDUDP_REQUIRE_COMPILED="1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("should be the compiled one", done.stderr)


class AllowedSkipsTests(SynchronousTestCase):
    """The list of tests that may be skipped or expected to fail."""

    def faults(self, not_run: dict[str, str], *lines: str) -> list[str]:
        """Return what is wrong with a list, given what was not run."""
        results = load_script("_results")
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            allowed = Path(folder) / "allowed.txt"
            allowed.write_text("\n".join(("# comment", "", *lines)) + "\n", encoding="utf-8")
            faults: list[str] = results.check_allowed(results.Results(not_run=not_run), allowed)
        return faults

    def test_listed(self) -> None:
        """A skip that the list has, by its id or a pattern, is no fault."""
        not_run = {"tests.a.A.test_a": "no socat", "tests.b.B.test_x[1]": "", "tests.b.B.test_y[1]": ""}
        self.assertEqual(self.faults(not_run, "tests.a.A.test_a  why", "tests.b.*[1] because"), [])

    def test_unlisted(self) -> None:
        """A skip that the list does not have is a fault that names it with its reason."""
        (fault,) = self.faults({"tests.a.A.test_a": "no socat"})
        self.assertIn("tests.a.A.test_a was not run or expected to fail (no socat)", fault)

    def test_stale(self) -> None:
        """A line that matches nothing is a fault, so that the list stays true."""
        (fault,) = self.faults({}, "tests.a.A.test_a why")
        self.assertIn("tests.a.A.test_a is stale", fault)

    def test_no_reason(self) -> None:
        """A line without a reason is a fault that names the line."""
        (fault,) = self.faults({"tests.a.A.test_a": ""}, "tests.a.A.test_a")
        self.assertIn("allowed.txt:3: tests.a.A.test_a has no reason", fault)


class ReportsTests(SynchronousTestCase):
    """What the test runners report."""

    def setUp(self) -> None:
        """Make a directory for tests and reports."""
        self.folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def results(self, report: str, command: list[str], expected_failure: str) -> Any:
        """Run sample tests, of which one is an expected failure, and return what is read from the report."""
        (self.folder / "test_sample.py").write_text(SAMPLE + expected_failure, encoding="utf-8")
        subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "TWISTEDUDP_TRIAL_RECORD": str(self.folder / report), "PYTHONPATH": str(self.folder)},
            capture_output=True,
            check=False,
            timeout=LIMIT,
        )
        module = load_script("_results")
        results = module.Results()
        reader = module.read_junit if report.endswith("xml") else module.read_trial
        reader(self.folder / report, results)
        reader(self.folder / "missing", results)
        return results

    def test_pytest(self) -> None:
        """Passes, failures, skips and expected failures are read from pytest's XML; slow tests are left out."""
        pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "--junit-xml=report.xml"]
        results = self.results(
            "report.xml", [*pytest, "."], "@pytest.mark.xfail(reason='twisted#1')\ndef test_expected(): assert False\n"
        )
        self.assertEqual((results.passed, results.failed), (1, 1))
        self.assertEqual(
            results.not_run, {"test_sample.A.test_skips": "no socat", "test_sample.test_expected": "twisted#1"}
        )

    def test_trial(self) -> None:
        """The same is read from what trial is made to write, and tests have the same ids."""
        trial = [sys.executable, str(SCRIPTS / "_trial.py"), "--without-slow", "test_sample"]
        results = self.results(
            "report.jsonl", trial, "    def test_expected(self): self.fail('x')\n    test_expected.todo = 'twisted#1'\n"
        )
        self.assertEqual((results.passed, results.failed), (1, 1))
        self.assertEqual(set(results.not_run), {"test_sample.A.test_skips", "test_sample.A.test_expected"})
        self.assertEqual(results.not_run["test_sample.A.test_skips"], "no socat")
        self.assertIn("twisted#1", results.not_run["test_sample.A.test_expected"])

    def test_coverage(self) -> None:
        """Too few branches in all, or a line missed in the core, falls short."""
        shortfalls = load_script("_results")._shortfalls

        def report(covered: int, missing: int) -> dict[str, object]:
            summary = {"num_branches": 100, "covered_branches": covered, "missing_lines": 0, "missing_branches": 0}
            core = {"num_branches": 0, "covered_branches": 0, "missing_lines": missing, "missing_branches": 0}
            return {"files": {"twistedudp/a.py": {"summary": summary}, "twistedudp/core/b.py": {"summary": core}}}

        self.assertEqual(shortfalls(report(95, 0)), [])
        self.assertEqual(shortfalls(report(94, 0)), ["94.0 % of branches, 95 % are demanded"])
        self.assertEqual(shortfalls(report(100, 1)), ["twistedudp/core/b.py is not covered completely"])


class EnvironmentTests(SynchronousTestCase):
    """The environment that the scripts make."""

    def test_digest(self) -> None:
        """The digest of the sources changes with each file's name and content, and with nothing else."""
        environment = load_script("_environment")
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            root = Path(folder)
            package = root / "twistedudp"
            package.mkdir()
            (root / "setup.cfg").write_text("a", encoding="utf-8")
            (package / "m.py").write_text("a", encoding="utf-8")
            digests = [environment.sources_digest(root)]
            (package / "__pycache__").mkdir()
            (package / "__pycache__" / "m.pyc").write_text("x", encoding="utf-8")
            (root / "other.txt").write_text("x", encoding="utf-8")
            # What a build in the checkout left.
            (package / "m.c").write_text("x", encoding="utf-8")
            (package / "m.cpython-311-x86_64-linux-gnu.so").write_text("x", encoding="utf-8")
            self.assertEqual(environment.sources_digest(root), digests[0])
            (package / "m.py").write_text("b", encoding="utf-8")
            digests.append(environment.sources_digest(root))
            (package / "m.py").rename(package / "n.py")
            digests.append(environment.sources_digest(root))
            for name in ("m.pyx", "m.pxd", "m.pyi"):
                (package / name).write_text("x", encoding="utf-8")
                digests.append(environment.sources_digest(root))
        self.assertEqual(len(set(digests)), 6)

    def test_copy(self) -> None:
        """What is built is a copy of the sources, without anything that an earlier build left among them."""
        environment = load_script("_environment")
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            root = Path(folder)
            (root / "twistedudp").mkdir()
            for name in ("setup.cfg", "setup.py", "MANIFEST.in", "other.txt"):
                (root / name).write_text("x", encoding="utf-8")
            for name in ("m.py", "m.pyx", "m.pxd", "m.pyi", "m.c", "m.abi3.so", "m.pyc"):
                (root / "twistedudp" / name).write_text("x", encoding="utf-8")
            self.patch(environment, "ROOT", root)
            environment.copy_sources(root / "copy")
            copied = {str(path.relative_to(root / "copy")) for path in (root / "copy").rglob("*") if path.is_file()}
        modules = {f"twistedudp/m.{suffix}" for suffix in ("py", "pyx", "pxd", "pyi")}
        self.assertEqual(copied, {"setup.cfg", "setup.py", "MANIFEST.in"} | modules)

    def test_build_requirements(self) -> None:
        """What pyproject.toml asks for to build the package is found without a TOML reader."""
        requirements = load_script("_environment").build_requirements()
        self.assertIn("setuptools >= 68", requirements)
        self.assertTrue(any(requirement.startswith("cython") for requirement in requirements))

    def test_stamp(self) -> None:
        """An environment whose stamp fits is used as it is; a stamp that cannot be read counts as none."""
        environment = load_script("_environment")
        with tempfile.TemporaryDirectory(prefix="twistedudp-test-") as folder:
            python = Path(folder) / "bin" / "python"
            python.parent.mkdir()
            python.symlink_to(sys.executable)
            stamp = Path(folder) / "twistedudp-installed.json"
            self.assertEqual(environment._read_stamp(Path(folder)), None)
            stamp.write_text("{", encoding="utf-8")
            self.assertEqual(environment._read_stamp(Path(folder)), None)
            content = {"digest": environment.sources_digest(), "extras": ["test"], "compiled": True}
            stamp.write_text(json.dumps(content), encoding="utf-8")
            self.assertEqual(environment.prepare((), Path(folder)), python)

    def test_stamp_of_compiled(self) -> None:
        """What may have been built without compiled modules does not serve where these are demanded."""
        stamp = load_script("_environment")._Stamp
        maybe, surely = stamp("digest", ["test"], compiled=False), stamp("digest", ["test"], compiled=True)
        self.assertTrue(surely.serves(maybe))
        self.assertTrue(surely.serves(surely))
        self.assertTrue(maybe.serves(maybe))
        self.assertFalse(maybe.serves(surely))
        self.assertFalse(surely.serves(maybe._replace(digest="other")))
        self.assertFalse(surely.serves(maybe._replace(extras=[])))

    def test_half_made(self) -> None:
        """An environment that has no pip, because making it was interrupted, counts as none."""
        environment = load_script("_environment")
        self.assertTrue(environment._runs(Path(sys.executable)))
        self.patch(environment, "_HAS_PIP", environment._HAS_PIP.replace("'pip'", "'pip_that_is_not_there'"))
        self.assertFalse(environment._runs(Path(sys.executable)))

    def test_old_python(self) -> None:
        """A Python that is too old is told at once, with what to do."""
        environment = load_script("_environment")
        self.patch(environment, "_OLDEST_PYTHON", (99, 0))
        with self.assertRaisesRegex(environment.EnvironmentNotUsable, "needs Python 3.10 or newer"):
            environment.prepare()
