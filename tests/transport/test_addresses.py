"""Addresses, and a memory with a bound."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import InvalidAddressError
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.transport import _addresses
from twistedudp.transport._addresses import TwoGenerations, family_of, peer_of, sockaddr_of


class TwoGenerationsTests(SynchronousTestCase):
    """What is remembered, and what is forgotten."""

    def test_remembers(self) -> None:
        """What was put is there, the last of it."""
        memory: TwoGenerations[str, int] = TwoGenerations(2)
        memory.put("a", 1)
        memory.put("a", 2)
        self.assertEqual((2, None, 1, 0), (memory.get("a"), memory.get("b"), len(memory), memory.forgotten))

    def test_bound(self) -> None:
        """However much is put, it holds two generations at most, and counts what it has forgotten."""
        memory: TwoGenerations[int, int] = TwoGenerations(10)
        for number in range(1, 1001):
            memory.put(number, number)
            self.assertTrue(len(memory) <= 20)
        self.assertEqual(1000, len(memory) + memory.forgotten)
        self.assertEqual((None, 1000), (memory.get(1), memory.get(1000)))

    def test_asking_keeps(self) -> None:
        """What is asked for again and again is not forgotten."""
        memory: TwoGenerations[int, int] = TwoGenerations(10)
        memory.put(-1, -1)
        for number in range(1000):
            memory.put(number, number)
            self.assertEqual(-1, memory.get(-1))

    def test_contains(self) -> None:
        """Whether something is known can be asked of either generation."""
        memory: TwoGenerations[int, str] = TwoGenerations(1)
        memory.put(1, "old")
        memory.put(2, "young")
        self.assertEqual([True, True, False], [number in memory for number in (1, 2, 3)])

    def test_replacing_the_old(self) -> None:
        """A value put anew takes the place of one of the old generation."""
        memory: TwoGenerations[int, str] = TwoGenerations(1)
        memory.put(1, "old")
        memory.put(2, "young")
        memory.put(1, "new")
        self.assertEqual(("new", "young"), (memory.get(1), memory.get(2)))
        self.assertEqual(0, memory.forgotten)

    def test_replacing_costs_nobody_a_place(self) -> None:
        """Replacing an entry of a full generation forgets nothing."""
        memory: TwoGenerations[int, str] = TwoGenerations(1)
        memory.put(1, "old")
        memory.put(2, "young")
        memory.put(2, "younger")
        self.assertEqual(("old", 0), (memory.get(1), memory.forgotten))

    def test_discard(self) -> None:
        """An entry of either generation can be taken out."""
        memory: TwoGenerations[int, str] = TwoGenerations(1)
        memory.put(1, "old")
        memory.put(2, "young")
        memory.discard(1)
        memory.discard(2)
        memory.discard(3)
        self.assertEqual((None, None), (memory.get(1), memory.get(2)))


class FamilyTests(SynchronousTestCase):
    """Which hosts are numeric."""

    def test_numeric(self) -> None:
        """IPv4 and IPv6, with or without a scope."""
        self.assertEqual(socket.AF_INET, family_of("192.0.2.1"))
        for host in ("::1", "fe80::1%eth0", "::ffff:192.0.2.1"):
            self.assertEqual(socket.AF_INET6, family_of(host))

    def test_others(self) -> None:
        """Anything else would be asked of a name server."""
        for host in ("localhost", "", "1.2.3", "1.2.3.4 ", "1.2.3.4\0", ":", "x:y", "<broadcast>"):
            self.assertIdentical(None, family_of(host), host)
        not_text: Any
        for not_text in (None, b"127.0.0.1", 5):
            self.assertIdentical(None, family_of(not_text))


class PeerTests(SynchronousTestCase):
    """What protocols are shown."""

    def test_ipv4(self) -> None:
        """IPv4 is shown as it is."""
        self.assertEqual(("192.0.2.1", 9), peer_of(("192.0.2.1", 9)))

    def test_ipv6(self) -> None:
        """IPv6 loses its flow label."""
        self.assertEqual(("2001:db8::1", 9), peer_of(("2001:db8::1", 9, 5, 0)))

    def test_mapped(self) -> None:
        """An IPv4-mapped address is shown as IPv4."""
        self.assertEqual(("192.0.2.1", 9), peer_of(("::ffff:192.0.2.1", 9, 0, 0)))

    def test_scope(self) -> None:
        """A scope stays, by the interface's name."""
        index = socket.if_nametoindex("lo")
        self.assertEqual(("fe80::1%lo", 9), peer_of(("fe80::1", 9, 0, index)))
        self.assertEqual(("fe80::1%lo", 9), peer_of(("fe80::1%lo", 9, 0, index)))

    def test_scope_without_name(self) -> None:
        """A scope whose interface is gone is shown as its number."""
        self.assertEqual(("fe80::1%99999", 9), peer_of(("fe80::1", 9, 0, 99999)))


class SockAddrTests(SynchronousTestCase):
    """What the kernel is given."""

    def ipv4(self, addr: Any) -> Any:
        """Translate for an IPv4 socket."""
        return sockaddr_of(addr, family=socket.AF_INET, dual_stack=False)

    def ipv6(self, addr: Any, *, dual_stack: bool = False) -> Any:
        """Translate for an IPv6 socket."""
        return sockaddr_of(addr, family=socket.AF_INET6, dual_stack=dual_stack)

    def test_ipv4(self) -> None:
        """An IPv4 socket takes pairs, and the broadcast address by name."""
        self.assertEqual(("192.0.2.1", 9), self.ipv4(("192.0.2.1", 9)))
        self.assertEqual(("<broadcast>", 9), self.ipv4(("<broadcast>", 9)))

    def test_ipv6(self) -> None:
        """An IPv6 socket takes four members; the scope may come in either way."""
        index = socket.if_nametoindex("lo")
        self.assertEqual(("2001:db8::1", 9, 0, 0), self.ipv6(("2001:db8::1", 9)))
        self.assertEqual(("fe80::1", 9, 0, index), self.ipv6(("fe80::1%lo", 9)))
        self.assertEqual(("fe80::1", 9, 0, 7), self.ipv6(("fe80::1%7", 9)))
        self.assertEqual(("fe80::1", 9, 0, 8), self.ipv6(("fe80::1", 9, 0, 8)))

    def test_dual_stack(self) -> None:
        """A dual-stack socket takes IPv4 as mapped addresses."""
        self.assertEqual(("::ffff:192.0.2.1", 9, 0, 0), self.ipv6(("192.0.2.1", 9), dual_stack=True))

    def test_refused(self) -> None:
        """Names, the other family, unknown interfaces."""
        self.assertRaises(InvalidAddressError, self.ipv4, ("localhost", 9))
        self.assertRaises(InvalidAddressError, self.ipv4, ("::1", 9))
        self.assertRaises(InvalidAddressError, self.ipv6, ("192.0.2.1", 9))
        self.assertRaises(InvalidAddressError, self.ipv6, ("fe80::1%nosuch0", 9))
        self.assertRaises(InvalidAddressError, self.ipv6, ("<broadcast>", 9), dual_stack=True)

    def test_any_hosts(self) -> None:
        """What means all addresses of a host."""
        self.assertEqual({"", "0.0.0.0", "::"}, _addresses.ANY_HOSTS)  # noqa: S104  # compared with, not bound to
