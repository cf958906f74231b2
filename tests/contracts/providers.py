"""Where the ports come from that the contract is tested on.

Theory of operation: the contract speaks to a :class:`PortProvider` only: make a port, let things happen until a
condition holds, say what was left behind. One kind of provider builds a real reactor of its own, never installed, and
puts either our port or Twisted's on it; the other has a simulated network. A provider also knows the faults that its
ports are known to have, each with the words by which the failing test shows that it is this fault and no other.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import CannotListenError
from twisted.internet.pollreactor import PollReactor
from twisted.internet.selectreactor import SelectReactor

from twistedudp.testing import SimulatedNetwork
from twistedudp.transport import DatagramPort, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.protocol import DatagramProtocol

__all__ = ["Fault", "OurPorts", "PortProvider", "SimulatedPorts", "TwistedPorts", "provider_classes"]

POLL_INTERVAL = 0.0005
"""Seconds between looks at a condition."""


class Fault(NamedTuple):
    """A fault that a port is known to have."""

    reason: str
    """What it is, with the number of its issue where there is one."""
    symptom: str
    """What the failing test's message contains."""


class PortProvider:
    """Makes ports and lets them run.

    Attributes:
        name: What test classes are called after.
        broadcast: The broadcast address that reaches ports of this provider.
        most_before_a_timer: Datagrams that may be delivered while a timer is due.
        expected_faults: Names of contract tests that must fail, and why.
        patience: Seconds after which a condition is taken to be never met.
    """

    name: ClassVar[str]
    broadcast: ClassVar[str] = "127.255.255.255"
    most_before_a_timer: ClassVar[int] = 250  # a receive buffer of the kernel's usual size holds 256
    expected_faults: ClassVar[Mapping[str, Fault]] = {}
    patience: float = 10.0  # a thousand times what is usual: the machine may be busy

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Make a port that listens; ``options`` are ``max_datagram_size`` or nothing."""
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

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Run the reactor, looking at the condition again and again."""
        ends = self.reactor.seconds() + self.patience

        def look() -> None:
            if condition() or self.reactor.seconds() > ends:
                self.reactor.crash()  # unlike stop(), it leaves a reactor that can run again
            else:
                self.reactor.callLater(POLL_INTERVAL, look)

        self.reactor.callLater(0, look)
        self.reactor.run(installSignalHandlers=False)
        return condition()

    def settle(self) -> None:
        """Run for as long as datagrams and ICMP errors need on the loopback interface, several times over."""
        usual, self.patience = self.patience, 0.03
        self.run_until(lambda: False)
        self.patience = usual

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
        """Listen with our port."""
        listening = listen(self.reactor, port, protocol, interface, **options)
        assert isinstance(listening, DatagramPort)
        return listening


class TwistedPorts(_ReactorPorts):
    """``reactor.listenUDP``: the port that ours stands in for."""

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen with Twisted's port, at its own default size."""
        if "max_datagram_size" in options:
            options["maxPacketSize"] = options.pop("max_datagram_size")
        try:
            return self.reactor.listenUDP(port, protocol, interface, **options)
        except CannotListenError as error:
            # It leaves the socket of a failed bind to the garbage collector, which warns. Only the traceback knows it.
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if "skt" in frame.f_locals:
                    frame.f_locals["skt"].close()
            raise


class SimulatedPorts(PortProvider):
    """A host of a simulated network that talks to itself."""

    name = "Simulated"
    broadcast = "255.255.255.255"
    most_before_a_timer = 1000  # no virtual time passes meanwhile: the timer is exact all the same

    def __init__(self) -> None:
        self.network = SimulatedNetwork()
        self.reactor = self.network.reactor()

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Listen on the simulated host, through our ``listen``, which asks the reactor for its own port."""
        return listen(self.reactor, port, protocol, interface, **options)

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        """Set a timer."""
        self.reactor.callLater(delay, function)

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
_NO_ATTRIBUTE = "has no attribute 'delivering_to_group'"

TWISTED_FAULTS: Mapping[str, Fault] = {
    "test_8193_bytes": _CUT,
    "test_20000_bytes": _CUT,
    "test_largest_datagram": _CUT,
    "test_larger_than_the_limit": Fault("a datagram larger than the limit is delivered cut", "Lists differ"),
    "test_many_empty_datagrams": Fault("a turn is bounded by bytes, and empty ones have none", "before the timer"),
    "test_stop_twice": Fault("only the last Deferred of several fires", "never fired"),
    "test_write_after_stop": Fault("it raises AttributeError: the socket is gone", "no attribute 'socket'"),
    "test_stop_inside_datagram_received": Fault("the read turn goes on after the stop", "Lists differ"),
    "test_unreachable_is_told": Fault("a refusal of an unconnected port's datagram is not told", "was not told"),
    "test_dual_stack_shows_ipv4": Fault("IPv4 peers of a dual-stack port are shown as ::ffff:...", "::ffff:"),
    "test_dual_stack_writes_ipv4": Fault("a dual-stack port refuses to write to IPv4", "IPv6 port write() called"),
    "test_answer_from_the_address_asked": Fault("the kernel chooses the source of the answer", "no answer came"),
    "test_later_answer_from_the_address_asked": Fault("the kernel chooses the source of the answer", "no answer came"),
    "test_delivering_to_group": Fault("it cannot tell a broadcast from other datagrams", _NO_ATTRIBUTE),
    "test_failing_start_protocol": Fault("the socket stays bound", "Couldn't listen"),
}
"""Of ``reactor.listenUDP`` on every reactor, Twisted 24.7 to 26.10."""

POLLED_FAULTS: Mapping[str, Fault] = {
    "test_connected_survives_refusal": Fault(
        "#5377, #6467: EPOLLERR and POLLERR close a connected port", "was not told"
    ),
}
"""More of them on the epoll and the poll reactor."""


def _asyncio_reactor() -> AsyncioSelectorReactor:
    return AsyncioSelectorReactor(asyncio.new_event_loop())


REACTORS: Mapping[str, Callable[[], Any]] = {
    "EPoll": EPollReactor,
    "Poll": PollReactor,
    "Select": SelectReactor,
    "Asyncio": _asyncio_reactor,
}


def provider_classes() -> list[type[PortProvider]]:
    """Return every provider: our port and Twisted's on each reactor, and the simulated one."""
    classes: list[type[PortProvider]] = [SimulatedPorts]
    for name, make_reactor in REACTORS.items():
        faults = {**TWISTED_FAULTS, **(POLLED_FAULTS if name in {"EPoll", "Poll"} else {})}
        made = staticmethod(make_reactor)
        classes.append(type(f"Ours{name}", (OurPorts,), {"name": f"Ours{name}", "make_reactor": made}))
        classes.append(
            type(
                f"Twisted{name}",
                (TwistedPorts,),
                {"name": f"Twisted{name}", "make_reactor": made, "expected_faults": faults},
            )
        )
    return classes
