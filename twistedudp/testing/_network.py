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

import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..impairment._link import derived_rng
from ..impairment._packets import port_unreachable
from ._clock import SimulationError, SteppingClock
from ._host import ANY_IPV4, ANY_IPV6, Host, canonical, is_group, is_loopback
from ._ladder import WIDTH, Window, draw
from ._links import Links, effect_pairs
from ._reactor import SimulatedReactor
from ._trace import Fate, Trace

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any, TextIO

    from ..impairment._link import Datagram, Link, Stage
    from ._links import Effects
    from ._trace import TraceRow

__all__ = ["DEFAULT_DELAY", "DEFAULT_TIMEOUT", "IDLE_LIMIT", "SimulatedNetwork"]

DEFAULT_DELAY: Final = 0.001
"""Seconds one way on every link, loopback as well: short beside any timeout, but not nothing, as in real life."""

DEFAULT_TIMEOUT: Final = 60.0
"""Virtual seconds after which :meth:`SimulatedNetwork.run_until` gives up: longer than most requests' deadlines."""

IDLE_LIMIT: Final = 3600.0
"""Virtual seconds after which :meth:`SimulatedNetwork.run_until_idle` takes what it sees for a timer without end."""

_LOCALHOST: Final = {"localhost": ("::1", "127.0.0.1")}

_T = TypeVar("_T")


class _Way(NamedTuple):
    """Where a datagram that is being sent goes along, if it meets effects there."""

    sender: Host
    receiver: Host
    link: Link
    stages: tuple[Stage, ...]
    """The link's effects when the datagram was sent."""


