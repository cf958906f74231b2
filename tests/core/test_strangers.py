"""What forgers can take of the response cache: one part of it, and nothing of what others have."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.test_amplification import TOKENS
from twistedudp._msgpack import decode_untrusted, encode_notification, encode_request
from twistedudp.core import ReplyBudget, Responder, ResponderSettings
from twistedudp.core._response_cache import STRANGERS_SHARE, ResponseCache
from twistedudp.messages import CODE_BUSY, CODE_UNPROVEN_ADDRESS, Response

PROVEN = ("192.0.2.1", 4000)
SHARE = 5
ENTRIES = SHARE * STRANGERS_SHARE
AGE = 30.0
LARGE = 1000


def stranger(number: int) -> tuple[str, int]:
    """Return one of many addresses."""
    return f"198.51.100.{number}", 4000


class ShareTests(SynchronousTestCase):
    """A server to which everybody is a stranger until its address is proven."""

    def setUp(self) -> None:
        """Make it."""
        self.budget = ReplyBudget(TOKENS)
        settings = ResponderSettings(idempotent=frozenset({"idempotent"}), cache_entries=ENTRIES, cache_age=AGE)
        self.responder = Responder(settings, self.budget)
        self.now = 0.0

    def ask(self, peer: tuple[str, int], msgid: int = 1, method: str = "once", result: object = None) -> str:
        """Send a request, answer it if it is to be run, and return its error's code, "run" or nothing."""
        payload = encode_request(msgid, method, ["-" * 40])
        self.responder.datagram_received(payload, peer, now=self.now)
        events = self.responder.events()
        for incoming in events:
            self.responder.respond(incoming, result)
        answers = self.responder.datagrams()
        if not answers:
            return ""
        [(datagram, to)] = answers
        self.assertEqual(to, peer)
        response = decode_untrusted(datagram)
        assert isinstance(response, Response)
        if isinstance(response.error, dict):
            return str(response.error["code"])
        return "run" if events else "repeated"

    def prove(self, peer: tuple[str, int]) -> None:
        """Prove an address."""
        proof = encode_notification("rpc.prove", [TOKENS.token_of(peer[0])])
        self.responder.datagram_received(proof, peer, now=self.now)

    def fill(self) -> None:
        """Take the strangers' share."""
        self.assertEqual([self.ask(stranger(number)) for number in range(SHARE)], ["run"] * SHARE)

    def test_share(self) -> None:
        """When strangers have their share, another is not run but told to prove its address; then it is run."""
        self.fill()
        late = stranger(SHARE)
        self.assertEqual(self.ask(late), CODE_UNPROVEN_ADDRESS)
        self.prove(late)
        self.assertEqual(self.ask(late), "run")
        self.assertEqual(self.responder.stats.requests, SHARE + 1)
        self.assertEqual((self.responder.stats.errors, self.responder.stats.strangers), ({CODE_UNPROVEN_ADDRESS: 1}, 1))

    def test_repeats(self) -> None:
        """A stranger's request that was let in is answered again, however many others came."""
        self.fill()
        self.assertEqual(self.ask(stranger(0)), "repeated")
        self.assertEqual(self.ask(stranger(1), msgid=2), CODE_UNPROVEN_ADDRESS)

    def test_proven(self) -> None:
        """Whose address is proven has all that strangers have not; beyond that it is told so, as ever."""
        self.prove(PROVEN)
        self.fill()
        for msgid in range(ENTRIES - SHARE):
            self.assertEqual(self.ask(PROVEN, msgid), "run")
        self.assertEqual(self.ask(PROVEN, ENTRIES), CODE_BUSY)
        self.assertEqual(self.ask(stranger(SHARE)), CODE_UNPROVEN_ADDRESS)

    def test_idempotent(self) -> None:
        """Methods that may run twice need no room."""
        self.fill()
        self.assertEqual(self.ask(stranger(SHARE), method="idempotent"), "run")

    def test_age(self) -> None:
        """The share is free again when what took it is too old."""
        self.fill()
        self.now += AGE + 0.001
        self.fill()
        self.assertEqual(self.responder.stats.errors, {})

    def test_no_debt(self) -> None:
        """Where not even the error may be sent, nothing is."""
        self.fill()
        late = stranger(SHARE)
        short = encode_request(1, "once", [])
        for _ in range(2):
            self.responder.datagram_received(short, late, now=self.now)
        self.assertEqual(len(self.responder.datagrams()), 1)
        self.assertEqual((self.responder.events(), self.responder.stats.withheld), ([], 1))

    def test_no_strangers(self) -> None:
        """Where nobody can forge an address, there is one share for all."""
        self.responder.trust_addresses()
        answers = [self.ask(stranger(number)) for number in range(ENTRIES + 1)]
        self.assertEqual(answers, ["run"] * ENTRIES + [CODE_BUSY])


class SizeTests(SynchronousTestCase):
    """The same by bytes."""

    def setUp(self) -> None:
        """Make a cache in which strangers have room for four large responses."""
        self.cache = ResponseCache(max_entries=100_000, max_size=STRANGERS_SHARE * 4 * LARGE, max_age=AGE)

    def admit(self, number: int, *, strange: bool = True) -> bool:
        """Let a request in whose response is large, and tell whether there was room."""
        entry = self.cache.admit(b"", stranger(number), 0.0, strange=strange)
        if entry is not None:
            self.cache.store(entry, bytes(LARGE))
        return entry is not None

    def test_bytes(self) -> None:
        """Strangers have their part of the bytes, others are not concerned, and what is too old gives them back."""
        self.assertEqual([self.admit(number) for number in range(5)], [True] * 4 + [False])
        self.assertTrue(self.admit(5, strange=False))
        self.assertEqual((self.cache.size, self.cache.strange_size), (5 * LARGE, 4 * LARGE))
        self.assertIsNotNone(self.cache.admit(b"x", stranger(6), AGE + 1, strange=True))
        self.assertEqual((self.cache.size, self.cache.strange_size), (1, 1))

    def test_kept(self) -> None:
        """Responses that need not be kept are, in half of it; the other half is for those that must be."""
        for number in range(5):
            self.cache.keep(b"", stranger(number), bytes(LARGE), 0.0)
        self.assertEqual(len(self.cache), 1)  # with a second one, half would be taken
        self.assertTrue(self.admit(10))
        self.cache.keep(b"", stranger(11), b"", 0.0)
        self.assertEqual(len(self.cache), 2)
        self.assertEqual([self.admit(number) for number in range(12, 15)], [True, True, False])
