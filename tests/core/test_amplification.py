"""What a server may send to addresses that may be forged: the sum rule, debts, credits, proofs, and bounded tables."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROFILE
from twistedudp._msgpack import decode_untrusted, encode_notification, encode_request, encode_response
from twistedudp.core import ReplyBudget, Responder, ResponderSettings
from twistedudp.core._amplification import (
    ALLOWANCE,
    ERROR_SIZE,
    FACTOR,
    MAX_DEBTORS,
    MAX_PROVEN,
    PROOF_HEAD,
    TOKEN_SIZE,
    prefix_of,
    unproven_error,
)
from twistedudp.core._outbox import MAX_WAITING, MAX_WAITING_HOSTS
from twistedudp.core._response_cache import STRANGERS_SHARE
from twistedudp.messages import Response

HOST: Final = "192.0.2.1"
OTHER: Final = "192.0.2.2"
PEER: Final = (HOST, 4000)
SOURCES: Final = 1_000_000 if PROFILE == "full" else 200_000
"""Forged sources, three times as many as the tables hold; more make no difference but to the time that it takes."""
SHORT: Final = encode_request(2**32 - 1, "m", [])
"""A request of 10 bytes, as short as one of ours can be."""


class NamedTokens:
    """Tokens that anybody could guess: the host's own name."""

    def token_of(self, host: str) -> bytes:
        """Return the token of a host."""
        return host.encode().ljust(TOKEN_SIZE, b".")[:TOKEN_SIZE]

    def is_valid_untrusted(self, token: bytes, host: str) -> bool:
        """Tell whether this is it."""
        return token == self.token_of(host)


TOKENS: Final = NamedTokens()


class ErrorTests(SynchronousTestCase):
    """The error ``unproven_address`` on the wire."""

    def test_bytes(self) -> None:
        """It is a response like any other, as large as is said, and never more than 128 bytes."""
        token = bytes(range(TOKEN_SIZE))
        for msgid in (0, 127, 128, 65536, 2**32 - 1):
            payload = unproven_error(msgid, token)
            self.assertEqual(len(payload), ERROR_SIZE)
            response = decode_untrusted(payload)
            assert isinstance(response, Response)
            error = {
                "code": "unproven_address",
                "message": "send the notification rpc.prove [data], then this again",
                "data": token,
            }
            self.assertEqual(response, Response(msgid, error, None))
        self.assertEqual(payload, encode_response(2**32 - 1, error, None))
        self.assertLessEqual(ERROR_SIZE, ALLOWANCE)

    def test_proof(self) -> None:
        """A proof begins as every encoder writes it."""
        self.assertEqual(encode_notification("rpc.prove", [bytes(16)]), PROOF_HEAD + bytes(16))