class SimulatedNetwork:
    """A network in a box: hosts on one virtual clock, driven by the test.

    Args:
        seed: What all randomness is derived from: equal seeds and equal programs give equal traces. ``None`` takes the
            seed in the text of ``effects``, or 0.
        delay: Seconds that a datagram takes one way on every link; :meth:`link` sets it for one link.
        names: The addresses of host names, beside ``localhost``; more may be put into :attr:`names` later.
        lookup_delay: Seconds that looking a name up takes.
        effects: What happens on every link, also on a host's own to itself: a callable without arguments that returns
            new effects, such as ``lambda: [Loss(0.3)]``, called once for each direction; or a text for
            :func:`twistedudp.impairment.parse_effects`. With ``nat`` in the text, the host that sends first is inside.
        trace_limit: How many records the trace keeps, the latest; ``None`` for all.

    Attributes:
        seed: The seed.
        clock: The clock of all hosts, a :class:`SteppingClock`.
        trace: What happened to each datagram, a :class:`Trace`; :meth:`explain` draws it.
        names: The table of host names: lower-case name to addresses. A name that is not there does not resolve.
        lookup_delay: Seconds that looking a name up takes; may be set at any time.

    Raises:
        twistedudp.impairment.EffectError: The text of the effects is wrong.
        ValueError: The text has a seed, and another one was given beside it.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        delay: float = DEFAULT_DELAY,
        names: Mapping[str, Sequence[str]] | None = None,
        lookup_delay: float = 0.0,
        effects: Effects | None = None,
        trace_limit: int | None = None,
    ) -> None:
        pairs, self.seed = effect_pairs(effects, seed)
        self.clock = SteppingClock()
        self.trace = Trace(trace_limit)
        self.names: dict[str, Sequence[str]] = {**_LOCALHOST, **(names or {})}
        self.lookup_delay = lookup_delay
        self._hosts: list[Host] = []
        self._host_of: dict[str, Host] = {}
        self._links = Links(self.seed, delay, pairs)

    # -- building

    def reactor(self, *addresses: str, silent: bool = False, name: str = "") -> SimulatedReactor:
        """Add a host and return its reactor; see :class:`SimulatedReactor` for the arguments."""
        return SimulatedReactor(self, *addresses, silent=silent, name=name)

    def link(self, source: SimulatedReactor | str, destination: SimulatedReactor | str) -> Link:
        """Return the link from one host to another, to set its delay or to add effects.

        Args:
            source: The sending host, by its reactor or one of its addresses.
            destination: The receiving host; the same as ``source`` for what the host sends to itself.

        Raises:
            ValueError: No host has such an address.
        """
        return self._links.between(self._host(source), self._host(destination))

    def links(self, one: SimulatedReactor | str, other: SimulatedReactor | str) -> tuple[Link, Link]:
        """Return the links from one host to another and back; see :meth:`link`."""
        return self.link(one, other), self.link(other, one)

    def impair(self, one: SimulatedReactor | str, other: SimulatedReactor | str, effects: Effects) -> None:
        """Add effects to the links between two hosts, new ones in each direction.

        Args:
            one: A host; with ``nat`` in the text, the one that is inside.
            other: The other host.
            effects: A callable or a text, as for :class:`SimulatedNetwork`; a text without a seed.

        Raises:
            ValueError: No host has such an address, the text is wrong, or it has a seed other than the network's.
        """
        pairs, _ = effect_pairs(effects, self.seed)
        self._links.impair(self._host(one), self._host(other), pairs)

    def note(self, text: str, about: SimulatedReactor | str | None = None) -> None:
        """Put a remark into the trace, for :meth:`explain` to show at its time.

        Args:
            text: The remark, one line.
            about: The host that it is about, if any.

        Raises:
            ValueError: No host has such an address.
        """
        self.trace.note(text, self.clock.seconds(), "" if about is None else self._host(about).name)

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
            raise SimulationError(_why_not_fired(self.clock, timeout))
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

    # -- looking

    def explain(
        self,
        *hosts: SimulatedReactor | str,
        since: float = 0.0,
        until: float = math.inf,
        last: int | None = None,
        width: int = WIDTH,
        file: TextIO | None = None,
    ) -> str:
        """Draw what happened as a ladder diagram, and return it: a column for each host, an arrow for each datagram.

        A datagram has one line, at the time at which it was sent; or two, the second where it arrived, if anything else
        happened in between. Bytes that a host sends again are told by ``try 2``, ``try 3`` and so on. All of it is
        ASCII, whatever the payloads are.

        Args:
            hosts: The hosts whose columns to draw, in this order, by reactors or addresses, with what went between
                them; none for all that had a part in what is drawn. Their names are taken from :attr:`names`.
            since: What happened before this time, in seconds, is left out.
            until: What happened after this time, in seconds, is left out.
            last: How many datagrams to draw at most, the latest; ``None`` for all.
            width: Characters of a line; more are used where the hosts need them.
            file: Where to print the diagram as well, such as ``sys.stdout``.

        Raises:
            ValueError: No host has such an address.
        """
        window = Window([self._host(host).name for host in hosts], since, until, last)
        addresses = {host.name: host.addresses for host in self._hosts}
        diagram = draw(self.trace, addresses, self.names, window, width)
        if file is not None:
            file.write(diagram)
        return diagram

    def leftovers(self) -> list[str]:
        """Tell what the programs have left behind: ports that are bound, and delayed calls that are pending.

        What is due now runs first, such as closings that are under way. Datagrams in flight are nobody's, and are not
        among it.
        """
        self.advance(0)
        ports = [
            f"port {port.getHost().port} of {host.name} is still bound, by {port.protocol!r}"
            for host in self._hosts
            for port in host.ports
        ]
        calls = [call for call in self.clock.pending_calls() if call.owner is not self]
        return ports + [
            f"a delayed call{f' of {call.owner!r}' if call.owner else ''} is still pending: {call!r}" for call in calls
        ]

    # -- what reactors and ports call

    def add_host(self, addresses: Sequence[str], *, silent: bool, name: str) -> Host:
        """Make the host of a reactor; tests call :meth:`reactor`."""
        chosen = tuple(map(self._free_address, addresses)) or self._pick_addresses()
        key = name.lower().rstrip(".")
        if key in self.names:
            raise ValueError(f"the name {name} has addresses already; choose another one for this host")
        if key:
            self.names[key] = chosen
        host = Host(chosen, derived_rng(self.seed, "ports", chosen[0]), silent=silent)
        self._hosts.append(host)
        self._host_of.update(dict.fromkeys(chosen, host))
        return host

    def look_up(self, name: str) -> Sequence[str]:
        """Return the addresses of a host name, none if it is unknown."""
        return self.names.get(name.lower().rstrip("."), ())

    def send(self, host: Host, datagram: Datagram, *, here: bool = True, elsewhere: bool = True) -> None:
        """Put a datagram on its way from a host; to a group, to this host and to others only if it is said."""
        address = datagram.destination[0]
        if is_group(address):
            for receiver in self._hosts:
                if here if receiver is host else elsewhere:
                    self._depart(datagram, host, receiver)
            return
        owner = host if host.owns(address) else self._host_of.get(address)
        if owner is None:
            self.unsent(host, datagram, Fate.NO_HOST)
        else:
            self._depart(datagram, host, owner)

    def unsent(self, host: Host, datagram: Datagram, fate: Fate) -> None:
        """Record a datagram that never left its host."""
        now = self.clock.seconds()
        self.trace.settled(self.trace.sent(datagram, now, host.name, ""), fate, now, datagram)

    # -- the path

    def _depart(self, datagram: Datagram, sender: Host, receiver: Host, cause: str = "") -> None:
        link = self._links.between(sender, receiver)
        row = self.trace.sent(datagram, self.clock.rightNow, sender.name, receiver.name, cause)
        if link.stages:
            self._travel(row, datagram, _Way(sender, receiver, link, link.stages), 0)
        else:
            self.clock.call_later_for(self, link.delay, self._arrive, row, datagram, receiver)

    def _travel(self, row: TraceRow, datagram: Datagram, way: _Way, passed: int) -> None:
        """Take a datagram that has passed some of the effects through the next one; the seam where effects work."""
        if passed == len(way.stages):
            self.clock.call_later_for(self, way.link.delay, self._arrive, row, datagram, way.receiver)
            return
        stage = way.stages[passed]
        now = self.clock.rightNow
        arrivals = list(stage.effect(datagram, now, stage.rng))
        onwards = [arrival for arrival in arrivals if arrival.datagram.error == datagram.error]
        if not onwards:
            self.trace.settled(row, Fate.REFUSED if arrivals else Fate.LOST, now, datagram, stage.label)
        for index, (copy, delay) in enumerate(onwards):
            if index:
                row = self.trace.sent(copy, now, way.sender.name, way.receiver.name, stage.label)
            if delay:
                self.clock.call_later_for(self, delay, self._travel, row, copy, way, passed + 1)
            else:
                self._travel(row, copy, way, passed + 1)
        if len(onwards) == len(arrivals):
            return
        for arrival in arrivals:
            if arrival.datagram.error != datagram.error:
                back = (way.receiver, way.sender, stage.label)
                self.clock.call_later_for(self, arrival.delay, self._depart, arrival.datagram, *back)

    def _arrive(self, row: TraceRow, datagram: Datagram, host: Host) -> None:
        destination = datagram.destination
        # An effect may have redirected it. Loopback and broadcast addresses are no host's own.
        host = self._host_of.get(destination[0], host)
        port = host.port_for(destination, datagram.source)
        now = self.clock.rightNow
        if port is None or not port.reading:
            quiet = port or host.silent or host.down or datagram.error or is_group(destination[0])
            self.trace.settled(row, Fate.UNHEARD if quiet else Fate.REFUSED, now, datagram)
            if not quiet:
                self.send(host, port_unreachable(datagram))
        elif datagram.error is not None:
            self.trace.settled(row, Fate.DELIVERED, now, datagram)
            port.unreachable(datagram.source, datagram.error, datagram.payload)
        elif (fate := port.refusal(datagram)) is not None:
            self.trace.settled(row, fate, now, datagram)
        else:
            port.deliver(datagram, lambda fate: self.trace.settled(row, fate, now, datagram))

    # -- details

    def _host(self, which: SimulatedReactor | str) -> Host:
        if isinstance(which, SimulatedReactor):
            return which.host
        try:
            return self._host_of[canonical(which)]
        except KeyError:
            raise ValueError(f"no host of this network has the address {which}") from None

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


def _why_not_fired(clock: SteppingClock, timeout: float) -> str:
    pending = clock.getDelayedCalls()
    if pending:
        return (
            f"the Deferred did not fire within {timeout:g} s of virtual time; {len(pending):,} delayed calls are "
            f"pending, the next is {pending[0]}"
        )
    return "the Deferred has not fired, and nothing is scheduled any more that could make it fire"
