"""The simulated network: hosts, the links between them, and the one path that every datagram takes.

Theory of operation: nothing here opens a socket or looks at a real clock. A datagram that a port sends is recorded,
goes through the effects of its link one by one (each at its own virtual time), waits for the link's constant delay, and
is then looked at by the host that has the address: a port takes it, or nobody listens and the host sends an ICMP
port-unreachable back along the opposite link, by the same path. Arrival is always a delayed call of the network's
clock, never inside ``write()``, so that protocols are re-entered as on a real network. Randomness comes from generators
that are derived from the seed, order from the clock's serial numbers and from the order in which hosts were made;
nothing depends on identities or on hash seeds.
"""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..address import is_group, is_ipv6, is_loopback
from ..impairment._link import Datagram, Link, derived_rng
from ..interfaces import Unreachable
from ._clock import SimulationError, SteppingClock
from ._host import ANY_IPV4, ANY_IPV6, Host, canonical
from ._reactor import SimulatedReactor
from ._trace import Fate, Trace

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from ..impairment._link import Stage

__all__ = ["DEFAULT_DELAY", "DEFAULT_TIMEOUT", "IDLE_LIMIT", "SimulatedNetwork"]

DEFAULT_DELAY: Final = 0.001
"""Seconds one way on every link, loopback as well: short beside any timeout, but not nothing, as in real life."""

DEFAULT_TIMEOUT: Final = 60.0
"""Virtual seconds after which :meth:`SimulatedNetwork.run_until` gives up: longer than most requests' deadlines."""

IDLE_LIMIT: Final = 3600.0
"""Virtual seconds after which :meth:`SimulatedNetwork.run_until_idle` takes what it sees for a timer without end."""

_ICMP_PORT_UNREACHABLE: Final = (3, 3)
"""Type and code (RFC 792)."""
_ICMPV6_PORT_UNREACHABLE: Final = (1, 4)
"""Type and code (RFC 4443 section 3.1)."""
_QUOTED_IPV4: Final = 576 - 20 - 8 - 20 - 8
"""Bytes of payload that an ICMP error quotes: it has at most 576 bytes (RFC 1812 section 4.3.2.3) with four headers."""
_QUOTED_IPV6: Final = 1280 - 40 - 8 - 40 - 8
"""The same for ICMPv6: at most the least MTU (RFC 4443 section 3.1)."""

_LOCALHOST: Final = {"localhost": ("::1", "127.0.0.1")}

_T = TypeVar("_T")


class _Way(NamedTuple):
    """Where a datagram that is being sent goes along."""

    sender: Host
    receiver: Host
    link: Link
    stages: tuple[Stage, ...]
    """The link's effects when the datagram was sent."""