class PrefixTests(SynchronousTestCase):
    """Which addresses share a budget."""

    def test_ipv6(self) -> None:
        """Those of one /64 do, however their zeros are written; Python's own arithmetic is asked."""
        groups = ("0", "0", "0", "1", "db8", "ffff")
        addresses = {
            ipaddress.IPv6Address(":".join(groups[number // 6**place % 6] for place in range(8)))
            for number in range(0, 6**8, 997)
        }
        hosts = {str(address) for address in addresses if address.ipv4_mapped is None}
        self.assertGreater(len(hosts), 900)
        for host in (*hosts, "::", "::1", "1::", "2001:db8:0:1::", "2001:db8::1:0:0:1"):
            expected = int(ipaddress.IPv6Address(host)) >> 64
            found = int(ipaddress.IPv6Address(f"{prefix_of(host)}::")) >> 64
            self.assertEqual(found, expected, host)
            self.assertEqual(prefix_of(f"{host}%eth0"), prefix_of(host))

    def test_ipv4(self) -> None:
        """An IPv4 address is one by itself, through a dual-stack socket too."""
        self.assertEqual((prefix_of(HOST), prefix_of(f"::ffff:{HOST}")), (HOST, HOST))


class BudgetTests(SynchronousTestCase):
    """What is allowed, without a responder."""

    def setUp(self) -> None:
        """Make one at a time that is not 0."""
        self.make()

    def make(self, **bounds: float) -> None:
        """Make a budget."""
        self.budget = ReplyBudget(TOKENS, **bounds)  # type: ignore[arg-type]  # whole numbers where they are wanted
        self.budget.now = 1000.0

    def refuse(self, count: int, host: str = HOST, received: int = 10) -> list[bool]:
        """Ask so often whether the error may be sent."""
        return [self.budget.may_refuse(host, received) for _ in range(count)]

    def test_one_error(self) -> None:
        """One error is allowed whatever the request; then its repeats must have paid for the next."""
        for received in range(1, 60):
            self.make()
            sent = came = 0
            for allowed in self.refuse(200, received=received):
                came += received
                sent += ERROR_SIZE * allowed
                self.assertLessEqual(sent, FACTOR * came + ALLOWANCE)
                if not allowed:  # then there was no room for it: no byte is lost
                    self.assertGreater(sent + ERROR_SIZE, FACTOR * came + ALLOWANCE)
            self.assertGreaterEqual(sent, ERROR_SIZE)

    def test_free(self) -> None:
        """A request of a third of the error's size or more needs no memory."""
        self.assertEqual(self.refuse(100, received=-(-ERROR_SIZE // FACTOR)), [True] * 100)
        self.assertEqual((len(self.budget.debts), len(self.budget._credits)), (0, 0))

    def test_paid(self) -> None:
        """What exchanges leave unused pays the debt, and nothing more."""
        self.assertEqual(self.refuse(2), [True, False])
        owed = self.budget.debts[HOST][0]
        self.assertEqual(owed, ERROR_SIZE - 2 * 30)
        self.budget.pay(OTHER, 1000)
        self.budget.pay(HOST, owed - 1)
        self.assertEqual(self.budget.debts[HOST][0], 1)
        self.budget.pay(HOST, 1000)
        self.assertEqual(len(self.budget.debts), 0)
        self.assertEqual(self.refuse(2), [True, False])

    def test_neighbours(self) -> None:
        """All addresses of a /64 share what one of them may owe."""
        self.assertEqual(self.refuse(1, "2001:db8::1") + self.refuse(1, "2001:db8::2"), [True, False])
        self.assertEqual(self.refuse(1, "2001:db8:0:1::1"), [True])

    def test_proven_neighbour(self) -> None:
        """What a proven host leaves unused does not pay for its neighbours: it may be sent anything itself."""
        self.assertTrue(self.budget.prove_untrusted(TOKENS.token_of("2001:db8::1"), "2001:db8::1"))
        self.refuse(1, "2001:db8::2")
        before = dict(self.budget.debts)
        self.budget.pay("2001:db8::1", 1000)
        self.assertEqual(self.budget.debts, before)

    def test_forgotten(self) -> None:
        """A debt is forgotten an hour after it last grew."""
        self.assertEqual(self.refuse(1, received=30), [True])  # 90 bytes for 119
        self.budget.now += 3599.0
        self.assertEqual(self.refuse(1, received=30), [True])
        self.budget.now += 3599.0
        self.assertEqual(self.refuse(4, received=8), [False, False, True, False])
        self.budget.now += 3601.0
        self.assertEqual(self.refuse(1, received=8), [True])

    def test_full(self) -> None:
        """Where the table is full nobody is forgotten: a few tries need no debt, and an old debt makes room."""
        self.make(max_debtors=3)
        for host in ("192.0.2.11", "192.0.2.12", "192.0.2.13"):
            self.assertEqual(self.refuse(2, host), [True, False])
            self.budget.now += 100.0
        self.assertEqual(self.refuse(8), [False, False, False, True] * 2)  # 4 * 30 bytes are enough for 119
        self.assertEqual(self.refuse(2, "192.0.2.11"), [False, True])
        self.budget.now += 3401.0  # the second one's debt is older than an hour now, the first one's is not
        self.assertEqual(self.refuse(1), [True])
        self.assertEqual(list(self.budget.debts), ["192.0.2.13", "192.0.2.11", HOST])

    def test_credits_are_bounded(self) -> None:
        """Credits make room for others: who has lost one begins again."""
        self.make(max_debtors=2)
        self.refuse(1, "192.0.2.101")
        self.refuse(1, "192.0.2.102")
        self.refuse(1, "192.0.2.11")
        self.refuse(1, "192.0.2.12")
        self.assertEqual(self.refuse(3), [False] * 3)
        self.refuse(1, "192.0.2.21")
        self.refuse(1, "192.0.2.22")
        self.assertEqual(self.refuse(4), [False] * 3 + [True])

    def test_proven(self) -> None:
        """A host is proven by its own token alone, for an hour."""
        budget = self.budget
        self.assertFalse(budget.is_proven(HOST))
        token = TOKENS.token_of(HOST)
        for wrong in (TOKENS.token_of(OTHER), token[:-1], token + b".", b"", None, 16, token.decode(), [token]):
            self.assertFalse(budget.prove_untrusted(wrong, HOST))
        self.assertFalse(budget.is_proven(HOST))
        self.assertTrue(budget.prove_untrusted(token, HOST))
        self.assertTrue(budget.is_proven(HOST))
        self.assertFalse(budget.is_proven(OTHER))
        budget.now += 3600.0
        self.assertTrue(budget.is_proven(HOST))
        budget.now += 0.001
        self.assertFalse(budget.is_proven(HOST))
        self.assertEqual(len(budget._proven), 0)

    def test_proven_again(self) -> None:
        """A host that proves itself again is proven for another hour, and takes one place."""
        for _ in range(3):
            self.budget.prove_untrusted(TOKENS.token_of(HOST), HOST)
            self.assertEqual(len(self.budget._proven), 1)
            self.budget.now += 3000.0
            self.assertTrue(self.budget.is_proven(HOST))

    def test_least_recently_used(self) -> None:
        """Where the table of proven hosts is full, the one that was needed least recently leaves."""
        self.make(max_proven=2)
        for host in ("a", "b", "a", "c"):
            self.budget.prove_untrusted(TOKENS.token_of(host), host)
        self.assertEqual([self.budget.is_proven(host) for host in "abc"], [True, False, True])
        self.assertTrue(self.budget.is_proven("a"))
        self.budget.prove_untrusted(TOKENS.token_of("d"), "d")
        self.assertEqual([self.budget.is_proven(host) for host in "acd"], [True, False, True])

    def test_loopback(self) -> None:
        """Loopback needs no proof, unless it is to be treated as any other."""
        hosts = ("127.0.0.1", "127.9.9.9", "::1")
        self.assertTrue(all(map(self.budget.is_proven, hosts)))
        self.assertFalse(any(map(self.budget.is_proven, ("128.0.0.1", "::2", "12.7.0.1"))))
        self.budget = ReplyBudget(TOKENS, trusts_loopback=False)
        self.assertFalse(any(map(self.budget.is_proven, hosts)))

    def test_forged_sources(self) -> None:
        """Any number of forged sources fill the tables and no more, and draw no more than the tables allow in all."""
        budget = self.budget
        sent = 0
        for number in range(SOURCES):
            host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            sent += ERROR_SIZE * budget.may_refuse(host, 10)
            if number % 10 == 0:
                budget.prove_untrusted(b"0123456789abcdef", host)
        self.assertEqual((len(budget.debts), len(budget._credits)), (MAX_DEBTORS, MAX_DEBTORS))
        self.assertEqual((len(budget._proven), sent), (0, MAX_DEBTORS * ERROR_SIZE))

    def test_many_proofs(self) -> None:
        """However many hosts have proven themselves, the table keeps the last ones."""
        for number in range(MAX_PROVEN + 1000):
            host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            self.budget.prove_untrusted(TOKENS.token_of(host), host)
        self.assertEqual(len(self.budget._proven), MAX_PROVEN)
        self.assertFalse(self.budget.is_proven("10.0.3.231"))
        self.assertTrue(self.budget.is_proven("10.0.3.232"))


class ResponderCase(SynchronousTestCase):
    """A responder with a budget."""

    now = 1000.0

    def setUp(self) -> None:
        """Make one with the default settings."""
        self.make()

    def make(self, **settings: Any) -> None:
        """Make one; the method ``look`` is idempotent."""
        self.budget = ReplyBudget(TOKENS)
        chosen = ResponderSettings(idempotent=frozenset({"look"}), **settings)
        self.responder = Responder(chosen, self.budget)

    def take(self, payload: bytes = SHORT, result: object = bytes(200), peer: tuple[str, int] = PEER) -> int:
        """Let a datagram come in, and answer it if it is to be run; tell how often it was."""
        self.responder.datagram_received(payload, peer, now=self.now)
        events = self.responder.events()
        for incoming in events:
            self.responder.respond(incoming, result)
        return len(events)

    def sent(self) -> list[object]:
        """Take what is to be sent: results, and the codes of errors."""
        found: list[object] = []
        for payload, _ in self.responder.datagrams():
            message = decode_untrusted(payload)
            assert isinstance(message, Response)
            error = message.error
            found.append(message.result if error is None else error["code"] if isinstance(error, dict) else error)
        return found

    def prove(self, host: str = HOST, draws: tuple[object, ...] = ()) -> None:
        """Let a host's proof come in, and check what leaves then."""
        self.take(PROOF_HEAD + TOKENS.token_of(host), peer=(host, 1))
        self.assertEqual(self.sent(), list(draws))


class ExchangeTests(ResponderCase):
    """What a responder makes of it."""

    def test_kept(self) -> None:
        """A response that is too large is kept: after the proof the same request draws it, and does not run again."""
        self.assertEqual(self.take(), 1)
        self.assertEqual(self.sent(), ["unproven_address"])
        self.prove()
        self.assertEqual(self.take(), 0)
        self.assertEqual(self.sent(), [bytes(200)])
        stats = self.responder.stats
        self.assertEqual((stats.requests, stats.responses, stats.repeated, stats.proofs), (1, 1, 1, 1))
        self.assertEqual((stats.errors, stats.rejected, stats.withheld), ({"unproven_address": 1}, {}, 0))

    def test_later_ones(self) -> None:
        """Once it is proven a host is sent everything, at every port."""
        self.prove()
        for msgid in range(5):
            self.assertEqual(self.take(encode_request(msgid, "m", []), peer=(HOST, 5000 + msgid)), 1)
        self.assertEqual(self.sent(), [bytes(200)] * 5)

    def test_exact(self) -> None:
        """Three times the request's bytes are sent, one byte more is not."""
        for method in ("m", "look"):
            request = encode_request(7, method, [bytes(40)])
            overhead = len(encode_response(7, None, bytes(100))) - 100
            fits = bytes(FACTOR * len(request) - overhead)
            self.take(request, fits)
            self.assertEqual(self.sent(), [fits])
            self.take(encode_request(8, method, [bytes(40)]), fits + b"\0")
            self.assertEqual(self.sent(), ["unproven_address"])

    def test_silence(self) -> None:
        """Where not even the error fits nothing is sent, and that is counted; repeats of the request pay for it."""
        codes = [self.take() and self.sent()] + [self.take() or self.sent() for _ in range(5)]
        self.assertEqual(codes, [["unproven_address"], [], [], ["unproven_address"], [], []])
        stats = self.responder.stats
        self.assertEqual((stats.withheld, stats.requests, stats.errors["unproven_address"]), (4, 1, 2))

    def test_released(self) -> None:
        """What was withheld of a host leaves with its proof, each to who asked for it, and no other's."""
        requests = [encode_request(msgid, "m", []) for msgid in range(4)]
        for number, request in enumerate(requests):
            self.take(request, number * bytes(100) or bytes(200), (HOST, 4000 + number))
        self.take(peer=(OTHER, 1))
        self.take(encode_request(9, "m", []), peer=(OTHER, 1))
        self.assertEqual(self.sent(), ["unproven_address", "unproven_address"])
        self.take(PROOF_HEAD + TOKENS.token_of(OTHER))
        self.assertEqual(self.sent(), [])
        self.take(PROOF_HEAD + TOKENS.token_of(HOST))
        sent = self.responder.datagrams()
        self.assertEqual([peer for _, peer in sent], [(HOST, 4001), (HOST, 4002), (HOST, 4003)])
        self.assertEqual([len(payload) for payload, _ in sent], [106, 206, 307])
        self.prove()
        stats = self.responder.stats
        self.assertEqual((stats.withheld, stats.released, stats.repeated, stats.proofs), (4, 3, 0, 2))

    def test_released_once(self) -> None:
        """What was withheld and then told to prove itself is repeated by its client; what is too old is gone."""
        one, other = (encode_request(2**31 + number, "m", []) for number in (1, 2))
        for wait, draws in ((0.0, (bytes(200),)), (31.0, ())):
            self.setUp()
            for request in (SHORT, one, other, one):
                self.take(request)
            self.assertEqual(self.sent(), ["unproven_address", "unproven_address"])
            self.now += wait
            self.prove(draws=draws)

    def test_waiting_is_bounded(self) -> None:
        """Of one host so many wait, and of so many hosts; the oldest host makes room."""
        for msgid in range(100):
            self.take(encode_request(msgid, "look", []))
        for number in range(MAX_WAITING_HOSTS):
            peer = f"10.0.{number >> 8}.{number & 255}", 1
            for msgid in (1, 2):
                self.take(encode_request(msgid, "look", []), peer=peer)
            if number == MAX_WAITING_HOSTS - 2:
                self.assertEqual(len(self.responder._outbox._waiting[HOST]), MAX_WAITING)
        self.assertEqual(len(self.responder._outbox._waiting), MAX_WAITING_HOSTS)
        self.assertNotIn(HOST, self.responder._outbox._waiting)

    def test_errors_count_too(self) -> None:
        """An error that is longer than three requests is kept as well."""
        self.responder.datagram_received(SHORT, PEER, now=self.now)
        [incoming] = self.responder.events()
        self.responder.respond_error(incoming, "unknown_method", "there is no such method")
        self.assertEqual(self.sent(), ["unproven_address"])
        self.prove()
        self.take()
        self.assertEqual(self.sent(), ["unknown_method"])

    def test_encoded(self) -> None:
        """So is a response that its method has encoded itself."""
        self.responder.datagram_received(SHORT, PEER, now=self.now)
        [incoming] = self.responder.events()
        self.responder.respond_encoded(incoming, encode_response(2**32 - 1, None, bytes(200)))
        self.assertEqual(self.sent(), ["unproven_address"])
        self.prove()
        self.take()
        self.assertEqual(self.sent(), [bytes(200)])

    def test_busy(self) -> None:
        """``busy`` counts too, but is not kept: after the proof the request is let in, if there is room then."""
        self.make(method_slots={"m": 1})
        self.responder.datagram_received(encode_request(1, "m", []), PEER, now=self.now)
        [first] = self.responder.events()
        self.responder.slots.hold(first, self.now)
        for request in (SHORT, encode_request(2, "m", [])):
            self.responder.datagram_received(request, PEER, now=self.now)
        self.assertEqual(self.sent(), ["unproven_address"])
        self.assertEqual(self.responder.stats.withheld, 1)
        self.prove()
        self.assertEqual(self.take(), 0)
        self.assertEqual(self.sent(), ["busy"])
        self.responder.respond(first, None)
        self.responder.slots.release(first, self.now)
        self.assertEqual((self.take(), self.take(encode_request(2, "m", []))), (1, 1))

    def test_idempotent(self) -> None:
        """That of an idempotent method is kept too, once, and only while half of the strangers' share is free."""
        request = encode_request(7, "look", [])
        self.assertEqual([self.take(request), self.take(request)], [1, 0])
        self.assertEqual(self.sent(), ["unproven_address"])
        self.prove(draws=(bytes(200),))
        self.assertEqual(self.take(request), 0)
        self.assertEqual(self.sent(), [bytes(200)])
        cache = self.responder._cache
        self.assertEqual((len(cache), cache.size), (1, len(request) + len(encode_response(7, None, bytes(200)))))
        self.make(cache_entries=4 * STRANGERS_SHARE)
        for msgid in (1, 2):
            self.take(encode_request(msgid, "look", []), peer=(OTHER, 1))
        self.assertEqual([self.take(request), self.take(request)], [1, 1])
        self.make(cache_size=450 * STRANGERS_SHARE)
        self.assertEqual([self.take(request), self.take(request)], [1, 0])
        self.assertEqual([self.take(encode_request(8, "look", [])), self.take(encode_request(8, "look", []))], [1, 1])

    def test_runs_twice_at_once(self) -> None:
        """An idempotent request whose copies run at once is kept once."""
        request = encode_request(7, "look", [])
        for _ in range(2):
            self.responder.datagram_received(request, PEER, now=self.now)
        one, other = self.responder.events()
        self.responder.respond(one, bytes(200))
        self.responder.respond(other, bytes(200))
        cache = self.responder._cache
        self.assertEqual((len(cache), cache.size), (1, len(request) + len(encode_response(7, None, bytes(200)))))

    def test_small_ones_are_not_kept(self) -> None:
        """What was sent of an idempotent method is not kept."""
        self.assertEqual([self.take(encode_request(7, "look", []), 1) for _ in range(2)], [1, 1])
        self.assertEqual(len(self.responder._cache), 0)

    def test_small_ones_need_no_table(self) -> None:
        """Small responses are sent whatever their host owes, and pay for it."""
        self.take()
        owed = self.budget.debts[HOST][0]
        self.take(encode_request(1, "m", []), 1)
        self.assertEqual(self.sent(), ["unproven_address", 1])
        self.assertLess(self.budget.debts[HOST][0], owed)

    def test_repeats_while_running_pay(self) -> None:
        """A request that repeats while it runs pays a debt."""
        self.take()
        self.responder.datagram_received(encode_request(1, "m", []), PEER, now=self.now)
        owed = self.budget.debts[HOST][0]
        self.responder.datagram_received(encode_request(1, "m", []), PEER, now=self.now)
        self.assertEqual(self.budget.debts[HOST][0], owed - FACTOR * len(encode_request(1, "m", [])))

    def test_proofs(self) -> None:
        """A proof is known in any encoding, is never a method's, and is counted when it is none."""
        for payload in (
            PROOF_HEAD + TOKENS.token_of(HOST),
            b"\xdc\x00\x03\x02\xd9\x09rpc.prove\xdd\x00\x00\x00\x01\xc5\x00\x10" + TOKENS.token_of(HOST),
        ):
            self.make()
            self.assertEqual(self.take(payload), 0)
            self.assertTrue(self.budget.is_proven(HOST))
        for payload in (
            PROOF_HEAD + TOKENS.token_of(OTHER),
            PROOF_HEAD + TOKENS.token_of(HOST) + b"\0",
            PROOF_HEAD,
            encode_notification("rpc.prove", []),
            encode_notification("rpc.prove", [1]),
            encode_notification("rpc.prove", [TOKENS.token_of(HOST), 1]),
        ):
            self.make()
            self.assertEqual(self.take(payload), 0)
            self.assertFalse(self.budget.is_proven(HOST))
            self.assertEqual((self.sent(), self.responder.stats.rejected), ([], {"bad_token": 1}))

    def test_proof_not_wanted(self) -> None:
        """Where addresses need no proof, one is counted and dropped."""
        self.responder.trust_addresses()
        self.prove()
        self.assertEqual(self.responder.stats.rejected, {"unneeded_proof": 1})
        self.take()
        self.assertEqual(self.sent(), [bytes(200)])

    def test_request_of_that_name(self) -> None:
        """A request ``rpc.prove`` is no proof: whoever wants an answer gets one like any other."""
        self.assertEqual(self.take(encode_request(1, "rpc.prove", [TOKENS.token_of(HOST)]), 1), 1)
        self.assertFalse(self.budget.is_proven(HOST))

    def test_stop(self) -> None:
        """When the server stops a proof would come too late: what runs is told so within the allowance."""
        for msgid in (1, 2, 3, 4):
            self.responder.datagram_received(encode_request(msgid, "m", []), PEER, now=self.now)
        self.responder.events()
        self.responder.close()
        sent = self.responder.datagrams()
        self.assertEqual({decode_untrusted(payload).error["code"] for payload, _ in sent}, {"server_stopping"})  # type: ignore[union-attr,index]
        self.assertLessEqual(sum(len(payload) for payload, _ in sent), 4 * FACTOR * 6 + ALLOWANCE)
        self.assertGreater(len(sent), 0)
        self.take()
        self.assertEqual(self.sent(), [])  # the debt is the same
