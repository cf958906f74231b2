"""What the kernel has dropped."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import FakeSocket
from twistedudp.transport import DatagramStats, _kernel
from twistedudp.transport._drops import KernelDrops


class KernelDropsTests(SynchronousTestCase):
    """The kernel's counter of a socket becomes the port's."""

    def setUp(self) -> None:
        """Make the drops of a socket of Linux."""
        self.patch(_kernel, "LINUX", True)
        self.handle = FakeSocket()
        self.stats = DatagramStats()
        self.drops = self.make()

    def make(self) -> KernelDrops:
        """Make the drops of a socket."""
        handle: Any = self.handle
        return KernelDrops(handle, self.stats)

    def test_asked(self) -> None:
        """The kernel is asked, and what it told before with a datagram is nothing new."""
        for count in (0, 3, 3, 7):
            self.handle.drops = count
            self.drops.told(count - 1 if count else 0)
            self.drops.refresh()
            self.assertEqual(count, self.stats.dropped_by_kernel)

    def test_not_asked(self) -> None:
        """Where it cannot be asked, what comes with datagrams counts."""
        self.handle.drops = None
        self.drops.refresh()
        for count in (3, 3, 7):
            self.drops.told(count)
            self.drops.refresh()
            self.assertEqual(count, self.stats.dropped_by_kernel)

    def test_next_socket(self) -> None:
        """A port that listens again counts on, though its new socket begins anew."""
        self.handle.drops = 5
        self.drops.refresh()
        self.handle.drops = 2
        self.make().refresh()
        self.assertEqual(7, self.stats.dropped_by_kernel)

    def test_overflow(self) -> None:
        """The kernel's counter begins anew after 32 bits, the port's does not."""
        for count in (0xFFFFFFFE, 1):
            self.handle.drops = count
            self.drops.refresh()
        self.assertEqual(0x100000001, self.stats.dropped_by_kernel)

    def test_other_systems(self) -> None:
        """Elsewhere nothing is asked."""
        self.patch(_kernel, "LINUX", False)
        self.handle.drops = 5
        self.make().refresh()
        self.assertEqual(0, self.stats.dropped_by_kernel)
