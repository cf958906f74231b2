"""The program around the commands: usage errors, exit statuses, signals; nothing here reaches the network."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib.metadata import version

from twisted.trial.unittest import SynchronousTestCase

import twistedudp.cli
from twistedudp.address import DEFAULT_PORT
from twistedudp.cli import _commands, _program
from twistedudp.cli._commands import _CallCommand
from twistedudp.cli._program import run


class ProgramTestCase(SynchronousTestCase):
    """A test that runs the program in this process."""

    def setUp(self) -> None:
        """Catch what it prints, and undo what it sets."""
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)

    def misuse(self, *arguments: str) -> str:
        """Run the program wrongly, and return the one line that it prints."""
        self.stderr.truncate(0)
        self.assertEqual(run(arguments), 2, arguments)
        self.assertEqual(self.stdout.getvalue(), "")
        line = self.stderr.getvalue().lstrip("\0")
        self.assertRegex(line, r"\Audpecho: [^\n]+\n\Z")
        return line.removeprefix("udpecho: ").rstrip("\n")


class UsageTests(ProgramTestCase):
    """Wrong usage is told in one line that shows the right one, with exit status 2."""

    def test_text_missing(self) -> None:
        """Without TEXT, send says how to give it, and how to send standard input."""
        self.assertRegex(self.misuse("send", "127.0.0.1"), "TEXT is missing: .* or - to send standard input")

    def test_addresses(self) -> None:
        """What is no HOST[:PORT] is an error that says why."""
        for address, text in (
            ("127.0.0.1:0", "must be a number from 1 to 65535"),
            ("127.0.0.1:http", "'http' is not a port"),
            ("", "has no host"),
            ("::1:x", "neither HOST:PORT nor an IPv6 address"),
        ):
            self.assertIn(text, self.misuse("send", address, "hello"))

    def test_timeouts(self) -> None:
        """A timeout that is no positive number of seconds is refused: no call waits for ever."""
        for seconds in ("0", "-1", "soon", "nan", "inf", ""):
            self.assertIn("number of seconds above 0", self.misuse("send", f"--timeout={seconds}", "127.0.0.1", "x"))

    def test_families(self) -> None:
        """-4 and -6 exclude each other and an address of the other family."""
        self.assertIn("-4 and -6 exclude each other", self.misuse("methods", "-4", "-6", "localhost"))
        self.assertIn("::1 is not an IPv4 address; leave -4 out", self.misuse("methods", "-4", "[::1]:7"))
        self.assertIn("127.0.0.1 is not an IPv6 address; leave -6 out", self.misuse("methods", "-6", "127.0.0.1"))

    def test_click_errors(self) -> None:
        """What Click itself finds wrong is one line as well, and names the help that helps."""
        self.assertEqual(self.misuse("methods"), "Missing argument 'HOST[:PORT]'; try 'udpecho methods --help'")
        self.assertIn("No such option", self.misuse("call", "--tiemout", "3", "127.0.0.1", "add"))
        self.assertIn("try 'udpecho --help'", self.misuse("snd", "127.0.0.1"))

    def test_dashes(self) -> None:
        """A misspelt option behind METHOD is no argument of the method."""
        self.assertIn("--json-lines", self.misuse("call", "127.0.0.1", "add", "--json-lines"))

    def test_control_characters(self) -> None:
        """Control characters in a wrong argument do not reach the terminal through the error."""
        self.assertIn(r"\u001b[2J", self.misuse("call", "127.0.0.1", "add", "[\x1b[2J"))

    def test_no_command(self) -> None:
        """Without a command the help is shown, as an error."""
        self.assertEqual(run([]), 2)
        self.assertIn("Usage: udpecho", self.stderr.getvalue())


class HelpTests(ProgramTestCase):
    """--help and --version."""

    def test_help(self) -> None:
        """The help of the program and of each command tells the exit statuses; its own is 0."""
        for arguments in (["--help"], ["-h"], ["send", "--help"], ["call", "-h"], ["methods", "--help"]):
            self.stdout.truncate(0)
            self.assertEqual(run(arguments), 0)
            self.assertIn("Usage: udpecho", self.stdout.getvalue())
            self.assertIn("Exit status:", self.stdout.getvalue())
        self.assertEqual(self.stderr.getvalue(), "")

    def test_call_help(self) -> None:
        """The help of call documents the forms of what JSON lacks, unwrapped."""
        run(["call", "--help"])
        self.assertIn('bytes                     {"base64": "aGVsbG8="}\n', self.stdout.getvalue())

    def test_version(self) -> None:
        """--version prints the version of the package."""
        self.assertEqual(run(["--version"]), 0)
        self.assertEqual(self.stdout.getvalue(), f"udpecho {version('twistedudp')}\n")


class NumbersTests(SynchronousTestCase):
    """Negative numbers and options of ``udpecho call``."""

    def parsed(self, *arguments: str) -> tuple[list[str], bool, bool]:
        """Return the method's arguments and the flags -4 and --json, as the command gets them."""
        assert isinstance(_commands.call, _CallCommand)
        context = _commands.call.make_context("call", list(arguments))
        return _CallCommand.unmarked(context.params["args"]), context.params["ipv4"], context.params["compact"]

    def test_behind_method(self) -> None:
        """Behind METHOD, what looks like a negative number is one, also -4 and -6; options are still options."""
        self.assertEqual(
            self.parsed("host", "add", "-5", "--json", "-4", "-.5", "-1e-3"),
            (["-5", "-4", "-.5", "-1e-3"], False, True),
        )

    def test_before_method(self) -> None:
        """Before METHOD, -4 is the option."""
        self.assertEqual(self.parsed("-4", "host", "add", "-4"), (["-4"], True, False))
        self.assertEqual(self.parsed("host", "-4", "add"), ([], True, False))

    def test_value_of_timeout(self) -> None:
        """The value of --timeout is not taken for HOST or METHOD."""
        self.assertEqual(self.parsed("--timeout", "3", "host", "-4", "add", "1"), (["1"], True, False))

    def test_behind_dashes(self) -> None:
        """Behind -- everything is an argument."""
        self.assertEqual(self.parsed("host", "add", "-1", "--", "-4", "--json"), (["-1", "-4", "--json"], False, False))

    def test_default_port(self) -> None:
        """Without a port it is that of twistd udpecho."""
        context = _commands.methods.make_context("methods", ["::1"])
        self.assertEqual(context.params["address"], ("::1", 10000))
        self.assertEqual(DEFAULT_PORT, 10000)