class SimulatedNetwork:
    """A network in a box: hosts on one virtual clock, driven by the test.

    Args:
        seed: What all randomness is derived from: equal seeds and equal programs give equal traces.
        delay: Seconds that a datagram takes one way on every link; :meth:`link` sets it for one link.
        names: The addresses of host names, beside ``localhost``; more may be put into :attr:`names` later.
        lookup_delay: Seconds that looking a name up takes.

    Attributes:
        clock: The clock of all hosts, a :class:`SteppingClock`.
        trace: What happened to each datagram, a :class:`Trace`.
        names: The table of host names: lower-case name to addresses. A name that is not there does not resolve.
        lookup_delay: Seconds that looking a name up takes; may be set at any time.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = DEFAULT_DELAY,
        names: Mapping[str, Sequence[str]] | None = None,
        lookup_delay: float = 0.0,
    ) -> None:
        self.clock = SteppingClock()
        self.trace = Trace()
        self.names: dict[str, Sequence[str]] = {**_LOCALHOST, **(names or {})}
        self.lookup_delay = lookup_delay
        self._seed = seed
        self._delay = delay
        self._hosts: list[Host] = []
        self._host_of: dict[str, Host] = {}
        self._links: dict[tuple[str, str], Link] = {}

    # -- building

    def reactor(self, *addresses: str, silent: bool = False) -> SimulatedReactor:
        """Add a host and return its reactor; see :class:`SimulatedReactor` for the arguments."""
        return SimulatedReactor(self, *addresses, silent=silent)

    def link(self, source: SimulatedReactor | str, destination: SimulatedReactor | str) -> Link:
        """Return the link from one host to another, to set its delay or to add effects.

        Args:
            source: The sending host, by its reactor or one of its addresses.
            destination: The receiving host; the same as ``source`` for what the host sends to itself.

        Raises:
            ValueError: No host has such an address.
        """
        return self._link(self._host(source), self._host(destination))

    # -- running

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; see :meth:`SteppingClock.advance`."""
        self.clock.advance(seconds)

    def run_until(
        self, result: Deferred[_T] | Coroutine[Deferred[Any], Any, _T], timeout: float = DEFAULT_TIMEOUT
    ) -> _T:
        """Run the simulation until a Deferred has fired, and no further.

        Args:
            result: The Deferred, or a coroutine, which is started now.
            timeout: Virtual seconds to wait for it at most.

        Returns:
            What the Deferred fired with.

        Raises:
            SimulationError: It did not fire in time, or nothing is left that could make it fire.
            Exception: What the Deferred failed with.
        """
        deferred = result if isinstance(result, Deferred) else Deferred.fromCoroutine(result)
        outcome: list[_T | Failure] = []
        waiting = True

        def settle(value: _T | Failure) -> _T | Failure | None:
            if not waiting:
                return value
            outcome.append(value)
            return None

        deferred.addBoth(settle)
        end = self.clock.seconds() + timeout
        while not outcome and self.clock.step(until=end):
            pass
        if not outcome:
            waiting = False
            raise SimulationError(self._why_not_fired(timeout))
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def run_until_idle(self, limit: float = IDLE_LIMIT) -> None:
        """Run the simulation until no datagram is under way and no delayed call is pending.

        Args:
            limit: Virtual seconds to wait for that at most.

        Raises:
            SimulationError: Something is still scheduled then, such as a timer that restarts itself.
        """
        end = self.clock.seconds() + limit
        while self.clock.step(until=end):
            pass
        if pending := self.clock.getDelayedCalls():
            raise SimulationError(
                f"not idle after {limit:g} s of virtual time: {len(pending):,} delayed calls are pending, the next is "
                f"{pending[0]}; stop what restarts itself, or use advance()"
            )

    # -- what reactors and ports call

    def add_host(self, addresses: Sequence[str], *, silent: bool) -> Host:
        """Make the host of a reactor; tests call :meth:`reactor`."""
        chosen = tuple(map(self._free_address, addresses)) or self._pick_addresses()
        host = Host(chosen, derived_rng(self._seed, "ports", chosen[0]), silent=silent)
        self._hosts.append(host)
        self._host_of.update(dict.fromkeys(chosen, host))
        return host

    def look_up(self, name: str) -> Sequence[str]:
        """Return the addresses of a host name, none if it is unknown."""
        return self.names.get(name.lower().rstrip("."), ())

    def send(self, host: Host, datagram: Datagram) -> None:
        """Put a datagram on its way from a host; its addresses are in canonical spelling."""
        address = datagram.destination[0]
        if is_group(address):
            for receiver in self._hosts:
                self._depart(datagram, self._way(host, receiver))
            return
        owner = host if host.owns(address) else self._host_of.get(address)
        if owner is None:
            self.unsent(datagram, Fate.NO_HOST)
        else:
            self._depart(datagram, self._way(host, owner))

    def unsent(self, datagram: Datagram, fate: Fate) -> None:
        """Record a datagram that never left."""
        now = self.clock.seconds()
        self.trace.settled(self.trace.sent(datagram, now), fate, now, datagram)

    # -- the path

    def _depart(self, datagram: Datagram, way: _Way, cause: str = "") -> None:
        self._travel(self.trace.sent(datagram, self.clock.seconds(), cause), datagram, way, 0)

    def _travel(self, number: int, datagram: Datagram, way: _Way, passed: int) -> None:
        """Take a datagram that has passed some of the effects through the next one; the seam where effects work."""
        if passed == len(way.stages):
            self.clock.callLater(way.link.delay, self._arrive, number, datagram, way.receiver)
            return
        stage = way.stages[passed]
        now = self.clock.seconds()
        arrivals = list(stage.effect(datagram, now, stage.rng))
        onwards = [arrival for arrival in arrivals if arrival.datagram.error == datagram.error]
        if not onwards:
            self.trace.settled(number, Fate.REFUSED if arrivals else Fate.LOST, now, datagram, stage.label)
        for index, (copy, delay) in enumerate(onwards):
            mark = number if index == 0 else self.trace.sent(copy, now, stage.label)
            if delay:
                self.clock.callLater(delay, self._travel, mark, copy, way, passed + 1)
            else:
                self._travel(mark, copy, way, passed + 1)
        for arrival in arrivals:
            if arrival.datagram.error != datagram.error:
                back = self._way(way.receiver, way.sender)
                self.clock.callLater(arrival.delay, self._depart, arrival.datagram, back, stage.label)

    def _arrive(self, number: int, datagram: Datagram, host: Host) -> None:
        destination = datagram.destination
        to_group = is_group(destination[0])
        # An effect may have redirected it. Loopback and broadcast addresses are no host's own.
        host = self._host_of.get(destination[0], host)
        port = host.port_for(destination, datagram.source)
        now = self.clock.seconds()
        if port is None or not port.reading:
            refusing = port is None and not (host.silent or to_group or datagram.error)
            self.trace.settled(number, Fate.REFUSED if refusing else Fate.UNHEARD, now, datagram)
            if refusing:
                self.send(host, _port_unreachable(datagram))
        elif datagram.error is not None:
            self.trace.settled(number, Fate.DELIVERED, now, datagram)
            port.unreachable(datagram.source, datagram.error, datagram.payload)
        elif len(datagram.payload) > port.max_datagram_size:
            self.trace.settled(number, Fate.TOO_LARGE, now, datagram)
            port.dropped_too_large()
        else:
            self.trace.settled(number, Fate.DELIVERED, now, datagram)
            port.deliver(datagram)

    # -- details

    def _host(self, which: SimulatedReactor | str) -> Host:
        if isinstance(which, SimulatedReactor):
            return which.host
        try:
            return self._host_of[canonical(which)]
        except KeyError:
            raise ValueError(f"no host of this network has the address {which}") from None

    def _link(self, source: Host, destination: Host) -> Link:
        key = (source.name, destination.name)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link(self._seed, f"{source.name} > {destination.name}", self._delay)
        return link

    def _way(self, sender: Host, receiver: Host) -> _Way:
        link = self._link(sender, receiver)
        return _Way(sender, receiver, link, link.stages)

    def _free_address(self, text: str) -> str:
        address = canonical(text)
        if address in (ANY_IPV4, ANY_IPV6) or is_loopback(address) or is_group(address):
            raise ValueError(f"{text} cannot be a host's address on the network (every host has loopback anyway)")
        if address in self._host_of:
            raise ValueError(f"{text} belongs to another host of this network")
        return address

    def _pick_addresses(self) -> tuple[str, str]:
        # 198.18.0.0/15 is set aside for networks under test (RFC 2544), 2001:db8::/32 for examples (RFC 3849).
        for number in itertools.count(1):
            addresses = (f"198.18.{number >> 8}.{number & 255}", canonical(f"2001:db8::{number:x}"))
            if not any(address in self._host_of for address in addresses):
                return addresses
        raise AssertionError

    def _why_not_fired(self, timeout: float) -> str:
        pending = self.clock.getDelayedCalls()
        if pending:
            return (
                f"the Deferred did not fire within {timeout:g} s of virtual time; {len(pending):,} delayed calls are "
                f"pending, the next is {pending[0]}"
            )
        return "the Deferred has not fired, and nothing is scheduled any more that could make it fire"


def _port_unreachable(datagram: Datagram) -> Datagram:
    reporter = datagram.destination[0]
    if is_ipv6(reporter):
        (kind, code), limit = _ICMPV6_PORT_UNREACHABLE, _QUOTED_IPV6
    else:
        (kind, code), limit = _ICMP_PORT_UNREACHABLE, _QUOTED_IPV4
    error = Unreachable(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED), kind, code, reporter)
    return Datagram(datagram.destination, datagram.source, datagram.payload[:limit], error)
