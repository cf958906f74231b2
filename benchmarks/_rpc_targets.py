"""What ``benchmarks/rpc`` is to reach, scaled to this machine by what the same run measures of an echo server in C.

Theory of operation: the targets are microseconds of a machine on which a C server that echoes by recvmmsg and sendmmsg
takes 1.75 of them for a reply. Elsewhere that is another number, so it is measured in each round beside the
contestants, by the load generator and the floor of ``benchmarks/echo``, and the targets grow with it.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _echo_build import NotUsable
from _echo_contestants import CONTESTANTS, build
from _echo_measure import LOOPBACK, Bench, Load, MeasureFailed, Server, Volume, measure
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from _contestants import Cores, Round
    from rich.console import Console

__all__ = ["CFloor", "Outcome", "as_json", "outcomes", "print_outcomes"]

_FLOOR_THERE: Final = 1.75
"""Microseconds per reply of the C server, where the limits were set."""
_LIMITS: Final = {"server": 4.5, "client": 7.0}
"""Microseconds per call there."""
_RPCUDP: Final = 8.0
"""How many times as much rpcudp is to use."""
_VOLUME: Final = Volume(seconds=0.3, replies=0, warm_up=2000, timeout=1.0, size=64, spin=False)


class CFloor:
    """The C server, measured once in each round.

    Args:
        folder: Where to build it.
        where: The cores of both sides.

    Attributes:
        values: Microseconds of processor time per reply, one of each round.

    Raises:
        NotUsable: It cannot be built here.
    """

    def __init__(self, folder: Path, where: Cores) -> None:
        self._contestant = next(one for one in CONTESTANTS if one.name == "c-mmsg")
        self._bench = Bench(build(folder, [self._contestant]), where, LOOPBACK, _VOLUME)
        self.values: list[float] = []

    def measure(self) -> None:
        """Measure it once more.

        Raises:
            NotUsable: It failed.
        """
        try:
            with Server(self._contestant, self._bench) as server:
                self.values.append(measure(server, self._bench, Load(64, 1)).cpu)
        except MeasureFailed as error:
            raise NotUsable(str(error)) from None


class Outcome(NamedTuple):
    """What became of one target."""

    text: str
    measured: float
    limit: float
    reached: bool

    @property
    def verdict(self) -> str:
        """In words."""
        return "reached" if self.reached else "not reached"


def outcomes(results: dict[str, Sequence[Round]], floor: Sequence[float]) -> list[Outcome]:
    """Return what became of the targets.

    Args:
        results: The rounds of each contestant that was measured, by its name.
        floor: What the C server took in each round; empty if it was not measured.
    """
    found = []
    ours = results.get("twistedudp")
    if ours is None:
        return []
    for side, there in _LIMITS.items() if floor else ():
        limit = there / _FLOOR_THERE * statistics.median(floor)
        took = statistics.median(getattr(one, side) for one in ours)
        found.append(Outcome(f"µs of the {side} per call, at most", took, limit, round(took, 1) <= round(limit, 1)))
    for side in _LIMITS if "rpcudp" in results else ():
        both = zip(results["rpcudp"], ours, strict=True)
        times = statistics.median(getattr(other, side) / getattr(one, side) for other, one in both)
        found.append(Outcome(f"times as much: rpcudp's {side}, at least", times, _RPCUDP, times >= _RPCUDP))
    return found


def print_outcomes(console: Console, found: Sequence[Outcome], floor: Sequence[float]) -> None:
    """Print what became of the targets."""
    table = Table(title="Targets", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "measured", "limit", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for one in found:
        table.add_row(one.text, f"{one.measured:.1f}", f"{one.limit:.1f}", one.verdict)
    console.print(table)
    if floor:
        console.print(
            f"Limits in µs grow with C recvmmsg/sendmmsg: {statistics.median(floor):.2f} µs per echoed datagram in "
            f"this run, {_FLOOR_THERE} where they were set.",
            soft_wrap=True,
        )


def as_json(found: Sequence[Outcome], floor: Sequence[float]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "c_recvmmsg_sendmmsg": list(floor),
        "targets": [{**one._asdict(), "verdict": one.verdict} for one in found],
    }
