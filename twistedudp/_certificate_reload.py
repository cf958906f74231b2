"""``SIGHUP`` has a server read its certificate and key again; the sessions that are open go on.

Theory of operation: certificates are renewed while servers run. A signal tells when, as with other daemons. Whatever
cannot be read then leaves in use what was loaded before: the key, for one, which only root may read while the server no
longer is root. One line of the log tells either.

The service stops when the server begins to drain. What the signal does by default, to end the process, would then cut
off the requests that run; so it does nothing from then on.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger

from .errors import DTLSConfigurationError

if TYPE_CHECKING:
    from .dtls import DTLSContext

__all__ = ["CertificateReload"]

_log = Logger(namespace="twistedudp")


class CertificateReload(Service):
    """Reads certificates again on SIGHUP, as long as it runs.

    Args:
        reactor: Provides IReactorFromThreads: a signal comes in the midst of anything.
        context: What holds them.
    """

    def __init__(self, reactor: Any, context: DTLSContext) -> None:
        self._reactor = reactor
        self._context = context
        self._previous: Any = None

    def startService(self) -> None:
        """Listen to the signal."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self._previous = signal.signal(signal.SIGHUP, self._signalled)

    def stopService(self) -> None:
        """Let the signal do what it did before, but not end the process, which may still have requests to answer."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        signal.signal(signal.SIGHUP, self._previous if callable(self._previous) else signal.SIG_IGN)

    def reload(self) -> None:
        """Read them again, and tell what came of it."""
        try:
            self._context.reload()
        except DTLSConfigurationError as error:
            _log.error("SIGHUP: {error}", error=error)
        else:
            _log.info("SIGHUP: the certificate and its key were read again, for the sessions to come")

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(self.reload)
