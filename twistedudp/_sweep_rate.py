"""The highest rate at which a path to a server and back loses nothing.

Theory of operation: one series of probes for each rate tried, which :class:`~.probing._search.RateSearch` chooses: from
a low one, doubling until something is lost, then between the bounds, and the rate found several times again. Whether
what was lost was lost by the network is a question of its own: this machine may be too slow to send in time, refuse to
send, or drop answers for which its receive buffer has no room. Then the step says so, is tried once more, and what ends
the search is "this machine", not the network.

A bucket that lets bursts pass (a rate limit's) makes a rate pass that would not for longer: what it holds, divided by
the seconds of a step, is by how much the rate found may be too high.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ._prober import Prober, Schedule, new_series
from .address import format_address
from .probing import DEFAULT_PROBE_SIZE, DEFAULT_WINDOW
from .probing._search import RateSearch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .address import Address
    from .probing import ProbeEvent, ProbeSeries, Summary

__all__ = ["DEFAULT_MOST_RATE", "FIRST_RATE", "RESOLUTION", "RateStep", "RateSweep", "sweep_rate"]

DEFAULT_MOST_RATE: Final = 10_000.0
"""Probes in a second that are not exceeded unless the caller says so: with 64 bytes each 8.5 Mbit/s on Ethernet, both
ways. More is easily taken for an attack, and past four times as much one core cannot keep to its times."""

FIRST_RATE: Final = 20.0
"""Probes in a second to begin with: nothing that is meant to be used loses any at that."""

RESOLUTION: Final = 0.05
"""How near to each other, as a share, the rate found and the lowest one that loses are."""

CONFIRMATIONS: Final = 2
"""How often the rate found has to pass again."""

MOST_STEPS: Final = 60
"""Rates tried at most: a limit that moves is not found in any number of steps."""

PAUSE: Final = 0.1
"""Seconds between two steps at least, in which queues empty and buckets fill."""

LEAST_PROBES: Final = 20
"""Probes in a step; where the rate is low it takes longer for them."""

ON_TIME: Final = 0.97
"""Share of the rate asked for that this machine must have sent, or it is this machine that is measured."""

LATE: Final = 0.02
"""Seconds by which one in a hundred probes may leave late before what is lost is put down to the bursts that follow."""

_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class RateStep:
    """One rate tried.

    Attributes:
        stage: ``"search"``, or ``"check"`` of the rate found.
        rate: Probes per second asked for.
        achieved: Probes per second that left this machine.
        outcome: ``"passed"``, ``"lost"``, ``"this machine"`` where that is what was measured, or ``"no answer"``.
        sent: Probes sent.
        lost: Of these, those without an answer in time.
        loss: Their share, 0 to 1.
        lost_there: Those that did not reach the server, where it tells; None otherwise.
        p99: Seconds; of the round trips; None where there are none.
        detail: What this machine did wrong, or what ICMP says where nothing answers, in words; empty otherwise.
        passes: The highest rate that has passed by now; None where none has.
        too_fast: The lowest one that has not; None where all have.
    """

    stage: str
    rate: float
    achieved: float
    outcome: str
    sent: int
    lost: int
    loss: float
    lost_there: int | None
    p99: float | None
    detail: str
    passes: float | None
    too_fast: float | None

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class RateSweep:
    """What a sweep over rates has found.

    Attributes:
        address: The server's address and port.
        size: Bytes of each probe's payload.
        highest: Probes per second, the highest rate that passed, also when it was tried again; None where none did.
        lost_at: The lowest rate at which more was lost than allowed; None where that was never seen.
        bound: What ends it: ``"loss"``; ``"most_rate"``, the highest one asked for passes; ``"this machine"``, which
            cannot send faster or take in more answers; ``"no answer"`` at all; ``"steps"``, for the limit moves.
        confirmed: Whether the rate found passed as often as it was tried again.
        detail: What ended it on this machine, in words; empty otherwise.
        most_rate: As asked for, likewise the next.
        max_loss: Share of lost probes that counts as none.
        seconds_per_step: Seconds.
        resolution: How near ``lost_at`` is to ``highest``, as a share.
        steps: Each rate tried, in order.
    """

    address: str
    size: int
    highest: float | None
    lost_at: float | None
    bound: str
    confirmed: bool
    detail: str
    most_rate: float
    max_loss: float
    seconds_per_step: float
    resolution: float
    steps: tuple[RateStep, ...]

    def as_json(self) -> dict[str, object]:
        """Return it as the object that ``udpecho ping --sweep-rate --json`` prints."""
        return {"format": 1, **asdict(self)}


def sweep_rate(
    reactor: Any,
    peer: Address,
    *,
    size: int = DEFAULT_PROBE_SIZE,
    most_rate: float = DEFAULT_MOST_RATE,
    max_loss: float = 0.0,
    seconds_per_step: float = 1.0,
    timeout: float = 1.0,
    interface: str = "",
    on_step: Callable[[RateStep], object] | None = None,
) -> Deferred[RateSweep]:
    """Find the highest rate at which nothing is lost.

    Args:
        reactor: Any reactor, real or simulated.
        peer: The server's numeric address and its port; any echo server, or an rpc server of ours.
        size: Bytes of each probe's payload.
        most_rate: Probes per second that are never exceeded.
        max_loss: Share of lost probes that counts as none, 0 to 1.
        seconds_per_step: Seconds for which each rate is tried; longer at rates below 20 per second.
        timeout: Seconds after which an answer counts as lost.
        interface: The local address to send from; empty for what the kernel chooses.
        on_step: Called with each step as it ends.

    Returns:
        A Deferred that fires with a :class:`RateSweep`, whatever the network does; cancelling it ends the sweep. It
        fails as :meth:`~twistedudp._prober.Prober.run` does where this machine has no port or no address to send from.

    Raises:
        ValueError: A number is out of its range.
    """
    if not (most_rate > 0 and seconds_per_step > 0 and timeout > 0 and 0 <= max_loss < 1):
        raise ValueError(
            f"most_rate={most_rate}, seconds_per_step={seconds_per_step} and timeout={timeout} must be above 0, and "
            f"max_loss={max_loss} at least 0 and below 1"
        )
    new_series("", peer, size=size, interval=1.0)  # a size that no probe has is refused at once
    search = RateSearch(FIRST_RATE, most_rate, resolution=RESOLUTION, confirmations=CONFIRMATIONS)

    async def run_step(rate: float) -> _Ran:
        # What follows the last probe of the step before too closely would belong to its rate.
        await deferLater(reactor, max(PAUSE, 1 / rate))
        count = round(rate * max(seconds_per_step, LEAST_PROBES / rate))
        window = max(DEFAULT_WINDOW, int(2 * rate * timeout))
        series = new_series("", peer, size=size, interval=1 / rate, timeout=timeout, window=window)
        return await _run_series(reactor, peer, series, Schedule(round(_NS / rate), count), interface)

    async def run() -> RateSweep:
        sweep = _Sweep(search, run_step, max_loss, on_step)
        await sweep.run()
        return sweep.found(format_address(peer), size, most_rate, seconds_per_step)

    return Deferred.fromCoroutine(run())


@dataclass(frozen=True)
class _Ran:
    """What came of a series."""

    summary: Summary
    achieved: float
    dropped_here: int
    refusal: str
    error: str = ""
    """Why the own kernel did not send; empty where it did, or does not say."""


async def _run_series(reactor: Any, peer: Address, series: ProbeSeries, schedule: Schedule, interface: str) -> _Ran:
    """Run a series, and see how fast it left and what the own receive buffer dropped."""
    last_ns = -1
    refusal = ""

    def on_event(event: ProbeEvent) -> None:
        nonlocal last_ns, refusal
        last_ns = max(last_ns, event.sent_ns)
        if event.kind == "unreachable":
            refusal = event.detail

    prober = Prober(reactor, peer, series, schedule, interface=interface, on_event=on_event)
    running = prober.run()
    port: Any = prober.port
    summary = await running
    count = schedule.count or 0
    planned_ns = (count - 1) * schedule.interval_ns
    took_ns = max(last_ns - series.started_ns, planned_ns)
    achieved = summary.sent / count * planned_ns / took_ns * _NS / schedule.interval_ns
    stats = getattr(port, "stats", None)
    if stats is None:
        return _Ran(summary, achieved, 0, refusal)
    error = ", ".join(os.strerror(number) for number in sorted(stats.send_errors))
    return _Ran(summary, achieved, int(stats.dropped_by_kernel), refusal, error)


class _Sweep:
    """A sweep while it runs.

    Attributes:
        steps: The steps so far.
        local_cause: What this machine did wrong where that ended the search; empty otherwise.
    """

    def __init__(
        self,
        search: RateSearch,
        run_step: Callable[[float], Any],
        max_loss: float,
        on_step: Callable[[RateStep], object] | None,
    ) -> None:
        self.steps: list[RateStep] = []
        self.local_cause = ""
        self._search = search
        self._run_step = run_step
        self._max_loss = max_loss
        self._on_step = on_step

    async def run(self) -> None:
        """Try rates until the highest is found."""
        while len(self.steps) < MOST_STEPS:
            rate = self._search.next_rate()
            if rate is None or (self.steps and self.steps[-1].outcome == "no answer"):
                break
            stage = "check" if rate == self._search.highest else "search"
            if await self._try(stage, rate, last=False) != "this machine":
                continue
            if not self.steps[-1].sent:  # no other rate will do better
                self.local_cause = self.steps[-1].detail
                break
            await self._try(stage, rate, last=True)  # something else may have run on it

    def lost_at(self) -> float | None:
        """Return the lowest rate at which the network has lost, among those above the one found."""
        lost = [step.rate for step in self.steps if step.outcome == "lost" and step.rate > (self._search.highest or 0)]
        return min(lost, default=None)

    def bound(self, most_rate: float) -> str:
        """Return what ends the search."""
        if self._search.highest is None and self.steps[-1].outcome == "no answer":
            return "no answer"
        if self.local_cause and not self.steps[-1].sent:
            return "this machine"
        if self._search.next_rate() is not None:
            return "steps"
        if self.local_cause:
            return "this machine"
        return "loss" if self.lost_at() is not None or (self._search.highest or 0) < most_rate else "most_rate"

    def found(self, address: str, size: int, most_rate: float, seconds_per_step: float) -> RateSweep:
        """Return the result; the arguments are what else it says."""
        return RateSweep(
            address=address,
            size=size,
            highest=self._search.highest,
            lost_at=self.lost_at(),
            bound=self.bound(most_rate),
            confirmed=self._search.confirmed,
            detail=self.local_cause,
            most_rate=most_rate,
            max_loss=self._max_loss,
            seconds_per_step=seconds_per_step,
            resolution=RESOLUTION,
            steps=tuple(self.steps),
        )

    async def _try(self, stage: str, rate: float, *, last: bool) -> str:
        """Try a rate, and tell the search unless it is to be tried again."""
        ran = await self._run_step(rate)
        summary, cause = ran.summary, _local_cause(ran, rate)
        loss = summary.loss or 0.0
        passes = loss <= self._max_loss
        if not summary.received:
            outcome = "no answer" if not self._search.highest and not cause else "this machine" if cause else "lost"
        elif cause and not (passes and ran.achieved >= rate * ON_TIME):
            outcome = "this machine"
        else:
            outcome = "passed" if passes else "lost"
        if outcome == "passed":
            self._search.passed(rate)
        elif outcome in ("lost", "no answer"):
            self._search.failed(rate)
        elif last:
            self.local_cause = cause
            if passes and summary.received:
                self._search.limited(ran.achieved)
            else:
                self._search.failed(rate)
        self._note(stage, rate, outcome, ran, cause)
        return outcome

    def _note(self, stage: str, rate: float, outcome: str, ran: _Ran, cause: str) -> None:
        summary = ran.summary
        step = RateStep(
            stage,
            rate,
            ran.achieved,
            outcome,
            summary.sent,
            summary.lost,
            summary.loss or 0.0,
            summary.lost_there,
            summary.rtt.p99,
            {"this machine": cause, "no answer": ran.refusal}.get(outcome, ""),
            self._search.highest,
            self._search.too_fast,
        )
        self.steps.append(step)
        if self._on_step is not None:
            self._on_step(step)


def _local_cause(ran: _Ran, rate: float) -> str:
    """Return in words what this machine has done to a series; empty where it did as it should."""
    summary = ran.summary
    late = summary.schedule_error.p99 or 0.0
    if summary.not_sent:
        return f"it did not send {summary.not_sent:,} of its probes" + (f" ({ran.error})" if ran.error else "")
    if ran.dropped_here:
        return f"its receive buffer had no room for {ran.dropped_here:,} answers"
    if summary.oddities.get("window_full"):
        return "more probes were under way at once than are remembered"
    if ran.achieved < rate * ON_TIME:
        return f"it sent {ran.achieved:,.0f} probes per second instead of {rate:,.0f}"
    if late > LATE:
        return f"one in a hundred of its probes left more than {late * 1000:,.0f} ms late"
    return ""
