"""docs/port.md leaves nothing out."""

from __future__ import annotations

import dataclasses
import inspect
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from twistedudp.transport import BACKENDS, DATAGRAMS_PER_TURN, SECONDS_PER_TURN, DatagramStats, listen
from twistedudp.transport._backend import ENVIRONMENT_VARIABLE
from twistedudp.transport._waiting import MAX_SEND_QUEUE, MAX_SEND_QUEUE_SIZE


class PageTests(SynchronousTestCase):
    """The page against the code."""

    def setUp(self) -> None:
        """Read it."""
        self.page = (ROOT / "docs" / "port.md").read_text(encoding="utf-8")

    def rows(self, heading: str) -> list[str]:
        """Return the names in the first column of the table behind a heading."""
        table = self.page.partition(heading)[2].lstrip().partition("\n\n")[0]
        return [name for line in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]

    def test_counters(self) -> None:
        """Each counter is explained, and nothing that is none."""
        counters = {field.name for field in dataclasses.fields(DatagramStats)}
        self.assertEqual(counters, set(self.rows("| Counter | What it counts |")))

    def test_keywords(self) -> None:
        """Each keyword of listen is explained, and nothing that is none."""
        parameters = inspect.signature(listen).parameters.values()
        keywords = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
        self.assertEqual(sorted(keywords), sorted(self.rows("| Keyword | Meaning |")))

    def test_figures(self) -> None:
        """The bounds, the backends and the environment variable are those of the code."""
        mebibytes = MAX_SEND_QUEUE_SIZE // 1024**2
        for text in (
            f"{DATAGRAMS_PER_TURN} datagrams or {SECONDS_PER_TURN * 1000:.0f} ms",
            f"{MAX_SEND_QUEUE:,} datagrams or {mebibytes} MiB",
            f"`{ENVIRONMENT_VARIABLE}`",
            *(f'`"{backend}"`' for backend in BACKENDS),
        ):
            self.assertIn(text, self.page)
