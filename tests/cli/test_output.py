"""Answers as text that is safe on a terminal."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.cli._output import escaped, json_text, one_line, print_datagram, print_json, print_methods
from twistedudp.errors import DecodeError

ATTACK = "\x1b]0;owned\x07\x9b31m\u202egnp.exe\x7f\u2028"
"""Sets a terminal's title, colours, reverses the direction of writing, deletes, breaks the line."""

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Screen(io.TextIOWrapper):
    """Standard output in memory, which says whether it is a terminal."""

    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n")
        self._terminal = terminal

    def isatty(self) -> bool:
        """Say what the test wants."""
        return self._terminal

    def written(self) -> bytes:
        """Return what was written so far."""
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue()


class OutputTestCase(SynchronousTestCase):
    """A test that prints."""

    def screen(self, *, terminal: bool = False, encoding: str = "utf-8") -> Screen:
        """Replace standard output for the rest of the test."""
        screen = Screen(terminal=terminal, encoding=encoding)
        self.patch(sys, "stdout", screen)
        return screen

    def terminal(self, **variables: str) -> Screen:
        """Replace standard output by a terminal of known kind, as Rich judges it by the environment."""
        changed = {"TERM": "xterm-256color", "NO_COLOR": None, "FORCE_COLOR": None, "COLUMNS": None, **variables}
        self.addCleanup(os.environ.update, {name: os.environ[name] for name in changed if name in os.environ})
        for name, value in changed.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
                self.addCleanup(os.environ.pop, name)
        return self.screen(terminal=True)


class EscapingTests(SynchronousTestCase):
    """What could steer a terminal is shown instead of obeyed."""

    def test_controls(self) -> None:
        """Control characters, marks of writing direction and line separators become escapes."""
        self.assertEqual(escaped(ATTACK), r"\u001b]0;owned\u0007\u009b31m\u202egnp.exe\u007f\u2028")

    def test_text_stays(self) -> None:
        """Letters of any script, emoji and the joiners that both need stay as they are."""
        for text in ("plain", "Grüße, 你好", "👩\u200d🚀", "می\u200cخواهم"):  # noqa: RUF001  # Persian needs the joiner
            self.assertEqual(escaped(text), text)

    def test_beyond_the_basic_plane(self) -> None:
        """A character beyond U+FFFF is escaped as JSON does it, by a pair."""
        self.assertEqual(escaped("\U000e0041"), r"\udb40\udc41")

    def test_one_line(self) -> None:
        """An error text stays one line, whatever a server put into it."""
        self.assertEqual(one_line("bad\r\n  thing\n\x1b[2J "), r"bad thing \u001b[2J")

    @given(st.text())
    def test_nothing_gets_through(self, text: str) -> None:
        """No text whatsoever gets a control character or half a surrogate pair through."""
        categories = {unicodedata.category(character) for character in escaped(text)}
        self.assertEqual(categories & {"Cc", "Cs", "Zl", "Zp"}, set())


class JSONTests(OutputTestCase):
    """Results as JSON."""

    def test_pretty(self) -> None:
        """People get it indented."""
        self.screen()
        self.assertEqual(json_text({"a": [1, None]}, compact=False), '{\n  "a": [\n    1,\n    null\n  ]\n}')

    def test_compact(self) -> None:
        """Scripts get one line."""
        self.screen()
        self.assertEqual(json_text({"a": [1, None]}, compact=True), '{"a":[1,null]}')

    def test_what_json_lacks(self) -> None:
        """Bytes, times and the numbers that JSON lacks have the forms that the help text documents."""
        self.screen()
        noon = dt.datetime(2026, 1, 31, 13, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))
        value = [b"hello", noon, float("nan"), float("inf"), -float("inf"), (1,)]
        self.assertEqual(
            json.loads(json_text(value, compact=True)),
            [{"base64": "aGVsbG8="}, "2026-01-31T12:00:00Z", "NaN", "Infinity", "-Infinity", [1]],
        )

    def test_safe(self) -> None:
        """Texts and keys with control characters reach the terminal escaped, and are the same JSON."""
        self.screen()
        for compact in (True, False):
            text = json_text({ATTACK: ATTACK + "\n"}, compact=compact)
            self.assertEqual(json.loads(text), {ATTACK: ATTACK + "\n"})
            self.assertTrue(text.replace("\n", "").isprintable(), text)

    def test_poor_encoding(self) -> None:
        """Where standard output cannot show every character, the JSON is ASCII, and no character is lost."""
        self.screen(encoding="latin-1")
        self.assertEqual(json_text("ü你", compact=True), r'"\u00fc\u4f60"')

    @given(JSON_VALUES)
    def test_same_value(self, value: object) -> None:
        """Whatever JSON can hold is read back as it was."""
        self.screen()
        self.assertEqual(json.loads(json_text(value, compact=True)), value)

    def test_colours_on_a_terminal_only(self) -> None:
        """On a terminal the JSON is coloured, elsewhere and with --json it is not."""
        for terminal, compact, coloured in ((True, False, True), (True, True, False), (False, False, False)):
            screen = self.terminal() if terminal else self.screen()
            print_json({"a": 1}, compact=compact)
            self.assertEqual(b"\x1b[" in screen.written(), coloured)


