"""The siege in its short form: everything at once for ten seconds, with the verdicts of the long one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.checkout import SCRIPTS
from tests.integration.compiling import missing_compiler
from tests.integration.netns import missing_for_namespaces
from tests.siege.attacks import IN_SESSION_RATE
from tests.siege.certificates import missing_for_dtls
from tests.siege.siege import MOST_GROWTH, MOST_LOG, SUCCESS

LIMIT = 180.0
SECONDS = 10
SCALE = 0.5
"""Of every attack's rate: machines that run tests are slower than those that serve, and have other work."""
SESSIONS = {"trusted, DTLS, long sessions": 4, "unknown, DTLS, long sessions": 2}


def siege(*options: str) -> subprocess.CompletedProcess[str]:
    """Run ``scripts/siege`` with what this Python has installed."""
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "siege"), "--installed", *options],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.heavy
class SiegeTests(SynchronousTestCase):
    """``scripts/siege``."""

    def test_short(self) -> None:
        """Nothing crashes, logs much or grows, nobody is flooded or looped, and trusted clients are served."""
        if reason := missing_for_namespaces() or missing_compiler() or missing_for_dtls():
            raise SkipTest(reason)
        from twistedudp.dtls import DTLSLimits  # noqa: PLC0415  # it may not be installed

        done = siege("--seconds", str(SECONDS), "--scale", str(SCALE), "--json")
        self.assertEqual((done.stderr, done.returncode), ("", 0), done.stdout)
        told = json.loads(done.stdout)
        self.assertEqual(told["faults"], [])
        # What the script has judged is looked at once more: a siege that did not take place holds everything.
        for attack in told["attacks"]:
            sent, passed = told["sent"][attack["name"]], told["passed"][f"{attack['name']}_in"]
            self.assertGreater(sent["sent"], 0.8 * SCALE * attack["rate"] * SECONDS, attack)
            self.assertGreaterEqual(passed["datagrams"], sent["sent"], attack)
        for name, client in told["clients"].items():
            self.assertGreaterEqual(client["calls"], 5 * SECONDS, name)
            self.assertEqual(client["ports"], SESSIONS.get(name, client["ports"]), name)
            if name.startswith("trusted"):
                self.assertGreaterEqual(client["answered"], SUCCESS * client["calls"], name)
        self.assertEqual(told["left_out"], "")
        self.assertEqual(list(told["servers"]), ["echo", "rpc", "dtls"])
        for begin in ("off_path", "in_session_records", "in_session_hellos"):
            forged = [sent for name, sent in told["sent"].items() if name.startswith(begin)]
            self.assertGreater(sum(sent["sent"] for sent in forged), 0.8 * 2 * SCALE * IN_SESSION_RATE * SECONDS, begin)
        # So many that every place for a handshake is taken, and more.
        self.assertGreater(told["sent"]["half_open"]["left"], 1.5 * DTLSLimits().half_open)
        for name, server in told["servers"].items():
            self.assertTrue(server["lives"], name)
            self.assertLess(server["log_bytes"], MOST_LOG)
            self.assertGreater(server["log_lines"], 0)
            self.assertLess(server["grown"], MOST_GROWTH)

    def test_no_rights(self) -> None:
        """Who may not make a network namespace is told so in one line."""
        if missing_for_namespaces():
            raise SkipTest("what is missing here is told by the script as well")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run([*nobody, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
            raise SkipTest("this Python is where others than root cannot read it")
        done = subprocess.run(
            [*nobody, sys.executable, "-m", "tests.siege"],
            cwd=SCRIPTS.parent,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        expected = "scripts/siege: making a network namespace takes root's rights\n"
        self.assertEqual((done.returncode, done.stdout, done.stderr), (2, "", expected))

    def test_wrong_arguments(self) -> None:
        """An argument that makes no sense is one line behind the usage, and exit status 2."""
        done = siege("--seconds", "0")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("--seconds and --scale are positive", done.stderr)
