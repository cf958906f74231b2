"""Somebody who is not on the path sends replies and ICMP errors to a waiting client: none counts.

Theory of operation: he may forge any source address and knows what cannot be hidden, the addresses and ports, but not
the message id of the request that is waiting; or he knows the id and cannot send from the server's address. Each test
runs the same conversation with and without him and compares what the client sends and when, so that also a reply that
is not accepted, but taught the client something, would be seen.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from twisted.internet.defer import CancelledError

from tests.simulation import DELAY, PORT, SERVER, SimulatedTestCase
from twistedudp import _msgpack, errors
from twistedudp.impairment import Datagram
from twistedudp.interfaces import Unreachable
from twistedudp.messages import TYPE_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.simulation import Peer
    from twistedudp.address import Address

FORGED = 100_000
BATCHES = 100
"""They come in so many heaps, one each 0.2 s, among the client's own retransmissions."""

NEIGHBOUR = "192.0.2.3"
"""Where another client of the same server runs."""


class Situation(NamedTuple):
    """What there is to forge for."""

    peer: Peer
    """The server."""
    waiting: bytes
    """The request that is waiting."""
    ran_out: bytes
    """A request whose deadline has passed."""
    cancelled: bytes
    """A request that the caller no longer waits for."""
    answered: bytes
    """A request that was answered."""
    answer: bytes
    """The response to it."""
    neighbours: bytes
    """A request of another client, which is waiting there."""
    client: Address
    """The client's address and port."""


def response_to(request: bytes, error: object = None) -> bytes:
    """Return a response that somebody forges for a request."""
    msgid = _msgpack.peek_msgid_untrusted(request, TYPE_REQUEST)
    assert msgid is not None
    return _msgpack.encode_response(msgid, error, None if error else "forged")


class Forger:
    """Somebody who is not on the path.

    Args:
        rng: What he does by chance.
        now: What he knows, and more than that.
    """

    def __init__(self, rng: random.Random, now: Situation) -> None:
        self.rng = rng
        self.now = now
        requests = (now.waiting, now.ran_out, now.cancelled, now.answered)
        self._known = {_msgpack.peek_msgid_untrusted(request, TYPE_REQUEST) for request in requests}

    def somewhere(self) -> Address:
        """Return an address that is not the server's."""
        return f"203.0.113.{self.rng.randrange(1, 255)}", self.rng.choice((PORT, self.rng.randrange(1, 65536)))

    def other_port(self) -> Address:
        """Return another port of the server's host."""
        return SERVER, self.rng.choice([PORT - 1, PORT + 1, self.rng.randrange(1, PORT)])

    def unknown_id(self) -> int:
        """Return an id that no request of the client has or had."""
        while (msgid := self.rng.getrandbits(32)) in self._known:
            pass
        return msgid

    def noise(self) -> bytes:
        """Return bytes that are no message."""
        return b"\xc1" + self.rng.randbytes(self.rng.randrange(40))


BUSY = {"code": "busy", "message": "not now"}
ERROR = {"code": "method_failed", "message": "not ever"}
REAL: Address = (SERVER, PORT)

REPLIES: dict[str, tuple[str, Callable[[Forger], tuple[Address, bytes]]]] = {
    "wrong address": ("wrong_peer", lambda by: (by.somewhere(), response_to(by.now.waiting))),
    "wrong port": ("wrong_peer", lambda by: (by.other_port(), response_to(by.now.waiting))),
    "error from a wrong address": ("wrong_peer", lambda by: (by.somewhere(), response_to(by.now.waiting, ERROR))),
    "busy from a wrong address": ("wrong_peer", lambda by: (by.somewhere(), response_to(by.now.waiting, BUSY))),
    "reflected from a wrong address": ("not_a_response", lambda by: (by.somewhere(), by.now.waiting)),
    "wrong id": ("unmatched", lambda by: (REAL, _msgpack.encode_response(by.unknown_id(), None, "forged"))),
    "wrong id and address": (
        "unmatched",
        lambda by: (by.somewhere(), _msgpack.encode_response(by.unknown_id(), None, "forged")),
    ),
    "late": ("late", lambda by: (REAL, response_to(by.now.ran_out))),
    "cancelled": ("late", lambda by: (REAL, response_to(by.now.cancelled))),
    "duplicate": ("duplicate", lambda by: (REAL, by.now.answer)),
    "for another client": ("unmatched", lambda by: (REAL, response_to(by.now.neighbours))),
    "no message": ("malformed", lambda by: (REAL, by.noise())),
}
"""The forged replies: the reason under which each is counted, and what makes its source and its bytes."""

