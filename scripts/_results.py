"""What the test runs reported: counts, skips and expected failures, and coverage, each against what is demanded.

Theory of operation: pytest writes its results as JUnit XML, trial (see _trial.py) as JSON lines. A test has one id in
both, its dotted name (``tests.test_address.FormatTests.test_ipv6``), so that one line of tests/allowed_skips.txt
speaks of it in either runner.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

BRANCHES_DEMANDED: Final = 95.0
"""Per cent of all branches that the tests must take."""
COMPLETE: Final = ("twistedudp/core/", "twistedudp/_msgpack.py")
"""What decides over every datagram is covered to the last line and branch."""


@dataclass
class Results:
    """The test results of all runs; a test that two runners ran counts as often."""

    passed: int = 0
    failed: int = 0
    not_run: dict[str, str] = field(default_factory=dict)
    """Skips and expected failures: the test's id and the reason that the runner reported."""


def read_junit(path: Path, results: Results) -> None:
    """Add what pytest reported; nothing if it died before it reported."""
    if not path.exists():
        return
    for case in ET.parse(path).iter("testcase"):  # noqa: S314  # our own pytest wrote it
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.failed += 1
        elif skipped is not None:
            name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
            results.not_run[name] = skipped.get("message", "")
        else:
            results.passed += 1


def read_trial(path: Path, results: Results) -> None:
    """Add what trial reported."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        report = json.loads(line)
        if report["outcome"] == "passed":
            results.passed += 1
        elif report["outcome"] == "failed":
            results.failed += 1
        else:
            results.not_run.setdefault(report["test"], report["reason"])


def check_allowed(results: Results, allowed: Path) -> list[str]:
    """Compare skips and expected failures with the committed list, both ways, and return the faults.

    Each line of the list is a test's id, in which ``*`` stands for any text, a space, and the reason.
    """
    faults = []
    patterns: dict[str, re.Pattern[str]] = {}
    for number, line in enumerate(allowed.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, reason = line.strip().partition(" ")
        if not reason.strip():
            faults.append(f"{allowed.name}:{number}: {name} has no reason: write it behind the test's id")
        patterns[name] = re.compile(".*".join(map(re.escape, name.split("*"))))
    for test, reason in sorted(results.not_run.items()):
        if not any(pattern.fullmatch(test) for pattern in patterns.values()):
            faults.append(f"{test} was not run or expected to fail ({reason}), and {allowed.name} does not have it")
    for name, pattern in patterns.items():
        if not any(pattern.fullmatch(test) for test in results.not_run):
            faults.append(
                f"{allowed.name}: {name} is stale: no such test was skipped or expected to fail; delete the line"
            )
    return faults


def check_coverage(coverage: Path, root: Path, data: Path) -> list[str]:
    """Combine the data of all processes, print the report, and return what falls short.

    Run in the checkout, so that the paths of site-packages are mapped to it (``[tool.coverage.paths]``).
    """
    report = data.with_suffix(".json")
    environment = {**os.environ, "COVERAGE_FILE": str(data)}
    for command in (["combine", "--quiet"], ["report"], ["json", "--quiet", "-o", str(report)]):
        done = subprocess.run([str(coverage), *command], cwd=root, env=environment, check=False)
        if done.returncode:
            return [f"'coverage {command[0]}' failed with exit status {done.returncode}"]
    return _shortfalls(json.loads(report.read_text()))


def _shortfalls(report: dict[str, object]) -> list[str]:
    files = report["files"]
    assert isinstance(files, dict)  # noqa: S101  # coverage's format
    faults = []
    summaries = {name: file["summary"] for name, file in files.items()}
    branches = sum(summary["num_branches"] for summary in summaries.values())
    covered = sum(summary["covered_branches"] for summary in summaries.values())
    per_cent = 100 * covered / branches if branches else 100.0
    print(f"{covered} of {branches} branches: {per_cent:.1f} %")
    if per_cent < BRANCHES_DEMANDED:
        faults.append(f"{per_cent:.1f} % of branches, {BRANCHES_DEMANDED:.0f} % are demanded")
    for name, summary in summaries.items():
        if name.startswith(COMPLETE) and summary["missing_lines"] + summary["missing_branches"]:
            faults.append(f"{name} is not covered completely")
    return faults
