"""Probes and their answers as bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.probing.answers import SESSION, SIZE, error_answer, probe_of, rpc_answer, wire_of
from twistedudp import _msgpack
from twistedudp.address import LARGEST_PAYLOAD
from twistedudp.errors import DecodeError
from twistedudp.probing import COUNTS_ONLY, SMALLEST_PROBE, ProbeWire, check_of

SENT_NS = 123_456_789_012


class EncodingTests(SynchronousTestCase):
    """A probe."""

    def test_request(self) -> None:
        """It is a MessagePack-RPC request for rpc.probe, of the size asked for, that any decoder of it reads."""
        for size in (SMALLEST_PROBE, SMALLEST_PROBE + 1, SIZE, 300, 1472, 8192):
            wire = wire_of(size=size)
            probe = wire.encode(7, SENT_NS)
            self.assertEqual(len(probe), size)
            request = probe_of(probe)
            self.assertEqual(request.method, "rpc.probe")
            session, sequence, sent_ns, padding = request.params
            self.assertEqual((session, sequence, sent_ns), (SESSION, 7, SENT_NS))
            self.assertIsInstance(padding, bytes)
            self.assertEqual(request.msgid, (SESSION + 7) & 0xFFFFFFFF)

    def test_size_does_not_depend_on_numbers(self) -> None:
        """Small and large numbers make probes of one size, which only differ in their numbers."""
        wire = wire_of()
        probes = [
            wire.encode(sequence, sent_ns) for sequence in (0, 200, COUNTS_ONLY) for sent_ns in (0, 1, 2**63, 2**64 - 1)
        ]
        self.assertEqual({len(probe) for probe in probes}, {SIZE})
        self.assertEqual(len(set(probes)), len(probes))
        self.assertEqual({probe_of(probe).params[3] for probe in probes}, {probe_of(probes[0]).params[3]})

    def test_largest(self) -> None:
        """The largest probe fills the largest datagram."""
        self.assertEqual(len(wire_of(size=LARGEST_PAYLOAD).encode(0, 0)), LARGEST_PAYLOAD)

    def test_wrong_sizes(self) -> None:
        """What would not hold an answer, or no datagram carries, is refused, as is padding too short for the size."""
        for size, padding in ((SMALLEST_PROBE - 1, 100), (LARGEST_PAYLOAD + 1, 70000), (SIZE, SIZE - 1)):
            with self.assertRaises(ValueError):
                ProbeWire(SESSION, size, bytes(padding))


class DecodingTests(SynchronousTestCase):
    """An answer."""

    def setUp(self) -> None:
        """Make a probe."""
        self.wire = wire_of()
        self.probe = self.wire.encode(5, SENT_NS)

    def test_reflected(self) -> None:
        """An echo server's answer is the probe, and tells when it was sent."""
        self.assertEqual(self.wire.decode_untrusted(self.probe), (5, SENT_NS, None, ""))

    def test_rpc(self) -> None:
        """An rpc server's answer tells what the server knows; it has the size of the probe, whatever that is."""
        for size in (SMALLEST_PROBE, SMALLEST_PROBE + 1, 57, 64, SIZE, 300, 1472):
            wire = wire_of(size=size)
            answer = rpc_answer(wire.encode(5, SENT_NS), 4, 3, arrived_ns=10, departed_ns=11)
            self.assertEqual(len(answer), size)
            self.assertEqual(wire.decode_untrusted(answer), (5, -1, (4, 3, 10, 11), ""))

    def test_error(self) -> None:
        """An rpc server without the method proves by its error that the probe arrived."""
        self.assertEqual(self.wire.decode_untrusted(error_answer(self.probe)), (5, -1, None, "unknown_method"))
        odd = _msgpack.encode_response(probe_of(self.probe).msgid, "no", None)
        self.assertEqual(self.wire.decode_untrusted(odd).error, "error")

    def test_long_error(self) -> None:
        """Of an error's code no more is kept than a name may have, however long it is."""
        code = self.wire.decode_untrusted(error_answer(self.probe, "x" * 60000)).error
        self.assertEqual(code, "x" * 64)

    def test_every_bit(self) -> None:
        """Whatever bit is changed on the way, no answer of an echo or rpc server passes for another or for itself.

        In an echo server's, the sequence and the send time are told by the answer alone, so the account compares them.
        In an rpc server's, the msgid is the sequence, which its check holds.
        """
        for answer in (self.probe, rpc_answer(self.probe, 4, 3)):
            for bit in range(8 * len(answer)):
                changed = bytearray(answer)
                changed[bit // 8] ^= 1 << bit % 8
                try:
                    reply = self.wire.decode_untrusted(bytes(changed))
                except DecodeError:
                    continue
                self.assertIs(answer, self.probe, f"bit {bit}")
                self.assertNotEqual(reply[:2], (5, SENT_NS), f"bit {bit}")

    def test_other_series(self) -> None:
        """An answer to another series is none to this, be it of another session or with other padding."""
        for other in (wire_of(SESSION + 1), wire_of(padding=bytes(SIZE)), wire_of(size=SIZE + 1)):
            with self.assertRaises(DecodeError):
                self.wire.decode_untrusted(other.encode(5, SENT_NS))

    def test_rpc_of_other_padding(self) -> None:
        """An rpc server's answer with another series' padding is none, even if all its numbers would do."""
        with self.assertRaises(DecodeError):
            self.wire.decode_untrusted(rpc_answer(wire_of(padding=bytes(SIZE)).encode(5, SENT_NS)))

    def test_rpc_of_other_size(self) -> None:
        """An rpc server's answer that is shorter or longer than the probe is none."""
        answer = rpc_answer(self.probe)
        for other in (answer[:-1], answer + b"\0", rpc_answer(wire_of(size=SIZE - 1).encode(5, SENT_NS))):
            with self.assertRaises(DecodeError):
                self.wire.decode_untrusted(other)

    def test_rpc_numbers(self) -> None:
        """Results that are no lists of seven, or hold no numbers in range, are no answers."""
        msgid = probe_of(self.probe).msgid
        padding = probe_of(self.probe).params[3]
        right = [5, 4, 3, 2, 1, check_of((5, 4, 3, 2, 1)), padding]
        for index, wrong in ((0, -1), (1, True), (2, 1.0), (3, None), (4, "x"), (5, 2**32), (6, "text"), (0, 4)):
            result = list(right)
            result[index] = wrong
            self.refused(msgid, result)
        self.refused(msgid, right[:-1])
        self.refused(msgid, None)
        self.refused(msgid, dict.fromkeys("abcdefg", 1))

    def refused(self, msgid: int, result: object) -> None:
        """Check that a result is none, though the answer has the right size."""
        answer = _msgpack.encode_response(msgid, None, result)
        wire = wire_of(size=max(len(answer), SMALLEST_PROBE))
        with self.assertRaises(DecodeError):
            wire.decode_untrusted(answer)

    def test_not_an_answer(self) -> None:
        """Notifications, other requests and noise are no answers."""
        others = (b"", b"\0", b"\x94", b"\x94\0", bytes(SIZE), b"\xff" * SIZE, _msgpack.encode_notification("x", ()))
        for datagram in (*others, self.probe[:-1], self.probe + b"\0", b"\x93" + self.probe[1:]):
            with self.assertRaises(DecodeError):
                self.wire.decode_untrusted(datagram)

    def test_resembles(self) -> None:
        """What was an answer before it was changed is recognised, by session, padding or msgid; others are not."""
        cut = self.probe[:50]
        halved = rpc_answer(self.probe)[: SIZE - 20]
        flipped = bytearray(rpc_answer(self.probe))
        flipped[-20:] = bytes(20)
        for datagram in (cut, halved, bytes(flipped), self.probe + b"more"):
            self.assertTrue(self.wire.resembles_untrusted(datagram, 6), datagram)
        for datagram in (b"", bytes(SIZE), wire_of(SESSION ^ 2**40, padding=bytes(SIZE)).encode(0, 0)):
            self.assertFalse(self.wire.resembles_untrusted(datagram, 6), datagram)

    def test_quoted(self) -> None:
        """An ICMP error's quote tells the probe as far as its sequence is quoted; others' quotes tell nothing."""
        for length in (32, 40, SIZE):
            self.assertEqual(self.wire.quoted_sequence_untrusted(self.probe[:length]), 5)
        for quoted in (b"", self.probe[:31], wire_of(SESSION + 1).encode(5, 0), bytes(SIZE)):
            self.assertEqual(self.wire.quoted_sequence_untrusted(quoted), -1)
        self.assertTrue(self.wire.quote_too_short(b""))
        self.assertTrue(self.wire.quote_too_short(self.probe[:31]))
        self.assertFalse(self.wire.quote_too_short(b"not a probe"))
        self.assertFalse(self.wire.quote_too_short(wire_of(SESSION + 1).encode(5, 0)))

    def test_check(self) -> None:
        """The check is the CRC-32 of the numbers as they are on the wire; numbers too large for it have none."""
        self.assertEqual(check_of((0, 0, 0, 0, 0)), 0x807077E9)
        self.assertNotEqual(check_of((0, 0, 0, 0, 1)), check_of((0, 0, 0, 0, 0)))
        self.assertEqual(check_of((2**32, 0, 0, 0, 0)), -1)
