"""The handshakes under way at a server, and how many ClientHellos are looked at.

Theory of operation: whoever has returned a cookie gets a Connection, which costs memory and time, and may then be
silent. So there are few such places, few of them for one host, and each for a limited time. Where all are taken, or
all of a host's, the oldest of these is cleared for the new one, but not before it had time to end: otherwise many
honest clients at once, as after a restart of the server, would put each other out for ever. Whoever is sent away comes
again by himself, for a ClientHello is repeated after 1, 2, 4 seconds. A client that gives up says nothing: what it has
left must not keep the next one out.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, TypeAlias

from ..address import unmapped

if TYPE_CHECKING:
    from ..address import Address
    from ._limits import DTLSLimits
    from ._session import Session

__all__ = ["HalfOpen", "HelloRate", "host_prefix"]

_Prefix: TypeAlias = "str | bytes"


def host_prefix(host: str) -> _Prefix:
    """Return what counts as one host: an IPv4 address, or the first 64 bits of an IPv6 address."""
    host = unmapped(host)
    return IPv6Address(host.partition("%")[0]).packed[:8] if ":" in host else host


class HalfOpen:
    """The table of handshakes by address, within its bounds.

    Args:
        limits: The bounds.
    """

    __slots__ = ("_limits", "_of_host", "sessions")

    def __init__(self, limits: DTLSLimits) -> None:
        self.sessions: dict[Address, Session] = {}
        """In the order in which they began."""
        self._limits = limits
        self._of_host: dict[_Prefix, dict[Address, Session]] = {}

    def refusal(self, address: Address, now: float) -> str:
        """Return by which bound there is no place for a handshake with an address; empty where there is one."""
        if address in self.sessions:
            return ""  # a client that was started again takes its former place
        limits = self._limits
        host = self._of_host.get(host_prefix(address[0]), {})
        if len(host) >= limits.half_open_per_host:
            return "half_open_per_host" if now - _oldest(host).began < limits.half_open_patience else ""
        if len(self.sessions) >= limits.half_open and now - _oldest(self.sessions).began < limits.half_open_patience:
            return "half_open_full"
        return ""

    def add(self, session: Session) -> Session | None:
        """Keep a handshake, after :meth:`refusal` found a place; return the one that is put out for it, if any."""
        address = session.address
        prefix = host_prefix(address[0])
        replaced = self.sessions.get(address)
        if replaced is None and len(self._of_host.get(prefix, ())) >= self._limits.half_open_per_host:
            replaced = _oldest(self._of_host[prefix])
        elif replaced is None and len(self.sessions) >= self._limits.half_open:
            replaced = _oldest(self.sessions)
        if replaced is not None:
            self.remove(replaced)
        self.sessions[address] = self._of_host.setdefault(prefix, {})[address] = session
        return replaced

    def remove(self, session: Session) -> bool:
        """Forget a handshake; tell whether it was there."""
        address = session.address
        if self.sessions.get(address) is not session:
            return False
        del self.sessions[address]
        prefix = host_prefix(address[0])
        del self._of_host[prefix][address]
        if not self._of_host[prefix]:
            del self._of_host[prefix]
        return True


def _oldest(sessions: dict[Address, Session]) -> Session:
    return next(iter(sessions.values()))


class HelloRate:
    """A token bucket: how many ClientHellos are looked at, whoever sent them.

    Args:
        limits: The bounds.
        now: The time in seconds.
    """

    __slots__ = ("_burst", "_rate", "_since", "_tokens")

    def __init__(self, limits: DTLSLimits, now: float) -> None:
        self._rate = limits.hello_rate
        self._burst = float(limits.hello_burst)
        self._tokens = self._burst
        self._since = now

    def allows(self, now: float) -> bool:
        """Take a token if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
