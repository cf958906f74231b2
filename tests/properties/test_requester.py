"""The requester under any order of commands and inputs: each request has one outcome, and nothing leaks.

The model beside it knows nothing of windows, breakers or sockets: it sees what is sent where and from which socket, and
what is unused, and says of these what may never happen.
"""

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

from tests.core.driver import FIRST, SECOND, STRANGER, THIRD, held
from tests.properties import MACHINE
from twistedudp._msgpack import encode_notification, encode_request, encode_response
from twistedudp.core import FIRST_RETRY_SOCKET, KEY_SIZE, Kind, Requester, RequesterSettings, message_ids
from twistedudp.errors import (
    CircuitOpen,
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
    number: int
    sent: list[Transmit] = field(default_factory=list)
    refused: set[Address] = field(default_factory=set)
    busy_after: int = 0

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
        self.open_sockets: set[int] = set()
        self.retry_sockets: set[int] = set()
        self.counts = {"accepted": 0, "cancelled": 0, "events": 0, "notified": 0, "circuits": 0}

    @initialize(
        seed=numbers,
        retry_refused=st.booleans(),
        max_outstanding=st.sampled_from([3, 1000, 1000]),
        resolved=st.sampled_from([True, True, False]),
        window=st.sampled_from([None, 1, 1, 2, 100]),
        threshold=st.sampled_from([0, 1, 2, 5]),
        max_retry_ports=st.sampled_from([0, 1, 2, 64]),
        peer_age=st.sampled_from([5.0, 600.0]),
    )
    def make(  # budget: each of them is drawn
        self,
        *,
        seed: int,
        retry_refused: bool,
        max_outstanding: int,
        resolved: bool,
        window: int | None,
        threshold: int,
        max_retry_ports: int,
        peer_age: float,
    ) -> None:
        """Make the requester."""
        source = random.Random(seed)  # noqa: S311  # reproducible on purpose
        settings = RequesterSettings(
            max_outstanding=max_outstanding,
            retry_refused=retry_refused,
            max_queued_notifications=3,
            window=None if window is None else min(window, max_outstanding),
            breaker_threshold=threshold,
            max_retry_ports=max_retry_ports,
            peer_age=peer_age,
        )
        self.requester = Requester(
            msgids=message_ids(source.randbytes(KEY_SIZE)), random=source.random, settings=settings
        )
        self.settings = settings
        self.known: set[Address] = set()
        self.left: set[Address] = set()
        self.listed: list[Address] = []
        if resolved:
            self.resolve([FIRST, SECOND])

    # What the owner does after each command and each input

    def pump(self, may_end: list[Tracked], *errors: type[Exception], result: bool = False) -> list[Tracked]:
        """Take all outputs, in the order of the contract, and check them.

        Beside what an input may end, it may make a queued request leave; that one may then find that its server's
        address family does not carry it, and fails if no server answers.

        Args:
            may_end: The requests that this input may end.
            errors: What they may fail with.
            result: Whether one of them may have a result.

        Returns:
            The requests that have ended.
        """
        for transmit in self.requester.transmits():
            assert transmit.peer in self.known
            self.note(transmit)
        ended = [self.end(request) for request in self.requester.events()]
        for tracked in ended:
            error = tracked.request.error
            if isinstance(error, CircuitOpen):
                assert len(tracked.sent) <= len(tracked.refused), "a call that was sent failed by the breaker"
                self.check_circuits(error)
            elif isinstance(error, DatagramTooLarge):
                assert len(tracked.request.payload) > 65507
            else:
                assert tracked in may_end, "a request ended for which nothing came"
                assert isinstance(error, errors) if error is not None else result
        assert self.requester.events() == []
        assert self.requester.transmits() == []
        self.close_sockets()
        return ended

    def end(self, request: PendingRequest) -> Tracked:
        """Note that a request has ended."""
        self.counts["events"] += 1
        [tracked] = [tracked for tracked in self.waiting if tracked.request is request]
        assert request.done
        self.waiting.remove(tracked)
        self.ended.append(tracked)
        return tracked

    def close_sockets(self) -> None:
        """Close what is unused, as the pump does: never what a waiting request has left from, and each once."""
        unused = self.requester.unused_sockets()
        assert len(set(unused)) == len(unused)
        used = {transmit.socket for tracked in self.waiting for transmit in tracked.sent} - {0}
        used |= {tracked.request.socket for tracked in self.waiting if tracked.request.kind is Kind.RAW} - {0}
        assert not used & set(unused), "a socket was closed that a waiting request needs"
        self.open_sockets -= set(unused)
        assert self.open_sockets <= used, "a socket stays open that nobody needs"
        assert self.requester.unused_sockets() == []

    def note(self, transmit: Transmit) -> None:
        """Find what a transmit belongs to: a waiting request and its bytes, a raw echo also by socket; or to nobody."""
        for tracked in self.waiting:
            request = tracked.request
            same_socket = request.kind is not Kind.RAW or transmit.socket == request.socket
            if transmit.payload == request.payload and same_socket:
                self.check_way(tracked, transmit)
                if not tracked.sent:
                    self.check_turn(tracked)
                tracked.sent.append(transmit)
                if transmit.socket:
                    self.open_sockets.add(transmit.socket)
                return
        assert transmit.payload[:2] == b"\x93\x02", "a transmit of nobody"
        assert transmit.socket == 0
        self.notifications += 1

    def going_on(self) -> list[Tracked]:
        """Return those that wait still, though events may not have been taken."""
        return [tracked for tracked in self.waiting if not tracked.request.done]

    def check_way(self, tracked: Tracked, transmit: Transmit) -> None:
        """Check where a request goes to, and from which socket, against its former ways."""
        request = tracked.request
        addresses, sockets = tracked.asked, {sent.socket for sent in tracked.sent}
        others = addresses - {transmit.peer}
        if others and not request.idempotent:
            assert others <= tracked.refused, "a call went to another address although none refused it"
            if transmit.peer not in addresses:
                assert len(tracked.sent) == len(tracked.refused), "a call that may have run went to another address"
        if not request.idempotent:
            assert transmit.socket == 0, "a call left from another socket"
        elif request.kind is Kind.RAW:
            assert sockets <= {transmit.socket}, "a raw echo left from another socket"
            assert transmit.socket < 256
        elif transmit.socket and transmit.socket not in sockets:
            assert tracked.sent, "the first try of a call left from a socket of its own"
            assert transmit.socket >= FIRST_RETRY_SOCKET
            assert transmit.socket not in self.retry_sockets, "a socket was used twice"
            self.retry_sockets.add(transmit.socket)
            in_use = {sent.socket for one in self.going_on() for sent in one.sent if sent.socket >= FIRST_RETRY_SOCKET}
            assert len(in_use) < self.settings.max_retry_ports, "too many sockets"

    def check_turn(self, tracked: Tracked) -> None:
        """Check that a request that leaves for the first time does not overtake one that has waited for longer."""
        before = [one for one in self.going_on() if one.request.server is None and one.number < tracked.number]
        assert not before, "a request was overtaken"

    def pick(self, tracked: list[Tracked], number: int) -> Tracked:
        """Choose one."""
        return tracked[number % len(tracked)]

    def pick_any(self, number: int) -> Tracked:
        """Choose one that waits, or, one time in four, one whose answer comes late."""
        late = not self.waiting or (number % 4 == 0 and self.ended)
        return self.pick(self.ended if late else self.waiting, number // 4)

    def queued(self) -> list[Tracked]:
        """Return those that wait for their turn: they were not sent, or refused by all to whom they were."""
        queued = [tracked for tracked in self.waiting if tracked.request.server is None]
        assert all(len(tracked.sent) <= len(tracked.refused) or tracked.request.idempotent for tracked in queued)
        return queued

    def all(self) -> list[Tracked]:
        """Return all requests there ever were."""
        return self.waiting + self.ended

    # Commands

    @rule(
        kind=st.sampled_from([Kind.CALL, Kind.ECHO]),
        idempotent=st.booleans(),
        timeout=timeouts,
        param=st.sampled_from([1, "x"]),
        times=st.integers(1, 6),
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
            except CircuitOpen as error:
                self.check_circuits(error)
            else:
                self.accepted(request)
            self.pump([])

    @rule(
        payload=st.sampled_from([b"", b"a", b"a longer payload", b"a longer payload!", bytes(65507), bytes(65508)]),
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
            except CircuitOpen as error:
                self.check_circuits(error)
            except DatagramTooLarge:
                assert len(payload) > 65507
            else:
                taken = [one.request.socket for one in self.waiting if one.request.payload == payload]
                assert request.socket not in taken
                self.accepted(request)
            self.pump([])

    def accepted(self, request: PendingRequest) -> None:
        """Note a new request."""
        self.counts["accepted"] += 1
        self.waiting.append(Tracked(request, self.counts["accepted"]))

    def check_circuits(self, error: CircuitOpen) -> None:
        """Check that a call was refused because all circuits are open, and that none may be tried yet."""
        self.counts["circuits"] += 1
        peers = self.requester.stats.peers
        assert all(peer.circuit_open for peer in peers)
        assert error.peers == tuple(peer.address for peer in peers)
        assert 0 < error.retry_in <= self.settings.breaker_cooldown
        assert self.settings.breaker_threshold

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
        self.requester.cancel(tracked.request, now=self.now)
        self.requester.cancel(tracked.request, now=self.now)
        assert tracked.request.done
        self.pump([])

    @precondition(lambda self: self.ended)
    @rule(number=numbers)
    def cancel_late(self, number: int) -> None:
        """Cancel what has an outcome."""
        self.requester.cancel(self.pick(self.ended, number).request, now=self.now)
        self.pump([])

    @precondition(lambda self: len(self.waiting) > 3)
    @rule()
    def close(self) -> None:
        """Stop; the requester may be used again, as by a service that is started again."""
        self.requester.close()
        self.pump(list(self.waiting), RequestAborted)
        assert not self.waiting
        self.call(kind=Kind.CALL, idempotent=False, timeout=2.0, param=1, times=1)

    # Inputs

    @rule(addresses=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4))
    def resolve(self, addresses: list[Address]) -> None:
        """Let the resolver answer, the first time or again."""
        self.left |= set(self.listed) - set(addresses)
        self.listed = addresses
        self.known.update(addresses)
        self.requester.servers_resolved(addresses, now=self.now)
        self.pump([])

    @precondition(lambda self: len(self.waiting) > 2)
    @rule()
    def resolution_fails(self) -> None:
        """Let the resolver give up."""
        self.requester.resolution_failed(HostNotFound("no.example"))
        self.pump([] if self.known else self.queued(), HostNotFound)

    @precondition(lambda self: self.all())
    @rule(
        number=numbers,
        peer=st.sampled_from(PEERS),
        error=st.sampled_from([None, None, "e", {"code": "c", "message": "m"}, {"code": "busy", "message": "m"}]),
        socket=st.integers(0, 1),
        cut=st.booleans(),
    )
    def respond(self, number: int, peer: Address, error: object, socket: int, cut: bool) -> None:
        """Let a response come, right or wrong, in time or late, whole or cut."""
        tracked = self.pick_any(number)
        payload = encode_response(tracked.request.msgid, error, None if error else 1)
        self.requester.datagram_received(payload[: -1 if cut else None], peer, socket, now=self.now)
        counts = tracked.request.kind is not Kind.RAW and peer in tracked.asked and not cut
        busy = isinstance(error, dict) and error["code"] == "busy"
        if counts and busy:
            tracked.busy_after = len(tracked.sent)
        ends = [tracked] if counts and not busy else []
        self.pump(ends, ErrorReplyReceived, result=error is None)
        assert not any(one in self.waiting for one in ends), "the answer did not count"

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
        self.refuse_bytes(self.pick_any(number).request.payload[:quoted], peer, socket)

    @precondition(lambda self: any(one.sent for one in self.waiting))
    @rule(number=numbers)
    def refuse_last_try(self, number: int) -> None:
        """Let the last try of a waiting request be refused."""
        transmit = self.pick([one for one in self.waiting if one.sent], number).sent[-1]
        self.refuse_bytes(transmit.payload, transmit.peer, transmit.socket)

    def refuse_bytes(self, quote: bytes, peer: Address, socket: int) -> None:
        """Let an ICMP error come that quotes some bytes."""
        may_end = [
            one for one in self.waiting
            if one.request.payload.startswith(quote) and peer in one.asked and one.request.socket == socket
        ]  # fmt: skip
        for one in may_end:
            one.refused.add(peer)
        refused = self.requester.stats.refused
        self.requester.peer_unreachable(peer, "refused", quote, socket, now=self.now)
        ended = self.pump(may_end, PeerUnreachable)
        failed = [one for one in ended if isinstance(one.request.error, PeerUnreachable)]
        assert len(failed) <= self.requester.stats.refused - refused <= 1
        assert not (self.settings.retry_refused and failed)

    @precondition(lambda self: any(one.sent for one in self.all()))
    @rule(number=numbers)
    def cannot_send(self, number: int) -> None:
        """Learn that a datagram can never be sent."""
        tracked = self.pick([one for one in self.all() if one.sent], number)
        self.requester.send_failed(tracked.sent[-1], LocalError("no"), now=self.now)
        # an echo that has ended may be taken for a longer one that waits, whose beginning it is: as with ICMP errors
        same = [one for one in self.waiting if one.request.payload.startswith(tracked.request.payload)]
        self.pump([one for one in same if one.request.socket == tracked.sent[-1].socket], LocalError)
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
        for tracked in self.pump(over, RequestTimedOut, ErrorReplyReceived):
            error = tracked.request.error
            last_word = bool(tracked.sent) and tracked.busy_after == len(tracked.sent)
            assert (
                isinstance(error, (CircuitOpen, DatagramTooLarge)) or isinstance(error, ErrorReplyReceived) == last_word
            )
        assert not any(tracked in self.waiting for tracked in over), "the deadline passed without an outcome"
        due = self.requester.next_deadline()
        # What has just left its queue a hair before its deadline is due again at once, as far as floats can tell.
        assert due is None or due >= self.now, "the next deadline is in the past"

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
        assert due is None if not waiting else due is not None and due <= min(request.due for request in waiting)
        assert all(request.due <= request.deadline for request in waiting)
        tables = held(requester)
        assert tables["deadlines"] <= max(1024, 5 * len(waiting))
        assert tables["notifications"] <= 3
        assert tables["queue"] == len(self.queued())
        assert tables["retry sockets"] <= self.settings.max_retry_ports

    @invariant()
    def windows(self) -> None:
        """What is in flight is counted exactly, and whoever waits for a turn does so because a window is full."""
        peers = self.requester.stats.peers
        assert [peer.address for peer in peers] == list(dict.fromkeys(self.listed))
        for peer in peers:
            going_on = [tracked for tracked in self.waiting if tracked.request.server is not None]
            under_way = sum(tracked.sent[-1].peer == peer.address for tracked in going_on)
            assert peer.in_flight == under_way or peer.address in self.left
            assert 0 <= peer.in_flight <= under_way
            fixed = self.settings.window
            assert peer.window == fixed if fixed else 2 <= peer.window <= 256
            assert not fixed or len(self.known) > 1 or peer.in_flight <= fixed
        if self.queued() and peers:
            assert any(peer.in_flight + 1 > peer.window for peer in peers), "there is room, and requests wait"

    @invariant()
    def counters(self) -> None:
        """Nothing is lost and nothing counted twice."""
        stats = self.requester.stats
        assert stats.requests == self.counts["accepted"] == len(self.waiting) + len(self.ended)
        assert len(self.ended) == self.counts["events"] + self.counts["cancelled"]
        assert stats.cancelled == self.counts["cancelled"]
        assert stats.transmitted == sum(len(tracked.sent) for tracked in self.all()) + self.notifications
        queued = held(self.requester)["notifications"]
        assert stats.suspended == self.counts["circuits"]
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
        assert self.requester.next_deadline() is None
        tables = held(self.requester)
        assert self.known or tables["notifications"] <= 3
        assert not any(count for table, count in tables.items() if table != "notifications" or self.known)
        assert all(peer.in_flight == 0 for peer in self.requester.stats.peers)
        assert not self.open_sockets
        super().teardown()


class RequesterTests(SynchronousTestCase):
    """The machine, as a test that both runners find."""

    def test_any_history(self) -> None:
        """Whatever happens in whatever order, each request has one outcome and nothing leaks."""
        run_state_machine_as_test(RequesterMachine, settings=MACHINE)
