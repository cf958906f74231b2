"""The requester under any order of commands and inputs: each request has one outcome, and nothing leaks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, STRANGER, THIRD
from tests.properties import MACHINE
from twistedudp._msgpack import encode_notification, encode_request, encode_response
from twistedudp.core import KEY_SIZE, Kind, Requester, RequesterSettings, message_ids
from twistedudp.errors import (
    DatagramTooLarge,
    ErrorReplyReceived,
    HostNotFound,
    LocalError,
    PeerReflects,
    PeerUnreachable,
    RequestAborted,
    RequestTimedOut,
    TooManyRequests,
)

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.core import PendingRequest, Transmit

ADDRESSES = (FIRST, SECOND, THIRD)
PEERS = (*ADDRESSES, STRANGER)

timeouts = st.sampled_from([1e-12, 0.05, 0.8, 2.0, 10.0, 60.0])
numbers = st.integers(0, 2**16)


@dataclass
class Tracked:
    """What the model knows of one request."""

    request: PendingRequest
    sent: list[Transmit] = field(default_factory=list)
    refused: bool = False

    @property
    def asked(self) -> set[Address]:
        """The addresses that it was seen to go to."""
        return {transmit.peer for transmit in self.sent}


class RequesterMachine(RuleBasedStateMachine):
    """Commands, datagrams of any kind from anybody, ICMP errors, and a timer that may be late.

    The model knows what was sent where, by looking at the transmits alone, and from that what an input may end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.waiting: list[Tracked] = []
        self.ended: list[Tracked] = []
        self.notifications = 0
        self.counts = {"accepted": 0, "cancelled": 0, "events": 0, "notified": 0}

    @initialize(
        seed=numbers, retry_refused=st.booleans(), max_outstanding=st.sampled_from([3, 1000]), resolved=st.booleans()
    )
    def make(self, seed: int, retry_refused: bool, max_outstanding: int, resolved: bool) -> None:
        """Make the requester."""
        source = random.Random(seed)  # noqa: S311  # reproducible on purpose
        settings = RequesterSettings(
            max_outstanding=max_outstanding, retry_refused=retry_refused, max_queued_notifications=3
        )
        self.requester = Requester(
            msgids=message_ids(source.randbytes(KEY_SIZE)), random=source.random, settings=settings
        )
        self.settings = settings
        self.known: set[Address] = set()
        if resolved:
            self.resolve([FIRST, SECOND])

    # What the owner does after each command and each input

    def pump(self, may_end: list[Tracked], *errors: type[Exception], result: bool = False) -> None:
        """Take all outputs, in the order of the contract, and check them.

        Args:
            may_end: The requests that this input may end.
            errors: What they may fail with.
            result: Whether one of them may have a result.
        """
        for transmit in self.requester.transmits():
            assert transmit.peer in self.known
            self.note(transmit)
        for request in self.requester.events():
            self.counts["events"] += 1
            [tracked] = [tracked for tracked in self.waiting if tracked.request is request]
            assert tracked in may_end, "a request ended for which nothing came"
            assert request.done
            assert isinstance(request.error, errors) if request.error is not None else result
            self.waiting.remove(tracked)
            self.ended.append(tracked)
        assert self.requester.events() == []
        assert self.requester.transmits() == []

    def note(self, transmit: Transmit) -> None:
        """Find what a transmit belongs to: a waiting request, its bytes, and its socket, or a notification."""
        for tracked in self.waiting:
            request = tracked.request
            if transmit.payload == request.payload and transmit.socket == request.socket:
                others = {sent.peer for sent in tracked.sent}
                if others and not request.idempotent and not tracked.refused:
                    assert others == {transmit.peer}, "a call went to another address although none refused it"
                tracked.sent.append(transmit)
                return
        assert transmit.payload[:2] == b"\x93\x02", "a transmit of nobody"
        self.notifications += 1

    def pick(self, tracked: list[Tracked], number: int) -> Tracked:
        """Choose one."""
        return tracked[number % len(tracked)]

    def pick_any(self, number: int) -> Tracked:
        """Choose one that waits, or, one time in four, one whose answer comes late."""
        late = not self.waiting or (number % 4 == 0 and self.ended)
        return self.pick(self.ended if late else self.waiting, number // 4)

    def all(self) -> list[Tracked]:
        """Return all requests there ever were."""
        return self.waiting + self.ended

    # Commands

    @rule(
        kind=st.sampled_from([Kind.CALL, Kind.ECHO]),
        idempotent=st.booleans(),
        timeout=timeouts,
        param=st.sampled_from([1, "x"]),
        times=st.integers(1, 3),
    )
    def call(self, kind: Kind, idempotent: bool, timeout: float, param: object, times: int) -> None:
        """Make one request or a few."""
        for _ in range(times):
            try:
                request = self.requester.send_request(
                    "m", [param], timeout=timeout, now=self.now, kind=kind, idempotent=idempotent
                )
            except TooManyRequests:
                assert len(self.waiting) == self.settings.max_outstanding
            else:
                self.accepted(request)
            self.pump([])

    @rule(
        payload=st.sampled_from([b"", b"a", b"a longer payload", b"a longer payload!", bytes(65507)]),
        times=st.integers(1, 3),
        timeout=timeouts,
    )
    def echo(self, payload: bytes, timeout: float, times: int) -> None:
        """Send a raw echo or a few, very often with the same bytes as others."""
        for _ in range(times):
            try:
                request = self.requester.send_echo(payload, timeout=timeout, now=self.now)
            except TooManyRequests:
                assert len(self.waiting) == self.settings.max_outstanding
            else:
                taken = [one.request.socket for one in self.waiting if one.request.payload == payload]
                assert request.socket not in taken
                self.accepted(request)
            self.pump([])

    def accepted(self, request: PendingRequest) -> None:
        """Note a new request."""
        self.counts["accepted"] += 1
        self.waiting.append(Tracked(request))

    @rule()
    def notify(self) -> None:
        """Send a notification."""
        self.requester.send_notification("n", [])
        self.counts["notified"] += 1
        self.pump([])

    @precondition(lambda self: len(self.waiting) > 1)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        """Cancel a waiting request, and once more."""
        tracked = self.pick(self.waiting, number)
        self.waiting.remove(tracked)
        self.ended.append(tracked)
        self.counts["cancelled"] += 1
        self.requester.cancel(tracked.request)
        self.requester.cancel(tracked.request)
        assert tracked.request.done
        self.pump([])

    @precondition(lambda self: self.ended)
    @rule(number=numbers)
    def cancel_late(self, number: int) -> None:
        """Cancel what has an outcome."""
        self.requester.cancel(self.pick(self.ended, number).request)
        self.pump([])

    @precondition(lambda self: len(self.waiting) > 5)
    @rule()
    def close(self) -> None:
        """Stop; the requester may be used again, as by a service that is started again."""
        self.requester.close()
        self.pump(list(self.waiting), RequestAborted)
        assert not self.waiting

    # Inputs

    @rule(addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4))
    def resolve(self, addresses: list[Address]) -> None:
        """Let the resolver answer, the first time or again."""
        self.known.update(addresses)
        self.requester.servers_resolved(addresses, now=self.now)
        self.pump([tracked for tracked in self.waiting if not tracked.sent], DatagramTooLarge)

    @precondition(lambda self: len(self.waiting) > 2)
    @rule()
    def resolution_fails(self) -> None:
        """Let the resolver give up."""
        self.requester.resolution_failed(HostNotFound("no.example"))
        self.pump([tracked for tracked in self.waiting if not tracked.sent], HostNotFound)

    @precondition(lambda self: self.all())
    @rule(
        number=numbers,
        peer=st.sampled_from(PEERS),
        error=st.sampled_from([None, None, "e", {"code": "c", "message": "m"}]),
        socket=st.integers(0, 1),
        cut=st.booleans(),
    )
    def respond(self, number: int, peer: Address, error: object, socket: int, cut: bool) -> None:
        """Let a response come, right or wrong, in time or late, whole or cut."""
        tracked = self.pick_any(number)
        payload = encode_response(tracked.request.msgid, error, None if error else 1)
        self.requester.datagram_received(payload[: -1 if cut else None], peer, socket, now=self.now)
        may_end = tracked.request.kind is not Kind.RAW and peer in tracked.asked and not cut
        self.pump([tracked] if may_end else [], ErrorReplyReceived, result=error is None)
        assert tracked not in self.waiting or not may_end, "the answer did not count"

    @precondition(lambda self: self.all())
    @rule(number=numbers, peer=st.sampled_from(PEERS), socket=st.integers(0, 2))
    def reflect(self, number: int, peer: Address, socket: int) -> None:
        """Let bytes that were sent come back, from anybody and to any socket."""
        tracked = self.pick_any(number)
        payload, kind = tracked.request.payload, tracked.request.kind
        self.requester.datagram_received(payload, peer, socket, now=self.now)
        if kind is Kind.RAW:
            equals = [one for one in self.waiting if one.request.payload == payload and one.request.kind is Kind.RAW]
            may_end = [one for one in equals if one.request.socket == socket and peer in one.asked]
        else:
            may_end = [tracked] if peer in tracked.asked else []
        self.pump(may_end, PeerReflects, result=kind is not Kind.CALL)
        assert not any(one in self.waiting for one in may_end), "the answer did not count"

    @rule(
        payload=st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [
                    encode_notification("m", []),
                    encode_request(5, "m", [1]),
                    encode_response(5, None, 1),
                    encode_response(5, None, 1)[:-1],
                ]
            ),
        ),
        peer=st.sampled_from(PEERS),
    )
    def garbage(self, payload: bytes, peer: Address) -> None:
        """Let something come that nobody asked for."""
        if payload in {b"", b"a"} or any(one.request.msgid == 5 for one in self.waiting):
            return
        before = sum(self.requester.stats.rejected.values())
        self.requester.datagram_received(payload, peer, now=self.now)
        self.pump([])
        assert sum(self.requester.stats.rejected.values()) == before + 1

    @precondition(lambda self: self.all())
    @rule(
        number=numbers,
        peer=st.sampled_from(PEERS),
        socket=st.integers(0, 1),
        quoted=st.sampled_from([0, 3, 7, 8, 9, 9999]),
    )
    def refuse(self, number: int, peer: Address, socket: int, quoted: int) -> None:
        """Let an ICMP error come, genuine or forged, whole or cut short."""
        quote = self.pick_any(number).request.payload[:quoted]
        may_end = [
            one for one in self.waiting
            if one.request.payload.startswith(quote) and peer in one.asked and one.request.socket == socket
        ]  # fmt: skip
        for one in may_end:
            one.refused = True
        refused, waiting = self.requester.stats.refused, len(self.waiting)
        self.requester.peer_unreachable(peer, "refused", quote, socket, now=self.now)
        self.pump(may_end, PeerUnreachable)
        assert waiting - len(self.waiting) <= self.requester.stats.refused - refused <= 1
        assert not (self.settings.retry_refused and len(self.waiting) < waiting)

    @precondition(lambda self: any(one.sent for one in self.all()))
    @rule(number=numbers)
    def cannot_send(self, number: int) -> None:
        """Learn that a datagram can never be sent."""
        tracked = self.pick([one for one in self.all() if one.sent], number)
        self.requester.send_failed(tracked.sent[-1], LocalError("no"))
        # an echo that has ended may be taken for a longer one that waits, whose beginning it is: as with ICMP errors
        same = [one for one in self.waiting if one.request.payload.startswith(tracked.request.payload)]
        self.pump([one for one in same if one.request.socket == tracked.request.socket], LocalError)
        assert tracked not in self.waiting

    # Time

    @rule(seconds=st.sampled_from([1e-6, 0.01, 0.3, 1.0, 3.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, and let the timer be late."""
        self.now += seconds

    @rule()
    def fire(self) -> None:
        """Let the timer fire, perhaps for nothing."""
        self.reach_deadline()

    @precondition(lambda self: self.waiting)
    @rule()
    def wait_for_the_timer(self) -> None:
        """Let the timer fire at its very time."""
        due = self.requester.next_deadline()
        assert due is not None
        self.now = max(self.now, due)
        self.reach_deadline()

    def reach_deadline(self) -> None:
        """Let the timer fire."""
        over = [tracked for tracked in self.waiting if tracked.request.deadline <= self.now]
        self.requester.deadline_reached(now=self.now)
        self.pump(over, RequestTimedOut)
        assert not any(tracked in self.waiting for tracked in over), "the deadline passed without an outcome"
        due = self.requester.next_deadline()
        assert due is None or due > self.now, "the next deadline is in the past"

    # What always holds

    @invariant()
    def tables(self) -> None:
        """The tables hold what waits and nothing else, and the deadline is that of what waits."""
        waiting = [tracked.request for tracked in self.waiting]
        requester = self.requester
        assert len(requester) == len(waiting) <= self.settings.max_outstanding
        assert len(requester._echoes) == sum(request.kind is Kind.RAW for request in waiting)
        assert not any(request.done for request in waiting)
        assert all(tracked.request.done for tracked in self.ended)
        due = requester.next_deadline()
        assert due == min((request.due for request in waiting), default=None)
        assert all(request.due <= request.deadline for request in waiting)
        assert len(requester._deadlines) <= max(1024, 5 * len(waiting))
        assert len(requester._notifications) <= 3

    @invariant()
    def counters(self) -> None:
        """Nothing is lost and nothing counted twice."""
        stats = self.requester.stats
        assert stats.requests == self.counts["accepted"] == len(self.waiting) + len(self.ended)
        assert len(self.ended) == self.counts["events"] + self.counts["cancelled"]
        assert stats.cancelled == self.counts["cancelled"]
        assert stats.transmitted == sum(len(tracked.sent) for tracked in self.all()) + self.notifications
        queued = len(self.requester._notifications)
        assert self.counts["notified"] == self.notifications + stats.notifications_dropped + queued
        assert all(tracked.request.attempts == len(tracked.sent) for tracked in self.all())
        assert all(set(tracked.request.asked) == tracked.asked for tracked in self.all())

    def teardown(self) -> None:
        """Let all deadlines come: then nothing waits, and nothing is left."""
        if not hasattr(self, "requester"):
            return
        self.now += 1000.0
        self.reach_deadline()
        assert not self.waiting
        requester = self.requester
        assert (len(requester), len(requester._echoes), requester.next_deadline()) == (0, 0, None)
        assert len(requester._deadlines) == 0
        super().teardown()


class RequesterTests(SynchronousTestCase):
    """The machine, as a test that both runners find."""

    def test_any_history(self) -> None:
        """Whatever happens in whatever order, each request has one outcome and nothing leaks."""
        run_state_machine_as_test(RequesterMachine, settings=MACHINE)