REFUSED = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)

QUOTES: dict[str, Callable[[Forger], tuple[Address, bytes]]] = {
    "nothing": lambda _: (REAL, b""),
    "noise": lambda by: (REAL, by.noise()),
    "too little": lambda by: (REAL, by.now.waiting[: by.rng.randrange(1, 5)]),
    "an unknown id": lambda by: (REAL, _msgpack.encode_request(by.unknown_id(), "wait", ())),
    "another client's request": lambda by: (REAL, by.now.neighbours),
    "a request that was answered": lambda by: (REAL, by.now.answered),
    "a request that ran out": lambda by: (REAL, by.now.ran_out),
    "the request, but not first": lambda by: (REAL, by.now.neighbours + by.now.waiting),
    "the request, changed": lambda by: (REAL, by.now.waiting[:-1] + b"\xc0"),
    "the request to another address": lambda by: (by.somewhere(), by.now.waiting),
    "the request to another port": lambda by: (by.other_port(), by.now.waiting),
}
"""The forged ICMP errors: what makes the address that was not reached, and the quotation."""


@pytest.mark.heavy
class OffPathTests(SimulatedTestCase):
    """A client that waits, its server, another client, and a forger."""

    def situation(self) -> Situation:
        """Let requests be answered, cancelled and run out, and one wait; each test's conversation up to the forgery."""
        peer = self.peer()
        self.waiter = self.client(window=16, rng=random.Random(1))  # noqa: S311  # to be repeatable
        neighbour = self.client(reactor=self.network.reactor(NEIGHBOUR), rng=random.Random(2))  # noqa: S311  # likewise
        first = self.waiter.call("first")
        self.advance()
        peer.respond("true")
        self.assertEqual(self.result(first), "true")
        answer = self.network.trace.select(source=(SERVER, PORT))[-1].payload
        ran_out = self.waiter.call("ran out", timeout=0.1)
        self.advance(0.2)
        self.failureResultOf(ran_out, errors.RequestTimedOut)
        cancelled = self.waiter.call("cancelled")
        self.advance()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.neighbours = neighbour.call("wait", timeout=100.0)
        self.advance()
        self.call = self.waiter.call("wait", timeout=60.0)
        self.advance()
        answered, run_out, given_up, neighbours, waiting = (payload for payload, _ in peer.received)
        return Situation(
            peer, waiting, run_out, given_up, answered, answer, neighbours, peer.received[-1][1]
        )  # fmt: skip

    def finish(self, now: Situation) -> list[tuple[float, bytes]]:
        """See what the client has learnt, let the true answers come, and return what it has sent and when."""
        last = self.waiter.call("last", timeout=10.0)  # its tries are made after what is known of the round trip
        self.network.advance(10.5)
        self.failureResultOf(last, errors.RequestTimedOut)
        requests = [payload for payload, _ in now.peer.received]
        now.peer.respond("true", requests.index(now.waiting))
        self.assertEqual(self.result(self.call), "true")
        now.peer.respond("theirs", requests.index(now.neighbours))
        self.assertEqual(self.result(self.neighbours), "theirs")
        return self.sent(to=(SERVER, PORT))

    def converse(self, forge: Callable[[Forger], Iterable[Datagram]]) -> tuple[list[tuple[float, bytes]], Counter[str]]:
        """Have the conversation and return what the client has sent, and what it counted during the forgery."""
        now = self.situation()
        forger = Forger(random.Random(20261122), now)  # noqa: S311  # to be repeatable
        host = self.network.reactor("192.0.2.66").host
        before = self.counted()
        for _ in range(BATCHES):
            for datagram in forge(forger):
                self.network.send(host, datagram)
            self.network.advance(0.2)
            self.assertNoResult(self.call)
        self.assertNoResult(self.neighbours)
        counted = self.counted() - before
        return self.finish(now), counted

    def counted(self) -> Counter[str]:
        """Return the client's counters of what it did not accept."""
        stats = self.waiter.stats
        return +Counter({**stats.rejected, "late": stats.late, "duplicate": stats.duplicate})

    def compare(self, forge: Callable[[Forger], Iterable[Datagram]]) -> Counter[str]:
        """Have the conversation with and without the forger, compare, and return what the client counted."""
        sent, counted = self.converse(lambda _: ())
        self.assertEqual(counted, Counter())
        self.doCleanups()
        self.setUp()
        attacked, counted = self.converse(forge)
        self.assertEqual(attacked, sent)
        return counted

    def test_replies(self) -> None:
        """Of 100,000 forged replies none is accepted, none makes a difference, and each is counted by its reason."""
        expected: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        names = list(REPLIES)

        def forge(forger: Forger) -> Iterable[Datagram]:
            for kind in forger.rng.choices(names, k=FORGED // BATCHES):
                reason, make = REPLIES[kind]
                kinds[kind] += 1
                expected[reason] += 1
                source, payload = make(forger)
                yield Datagram(source, forger.now.client, payload)

        self.assertEqual(self.compare(forge), expected)
        self.assertEqual(sum(expected.values()), FORGED)
        self.assertEqual(set(kinds), set(REPLIES))
        stats = self.waiter.stats
        self.assertEqual((stats.answered, stats.errors, stats.busy, stats.failed), (2, 0, 0, 0))

    def test_unreachable(self) -> None:
        """ICMP errors that do not quote what waits, with the address it was sent to, make no difference."""

        def forge(forger: Forger) -> Iterable[Datagram]:
            for make in QUOTES.values():
                source, quoted = make(forger)
                yield Datagram(source, forger.now.client, quoted, REFUSED)

        self.assertEqual(self.compare(forge), Counter({"unmatched_icmp": BATCHES * len(QUOTES)}))
        self.assertEqual(self.waiter.stats.refused, 0)

    def test_unreachable_at_another_port(self) -> None:
        """An ICMP error that quotes the request, but not the port that it left from, makes no difference."""
        now = self.situation()
        echoes = [self.waiter.echo_bytes(b"equal", timeout=60.0) for _ in range(2)]
        self.advance()
        usual, other = (source for payload, source in now.peer.received if payload == b"equal")
        self.assertEqual(usual, now.client)
        host = self.network.reactor("192.0.2.66").host
        self.network.send(host, Datagram(REAL, other, now.waiting, REFUSED))
        self.advance()
        for call in (self.call, *echoes):
            self.assertNoResult(call)
            call.addErrback(lambda _: None)
        self.assertEqual(self.waiter.stats.rejected["unmatched_icmp"], 1)
        self.neighbours.addErrback(lambda _: None)

    def test_unreachable_in_truth(self) -> None:
        """One that quotes the request, and the address that it was sent to, ends the call: it could be genuine."""
        now = self.situation()
        host = self.network.reactor("192.0.2.66").host
        self.network.send(host, Datagram((SERVER, PORT), now.client, now.waiting[:8], REFUSED))
        self.advance(2 * DELAY)
        self.failureResultOf(self.call, errors.PeerUnreachable)
        self.assertEqual(self.waiter.stats.refused, 1)
        self.neighbours.addErrback(lambda _: None)
