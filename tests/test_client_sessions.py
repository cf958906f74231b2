"""Which session a client's calls go into: handshakes, doubts, ends; without DTLS, on a clock of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twistedudp import _client_sessions as module
from twistedudp._client_session import LEAST_DOUBT
from twistedudp._client_sessions import ClientSessions
from twistedudp.errors import DTLSHandshakeFailed, DTLSSessionLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp._client_session import ClientSession
    from twistedudp.address import Address, SessionAddress
    from twistedudp.errors import TwistedUDPError

FIRST = ("192.0.2.1", 10000)
SECOND = ("192.0.2.2", 10000)

QUESTION = b"do you live?"


class FakeLink:
    """A link whose handshake and end the test decides."""

    def __init__(self, address: Address, session: ClientSession) -> None:
        self.address = address
        self.session = session
        self.written: list[bytes] = []
        self.stopped: Deferred[None] | None = None

    def write(self, payload: bytes) -> None:
        """Keep what is sent."""
        if self.stopped is not None:
            raise AssertionError("a link that was stopped is written to")
        self.written.append(payload)

    def stop(self) -> Deferred[None]:
        """Keep that it was stopped; the test tells when its port is free."""
        if self.stopped is not None:
            raise AssertionError("a link is stopped twice")
        self.stopped = Deferred()
        return self.stopped


class FakeCalls:
    """Keeps what it is told, and answers as the test wants."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.deadlines: dict[int, float] = {}
        self.timeout: float | None = None

    def use(self, peer: SessionAddress) -> None:
        """See ``Calls``, as the others."""
        self.told.append(("use", peer))

    def hold(self) -> None:
        """See ``Calls``."""
        self.told.append(("hold",))

    def leave(self, peer: SessionAddress, error: TwistedUDPError | None) -> None:
        """See ``Calls``."""
        self.told.append(("leave", peer, error))

    def fail(self, error: TwistedUDPError) -> None:
        """See ``Calls``."""
        self.told.append(("fail", error))

    def received(self, datagrams: Sequence[bytes], peer: SessionAddress) -> None:
        """See ``Calls``."""
        self.told.append(("received", *datagrams, peer))

    def refused(self, peer: SessionAddress, reason: str, quoted: bytes) -> None:
        """See ``Calls``."""
        self.told.append(("refused", reason, quoted, peer))

    def last_deadline(self, peer: SessionAddress) -> float | None:
        """See ``Calls``."""
        return self.deadlines.get(id(peer))

    def round_trip_timeout(self, peer: SessionAddress) -> float | None:
        """See ``Calls``."""
        return self.timeout

    def question(self) -> bytes:
        """See ``Calls``."""
        return QUESTION


def failure(reason: str, address: Address = FIRST) -> DTLSHandshakeFailed:
    """Return why a handshake failed."""
    return DTLSHandshakeFailed(address, reason, f"because of {reason}")


