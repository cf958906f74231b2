"""The ``udpecho`` command as a process, against real servers on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import ROOT
from tests.integration.twistd import Directory, RunningTwistd, environment
from twistedudp.address import format_address

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.heavy

UDPECHO = str(Path(sys.executable).parent / "udpecho")
CALCULATOR = ROOT / "examples" / "calculator"
LIMIT = 60.0
"""Seconds after which a command that has not ended never will."""

HOSTILE = '''
import datetime
from twistedudp import RPCMethods, method
from twistedudp.errors import MethodError

ATTACK = "\\x1b]0;owned\\x07\\x9b2J\\nudpecho: all is well"

class Hostile(RPCMethods):
    """What no server should do."""

    @method
    def text(self):
        return {ATTACK: ATTACK}

    @method
    def error(self):
        raise MethodError("bad" + ATTACK, ATTACK)

    @method(name="\\x1b[2Jname")
    def named(self):
        """\\x1b[2J[red]"""

    @method
    def odd(self):
        return [b"\\x00\\xff", datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc), float("nan")]
'''


class CommandTestCase(SynchronousTestCase):
    """A test that runs ``udpecho``."""

    def udpecho(
        self, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command to its end."""
        return subprocess.run(
            [UDPECHO, *arguments],
            input=stdin,
            env=environment(extra=variables),
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )

    def answer(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run the command, which must succeed in silence, and return its output."""
        done = self.udpecho(*arguments, stdin=stdin)
        self.assertEqual((done.returncode, done.stderr), (0, b""), arguments)
        return done.stdout

    def failure(
        self, status: int, *arguments: str, stdin: bytes = b"", variables: Mapping[str, str] | None = None
    ) -> str:
        """Run the command, which must fail with a status and one line, and return the line."""
        done = self.udpecho(*arguments, stdin=stdin, variables=variables)
        self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
        self.assertRegex(done.stderr, rb"\Audpecho: [^\n]+\n\Z")
        return done.stderr.decode()

    def serve(self, *options: str, python_path: tuple[Path, ...] = ()) -> str:
        """Start a server for the rest of the test and return its HOST:PORT."""
        server = RunningTwistd(*options, python_path=python_path)
        self.addCleanup(server.stop)
        return format_address(server.address)

    def silent(self) -> str:
        """Bind a socket that never answers for the rest of the test, and return its HOST:PORT."""
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        return format_address(bound.getsockname())


class SendTests(CommandTestCase):
    """``udpecho send``."""

    def test_echo_server(self) -> None:
        """Text, bytes of standard input, hexadecimal, nothing and the most possible all come back as they were."""
        server = self.serve()
        self.assertEqual(self.answer("send", server, "Hello, UDP server!"), b"Hello, UDP server!\n")
        self.assertEqual(self.answer("send", server, ""), b"\n")
        every_byte = bytes(range(256))
        self.assertEqual(self.answer("send", server, "-", stdin=every_byte), every_byte)
        self.assertEqual(self.answer("send", "--hex", server, "C0 FFEE"), b"c0ffee\n")
        largest = os.urandom(65_507)
        self.assertEqual(self.answer("send", server, "-", stdin=largest), largest)

    def test_too_large(self) -> None:
        """One byte more than IPv4 carries is wrong usage that names both sizes; nothing is sent."""
        line = self.failure(2, "send", self.silent(), "-", stdin=bytes(65_508))
        self.assertIn("65,508 bytes, and at most 65,507", line)

    def test_no_backend(self) -> None:
        """A TWISTEDUDP_BACKEND that is none is wrong usage and not the server's fault, for names and numbers alike."""
        port = self.silent().rpartition(":")[2]
        for host in ("localhost", "127.0.0.1"):
            for command in (("send", f"{host}:{port}", "hello"), ("call", f"{host}:{port}", "add"), ("methods", host)):
                line = self.failure(2, *command, variables={"TWISTEDUDP_BACKEND": "fast"})
                self.assertTrue(
                    line.startswith("udpecho: there is no backend 'fast' (TWISTEDUDP_BACKEND asks"),
                    line,
                )

    def test_any_echo_server(self) -> None:
        """A plain socket that sends back what it gets will do, as in any tutorial."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
            echo.settimeout(LIMIT)
            echo.bind(("127.0.0.1", 0))
            command = [UDPECHO, "send", format_address(echo.getsockname()), "hello"]
            with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
                payload, peer = echo.recvfrom(65535)
                echo.sendto(payload, peer)
                output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual((payload, output, process.returncode), (b"hello", b"hello\n", 0))

    def test_closed_output(self) -> None:
        """Where standard output is closed the command ends all the same, also after a look-up in a thread."""
        port = self.serve().rpartition(":")[2]
        command = ["sh", "-c", f'exec "{UDPECHO}" send localhost:{port} hello >&-']
        done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, timeout=LIMIT, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_as_module(self) -> None:
        """``python -m twistedudp`` is the same command."""
        command = [sys.executable, "-m", "twistedudp", "send", self.serve(), "hello"]
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=LIMIT, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"hello\n", b""))

    def test_localhost(self) -> None:
        """A host may be a name, and -4 and -6 choose among its addresses."""
        port = self.serve().rpartition(":")[2]
        self.assertEqual(self.answer("send", f"localhost:{port}", "hello"), b"hello\n")
        self.assertEqual(self.answer("send", "-4", f"localhost:{port}", "hello"), b"hello\n")
        # The server is not on ::1, and on some machines localhost has no such address.
        self.failure(1, "send", "-6", f"localhost:{port}", "hello")

    def test_ipv6(self) -> None:
        """An IPv6 address with a port stands in brackets."""
        server = self.serve("--interface", "::1")
        self.assertTrue(server.startswith("[::1]:"), server)
        self.assertEqual(self.answer("send", "-6", server, "hello"), b"hello\n")


class NoAnswerTests(CommandTestCase):
    """Where nothing answers, the command says why, with exit status 1."""

    def test_refused(self) -> None:
        """A port where nobody listens is told at once, long before the timeout."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = format_address(free.getsockname())
        started = time.monotonic()
        line = self.failure(1, "send", "--timeout", "50", address, "hello")
        self.assertIn(f"{address} cannot be reached: Connection refused", line)
        self.assertLess(time.monotonic() - started, 40)

    def test_silent(self) -> None:
        """A silent server costs the timeout, and the line says how long and how often it was asked."""
        address = self.silent()
        line = self.failure(1, "call", "--timeout", "0.3", address, "add", "1", "2")
        self.assertRegex(
            line, rf"no answer from {re.escape(address)} within 0\.3\d* s, after [234] datagrams; .*--timeout"
        )

    def test_unknown_host(self) -> None:
        """A name that does not resolve is told with the name."""
        self.assertIn("'no such host' has a space", self.failure(2, "send", "no such host", "x"))
        self.assertIn("'%' does not resolve", self.failure(1, "send", "--timeout", "50", "%", "x"))

    def test_reflected(self) -> None:
        """A call to an echo server is told what listens there, and what to use instead."""
        self.assertIn("use 'udpecho send' with it", self.failure(1, "call", self.serve(), "add", "1", "2"))

    def test_broadcast(self) -> None:
        """A broadcast address is wrong usage."""
        self.assertIn("is a broadcast or multicast address", self.failure(2, "send", "255.255.255.255", "x"))

    def test_name_server_is_silent(self) -> None:
        """A look-up that hangs ends by the timeout, although its thread cannot be ended."""
        script = (
            "import socket, sys, time\n"
            "socket.getaddrinfo = lambda *arguments, **named: time.sleep(600)\n"
            "from twistedudp.cli import main\n"
            "main()\n"
        )
        command = [sys.executable, "-c", script, "send", "--timeout", "0.2", "server.example", "x"]
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=LIMIT, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertRegex(done.stderr, rb"\Audpecho: the name server did not answer within 0\.2\d* s; [^\n]*\n\Z")


class CallTests(CommandTestCase):
    """``udpecho call`` and ``udpecho methods`` against the calculator of the examples."""

    def setUp(self) -> None:
        """Start the calculator."""
        self.server = self.serve("--protocol", "calculator", python_path=(CALCULATOR,))

    def test_results(self) -> None:
        """Arguments are JSON values, a negative one needs no quoting, and results are JSON."""
        self.assertEqual(self.answer("call", self.server, "add", "1.5", "-4"), b"-2.5\n")
        self.assertEqual(
            json.loads(self.answer("call", self.server, "mean", "[3.14159, 2.71828, 1.41421]")), 2.42469 + 1e-5 / 3
        )
        value = '{"name":"Grüße","list":[1,null,true]}'
        self.assertEqual(self.answer("call", "--json", self.server, "echo", value), value.encode() + b"\n")
        self.assertEqual(self.answer("call", self.server, "echo", "bare"), b'"bare"\n')
        self.assertEqual(self.answer("call", self.server, "echo", "[1, {}]"), b"[\n  1,\n  {}\n]\n")

    def test_error_replies(self) -> None:
        """What the server refuses is exit status 3, and the line holds the error's code and text."""
        for arguments, text in (
            (("divide", "1", "0"), "division_by_zero: 1 cannot be divided by zero"),
            (("add", "1", "two"), "wrong_parameter_type: add(a: float, b: float) -> float, parameter b: "),
            (("add", "1"), "wrong_parameter_count: "),
            (("subtrackt", "1", "2"), "unknown_method: "),
        ):
            self.assertIn(text, self.failure(3, "call", self.server, *arguments))

    def test_not_encodable(self) -> None:
        """An argument that msgpack cannot carry is wrong usage."""
        self.assertIn("cannot be sent: params[0]", self.failure(2, "call", self.server, "echo", str(2**64)))

    def test_too_large(self) -> None:
        """Arguments beyond what a server takes are wrong usage."""
        self.assertRegex(self.failure(2, "call", self.server, "echo", "x" * 9000), r"9,0\d\d bytes, and at most 8,192")

    def test_methods(self) -> None:
        """The methods are listed with signatures and docstrings, for people and for scripts."""
        table = self.answer("methods", self.server).decode()
        self.assertRegex(table, r"(?m)^add\(a: float, b: float\) -> float +Return a \+ b\. \(idempotent\)$")
        listed = json.loads(self.answer("methods", "--json", self.server))
        self.assertIn(
            {
                "name": "add",
                "signature": "(a: float, b: float) -> float",
                "doc": "Return a + b.",
                "idempotent": True,
                "private": False,
            },
            listed,
        )
        self.assertEqual(table.count("\n"), len(listed) + 1)

    def test_closed_pipe(self) -> None:
        """A reader of the output that goes away, as head does, causes no traceback."""
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as output:
            done = subprocess.run(
                [UDPECHO, "methods", self.server],
                env=environment(),
                stdout=output,
                stderr=subprocess.PIPE,
                timeout=LIMIT,
                check=False,
            )
        self.assertEqual((done.returncode, done.stderr), (141, b""))


class TerminalTests(CommandTestCase):
    """What reaches a terminal."""

    def on_terminal(self, *arguments: str) -> bytes:
        """Run the command with a terminal of 80 columns as output and error output, and return what reached it."""
        terminal, process_side = pty.openpty()
        command = [UDPECHO, *arguments]
        with subprocess.Popen(
            command,
            env=environment(extra={"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": ""}),
            stdin=subprocess.DEVNULL,
            stdout=process_side,
            stderr=process_side,
        ) as process:
            os.close(process_side)
            received = b""
            # An error is how Linux tells that the other side is closed.
            with contextlib.suppress(OSError):
                while True:
                    received += os.read(terminal, 65536)
            process.wait(LIMIT)
        os.close(terminal)
        return received.replace(b"\r\n", b"\n")

    def test_hostile_server(self) -> None:
        """Nothing but the command's own colours steers the terminal, whatever a server puts into its answers."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        directory.write("hostile.py", HOSTILE)
        server = self.serve(
            "--protocol", "rpc", "--protocol-option", "class_=hostile:Hostile", python_path=(directory.path,)
        )
        for arguments in (("call", server, "text"), ("call", server, "error"), ("methods", server)):
            received = self.on_terminal(*arguments)
            self.assertIn(b"u001b", received)
            without_colours = re.sub(rb"\x1b\[[0-9;]*m", b"", received).decode()
            self.assertTrue(without_colours.replace("\n", "").isprintable(), without_colours)
            self.assertNotRegex(without_colours, "(?m)^udpecho: all is well")
        self.assertEqual(
            json.loads(self.answer("call", server, "odd")), [{"base64": "AP8="}, "2026-01-31T12:00:00Z", "NaN"]
        )

    def test_colours(self) -> None:
        """On a terminal a result is indented and coloured."""
        server = self.serve("--protocol", "calculator", python_path=(CALCULATOR,))
        received = self.on_terminal("call", server, "echo", '{"a": 1}')
        self.assertIn(b"\x1b[", received)
        self.assertEqual(re.sub(rb"\x1b\[[0-9;]*m", b"", received), b'{\n  "a": 1\n}\n')


class InterruptTests(CommandTestCase):
    """Ctrl-C."""

    def test_interrupt(self) -> None:
        """SIGINT while a request is waiting ends the command at once, with status 130 and without a word."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.settimeout(LIMIT)
            silent.bind(("127.0.0.1", 0))
            command = [UDPECHO, "send", "--timeout", "500", format_address(silent.getsockname()), "hello"]
            with subprocess.Popen(
                command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as process:
                silent.recv(100)
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual((process.returncode, output), (130, b""))
