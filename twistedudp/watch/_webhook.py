"""Posting each change of a target's state to a URL, as JSON.

Theory of operation: one POST at a time, so that changes arrive in their order. What may pass (no connection, a timeout,
status 408, 429 and 5xx) is tried again with growing pauses, and what will not (any other status) is not. An answer's
body is read to a bound and thrown away. No connection is kept between two changes, which may be days apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from .._alarm import steady_clock
from ..errors import LocalError
from ._notify import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from ._watched import StateChange

__all__ = ["PAUSES", "WEBHOOK_TIMEOUT", "Webhook", "checked_url"]

WEBHOOK_TIMEOUT: Final = 10.0
"""Seconds for one POST, from the connection to the end of the answer."""

PAUSES: Final = (1.0, 4.0, 16.0, 60.0)
"""Seconds before each further attempt. Those behind it wait meanwhile, a minute and a half at most."""

_MOST_BODY: Final = 65536  # bytes of an answer's body
_PASSING: Final = frozenset((408, 429))


def checked_url(text: str) -> str:
    """Return the URL of a webhook.

    Raises:
        LocalError: It is none.
    """
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        fits = fits and text.isascii() and text.isprintable() and " " not in text
    except ValueError:
        fits = False
    if not fits:
        raise LocalError(f"--webhook: {text!r} is not a URL; write for example https://alerts.example/udpprobe")
    return text


class _Refused(Exception):
    """The receiver answered, but not that it has taken the change."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the receiver answered with status {status}")
        self.passing = status in _PASSING or status >= 500


class Webhook:
    """Posts each change.

    Args:
        reactor: Provides IReactorTCP, the resolver and the time.
        url: Where to.
        agent: A ``twisted.web.iweb.IAgent`` instead of the usual one.
    """

    def __init__(self, reactor: Any, url: str, *, agent: Any = None) -> None:
        from treq.client import HTTPClient  # noqa: PLC0415  # an extra, which not everybody installs

        self._reactor = reactor
        self._url = url
        self._outbox = Outbox("webhook", steady_clock(reactor))
        self._http: Any = HTTPClient(agent or _agent(reactor))
        self._posting: Deferred[None] | None = None
        self._stopped = False

    @property
    def counters(self) -> Mapping[str, tuple[str, Callable[[], int]]]:
        """See :class:`Notifier`."""
        return self._outbox.counters

    def tell(self, change: StateChange) -> None:
        """Post a change when its turn comes."""
        if self._stopped:
            return
        self._outbox.add(change)
        if self._posting is None:
            self._posting = ensureDeferred(self._post_all())
            self._posting.addErrback(_cancelled)

    def stop(self) -> Deferred[Any]:
        """Post no more, and give up what is under way."""
        self._stopped = True
        self._outbox.waiting.clear()
        if self._posting is not None:
            self._posting.cancel()
        return succeed(None)

    async def _post_all(self) -> None:
        waiting = self._outbox.waiting
        try:
            while waiting:
                await self._post(waiting.popleft())
        finally:
            self._posting = None

    async def _post(self, change: StateChange) -> None:
        for pause in (*PAUSES, None):
            try:
                await self._attempt(change)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever an HTTP client raises
                if pause is None or not getattr(error, "passing", True):
                    self._outbox.fail(change, _explained(error))
                    return
            else:
                self._outbox.told += 1
                return
            await deferLater(self._reactor, pause)

    def _attempt(self, change: StateChange) -> Deferred[None]:
        posting: Deferred[Any] = self._http.post(
            self._url, json=change._asdict(), allow_redirects=False, unbuffered=True, reactor=self._reactor
        )
        posting.addCallback(_finished)
        return posting.addTimeout(WEBHOOK_TIMEOUT, self._reactor)


def _agent(reactor: Any) -> Any:
    pool: Any = HTTPConnectionPool(reactor, persistent=False)  # type: ignore[no-untyped-call]  # Twisted has none here
    return Agent(reactor, connectTimeout=WEBHOOK_TIMEOUT, pool=pool)  # type: ignore[no-untyped-call]  # likewise


def _cancelled(failure: Failure) -> None:
    if not isinstance(failure.value, CancelledError):
        failure.raiseException()


def _finished(response: Any) -> Deferred[None]:
    """Return a Deferred that fires when a response has ended, and fails where it says no."""
    body = _Body()
    response.deliverBody(body)

    def decide(_: object) -> None:
        if not 200 <= response.code < 300:
            raise _Refused(response.code)

    return body.ended.addCallback(decide)


class _Body(Protocol):
    """Reads an answer's body and throws it away."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())
        self._room = _MOST_BODY

    def dataReceived(self, data: bytes) -> None:
        """Count, and hang up where it does not end."""
        self._room -= len(data)
        if self._room < 0:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002  # IProtocol passes it
        """Take note of the end, in whatever way: what counts is the status."""
        if not self.ended.called:
            self.ended.callback(None)


def _explained(error: BaseException) -> str:
    reasons = getattr(error, "reasons", None)  # twisted.web wraps what went wrong with a connection
    if reasons:
        error = reasons[0].value
    if type(error).__name__ == "TimeoutError":
        return f"no answer within {WEBHOOK_TIMEOUT:g} s"
    return str(error).rstrip(".") or type(error).__name__
