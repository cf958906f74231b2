"""A million forged senders leave nothing behind."""

from __future__ import annotations

import gc
import os
import random
import struct
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.admission.senders import admission, compiled
from tests.transport.mmsg_case import require_compiled
from twistedudp.admission import AdmissionPolicy

SENDERS = 1_000_000
BATCH = 10_000
TABLES = 2 * 65536 * 16
"""Bytes: two tables of so many places."""


def resident() -> int:
    """Return the bytes of memory that this process has."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        raise SkipTest("there is no /proc") from None
    return pages * os.sysconf("SC_PAGE_SIZE")


class MemoryTests(SynchronousTestCase):
    """Constant, whoever sends."""

    def setUp(self) -> None:
        """Let chance be the same each time."""
        self.rng = random.Random(9)  # noqa: S311  # nobody is kept out by it

    def test_compiled(self) -> None:
        """A million random sources: the tables are as large as at first, and there is no object more."""
        require_compiled()
        decider = compiled(AdmissionPolicy(total_rate=0))

        def flood(count: int) -> None:
            for _ in range(count // BATCH):
                words = struct.unpack(f"{BATCH}I", self.rng.randbytes(4 * BATCH))
                decider.run(b"".join(struct.pack("=HHI8x", 2, 0, word) for word in words), 16, 1)

        flood(10 * BATCH)
        decider.take_refusals()
        gc.collect()
        size, objects, memory = sys.getsizeof(decider), sys.getallocatedblocks(), resident()
        flood(SENDERS)
        gc.collect()
        self.assertEqual(sys.getsizeof(decider), size)
        self.assertLess(abs(size - TABLES), 4096)
        self.assertLess(sys.getallocatedblocks() - objects, 200)
        self.assertLess(resident() - memory, TABLES + 1024 * 1024)

    def test_pure(self) -> None:
        """100,000 random sources: the same of the tables in plain Python, of whose senders 4,096 are remembered."""
        decider = admission(AdmissionPolicy(total_rate=0))

        def flood(count: int) -> None:
            for number in range(count):
                decider.admits(".".join(map(str, self.rng.randbytes(4))), number)

        flood(20_000)
        gc.collect()
        size, objects = decider.__sizeof__(), sys.getallocatedblocks()
        flood(100_000)
        gc.collect()
        self.assertEqual(decider.__sizeof__(), size)
        self.assertTrue(TABLES <= size < 1.1 * TABLES, size)
        self.assertLess(sys.getallocatedblocks() - objects, 500)
