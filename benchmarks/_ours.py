"""twistedudp: what its users run, with everything switched on that is on by default."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from _session import Loop, texts
from twisted.internet import defer, reactor, task

from twistedudp import RPCMethods, UDPClientService, UDPServerService, method

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from _session import Session

__all__ = ["ask", "client_options", "serve"]

_reactor: Any = reactor  # Twisted declares a module here


class Echo(RPCMethods):
    """One method that may run only once, and one that may run again."""

    @method
    def repeat(self, text: str) -> str:
        """Return the text."""
        return text

    @method(idempotent=True)
    def read(self, text: str) -> str:
        """Return the text."""
        return text


def client_options(window: int) -> dict[str, Any]:
    """Return the keywords of a client that may have so many requests in flight at one peer."""
    known = inspect.signature(UDPClientService).parameters
    return {"window": window} if "window" in known else {}


def serve(_: str, ready: Callable[[int], None]) -> None:
    """Serve for ever."""
    server = UDPServerService(_reactor, 0, Echo())
    server.startService()
    assert server.address is not None  # noqa: S101  # it has started
    ready(server.address[1])
    _reactor.run()


def ask(name: str, session: Session) -> None:
    """Make the calls of a session; ends with SystemExit."""
    idempotent = name == "idempotent"

    def together(running: list[Coroutine[Any, Any, None]]) -> defer.Deferred[Any]:
        return defer.gatherResults([defer.Deferred.fromCoroutine(one) for one in running], consumeErrors=True)

    async def main(_: object) -> None:
        options = client_options(session.in_flight)
        async with UDPClientService(_reactor, "127.0.0.1", session.port, **options) as client:
            call = partial(client.call, "read" if idempotent else "repeat", idempotent=idempotent)
            loop = Loop(call, texts(), texts(), together, session.in_flight)
            await session.measure(loop.run)

    task.react(lambda running: defer.Deferred.fromCoroutine(main(running)))
