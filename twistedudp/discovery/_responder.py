"""The discovery port of a server: hears questions, and answers them from the service's own port.

Theory of operation: a :class:`DiscoveryResponder` is the protocol of the second socket that a discoverable server
has. Every server of a host opens its own on the same port (SO_REUSEPORT), and each gets every datagram sent to a group
or by broadcast; who has not joined a group here does not get what is sent to it, whatever others on this host have
joined (IP_MULTICAST_ALL is off). Groups are joined on each network interface by which the service can be reached, and
interfaces are looked for again every few seconds. An interface that cannot be joined (Linux allows a socket 20 IPv4
groups: net.ipv4.igmp_max_memberships) still has broadcasts; it is counted and told once.

The pure state is :class:`._answers.Answers`; here are its clock, its timer, the method that it wants run.
"""

from __future__ import annotations

import errno
import random
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError, MessageLengthError, MulticastJoinError
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from .. import transport
from .._alarm import Alarm, steady_clock
from ..address import canonical, is_group, is_ip, is_loopback
from ..errors import LocalError
from ..messages import CODE_BUSY
from . import GROUP_IPV4, GROUP_IPV6
from ._answers import EPHEMERAL_PORTS, Answers, Identity
from ._interfaces import has_family, interfaces_of, reachable, serving
from ._wire import MAX_QUESTION_SIZE, MAX_TEXT

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IListeningPort
    from twisted.python.failure import Failure

    from ..address import Address
    from ..admission import AdmissionPolicy
    from ..transport import BoundSocket
    from ._answers import AnswerStats
    from ._interfaces import Interface
    from ._wire import Question

__all__ = ["RESCAN_INTERVAL", "Discoverable", "DiscoveryResponder", "bind_discovery", "check_discoverable"]

RESCAN_INTERVAL: Final = 5.0
"""Seconds between two looks for new network interfaces. One costs 0.2 ms; a machine that has just got its address is
found after so long at the latest."""

_ANY: Final = ("::", "")
"""What the port is bound to: both families, or IPv4 alone where there is no IPv6."""

_Membership: TypeAlias = "tuple[str, str, int]"
"""A group, and an interface by its name and its number: one that is made anew has another, and no memberships."""

_log = Logger(namespace="twistedudp")


