"""Ask all servers of the networks that this host is attached to.

Theory of operation: one port for each network interface, so that an answer tells by which it was asked. On each, the
question goes to the broadcast address of each of its IPv4 networks and to the group of each address family: many
access points and switches pass one of the two better than the other. IP_MULTICAST_IF chooses the interface (on
loopback, too, where Linux has it by that only), and time to live and hop limit are 1, so that no router passes it on.
What and when is :class:`._questions.Asking`'s part.
"""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError, MulticastJoinError
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from .. import transport
from .._alarm import Alarm, steady_clock
from ..errors import LocalError
from . import DISCOVERY_PORT, GROUP_IPV4, GROUP_IPV6
from ._interfaces import chosen, interfaces_of
from ._questions import Asking, attempts
from ._wire import ID_SIZE, MAX_ANSWER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IListeningPort

    from ..address import Address
    from ._interfaces import Interface
    from ._questions import DiscoveryAnswer

__all__ = ["Discovery", "discover"]

_IP_TTL: Final = 1
_LONGEST_TURN: Final = 1.0
"""Seconds for which an answer may have waited in the kernel; a clock that was set makes it look like more, or less."""


def discover(
    reactor: Any,
    *,
    wait: float = 3.0,
    rounds: int = 3,
    method: str | None = None,
    params: Sequence[object] = (),
    port: int = DISCOVERY_PORT,
    interfaces: Sequence[str] | None = None,
    ipv4: bool = True,
    ipv6: bool = True,
    on_answer: Callable[[DiscoveryAnswer], object] | None = None,
) -> Deferred[list[DiscoveryAnswer]]:
    """Ask who is there, by broadcast and multicast on each network interface, and collect the answers.

    Servers answer that were made discoverable (``UDPServerService(..., discoverable=NAME)``, ``twistd udpecho
    --discoverable NAME``) and that no router is before. What they say is not authenticated.

    Args:
        reactor: The reactor.
        wait: Seconds that it takes in all, at most 60. A method that is slow needs more.
        rounds: How often is asked, at most 16; those that have answered are silent from then on. Three find practically
            all where 30 % of the datagrams are lost.
        method: A method to run on all of them; those that do not have it, or where it fails, are not among the answers.
            None asks who is there.
        params: The method's parameters. They have room for some 900 bytes.
        port: The discovery port.
        interfaces: Names or addresses of the network interfaces to ask on; None for all.
        ipv4: Ask over IPv4.
        ipv6: Ask over IPv6.
        on_answer: Called with each :class:`DiscoveryAnswer` as it comes, each server once.

    Returns:
        A Deferred that fires after ``wait`` seconds with a list of :class:`DiscoveryAnswer`, by name, perhaps empty. It
        fails with :class:`~twistedudp.errors.LocalError` where there is nothing to ask by or for, or the parameters are
        too large, with :class:`~twistedudp.errors.EncodeError` for parameters that cannot be sent, with
        :class:`ValueError` for numbers out of range, and with what ``on_answer`` raised.
        Cancelling it ends the asking.
    """
    try:
        _check(port, params, interfaces)
        asking = Asking(
            secrets.randbits(32), secrets.token_bytes(ID_SIZE), attempts(wait, rounds), method, params
        )  # fmt: skip
        families = tuple(family for family, asked in ((4, ipv4), (6, ipv6)) if asked)
        places = paths(chosen(interfaces_of(reactor), interfaces), families)
        return Discovery(reactor, asking, wait, port, on_answer).run(places)
    except CannotListenError as error:
        few = getattr(error.socketError, "errno", None) in (errno.EMFILE, errno.ENFILE)
        advice = "; name fewer interfaces, or raise the limit of open files (ulimit -n)" if few else ""
        return fail(LocalError(f"no port to ask by can be had: {error.socketError}{advice}"))
    except Exception:  # noqa: BLE001  # whatever is wrong with the arguments, the caller has one place to look
        return fail()


def _check(port: object, params: object, interfaces: object) -> None:
    """Check what would otherwise be found wrong when ports are open already, or not at all.

    Raises:
        ValueError: The port is none.
        TypeError: A text is given where several values are meant, which it would be taken for.
    """
    if type(port) is not int or not 1 <= port <= 65535:
        raise ValueError(f"port={port!r}: it must be a whole number from 1 to 65535")
    for name, value in (("params", params), ("interfaces", interfaces)):
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{name}={value!r}: it must be a list, such as [{value!r}]")


class Path(NamedTuple):
    """How is asked on one interface."""

    interface: Interface
    hosts: tuple[str, ...]
    """The addresses that the question is sent to."""


def paths(interfaces: Sequence[Interface], families: Sequence[int]) -> list[Path]:
    """Return how is asked on each interface.

    Args:
        interfaces: The interfaces.
        families: 4, 6, or both.

    Raises:
        LocalError: There is no way to ask.
    """
    found = []
    for interface in interfaces:
        hosts: list[str] = []
        if 4 in families and interface.ipv4:
            hosts += [*interface.broadcasts, GROUP_IPV4]
        # IPv6 has no broadcast, and Linux no route to groups on loopback.
        if 6 in families and interface.ipv6 and interface.ipv6 != ("::1",) and interface.number:
            hosts.append(GROUP_IPV6)
        if hosts:
            found.append(Path(interface, tuple(hosts)))
    if not found:
        names = ", ".join(interface.name for interface in interfaces) or "no network interface"
        wanted = " or ".join(f"IPv{family}" for family in families) or "any address family"
        raise LocalError(
            f"there is no way to ask over {wanted} on {names}: an address of that family is needed (loopback has no "
            "IPv6 groups)"
        )
    return found


