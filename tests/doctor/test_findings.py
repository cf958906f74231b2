"""Findings as values, and the page that explains them."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from twistedudp.doctor import CODES, Finding, findings_as_json


class FindingTests(SynchronousTestCase):
    """One finding, and the JSON object of several."""

    def test_unknown_code(self) -> None:
        """A code that is not on the list is a mistake of ours."""
        with self.assertRaisesRegex(ValueError, "'UDP-ODD' is no code"):
            Finding("UDP-ODD", "odd")

    def test_frozen(self) -> None:
        """A finding does not change."""
        finding = Finding("UDP-SILENT", "silent")
        with self.assertRaises(FrozenInstanceError):
            finding.code = "UDP-LOSS"  # type: ignore[misc]  # that is the point

    def test_json(self) -> None:
        """The object has the findings in order, and is ok where none of them is a fault."""
        fault = Finding("UDP-SILENT", "silent", ("a", "b"), "wait")
        fine = Finding("UDP-ANSWERED", "answers", fault=False)
        whole = json.loads(json.dumps(findings_as_json("there", [fine, fault], port=7)))
        self.assertEqual((whole["format"], whole["target"], whole["ok"], whole["port"]), (1, "there", False, 7))
        self.assertEqual(
            whole["findings"][1],
            {"code": "UDP-SILENT", "fault": True, "says": "silent", "evidence": ["a", "b"], "advice": "wait"},
        )
        self.assertTrue(findings_as_json("there", [fine])["ok"])

    def test_documented(self) -> None:
        """Each code has a section in docs/doctor.md, and no section is about anything else."""
        text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
        sections = re.findall(r"(?m)^### (UDP-\S+)$", text)
        self.assertEqual(sorted(sections), sorted(CODES))

    def test_used(self) -> None:
        """Each code is made somewhere in the doctor's code, beside the list: none is promised and never given."""
        sources = [path for path in (ROOT / "twistedudp" / "doctor").glob("*.py") if path.name != "_findings.py"]
        written = "".join(path.read_text(encoding="utf-8") for path in sources)
        self.assertEqual([code for code in CODES if f'"{code}"' not in written], [])
