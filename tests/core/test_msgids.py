"""Message ids: a keyed permutation of a counter."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core import KEY_SIZE, message_ids

KEY = bytes(range(KEY_SIZE))


class MessageIdsTests(SynchronousTestCase):
    """What the protocol rests on: no repeats, in range, and nothing to be guessed."""

    def test_equal_keys(self) -> None:
        """Equal keys give equal sequences, which simulations need."""
        self.assertEqual(list(islice(message_ids(KEY), 1000)), list(islice(message_ids(bytes(KEY)), 1000)))

    def test_first_ids(self) -> None:
        """The permutation is the documented one: four rounds of Feistel, computed here in the plain way."""
        constants = [int.from_bytes(KEY[at : at + 8], "big") for at in range(0, 64, 8)]

        def permuted(counter: int) -> int:
            left, right = divmod(counter, 2**16)
            for at in range(0, 8, 4):
                a, b, c, d = constants[at : at + 4]
                left ^= (right * a + b) % 2**64 // 2**48
                right ^= (left * c + d) % 2**64 // 2**48
            return left * 2**16 + right

        self.assertEqual(list(islice(message_ids(KEY), 70000)), [permuted(counter) for counter in range(70000)])

    def test_any_one_byte_matters(self) -> None:
        """Each byte of the key that reaches an id by more than a carry changes the sequence."""
        expected = list(islice(message_ids(KEY), 2000))
        for at in (at for at in range(KEY_SIZE) if at % 8 < 2):
            changed = bytearray(KEY)
            changed[at] ^= 0x80
            self.assertNotEqual(list(islice(message_ids(bytes(changed)), 2000)), expected, at)

    def test_no_repeats(self) -> None:
        """Among 300,000 ids, which cross the inner counter's end four times, none comes twice, and all have 32 bits."""
        ids = list(islice(message_ids(KEY), 300_000))
        self.assertEqual(len(set(ids)), len(ids))
        self.assertTrue(all(0 <= each < 2**32 for each in ids))

    def test_spread(self) -> None:
        """All of the 32 bits are used: each is set in about half of the ids."""
        for seed in range(5):
            key = random.Random(seed).randbytes(KEY_SIZE)  # noqa: S311  # a test's key is no secret
            ids = list(islice(message_ids(key), 20000))
            for bit in range(32):
                ones = sum(each >> bit & 1 for each in ids)
                self.assertTrue(6000 < ones < 14000, (seed, bit, ones))

    def test_unpredictable(self) -> None:
        """The step from one id to the next tells nothing of the step after it."""
        ids = list(islice(message_ids(KEY), 10000))
        steps = [(later - earlier) % 2**32 for earlier, later in pairwise(ids)]
        most_common = max(map(steps.count, steps[:50]))
        self.assertTrue(len(set(steps)) > 5000, len(set(steps)))
        self.assertTrue(most_common < 500, most_common)

    def test_wrong_size(self) -> None:
        """A key of another size is refused at once, not when the first id is asked for."""
        for size in (0, KEY_SIZE - 1, KEY_SIZE + 1):
            error = self.assertRaises(ValueError, message_ids, bytes(size))
            self.assertIn(f"{KEY_SIZE} bytes, not {size}", str(error))
