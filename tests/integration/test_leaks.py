"""The compiled port keeps nothing of the datagrams that went through it, whatever became of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import twistedudp
from twistedudp.errors import LocalError
from twistedudp.transport._backend import choose_backend

PROGRAM = Path(__file__).with_name("leaks.py")

BOUNDS = {
    # Bytes: the kernel gives whole pages, and malloc keeps some for later; 10 million leaks of a byte are ten million.
    "rss": 4 << 20,
    # What was really asked for, so much less: tables are as full at the end as at the beginning.
    "heap": 1 << 17,
    # The tables of peers are not quite: some hundreds of 50,000 places are taken or not, by the hash of the address.
    "blocks": 2000,
    "objects": 600,
    "references": 600,
}
"""How much more the process may hold at the end, however many datagrams there were."""


class LeakTests(SynchronousTestCase):
    """See leaks.py for what is done."""

    timeout = 1800.0

    def grown(self, datagrams: int) -> dict[str, Any]:
        """Run the program, check that it did what it is for, and return what the process holds more than it may."""
        try:
            choose_backend("mmsg")
        except LocalError as error:
            if "TWISTEDUDP_REQUIRE_COMPILED" in os.environ:
                raise
            raise SkipTest(str(error)) from error
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(datagrams)],
            # Not measured: with coverage it would take ten times as long, and coverage's own data would grow.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
                "PYTHONPATH": str(Path(twistedudp.__file__).parent.parent),
            },
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found = json.loads(done.stdout)
        self.assertGreaterEqual(found["datagrams"], datagrams)
        self.assertEqual(found["lost"], 0)
        self.assertGreater(found["logged"], 50)  # twenty tracebacks a minute and port
        self.assertGreater(found["unreachable"], 100)
        return {name: by for name, by in found["growth"].items() if by > BOUNDS[name]}

    @pytest.mark.heavy
    def test_some(self) -> None:
        """After 200,000 datagrams the process holds what it held before: an object for each 200 of them would show."""
        self.assertEqual(self.grown(200_000), {})

    @pytest.mark.slow
    def test_ten_million(self) -> None:
        """After 10 million datagrams the process holds what it held before."""
        self.assertEqual(self.grown(10_000_000), {})
