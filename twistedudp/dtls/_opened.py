"""The sessions that are open at a server, and how many of them one host may have.

Theory of operation: whoever gets what is sent to his address can open sessions, and keep them by a record now and then.
None is put out for another, so that a single host could have all of them, and nobody else any. Hence the bound.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ._half_open import host_prefix

if TYPE_CHECKING:
    from ..address import Address
    from ._limits import DTLSLimits
    from ._session import Session

__all__ = ["OpenSessions"]


class OpenSessions(dict["Address", "Session"]):
    """The sessions by address.

    Args:
        limits: The bounds.
    """

    __slots__ = ("_limits", "_of_host")

    def __init__(self, limits: DTLSLimits) -> None:
        super().__init__()
        self._limits = limits
        self._of_host: Counter[Any] = Counter()

    def refusal(self, address: Address) -> str:
        """Return by which bound there is no place for a session with an address; empty where there is one."""
        if address in self:
            return ""  # it takes the former's place
        if len(self) >= self._limits.sessions:
            return "sessions_full"
        if self._of_host[host_prefix(address[0])] >= self._limits.sessions_per_host:
            return "sessions_per_host"
        return ""

    def add(self, session: Session) -> None:
        """Keep a session with an address that has none."""
        self[session.address] = session
        self._of_host[host_prefix(session.address[0])] += 1

    def remove(self, session: Session) -> bool:
        """Forget a session; tell whether it was there."""
        if self.get(session.address) is not session:
            return False
        del self[session.address]
        prefix = host_prefix(session.address[0])
        self._of_host[prefix] -= 1
        if not self._of_host[prefix]:
            del self._of_host[prefix]
        return True
