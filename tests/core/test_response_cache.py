"""The kept responses: their order, their bounds, and that each costs the same however many there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core._response_cache import ResponseCache

if TYPE_CHECKING:
    from twistedudp.core._response_cache import CachedResponse

PEER = ("127.0.0.1", 4000)


class ResponseCacheTests(SynchronousTestCase):
    """Entries by peer and bytes."""

    def setUp(self) -> None:
        """Begin with none."""
        self.cache = ResponseCache(max_entries=3, max_size=1_000_000, max_age=30.0)

    def admit(self, payload: bytes, now: float) -> CachedResponse | None:
        """Let a request in that runs at once."""
        entry = self.cache.admit(payload, PEER, now)
        if entry is not None:
            self.cache.store(entry, b"done")
        return entry

    def keys(self, now: float, *payloads: bytes) -> list[bytes]:
        """Return those of the payloads that are known, which counts as a sight of them."""
        return [payload for payload in payloads if self.cache.repeated(payload, PEER, now) is not None]

    def test_repeated(self) -> None:
        """What was admitted is known by all of its key, and nothing else is."""
        entry = self.cache.admit(b"a", PEER, 0.0)
        self.assertIsNotNone(entry)
        self.assertIs(self.cache.repeated(b"a", ("127.0.0.1", 4000), 1.0), entry)
        for payload, peer in ((b"b", PEER), (b"a", ("127.0.0.1", 4001)), (b"a", ("127.0.0.2", 4000))):
            self.assertIsNone(self.cache.repeated(payload, peer, 1.0))

    def test_last_sight(self) -> None:
        """The age counts from the last sight: what is asked for again outlives what was admitted later."""
        for number, payload in enumerate((b"a", b"b", b"c")):
            self.admit(payload, float(number))
        self.assertEqual(self.keys(20.0, b"a"), [b"a"])
        self.assertIsNone(self.admit(b"d", 31.0))  # b was seen 30 s ago, which is just young enough
        self.assertIsNotNone(self.admit(b"d", 31.001))
        self.assertEqual(len(self.cache), 3)
        self.assertIsNone(self.admit(b"e", 31.002))
        self.assertIsNotNone(self.admit(b"e", 32.001))
        self.assertEqual(self.keys(32.001, b"a", b"b", b"c", b"d", b"e"), [b"a", b"d", b"e"])

    def test_too_old_for_a_repeat(self) -> None:
        """What is too old is no repeat, and is gone."""
        self.admit(b"a", 0.0)
        self.assertEqual(self.keys(30.0, b"a"), [b"a"])
        self.assertEqual(self.keys(60.001, b"a"), [])
        self.assertEqual((len(self.cache), self.cache.size), (0, 0))

    def test_running(self) -> None:
        """What still runs is never too old, however long it takes, and makes no room."""
        entry = self.cache.admit(b"a", PEER, 0.0)
        assert entry is not None
        self.assertEqual(self.keys(100.0, b"a"), [b"a"])
        for payload in (b"b", b"c"):
            self.admit(payload, 200.0)
        self.assertIsNone(self.admit(b"d", 200.0))
        self.assertEqual(self.keys(300.0, b"a"), [b"a"])
        self.cache.store(entry, b"at last")
        self.assertEqual(self.keys(330.0, b"a"), [b"a"])
        self.assertEqual(entry.response, b"at last")
        self.assertEqual(self.keys(360.001, b"a"), [])

    def test_size(self) -> None:
        """Requests and responses count; from the bound on nothing is let in, what runs is stored."""
        cache = ResponseCache(max_entries=100, max_size=20, max_age=30.0)
        first = cache.admit(b"0123456789", PEER, 0.0)
        second = cache.admit(b"0123456789", ("127.0.0.1", 4001), 0.0)
        assert first is not None
        assert second is not None
        self.assertEqual(cache.size, 20)
        self.assertIsNone(cache.admit(b"x", PEER, 0.0))
        cache.store(first, bytes(100))
        self.assertEqual(cache.size, 120)
        self.assertIsNotNone(cache.admit(b"x", PEER, 31.0))
        self.assertEqual(cache.size, 11)
        cache.store(second, bytes(100))
        self.assertEqual((cache.size, second.response), (111, bytes(100)))


class CostTests(SynchronousTestCase):
    """A hundred times the entries take about a hundred times as long, not ten thousand times."""

    def seconds(self, count: int) -> float:
        """Return how long it takes to admit many entries, and to let each expire by the admission of another."""
        payloads = [b"%d" % number for number in range(count)]
        cache = ResponseCache(max_entries=count, max_size=1 << 40, max_age=30.0)
        started = time.process_time()
        for number, payload in enumerate(payloads):
            entry = cache.admit(payload, PEER, number / count)
            assert entry is not None
            cache.store(entry, b"")
        for number, payload in enumerate(payloads):  # each of these removes one at the front
            cache.admit(payload + b"again", PEER, 30.0 + (number + 1) / count)
        taken = time.process_time() - started
        self.assertTrue(count // 2 < len(cache) <= count, len(cache))
        return taken

    def test_linear(self) -> None:
        """A dict instead of the ordered one, whose front is searched from its beginning, is a hundred times slower."""
        small = min(self.seconds(2_000) for _ in range(3))
        large = min(self.seconds(60_000) for _ in range(2))
        self.assertTrue(large < 30 * small * 5, (small, large))
