"""What the programs on the simulated network asked for and got, kept for the rules to compare with the trace.

Theory of operation: each call carries its own number, the *token*, and so does every result: with the server's life
that ran it, the number of the run, and for whom it ran. So each result tells which run it comes from.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twistedudp import RPCMethods, current_peer, errors, method

if TYPE_CHECKING:
    from tests.simulated.plan import CallPlan
    from twistedudp._pump import RequestPump
    from twistedudp.address import Address
    from twistedudp.client import UDPClientService
    from twistedudp.core import Requester
    from twistedudp.protocol import RPCServerProtocol
    from twistedudp.testing import SimulatedReactor

__all__ = ["Broken", "Call", "ClientLife", "Ledger", "Run", "ServerLife", "Tasks", "Violation"]

LONGEST_TASK = 30_000
"""Milliseconds; a flipped bit may make a request ask for more."""

LARGEST_REPLY = 2_000
"""Characters; likewise."""


class Violation(Exception):
    """Something that must hold does not.

    Attributes:
        rule: Its name.
        call: The call that it is about, if it is about one.
    """

    def __init__(self, rule: str, text: str, call: Call | None = None) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.call = call


class Broken(Exception):
    """What a method raises that is broken on purpose."""


class Run(NamedTuple):
    """One run of a method on one life of a server."""

    token: object
    method: str
    peer: Address
    value: list[object]


@dataclass(eq=False)
class ServerLife:
    """A server from its start to its stop or crash."""

    number: int
    host: int
    addresses: tuple[str, ...]
    protocol: RPCServerProtocol
    born: int
    """How many fates had been decided in the trace."""
    died: float = math.inf
    """The same at its end."""
    crashed: bool = False
    runs: list[Run] = field(default_factory=list)
    notes: int = 0


@dataclass(eq=False)
class ClientLife:
    """A client from its start to its stop."""

    client: int
    service: UDPClientService
    pump: RequestPump
    calls: list[Call] = field(default_factory=list)
    waiting: int = 0
    """Calls whose Deferred has not fired."""
    stopping: bool = False
    closed: bool = False
    """Whether the Deferred of ``stopService()`` has fired."""
    overtaken: int = 0
    """Calls that were cancelled when their outcome was there already, but not yet delivered."""

    @property
    def requester(self) -> Requester:
        """Its core."""
        return self.pump.requester


@dataclass(eq=False)
class Call:
    """One call and what became of it."""

    token: int
    plan: CallPlan
    life: ClientLife
    started: float
    payload: bytes | None = None
    """The bytes that were sent, for ``echo_bytes``."""
    deferred: Deferred[Any] | None = None
    fired: int = 0
    ended: float = math.inf
    result: Any = None
    error: BaseException | None = None
    cancelled: bool = False
    """Whether its caller gave it up."""
    at_once: bool = False
    """Whether it failed before its Deferred was returned."""

    def __str__(self) -> str:
        plan = self.plan
        return f"call {self.token} ({plan.method} of client {plan.client}, {plan.timeout:.6g} s, at {self.started:.6f})"


class Ledger:
    """Everything that was asked for and what came of it.

    Attributes:
        calls: The calls, by token.
        client_lives: All lives of all clients.
        server_lives: All lives of all rpc servers.
        produced: What runs have returned, by token.
        occurred: How often what has happened.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.client_lives: list[ClientLife] = []
        self.server_lives: list[ServerLife] = []
        self.produced: defaultdict[object, list[list[object]]] = defaultdict(list)
        self.occurred: Counter[str] = Counter()


class Tasks(RPCMethods):
    """What the servers serve: every method notes that it runs, and returns what tells which run it was."""

    def __init__(self, ledger: Ledger, reactor: SimulatedReactor) -> None:
        self._ledger = ledger
        self._reactor = reactor
        self.life: ServerLife | None = None

    def _run(self, name: str, token: int, reply: int) -> list[object]:
        life, peer = self.life, current_peer()
        assert life is not None
        value: list[object] = [life.number, len(life.runs), token, peer.host, peer.port]
        value.append("x" * min(max(reply, 0), LARGEST_REPLY))
        life.runs.append(Run(token, name, (peer.host, peer.port), value))
        self._ledger.produced[token].append(value)
        return value

    def _later(self, milliseconds: int) -> Deferred[None]:
        seconds = min(max(milliseconds, 0), LONGEST_TASK) / 1000
        return deferLater(self._reactor, seconds, lambda: None)

    @method
    def work(self, token: int, how: str, reply: int, milliseconds: int, pad: bytes) -> object:
        """Answer at once, later, with an error, or not at all."""
        value = self._run("work", token, reply)
        if how == "later":
            return self._later(milliseconds).addCallback(lambda _: value)
        if how == "coroutine":
            return self._coroutine(value, milliseconds)
        if how == "fail":
            raise errors.MethodError("refused", "as was asked for", value)
        if how == "broken":
            raise Broken
        return Deferred() if how == "never" else value

    async def _coroutine(self, value: list[object], milliseconds: int) -> list[object]:
        await self._later(milliseconds)
        return value

    @method(idempotent=True)
    def look(self, token: int, how: str, reply: int, milliseconds: int, pad: bytes) -> object:
        """Answer at once, as often as asked."""
        return self._run("look", token, reply)

    @method
    def note(self, token: int) -> None:
        """Take a notification."""
        assert self.life is not None
        self.life.notes += 1
