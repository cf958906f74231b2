"""The secure sessions of a client: which one its calls go into, and when another is due.

Theory of operation: one session is in use, or none. Calls are sent into it; while there is none they wait, and their
deadlines run. A handshake is begun when somebody wants to send and no session is in use. Each handshake is an *attempt*
with a socket and a port of its own, since a forged datagram can break one for good (docs/dtls.md): where an attempt
fails, or just does not get on, a fresh one is made, to the server's next address or to the same, and the first that
comes about is used. An attempt that stands still is not stopped at once, for it may be a datagram that was lost.

What has a reason that no lost datagram explains (a certificate that is not to be trusted, an alert of the server) is
tried again too, since it can be forged, but only a few times: then the calls that wait fail with it. So do they, at
once, where nobody listens.

A session can die without a word: the server was restarted, or forgot it, or an address translator did. Its records are
dropped in silence then. So a session in which nothing was heard although something was sent, or that was quiet for a
while before something is to be sent, is *asked*: a request that any server answers goes into it. While it is asked, no
call is sent into it. If no answer comes in time, it is given up for new calls, and attempts begin; whichever lives
first, the old session or a new one, is used from then on. An old one is kept until the last call that was sent into it
has ended, since only there its answer can come, and only there it may be repeated: see :meth:`Calls.leave`.

Nothing here knows what a datagram means, nor what a session is made of: that is told by the ``connect`` callable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import gatherResults, maybeDeferred

from ._alarm import Alarm
from .address import SessionAddress
from .errors import PeerUnreachable, TwistedUDPError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from .address import Address

__all__ = ["Calls", "ClientSession", "ClientSessions", "Connect", "Link"]

NEXT_ADDRESS: Final = 0.25
"""Seconds after which an attempt is made at another address of the server (RFC 8305 section 5, Connection Attempt
Delay)."""

NEXT_PORT: Final = 3.0
"""Seconds after which an attempt that has not come about is joined by one from a fresh port to the same address: an
attempt sends after 0, 1 and 3 s (RFC 6347 section 4.2.4.1), and what is lost twice may not be lost by chance."""

ATTEMPTS_PER_ADDRESS: Final = 2
"""Attempts under way at once to one address; a further one takes the place of the oldest. Servers allow few half-open
handshakes for each host."""

SAME_FAULTS: Final = 3
"""Attempts in a row that must fail for a reason which can be forged before the waiting calls fail with it."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between an attempt that failed and the next: the first, doubled each time, and the longest."""

QUIET: Final = 5.0
"""Seconds without a datagram of the server after which a session is asked whether it lives before a call is sent into
it. An address translator forgets after 30 s or more (RFC 4787 recommends two minutes and more), and few servers are
restarted in less."""

LEAST_DOUBT: Final = 0.2
MOST_DOUBT: Final = 1.0
"""Seconds that a session may leave what was sent unanswered before it is asked, and then the question before it is
given up: the timeout of its round trips, within these bounds; the latter where none is known."""

MOST_RETIRED: Final = 4
"""Old sessions that are kept at once for the calls in them; the oldest is closed for a further one."""


def _lose(_payload: bytes, _peer: Address) -> None:
    """Write into a session that has ended."""


_HAIR: Final = 0.01
"""Seconds after a deadline at which what waited for it is done with: whoever keeps the deadline goes first."""


class Link(Protocol):
    """A secure session, or the attempt at one, with a local port of its own.

    It calls the :class:`ClientSession` that it was made for: ``opened`` once or ``failed``, then ``received``, and
    ``ended`` where the session ends without being stopped from here. It calls nothing after ``stop``.
    """

    def write(self, payload: bytes) -> None:
        """Send one datagram."""

    def stop(self) -> Any:
        """End the session, telling the server, or the attempt; return a Deferred of the port being free, or None."""


class Connect(Protocol):
    """What makes a :class:`Link`."""

    def __call__(self, address: Address, session: ClientSession) -> Link:
        """Begin a handshake with the server at an address.

        Raises:
            TwistedUDPError: There is no local port to do it from.
        """