class DatagramTests(OutputTestCase):
    """Echoed datagrams."""

    def test_elsewhere_bytes_stay(self) -> None:
        """Where no person reads, the bytes are written as they are, with a line feed only if asked for."""
        for newline, end in ((False, b""), (True, b"\n")):
            screen = self.screen()
            print_datagram(b"\x1b\x00\xff\n", hexadecimal=False, newline=newline)
            self.assertEqual(screen.written(), b"\x1b\x00\xff\n" + end)

    def test_on_a_terminal(self) -> None:
        """On a terminal, controls and bytes that are no text are shown as escapes; lines stay lines."""
        screen = self.screen(terminal=True)
        print_datagram(b"a\tb\n\x1b[2J\xff", hexadecimal=False, newline=False)
        self.assertEqual(screen.written(), b"a\tb\n\\u001b[2J\\xff\n")

    def test_hexadecimal(self) -> None:
        """--hex prints digits, and they can be sent again."""
        screen = self.screen()
        print_datagram(b"\xc0\xff\xee", hexadecimal=True, newline=False)
        self.assertEqual(screen.written(), b"c0ffee\n")


class MethodsTests(OutputTestCase):
    """The table of ``udpecho methods``."""

    def table(self, listed: object, screen: Screen | None = None) -> str:
        """Return the table."""
        screen = screen or self.screen()
        print_methods(listed)
        return screen.written().decode()

    def test_table(self) -> None:
        """Each method stands with its parameters beside what it does; no line is wrapped where no person reads."""
        doc = "Return a + b. " + "Really. " * 30
        table = self.table([{"name": "add", "signature": "(a: int)", "doc": doc, "idempotent": True}])
        self.assertEqual(table.splitlines()[1:], [f"add(a: int)   {doc.strip()} (idempotent)"])

    def test_many_lines(self) -> None:
        """A docstring of several lines stays in its column."""
        table = self.table([{"name": "f", "signature": "()", "doc": "One.\n\nTwo."}, {"name": "g", "signature": "()"}])
        self.assertEqual(table.splitlines(), ["METHOD   WHAT IT DOES", "f()      One.", "", "         Two.", "g()"])

    def test_hostile(self) -> None:
        """Neither control characters nor Rich's markup in names, signatures and docstrings take effect."""
        entry = {"name": "[red]x" + ATTACK, "signature": "\n[/]", "doc": "[bold]" + ATTACK}
        table = self.table([entry])
        self.assertIn("[red]x", table)
        self.assertIn("[bold]", table)
        self.assertTrue(table.replace("\n", "").isprintable(), table)
        self.assertEqual(len(table.splitlines()), 2)

    def test_not_a_list(self) -> None:
        """What another server's rpc.methods returns instead is an error that says how to see it."""
        wrong: list[object] = [None, "add", {"add": 1}, [1], [{"name": 1}], [{}]]
        for listed in wrong:
            with self.assertRaisesRegex(DecodeError, "--json"):
                self.table(listed)

    def test_narrow_terminal(self) -> None:
        """On a terminal nothing is wider than the terminal, and nothing is lost."""
        entry = {"name": "f", "signature": "(" + "x" * 60 + ")", "doc": "word " * 30}
        table = self.table([entry], self.terminal(COLUMNS="40"))
        lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in table.splitlines()]
        self.assertLessEqual(max(map(len, lines)), 40)
        self.assertEqual(table.count("x"), 60)
        self.assertEqual(table.count("word"), 30)
