"""What is read of datagrams by hand."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.fakes import hello, record
from twistedudp.dtls._records import (
    LARGEST_HELLO,
    client_random,
    epoch,
    handshake_bytes,
    is_client_hello,
    is_dtls,
    is_one_record,
    pack,
)

RANDOM = bytes(range(32))


class HeaderTests(SynchronousTestCase):
    """The header of a record."""

    def test_epoch(self) -> None:
        """The epoch is in bytes 3 and 4."""
        self.assertEqual(epoch(record(23, 0x0102, 7, b"x")), 0x0102)

    def test_what_is_dtls(self) -> None:
        """Four types of records, of a version of DTLS, with something in them."""
        self.assertTrue(all(is_dtls(record(kind, 0, 0, b"x")) for kind in (20, 21, 22, 23)))
        for other in (b"", b"\x16", record(24, 0, 0, b"x"), record(22, 0, 0, b""), b"\x16\x03\x03" + bytes(20)):
            self.assertFalse(is_dtls(other), other)

    def test_one_record(self) -> None:
        """A datagram that is cut, or goes on, is not one record."""
        whole = record(23, 1, 1, b"payload")
        self.assertEqual(
            [is_one_record(whole), is_one_record(whole[:-1]), is_one_record(2 * whole)], [True, False, False]
        )


class HelloTests(SynchronousTestCase):
    """The test that keeps from OpenSSL what cannot be a ClientHello."""

    def test_hello(self) -> None:
        """A ClientHello passes, of either version, and its random is found."""
        for version in (b"\xfe\xfd", b"\xfe\xff"):
            datagram = b"\x16" + version + hello(RANDOM)[3:]
            self.assertTrue(is_client_hello(datagram))
            self.assertEqual(client_random(datagram), RANDOM)

    def test_what_is_none(self) -> None:
        """Other types, versions, epochs, messages, later fragments, and sizes that no ClientHello has do not pass."""
        good = hello(RANDOM)
        for place, value in ((0, 23), (1, 3), (2, 0xFC), (3, 1), (4, 1), (13, 2), (19, 1), (20, 1), (21, 1)):
            bad = bytearray(good)
            bad[place] = value
            self.assertFalse(is_client_hello(bytes(bad)), place)
        self.assertFalse(is_client_hello(good[:58]))
        self.assertTrue(is_client_hello(good.ljust(LARGEST_HELLO, b"\0")))
        self.assertFalse(is_client_hello(good.ljust(LARGEST_HELLO + 1, b"\0")))

    @given(st.binary(max_size=100))
    def test_any_bytes(self, datagram: bytes) -> None:
        """Whatever comes, looking at it raises nothing."""
        if is_dtls(datagram):
            epoch(datagram)
            is_one_record(datagram)
            handshake_bytes(datagram)
        if is_client_hello(datagram):
            self.assertEqual(len(client_random(datagram)), 32)

    def test_handshake_bytes(self) -> None:
        """Records of handshakes are counted wherever they stand, with their headers, and of a cut one what is there."""
        data, late = record(23, 1, 5, b"data"), record(22, 1, 6, b"late")
        self.assertEqual(handshake_bytes(data), 0)
        self.assertEqual(handshake_bytes(data + late + data + late), 2 * len(late))
        self.assertEqual(handshake_bytes(data + late[:-1]), len(late) - 1)
        self.assertEqual(handshake_bytes(b"\x16\xfe\xfd" + bytes(8) + b"\xff\xff\0"), 14)


class PackTests(SynchronousTestCase):
    """Cutting flights."""

    @given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(100, 600))
    def test_whole_records_in_order(self, sizes: list[int], mtu: int) -> None:
        """Datagrams are whole records in their order, and fit unless a record alone does not."""
        records = [record(22, 0, number, bytes(size)) for number, size in enumerate(sizes)]
        packed = pack(b"".join(records), mtu)
        self.assertEqual(b"".join(packed), b"".join(records))
        starts = {sum(map(len, records[:number])) for number in range(len(records) + 1)}
        end = 0
        for datagram in packed:
            end += len(datagram)
            self.assertIn(end, starts)
            self.assertTrue(len(datagram) <= mtu or len(datagram) in map(len, records))
        for one, next_one in itertools.pairwise(packed):
            self.assertGreater(len(one) + len(next_one[: 13 + int.from_bytes(next_one[11:13], "big")]), mtu)
