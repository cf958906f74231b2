"""The outputs of one run of ``udpecho ping``: who is told of each event.

Theory of operation: an output is told of the start, of each event and of the end. What an output cannot write (a full
disk, a reader that went away) ends the run at once and is raised when it is over, for the prober would only log it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click

from ._arguments import Misuse
from ._output import is_open, is_terminal, one_line
from ._ping_files import CsvRows, JsonLines, WallClock
from ._ping_live import LiveDisplay, RunNames
from ._ping_plain import SHORTEST_PRINTED, PlainLines, PlainProgress
from ._ping_plot import PlotPoints
from ._ping_units import BARS, CROSS, can_show, interval_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..probing import ProbeEvent, ProbeSeries
    from ._ping_options import PingPlan
    from ._ping_report import Observed

__all__ = ["Output", "RunOutputs", "open_csv", "outputs_of"]


class Output(Protocol):
    """Something that is told of a run."""

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Begin.

        Args:
            reactor: Has timers.
            failed: Whom to tell of an error that :meth:`happened` does not raise.
        """

    def happened(self, event: ProbeEvent) -> None:
        """Take an event; what this raises ends the run."""

    def stop(self) -> None:
        """End; called once, also after an error."""


class _Notes:
    """Takes note of what the summary has no place for."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Nothing is to be started."""

    def happened(self, event: ProbeEvent) -> None:
        """Take note of an ICMP error, and of a probe that was not sent."""
        if event.kind == "unreachable":
            self._observed.unreachable = event.detail
        elif event.kind == "not_sent":
            self._observed.not_sent = event.detail

    def stop(self) -> None:
        """Nothing is to be ended."""


class RunOutputs:
    """All outputs of a run as one.

    Args:
        outputs: The outputs.
        end: Ends the run; called at most once, after an output's first error.

    Attributes:
        error: The first error of an output.
    """

    def __init__(self, outputs: list[Output], end: Callable[[], None]) -> None:
        self._outputs = outputs
        self._end = end
        self.error: Exception | None = None

    def start(self, reactor: Any) -> None:
        """Start all."""
        for output in self._outputs:
            output.start(reactor, self.failed)

    def happened(self, event: ProbeEvent) -> None:
        """Tell all of an event."""
        if self.error is not None:
            return
        try:
            for output in self._outputs:
                output.happened(event)
        except Exception as error:  # noqa: BLE001  # raised when the run is over
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Note an error, and end the run for it."""
        if self.error is None:
            self.error = error
            self._end()

    def stop(self) -> None:
        """Stop all."""
        for output in self._outputs:
            try:
                output.stop()
            except Exception as error:  # noqa: BLE001, PERF203  # as above; and the others are to be stopped as well
                self.error = self.error or error


def open_csv(name: str | None) -> TextIO | None:
    """Open the file that ``--csv`` names; None where it names none.

    Raises:
        Misuse: It cannot be written.
    """
    if name is None:
        return None
    if name == "-":
        if sys.stdout is None or not is_open(sys.stdout):
            raise Misuse("--csv -: standard output is closed")
        return sys.stdout
    try:
        return open(name, "w", encoding="utf-8", newline="")  # noqa: PTH123  # the run closes it
    except OSError as error:
        raise Misuse(f"--csv {name}: {error.strerror}; name a file that can be written") from error


def outputs_of(
    plan: PingPlan, series: ProbeSeries, address: str, observed: Observed, csv: TextIO | None
) -> tuple[list[Output], PlotPoints | None]:
    """Return the outputs that a plan asks for, and among them the points of its plot.

    Args:
        plan: What was asked for.
        series: The run.
        address: The server's address and port.
        observed: Where to note what the summary has no place for.
        csv: The file of ``--csv``.
    """
    wanted = plan.outputs
    clock = WallClock.of_now()
    outputs: list[Output] = [_Notes(observed)]
    points = PlotPoints(series) if wanted.plot else None
    if points is not None:
        outputs.append(points)
    if csv is not None:
        outputs.append(CsvRows(csv, clock, flush=wanted.csv == "-"))
    if wanted.json_lines:
        outputs.append(JsonLines(clock))
    if not (wanted.takes_stdout or wanted.quiet):
        outputs.append(_for_people(plan, series, address))
    return outputs, points


def _for_people(plan: PingPlan, series: ProbeSeries, address: str) -> Output:
    target = one_line(series.summary().target)
    title = target if target == address else f"{target} ({address})"
    if is_terminal() and not plan.outputs.plain:
        from rich.console import Console  # noqa: PLC0415  # slow to import: only for people

        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            names = RunNames(title, plan.interval, plan.count, plan.duration)
            return LiveDisplay(series, names, console, characters=can_show(BARS + CROSS + "━─"))
    secured = "" if plan.certificates is None else ", in DTLS"
    click.echo(f"udpecho ping {title}: {plan.size:,} bytes every {interval_text(plan.interval)}{secured}")
    if plan.interval < SHORTEST_PRINTED:
        return PlainProgress(series)
    return PlainLines(address=address, size=plan.size, timeout=plan.timeout)
