"""Where the ports come from that the contract is tested on.

Theory of operation: the contract speaks to a :class:`PortProvider` only: make a port, let things happen until a
condition holds, say what was left behind. One kind of provider builds a real reactor of its own, never installed, and
puts either our port, over one of its backends, or Twisted's on it; the other has a simulated network. A provider also
knows which sections of the contract its ports do not claim to fulfil, and the faults that they are known to have, each
with the words by which the failing test shows that it is this fault and no other.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import CannotListenError
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor

from twistedudp.errors import LocalError
from twistedudp.testing import SimulatedNetwork
from twistedudp.transport import DatagramPort, listen
from twistedudp.transport._backend import BACKENDS, choose_backend

uvloop: Any
try:
    uvloop = import_module("uvloop")
except ImportError:  # it is in the extra "test", and not for every Python
    uvloop = None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.protocol import DatagramProtocol

__all__ = [
    "REACTORS",
    "REQUIRE_COMPILED",
    "Fault",
    "OurPorts",
    "PortProvider",
    "SimulatedPorts",
    "TwistedPorts",
    "missing_backend",
    "provider_classes",
    "uvloop",
]

REQUIRE_COMPILED = "TWISTEDUDP_REQUIRE_COMPILED"
"""The environment variable by which a missing backend is a failure, as in CI, instead of tests that are left out."""

HASTY_LOOKS = 50
"""Looks at a condition, one in each turn of the reactor; most conditions hold by then."""

POLL_INTERVAL = 0.0005
"""Seconds between later looks."""

QUIET = 0.01
"""Seconds in which all that is under way on the loopback interface arrives: usually it takes none of them."""

QUIET_TURNS = 10
"""Turns in which a reactor delivers it."""


class Fault(NamedTuple):
    """A fault that a port is known to have."""

    reason: str
    """What it is, with the number of its issue where there is one."""
    symptom: str
    """What the failing test's message contains."""
    in_vain: bool = False
    """Whether the test waits for what never comes: then it need not wait for long."""


class PortProvider:
    """Makes ports and lets them run.

    Attributes:
        name: What test classes are called after.
        backend: The backend that serves its ports; None lets them choose.
        lacks: Sections of the contract that its ports do not claim to fulfil.
        broadcast: The broadcast address that reaches ports of this provider.
        most_before_a_timer: Datagrams that may be delivered while a timer is due.
        expected_faults: Names of contract tests that must fail, and why.
        patience: Seconds after which a condition is taken to be never met.
    """

    name: ClassVar[str]
    backend: ClassVar[str | None] = None
    lacks: ClassVar[frozenset[str]] = frozenset()
    broadcast: ClassVar[str] = "127.255.255.255"
    most_before_a_timer: ClassVar[int] = 250  # a receive buffer of the kernel's usual size holds 256
    expected_faults: ClassVar[Mapping[str, Fault]] = {}
    patience: float = 10.0  # a thousand times what is usual: the machine may be busy

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Make a port that listens.

        Args:
            protocol: The protocol on it.
            interface: A numeric address of this host, or empty.
            port: The UDP port, 0 for a free one.
            options: ``max_datagram_size``, ``timestamps``, and ``multicast=True`` for a port that joins groups.
        """
        raise NotImplementedError

    def room(self, port: Any) -> int:
        """Return how many bytes, counted as the kernel counts them, can wait for a port."""
        raise NotImplementedError

    def nanoseconds(self) -> int:
        """Return the time as a port's ``arrival_times`` have it."""
        raise NotImplementedError

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Set a timer on the ports' reactor."""
        raise NotImplementedError

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Let things happen until a condition holds, and return whether it does."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let everything happen that is under way."""
        raise NotImplementedError

    def leftovers(self) -> list[object]:
        """Return what stopped ports have left behind in the reactor."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the provider itself holds."""


