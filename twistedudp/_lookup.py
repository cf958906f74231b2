"""Which servers a client talks to, and keeping their addresses up to date.

Theory of operation: a client is given one server or several, each a host and a port. Numeric hosts are their own
answer; names are looked up when the client starts, again when somebody needs them and the last answer is a minute old,
and sooner when calls run out, since a server may have moved. Nothing is looked up while nobody calls. The first answer
of several waits a little for the others, for otherwise the first server would be one that just happened to resolve
first. What a name resolved to is kept until it resolves to something else: a name server that is down takes no server
away.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

from ._rate_limit import RateLimit
from ._resolve import resolve
from .address import canonical, is_group, is_ip, is_ipv6, is_loopback, is_unspecified
from .errors import BroadcastNotSupported, HostNotFound, InvalidAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall

    from ._resolve import AddressFamily
    from .address import Address
    from .errors import TwistedUDPError

__all__ = ["LOOKUP_AGE", "LOOKUP_PAUSE", "ServerLookup", "checked_servers", "family_of", "is_this_machine"]

LOOKUP_AGE: Final = 60.0
"""Seconds after which a name is looked up again when a call is made. The reactor's resolver does not tell how long an
answer holds; a minute is what names of servers that move are usually given (their TTL)."""

LOOKUP_PAUSE: Final = 3.0
"""Seconds between two look-ups of names with known addresses, however many calls fail. Where none is known, each call
has them looked up."""


FIRST_ANSWER_WAITS: Final = 0.25
"""Seconds that the first answer waits for those of the other servers; a name server that is down must not hold up calls
to servers that are known."""


_log = Logger(namespace="twistedudp")


class ServerLookup:  # budget: what is known, what is being found out, and whom to tell
    """The addresses of a client's servers.

    Args:
        reactor: Provides the resolver, and the time.
        servers: Hosts and ports, checked.
        family: Leave out the addresses of the other family.
        learnt: Called with all addresses, in the servers' order, whenever some may have changed; never with none.
        failed: Called with the reason when every look-up is over and no address is known.

    Attributes:
        is_final: Whether all addresses are known and there is nothing to be looked up ever.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]],
        family: AddressFamily | None,
        learnt: Callable[[Sequence[Address]], None],
        failed: Callable[[TwistedUDPError], None],
    ) -> None:
        self._reactor = reactor
        self._servers = servers
        self._family = family
        self._learnt = learnt
        self._failed = failed
        self._found: dict[int, list[Address]] = {}
        self._running: dict[int, object] = {}
        self._due = -math.inf
        self._looked_up = -math.inf
        self._waiting: IDelayedCall | None = None
        self._told = False
        self._log_limit = RateLimit(len(servers), 600.0, reactor.seconds)
        self.is_final = False

    def host_of(self, address: Address) -> str:
        """Return the host that the client was given for an address, which names the server there."""
        return next((self._servers[number][0] for number in self._found if address in self._found[number]), address[0])

    def stop(self) -> None:
        """Take no answer any more."""
        self._running.clear()
        self._due = math.inf
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def needed(self) -> None:
        """Learn that somebody wants to know the addresses: look up what is not known or too old."""
        if self._due < math.inf and self._reactor.seconds() >= self._due and not self._running:
            self._start()

    def doubted(self) -> None:
        """Learn that a call got no answer: the addresses may be out of date."""
        if self._due < math.inf:
            self._due = min(self._due, self._looked_up + LOOKUP_PAUSE)
        self.needed()

    def _start(self) -> None:
        names = [
            number for number, (host, _) in enumerate(self._servers) if number not in self._found or not is_ip(host)
        ]
        self._running = {number: object() for number in names}
        # Numeric hosts answer before resolve() returns, and a look-up is over when all of them are.
        for number, lookup in list(self._running.items()):
            host, port = self._servers[number]
            resolve(self._reactor, host, port, self._family, partial(self._resolved, number, lookup))

    def _resolved(self, number: int, lookup: object, addresses: list[Address]) -> None:
        if self._running.get(number) is not lookup:
            return  # the client was stopped meanwhile
        del self._running[number]
        if addresses:
            self._found[number] = addresses
        over = not self._running
        if over:
            self._looked_up = self._reactor.seconds()
            self.is_final = len(self._found) == len(self._servers) and all(is_ip(host) for host, _ in self._servers)
            self._due = math.inf if self.is_final else self._looked_up + LOOKUP_AGE
        if not addresses and self._found and self._log_limit.allowed():
            _log.warn(
                "the server {host}:{port} is left out: its name does not resolve; the others are used, and it is "
                "looked up again with them",
                host=self._servers[number][0],
                port=self._servers[number][1],
            )
        if self._found and (over or self._told):
            self._tell()
        elif self._found:
            if self._waiting is None:
                self._waiting = self._reactor.callLater(FIRST_ANSWER_WAITS, self._waited)
        elif over:
            self._due = -math.inf  # the next call tries again
            reason = f"no {self._family} address" if self._family else ""
            self._failed(HostNotFound(self._servers[0][0], reason))

    def _waited(self) -> None:
        self._waiting = None
        self._tell()

    def _tell(self) -> None:
        self._told = True
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._learnt([address for server in sorted(self._found) for address in self._found[server]])


