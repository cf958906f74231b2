"""One seed, from its plan to the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogPublisher
from zope.interface import implementer

from tests.simulated.history import History
from tests.simulated.ledger import Broken, Violation
from tests.simulated.plan import make_plan
from tests.simulated.rules import RULES
from tests.simulated.tables import Tables
from tests.simulated.world import World

if TYPE_CHECKING:
    from collections import Counter

    from twisted.logger import LogEvent

    from tests.simulated.ledger import Call
    from tests.simulated.world import ClientHost, ServerHost

__all__ = ["Outcome", "simulate"]

MOST_STEPS: Final = 100_000
"""Delayed calls of one seed: fifty times what is usual, so that one which never ends fails instead."""

SHOWN: Final = 60
"""Datagrams of the ladder diagram in a report; the replay shows all."""


class Outcome(NamedTuple):
    """What became of one seed."""

    seed: int
    violation: str
    """What did not hold; empty if all did."""
    occurred: Counter[str]
    """How often what has happened."""
    datagrams: int
    digest: str
    """Of the trace; equal in every process."""
    ladder: str
    """The end of the ladder diagram of a seed that failed, or all of it if asked for."""

    def report(self, mutant: str = "") -> str:
        """What to print of a seed that failed.

        Args:
            mutant: The mutant that was in place, if there was one.
        """
        arguments = f"{self.seed} --mutant {mutant}" if mutant else f"{self.seed}"
        return (
            f"seed {self.seed}: {self.violation}\n\n{self.ladder}\n"
            f"replay it, with the whole diagram, by: ./scripts/simulate {arguments}\n"
        )


@implementer(ILogObserver)
class _Mistakes:
    """Keeps the errors that are logged, but for those that methods raise on purpose."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        """Look at an event."""
        if event["log_level"] >= LogLevel.error:
            failure: Any = event.get("log_failure")
            if failure is None or not failure.check(Broken):
                self.texts.append(eventAsText(event))


def simulate(seed: int, *, ladder: bool = False) -> Outcome:
    """Run a seed and check everything.

    Args:
        seed: The seed.
        ladder: Whether to draw all of the ladder diagram in any case.
    """
    mistakes = _Mistakes()
    globalLogPublisher.addObserver(mistakes)
    call, violation = None, ""
    try:
        world = World(make_plan(seed))
        try:
            _live(world, mistakes)
            _look_back(world)
        except Violation as error:
            violation, call = str(error), error.call
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing may be raised, and it is to be replayed
            violation = f"nothing raises: {type(error).__name__}: {error}"
    finally:
        globalLogPublisher.removeObserver(mistakes)
    drawn = ""
    if ladder:
        drawn = world.network.explain()
    elif violation:
        drawn = _drawn(world, call)
    return Outcome(
        seed, violation, world.ledger.occurred, len(world.network.trace), world.network.trace.digest(), drawn
    )


def _drawn(world: World, call: Call | None) -> str:
    """Return the part of the ladder diagram that tells what went wrong."""
    if call is None:
        return world.network.explain(last=SHOWN)
    client = world.clients[call.plan.client]
    hosts = (client.reactor, *(server.reactor for server in world.servers))
    return world.network.explain(*hosts, since=call.started, until=min(call.ended, world.plan.ends_at), last=SHOWN)


def _live(world: World, mistakes: _Mistakes) -> None:
    """Let everything happen, then stop everything."""
    tables = Tables(world)
    clock = world.network.clock
    steps = 0

    def run(until: float) -> None:
        nonlocal steps
        while clock.step(until):
            steps += 1
            tables.check()
            if mistakes.texts:
                raise Violation("no error is logged", mistakes.texts[0])
            if steps > MOST_STEPS:
                raise Violation("it comes to an end", f"{steps} delayed calls have run at {clock.seconds()} s")
        clock.advance(until - clock.seconds())

    run(world.plan.ends_at)
    world.running = False
    stopped: list[Any] = []
    for hosts in (world.clients, world.servers) if world.plan.seed % 2 else (world.servers, world.clients):
        for host in hosts:
            deferreds: Any = host.stop(None)
            stopped += deferreds
        tables.check()
        run(clock.seconds() + 1.0)
    if not all(deferred.called for deferred in stopped):
        raise Violation("everything stops", "the Deferred of a stopService() has not fired")
    _check_leftovers(world)
    sent, fired = _programs_did(world)
    run(clock.seconds() + 100.0)
    if (sent, fired) != _programs_did(world):
        raise Violation("what is stopped is silent", f"{sent, fired} became {_programs_did(world)}")


def _programs_did(world: World) -> tuple[int, int]:
    sent = sum(datagram.error is None for _, _, datagram in world.network.sent)
    return sent, sum(call.fired for call in world.ledger.calls)


def _check_leftovers(world: World) -> None:
    hosts: tuple[ClientHost | ServerHost, ...] = (*world.clients, *world.servers)
    for host in hosts:
        calls, ports = host.reactor.getDelayedCalls(), host.reactor.ports
        if calls or ports:
            raise Violation("nothing is left behind", f"{host.name} has {calls} and {ports}")


def _look_back(world: World) -> None:
    history = History(world)
    for rule in RULES:
        rule(history)
    occurred = world.ledger.occurred
    for nat in world.nats:
        occurred["NATRebinding"] += nat.rebound
    for life in world.ledger.client_lives:
        stats = life.requester.stats
        for name in (
            "answered",
            "errors",
            "busy",
            "timed_out",
            "refused",
            "suspended",
            "too_many",
            "aborted",
            "queued",
        ):
            occurred[name] += getattr(stats, name)
        for name in ("late", "duplicate", "retransmitted", "retry_ports_short", "notifications_dropped", "unproven"):
            occurred[name] += getattr(stats, name)
        occurred["rejected"] += stats.rejected.total()
    for server in world.ledger.server_lives:
        occurred["repeated"] += server.protocol.stats.repeated
        occurred["withheld"] += server.protocol.stats.withheld
        occurred["released"] += server.protocol.stats.released
    occurred["tampered"] += len(history.tampered)
