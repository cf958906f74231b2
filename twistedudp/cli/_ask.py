"""One question to one server on the reactor.

Theory of operation: ``task.react`` ends the process by itself, with status 0 after Ctrl-C and a traceback after an
error, so the reactor is run here: until the question's Deferred fires, or until SIGINT cancels it. Then the loop is
left by ``crash``, which skips only the system event triggers: what they would do here is wait for the thread pool, in
which a look-up of a name may hang. The client's own port and timers are gone by then, for the question runs inside
its ``async with``.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..client import UDPClientService
from ._failures import Interrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import FrameType

    from twisted.internet.base import ReactorBase

    from .._resolve import AddressFamily
    from ..dtls import DTLSContext
    from ._options import Certificates

__all__ = ["Server", "ask", "client_context", "run_until_done"]

_T = TypeVar("_T")


class Server(NamedTuple):
    """Whom to ask, and for how long."""

    host: str
    port: int
    timeout: float
    """Seconds."""
    family: AddressFamily | None
    """``"ipv4"``, ``"ipv6"``, or ``None`` for either."""
    certificates: Certificates | None = None
    """For DTLS, ``None`` for plain UDP."""


def ask(server: Server, question: Callable[[UDPClientService], Awaitable[_T]]) -> _T:
    """Return the answer to a question, a coroutine function that is given a running client.

    Raises:
        Interrupted: SIGINT came first.
        TwistedUDPError: As the client has it, or a file of a certificate cannot be used.
    """
    dtls = None if server.certificates is None else client_context(server.certificates)

    async def asking(reactor: ReactorBase) -> _T:
        async with UDPClientService(
            reactor, server.host, server.port, timeout=server.timeout, address_family=server.family, dtls=dtls
        ) as client:
            return await question(client)

    return run_until_done(asking)


def client_context(certificates: Certificates) -> DTLSContext:
    """Return what ``--dtls`` and its companions ask for.

    Raises:
        DTLSUnavailable: The extra is not installed.
        DTLSConfigurationError: A file cannot be used.
    """
    from ..dtls import DTLSContext  # noqa: PLC0415  # OpenSSL: an extra, which not everybody has

    ca, certificate, key = certificates
    return DTLSContext.client(ca=ca, certificate=certificate, key=key)


def run_until_done(
    asking: Callable[[ReactorBase], Coroutine[Deferred[Any], Any, _T]],
    *,
    on_interrupt: Callable[[], object] | None = None,
) -> _T:
    """Run the reactor until a coroutine has ended, and return its result.

    Args:
        asking: A coroutine function that is given the reactor, once that runs.
        on_interrupt: What the first SIGINT does, in the reactor: it is to bring the coroutine to its end. None cancels
            the coroutine, and so does a second SIGINT.

    Raises:
        Interrupted: SIGINT cancelled the coroutine.
    """
    from twisted.internet import reactor as installed  # noqa: PLC0415  # importing it installs it

    # What Twisted installs is one; its annotation names interfaces that lack crash().
    reactor = cast("ReactorBase", installed)
    return _Running(reactor, asking, on_interrupt).result()


class _Running(Generic[_T]):
    """A coroutine on the reactor, and what SIGINT does to it."""

    def __init__(
        self,
        reactor: ReactorBase,
        asking: Callable[[ReactorBase], Coroutine[Deferred[Any], Any, _T]],
        on_interrupt: Callable[[], object] | None,
    ) -> None:
        self._reactor = reactor
        self._asking = asking
        self._on_interrupt = on_interrupt
        self._waiting: list[Deferred[_T]] = []
        self._outcome: list[_T | Failure] = []
        self._cancelled = False

    def result(self) -> _T:
        """Run the reactor until there is one."""
        signal.signal(signal.SIGINT, self._interrupt)
        self._reactor.callWhenRunning(self._begin)
        self._reactor.run(installSignalHandlers=False)
        if self._cancelled:
            raise Interrupted
        (result,) = self._outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def _begin(self) -> None:
        self._waiting.append(Deferred.fromCoroutine(self._asking(self._reactor)))
        self._waiting[0].addBoth(self._finish)

    def _finish(self, result: _T | Failure) -> None:
        self._outcome.append(result)
        self._reactor.crash()

    def _cancel(self) -> None:
        self._waiting[0].cancel()

    def _interrupt(self, signum: int, _frame: FrameType | None) -> None:
        first, self._on_interrupt = self._on_interrupt, None
        if first is not None:
            self._reactor.callFromThread(first)
            return
        # Once is enough: what follows is short, and another Ctrl-C would only tear it.
        signal.signal(signum, signal.SIG_IGN)
        self._cancelled = True
        # Not at once: what is running now, the question's own first steps perhaps, shall come to its end.
        self._reactor.callFromThread(self._cancel)
