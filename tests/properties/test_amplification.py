"""A server under any history of requests, repeats, proofs and full tables: no prefix is sent more than it may be.

The model beside it knows nothing of debts or credits. It adds up what came from each prefix and what was sent there,
leaves out what was sent to hosts that have proven themselves, and holds that against the one sentence that is promised.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.trial.unittest import SynchronousTestCase

from tests.core.test_amplification import TOKENS
from tests.properties import MACHINE
from twistedudp._msgpack import decode_untrusted, encode_notification, encode_request
from twistedudp.core import ReplyBudget, Responder, ResponderSettings
from twistedudp.core._amplification import ALLOWANCE, FACTOR, PROOF_HEAD
from twistedudp.messages import Response

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.core import IncomingRequest

NEIGHBOURS = {"2001:db8::1": "2001:db8:0:0", "2001:db8::2": "2001:db8:0:0", "2001:db8:0:1::1": "2001:db8:0:1"}
HOSTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3", *NEIGHBOURS)
DEBT_AGE, PROVEN_AGE, CACHE_AGE = 100.0, 60.0, 30.0

hosts = st.sampled_from(HOSTS)
ports = st.sampled_from((1, 2))
sizes = st.sampled_from((0, 1, 10, 20, 30, 60, 1000))


def prefix_of(host: str) -> str:
    """Return what the model takes for the prefix of a host."""
    return NEIGHBOURS.get(host, host)


class AmplificationMachine(RuleBasedStateMachine):
    """A responder with tables that are soon full."""

    @initialize(debtors=st.integers(1, 4), proven=st.integers(1, 3), running=st.sampled_from((2, 100)))
    def make(self, debtors: int, proven: int, running: int) -> None:
        """Make it."""
        self.now = self.born = 1000.0
        self.budget = ReplyBudget(
            TOKENS, max_debtors=debtors, max_proven=proven, debt_age=DEBT_AGE, proven_age=PROVEN_AGE
        )
        settings = ResponderSettings(
            idempotent=frozenset({"look"}),
            max_running=running,
            cache_entries=20,
            cache_size=20_000,
            cache_age=CACHE_AGE,
        )
        self.responder = Responder(settings, self.budget)
        self.debtors, self.proven = debtors, proven
        self.came: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.proved_at: dict[str, float] = {}
        self.known: list[tuple[bytes, Address]] = []
        self.running: list[IncomingRequest] = []
        self.runs: Counter[tuple[bytes, Address]] = Counter()
        self.msgid = 0

    def receive(self, payload: bytes, peer: Address) -> None:
        """Let a datagram come in."""
        self.came[prefix_of(peer[0])] += len(payload)
        self.responder.datagram_received(payload, peer, now=self.now)
        for incoming in self.responder.events():
            if incoming.msgid is None:
                self.responder.respond(incoming, None)
            else:
                self.running.append(incoming)
                self.runs[incoming.payload, incoming.peer] += incoming.method != "look"
        self.count()

    def count(self) -> int:
        """Count what is sent, and return how many datagrams it was."""
        datagrams = self.responder.datagrams()
        for payload, peer in datagrams:
            assert isinstance(decode_untrusted(payload), Response)
            if self.now > self.proved_at.get(peer[0], -1000.0) + PROVEN_AGE:
                self.sent[prefix_of(peer[0])] += len(payload)
        return len(datagrams)

    @rule(host=hosts, port=ports, method=st.sampled_from(("m", "look")), size=sizes)
    def request(self, host: str, port: int, method: str, size: int) -> None:
        """Somebody asks, in his own or in another's name."""
        self.msgid += 1
        payload = encode_request(self.msgid, method, [bytes(size)] if size else [])
        self.known.append((payload, (host, port)))
        self.receive(payload, (host, port))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A request comes again."""
        self.receive(*data.draw(st.sampled_from(self.known)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=sizes, fails=st.booleans())
    def finish(self, data: st.DataObject, size: int, fails: bool) -> None:
        """A method ends."""
        incoming = data.draw(st.sampled_from(self.running))
        self.running.remove(incoming)
        if fails:
            self.responder.respond_error(incoming, "code", "text" * (size // 4))
        else:
            self.responder.respond(incoming, bytes(size))
        self.count()

    @rule(host=hosts, port=ports)
    def prove(self, host: str, port: int) -> None:
        """A host sends its token back."""
        self.proved_at[host] = self.now
        self.receive(PROOF_HEAD + TOKENS.token_of(host), (host, port))

    @rule(host=hosts, other=hosts)
    def forge(self, host: str, other: str) -> None:
        """Somebody sends a token that is another's, or none."""
        self.budget.now = self.now
        before = self.budget.is_proven(host)
        self.receive(PROOF_HEAD + (TOKENS.token_of(other) if other != host else bytes(16)), (host, 1))
        assert self.budget.is_proven(host) == before

    @rule(host=hosts, payload=st.sampled_from((b"", b"garbage", encode_notification("m", []))))
    def other(self, host: str, payload: bytes) -> None:
        """Something comes that is never answered."""
        self.receive(payload, (host, 1))

    @rule(seconds=st.sampled_from((0.1, 5.0, 31.0, 61.0, 101.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(host=hosts, size=st.sampled_from((0, 10)))
    def insist(self, host: str, size: int) -> None:
        """Who repeats a request five times is told something, however full the tables are."""
        self.msgid += 1
        payload = encode_request(2**31 + self.msgid, "m", [bytes(size)])
        told = 0
        for _ in range(5):
            self.came[prefix_of(host)] += len(payload)
            self.responder.datagram_received(payload, (host, 3), now=self.now)
            for incoming in self.responder.events():
                self.responder.respond(incoming, bytes(500))
            told += self.count()
        assert told

    @rule()
    def stop(self) -> None:
        """The server stops, and is started again."""
        self.responder.close()
        self.running.clear()
        self.count()

    @invariant()
    def within_the_sum(self) -> None:
        """Out is at most three times in, and 128 bytes in each time that a debt lasts."""
        if not hasattr(self, "came"):
            return
        forgotten = int((self.now - self.born) / DEBT_AGE)
        for prefix, sent in self.sent.items():
            assert sent <= FACTOR * self.came[prefix] + ALLOWANCE * (1 + forgotten), (prefix, sent, self.came[prefix])

    @invariant()
    def bounded(self) -> None:
        """No table is larger than it may be, and nothing runs twice that must not."""
        if not hasattr(self, "came"):
            return
        budget = self.budget
        assert len(budget.debts) <= self.debtors
        assert len(budget._credits) <= self.debtors
        assert len(budget._proven) <= self.proven
        assert all(0 < owed <= ALLOWANCE for owed, _ in budget.debts.values())
        times = [since for _, since in budget.debts.values()]
        assert times == sorted(times)
        cache = self.responder._cache
        assert cache.size == sum(len(key[1]) + len(entry.response or b"") for key, entry in cache._entries.items())
        if self.now - self.born <= CACHE_AGE:
            assert not [key for key, count in self.runs.items() if count > 1]


class AmplificationTests(SynchronousTestCase):
    """The machine."""

    def test_any_history(self) -> None:
        """Whatever happens, in whatever order."""
        run_machine(AmplificationMachine, settings=MACHINE)
