"""The client's side: a transport whose peer is one server.

Theory of operation::

    IDLE  --write, open()--> SHAKING: an attempt, from a port of its own
    SHAKING  --complete, certificate and name ok--> OPEN: what waited is sent
    SHAKING  --the attempt failed, or does not come on--> SHAKING: another attempt, from another port
    SHAKING  --deadline, or the same finding twice--> IDLE: callers fail, what waited is dropped
    OPEN  --close_notify--> the same is answered; IDLE      --OpenSSL gave up--> IDLE
    OPEN  --idle--> close_notify; IDLE      --begin_anew()--> close_notify; IDLE

There is one timer, for whatever comes first: OpenSSL's retransmission, the end of the patience with an attempt, the
start of the next, the deadline of a caller, the idle timeout. Nothing that the wrapped protocol has written leaves
before the server's name is verified, and nothing that comes is delivered before.
"""

from __future__ import annotations

from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import fail, succeed
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.interfaces import IUDPTransport
from zope.interface import implementer

from .. import transport as ports
from .._alarm import Alarm, steady_clock
from ..address import is_ipv6
from ..errors import DTLSConfigurationError, LocalError, RequestAborted
from ._attempt import Attempt
from ._context import indicated_name
from ._delivery import Delivery
from ._failures import PeerRefused
from ._limits import DTLSLimits, DTLSStats
from ._ports import LocalPorts
from ._session import unfit
from ._transport import SessionTransport
from ._trials import Trials
from ._waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort
    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ..interfaces import Unreachable
    from ._session import Policy

__all__ = ["DTLSClient"]

_numbers: Final = count(1)
"""Of sessions, whichever client has them."""