class DiscoveryResponder(DatagramProtocol):
    """Answer the questions that come to the discovery port; made by :class:`Discoverable`.

    Args:
        reactor: The reactor.
        identity: What the server tells of itself.
        service: The port of the service, from which is answered.
        protocol: What is served there; ``run_method`` of it, if it has one, runs what questions ask for.
        port: The discovery port.

    Attributes:
        joined: The groups joined, each with the name and the number of the interface on which.
        not_joined: How often joining failed, by the name of the ``errno``.
    """

    noisy = False
    transport: Any  # a port of ours, or of the simulated network

    def __init__(self, reactor: Any, identity: Identity, service: Any, protocol: object, port: int) -> None:
        clock = steady_clock(reactor)
        self.joined: set[_Membership] = set()
        self.not_joined: Counter[str] = Counter()
        self._reactor = reactor
        self._service = service
        self._protocol = protocol
        self._where: dict[_Membership, str | int] = {}
        self._answers = Answers(
            identity,
            secrets.token_bytes(32),
            service_ports=[each for each in (service.getHost().port, port) if each < EPHEMERAL_PORTS],
            random=random.SystemRandom().random,
            clock=clock,
        )
        self._alarm = Alarm(reactor, clock, self._send_due)
        self._interfaces: list[Interface] = []
        self._rescan: IDelayedCall | None = None

    @property
    def stats(self) -> AnswerStats:
        """The counters of questions and answers."""
        return self._answers.stats

    def startProtocol(self) -> None:
        """Join the groups, now and again where interfaces are new."""
        self._look_for_interfaces()

    def stopProtocol(self) -> None:
        """Leave nothing in the reactor; the kernel leaves the groups with the socket."""
        self._alarm.cancel()
        if self._rescan is not None:
            self._rescan.cancel()
            self._rescan = None

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a question, and drop anything else."""
        question = self._answers.question_received_untrusted(
            datagram, addr, to_group=self.transport.delivering_to_group, reachable=self._reachable
        )
        if question is not None:
            self._run(question, addr)
        self._alarm.at(self._answers.next_due)

    def _reachable(self, asker: str) -> bool:
        return reachable(asker, self._service.getHost().host, self._interfaces)

    def _run(self, question: Question, asker: Address) -> None:
        """Run the method that a question asks for; who asks all is never told of an error."""
        run_method = getattr(self._protocol, "run_method", None)
        if run_method is None:
            self._answers.method_failed(question)
            return

        def succeeded(result: object) -> None:
            self._answers.result_ready(question, result)
            if self.transport is not None:  # else the port has stopped meanwhile
                self._alarm.at(self._answers.next_due)

        def failed(failure: Failure) -> None:  # the protocol has logged it
            if getattr(failure.value, "code", None) == CODE_BUSY:
                self._answers.method_not_run(question)
            else:
                self._answers.method_failed(question)

        maybeDeferred(run_method, question.method, question.params, asker).addCallbacks(succeeded, failed)

    def _send_due(self, _: float) -> None:
        for payload, asker in self._answers.due():
            try:
                self._service.write(payload, asker)
            except (OSError, MessageLengthError):  # noqa: PERF203  # an interface may be gone by now
                self.stats.dropped["send_failed"] += 1
        self._alarm.at(self._answers.next_due)

    def _look_for_interfaces(self) -> None:
        self._rescan = self._reactor.callLater(RESCAN_INTERVAL, self._look_for_interfaces)
        try:
            self._interfaces = interfaces_of(self._reactor)
        except OSError as error:  # no memory, too many open files: the next look may succeed
            self.not_joined[_name_of(error.errno)] += 1
            return
        service = self._service.getHost().host
        over_ipv4 = has_family(service, 4)
        over_ipv6 = has_family(service, 6) and ":" in self.transport.getHost().host
        wanted: dict[_Membership, str | int] = {}
        for interface in serving(service, self._interfaces):
            if interface.ipv4 and over_ipv4:
                wanted[GROUP_IPV4, interface.name, interface.number] = interface.ipv4[0]
            if interface.ipv6 and interface.number and over_ipv6:
                wanted[GROUP_IPV6, interface.name, interface.number] = interface.number
        for gone in self.joined - wanted.keys():  # it may come again; and Linux counts it until it is left
            self.transport.leaveGroup(gone[0], self._where.pop(gone, "")).addErrback(_has_left_by_itself)
        self.joined &= wanted.keys()
        for membership in wanted.keys() - self.joined:
            self._where[membership] = wanted[membership]
            self._join(membership, wanted[membership])

    def _join(self, membership: _Membership, where: str | int) -> None:
        group, name, _ = membership
        joining: Deferred[None] = self.transport.joinGroup(group, where)

        def failed(failure: Failure) -> None:
            failure.trap(MulticastJoinError)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            arguments: tuple[object, ...] = getattr(failure.value, "args", ())
            number = next((each for each in arguments[2:] if isinstance(each, int)), 0)
            if number == errno.EADDRINUSE:  # joined before the interface was gone for a while
                self.joined.add(membership)
                return
            if not self.not_joined:
                _log.warn(
                    "the multicast group {group} cannot be joined on {interface} ({reason}); there this server is "
                    "found by broadcast only (told once)",
                    group=group,
                    interface=name,
                    reason=_name_of(number),
                )
            self.not_joined[_name_of(number)] += 1

        joining.addCallbacks(lambda _: self.joined.add(membership), failed)


class Discoverable:
    """That a service can be discovered, through its starts and stops.

    Args:
        reactor: The reactor.
        name: What the service's operator calls it.
        host: The address that the service is to be bound to.
        port: The discovery port.
        bound: That port, from :func:`bind_discovery`, for the first start; owned from now on.

    Attributes:
        name: As given.
        port: As given.
        responder: The :class:`DiscoveryResponder` in use, or the last one; None before the first start.

    Raises:
        twistedudp.errors.LocalError: Nobody could find the service.
    """

    def __init__(self, reactor: Any, name: str, host: str, port: int, bound: BoundSocket | None = None) -> None:
        check_discoverable(name, host)
        if type(port) is not int or not 1 <= port <= 65535:
            raise LocalError(f"discovery_port={port!r}: it must be a whole number from 1 to 65535")
        self.name = name
        self.port = port
        self.responder: DiscoveryResponder | None = None
        self._reactor = reactor
        self._bound = bound
        self._listening: IListeningPort | None = None

    def bind(self) -> None:
        """Bind the discovery port, unless it is bound already.

        Raises:
            twisted.internet.error.CannotListenError: It cannot be had.
        """
        if self._bound is None and self._listening is None and IReactorFDSet.providedBy(self._reactor):
            self._bound = bind_discovery(self.port)

    def start(self, service: Any, protocol: object, label: str, *, admission: AdmissionPolicy | None = None) -> None:
        """Answer questions from now on.

        Args:
            service: The service's port.
            protocol: What it serves.
            label: What that is called, such as ``"echo"``; with methods it is ``"rpc"`` in any case.
            admission: Who may ask, and how often; None for everybody.

        Raises:
            twisted.internet.error.CannotListenError: The discovery port cannot be had.
            twistedudp.errors.LocalError: Ports of this reactor do not tell what was sent to a group.
        """
        if not hasattr(service, "delivering_to_group"):
            raise LocalError("discoverable= needs ports of twistedudp: a reactor with file descriptors, and POSIX")
        label = "rpc" if hasattr(protocol, "run_method") else label[:MAX_TEXT]
        identity = Identity(self.name, label, _own_version())
        responder = DiscoveryResponder(self._reactor, identity, service, protocol, self.port)
        self.bind()
        bound, self._bound = self._bound, None
        try:
            self._listening = transport.listen(
                self._reactor, self.port, responder, _ANY[0], MAX_QUESTION_SIZE, bound=bound, admission=admission
            )
        except BaseException:
            if bound is not None:
                bound.close()
            raise
        self.responder = responder
        _log.info("{name} can be discovered on UDP port {port}", name=self.name, port=self.port)

    def stop(self) -> Deferred[Any]:
        """Answer no more.

        Returns:
            A Deferred that fires with None when the discovery port is closed.
        """
        self.close()
        listening, self._listening = self._listening, None
        return maybeDeferred(listening.stopListening if listening is not None else lambda: None)

    def close(self) -> None:
        """Give a port back that was bound and not used."""
        if self._bound is not None:
            self._bound.close()
            self._bound = None


def bind_discovery(port: int) -> BoundSocket:
    """Bind the discovery port, beside others of this user that have it.

    Raises:
        twisted.internet.error.CannotListenError: It cannot be had.
    """
    try:
        return transport.bind(port, _ANY[0], reuse_port=True)
    except CannotListenError as error:
        if not _lacks_ipv6(error):
            raise
        return transport.bind(port, _ANY[1], reuse_port=True)


def check_discoverable(name: str, host: str) -> None:
    """Check that a service can be discovered.

    Args:
        name: What it is to be called.
        host: The address that it is bound to.

    Raises:
        LocalError: It cannot; the text says what to change.
    """
    if not 1 <= len(name) <= MAX_TEXT or not name.isprintable():
        raise LocalError(
            f"{name!r} cannot be the name of a discoverable server: 1 to {MAX_TEXT} characters, all of them printable"
        )
    if not is_ip(host):  # a name, or nothing for all of IPv4: the port says what it makes of it
        return
    if is_group(host):
        raise LocalError(f"a server on {host} cannot be discovered: a group's address is none to be reached at")
    if ":" in host and is_loopback(host) and ":" in canonical(host):
        raise LocalError(
            "a server on ::1 cannot be discovered, for no IPv6 group can be asked on loopback; let it listen on "
            "127.0.0.1, or on :: for all addresses"
        )


def _has_left_by_itself(failure: Failure) -> None:
    failure.trap(MulticastJoinError)  # type: ignore[no-untyped-call]  # Twisted has no annotation here


def _own_version() -> str:
    from importlib import metadata  # noqa: PLC0415  # slow, and only for who is discoverable

    try:
        return metadata.version("twistedudp")[:MAX_TEXT]
    except metadata.PackageNotFoundError:  # a copy that nobody has installed
        return "unknown"


def _lacks_ipv6(error: CannotListenError) -> bool:
    # EADDRNOTAVAIL: it is compiled in, and switched off by net.ipv6.conf.all.disable_ipv6.
    return getattr(error.socketError, "errno", 0) in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _name_of(number: int | None) -> str:
    return errno.errorcode.get(number or 0, "unknown")