class _ReactorPorts(PortProvider):
    """Ports on a reactor of their own, with the system's sockets."""

    make_reactor: ClassVar[Callable[[], Any]]

    def __init__(self) -> None:
        self.reactor = type(self).make_reactor()
        self._own = set(self.reactor.getReaders())

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Set a timer."""
        self.reactor.callLater(delay, function)

    def room(self, port: Any) -> int:
        """Return the size of the receive buffer; the kernel tells it in the bytes that it counts."""
        size: int = port.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return size

    def nanoseconds(self) -> int:
        """Return the system's time."""
        return time.time_ns()

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Run the reactor, looking at the condition again and again."""
        ends = self.reactor.seconds() + self.patience
        looks = 0

        def look() -> None:
            nonlocal looks
            looks += 1
            if condition() or self.reactor.seconds() > ends:
                self.reactor.crash()  # unlike stop(), it leaves a reactor that can run again
            else:
                self.reactor.callLater(0 if looks < HASTY_LOOKS else POLL_INTERVAL, look)

        self.reactor.callLater(0, look)
        self.reactor.run(installSignalHandlers=False)
        return condition()

    def settle(self) -> None:
        """Run for as long as datagrams and ICMP errors need on the loopback interface, several times over."""
        quiet_from = self.reactor.seconds() + QUIET
        looks = 0

        def enough() -> bool:
            nonlocal looks
            looks += 1
            return looks > QUIET_TURNS and bool(self.reactor.seconds() >= quiet_from)

        self.run_until(enough)

    def leftovers(self) -> list[object]:
        """Return readers, writers and delayed calls."""
        readers = [reader for reader in self.reactor.getReaders() if reader not in self._own]
        return [*readers, *self.reactor.getWriters(), *self.reactor.getDelayedCalls()]

    def close(self) -> None:
        """Take the reactor apart."""
        for call in self.reactor.getDelayedCalls():
            call.cancel()
        self.reactor.disconnectAll()
        for reader in list(self.reactor._internalReaders):
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        if isinstance(self.reactor, EPollReactor):
            self.reactor._poller.close()
        if isinstance(self.reactor, AsyncioSelectorReactor):
            self.reactor._asyncioEventloop.close()


class OurPorts(_ReactorPorts):
    """``twistedudp.transport.listen``."""

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen with our port, all of which may join groups."""
        options.pop("multicast", None)
        if self.backend is not None:
            options.setdefault("backend", self.backend)
        listening = listen(self.reactor, port, protocol, interface, **options)
        assert isinstance(listening, DatagramPort)
        return listening


class TwistedPorts(_ReactorPorts):
    """``reactor.listenUDP`` and ``listenMulticast``: the ports that ours stands in for."""

    lacks = frozenset({"OwnContract", "KernelContract", "AdmissionContract"})

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen with Twisted's port, at its own default size."""
        if "max_datagram_size" in options:
            options["maxPacketSize"] = options.pop("max_datagram_size")
        listen_twisted = self.reactor.listenMulticast if options.pop("multicast", False) else self.reactor.listenUDP
        try:
            return listen_twisted(port, protocol, interface, **options)
        except CannotListenError as error:
            # It leaves the socket of a failed bind to the garbage collector, which warns. Only the traceback knows it.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if "skt" in frame.f_locals:
                    frame.f_locals["skt"].close()
            raise