@implementer(IUDPTransport)
class DTLSClient(SessionTransport):
    """A session with one server, for a protocol to which it is the transport.

    It has a state: ``"idle"``, ``"shaking"`` (hands), ``"open"``, ``"stopped"``. A ``write`` or :meth:`open` while idle
    begins a handshake; payloads wait for it (up to 16, 16 KiB: the oldest are dropped). A handshake that fails, or does
    not come on, is begun anew with a fresh Connection from a fresh port, until its deadline. Certificates that do not
    hold, alerts and refusals by the network can be forged by who spoofs the server's address, and are believed when
    they come twice. A session that the server closes, or that is idle, leaves the client idle: the next write begins
    anew. A server that forgot its session says nothing: when answers stay away, call :meth:`begin_anew`.

    Args:
        reactor: Provides IReactorTime, and ports as :func:`twistedudp.listen` wants them.
        address: The server's numeric address and port.
        server_name: What the server's certificate must be for: the host name that the user typed, or an address.
        context: A client's context.
        protocol: The protocol to wrap; its ``datagrams_received``, if it has one, gets batches. Beside
            ``peer_verified`` and ``peer_lost`` it may have ``session_failed(error)``: a handshake that a write began
            has failed (DTLSHandshakeFailed); the payloads that waited for it are dropped.
        interface: The local address to send from; empty for what the kernel chooses.
        limits: The bounds; of them ``mtu``, ``handshake_timeout`` (of handshakes that a write begins) and
            ``idle_timeout`` matter here.
        listen: Opens a port, as :func:`twistedudp.transport.listen` does.

    Attributes:
        address: The server's address.
        protocol: The wrapped protocol; ``makeConnection`` is called at the construction.
        stats: The counters.
        proves_addresses: True.
        payload_limit: Bytes of the largest payload that surely fits: ``limits.mtu`` less 37.
        state: See above.

    Raises:
        DTLSConfigurationError: The context is a server's, or ``server_name`` cannot be the name of a host.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        server_name: str,
        context: Policy,
        protocol: AbstractDatagramProtocol,
        *,
        interface: str = "",
        limits: DTLSLimits = DTLSLimits(),  # noqa: B008  # it is frozen
        listen: Callable[..., IListeningPort] = ports.listen,
    ) -> None:
        if context.is_server:
            raise DTLSConfigurationError("a client needs the context of one: DTLSContext.client(ca=...)")
        self.address = address
        self.context = context
        self.limits = limits
        self.stats = DTLSStats()
        self._server_name = server_name.removesuffix(".")
        indicated_name(self._server_name)
        self._clock = steady_clock(reactor)
        self._alarm = Alarm(reactor, self._clock, self._due)
        self._ports = LocalPorts(reactor, interface, listen, ipv6=is_ipv6(address[0]))
        self._attempt: Attempt | None = None
        self._trials: Trials | None = None
        self._waiting = Waiting(self.stats)
        self._delivery = Delivery(protocol, self.stats, self._clock)
        protocol.makeConnection(self)

    def __repr__(self) -> str:
        return f"<DTLSClient of {self.address!r}, {self.state}>"

    @property
    def state(self) -> str:
        """One of ``"idle"``, ``"shaking"``, ``"open"``, ``"stopped"``."""
        if self._ports.stopping:
            return "stopped"
        if self._trials is not None:
            return "shaking"
        return "idle" if self._attempt is None else "open"

    def open(self, timeout: float) -> Deferred[None]:
        """Have a session, by a handshake if there is none yet.

        Args:
            timeout: Seconds.

        Returns:
            A Deferred that fires with None when the session is open and the server verified, and fails with
            DTLSHandshakeFailed, or with RequestAborted where the client is stopped. Several may wait for one handshake,
            each until its own deadline; cancelling one leaves the others.
        """
        state = self.state
        if state == "stopped":
            return fail(_stopped())
        if state == "open":
            return succeed(None)
        deadline = self._clock() + timeout
        waiting = self._waiting.caller(deadline)
        self._begin(deadline)
        return waiting

    def begin_anew(self) -> None:
        """Forget the session or the handshake under way: the next one is begun from a fresh port.

        For a client whose calls are not answered any more: a server that was started again does not know the session,
        and cannot say so. Whoever waits for a handshake goes on waiting, for a fresh one. Payloads that wait stay. The
        protocol is not told.
        """
        if self._trials is not None:
            self._leave("renewed", farewell=False)
            self._try(self._trials)
            self.moved()
        elif self._attempt is not None:
            self.stats.ended["renewed"] += 1
            self._leave("", farewell=True)

    def peer_certificate_name(self, addr: Address | None = None) -> str | None:
        """Return the server's verified name; ``None`` without a session, and where any certificate is accepted."""
        attempt = self._open_attempt(addr)
        return None if attempt is None else attempt.session.name

    def session_number(self, addr: Address | None = None) -> int | None:
        """Return the number of the session that is open, never used twice; ``None`` where there is none."""
        attempt = self._open_attempt(addr)
        return None if attempt is None else attempt.session.number

    # -- IUDPTransport, for the wrapped protocol

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram in the session, or when there is one.

        Raises:
            twisted.internet.error.MessageLengthError: It is empty, which DTLS does not carry, or does not fit the MTU.
            twisted.internet.error.InvalidAddressError: It is for another than this client's server.
        """
        if addr is not None and addr != self.address:
            message = f"this DTLS session is with {self.address[0]} alone"
            raise InvalidAddressError(addr[0], message)  # type: ignore[no-untyped-call]  # Twisted has no types there
        attempt = self._attempt
        if attempt is not None and attempt.session.opened:
            attempt.write(packet)
            return
        if not 0 < len(packet) <= self.payload_limit:
            raise MessageLengthError(unfit(packet, self.payload_limit))
        if self._ports.stopping:
            self.stats.not_sent["stopped"] += 1
            return
        self._waiting.keep(packet)
        self._begin(self._clock() + self.limits.handshake_timeout)

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams at once, in order; otherwise as :meth:`write`.

        It returns those that the caller made wrong, each with its peer and with what ``write`` would have raised.
        """
        attempt = self._attempt
        if attempt is not None and attempt.session.opened:
            limit = attempt.session.payload_limit
            fit = [payload for payload, addr in datagrams if 0 < len(payload) <= limit and addr == self.address]
            attempt.write_batch(fit)
            datagrams = () if len(fit) == len(datagrams) else [item for item in datagrams if item[0] not in fit]
        refused: list[tuple[bytes, Address, Exception]] = []
        for payload, addr in datagrams:
            try:
                self.write(payload, addr)
            except (MessageLengthError, InvalidAddressError) as error:  # noqa: PERF203  # each is judged by itself
                refused.append((payload, addr, error))
        return refused

    def connect(self, host: str, port: int) -> None:
        """Have one peer, which is the case already.

        Raises:
            RuntimeError: It is another than this client's server.
        """
        if (host, port) != self.address:
            raise RuntimeError(f"this DTLS client has one peer, {self.address[0]}; make another client for {host}")

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address of the present port; each attempt has another, and none has the number 0."""
        attempt = self._attempt
        if attempt is not None and attempt.port is not None:
            host: IPv4Address | IPv6Address = attempt.port.getHost()
            return host
        interface = self._ports.interface
        return IPv6Address("UDP", interface, 0) if ":" in interface else IPv4Address("UDP", interface, 0)

    def stopListening(self) -> Deferred[None]:
        """Stop the protocol, end the session, telling the server (close_notify), and close the port.

        Whoever waits for a handshake fails with RequestAborted. It returns a Deferred that fires with None when the
        port is free.
        """
        if self._ports.stopping:
            return self._ports.all_closed()
        try:
            self.protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        finally:
            self._ports.stopping = True
            self._alarm.cancel()
            if self._attempt is not None:
                reason = self.stats.failed if self._trials is not None else self.stats.ended
                reason["stopped"] += 1
                self._leave("", farewell=self._trials is None)
            self._trials = None
            self._waiting.fail(_stopped, "stopped")
        return self._ports.all_closed()

    # -- what attempts tell

    def shaken(self, attempt: Attempt) -> bool:
        """Verify the server's name, and begin to use the session; tell whether data may be delivered."""
        session = attempt.session
        if attempt is not self._attempt:
            return False
        try:
            name = self.context.verified_name(session.connection, self._server_name)
        except PeerRefused as refused:
            self.failed(attempt, refused, farewell=True)
            return False
        session.set_open(name, self._clock())
        self._trials = None
        self.stats.opened += 1
        self.moved()
        attempt.write_batch(self._waiting.take_payloads())
        self._delivery.tell("peer_verified", self.address, name)
        self._waiting.succeed()
        return attempt is self._attempt

    def failed(self, attempt: Attempt, finding: PeerRefused, *, farewell: bool = False) -> None:
        """Try again, or give up."""
        if attempt is not self._attempt or self._trials is None:
            return
        self._leave(finding.reason, farewell=farewell)
        if self._trials.is_final(finding):
            self._give_up()
        self.moved()

    def heard(self, attempt: Attempt, payloads: Sequence[bytes], times: Sequence[int]) -> None:
        """Deliver."""
        if attempt is self._attempt:
            self._delivery.hand_over(payloads, self.address, times)

    def over(self, attempt: Attempt, reason: str) -> None:
        """Be idle after the end of a session."""
        if attempt is self._attempt:
            self._leave("", farewell=True)
            self.stats.ended[reason] += 1
            self._delivery.tell("peer_lost", self.address, reason)

    def refused(self, reason: Unreachable, quoted: bytes) -> None:
        """Tell the protocol of a payload that was not delivered, as far as the network says."""
        self._delivery.tell("peer_unreachable", self.address, reason, quoted)

    def moved(self) -> None:
        """Set the timer for what comes first."""
        due = self._waiting.first_deadline()
        attempt, trials = self._attempt, self._trials
        if trials is not None:
            due = min(due, trials.deadline)
            if attempt is None:
                due = min(due, trials.next_begins())
            else:
                wait = attempt.session.wait()
                due = min(due, trials.patience_ends(), self._clock() + (wait or 0) if wait is not None else due)
        elif attempt is not None:
            due = min(due, attempt.session.heard + self.limits.idle_timeout)
        if not self._ports.stopping:
            self._alarm.at(due if due < inf else None)

    def _begin(self, deadline: float) -> None:
        """Shake hands until a time; a handshake under way may take longer by it."""
        if self._trials is None:
            self._trials = Trials(deadline)
            self._try(self._trials)
        else:
            self._trials.deadline = max(self._trials.deadline, deadline)
        self.moved()

    def _try(self, trials: Trials) -> None:
        """Make another attempt."""
        trials.begin(self._clock())
        attempt = Attempt.new(self, self.context, self.address, self._clock, number=next(_numbers), mtu=self.limits.mtu)
        try:
            port = self._ports.open(attempt)
        except (CannotListenError, LocalError) as error:
            trials.finding = PeerRefused("failed", f"no port to send from: {error}")
            self._give_up()
            return
        self._attempt = attempt
        attempt.begin(port, indicated_name(self._server_name))

    def _leave(self, reason: str, *, farewell: bool) -> None:
        """Leave the attempt at hand, and its port."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            if reason:
                self.stats.failed[reason] += 1
            self._ports.closing(attempt.leave(farewell=farewell))

    def _give_up(self) -> None:
        """End the handshake without a session."""
        trials, self._trials = self._trials, None
        if trials is None:
            return
        self._leave("deadline", farewell=False)
        self._waiting.fail(lambda: trials.error(self.address), "no_session")
        self._delivery.tell("session_failed", trials.error(self.address))

    def _due(self, now: float) -> None:
        trials, attempt = self._trials, self._attempt
        if trials is not None:
            self._waiting.expire(now, lambda: trials.error(self.address))
        if trials is not None and self._trials is trials:
            self._go_on(trials, attempt, now)
        elif attempt is not None and now >= attempt.session.heard + self.limits.idle_timeout:
            self.over(attempt, "idle")
        self.moved()

    def _go_on(self, trials: Trials, attempt: Attempt | None, now: float) -> None:
        """Do what is due in a handshake."""
        if now >= trials.deadline:
            self._give_up()
        elif attempt is None:
            if now >= trials.next_begins():
                self._try(trials)
        elif now >= trials.patience_ends():
            self._leave("deadline", farewell=False)
            self._try(trials)
        else:
            attempt.retransmit()

    def _open_attempt(self, addr: Address | None) -> Attempt | None:
        attempt = self._attempt
        if attempt is None or not attempt.session.opened or addr not in (None, self.address):
            return None
        return attempt


def _stopped() -> RequestAborted:
    return RequestAborted("the DTLS client was stopped")
