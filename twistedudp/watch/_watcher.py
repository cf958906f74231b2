"""Probing many targets on time from one UDP port: when each is due, and whose answer is whose.

Theory of operation: one agenda, a heap, has what is due when: a probe, a deadline, a look-up. One timer is set for the
first of them, and not sooner than :data:`TICK` after the last: what has come due by then leaves together, and a
thousand targets cost 50 wake-ups a second, not a thousand. Targets begin spread evenly over their interval, and each
probe is put off by its own jitter, so that neither the own machine nor a server gets bursts.

There is one port for IPv4 and one for IPv6, each opened when it is first needed. The kernel says when each answer
arrived, so nothing depends on when this process reads it. An answer belongs to the target with its sender's address;
where several targets have the same one, to that whose series it is of.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.protocol import DatagramProtocol

from .. import transport
from .._pacing import ArrivalClock, Ticker, clocks_of
from ..address import format_address, is_ip
from ..errors import HostNotFound
from ..probing import ProbeWire
from ._agenda import Agenda
from ._health import DOWN
from ._names import AGAIN_AFTER, FAILURES_BELIEVED, RETRY_AFTER, NameLookups
from ._watched import StateChange, Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.defer import Deferred

    from ..address import Address
    from ..interfaces import Unreachable
    from ._health import Change
    from ._target import Target

__all__ = ["SENT_TOGETHER", "TICK", "Watcher"]

TICK: Final = 0.05
"""Seconds from one wake-up to the next, at least: by so much a probe may leave later than planned. Its round trip is
measured from when it did leave. Half as many seconds cost a third more at a thousand targets: a processor that wakes up
has to fetch the program anew."""

SENT_TOGETHER: Final = 8
"""Probes handed to the kernel at once. More would save a little, but a probe's send time is taken when it is encoded,
and the time until the last of them is encoded goes into the first one's round trip: some 50 microseconds."""

_NS: Final = 1_000_000_000
_TICK_NS: Final = round(TICK * _NS)
_GOLDEN: Final = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many there are
_SESSION: Final = slice(19, 27)  # of a reflected probe

_PROBE, _DEADLINE, _LOOKUP = range(3)


