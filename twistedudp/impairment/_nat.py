"""A network address translator that forgets: clients change their address in the middle of a conversation.

Theory of operation: on the way out, the effect replaces a datagram's source by an outside address, the same one for
the same inside address as long as the mapping lives, whatever the destination is. On the way back, the inbound part
puts the inside address in place of the outside one; anybody may send there (endpoint-independent mapping and filtering,
RFC 4787 sections 4.1 and 5). When a mapping dies, by its age or on demand, what still comes for it is lost, and the
next datagram out makes another one with another port. A server sees the same client come from a new address.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from ..address import canonical, is_group, is_unspecified
from ._effect import Effect, EffectError, checked_number, quoted
from ._link import Arrival
from ._loss import LATEST
from ._units import seconds_text

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from ..address import Address
    from ._link import Datagram

__all__ = ["MAX_MAPPINGS", "NATInbound", "NATRebinding"]

MAX_MAPPINGS: Final = 4096
"""Mappings that a NAT keeps: clients of a test or of a relay, and few enough that a free port is found at once."""

_PORTS: Final = range(1024, 65536)
"""Where outside ports are drawn from: not the well-known ones (RFC 4787 section 4.2.2)."""


class _Mapping(NamedTuple):
    outside: Address
    made: float
    generation: int


class NATRebinding(Effect):
    """The outbound part of a NAT whose mappings die: it replaces the source of what passes.

    The part for the link back is :attr:`inbound`; both share one table::

        nat = NATRebinding(interval=30.0)
        network.link(client, server).add(nat)
        network.link(server, client).add(nat.inbound)

    Without ``host`` only the port is replaced: so the replies take the way back to the same host, on the simulated
    network, and on a relay that has a socket of its own towards the server for each source that it sees. With ``host``
    the NAT has an address of its own. The simulated network then needs a host with that address, which may do nothing
    else, and :attr:`inbound` stands on the link from the server to that host.

    An ICMP error that passes outwards, about something sent to the outside address, gets the outside address as its
    source; it is lost if the inside address has no living mapping. Who reported it stays as it is. At most 4,096
    mappings are kept; for one more, the one dies whose inside address has sent nothing for longest.

    Args:
        interval: Seconds that a mapping lives, above 0; ``None`` if only :meth:`rebind` ends it.
        host: The numeric outside address. Datagrams of the other family keep theirs, and change the port only.

    Raises:
        EffectError: One of them is out of its range.

    Attributes:
        inbound: The effect for the link back.
        rebound: How often an inside address got a new outside address in place of one that had died.
        evicted: How many mappings died for want of room.
    """

    def __init__(self, interval: float | None = None, host: str = "") -> None:
        self.interval = (
            None if interval is None else checked_number("interval", interval, 0.0, LATEST, " seconds", above=True)
        )
        self.host = _checked_host(host) if host else ""
        self.inbound = NATInbound(self)
        self.rebound = 0
        self.evicted = 0
        self._generation = 0
        self._mappings: OrderedDict[Address, _Mapping] = OrderedDict()  # by inside address, last used last
        self._inside: dict[Address, Address] = {}  # by outside address

    def rebind(self) -> None:
        """Let all mappings die now: each inside address gets another outside port with its next datagram."""
        self._generation += 1

    def __len__(self) -> int:
        return len(self._mappings)

    def __call__(self, datagram: Datagram, now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once with its outside source."""
        inside = datagram.source
        mapping = self._mappings.get(inside)
        if mapping is not None and not self._alive(mapping, now):
            mapping = None
        if datagram.error is None:
            if mapping is None:
                mapping = self._map(inside, now, rng)
            self._mappings.move_to_end(inside)
        elif inside in self._inside:  # made on the outside, by an effect that stands behind this one
            return (Arrival(datagram),)
        elif mapping is None:
            return ()
        return (Arrival(datagram._replace(source=mapping.outside)),)

    def translate_back(self, datagram: Datagram, now: float) -> Datagram | None:
        """Return what comes out on the inside, or ``None`` if it is lost; :attr:`inbound` calls it.

        Args:
            datagram: What has come from the outside.
            now: Seconds from the start.
        """
        inside = self._inside.get(datagram.destination)
        if inside is not None and self._alive(self._mappings[inside], now):
            return datagram._replace(destination=inside)
        if is_group(datagram.destination[0]):
            return datagram
        # An ICMP error made on the inside, by an effect that stands before the outbound part, bears the inside address.
        return datagram if datagram.error is not None and datagram.destination in self._mappings else None

    def _alive(self, mapping: _Mapping, now: float) -> bool:
        return mapping.generation == self._generation and (self.interval is None or now < mapping.made + self.interval)

    def _map(self, inside: Address, now: float, rng: random.Random) -> _Mapping:
        outside = self._free(inside, rng)
        if inside in self._mappings:
            self._forget(inside)
            self.rebound += 1
        elif len(self._mappings) >= MAX_MAPPINGS:
            self._forget(next(iter(self._mappings)))
            self.evicted += 1
        mapping = self._mappings[inside] = _Mapping(outside, now, self._generation)
        self._inside[outside] = inside
        return mapping

    def _free(self, inside: Address, rng: random.Random) -> Address:
        """Draw an outside address that nobody has; never the one that the inside address has had until now."""
        host = self.host if self.host and (":" in self.host) == (":" in inside[0]) else inside[0]
        while True:
            outside = (host, rng.choice(_PORTS))
            if outside not in self._inside and outside not in self._mappings and outside != inside:
                return outside

    def _forget(self, inside: Address) -> None:
        del self._inside[self._mappings.pop(inside).outside]

    def __str__(self) -> str:
        interval = "never" if self.interval is None else seconds_text(self.interval)
        return f"nat={interval}{':' + self.host if self.host else ''}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"interval": self.interval, "host": self.host}


class NATInbound:
    """The part of a :class:`NATRebinding` for the link back: it puts the inside address where the outside one was.

    What comes for a mapping that is dead, or that never was, is lost. ICMP errors are translated and lost as datagrams
    are; those made by an effect on the inside pass.
    """

    def __init__(self, nat: NATRebinding) -> None:
        self._nat = nat

    def __call__(self, datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once with its inside destination, or lose it."""
        translated = self._nat.translate_back(datagram, now)
        return () if translated is None else (Arrival(translated),)

    def __repr__(self) -> str:
        return f"{self._nat!r}.inbound"


def _checked_host(host: str) -> str:
    try:
        host = canonical(host)
        # A scope (fe80::1%eth0) may be any text for ipaddress.
        usable = host.isascii() and host.isprintable() and not is_group(host) and not is_unspecified(host)
    except (ValueError, AttributeError, TypeError):
        usable = False
    if not usable:
        raise EffectError("host", f"must be the numeric address of one host, or empty; not {quoted(host)}")
    return host