class SessionsTestCase(SynchronousTestCase):
    """A client's sessions with fakes on both sides."""

    def setUp(self) -> None:
        """Make them."""
        self.clock = Clock()
        self.calls = FakeCalls()
        self.links: list[FakeLink] = []
        self.sessions = self.make()

    def make(self, *, retry_refused: bool = False) -> ClientSessions:
        """Return the sessions of a client that knows its server."""
        sessions = ClientSessions(self.clock, self.clock.seconds, self.connect, self.calls, retry_refused=retry_refused)
        sessions.addresses_learnt([FIRST])
        return sessions

    def connect(self, address: Address, session: ClientSession) -> FakeLink:
        """Begin a handshake."""
        link = FakeLink(address, session)
        self.links.append(link)
        return link

    def told(self) -> list[tuple[object, ...]]:
        """Return what the calls were told since last asked."""
        told, self.calls.told = self.calls.told, []
        return told

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps, as a reactor does."""
        ends = self.clock.seconds() + seconds
        while self.clock.seconds() < ends - 1e-9:
            self.clock.advance(min(0.01, ends - self.clock.seconds()))

    def open(self, until: float = 60.0) -> FakeLink:
        """Have a session opened, and return its link."""
        self.want(self.clock.seconds() + until)
        link = self.links[-1]
        link.session.opened()
        self.assertEqual(self.told()[-1], ("use", link.session.peer))
        return link

    def want(self, until: float) -> None:
        """Have something to send."""
        self.sessions.wanted(until)
        self.sessions.go_on()

    def running(self) -> list[FakeLink]:
        """Return the links that were not stopped."""
        return [link for link in self.links if link.stopped is None]


class HandshakeTests(SessionsTestCase):
    """From nothing to a session."""

    def test_not_before_wanted(self) -> None:
        """No handshake is begun before somebody wants to send."""
        self.advance(10.0)
        self.assertEqual((self.links, len(self.sessions), self.clock.getDelayedCalls()), ([], 0, []))

    def test_opened(self) -> None:
        """A handshake is begun at once; what it leads to is used, and sent into."""
        link = self.open()
        self.assertTrue(self.sessions.in_use)
        peer = link.session.peer
        self.sessions.writer(peer)(b"call", peer)
        self.assertEqual(link.written, [b"call"])
        link.session.received([b"answer"])
        self.assertEqual(self.told(), [("received", b"answer", peer)])

    def test_address_later(self) -> None:
        """Where the server is may become known after somebody wants to send."""
        self.sessions = ClientSessions(self.clock, self.clock.seconds, self.connect, self.calls)
        self.want(2.0)
        self.assertEqual(self.links, [])
        self.sessions.addresses_learnt([FIRST])
        self.assertEqual([link.address for link in self.links], [FIRST])

    def test_next_address(self) -> None:
        """An address that does not answer soon is joined by the next; the first session wins, and the others end."""
        self.sessions.addresses_learnt([FIRST, SECOND])
        self.want(2.0)
        self.advance(module.NEXT_ADDRESS - 0.05)
        self.assertEqual([link.address for link in self.links], [FIRST])
        self.advance(0.1)
        self.assertEqual([link.address for link in self.links], [FIRST, SECOND])
        self.links[1].session.opened()
        self.assertEqual(self.told(), [("use", self.links[1].session.peer)])
        self.assertEqual(self.running(), [self.links[1]])
        self.links[0].session.opened()  # too late
        self.assertEqual(self.told(), [])

    def test_next_address_at_once(self) -> None:
        """Where a handshake fails, the next address is tried at once; where all have, the calls fail."""
        self.sessions.addresses_learnt([FIRST, SECOND])
        self.want(2.0)
        self.links[0].session.failed(failure("wrong_ca"))
        self.assertEqual([link.address for link in self.links], [FIRST, SECOND])
        self.assertEqual(self.told(), [])
        error = failure("wrong_name", SECOND)
        self.links[1].session.failed(error)
        self.assertEqual(self.told(), [("fail", error)])
        self.assertIs(self.sessions.fault, error)
        self.assertEqual(len(self.links), 2)
        self.want(2.0)  # the next call tries again
        self.assertEqual(len(self.links), 3)

    def test_no_answer(self) -> None:
        """A handshake without an answer is begun again after a pause that grows, while somebody waits."""
        self.want(100.0)
        starts = []
        for _ in range(8):
            starts.append(self.clock.seconds())
            self.links[-1].session.failed(failure("no_answer"))
            known = len(self.links)
            while len(self.links) == known:
                self.advance(0.01)
        pauses = [
            round(after - before, 1) for before, after in zip(starts, [*starts[1:], self.clock.seconds()], strict=True)
        ]
        self.assertEqual(pauses[-2:], [1.0, 1.0])
        self.assertLess(pauses[0], 0.15)
        self.assertEqual(self.told(), [])

    def test_nobody_waits(self) -> None:
        """Attempts end when nobody waits any more, and begin again for the next who does."""
        self.want(2.0)
        self.advance(1.9)
        self.assertEqual(len(self.running()), 1)
        self.advance(0.2)
        self.assertEqual((self.running(), len(self.sessions)), ([], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.want(self.clock.seconds() + 2.0)
        self.assertEqual(len(self.running()), 1)

    def test_refused(self) -> None:
        """A refusal fails the calls at once, unless refusals are to be outlasted."""
        self.want(2.0)
        error = failure("unreachable")
        self.links[0].session.failed(error)
        self.assertEqual(self.told(), [("fail", error)])
        self.sessions = self.make(retry_refused=True)
        self.want(2.0)
        self.links[-1].session.failed(error)
        self.assertEqual(self.told(), [])
        known = len(self.links)
        self.advance(0.1)
        self.assertEqual(len(self.links), known + 1)

    def test_failing_at_once(self) -> None:
        """A handshake that fails before its link is returned fails the same, and its link is stopped."""
        error = failure("unreachable")

        def connect(address: Address, session: ClientSession) -> FakeLink:
            link = self.connect(address, session)
            session.failed(error)
            return link

        sessions = ClientSessions(self.clock, self.clock.seconds, connect, self.calls)
        sessions.addresses_learnt([FIRST])
        sessions.wanted(2.0)
        sessions.go_on()
        self.assertEqual(self.told(), [("fail", error)])
        self.assertEqual((self.running(), len(sessions)), ([], 0))

    def test_no_port(self) -> None:
        """Where there is no port to shake hands from, the calls fail with the reason."""
        error = failure("failed")

        def connect(*_: object, **__: object) -> FakeLink:
            raise error

        sessions = ClientSessions(self.clock, self.clock.seconds, connect, self.calls)
        sessions.addresses_learnt([FIRST])
        sessions.wanted(2.0)
        sessions.go_on()
        self.assertEqual(self.told(), [("fail", error)])


class DoubtTests(SessionsTestCase):
    """Sessions that say nothing."""

    def silent(self, link: FakeLink, seconds: float) -> None:
        """Send a call, and send it again after a while without an answer."""
        link.session.write(b"call")
        self.advance(seconds)
        link.session.write(b"call")

    def test_asked(self) -> None:
        """A session that leaves a call unanswered is asked; new calls wait meanwhile; any answer ends that."""
        link = self.open()
        self.calls.timeout = 0.3
        self.silent(link, 0.35)
        self.assertEqual(link.written, [b"call", QUESTION, b"call"])
        self.assertEqual(self.told(), [("hold",)])
        self.advance(0.1)
        link.session.received([b"anything"])
        peer = link.session.peer
        self.assertEqual(self.told(), [("use", peer), ("received", b"anything", peer)])
        self.advance(5.0)
        self.assertEqual(self.running(), [link])

    def test_not_asked_too_early(self) -> None:
        """What may be answered yet is no reason to ask: within the round trip time, or soon after the last answer."""
        link = self.open()
        self.calls.timeout = 0.9
        self.silent(link, 0.85)
        link.session.received([b"answer"])
        self.silent(link, 0.85)
        self.assertNotIn(QUESTION, link.written)

    def test_unknown_round_trip(self) -> None:
        """Where no round trip is known, a session has a second."""
        link = self.open()
        self.silent(link, module.MOST_DOUBT - 0.05)
        self.assertNotIn(QUESTION, link.written)
        link.session.received([b"answer"])
        self.silent(link, module.MOST_DOUBT + 0.05)
        self.assertIn(QUESTION, link.written)

    def forgotten(self) -> FakeLink:
        """Have a session that the server forgot, and an attempt beside it; return the session's link."""
        old = self.open()
        self.calls.timeout = LEAST_DOUBT
        self.silent(old, 0.3)
        self.told()
        self.advance(LEAST_DOUBT + 0.05)
        self.assertEqual(len(self.running()), 2)
        return old

    def test_forgotten(self) -> None:
        """A session that does not say that it lives is left by what may run twice, and another is begun beside it."""
        old = self.forgotten()
        peer = old.session.peer
        self.assertEqual(self.told(), [("leave", peer, None)])
        new = self.links[-1]
        new.session.opened()
        self.assertEqual(self.told(), [("leave", peer, None), ("use", new.session.peer)])
        self.assertEqual(self.running(), [new])  # no call was waiting in the old one

    def test_forgotten_with_calls(self) -> None:
        """An old session is kept, and written to, until the last call in it has ended."""
        old = self.forgotten()
        peer = old.session.peer
        self.calls.deadlines[id(peer)] = self.clock.seconds() + 2.0
        self.links[-1].session.opened()
        self.told()
        self.sessions.writer(peer)(b"again", peer)
        self.assertEqual(old.written[-1], b"again")
        old.session.received([b"late"])
        self.assertEqual(self.told(), [("received", b"late", peer)])
        self.advance(1.9)
        self.assertIsNone(old.stopped)
        del self.calls.deadlines[id(peer)]
        self.advance(0.2)
        self.assertIsNotNone(old.stopped)
        self.sessions.writer(peer)(b"lost", peer)
        self.assertEqual(len(self.sessions), 1)

    def test_old_one_answers(self) -> None:
        """A session that answers after all is used again, and the attempt beside it ends."""
        old = self.forgotten()
        self.told()
        old.session.received([b"late"])
        self.assertEqual(self.told()[0], ("use", old.session.peer))
        self.assertEqual(self.running(), [old])
        self.links[-1].session.opened()  # it was stopped: nothing follows
        self.assertEqual(self.told(), [])

    def test_asked_again(self) -> None:
        """The question goes with each attempt again, for it may be the answer that was lost."""
        old = self.forgotten()
        self.assertEqual(old.written.count(QUESTION), 2)

    def test_quiet(self) -> None:
        """A session that was quiet for long is asked before anything is sent into it."""
        link = self.open(until=1.0)
        self.advance(module.QUIET - 0.1)
        self.want(self.clock.seconds() + 2.0)
        self.assertEqual((link.written, self.told()), ([], []))
        self.advance(0.2)
        self.want(self.clock.seconds() + 2.0)
        self.assertEqual((link.written, self.told()), ([QUESTION], [("hold",)]))
        self.want(self.clock.seconds() + 2.0)
        self.assertEqual(link.written, [QUESTION])  # once
        link.session.received([b"yes"])
        self.assertEqual(self.told()[0], ("use", link.session.peer))

    def test_quiet_and_forgotten(self) -> None:
        """A session that is dead when it is asked first has cost no call: nothing was sent into it."""
        old = self.open(until=1.0)
        self.advance(module.QUIET + 0.1)
        self.want(self.clock.seconds() + 4.0)
        self.advance(module.MOST_DOUBT + 0.05)
        self.links[-1].session.opened()
        self.assertEqual(self.told()[-1], ("use", self.links[-1].session.peer))
        self.assertEqual(set(old.written), {QUESTION})
        self.assertIsNotNone(old.stopped)

    def test_refused(self) -> None:
        """A refusal by the network begins an attempt at once, and is not believed alone: the session stays."""
        old = self.open()
        old.session.refused("nobody", b"call")
        peer = old.session.peer
        self.assertEqual(self.told(), [("refused", "nobody", b"call", peer), ("hold",), ("leave", peer, None)])
        self.assertEqual(len(self.running()), 2)
        old.session.received([b"I am here"])
        self.assertEqual(self.told()[0], ("use", old.session.peer))
        self.assertEqual(self.running(), [old])

    def test_doubt_that_ends_in_failure(self) -> None:
        """Where no new session comes about either, what waits fails; the next call tries again."""
        old = self.forgotten()
        self.told()
        error = failure("unreachable")
        self.links[-1].session.failed(error)
        self.assertEqual(self.told(), [("fail", error)])
        self.assertEqual(self.running(), [old])
        self.want(self.clock.seconds() + 2.0)
        self.assertEqual(len(self.running()), 2)