class _Receiver(DatagramProtocol):
    """What comes to a port of the watcher's."""

    noisy = False
    transport: Any

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take one datagram; ports that know batches call the other."""
        self.datagrams_received(((datagram, addr),))

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Take some datagrams."""
        self._watcher.replies_received_untrusted(datagrams, getattr(self.transport, "arrival_times", ()))

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take an ICMP error."""
        self._watcher.unreachable_received_untrusted(peer, reason, quoted)


class Watcher:  # budget: two tables by which answers find their target, and what the reactor has to be told
    """Probe targets until stopped.

    Args:
        reactor: Provides what :func:`twistedudp.transport.listen` wants, the resolver and the time.
        on_change: Called with each :class:`StateChange`.
        rng: For jitter.

    Attributes:
        targets: What is watched, by name.
        strangers: Datagrams that came from no target's address and belong to none.
        clock_steps: How often the wall clock was set.
    """

    def __init__(
        self, reactor: Any, on_change: Callable[[StateChange], None], *, rng: random.Random | None = None
    ) -> None:
        self.targets: dict[str, Watched] = {}
        self.strangers = 0
        self.clock_steps = 0
        self._reactor = reactor
        self._on_change = on_change
        self._rng = rng or random.Random()  # noqa: S311  # spreads load
        self._clocks = clocks_of(reactor)
        self._now = self._clocks.monotonic_ns
        self._arrivals = ArrivalClock(self._clocks, self._clock_stepped)
        self._ticker: Ticker | None = None
        self._agenda: Agenda[tuple[int, Watched]] = Agenda(_TICK_NS)
        self._by_address: dict[Address, list[Watched]] = {}
        self._by_session: dict[int, Watched] = {}
        self._ports: dict[bool, Any] = {}
        self._errors: dict[bool, dict[int, int]] = {}
        self._lookups = NameLookups(reactor, self._resolved)

    @property
    def ports(self) -> list[Any]:
        """The ports that are open."""
        return list(self._ports.values())

    def start(self) -> None:
        """Begin to probe."""
        self._ticker = Ticker(self._reactor, self._tick, self._now)
        self._set_timer()

    def stop(self) -> Deferred[Any]:
        """Probe no more.

        Returns:
            A Deferred that fires when the ports are closed.
        """
        self.set_targets({})
        self._lookups.stop()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        ports, self._ports = self._ports, {}
        return gatherResults([maybeDeferred(port.stopListening) for port in ports.values()])

    def set_targets(self, targets: Mapping[str, Target]) -> tuple[int, int, int]:
        """Watch these targets instead; those that stay as they are keep their figures and their state.

        Returns:
            How many were added, removed and changed.
        """
        gone = [watched for name, watched in self.targets.items() if targets.get(name) != watched.target]
        for watched in gone:
            del self.targets[watched.target.name]
            watched.gone = True
            self._set_address(watched, None)
            del self._by_session[watched.table.wire.session]
        if gone:  # what is planned for them is not left for its time: by many reloads the agenda would grow
            self._agenda.keep(lambda entry: not entry[1].gone)
        new = [target for name, target in targets.items() if name not in self.targets]
        now, first = self._now(), self._rng.random()
        for number, target in enumerate(new):
            wire = _new_wire(target)
            watched = self.targets[target.name] = self._by_session[wire.session] = Watched(target, wire, self._changed)
            watched.due_ns = now + round(watched.interval_ns * ((first + number * _GOLDEN) % 1))
            self._agenda.add(now, (_LOOKUP, watched))
        self._set_timer()
        changed = len({watched.target.name for watched in gone} & targets.keys())
        return len(new) - changed, len(gone) - changed, changed

    # What comes from the network

    def replies_received_untrusted(self, datagrams: Sequence[tuple[bytes, Address]], times: Sequence[int]) -> None:
        """Take datagrams that have come to a port.

        Args:
            datagrams: Payloads and senders.
            times: When the kernel received each, by the wall clock; empty where it does not say.
        """
        by_address, arrived = self._by_address, self._arrivals.arrived
        arrived_ns, exact, read_ns = arrived(times[0] if times else None)
        offset_ns = times[0] - arrived_ns if exact else 0
        for number, (datagram, peer) in enumerate(datagrams):
            if exact:  # what the clocks are apart is looked at once for all, and the first is the oldest of them
                arrived_ns = min(times[number] - offset_ns, read_ns)
            elif times:
                arrived_ns, _, read_ns = arrived(times[number])
            candidates = by_address.get(peer)
            if candidates is None:
                self._from_stranger_untrusted(datagram, arrived_ns)
            elif len(candidates) == 1:
                candidates[0].reply_received_untrusted(datagram, arrived_ns, read_ns)
            else:
                _best_untrusted(candidates, datagram).reply_received_untrusted(datagram, arrived_ns, read_ns)

    def unreachable_received_untrusted(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take an ICMP error about what was sent to a peer."""
        now = self._now()
        candidates = self._by_address.get(peer, ())
        quoting = [one for one in candidates if one.table.wire.quoted_sequence_untrusted(quoted) >= 0]
        for watched in (quoting or candidates)[:1]:
            watched.probe_unreachable_untrusted(quoted, reason.reason, now)

    def _from_stranger_untrusted(self, datagram: bytes, arrived_ns: int) -> None:
        """Tell a server that answers from another of its addresses, a fault that is often made, from anybody else."""
        watched = self._by_session.get(int.from_bytes(datagram[_SESSION], "big"))
        if watched is None:
            self.strangers += 1
        else:
            watched.table.stranger_received(arrived_ns=arrived_ns)

    # What is due

    def _set_timer(self) -> None:
        due_ns = self._agenda.next_due
        if due_ns is not None and self._ticker is not None:
            self._ticker.at(due_ns)

    def _tick(self) -> None:
        now = self._now()
        ipv4: list[Watched] = []
        ipv6: list[Watched] = []
        for what, watched in self._agenda.take_due(now):
            if what == _PROBE:
                watched.planned = False
                if watched.address is not None:  # else a look-up will plan it again
                    (ipv6 if ":" in watched.address[0] else ipv4).append(watched)
            elif what == _DEADLINE:
                watched.deadline_reached(now)
            else:
                self._lookups.start(watched)
        for probes in (ipv4, ipv6):
            # Of a batch nobody knows which of it the own kernel has refused.
            alone = [one for one in probes if one.refused]
            together = [one for one in probes if not one.refused]
            for start in range(0, len(together), SENT_TOGETHER):
                self._send(together[start : start + SENT_TOGETHER], now, ipv6=probes is ipv6)
            for one in alone:
                self._send([one], now, ipv6=probes is ipv6)
        self._set_timer()

    def _send(self, probes: list[Watched], now: int, *, ipv6: bool) -> None:
        """Send a probe to each of these targets, and plan its next."""
        for watched in probes:
            self._plan_next(watched, now)
            watched.deadline_reached(now)
        try:
            port = self._ports.get(ipv6) or self._open(ipv6=ipv6)
        except CannotListenError as error:
            port, why = None, f"this machine cannot send to it: {error.socketError}"
        datagrams: list[tuple[bytes, Address]] = []
        sequences = []
        for watched in probes:  # from here to the kernel nothing is done that can be done before: it is round trip
            sequence, datagram = watched.next_probe(self._now())
            sequences.append(sequence)
            datagrams.append((datagram, watched.address))  # type: ignore[arg-type]  # the tick has looked
        if port is not None:
            known = dict(self._errors[ipv6])
            refused = {datagram: _text_of(error) for datagram, _, error in port.write_batch(datagrams)}
            doubtful = [number for number, count in self._errors[ipv6].items() if count != known.get(number)]
            for watched in probes:
                watched.refused = bool(doubtful)
            if doubtful and len(datagrams) == 1:
                refused[datagrams[0][0]] = os.strerror(doubtful[0])
        for watched, sequence, (datagram, _) in zip(probes, sequences, datagrams, strict=True):
            if port is None:
                watched.probe_not_sent(sequence, why)
            elif datagram in refused:
                watched.probe_not_sent(sequence, f"this machine cannot send to it: {refused[datagram]}")
            else:
                watched.sent += 1

    def _open(self, *, ipv6: bool) -> Any:
        port: Any = transport.listen(
            self._reactor, 0, _Receiver(self), "::" if ipv6 else "", timestamps=True, return_path=False
        )
        self._ports[ipv6] = port
        self._errors[ipv6] = port.stats.send_errors  # it stays the same object
        return port

    def _plan_next(self, watched: Watched, now: int) -> None:
        interval_ns = watched.interval_ns
        watched.due_ns += interval_ns
        if watched.due_ns + interval_ns < now:
            skipped = (now - watched.due_ns) // interval_ns
            watched.due_ns += skipped * interval_ns
            watched.skipped += skipped
        self._plan_probe(watched)
        if watched.timeout_ns < interval_ns:  # else the next probe looks for it
            self._agenda.add(now + watched.timeout_ns + _TICK_NS, (_DEADLINE, watched))

    def _plan_probe(self, watched: Watched) -> None:
        watched.planned = True
        self._agenda.add(watched.due_ns + int(watched.jitter_ns * self._rng.random()), (_PROBE, watched))

    # Names

    def _resolved(self, watched: Watched, addresses: list[Address]) -> None:
        now = self._now()
        target = watched.target
        if addresses:
            watched.lookups_in_vain = 0
            if watched.address not in addresses:
                self._set_address(watched, addresses[0])
            elif watched.health.state == DOWN and len(addresses) > 1:  # another may answer, as that of the other family
                self._set_address(watched, addresses[(addresses.index(watched.address) + 1) % len(addresses)])
            if not watched.planned:
                watched.due_ns = max(watched.due_ns, now)
                self._plan_probe(watched)
            again = AGAIN_AFTER
        else:
            watched.lookup_failures += 1
            watched.lookups_in_vain += 1
            if watched.address is None or watched.lookups_in_vain >= FAILURES_BELIEVED:
                self._set_address(watched, None)
                family = target.settings.address_family
                watched.name_without_address(str(HostNotFound(target.host, f"no {family} address" if family else "")))
            again = RETRY_AFTER
        if not is_ip(target.host):
            self._agenda.add(now + round(again * (0.75 + 0.5 * self._rng.random()) * _NS), (_LOOKUP, watched))
        self._set_timer()

    def _set_address(self, watched: Watched, address: Address | None) -> None:
        before, watched.address = watched.address, address
        if before is not None:
            there = self._by_address[before]
            there.remove(watched)
            if not there:
                del self._by_address[before]
        if address is not None:
            self._by_address.setdefault(address, []).append(watched)

    # What is told

    def _changed(self, watched: Watched, change: Change) -> None:
        rolling = watched.rolling
        p50, p99 = rolling.percentile_ns(50), rolling.percentile_ns(99)
        self._on_change(
            StateChange(
                target=watched.target.name,
                address=format_address(watched.address) if watched.address else "",
                **change._asdict(),
                loss=rolling.loss,
                p50=None if p50 is None else p50 / _NS,
                p99=None if p99 is None else p99 / _NS,
                jitter=watched.jitter.value_ns / _NS,
                time=self._clocks.wall_ns() / _NS,
            )
        )

    def _clock_stepped(self) -> None:
        self.clock_steps += 1


def _new_wire(target: Target) -> ProbeWire:
    size = target.settings.size
    return ProbeWire(secrets.randbits(64), size, os.urandom(size))


def _text_of(error: Exception) -> str:
    """Return in words what a port refuses; Twisted's error has the address and the reason apart."""
    return ": ".join(map(str, error.args)) if isinstance(error, InvalidAddressError) else str(error)


def _best_untrusted(candidates: Sequence[Watched], datagram: bytes) -> Watched:
    """Return the one of several targets at one address whose series a datagram is of, the first where it is of none."""
    for watched in candidates:
        if watched.table.wire.resembles_untrusted(datagram, watched.table.next_sequence):
            return watched
    return candidates[0]