class EndTests(ProgramTestCase):
    """How the program ends."""

    def ending_with(self, error: BaseException) -> int:
        """Run a command that ends with an error, and return the exit status."""

        def command(*_: object, **__: object) -> None:
            raise error

        self.patch(_commands.udpecho, "main", command)
        return run([])

    def test_interrupted(self) -> None:
        """Ctrl-C ends it with status 130 and without a word, also in the middle of reading standard input."""

        class Terminal:
            """A standard input on which Ctrl-C is pressed."""

            closed = False

            @property
            def buffer(self) -> Terminal:
                """Stand for the binary stream as well."""
                return self

            def read(self, _size: int) -> bytes:
                """Be interrupted."""
                os.kill(os.getpid(), signal.SIGINT)
                return b""

        self.patch(sys, "stdin", Terminal())
        before = signal.getsignal(signal.SIGINT)
        self.assertEqual(run(["send", "127.0.0.1", "-"]), 130)
        self.assertEqual(self.stdout.getvalue() + self.stderr.getvalue(), "")
        self.assertIs(signal.getsignal(signal.SIGINT), before)

    def test_interrupted_during_imports(self) -> None:
        """Ctrl-C before the program could prepare for it ends it likewise."""

        def interrupt(_: object) -> int:
            raise KeyboardInterrupt

        self.patch(_program, "run", interrupt)
        with self.assertRaises(SystemExit) as caught:
            twistedudp.cli.main()
        self.assertEqual(caught.exception.code, 130)

    def test_main(self) -> None:
        """The console script runs the arguments of the process and ends with their status."""
        self.patch(sys, "argv", ["udpecho", "--version"])
        with self.assertRaises(SystemExit) as caught:
            twistedudp.cli.main()
        self.assertEqual(caught.exception.code, 0)
        self.assertIn("udpecho ", self.stdout.getvalue())

    def test_unforeseen(self) -> None:
        """A mistake of ours is not dressed up as a failure of the network."""
        with self.assertRaises(ZeroDivisionError):
            self.ending_with(ZeroDivisionError())

    def test_foreseen(self) -> None:
        """A failure that was foreseen is one line and its status."""
        self.assertEqual(self.ending_with(OSError(1, "Operation not permitted")), 1)
        self.assertEqual(self.stderr.getvalue(), "udpecho: the system refused: Operation not permitted\n")