def checked_servers(host: str | Sequence[tuple[str, int]], port: int | None, interface: str) -> list[tuple[str, int]]:
    """Return the servers that a client was given, as hosts and ports.

    Args:
        host: A host, or several pairs of host and port.
        port: The port of the one host.
        interface: The local address to send from; empty for what the kernel chooses.

    Raises:
        InvalidAddress: One of them cannot be.
        BroadcastNotSupported: A host is a broadcast or multicast address.
    """
    if isinstance(host, str):
        if port is None:
            raise InvalidAddress(
                f"port is missing: give host and port, such as {host!r}, 10000, or [(host, port), ...]"
            )
        servers: list[Any] = [(host, port)]
    elif not isinstance(host, (list, tuple)):
        raise InvalidAddress(f"host={host!r}: it must be a name, a numeric address, or a list of (host, port)")
    elif port is not None:
        raise InvalidAddress(f"port={port!r}: where several servers are given, each has its own: [(host, port), ...]")
    else:
        servers = list(host)
    if not servers:
        raise InvalidAddress("no server is given; name at least one, as (host, port)")
    for server in servers:
        if not isinstance(server, (tuple, list)) or len(server) != 2:
            raise InvalidAddress(f"{server!r} is no server; give one as host, port and several as [(host, port), ...]")
        _check_address(server[0], server[1], interface)
    return [(server[0], server[1]) for server in servers]


def _check_address(host: Any, port: object, interface: str) -> None:
    if not isinstance(host, str) or not host:
        raise InvalidAddress(f"host={host!r}: it must be a name or a numeric address")
    if type(port) is not int or not 1 <= port <= 65535:
        raise InvalidAddress(f"port={port!r}: a server's port is from 1 to 65535")
    host = canonical(host) if is_ip(host) else host
    interface = canonical(interface) if is_ip(interface) else interface
    if is_ip(host) and is_group(host):
        raise BroadcastNotSupported(host)
    if is_ip(host) and is_unspecified(host):
        raise InvalidAddress(f"host={host!r}: that means every address of a machine; name one, such as 127.0.0.1")
    try:
        host.encode("idna")  # as the resolver will, whose error would go to the log only
    except UnicodeError as error:
        raise InvalidAddress(f"host={host!r}: no host can have such a name: {error}") from None
    if interface and not is_ip(interface):
        raise InvalidAddress(f"interface={interface!r}: it must be a numeric address of this machine")
    if interface and is_ip(host) and is_ipv6(interface) is not is_ipv6(host):
        raise InvalidAddress(f"interface={interface!r} and host={host!r} are of different address families")


def family_of(interface: str, wanted: AddressFamily | None) -> AddressFamily | None:
    """Return the family to use: that of the address to send from, if there is one.

    Raises:
        InvalidAddress: Another one is wanted.
    """
    if not interface:
        return wanted
    family: AddressFamily = "ipv6" if is_ipv6(canonical(interface)) else "ipv4"
    if wanted not in (None, family):
        raise InvalidAddress(f"interface={interface!r} and address_family={wanted!r} contradict each other")
    return family


def is_this_machine(server: tuple[str, int]) -> bool:
    """Tell whether a server is reached without leaving this machine, as far as its host tells."""
    host = server[0]
    return host == "localhost" or (is_ip(host) and is_loopback(host))
