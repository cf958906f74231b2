"""Binding apart from listening, and the receive buffer."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import os_error
from twistedudp.transport import DEFAULT_RECEIVE_BUFFER, BoundSocket, _bound, _kernel, bind, port_holder


def descriptors() -> list[str]:
    """Return what this process has open."""
    entries = list(Path("/proc/self/fd").iterdir())
    # The directory itself was open while it was listed; is_symlink tells that it is not any more.
    return sorted(str(entry.readlink()) for entry in entries if entry.is_symlink())


class BindTests(SynchronousTestCase):
    """What a bound socket is, and how binding fails."""

    def bind(self, port: int = 0, interface: str = "127.0.0.1", **options: Any) -> BoundSocket:
        """Bind a socket that is closed when the test ends."""
        bound = bind(port, interface, **options)
        self.addCleanup(bound.close)
        return bound

    def test_ipv4(self) -> None:
        """A socket bound to one address has it, and a port."""
        bound = self.bind()
        self.assertEqual(("127.0.0.1", "127.0.0.1", False), (bound.host, bound.interface, bound.wildcard))
        self.assertEqual((socket.AF_INET, False), (bound.family, bound.to_group))
        self.assertTrue(0 < bound.port <= 65535)

    def test_ipv6(self) -> None:
        """The same for IPv6."""
        bound = self.bind(interface="::1")
        self.assertEqual(("::1", socket.AF_INET6, False), (bound.host, bound.family, bound.wildcard))

    def test_wildcards(self) -> None:
        """All of IPv4, and all of both."""
        for interface, host in (("", "0.0.0.0"), ("0.0.0.0", "0.0.0.0"), ("::", "::")):  # noqa: S104  # for an instant
            bound = self.bind(interface=interface)
            self.assertEqual((host, interface, True), (bound.host, bound.interface, bound.wildcard))

    def test_group(self) -> None:
        """A socket bound to a multicast address gets nothing else."""
        self.assertTrue(self.bind(interface="224.0.0.251").to_group)

    def test_spellings(self) -> None:
        """An address is known by any spelling: all of IPv6 is a wildcard, mapped IPv4 is IPv4."""
        for interface, host, wildcard in (
            ("::0", "::", True),
            ("0:0:0:0:0:0:0:0", "::", True),
            ("0:0:0:0:0:0:0:1", "::1", False),
            ("::ffff:127.0.0.1", "127.0.0.1", False),
        ):
            bound = self.bind(interface=interface)
            self.assertEqual((bound.host, bound.interface, bound.wildcard), (host, host, wildcard))

    def test_directed_broadcast(self) -> None:
        """The broadcast address of a network is one to many, though it does not look like it."""
        self.assertTrue(self.bind(interface="127.255.255.255").to_group)
        self.assertFalse(self.bind(interface="127.0.0.1").to_group)

    def test_taken(self) -> None:
        """A port that is taken is told with its address; nothing stays open."""
        bound = self.bind()
        before = descriptors()
        error = self.assertRaises(CannotListenError, self.bind, bound.port)
        self.assertEqual(("127.0.0.1", bound.port), (error.interface, error.port))
        self.assertEqual(errno.EADDRINUSE, error.socketError.errno)
        self.assertEqual(before, descriptors())

    def test_dual_stack_takes_both(self) -> None:
        """What is bound to all of IPv6 has the port of IPv4 as well."""
        bound = self.bind(interface="::")
        self.assertRaises(CannotListenError, self.bind, bound.port)

    def test_one_ipv6_address_takes_no_ipv4(self) -> None:
        """What is bound to one IPv6 address has not."""
        self.bind(self.bind(interface="::1").port)

    def test_no_port(self) -> None:
        """A number that is no port is told in the same way; nothing stays open."""
        before = descriptors()
        self.assertRaises(CannotListenError, self.bind, 65536)
        self.assertEqual(before, descriptors())

    def test_wrong_arguments(self) -> None:
        """What can be no port, buffer or option is named with its value."""
        for options, error, text in (
            ({"port": "7"}, TypeError, "port='7'"),
            ({"port": 0, "receive_buffer": 0}, ValueError, "receive_buffer=0: it must be at least 1 byte"),
            ({"port": 0, "reuse_port": 1}, TypeError, "reuse_port=1: it must be True or False"),
        ):
            wrong: Any = options
            with self.assertRaisesRegex(error, text):
                self.bind(**wrong)

    def test_no_address(self) -> None:
        """A name, or a scope that is not there, is no interface; nothing stays open."""
        before = descriptors()
        self.assertRaises(InvalidAddressError, self.bind, 0, "localhost")
        self.assertRaises(InvalidAddressError, self.bind, 0, "fe80::1%nosuch0")
        self.assertEqual(before, descriptors())

    def test_no_ipv6(self) -> None:
        """A system without IPv6 says so in the same way."""

        def refuse(*_: object) -> None:
            raise os_error(errno.EAFNOSUPPORT)

        self.patch(socket, "socket", refuse)
        error = self.assertRaises(CannotListenError, bind, 0, "::1")
        self.assertEqual(errno.EAFNOSUPPORT, error.socketError.errno)

    def test_close(self) -> None:
        """Closing gives the port back, and may be done twice."""
        bound = self.bind()
        bound.close()
        bound.close()
        self.bind(bound.port)

    def test_take(self) -> None:
        """The socket can be taken once; closing is then its new owner's business."""
        bound = self.bind()
        with bound.take() as handle:
            bound.close()
            self.assertEqual(("127.0.0.1", bound.port), handle.getsockname())
            self.assertFalse(handle.getblocking())
        self.assertRaises(CannotListenError, bound.take)

    def test_no_reuse(self) -> None:
        """Nobody else can have the port: SO_REUSEADDR and SO_REUSEPORT are off."""
        with self.bind().take() as handle:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                self.assertEqual(0, handle.getsockopt(socket.SOL_SOCKET, option))

    def test_fork(self) -> None:
        """A bound socket can cross a fork: it is one descriptor, a socket, and no epoll that parent and child share."""
        before = descriptors()
        self.bind()
        opened = list(descriptors())
        for name in before:
            opened.remove(name)
        self.assertEqual(["socket"], [name.partition(":")[0] for name in opened])

    def test_options(self) -> None:
        """Errors are queued everywhere; the address asked is told on wildcard binds only."""
        expected = {"127.0.0.1": (1, 0), "": (1, 1), "::1": (1, 0), "::": (1, 1)}
        for interface, options in expected.items():
            with self.bind(interface=interface).take() as handle:
                wanted = [_kernel.IP_RECVERR, _kernel.IP_PKTINFO]
                self.assertEqual(options, tuple(handle.getsockopt(socket.IPPROTO_IP, option) for option in wanted))
                if handle.family == socket.AF_INET6:
                    only = handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                    self.assertEqual(interface != "::", bool(only))
                    wanted = [_kernel.IPV6_RECVERR, _kernel.IPV6_RECVPKTINFO]
                    self.assertEqual(options, tuple(handle.getsockopt(socket.IPPROTO_IPV6, each) for each in wanted))

    def test_other_systems(self) -> None:
        """Elsewhere than on Linux none of its options are asked for."""
        self.patch(_kernel, "LINUX", False)
        with self.bind(interface="").take() as handle:
            self.assertEqual(0, handle.getsockopt(socket.IPPROTO_IP, _kernel.IP_PKTINFO))


