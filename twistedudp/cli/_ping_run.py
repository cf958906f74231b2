"""One run of ``udpecho ping``, from a plan to the exit status.

Theory of operation: the reactor runs a coroutine that finds the server's address and lets a prober work; then, without
the reactor, the figures are printed and judged. The first Ctrl-C stops the prober, whose summary is what there is; one
that comes while the name is still being looked up ends the command.
"""

from __future__ import annotations

import gc
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from twisted.internet.defer import CancelledError, Deferred

from .._prober import Prober, Schedule, new_series
from ..address import format_address
from ..probing import DEFAULT_WINDOW
from ._ask import client_context, run_until_done
from ._failures import Interrupted
from ._output import is_terminal, one_line, print_json
from ._ping_options import window_for
from ._ping_outputs import RunOutputs, open_csv, outputs_of
from ._ping_peer import addresses_of, answering_one, shaken_one
from ._ping_plot import checked_plot_file, draw, load_matplotlib
from ._ping_report import Observed, exceeded, nothing_came, remarks, report_lines, run_as_json
from ._ping_units import BARS, can_show

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from .._resolve import AddressFamily
    from .._secure_probes import ProbeSessions
    from ..address import Address
    from ..dtls import DTLSContext
    from ..probing import ProbeSeries, Summary
    from ._ping_options import Outputs, PingPlan
    from ._ping_plot import PlotPoints

__all__ = ["WIDEST", "run_ping"]

WIDEST = 120
"""Columns of the histogram at most: longer bars tell no more."""

ANSWERED, NOT = 0, 1


class _Ended(NamedTuple):
    """A run that is over."""

    summary: Summary
    series: ProbeSeries
    points: PlotPoints | None


class _Run:
    """One run on the reactor.

    Args:
        plan: What was asked for.
        family: The address family that was asked for.
        csv: The file of ``--csv``.
        context: The certificates for DTLS, None for plain UDP.

    Attributes:
        observed: What was seen beside the figures.
    """

    def __init__(
        self, plan: PingPlan, family: AddressFamily | None, csv: TextIO | None, context: DTLSContext | None
    ) -> None:
        self.observed = Observed()
        self._plan = plan
        self._family = family
        self._csv = csv
        self._context = context
        self._sessions: ProbeSessions | None = None
        self._finding: Deferred[Address] | None = None
        self._prober: Prober | None = None

    async def on(self, reactor: Any) -> _Ended:
        """Run to the end."""
        self._finding = Deferred.fromCoroutine(self._find(reactor))
        try:
            peer = await self._finding
        except CancelledError:
            raise Interrupted from None
        return await self._probe(reactor, peer)

    def interrupted(self) -> None:
        """End what is under way: the look-up without a result, the probing with what there is."""
        if self._prober is not None:
            self._prober.stop()
        elif self._finding is not None:
            self._finding.cancel()

    async def _find(self, reactor: Any) -> Address:
        plan = self._plan
        addresses = await addresses_of(reactor, plan.host, plan.port, self._family)
        if self._context is None:
            return await answering_one(reactor, addresses)
        self._sessions = await shaken_one(reactor, addresses, plan.host, self._context, plan.timeout)
        self.observed.sessions = self._sessions.counts
        return self._sessions.peer

    async def _probe(self, reactor: Any, peer: Address) -> _Ended:
        plan = self._plan
        plan.check_peer(peer[0])
        series = new_series(
            format_address((plan.host, plan.port)),
            peer,
            size=plan.size,
            interval=plan.interval,
            timeout=plan.timeout,
            window=window_for(plan.interval, plan.timeout, DEFAULT_WINDOW),
        )
        outputs, points = outputs_of(plan, series, format_address(peer), self.observed, self._csv)
        schedule = Schedule(
            max(1, round(plan.interval * 1e9)),
            plan.count,
            None if plan.duration is None else round(plan.duration * 1e9),
        )
        told = RunOutputs(outputs, self.interrupted)
        self._prober = Prober(reactor, peer, series, schedule, on_event=told.happened, way=self._sessions)
        self.observed.strangers = self._prober.strangers
        _settle_memory()
        told.start(reactor)
        try:
            summary = await self._prober.run()
        finally:
            told.stop()
        if told.error is not None:
            raise told.error
        return _Ended(summary, series, points)


def _settle_memory() -> None:
    """Keep what is loaded out of the garbage collector's sight: walking over it takes longer than a probe may wait."""
    gc.collect()
    gc.freeze()


def run_ping(plan: PingPlan, family: AddressFamily | None) -> int:
    """Run a plan and print what came of it.

    Args:
        plan: What was asked for.
        family: The address family that was asked for.

    Returns:
        The exit status.

    Raises:
        Misuse: A file cannot be written, or the size does not suit the address.
        HostNotFound: The name does not resolve.
        Interrupted: Ctrl-C came before the first probe, or a second time.
    """
    picture = checked_plot_file(plan.outputs.plot) if plan.outputs.plot else None
    if picture is not None:
        load_matplotlib()
    context = None if plan.certificates is None else client_context(plan.certificates)
    csv = open_csv(plan.outputs.csv)
    run = _Run(plan, family, csv, context)
    try:
        ended = run_until_done(run.on, on_interrupt=run.interrupted)
    except OSError as error:
        raise _named(error, plan, csv) from error
    finally:
        if csv is not None and plan.outputs.csv != "-":
            with suppress(OSError):  # the run's end has flushed it, and told of what went wrong
                csv.close()
    return _tell(plan, ended, run.observed, picture)


def _named(error: OSError, plan: PingPlan, csv: TextIO | None) -> OSError:
    """Return an error that names the file which could not be written."""
    if csv is None or plan.outputs.csv == "-" or isinstance(error, BrokenPipeError):
        return error
    return OSError(error.errno, f"{plan.outputs.csv}: {error.strerror or error}")


def _tell(plan: PingPlan, ended: _Ended, observed: Observed, picture: Path | None) -> int:
    """Print a run that is over, and return the exit status."""
    summary, series = ended.summary, ended.series
    outputs = plan.outputs
    if outputs.json:
        print_json(run_as_json(summary, observed), compact=True)
    elif outputs.json_lines:
        print_json({"event": "summary", **run_as_json(summary, observed)}, compact=True)
    elif not outputs.takes_stdout:
        _print_report(summary, series, observed, outputs)
    if picture is not None and ended.points is not None:
        draw(picture, summary, ended.points, series.rtt.buckets())
    if not summary.received:
        return _complain(nothing_came(summary, observed))
    beyond = exceeded(summary, plan.limits)
    return _complain(beyond) if beyond else ANSWERED


def _print_report(summary: Summary, series: ProbeSeries, observed: Observed, outputs: Outputs) -> None:
    columns = shutil.get_terminal_size().columns if is_terminal() else 80
    lines = report_lines(
        summary,
        series.rtt.buckets(),
        width=max(40, min(columns - 1, WIDEST)),
        blocks=can_show(BARS + "▏"),
        sessions=observed.sessions,
    )
    notes = [f"note: {text}" for text in remarks(summary, observed)] if summary.received else []
    # Below the lines of the run, and below the ^C that ended it.
    gap = [""] if not (outputs.quiet or (is_terminal() and not outputs.plain)) else []
    click.echo("\n".join([*gap, *lines, *([""] if notes else []), *notes]))


def _complain(text: str) -> int:
    click.echo(f"udpecho: {one_line(text)}", err=True)
    return NOT
