"""What the parts of ``benchmarks/security`` hand over: tables of costs, each with its limit.

Theory of operation: a part is a module beside this one with a function ``measure(quick)``, which returns a
:class:`Costs`, or the reason why there is nothing to measure here. ``benchmarks/security`` runs the parts that are
there, one after the other, and prints and writes what they return.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from _report import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cost", "Costs"]


@dataclass
class Cost:
    """What one thing costs.

    Attributes:
        labels: What it is, in the words of the table's first columns.
        values: The figures of each round.
        limit: What the median may be at most; None where nothing is promised.
    """

    labels: tuple[str, ...]
    values: Sequence[float]
    limit: float | None = None

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """Whether the limit is kept, where there is one."""
        return self.limit is None or self.median <= self.limit

    def cells(self, digits: int) -> tuple[str, ...]:
        """Return a row of the table."""
        limit = "" if self.limit is None else f"{self.limit:g}"
        return (*self.labels, spread(self.values, digits), limit)


@dataclass
class Costs:
    """One table.

    Attributes:
        name: What the JSON calls it.
        title: What people read above it.
        columns: The headings of the labels; that of the figures, with its unit; the last is that of the limit.
        rows: Its rows.
        note: A sentence below it.
        digits: Digits behind the point.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[Cost] = field(default_factory=list)
    note: str = ""
    digits: int = 3

    def as_json(self) -> dict[str, Any]:
        """Return the figures of each round."""
        heads = self.columns[:-2]
        return {
            "title": self.title,
            "unit": self.columns[-2],
            "rows": [
                {
                    **dict(zip(heads, row.labels, strict=True)),
                    "rounds": list(row.values),
                    "median": row.median,
                    "limit": row.limit,
                    "reached": row.reached,
                }
                for row in self.rows
            ],
        }
