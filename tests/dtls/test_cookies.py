"""Cookies: whom they are for, and how long they hold."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.world import counted
from twistedudp.dtls._cookies import KEY_AGE, CookieJar

PEER = ("192.0.2.2", 5000)
RANDOM = bytes(range(32))


class CookieTests(SynchronousTestCase):
    """A jar on a clock of the test's."""

    def setUp(self) -> None:
        """Make it."""
        self.jar = CookieJar(counted(), now=0.0)

    def test_holds_for_its_client_alone(self) -> None:
        """A cookie holds for the address, the port and the random that it was made for, and for nothing else."""
        cookie = self.jar.make(PEER, RANDOM, now=1.0)
        self.assertEqual(len(cookie), 32)
        self.assertTrue(self.jar.verifies(cookie, PEER, RANDOM, now=2.0))
        for peer, random in (
            (("192.0.2.3", 5000), RANDOM),
            (("192.0.2.2", 5001), RANDOM),
            (("192.0.2.25", 0), RANDOM),
            (PEER, RANDOM[::-1]),
        ):
            self.assertFalse(self.jar.verifies(cookie, peer, random, now=2.0))
        for forged in (b"", cookie[:-1], cookie + b"\0", bytes(32)):
            self.assertFalse(self.jar.verifies(forged, PEER, RANDOM, now=2.0))

    def test_holds_over_one_change_of_keys(self) -> None:
        """A cookie holds at least as long as a key, and at most twice as long."""
        cookie = self.jar.make(PEER, RANDOM, now=59.0)
        self.assertTrue(self.jar.verifies(cookie, PEER, RANDOM, now=61.0))
        self.assertNotEqual(self.jar.make(PEER, RANDOM, now=61.0), cookie)
        self.assertTrue(self.jar.verifies(cookie, PEER, RANDOM, now=61.0 + KEY_AGE - 1))
        self.assertFalse(self.jar.verifies(cookie, PEER, RANDOM, now=61.0 + KEY_AGE + 1))

    def test_is_old_after_a_pause(self) -> None:
        """Where nobody asked for long, an old cookie does not hold as if only one change had been missed."""
        cookie = self.jar.make(PEER, RANDOM, now=0.0)
        self.assertFalse(self.jar.verifies(cookie, PEER, RANDOM, now=10 * KEY_AGE))

    def test_keys_differ_from_jar_to_jar(self) -> None:
        """A server that was started again knows no cookie of before."""
        cookie = self.jar.make(PEER, RANDOM, now=0.0)
        fresh = counted()
        fresh(32)
        fresh(32)
        self.assertFalse(CookieJar(fresh, now=0.0).verifies(cookie, PEER, RANDOM, now=0.0))
