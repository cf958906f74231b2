"""One measured exchange, seen from the process that asks: a closed loop of calls, and what they cost.

Theory of operation: a process of the benchmark speaks with the program that started it by lines of JSON: what it is
told comes on its standard input, what it tells goes to its standard output. A session first makes calls that count
nothing, so that code is warm and peers know each other; then it says so, waits for the word to go on, and makes those
that count, with a fixed number of them in flight: each of so many coroutines asks, waits, compares the reply with what
was asked, and asks again. The processor time is the process's own, user and system, as the kernel accounts for it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

__all__ = ["PAYLOAD_SIZE", "Loop", "Session", "Tally", "answer_marks", "pin", "tell", "texts"]

PAYLOAD_SIZE: Final = 32
"""Bytes of the text that is echoed."""

_TEXTS: Final = 1009
"""Texts that take turns; a prime, so that no two calls in flight have the same."""


def tell(**what: object) -> None:
    """Tell the program that started this one."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def pin(core: int | None) -> None:
    """Let this process run on one core only, where a core is given."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def processor_time() -> tuple[float, float]:
    """Return the seconds that this process has used the processor for: in user and in system mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def answer_marks() -> None:
    """Begin to answer each line on standard input with the processor time so far, and end with it.

    A thread does it, which sleeps in between, so that it costs every event loop the same: nothing.
    """

    def answer() -> None:
        for _ in sys.stdin:
            user, system = processor_time()
            tell(user=user, system=system)
        os._exit(0)  # the event loop of the main thread knows nothing of it, and has nothing to lose

    threading.Thread(target=answer, daemon=True).start()


def texts() -> list[str]:
    """Return different texts of ``PAYLOAD_SIZE`` bytes."""
    return [f"{number:0{PAYLOAD_SIZE}d}" for number in range(_TEXTS)]


class Tally:
    """What became of the calls of a loop.

    Attributes:
        left: Calls not yet begun.
        latencies: Seconds that each answered call took.
        wrong: Replies that were not what was asked for.
        failed: Calls without a reply.
        failure: Why the first of them failed.
    """

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.latencies: list[float] = []
        self.wrong = 0
        self.failed = 0
        self.failure = ""


class Loop(NamedTuple):
    """A closed loop of calls, each answered before the next of the same coroutine begins."""

    call: Callable[[Any], Awaitable[Any]]
    """Makes one call and returns what can be awaited for the reply."""
    asked: Sequence[object]
    """What is asked, in turns."""
    expected: Sequence[object]
    """The right replies."""
    together: Callable[[list[Coroutine[Any, Any, None]]], Awaitable[object]]
    """Runs coroutines side by side until all have ended."""
    in_flight: int

    async def run(self, calls: int) -> Tally:
        """Make so many calls."""
        tally = Tally(calls)
        await self.together([self._one_after_the_other(tally) for _ in range(self.in_flight)])
        return tally

    async def _one_after_the_other(self, tally: Tally) -> None:
        call, asked, expected = self.call, self.asked, self.expected
        count, took, clock = len(asked), tally.latencies.append, perf_counter
        while tally.left > 0:
            tally.left -= 1
            number = tally.left % count
            began = clock()
            try:
                reply = await call(asked[number])
            except Exception as error:  # noqa: BLE001  # whatever a contestant raises, the call has failed
                tally.failed += 1
                tally.failure = tally.failure or f"{type(error).__name__}: {error}"
                continue
            took(clock() - began)
            if reply != expected[number]:
                tally.wrong += 1


class Session(NamedTuple):
    """What the asking process has to do."""

    calls: int
    warm_up: int
    in_flight: int
    port: int

    async def measure(self, run: Callable[[int], Awaitable[Tally]]) -> None:
        """Make the calls that count nothing, then those that count, and tell what they cost.

        Args:
            run: Makes so many calls.
        """
        early = await run(self.warm_up)
        tell(warm=True)
        sys.stdin.readline()
        user, system = processor_time()
        began = perf_counter()
        tally = await run(self.calls)
        seconds = perf_counter() - began
        user_after, system_after = processor_time()
        # With one latency there are no hundredths; with none, nothing was answered.
        took = tally.latencies if len(tally.latencies) > 1 else [*tally.latencies, 0.0, 0.0]
        hundredths = statistics.quantiles(took, n=100, method="inclusive")
        tell(
            user=user_after - user,
            system=system_after - system,
            seconds=seconds,
            calls=self.calls,
            wrong=tally.wrong + early.wrong,
            failed=tally.failed + early.failed,
            failure=early.failure or tally.failure,
            p50=hundredths[49],
            p99=hundredths[98],
        )
