"""The methods of the server that is fuzzed: they take parameters of all kinds and end in every way there is."""

from __future__ import annotations

import datetime as dt  # noqa: TC003  # msgspec looks at the annotations
from dataclasses import dataclass
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, succeed

from twistedudp.errors import MethodError
from twistedudp.methods import RPCMethods, current_peer, method

from ._source import Broken

__all__ = ["NAMES", "MethodFault", "Methods", "outcome"]


class MethodFault(Exception):
    """What a method of the user's raises, and the only thing that may be in the log."""


@dataclass
class Place:
    """A parameter with fields."""

    x: float
    name: str
    tags: list[str]
    when: dt.datetime | None = None


class Methods(RPCMethods):
    """Methods that end in every way there is, at once or later."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.ran: list[str] = []
        self.waiting: list[Deferred[object]] = []
        self.shared: Deferred[object] = Deferred()

    @method
    def add(self, a: int, b: int = 1) -> int:
        """Return a sum, which may be more than msgpack carries."""
        self._run("add")
        return a + b

    @method
    def place(self, place: Place, kind: Literal["near", "far"] = "near") -> tuple[Place, str]:
        """Take and return an object."""
        self._run("place")
        return place, kind

    @method
    def end(self, how: int, value: object = None) -> object:
        """End at once, in the way of that number."""
        self._run("end")
        return succeed(value) if how < 0 else outcome(how, value)

    @method
    def wait(self) -> Deferred[object]:
        """End when a step says so."""
        self._run("wait")
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @method
    async def pause(self) -> object:
        """Do so as a coroutine, which knows its peer all the time."""
        self._run("pause")
        before = current_peer()
        self.waiting.append(Deferred())
        try:
            return await self.waiting[-1]
        finally:
            if current_peer() != before:
                raise Broken(f"the peer was {before} and is {current_peer()}")

    @method
    def share(self) -> Deferred[object]:
        """Return one Deferred to everybody."""
        self._run("share")
        if self.shared.called:
            self.shared = Deferred()
        if self.shared not in self.waiting:
            self.waiting.append(self.shared)
        return self.shared

    @method(idempotent=True)
    def look(self, value: object) -> object:
        """Do nothing that matters."""
        return value

    def _run(self, name: str) -> None:
        self.ran.append(name)


NAMES: Final = ("add", "place", "end", "wait", "pause", "share", "look", "echo", "rpc.methods", "nothing", "_run", "ä")


def outcome(how: int, value: object) -> object:
    """Return or raise what a method may."""
    ways: list[Any] = [
        value, None, "x" * 3000, object(), {1: 2}, 2**70, [[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]], float("nan"),
        MethodError("code", "message", value), MethodError("ä" * 600, "x" * 3000, object()), MethodError("", ""),
        MethodFault("a fault of the user's"),
    ]  # fmt: skip
    chosen = ways[how % len(ways)]
    if isinstance(chosen, Exception):
        raise chosen
    return chosen