class Discovery:
    """One discovery under way.

    Args:
        reactor: The reactor.
        asking: Its state.
        wait: Seconds that it takes.
        port: The discovery port.
        on_answer: Called with each new answer.

    Attributes:
        asking: Its state.
    """

    def __init__(
        self,
        reactor: Any,
        asking: Asking,
        wait: float,
        port: int,
        on_answer: Callable[[DiscoveryAnswer], object] | None = None,
    ) -> None:
        self.asking = asking
        self._reactor = reactor
        self._wait = wait
        self._port = port
        self._on_answer = on_answer
        self._clock = steady_clock(reactor)
        self._alarm = Alarm(reactor, self._clock, self._go_on)
        self._began = self._clock()
        self._next = 0
        self._ports: list[tuple[Any, Path]] = []
        self._result: Deferred[list[DiscoveryAnswer]] | None = None

    def run(self, places: Sequence[Path]) -> Deferred[list[DiscoveryAnswer]]:
        """Begin; see :func:`discover` for what the Deferred fires with.

        Raises:
            twisted.internet.error.CannotListenError: No port can be had.
        """
        result: Deferred[list[DiscoveryAnswer]] = Deferred(lambda _: self._end(None))
        self._result = result
        try:
            for path in places:
                listening = self._listen(path)
                self._ports.append((listening, path))
            self._began = self._clock()
            self._go_on(self._began)
        except BaseException:
            self._close()
            raise
        return result

    def answer_received_untrusted(
        self, datagram: bytes, peer: Address, interface: str, arrived_ns: int | None = None
    ) -> None:
        """Take what came to one of the ports, when by the kernel's clock if that is known."""
        waited = 0.0 if arrived_ns is None else self._reactor.seconds() - arrived_ns / 1e9  # both are wall clocks
        if not 0 <= waited < _LONGEST_TURN:
            waited = 0.0
        answer = self.asking.answer_received_untrusted(datagram, peer, interface=interface, now=self._clock() - waited)
        if answer is None or self._result is None or self._on_answer is None:
            return
        try:
            self._on_answer(answer)
        except Exception:  # noqa: BLE001  # the caller's own, and the caller's to hear of
            self._end(Failure())  # type: ignore[no-untyped-call]  # Twisted has no annotation here

    def _go_on(self, now: float) -> None:
        """Ask if it is time to, or come to the end."""
        schedule = self.asking.schedule
        while self._next < len(schedule) and self._began + schedule[self._next].due <= now:
            self._ask(self._next)
            self._next += 1
        if self._result is None:
            return
        end = self._began + self._wait
        if now >= end:
            self._end(self.asking.answers())
        else:
            self._alarm.at(self._began + schedule[self._next].due if self._next < len(schedule) else end)

    def _ask(self, number: int) -> None:
        datagram = self.asking.question(number, now=self._clock())
        for listening, path in self._ports:
            for host in path.hosts:
                # An interface that has just gone, or was never up: the others are asked.
                with suppress(OSError, InvalidAddressError, MessageLengthError):
                    listening.write(datagram, (host, self._port))
                    self.asking.stats.questions += 1

    def _listen(self, path: Path) -> Any:
        receiver = _AnswerReceiver(self, path.interface.name)
        try:
            listening: Any = _listen_on("::", self._reactor, receiver)
        except CannotListenError:
            if GROUP_IPV6 in path.hosts:
                raise
            listening = _listen_on("", self._reactor, receiver)  # no IPv6 here
        if not hasattr(listening, "setOutgoingInterface"):
            listening.stopListening()
            raise LocalError("discover() needs ports of twistedudp: use a reactor with file descriptors")
        listening.setTTL(_IP_TTL)
        listening.setBroadcastAllowed(True)
        handle = listening.getHandle() if hasattr(listening, "getHandle") else None
        if handle is not None:
            with suppress(OSError):
                handle.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _IP_TTL)  # for broadcasts
        if GROUP_IPV4 in path.hosts:
            listening.setOutgoingInterface(path.interface.ipv4[0]).addErrback(_no_such_interface)
        if GROUP_IPV6 in path.hosts:
            listening.setOutgoingInterface(path.interface.number).addErrback(_no_such_interface)
        return listening

    def _end(self, outcome: list[DiscoveryAnswer] | Failure | None) -> None:
        """Close everything, then let the Deferred fire; with None it has been cancelled and fires by itself."""
        result, self._result = self._result, None
        closed = self._close()
        if result is not None and outcome is not None:
            closed.addCallback(lambda _: None if result.called else result.callback(outcome))

    def _close(self) -> Deferred[Any]:
        self._alarm.cancel()
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(listening.stopListening) for listening, _ in ports])


def _listen_on(interface: str, reactor: Any, receiver: DatagramProtocol) -> IListeningPort:
    return transport.listen(reactor, 0, receiver, interface, MAX_ANSWER_SIZE, return_path=False, timestamps=True)


def _no_such_interface(failure: Failure) -> None:
    """Ask all the same: the interface has just gone, or the system chooses one."""
    failure.trap(OSError, MulticastJoinError)  # type: ignore[no-untyped-call]  # Twisted has no annotation here


class _AnswerReceiver(DatagramProtocol):
    """The protocol of the port that asks on one interface."""

    noisy = False
    transport: Any  # a port of ours, or of the simulated network

    def __init__(self, discovery: Discovery, interface: str) -> None:
        self._discovery = discovery
        self._interface = interface

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Hand an answer on."""
        times: Sequence[int] = self.transport.arrival_times
        self._discovery.answer_received_untrusted(datagram, addr, self._interface, times[0] if times else None)