class Calls(Protocol):
    """What the sessions are for: the client's requests."""

    def use(self, peer: SessionAddress) -> None:
        """Send what waits, and all that comes, into this session."""

    def hold(self) -> None:
        """Send nothing that is new: let it wait."""

    def leave(self, peer: SessionAddress, error: TwistedUDPError | None) -> None:
        """Have what may run twice wait for another session. The rest fails with the error, or goes on in this one."""

    def fail(self, error: TwistedUDPError) -> None:
        """Fail what waits for a session."""

    def received(self, datagrams: Sequence[bytes], peer: SessionAddress) -> None:
        """Take datagrams that came in a session."""

    def last_deadline(self, peer: SessionAddress) -> float | None:
        """Return when the last request that was sent into a session ends; ``None`` where there is none."""

    def round_trip_timeout(self, peer: SessionAddress) -> float | None:
        """Return after how many seconds an answer is late in a session, as far as that is known."""

    def question(self) -> bytes:
        """Return a request that any server answers."""


class ClientSession:
    """One session, from the attempt at it to its end.

    Attributes:
        peer: The server's address within this session.
        heard: When the last datagram came, or the handshake was done; in seconds.
        unanswered: When the first was sent of those after which nothing came, ``None`` if the last word is the server's.
    """

    __slots__ = ("_link", "_sessions", "_waiting", "address", "heard", "peer", "unanswered")

    def __init__(self, sessions: ClientSessions, address: Address) -> None:
        self._sessions = sessions
        self._link: Link | None = None
        self._waiting = True
        self.address = address
        self.peer = SessionAddress(address)
        self.heard = 0.0
        self.unanswered: float | None = None

    def begin(self, connect: Connect) -> None:
        """Begin the handshake."""
        link = connect(self.address, self)
        if self._waiting:
            self._link = link
        else:  # it failed, or was stopped, before it was returned
            self._sessions.closing(link.stop())

    def write(self, payload: bytes, _peer: Address | None = None) -> None:
        """Send a datagram; it is lost where the session has ended."""
        if self._link is None:
            return
        now = self._sessions.now()
        if self.unanswered is None:
            self.unanswered = now
        elif now - self.unanswered > LEAST_DOUBT:
            self._sessions.doubted(self, now)
        self._link.write(payload)

    def stop(self) -> None:
        """End it from here."""
        self._waiting = False
        link, self._link = self._link, None
        if link is not None:
            self._sessions.closing(link.stop())

    # What the link tells

    def opened(self) -> None:
        """The handshake is done, and the server is who it should be."""
        if self._waiting:
            self.heard = self._sessions.now()
            self._sessions.opened(self)

    def failed(self, error: TwistedUDPError) -> None:
        """There will be no session."""
        if self._waiting:
            self.stop()
            self._sessions.failed(self, error)

    def received(self, datagrams: Sequence[bytes]) -> None:
        """Datagrams have come."""
        if self._waiting:
            self.heard = self._sessions.now()
            self.unanswered = None
            self._sessions.heard(self, datagrams)

    def refused(self) -> None:
        """The network says that nobody takes datagrams there any more, which can be forged."""
        if self._waiting:
            self._sessions.refused(self)

    def ended(self, error: TwistedUDPError) -> None:
        """The session has ended, and no answer can come in it any more."""
        if self._waiting:
            self.stop()
            self._sessions.ended(self, error)


