"""The reactor of one simulated host.

Theory of operation: what a program needs of a reactor to speak UDP, and nothing else: time, ports, names. It has no
file descriptors (no ``IReactorFDSet``), which is how :func:`twistedudp.transport.listen` knows to ask it for a port.
All reactors of a network share one clock; each knows its own delayed calls, so that a test can see whether one program
has left any behind. A host that crashes takes its reactor with it: what its programs still do is without effect, and
the programs of its next life run on another reactor, so that nothing of the old life reaches into the new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTime, IReactorUDP
from zope.interface import implementer

from ..errors import LocalError
from ._host import BROADCAST
from ._port import SimulatedPort
from ._resolver import SimulatedResolver

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from twisted.internet.interfaces import IDelayedCall, IHostnameResolver
    from twisted.internet.protocol import DatagramProtocol

    from ._host import Host
    from ._network import SimulatedNetwork

__all__ = ["SimulatedReactor"]


@implementer(IReactorTime, IReactorUDP, IReactorPluggableNameResolver)
class SimulatedReactor:
    """A host on a simulated network, as the programs that run on it see it.

    Args:
        network: The network to which the host belongs.
        addresses: The host's IPv4 and IPv6 addresses, beside loopback which every host has; none for one of each kind
            that the network picks.
        silent: Whether datagrams to ports where nobody listens vanish, as behind a firewall, instead of being answered
            with an ICMP port-unreachable.
        name: A host name, which is put into the network's table with these addresses, and which
            :meth:`SimulatedNetwork.explain` shows.

    Attributes:
        network: The network.
        host: What the network knows of the host.
        crashed: Whether :meth:`crash` has ended this reactor.
        ports_take_admission: That :func:`twistedudp.listen` may set ``admission`` of its ports.
        nameResolver: Looks names up in the network's table; see ``IReactorPluggableNameResolver``.

    Raises:
        ValueError: Not a numeric address of a host, or another host has it or the name.
    """

    nameResolver: IHostnameResolver
    crashed = False
    ports_take_admission = True

    def __init__(self, network: SimulatedNetwork, *addresses: str, silent: bool = False, name: str = "") -> None:
        self._run_on(network, network.add_host(addresses, silent=silent, name=name))

    def __repr__(self) -> str:
        return f"<SimulatedReactor {' '.join(self.addresses)}>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The host's addresses, beside loopback."""
        return self.host.addresses

    def network_interfaces(self) -> list[tuple[str, int, tuple[tuple[str, int], ...], tuple[str, ...]]]:
        """Return the host's network interfaces, as :func:`twistedudp.discover` asks for them.

        Returns:
            For each its name, its number, its addresses with their prefix lengths, and its broadcast addresses.
            All hosts are neighbours on one network.
        """
        addresses = tuple((address, 0) for address in self.addresses)
        return [("lo", 1, (("127.0.0.1", 8), ("::1", 128)), ()), ("net0", 2, addresses, (BROADCAST,))]

    @property
    def silent(self) -> bool:
        """Whether datagrams to ports where nobody listens vanish; may be set at any time."""
        return self.host.silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self.host.silent = silent

    @property
    def ports(self) -> list[SimulatedPort]:
        """The ports that are bound on this host, by number: empty when every program has cleaned up."""
        return self.host.ports

    def crash(self) -> None:
        """Let the host fail, as by a loss of power; nothing is told to the programs on it.

        Its ports vanish without ``stopProtocol``, its delayed calls never run, Deferreds that wait for either never
        fire. What its programs still do, when a test calls them, has no effect: datagrams do not leave, and calls that
        they schedule do not run. The host hears nothing and answers nothing, not even by ICMP, until :meth:`restart`.
        Datagrams that it has sent are on their way all the same. Crashing twice is harmless.
        """
        if self.crashed:
            return
        self.crashed = True
        self.host.crash()
        self.network.clock.drop_calls_of(self)
        self.network.note("crashed", self)

    def restart(self) -> SimulatedReactor:
        """Bring a crashed host up again, with the same addresses and links, and without any program.

        Returns:
            The reactor for the programs of its new life.

        Raises:
            twistedudp.errors.LocalError: It has not crashed, or is up again already.
        """
        if not self.crashed or not self.host.down:
            raise LocalError("this host is up; only after crash() it can be restarted, once")
        self.host.down = False
        reactor = type(self).__new__(type(self))
        reactor._run_on(self.network, self.host)
        self.network.note("restarted", reactor)
        return reactor

    def seconds(self) -> float:
        """Return the virtual time, in seconds; see ``IReactorTime.seconds``."""
        return self.network.clock.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002  # IReactorTime names it so
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """Schedule a call ``delay`` seconds from now; see ``IReactorTime.callLater``.

        Raises:
            ValueError: The delay is negative or not a number.
        """
        call = self.network.clock.call_later_for(self, delay, callable, *args, **kwargs)
        if self.crashed:
            self.network.clock.drop_calls_of(self)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Return what was scheduled by this reactor and is pending; datagrams under way are not among it."""
        return self.network.clock.calls_of(self)

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> SimulatedPort:
        """Bind a UDP port of this host and start the protocol on it; see ``IReactorUDP.listenUDP``.

        Args:
            port: The port number; 0 for a free one.
            protocol: The protocol to start.
            interface: A numeric address of this host; ``""`` for all of IPv4, ``"::"`` for all of both.
            maxPacketSize: Bytes; a larger datagram is counted and dropped, never cut.

        Raises:
            twisted.internet.error.CannotListenError: The port is taken, the address is not this host's, or the host has
                crashed since this reactor was made.
            twisted.internet.error.InvalidAddressError: The interface is not a numeric address.
        """
        listening = SimulatedPort(self, port, protocol, interface, maxPacketSize)
        listening.startListening()
        return listening

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Use another resolver; see ``IReactorPluggableNameResolver.installNameResolver``."""
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    def _run_on(self, network: SimulatedNetwork, host: Host) -> None:
        self.network = network
        self.host = host
        self.nameResolver = SimulatedResolver(self, network.look_up, lambda: network.lookup_delay)
