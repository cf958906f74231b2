"""``udpecho doctor``: what may be typed, and how findings are printed; nothing here reaches the network."""

from __future__ import annotations

import io
import json
import sys

from tests.cli.test_program import ProgramTestCase
from twistedudp.cli import _doctor
from twistedudp.cli._program import run
from twistedudp.doctor import Finding

FAULT = Finding(
    "UDP-SILENT", "192.0.2.1:7 is silent", ("0.000 s  sent 64 bytes", "\x1b[2Jowned\nby a stranger"), "look [red]there"
)
FINE = Finding("UDP-ANSWERED", "192.0.2.1:7 answers", ("0.001 s  the answer",), fault=False)
NOTE = Finding("UDP-MTU", "a word " * 40, (), "keep it", fault=False)


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class UsageTests(ProgramTestCase):
    """Wrong usage is one line that shows the right one."""

    def test_target(self) -> None:
        """A target is needed, and it needs a host unless the port is this machine's."""
        self.assertIn("Missing argument 'HOST[:PORT]'", self.misuse("doctor"))
        self.assertIn("has no host", self.misuse("doctor", ":10000"))
        self.assertIn("with --local the host may be left out", self.misuse("doctor", ":10000"))
        for options in ((), ("--local",)):
            self.assertIn(
                "'10001' is a port without a host; write HOST:10001, or --local :10001",
                self.misuse("doctor", *options, "10001"),
            )
        self.assertIn("'http' is not a port", self.misuse("doctor", "--local", ":http"))
        self.assertIn("neither HOST:PORT nor an IPv6 address", self.misuse("doctor", "--local", "::1:x"))

    def test_numbers(self) -> None:
        """Times and sizes are positive and have an end."""
        for text in ("0", "-1", "soon", "61", "nan"):
            self.assertIn(f"--timeout {text}", self.misuse("doctor", f"--timeout={text}", "127.0.0.1"))
        self.assertIn("'--receive-buffer'", self.misuse("doctor", "--receive-buffer=0", "127.0.0.1"))

    def test_families(self) -> None:
        """-4 and -6 exclude each other, and an address of the other family."""
        self.assertIn("-4 and -6 exclude each other", self.misuse("doctor", "-4", "-6", "localhost"))
        self.assertIn("::1 is not an IPv4 address", self.misuse("doctor", "-4", "::1"))

    def test_local_asks_nobody(self) -> None:
        """Options that say how to ask are refused where nobody is asked."""
        for option in ("-4", "-6", "--quick", "--timeout=4", "--receive-buffer=4096"):
            name = option.partition("=")[0]
            self.assertIn(f"{name} says how to ask", self.misuse("doctor", "--local", option, ":10000"))


class LocalTests(ProgramTestCase):
    """``--local``, with findings that are given."""

    def run_local(self, target: str, *options: str, findings: list[Finding]) -> tuple[tuple[str, int], int]:
        """Run the command; return what was examined, and the exit status."""
        asked: list[tuple[str, int]] = []

        def examine_local(host: str, port: int) -> list[Finding]:
            asked.append((host, port))
            return findings

        self.patch(_doctor, "_local_examiner", lambda: examine_local)
        status = run(["doctor", "--local", *options, target])
        return asked[0], status

    def test_targets(self) -> None:
        """The host may be left out, with the port, and the default port is 10000."""
        for target, meant in (
            (":7", ("", 7)),
            ("127.0.0.1:7", ("127.0.0.1", 7)),
            ("::1", ("::1", 10000)),
            ("[::1]:7", ("::1", 7)),
            ("there.example", ("there.example", 10000)),
        ):
            self.assertEqual(self.run_local(target, findings=[FINE]), (meant, 0))

    def test_status(self) -> None:
        """A fault among the findings is the exit status 1, wherever it stands."""
        self.assertEqual(self.run_local(":7", findings=[FINE, NOTE])[1], 0)
        self.assertEqual(self.run_local(":7", findings=[FINE, FAULT])[1], 1)
        self.assertEqual(self.run_local(":7", "--json", findings=[FAULT, FINE])[1], 1)

    def test_json(self) -> None:
        """JSON is one line with what was asked and what was found, and its text cannot steer a terminal."""
        self.run_local("127.0.0.1:7", "--json", findings=[FINE, FAULT])
        line = self.stdout.getvalue()
        self.assertEqual(line.count("\n"), 1)
        self.assertNotIn("\x1b", line)
        said = json.loads(line)
        self.assertEqual(
            {name: said[name] for name in ("target", "host", "port", "local", "ok")},
            {"target": "127.0.0.1:7", "host": "127.0.0.1", "port": 7, "local": True, "ok": False},
        )
        self.assertEqual([one["code"] for one in said["findings"]], ["UDP-ANSWERED", "UDP-SILENT"])


class OutputTests(ProgramTestCase):
    """Findings as text."""

    def printed(self, *findings: Finding, terminal: bool = False, columns: int = 80, no_color: bool = False) -> str:
        """Return what is printed."""
        out = Terminal() if terminal else io.StringIO()
        self.patch(sys, "stdout", out)
        environment = {"COLUMNS": str(columns), "TERM": "xterm-256color", "NO_COLOR": "1" if no_color else ""}
        for name, value in environment.items():
            self.patch_variable(name, value)
        _doctor._print(findings)
        return out.getvalue()

    def patch_variable(self, name: str, value: str) -> None:
        """Set an environment variable for the rest of the test."""
        import os  # noqa: PLC0415  # only here

        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(lambda: os.environ.pop(name, None) if before is None else os.environ.update({name: before}))

    def test_not_a_terminal(self) -> None:
        """Anywhere but on a terminal each thing is one line, without colours, however long."""
        self.assertEqual(
            self.printed(FINE, FAULT, NOTE),
            "UDP-ANSWERED: 192.0.2.1:7 answers\n"
            "    0.001 s  the answer\n"
            "\n"
            "UDP-SILENT (fault): 192.0.2.1:7 is silent\n"
            "    0.000 s  sent 64 bytes\n"
            "    \\u001b[2Jowned by a stranger\n"
            "What to do: look [red]there\n"
            "\n"
            f"UDP-MTU: {NOTE.says.strip()}\n"
            "What to do: keep it\n",
        )

    def test_terminal(self) -> None:
        """A terminal gets lines that fit it, and at most 100 columns of it; only the codes are coloured."""
        for columns, widest in ((80, 80), (200, 100), (30, 30)):
            out = self.printed(NOTE, terminal=True, columns=columns, no_color=True)
            plain = out.replace("\x1b[1m", "").replace("\x1b[0m", "")
            self.assertNotIn("\x1b", plain)
            lines = plain.splitlines()
            self.assertTrue(all(len(line) < widest for line in lines), lines)
            self.assertEqual(" ".join(plain.split()), f"UDP-MTU: {NOTE.says.strip()} What to do: keep it")
        coloured = self.printed(FAULT, terminal=True)
        self.assertIn("\x1b[1;31mUDP-SILENT (fault):\x1b[0m 192.0.2.1:7 is silent", coloured)
        self.assertIn("[red]", coloured)
        self.assertNotIn("\x1b[2J", coloured)