class EndTests(SessionsTestCase):
    """Sessions that end."""

    def test_ended(self) -> None:
        """The calls in a session that ended are told why, and another is begun for those that wait."""
        link = self.open()
        error = DTLSSessionLost(FIRST, "the server closed the session")
        link.session.ended(error)
        self.assertEqual(self.told(), [("hold",), ("leave", link.session.peer, error)])
        self.assertIsNotNone(link.stopped)
        self.assertEqual(len(self.running()), 1)
        self.assertFalse(self.sessions.in_use)

    def test_ended_idle(self) -> None:
        """Where nobody waits, none is begun before somebody does."""
        link = self.open(until=0.5)
        self.advance(1.0)
        link.session.ended(DTLSSessionLost(FIRST, "idle"))
        self.assertEqual(self.running(), [])
        self.want(self.clock.seconds() + 1.0)
        self.assertEqual(len(self.running()), 1)

    def test_never_again(self) -> None:
        """Nothing is ever written into another session than the one that it is for."""
        link = self.open()
        peer = link.session.peer
        write = self.sessions.writer(peer)
        link.session.ended(DTLSSessionLost(FIRST, "closed"))
        new = self.links[-1]
        new.session.opened()
        write(b"call", peer)
        self.sessions.writer(peer)(b"call", peer)
        self.assertEqual((link.written, new.written), ([], []))

    def test_old_session_ends(self) -> None:
        """The end of an old session is told to the calls in it, and does not disturb the new one."""
        old = self.open()
        self.calls.deadlines[id(old.session.peer)] = 100.0
        old.session.refused("nobody", b"call")
        new = self.links[-1]
        new.session.opened()
        self.told()
        error = DTLSSessionLost(FIRST, "closed")
        old.session.ended(error)
        self.assertEqual(self.told(), [("leave", old.session.peer, error)])
        self.assertEqual(self.running(), [new])

    def test_bounded(self) -> None:
        """So many old sessions are kept and no more, however long the calls in them take."""
        for _ in range(module.MOST_RETIRED + 3):
            link = self.open()
            self.calls.deadlines[id(link.session.peer)] = 1000.0
            link.session.refused("nobody", b"call")
            self.links[-1].session.opened()
            self.told()
            self.calls.deadlines[id(self.links[-1].session.peer)] = 1000.0
            self.links[-1].session.refused("nobody", b"call")
        self.assertLessEqual(len(self.running()), module.MOST_RETIRED + 2)

    def test_stop(self) -> None:
        """A stop ends sessions and attempts, takes the timer away, and fires when all their ports are free."""
        old = self.open()
        self.calls.deadlines[id(old.session.peer)] = 100.0
        old.session.refused("nobody", b"call")
        self.links[-1].session.opened()
        self.links[-1].session.refused("nobody", b"call")
        self.assertEqual(len(self.running()), 3)
        stopped = self.sessions.stop()
        self.assertEqual((self.running(), self.clock.getDelayedCalls()), ([], []))
        for link in self.links:
            self.assertNoResult(stopped)
            assert link.stopped is not None
            link.stopped.callback(None)
        self.successResultOf(stopped)
        self.told()
        for link in self.links:
            link.session.received([b"late"])
            link.session.ended(DTLSSessionLost(FIRST, "late"))
            link.session.failed(failure("no_answer"))
            link.session.opened()
        self.want(1000.0)
        self.sessions.addresses_learnt([SECOND])
        self.assertEqual((self.told(), len(self.links), self.clock.getDelayedCalls()), ([], 3, []))
