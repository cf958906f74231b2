"""docs/testing.md against the package; tests/test_readme.py runs its examples."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from twistedudp.impairment import EFFECTS


class PageTests(SynchronousTestCase):
    """The page for users."""

    def test_effects(self) -> None:
        """The table of effects is the one of the package, row by row."""
        page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
        table = [line for line in page.splitlines() if line.startswith("| `")]
        rows = [f"| `{effect.form}` | {effect.meaning} | `{effect.example}` |" for effect in EFFECTS.values()]
        self.assertEqual(table, rows)
