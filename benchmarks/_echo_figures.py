"""What the rounds of ``benchmarks/echo`` add up to: medians, ratios, faults, and whether the targets are reached."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _echo_contestants import CONTESTANTS
from _echo_measure import Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _echo_contestants import Contestant
    from _echo_measure import Measure, Round

__all__ = ["FULL_LOADS", "TARGETS", "TARGET_LOADS", "Figures", "Outcome", "Target", "needed_for_targets"]

CLIENTS: Final = (1, 8, 1000)
FULL_LOADS: Final = tuple(Load(window, clients) for window in (1, 64, 512) for clients in CLIENTS)
TARGET_LOADS: Final = (*(Load(64, clients) for clients in CLIENTS), Load(1, 1), Load(1, 8))
"""The loads that the targets speak of."""


class Target(NamedTuple):
    """What one contestant may need, measured by another one in the same run."""

    text: str
    name: str
    base: str
    limits: dict[int, float]
    """By the number of clients: how many times what the other one needs."""
    window: int = 64
    figure: str = "cpu"
    """``cpu`` or ``p50``."""


TARGETS: Final = (
    Target("Twisted's own port", "mmsg", "twisted", {1: 0.40, 8: 0.40, 1000: 0.50}),
    Target("the recvfrom loop", "mmsg", "tutorial", {1: 0.65, 8: 0.65, 1000: 0.85}),
    Target("uvloop", "mmsg", "uvloop", {1: 0.50, 8: 0.50, 1000: 0.65}),
    Target("Go", "mmsg", "go", {1: 0.75, 8: 0.75, 1000: 0.95}),
    Target("C recvmmsg/sendmmsg", "mmsg", "c-mmsg", {1: 1.0, 8: 1.0, 1000: 1.4}),
    Target("udpecho: our plain echo", "udpecho", "mmsg", {1: 1.15, 8: 1.15, 1000: 1.15}),
    Target("scalar: Twisted's", "scalar", "twisted", {1: 1.0, 8: 1.0}),
    Target("scalar on 0.0.0.0: Twisted's", "scalar-wildcard", "twisted", {1: 1.2, 8: 1.2}),
    Target("p50 at window 1: Twisted's", "mmsg", "twisted", {1: 1.05, 8: 1.05}, 1, "p50"),
)


class Outcome(NamedTuple):
    """What was measured for a target with so many clients."""

    target: Target
    clients: int
    limit: float
    measured: float | None
    """``None`` if one of the two was not measured."""

    @property
    def verdict(self) -> str:
        """In words: ``reached``, ``not reached`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        # Compared as it is printed: nobody is to read "1.00 of 1.00: not reached".
        return "reached" if round(self.measured, 2) <= self.limit else "not reached"


class Figures:
    """The rounds measured in one place.

    Args:
        rounds: The rounds.

    Attributes:
        rounds: The same.
        contestants: Those that were measured, in the order of the tables.
        loads: The loads they were measured with.
    """

    def __init__(self, rounds: Sequence[Round]) -> None:
        self.rounds = rounds
        pairs = list(rounds[0].measures)
        names = {name for name, _ in pairs}
        self.contestants: list[Contestant] = [one for one in CONTESTANTS if one.name in names]
        self.loads = sorted({load for _, load in pairs})

    def has(self, name: str, load: Load) -> bool:
        """Tell whether a contestant was measured with a load."""
        return (name, load) in self.rounds[0].measures

    def values(self, name: str, load: Load, figure: str) -> list[float]:
        """Return a figure of each round."""
        return [getattr(one.measures[name, load], figure) for one in self.rounds]

    def median(self, name: str, load: Load, figure: str) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(self.values(name, load, figure))

    def ratio(self, name: str, base: str, load: Load, figure: str = "cpu") -> float | None:
        """Return how many times another one's figure one has: the median of each round's ratio.

        None if either was not measured.
        """
        if not self.has(name, load) or not self.has(base, load):
            return None
        both = zip(self.values(name, load, figure), self.values(base, load, figure), strict=True)
        return statistics.median(one / other for one, other in both)

    def outcomes(self) -> list[Outcome]:
        """Return what became of each target."""
        return [
            Outcome(target, clients, limit, self.ratio(target.name, target.base, load, target.figure))
            for target in TARGETS
            for clients, limit in target.limits.items()
            if (load := Load(target.window, clients)) in self.loads
        ]

    def faults(self) -> list[str]:
        """Return a line for each contestant that did not answer everything exactly once and rightly."""
        found = []
        for contestant in self.contestants:
            measures = [m for one in self.rounds for (name, _), m in one.measures.items() if name == contestant.name]
            counts = {
                what: sum(getattr(m, what) for m in measures) for what in ("altered", "duplicate", "lost", "late")
            }
            if any(counts.values()):
                told = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
                advice = self._advice(contestant.name, measures) if counts["lost"] else ""
                found.append(f"{contestant.name}: of {sum(m.sent for m in measures):,} replies {told}{advice}")
        return found

    def _advice(self, name: str, measures: list[Measure]) -> str:
        """Say what loses datagrams where nothing else is to blame: buffers that were not granted."""
        granted = [m.buffer for m in measures]
        granted += [one.servers[name]["receive_buffer"] for one in self.rounds if "receive_buffer" in one.servers[name]]
        wanted = 4 << 20
        if min(granted) >= wanted:
            return ""
        return f"; a receive buffer has {min(granted):,} bytes only: sysctl -w net.core.rmem_max={wanted}"

    def as_json(self) -> dict[str, Any]:
        """Return everything for programs."""
        return {
            "loads": [load._asdict() for load in self.loads],
            "contestants": [
                {
                    "name": contestant.name,
                    "label": contestant.label,
                    "server": [one.servers[contestant.name] for one in self.rounds],
                    "measured": [
                        self._measured(contestant.name, load) for load in self.loads if self.has(contestant.name, load)
                    ],
                }
                for contestant in self.contestants
            ],
        }

    def _measured(self, name: str, load: Load) -> dict[str, Any]:
        figures = ("cpu", "rate", "p50", "p99", "generator")
        return {
            **load._asdict(),
            "median": {figure: self.median(name, load, figure) for figure in figures},
            "ratios": {
                base: ratio
                for base in ("mmsg", "twisted", "c-mmsg")
                if (ratio := self.ratio(name, base, load)) is not None
            },
            "rounds": [one.measures[name, load]._asdict() for one in self.rounds],
        }


def needed_for_targets(contestant: Contestant, load: Load) -> bool:
    """Tell whether a quick run measures this: all with a window of 64, otherwise those that a target speaks of."""
    if load.window == 64:
        return True
    return any(contestant.name in {one.name, one.base} for one in TARGETS if one.window == load.window)