class ClientSessions:  # budget: what is in use, what is tried, what is kept, and when to look again
    """The sessions of one client.

    Args:
        reactor: Provides IReactorTime.
        clock: Returns seconds and does not go back.
        connect: Begins a handshake.
        calls: The client's requests.
        retry_refused: Go on trying a server that refuses, until nobody waits any more.

    Attributes:
        now: The clock.
        fault: Why the last attempt failed; ``None`` where none has, since the last session came about.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        connect: Connect,
        calls: Calls,
        *,
        retry_refused: bool = False,
    ) -> None:
        self.now = clock
        self.fault: TwistedUDPError | None = None
        self._connect = connect
        self._calls = calls
        self._retry_refused = retry_refused
        self._addresses: list[Address] = []
        self._current: ClientSession | None = None
        self._asked_at: float | None = None
        self._gave_up = False
        self._attempts: list[ClientSession] = []
        self._next_attempt = 0.0
        self._turn = 0
        self._faults: dict[Address, int] = {}
        self._retired: dict[ClientSession, float] = {}
        self._wanted_until = -1.0
        self._stopped = False
        self._closing: set[Deferred[Any]] = set()
        self._alarm = Alarm(reactor, clock, self._due)

    def __len__(self) -> int:
        """Return how many local ports there are: sessions and attempts."""
        return len(self._attempts) + len(self._retired) + (self._current is not None)

    @property
    def in_use(self) -> bool:
        """Whether there is a session, be it one that is in doubt."""
        return self._current is not None

    def writer(self, peer: Address) -> Callable[[bytes, Address], None]:
        """Return what writes into the session of an address; one that has ended loses all of it."""
        current = self._current
        if current is not None and current.peer is peer:
            return current.write
        return next((session.write for session in self._retired if session.peer is peer), _lose)

    # Commands

    def addresses_learnt(self, addresses: Sequence[Address]) -> None:
        """Learn where the servers are, in the order in which they are to be tried; the session in use stays."""
        if list(addresses) != self._addresses:
            self._addresses = list(addresses)
            self._turn = 0
            self._faults.clear()
        self._go_on()

    def wanted(self, until: float) -> None:
        """Learn that something is to be sent, and when it is too late for it."""
        now = self.now()
        if now > self._wanted_until:  # nobody waited any more: what failed then may work now
            self._faults.clear()
            self._next_attempt = now if not self._attempts else self._next_attempt
        self._wanted_until = max(self._wanted_until, until)
        current = self._current
        if current is None or self._gave_up:
            self._go_on()
        elif now - current.heard > QUIET and self._asked_at is None:
            self._ask(current, now)

    def stop(self) -> Deferred[Any]:
        """End all sessions, telling the server, and all attempts.

        Returns:
            A Deferred that fires when their ports are free.
        """
        self._stopped = True
        self._alarm.cancel()
        self._stop_attempts()
        for session in (*self._retired, *([self._current] if self._current else [])):
            session.stop()
        self._retired.clear()
        self._current = None
        return gatherResults(list(self._closing), consumeErrors=True)

    # What sessions tell

    def opened(self, session: ClientSession) -> None:
        """Use a session that has just come about."""
        if session not in self._attempts:
            return
        self._attempts.remove(session)
        self._stop_attempts()
        old, self._current = self._current, session
        self._asked_at, self._gave_up, self.fault = None, False, None
        self._faults.clear()
        if old is not None:
            self._calls.leave(old.peer, None)
            self._retire(old)
        self._calls.use(session.peer)

    def failed(self, session: ClientSession, error: TwistedUDPError) -> None:
        """Try again where an attempt failed, unless that is sure to be in vain."""
        if session not in self._attempts:
            return
        self._attempts.remove(session)
        self.fault = error
        count = self._faults[session.address] = self._faults.get(session.address, 0) + 1
        if isinstance(error, PeerUnreachable) and not self._retry_refused:
            self._faults[session.address] = count = SAME_FAULTS
        if all(self._faults.get(address, 0) >= SAME_FAULTS for address in self._addresses):
            self._stop_attempts()
            self._faults.clear()
            self._wanted_until = -1.0
            self._calls.fail(error)
            return
        now = self.now()
        pause = min(FIRST_PAUSE * 2 ** (count - 1), LONGEST_PAUSE)
        self._next_attempt = now if self._other_is_untried() else now + pause
        self._go_on()

    def heard(self, session: ClientSession, datagrams: Sequence[bytes]) -> None:
        """Take what came in a session, which shows that it lives."""
        if session is self._current and self._asked_at is not None:
            self._asked_at, self._gave_up = None, False
            self._stop_attempts()
            self._calls.use(session.peer)
        self._calls.received(datagrams, session.peer)
        if session in self._retired:
            self._sweep_retired()

    def ended(self, session: ClientSession, error: TwistedUDPError) -> None:
        """Replace a session that has ended."""
        self._retired.pop(session, None)
        if session is self._current:
            self._current, self._asked_at, self._gave_up = None, None, False
            self._next_attempt = self.now() if not self._attempts else self._next_attempt
            self._calls.hold()
        self._calls.leave(session.peer, error)
        self._go_on()

    def doubted(self, session: ClientSession, now: float) -> None:
        """Ask a session that was sent something and says nothing."""
        if session is not self._current or self._asked_at is not None or session.unanswered is None:
            return
        if now - session.unanswered > self._patience(session):
            self._ask(session, now)

    def refused(self, session: ClientSession) -> None:
        """Try another session beside one of which the network says that nobody is there."""
        if session is self._current and not self._gave_up:
            now = self.now()
            self._asked_at = now
            self._calls.hold()
            self._give_up(session, now)
            self._go_on()

    def closing(self, closed: object) -> None:
        """Wait for a port that is being closed, when all of this is stopped."""
        deferred = maybeDeferred(lambda: closed)
        self._closing.add(deferred)

        def forget(result: object) -> object:
            self._closing.discard(deferred)
            return result

        deferred.addBoth(forget)

    # The rest

    def _ask(self, session: ClientSession, now: float) -> None:
        self._asked_at = now
        self._calls.hold()
        session.write(self._calls.question())
        self._alarm.at(now + self._patience(session))

    def _patience(self, session: ClientSession) -> float:
        timeout = self._calls.round_trip_timeout(session.peer)
        return MOST_DOUBT if timeout is None else min(max(timeout, LEAST_DOUBT), MOST_DOUBT)

    def _due(self, now: float) -> None:
        self._sweep_retired()
        current = self._current
        if current is not None and self._asked_at is not None and not self._gave_up:
            left = self._asked_at + self._patience(current) - now
            if left > 0:
                self._alarm.at(now + left)
            else:
                self._give_up(current, now)
        self._go_on()

    def _give_up(self, session: ClientSession, now: float) -> None:
        """Let attempts be made beside a session that does not answer."""
        self._gave_up = True
        self._next_attempt = now
        self._calls.leave(session.peer, None)

    def _go_on(self) -> None:
        """Make an attempt where one is due, and see to it that the next one is made in time."""
        if self._stopped or not self._addresses or (self._current is not None and not self._gave_up):
            return
        now = self.now()
        if now > self._wanted_until:  # nobody waits any more
            self._stop_attempts()
            return
        if now >= self._next_attempt:
            self._attempt(now)
        self._alarm.at(min(self._next_attempt, self._wanted_until + _HAIR))

    def _attempt(self, now: float) -> None:
        address = self._addresses[self._turn % len(self._addresses)]
        self._turn += 1
        if self._gave_up and self._current is not None:  # the answer may have been lost, and not the session
            self._current.write(self._calls.question())
        to_same = [attempt for attempt in self._attempts if attempt.address == address]
        if len(to_same) >= ATTEMPTS_PER_ADDRESS:
            self._attempts.remove(to_same[0])
            to_same[0].stop()
        session = ClientSession(self, address)
        self._attempts.append(session)
        self._next_attempt = now + (NEXT_ADDRESS if self._other_is_untried() else NEXT_PORT)
        try:
            session.begin(self._connect)
        except TwistedUDPError as error:
            session.failed(error)

    def _other_is_untried(self) -> bool:
        """Tell whether the address whose turn is next has no attempt under way, and has not failed."""
        address = self._addresses[self._turn % len(self._addresses)]
        return address not in self._faults and all(attempt.address != address for attempt in self._attempts)

    def _stop_attempts(self) -> None:
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.stop()

    def _retire(self, session: ClientSession) -> None:
        """Keep an old session until the calls in it have ended."""
        until = self._calls.last_deadline(session.peer)
        if until is None:
            session.stop()
            return
        self._retired[session] = until
        if len(self._retired) > MOST_RETIRED:
            oldest = next(iter(self._retired))
            del self._retired[oldest]
            oldest.stop()
        self._alarm.at(until + _HAIR)

    def _sweep_retired(self) -> None:
        for session in list(self._retired):
            until = self._calls.last_deadline(session.peer)
            if until is None:
                del self._retired[session]
                session.stop()
            else:
                self._alarm.at(until + _HAIR)
