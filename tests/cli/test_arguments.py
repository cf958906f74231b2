"""What people type, as the values that are sent."""

from __future__ import annotations

import io
import sys

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.address import LARGEST_PAYLOAD
from twistedudp.cli._arguments import Misuse, datagram, parameter


class ParameterTests(SynchronousTestCase):
    """Arguments of ``udpecho call``."""

    def test_json_values(self) -> None:
        """JSON values become the values that they are."""
        for text, value in (
            ("2", 2),
            ("-2.5", -2.5),
            ("1e3", 1000.0),
            ("true", True),
            ("null", None),
            ('"2"', "2"),
            ('[1, "a", {"b": []}]', [1, "a", {"b": []}]),
            (" 7 ", 7),
        ):
            self.assertEqual(parameter(text), value)
            self.assertIs(type(parameter(text)), type(value))

    def test_bare_words(self) -> None:
        """What is no JSON is a text, also what Python's JSON reader would take beyond the standard."""
        for text in ("hello", "", "True", "007", "NaN", "-Infinity", "1,5", "192.0.2.1", "hello world", "'a'"):
            self.assertEqual(parameter(text), text)

    def test_slips(self) -> None:
        """What begins like a list, a map or a quoted text and is none is an error that says where it goes wrong."""
        for text in ("[1, 2", '{"a": 1', "{a: 1}", '"abc', "[1 2]"):
            with self.assertRaisesRegex(Misuse, r"is not JSON \(.*column \d+"):
                parameter(text)

    def test_slip_within(self) -> None:
        """NaN inside a list is a slip as well: a list cannot be a bare word."""
        with self.assertRaisesRegex(Misuse, r"^\[NaN\] is not JSON; quote it"):
            parameter("[NaN]")

    def test_long_slip(self) -> None:
        """The error names a long argument by its beginning."""
        with self.assertRaisesRegex(Misuse, r"^\[1{38}… is not JSON"):
            parameter("[" + "1" * 1000)

    def test_nested_too_deeply(self) -> None:
        """An argument that exhausts the JSON reader is a usage error."""
        with self.assertRaisesRegex(Misuse, "nested too deeply"):
            parameter("[" * 200_000)

    def test_beyond_floats(self) -> None:
        """A number that no float can hold is an error, and does not become an infinity."""
        for text in ("1e400", "[-1e400]"):
            with self.assertRaisesRegex(Misuse, "1e400 is beyond the range of numbers"):
                parameter(text)

    def test_many_digits(self) -> None:
        """A number with more digits than Python reads is a bare word, not a traceback."""
        self.assertEqual(parameter("9" * 5000), "9" * 5000)


class DatagramTests(SynchronousTestCase):
    """The bytes that ``udpecho send`` sends."""

    def read(self, content: bytes, *, hexadecimal: bool = False) -> bytes:
        """Return what ``-`` makes of a content of standard input."""
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return datagram("-", hexadecimal=hexadecimal)

    def test_text(self) -> None:
        """A text is sent as the bytes that were typed, even if they are no text in this locale."""
        self.assertEqual(datagram("Grüße", hexadecimal=False), "Grüße".encode())
        self.assertEqual(datagram("a\udcff", hexadecimal=False), b"a\xff")
        self.assertEqual(datagram("", hexadecimal=False), b"")

    def test_hexadecimal(self) -> None:
        """Hexadecimal digits may be upper or lower case and have white space between the bytes."""
        self.assertEqual(datagram("C0 ff\tEE00", hexadecimal=True), b"\xc0\xff\xee\x00")
        self.assertEqual(datagram("", hexadecimal=True), b"")

    def test_not_hexadecimal(self) -> None:
        """What is not hexadecimal, or half a byte, is an error that shows how it is written."""
        for text in ("xy", "abc", "ü", "0x00"):
            with self.assertRaisesRegex(Misuse, "pairs of the digits 0-9 and a-f"):
                datagram(text, hexadecimal=True)

    def test_standard_input(self) -> None:
        """Standard input is sent as it is: all bytes, no line feed stripped, no text decoded."""
        content = bytes(range(256)) + b"\r\n"
        self.assertEqual(self.read(content), content)

    def test_hexadecimal_standard_input(self) -> None:
        """With --hex, standard input is hexadecimal text, and its line feeds are white space."""
        self.assertEqual(self.read(b"c0\nff\n", hexadecimal=True), b"\xc0\xff")

    def test_largest(self) -> None:
        """The largest datagram passes, one byte more does not, and no more than that is read."""
        self.assertEqual(len(self.read(bytes(LARGEST_PAYLOAD))), 65_527)
        with self.assertRaisesRegex(Misuse, r"more than 65,527 bytes.*at most 65,527 \(65,507 over IPv4\)"):
            self.read(bytes(1_000_000))
        self.assertEqual(sys.stdin.buffer.tell(), 65_528)

    def test_closed(self) -> None:
        """Without a standard input, the error says so."""
        self.patch(sys, "stdin", None)
        with self.assertRaisesRegex(Misuse, "standard input is closed"):
            datagram("-", hexadecimal=False)

    def test_empty(self) -> None:
        """An empty standard input is sent, for it is a legal datagram, and standard error tells of it."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        self.assertEqual(self.read(b""), b"")
        self.assertEqual(errors.getvalue(), "udpecho: standard input is empty: an empty datagram is sent\n")
