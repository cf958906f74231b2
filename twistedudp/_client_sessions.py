"""The secure sessions of a client: which one its calls go into, and when another is due.

Theory of operation: one session is in use, or none. Calls are sent into it; while there is none they wait, and their
deadlines run. A handshake is begun when somebody wants to send and no session is in use: an *attempt* at the first
address of the servers, and soon others at the next ones. The first that comes about is used. What makes an attempt
retries by itself, from fresh ports, since a forged datagram can break a handshake for good (docs/dtls.md); where it
fails nevertheless, the reason is to be believed, and where no address is left, the calls that wait fail with it.

A session can die without a word: the server was restarted, or forgot it, or an address translator did. Its records are
dropped in silence then. So a session in which nothing was heard although something was sent, or that was quiet for a
while before something is to be sent, is *asked*: a request that any server answers goes into it. While it is asked, no
call is sent into it. If no answer comes in time, it is given up for new calls, and attempts begin; whichever lives
first, the old session or a new one, is used from then on. An old one is kept until the last call that was sent into it
has ended, since only there its answer can come, and only there it may be repeated: see :meth:`Calls.leave`.

Nothing here knows what a datagram means, nor what a session is made of: that is told by the ``connect`` callable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import gatherResults, maybeDeferred

from ._alarm import Alarm
from ._client_session import LEAST_DOUBT, ClientSession
from .errors import TwistedUDPError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from ._client_session import Calls, Connect
    from .address import Address

__all__ = ["ClientSessions"]

NEXT_ADDRESS: Final = 0.25
"""Seconds after which an attempt is made at another address of the server (RFC 8305 section 5, Connection Attempt
Delay)."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between an attempt that got no answer, or was refused where that is no reason to give up, and the next at
the same address: the first pause, doubled each time, and the longest."""

QUIET: Final = 5.0
"""Seconds without a datagram of the server after which a session is asked whether it lives before a call is sent into
it. An address translator forgets after 30 s or more (RFC 4787 recommends two minutes and more), and few servers are
restarted in less."""

MOST_DOUBT: Final = 1.0
"""Seconds that a session may leave what was sent unanswered before it is asked, and then the question before it is
given up: the timeout of its round trips, at least ``LEAST_DOUBT`` and at most these; these where none is known."""

MOST_RETIRED: Final = 4
"""Old sessions that are kept at once for the calls in them; the oldest is closed for a further one."""


_HAIR: Final = 0.01
"""Seconds after a deadline at which what waited for it is done with: whoever keeps the deadline goes first."""


def _lose(_payload: bytes, _peer: Address) -> None:
    """Write into a session that has ended."""


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
        self._faults: set[Address] = set()
        self._in_vain = 0
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
        self.go_on()

    def wanted(self, until: float) -> None:
        """Learn that something is to be sent, and when it is too late for it; to be followed by :meth:`go_on`."""
        now = self.now()
        if now > self._wanted_until:  # nobody waited any more: what failed then may work now
            self._faults.clear()
            self._in_vain = 0
            self.fault = None
            self._next_attempt = now if not self._attempts else self._next_attempt
        self._wanted_until = max(self._wanted_until, until)
        current = self._current
        if current is not None and now - current.heard > QUIET and self._asked_at is None:
            self._ask(current, now)

    def go_on(self) -> None:
        """Make an attempt where one is due, and see to it that the next one is made in time."""
        if (self._current is not None and not self._gave_up) or self._stopped or not self._addresses:
            return
        now = self.now()
        if now > self._wanted_until:  # nobody waits any more
            self._stop_attempts()
            return
        if now >= self._next_attempt:
            address = self._next_address()
            if address is not None:
                self._attempt(address, now)
        if self._next_address() is not None:
            self._alarm.at(self._next_attempt)
        self._alarm.at(self._wanted_until + _HAIR)

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
        self._in_vain = 0
        if old is not None:
            self._calls.leave(old.peer, None)
            self._retire(old)
        self._calls.use(session.peer)

    def failed(self, session: ClientSession, error: TwistedUDPError) -> None:
        """Try the next address where an attempt failed, or the same one again if that may help."""
        if session not in self._attempts:
            return
        self._attempts.remove(session)
        self.fault = error
        now = self.now()
        if self._may_pass(error):
            self._next_attempt = now + min(FIRST_PAUSE * 2**self._in_vain, LONGEST_PAUSE)
            self._in_vain += 1
        else:
            self._faults.add(session.address)
            self._next_attempt = now
            if self._faults.issuperset(self._addresses):
                self._stop_attempts()
                self._wanted_until = -1.0
                self._calls.fail(error)
                return
        self.go_on()

    def _may_pass(self, error: TwistedUDPError) -> bool:
        reason = getattr(error, "reason", "")
        return reason == "no_answer" or (reason == "unreachable" and self._retry_refused)

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
        self.go_on()

    def doubted(self, session: ClientSession, now: float) -> None:
        """Ask a session that was sent something and says nothing."""
        if session is not self._current or self._asked_at is not None or session.unanswered is None:
            return
        if now - session.unanswered > self._patience(session):
            self._ask(session, now)

    def refused(self, session: ClientSession, reason: str, quoted: bytes) -> None:
        """Try another session beside one of which the network says that nobody is there."""
        self._calls.refused(session.peer, reason, quoted)
        if session is self._current and not self._gave_up:
            now = self.now()
            self._asked_at = now
            self._calls.hold()
            self._give_up(session, now)
            self.go_on()

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
        self.go_on()

    def _give_up(self, session: ClientSession, now: float) -> None:
        """Let attempts be made beside a session that does not answer."""
        self._gave_up = True
        self._next_attempt = now
        self._calls.leave(session.peer, None)

    def _next_address(self) -> Address | None:
        """Return the address whose turn it is, of those with no attempt under way; ``None`` where there is none."""
        busy = {attempt.address for attempt in self._attempts}
        addresses = self._addresses[self._turn :] + self._addresses[: self._turn]
        return next((address for address in addresses if address not in busy and address not in self._faults), None)

    def _attempt(self, address: Address, now: float) -> None:
        self._turn = (self._addresses.index(address) + 1) % len(self._addresses)
        if self._gave_up and self._current is not None:  # the answer may have been lost, and not the session
            self._current.write(self._calls.question())
        session = ClientSession(self, address)
        self._attempts.append(session)
        self._next_attempt = now + NEXT_ADDRESS
        try:
            session.begin(self._connect)
        except TwistedUDPError as error:
            session.failed(error)

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
