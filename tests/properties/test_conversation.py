"""A requester and a responder over a link that loses, repeats and reorders: the rules of both ends fit together."""

from __future__ import annotations

import random
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

from tests.core.driver import FIRST, held
from tests.properties import MACHINE
from twistedudp.core import (
    KEY_SIZE,
    Kind,
    Requester,
    RequesterSettings,
    Responder,
    ResponderSettings,
    message_ids,
)
from twistedudp.errors import CircuitOpen, ErrorReplyReceived, RequestTimedOut
from twistedudp.messages import Request

if TYPE_CHECKING:
    from twistedudp.core import IncomingRequest, PendingRequest

CLIENT = ("127.0.0.1", 40000)

numbers = st.integers(0, 2**16)
ENDS = st.sampled_from(["result", "result", "result", "error", "large", "odd", "twice"])
FATES = st.sampled_from(["deliver", "deliver", "deliver", "repeat", "lose", "damage"])


class ConversationMachine(RuleBasedStateMachine):
    """Two ends, and all datagrams between them in two bags."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.running: list[IncomingRequest] = []
        self.made: dict[int, PendingRequest] = {}
        self.outcomes: list[PendingRequest] = []
        self.cancelled: list[PendingRequest] = []
        self.ran: set[int] = set()

    @initialize(seed=numbers, max_running=st.sampled_from([1, 3, 1000]))
    def make(self, seed: int, max_running: int) -> None:
        """Make both ends."""
        source = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self.requester = Requester(
            msgids=message_ids(source.randbytes(KEY_SIZE)), random=source.random, settings=RequesterSettings()
        )
        self.requester.servers_resolved([FIRST], now=self.now)
        self.responder = Responder(ResponderSettings(max_running=max_running, max_response_size=1000, cache_age=1e9))
        self.let_in: set[int] = set()

    def pump(self) -> None:
        """Take the outputs of both ends, and check what has become of the requests."""
        self.to_server += [transmit.payload for transmit in self.requester.transmits()]
        responses = self.responder.transmits()
        assert all(transmit.peer == CLIENT for transmit in responses)
        self.to_client += [transmit.payload for transmit in responses]
        for incoming in self.responder.events():
            self.running.append(incoming)
            self.responder.slots.hold(incoming, self.now)
            if isinstance(incoming.message, Request):
                assert incoming.message.msgid not in self.let_in, "run twice"
                self.let_in.add(incoming.message.msgid)
        for request in self.requester.events():
            assert request.done
            assert request not in self.outcomes, "two outcomes"
            assert request not in self.cancelled, "an outcome after the cancel"
            self.outcomes.append(request)
            self.check(request)

    def check(self, request: PendingRequest) -> None:
        """Check that an outcome is what the server made of this very request."""
        assert isinstance(request.context, int)
        if request.error is None:
            assert request.result == {"answer to": request.context}
            assert request.context in self.ran, "a result of nothing that ran"
        elif isinstance(request.error, ErrorReplyReceived):
            assert request.error.code in {
                "busy",
                "failed",
                "result_too_large",
                "result_not_encodable",
                "server_stopping",
            }
            if request.error.code == "failed":
                assert request.error.data == {"of": request.context}
        elif isinstance(request.error, CircuitOpen):
            assert request.attempts == 0, "a call that was sent failed by the breaker"
        else:
            assert isinstance(request.error, RequestTimedOut)
            assert request.deadline <= self.now

    # The client

    @rule(
        timeout=st.sampled_from([0.5, 2.0, 10.0, 60.0]),
        idempotent=st.booleans(),
        times=st.integers(1, 4),
        kind=st.sampled_from([Kind.CALL, Kind.ECHO]),
    )
    def call(self, timeout: float, idempotent: bool, kind: Kind, times: int) -> None:
        """Make one request or a few, whose parameter is their number."""
        for _ in range(times):
            number = len(self.made)
            try:
                request = self.requester.send_request(
                    "m", [number], timeout=timeout, now=self.now, idempotent=idempotent, kind=kind
                )
            except CircuitOpen:
                assert self.requester.stats.timed_out >= 5
                return
            request.context = number
            self.made[number] = request
            self.pump()

    @precondition(lambda self: len(self.requester) > 2)
    @rule()
    def notify(self) -> None:
        """Send a notification, which must never be answered."""
        self.requester.send_notification("n", [-1])
        self.pump()

    @precondition(lambda self: len(self.requester) > 1)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        """Cancel one."""
        waiting = [request for request in self.made.values() if not request.done]
        request = waiting[number % len(waiting)]
        self.requester.cancel(request, now=self.now)
        self.cancelled.append(request)
        self.pump()

    # The server

    @precondition(lambda self: self.running)
    @rule(number=numbers, ends=st.lists(ENDS, min_size=1, max_size=4))
    def finish(self, number: int, ends: list[str]) -> None:
        """Let methods end, in any of the ways in which methods do."""
        for end in ends[: len(self.running)]:
            incoming = self.running.pop(number % len(self.running))
            self.responder.slots.release(incoming, self.now)
            [param] = incoming.message.params
            assert isinstance(param, int)
            if end == "error":
                self.responder.respond_error(incoming, "failed", "as asked", {"of": param})
            else:
                results = {"large": bytes(2000), "odd": object()}
                self.ran.add(param)
                self.responder.respond(incoming, results.get(end, {"answer to": param}))
            if end == "twice":
                self.responder.respond(incoming, "again")
            self.pump()

    @precondition(lambda self: len(self.running) > 8)
    @rule()
    def stop(self) -> None:
        """Stop the server's methods."""
        self.responder.close()
        for incoming in self.running:
            self.responder.slots.release(incoming, self.now)
        self.running.clear()
        self.pump()

    # The link

    @precondition(lambda self: self.to_server)
    @rule(source=st.randoms(use_true_random=False), fates=st.lists(FATES, min_size=1, max_size=5))
    def carry_request(self, source: random.Random, fates: list[str]) -> None:
        """Carry some of the datagrams that are under way to the server, in any order."""
        source.shuffle(self.to_server)
        for fate, payload in zip(fates, self.to_server[:], strict=False):
            if fate != "repeat":
                self.to_server.remove(payload)
            if fate != "lose":
                self.responder.datagram_received(payload[:-1] if fate == "damage" else payload, CLIENT, now=self.now)
            self.pump()

    @precondition(lambda self: self.to_client)
    @rule(source=st.randoms(use_true_random=False), fates=st.lists(FATES, min_size=1, max_size=5))
    def carry_response(self, source: random.Random, fates: list[str]) -> None:
        """Carry some of the datagrams that are under way to the client, in any order."""
        source.shuffle(self.to_client)
        for fate, payload in zip(fates, self.to_client[:], strict=False):
            if fate != "repeat":
                self.to_client.remove(payload)
            if fate != "lose":
                self.requester.datagram_received(payload[:-1] if fate == "damage" else payload, FIRST, now=self.now)
            self.pump()

    @precondition(lambda self: len(self.to_client) > 1)
    @rule(number=numbers)
    def misdeliver(self, number: int) -> None:
        """Deliver a response to the server, which answers nothing."""
        before = len(self.responder)
        self.responder.datagram_received(self.to_client[number % len(self.to_client)], CLIENT, now=self.now)
        assert (self.responder.transmits(), self.responder.events()) == ([], [])
        assert len(self.responder) == before

    @precondition(lambda self: len(self.requester) > 0)
    @rule(
        source=st.randoms(use_true_random=False),
        there=st.lists(FATES, min_size=3, max_size=8),
        ends=st.lists(ENDS, min_size=2, max_size=8),
        back=st.lists(FATES, min_size=3, max_size=8),
    )
    def exchange(self, source: random.Random, there: list[str], ends: list[str], back: list[str]) -> None:
        """Let a batch go the whole way: to the server, through the methods, and back."""
        self.carry_request(source, there)
        self.finish(0, ends)
        self.carry_response(source, back)

    # Time

    @precondition(lambda self: len(self.requester) > 0)
    @rule(seconds=st.sampled_from([0.01, 0.05, 0.2, 1.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, with the timer as its owner keeps it."""
        until = self.now + seconds
        while (due := self.requester.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.requester.deadline_reached(now=self.now)
            self.pump()
        self.now = until

    # What always holds

    @invariant()
    def accounts(self) -> None:
        """Each request waits, or has one outcome, or was cancelled; the server runs what it has not answered."""
        assert len(self.made) == len(self.requester) + len(self.outcomes) + len(self.cancelled)
        assert len(self.responder) == len(self.running)
        stats = self.responder.stats
        answered = stats.responses + sum(stats.errors.values())
        refused = stats.errors["busy"]
        assert answered - refused <= stats.requests
        running = sum(isinstance(incoming.message, Request) for incoming in self.running)
        assert stats.requests == answered - refused + running

    def teardown(self) -> None:
        """Let the client's deadlines come: then nothing waits any more."""
        if not hasattr(self, "requester"):
            return
        self.wait(100.0)
        assert not any(held(self.requester).values())
        assert len(self.outcomes) + len(self.cancelled) == len(self.made)
        self.stop()
        assert len(self.responder) == 0
        super().teardown()


class ConversationTests(SynchronousTestCase):
    """The machine, as a test that both runners find."""

    def test_any_history(self) -> None:
        """Whatever the link does, each request has one outcome, which is that of its own method or a timeout."""
        run_state_machine_as_test(ConversationMachine, settings=MACHINE)