class SimulatedPorts(PortProvider):
    """A host of a simulated network that talks to itself."""

    name = "Simulated"
    backend = "simulated"
    lacks = frozenset({"KernelContract", "TurnContract"})
    broadcast = "255.255.255.255"
    most_before_a_timer = 1000  # no virtual time passes meanwhile: the timer is exact all the same

    def __init__(self) -> None:
        self.network = SimulatedNetwork()
        self.reactor = self.network.reactor()

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen on the simulated host, through our ``listen``, which asks the reactor for its own port."""
        options.pop("multicast", None)
        return listen(self.reactor, port, protocol, interface, **options)

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Set a timer."""
        self.reactor.callLater(delay, function)

    def room(self, port: Any) -> int:
        """Return so much that it is never used up: the simulated network loses nothing that waits."""
        return 1 << 30

    def nanoseconds(self) -> int:
        """Return the virtual time."""
        return round(self.reactor.seconds() * 1e9)

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Step from event to event."""
        ends = self.reactor.seconds() + self.patience
        while not condition() and self.network.clock.step(until=ends):
            pass
        return condition()

    def settle(self) -> None:
        """Run until nothing is under way."""
        self.network.run_until_idle()

    def leftovers(self) -> list[object]:
        """Return the delayed calls; there are no descriptors."""
        return list(self.reactor.getDelayedCalls())


_CUT = Fault("a datagram larger than 8,192 bytes is cut in silence", "bytes arrived")
_NO_SOCKET = Fault("it raises AttributeError: the socket is gone", "no attribute 'socket'")
_READS_ON = Fault("the read turn goes on after the stop", "Lists differ")
_UNBOUNDED = Fault("a turn is bounded by bytes, and not by time", "ms late")

TWISTED_FAULTS: Mapping[str, Fault] = {
    "test_8193_bytes": _CUT,
    "test_20000_bytes": _CUT,
    "test_largest_datagram": _CUT,
    "test_larger_than_the_limit": Fault("a datagram larger than the limit is delivered cut", "Lists differ"),
    "test_many_empty_datagrams": Fault("a turn is bounded by bytes, and empty ones have none", "before the timer"),
    "test_stop_twice": Fault("only the last Deferred of several fires", "never fired"),
    "test_write_after_stop": _NO_SOCKET,
    "test_stop_inside_datagram_received": _READS_ON,
    "test_unreachable_is_told": Fault(
        "a refusal of an unconnected port's datagram is not told", "was not told", in_vain=True
    ),
    "test_dual_stack_shows_ipv4": Fault("IPv4 peers of a dual-stack port are shown as ::ffff:...", "::ffff:"),
    "test_dual_stack_writes_ipv4": Fault("a dual-stack port refuses to write to IPv4", "IPv6 port write() called"),
    "test_answer_from_the_address_asked": Fault(
        "the kernel chooses the source of the answer", "no answer came", in_vain=True
    ),
    "test_later_answer_from_the_address_asked": Fault(
        "the kernel chooses the source of the answer", "no answer came", in_vain=True
    ),
    "test_delivering_to_group": Fault("it cannot tell a broadcast from other datagrams", "Lists differ"),
    "test_failing_start_protocol": Fault("the socket stays bound", "Couldn't listen"),
    "test_host_after_stop": _NO_SOCKET,
    "test_system_handle_after_stop": _NO_SOCKET,
    "test_stop_inside_burst": _READS_ON,
    "test_stop_inside_batch": _READS_ON,
    "test_burst_of_large_ones": Fault("a datagram larger than 8,192 bytes is cut in silence", "has 8192 bytes"),
    "test_burst_of_both_families": Fault("IPv4 peers of a dual-stack port are shown as ::ffff:...", "arrived at"),
    "test_burst_at_several_addresses": Fault("the kernel chooses the source of the answer", "came from elsewhere"),
    "test_burst_of_one_peer_at_several_addresses": Fault(
        "the kernel chooses the source of the answer", "answered otherwise"
    ),
    "test_groups_of_others": Fault("it hears every group that any socket of the host has joined", "theirs"),
    "test_slow_protocol": _UNBOUNDED,
    "test_slow_batch_protocol": _UNBOUNDED,
}
"""Of ``reactor.listenUDP`` on every reactor, Twisted 24.7 to 26.10."""

_OLD_TWISTED_FAULTS: Mapping[str, Fault] = {
    "test_multicast_ipv6": Fault("it knows the options of IPv4 only", "0.0.0.0"),  # noqa: S104  # what it shows
}
"""More of them where Twisted has no module for multicast yet; 26.10 has."""

_CLOSED_BY_REFUSAL = {
    "test_connected_survives_refusal": Fault(
        "#5377, #6467: EPOLLERR and POLLERR close a connected port", "was not told", in_vain=True
    ),
}

MORE_TWISTED_FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "EPoll": _CLOSED_BY_REFUSAL,
    "Poll": _CLOSED_BY_REFUSAL,
    "Uvloop": {
        "test_connected_survives_refusal": Fault(
            "uvloop stops reading a connected port", "delivers no more", in_vain=True
        ),
    },
}
"""More of them on some reactors."""


def _asyncio_reactor() -> AsyncioSelectorReactor:
    return AsyncioSelectorReactor(asyncio.new_event_loop())


def _uvloop_reactor() -> AsyncioSelectorReactor:
    return AsyncioSelectorReactor(uvloop.new_event_loop())


REACTORS: Mapping[str, Callable[[], Any]] = {
    "EPoll": EPollReactor,
    "Poll": PollReactor,
    "Select": SelectReactor,
    "Asyncio": _asyncio_reactor,
    **({} if uvloop is None else {"Uvloop": _uvloop_reactor}),
}
"""What makes each kind of reactor that can be made here."""


def missing_backend(name: str) -> str:
    """Return why a backend cannot serve here, empty if it can."""
    try:
        choose_backend(name)
    except LocalError as error:
        return str(error)
    return ""


def provider_classes() -> list[type[PortProvider]]:
    """Return every provider: our port over each backend and Twisted's, on each reactor, and the simulated one.

    A backend that cannot serve is left out, unless it must be there: then its tests fail.
    """
    required = os.environ.get(REQUIRE_COMPILED, "") not in ("", "0")
    old = {} if find_spec("twisted.internet._multicast") else _OLD_TWISTED_FAULTS
    classes: list[type[PortProvider]] = [SimulatedPorts]
    for reactor, make_reactor in REACTORS.items():
        made = staticmethod(make_reactor)
        for backend in BACKENDS:
            if required or not missing_backend(backend):
                name = f"{backend.title()}{reactor}"
                classes.append(type(name, (OurPorts,), {"name": name, "backend": backend, "make_reactor": made}))
        name = f"Twisted{reactor}"
        faults = {**TWISTED_FAULTS, **old, **MORE_TWISTED_FAULTS.get(reactor, {})}
        classes.append(type(name, (TwistedPorts,), {"name": name, "make_reactor": made, "expected_faults": faults}))
    return classes
