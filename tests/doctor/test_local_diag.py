"""What the kernel tells over netlink: recorded from Linux 6.18, and any bytes."""

from __future__ import annotations

import os
import socket
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.properties import PROPERTY
from twistedudp.doctor import _local_diag
from twistedudp.doctor._local_diag import SocketDetails, ask_kernel, diag_question, parse_diag

IPV4 = bytes.fromhex(
    "a400000014000200010000009027000002070000d84f00007f00000100000000000000000000000000000000000000000000000000000000"
    "000000000300000000000000000000000000000000000000000000000cafea00050008000000000008000f00000000000c00150001000000"
    "00000000060016005000000028000700000000001027000000000000004003000000000000000000000000000000000000000000"
)
IPV6 = bytes.fromhex(
    "ac0000001400020001000000902700000a070000d84f00000000000000000000000000000000000000000000000000000000000000000000"
    "000000000400000000000000000000000000000000000000000000000bafea00050008000000000005000b000100000008000f0000000000"
    "0c0015000100000000000000060016001000000028000700000000000040030000000000004003000000000000000000000000000000000000"
    "000000"
)
DONE = bytes.fromhex("1400000003000200010000009027000000000000")


class ParseTests(SynchronousTestCase):
    """Answers of the kernel."""

    def setUp(self) -> None:
        """See that the bytes mean here what they meant there."""
        if sys.byteorder != "little":
            raise SkipTest("the recorded bytes are those of a little-endian machine")

    def test_recorded(self) -> None:
        """A socket with a small buffer, and one of IPv6 only."""
        first = SocketDetails(inode=15380236, receive_buffer=10000, only_ipv6=None, interface=0)
        second = SocketDetails(inode=15380235, receive_buffer=212992, only_ipv6=True, interface=0)
        self.assertEqual(([first], False), parse_diag(IPV4))
        self.assertEqual(([second], False), parse_diag(IPV6))
        self.assertEqual(([first, second], True), parse_diag(IPV4 + IPV6 + DONE))

    def test_padding(self) -> None:
        """A message of odd length is followed by padding."""
        odd = (len(IPV4) + 1).to_bytes(4, sys.byteorder) + IPV4[4:] + bytes(4)
        self.assertEqual([15380236, 15380235], [told.inode for told in parse_diag(odd + IPV6)[0]])

    def test_interface(self) -> None:
        """A socket that is bound to a network interface."""
        bound = bytearray(IPV6)
        at = bound.index(b"\x04\0\0\0", 16 + 40) - 8 - 0  # in front of the cookie
        self.assertEqual(bytes(4), bytes(bound[at + 4 : at + 8]))
        bound[at + 4 : at + 8] = (7).to_bytes(4, sys.byteorder)
        self.assertEqual(7, parse_diag(bytes(bound))[0][0].interface)

    def test_not_told(self) -> None:
        """A kernel that tells less of a socket leaves it unknown."""
        short = bytearray(IPV6[: 16 + 72])
        short[:4] = len(short).to_bytes(4, sys.byteorder)
        expected = SocketDetails(inode=15380235, receive_buffer=None, only_ipv6=None, interface=0)
        self.assertEqual(([expected], False), parse_diag(bytes(short)))

    def test_end(self) -> None:
        """An error, nothing at all, or half a message ends the answer."""
        error = bytearray(DONE)
        error[4] = 2
        for data in (bytes(error), b"", b"\1\2\3", bytes(16)):
            self.assertEqual(([], True), parse_diag(data))

    @PROPERTY
    @given(st.binary(max_size=200), st.integers(0, len(IPV6)))
    def test_any_bytes(self, data: bytes, at: int) -> None:
        """Any bytes, alone and in the middle of an answer, are some sockets or none."""
        for text in (data, IPV6[:at] + data + IPV6[at:], IPV6[:at] + data):
            for told in parse_diag(text)[0]:
                self.assertIsInstance(told.inode, int)


class AskTests(SynchronousTestCase):
    """The kernel itself."""

    def test_question(self) -> None:
        """The message has the length that its header says."""
        message = diag_question(socket.AF_INET, 10000)
        self.assertEqual(len(message), int.from_bytes(message[:4], sys.byteorder))
        self.assertEqual(16 + 56, len(message))

    def test_asked(self) -> None:
        """What the kernel tells of a socket of ours is what the socket says itself."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
            bound.bind(("127.0.0.1", 0))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)
            told = ask_kernel(bound.getsockname()[1])
            if not told:
                raise SkipTest("this kernel has no udp_diag")
            self.assertEqual(
                bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
                told[os.fstat(bound.fileno()).st_ino].receive_buffer,
            )

    def test_refused(self) -> None:
        """Where there is no such interface, nothing is told."""
        self.patch(_local_diag, "_NETLINK_SOCK_DIAG", 9999)
        self.assertEqual({}, ask_kernel(10000))