class OptionTests(SynchronousTestCase):
    """Options that a kernel does not have."""

    def test_unknown(self) -> None:
        """An option that the kernel lacks costs its feature only."""
        for number in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            handle: Any = FakeHandle(refuses=number)
            _bound.set_options(handle, wildcard=True)
            self.assertEqual(4, handle.asked)

    def test_failing(self) -> None:
        """Any other failure is one."""
        handle: Any = FakeHandle(refuses=errno.EPERM)
        self.assertRaises(OSError, _bound.set_options, handle, wildcard=False)


class FakeHandle:
    """A socket whose receive buffer has a limit, as that of an ordinary user has."""

    family = socket.AF_INET

    def __init__(self, *, limit: int = 212_992, may_force: bool = False, refuses: int | None = None) -> None:
        self.granted = 106_496
        self.limit = limit
        self.may_force = may_force
        self.refuses = refuses
        self.asked = 0

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Grant what the limit allows, refuse what is to be refused."""
        self.asked += 1
        if self.refuses is not None:
            raise os_error(self.refuses)
        if option == _kernel.SO_RCVBUFFORCE and not self.may_force:
            raise os_error(errno.EPERM)
        self.granted = value if option == _kernel.SO_RCVBUFFORCE else min(value, self.limit)

    def getsockopt(self, level: int, option: int) -> int:
        """Report the double, as Linux does."""
        return self.granted * 2

    def getsockname(self) -> tuple[str, int]:
        """Return an address."""
        return "127.0.0.1", 10000


class ReceiveBufferTests(SynchronousTestCase):
    """Asked for and granted."""

    def bound(self, wanted: int | None, **kernel: Any) -> BoundSocket:
        """Return a bound socket on a kernel with a limit."""
        handle: Any = FakeHandle(**kernel)
        return BoundSocket(handle, "127.0.0.1", wanted)

    def test_real(self) -> None:
        """A real kernel grants a small one, and tells the truth about it."""
        bound = bind(0, "127.0.0.1", receive_buffer=65536)
        with bound.take() as handle:
            self.assertEqual(65536 * 2, handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        self.assertEqual((65536, ""), (bound.receive_buffer, bound.shortfall))

    def test_forced(self) -> None:
        """Who may, passes the limit."""
        self.assertEqual((1 << 24, ""), self.facts(self.bound(1 << 24, may_force=True)))

    def facts(self, bound: BoundSocket) -> tuple[int, str]:
        """Return what was granted and what is said about it."""
        return bound.receive_buffer, bound.shortfall

    def test_shortfall(self) -> None:
        """Who may not gets the limit, and is told how to raise it."""
        granted, shortfall = self.facts(self.bound(1 << 24))
        self.assertEqual(212_992, granted)
        self.assertIn("212,992 bytes, 16,777,216 were asked for", shortfall)
        self.assertIn("sysctl -w net.core.rmem_max=16777216", shortfall)

    def test_default(self) -> None:
        """By default much is asked for and what comes is taken."""
        self.assertEqual((DEFAULT_RECEIVE_BUFFER, ""), self.facts(self.bound(None, may_force=True)))
        self.assertEqual((212_992, ""), self.facts(self.bound(None)))

    def test_default_never_lowers(self) -> None:
        """A system whose usual buffer is larger keeps it."""
        handle: Any = FakeHandle()
        handle.granted = DEFAULT_RECEIVE_BUFFER + 1
        self.assertEqual(DEFAULT_RECEIVE_BUFFER + 1, BoundSocket(handle, "127.0.0.1", None).receive_buffer)
        self.assertEqual(0, handle.asked)

    def test_other_systems(self) -> None:
        """Elsewhere the figure is not doubled, nothing is forced, and the advice is another."""
        self.patch(_kernel, "LINUX", False)
        handle: Any = FakeHandle(may_force=True)
        bound = BoundSocket(handle, "127.0.0.1", 1 << 24)
        self.assertEqual((212_992 * 2, 1), (bound.receive_buffer, handle.asked))
        self.assertIn("kern.ipc.maxsockbuf", bound.shortfall)

    def test_refused(self) -> None:
        """A system that refuses what is too much keeps what it had."""
        self.assertEqual(106_496, self.bound(1 << 24, refuses=errno.ENOBUFS).receive_buffer)


class HolderTests(SynchronousTestCase):
    """The real proc file system."""

    def test_this_process(self) -> None:
        """A port that this process holds is told to be this process's."""
        bound = bind(0, "127.0.0.1")
        self.addCleanup(bound.close)
        self.assertIn(f"(pid {os.getpid()})", port_holder(bound.port, "127.0.0.1") or "")
