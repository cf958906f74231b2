"""The documentation does what it says: every block of README and its neighbours is run, and its output compared."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from tests.readme import Document, DocumentationError, blocks, matches


@pytest.mark.heavy
class DocumentationTests(SynchronousTestCase):
    """The documents of the checkout."""

    def run_document(self, name: str) -> int:
        """Run a document's blocks and return how many there were."""
        with Document((ROOT / name).read_text(encoding="utf-8"), name) as document:
            return document.run()

    def needs_dtls(self) -> None:
        """Skip a document that shows DTLS where there is none."""
        if find_spec("OpenSSL") is None:
            self.skipTest("DTLS is not installed: pip install 'twistedudp[dtls]' brings it")

    def test_readme(self) -> None:
        """Each block of README.md, in order, does what it says; there are some."""
        self.needs_dtls()
        self.assertGreater(self.run_document("README.md"), 5)

    def test_others(self) -> None:
        """Each block of the other documents does what it says."""
        names = [str(path.relative_to(ROOT)) for path in sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})]
        self.assertIn("CONTRIBUTING.md", names)
        for name in names:
            if name not in ("README.md", "docs/dtls.md"):
                self.run_document(name)

    def test_dtls(self) -> None:
        """Each block of docs/dtls.md does what it says."""
        self.needs_dtls()
        self.assertGreater(self.run_document("docs/dtls.md"), 3)


class MatchingTests(SynchronousTestCase):
    """Outputs against expectations."""

    def test_equal(self) -> None:
        """Equal texts match, whatever white space ends their lines; others do not."""
        self.assertTrue(matches("a  \nb\n\n", "a\nb"))
        self.assertFalse(matches("a\nb\n", "a"))
        self.assertFalse(matches("a\n", "a\nb"))
        self.assertFalse(matches("a b\n", "a  b"))
        self.assertTrue(matches("", ""))
        self.assertFalse(matches("a", ""))

    def test_dots(self) -> None:
        """Three dots stand for any text within a line, and alone for any lines, also none."""
        self.assertTrue(matches("it took 12.3 ms\n", "it took ... ms"))
        self.assertFalse(matches("it took\n12.3 ms\n", "it took ... ms"))
        self.assertTrue(matches("a\nb\nc\nd\n", "a\n...\nd"))
        self.assertTrue(matches("a\nd\n", "a\n...\nd"))
        self.assertFalse(matches("a\nd\ne\n", "a\n...\nd"))
        self.assertTrue(matches("", "..."))

    def test_no_pattern(self) -> None:
        """What looks like a regular expression is none."""
        self.assertFalse(matches("aab\n", "a+b"))
        self.assertTrue(matches("[a] $?\n", "[a] $?"))


class DocumentTests(SynchronousTestCase):
    """Small documents, right ones and wrong ones."""

    def run_text(self, *parts: str) -> int:
        """Run a document of blocks, each its info string and its text."""
        text = "".join(f"Text.\n\n```{part}\n```\n" for part in parts)
        with Document(text, "X.md") as document:
            return document.run()

    def fails(self, reason: str, *parts: str) -> None:
        """Expect that a document is found wrong."""
        with self.assertRaisesRegex(DocumentationError, reason):
            self.run_text(*parts)

    def test_blocks(self) -> None:
        """Blocks are found with their kind and line, also indented in a list."""
        text = "a\n```text\nx\n```\n* b\n\n  ```console\n  $ y\n    z\n  ```\n"
        self.assertEqual(
            [tuple(block) for block in blocks(text, "A.md")],
            [("text", "x\n", "A.md:2"), ("console", "$ y\n  z\n", "A.md:7")],
        )

    def test_commands(self) -> None:
        """Commands run in order and in one directory, and their outputs are compared."""
        self.assertEqual(
            self.run_text(
                "console\n$ echo one > file\n$ cat file\none\n$ echo a \\\n    b\na b", "console\n$ cat file\no..."
            ),
            2,
        )

    def test_wrong_output(self) -> None:
        """An output that differs is told with the place, what should be printed and what was."""
        self.fails(r"(?s)X\.md:3: \$ echo two\nshould print\nthree\nbut printed\ntwo", "console\n$ echo two\nthree")

    def test_missing_output(self) -> None:
        """A command that prints where nothing is expected is wrong as well."""
        self.fails("but printed\ntwo", "console\n$ echo two")

    def test_exit_status(self) -> None:
        """A command that fails must show it: by its output, or by the reader's look at its exit status."""
        self.fails("ended with exit status 3", "console\n$ exit 3")
        self.fails("ended with exit status 3", "console\n$ echo a; exit 3\n...\n$ true")
        self.assertEqual(self.run_text("console\n$ echo sorry; exit 3\nsorry"), 1)
        self.assertEqual(self.run_text("console\n$ exit 3\n$ echo $?\n3"), 1)
        self.fails("should print\n4", "console\n$ exit 3\n$ echo $?\n4")

    def test_unknown_kind(self) -> None:
        """A block of no known kind is an error: it would not be run."""
        self.fails(r"X\.md:3: a block is 'console', 'python' or 'text', not 'bash'", "bash\nls")
        self.fails("not ''", "\nls")
        self.fails("begins with a command", "console\nls")
        self.assertEqual(self.run_text("text\nls"), 0)

    def test_python(self) -> None:
        """A Python block is run, with the package that is under test."""
        self.assertEqual(self.run_text("python\nimport twistedudp\nassert twistedudp.listen"), 1)
        self.fails("(?s)exit status 1.*ZeroDivisionError", "python\n1 / 0")
        self.fails("UserWarning: old", "python\nimport warnings\nwarnings.warn('old')")

    def test_files(self) -> None:
        """A Python block that is a file is written, with its folder, and a later block runs it."""
        file = "python\n# file: sub/greet.py\nprint('hello')"
        self.assertEqual(self.run_text(file, "console\n$ python sub/greet.py\nhello"), 2)
        self.assertEqual(self.run_text(file, "python\nimport sys; sys.stdout = sys.stderr = None; import sub.greet"), 2)
        self.fails("no block below runs sub/greet.py", "console\n$ : greet.py", file)

    def test_ports(self) -> None:
        """Ports 10000 to 10099 are replaced, each by the same free one everywhere; other numbers stay."""
        self.assertEqual(
            self.run_text(
                "python\n# file: ports.py\nprint(10000, 10001, 100000, 1000)",
                "console\n$ python ports.py\n10000 10001 100000 1000\n$ test 10000 -ne 10''000 -a 10000 -ne 10001",
            ),
            2,
        )

    def test_server(self) -> None:
        """A real server in the background is waited for, asked over its default port, and ended with the document."""
        self.assertEqual(
            self.run_text(
                "console\n$ twistd -n udpecho &\n... echo is listening on 127.0.0.1:10000 (UDP)",
                "console\n$ udpecho send localhost 'Hello'\nHello\n$ udpecho send --timeout 5 127.0.0.1:10000 Hi\nHi",
                "console\n$ udpecho send 127.0.0.1:10001 Hello\nudpecho: 127.0.0.1:10001 cannot be reached: ...",
            ),
            3,
        )

    def test_server_that_ends(self) -> None:
        """A server that ends at once, prints something else, or ends before the document does is found wrong."""
        self.fails("should print\nready\nbut printed\nnot", "console\n$ echo not &\nready")
        self.fails(
            "has ended", "console\n$ echo ready; read -t 0.2 < <(sleep 1); true &\nready", "console\n$ sleep 0.6"
        )
