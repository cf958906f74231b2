"""``udpecho ping`` as a process, against real servers on loopback: outputs, signals, and the live display."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.pings import screen_of, temporary_folder
from tests.integration.test_cli import CALCULATOR, LIMIT, UDPECHO, CommandTestCase
from tests.integration.twistd import environment
from twistedudp.address import format_address

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.heavy


class PingTests(CommandTestCase):
    """Runs that end by themselves."""

    def test_echo(self) -> None:
        """A line for each datagram and a summary; a name is probed at the address that answers."""
        port = self.serve().rpartition(":")[2]
        text = self.answer("ping", f"localhost:{port}", "-c", "5", "-i", "10ms").decode()
        self.assertRegex(text, rf"\Audpecho ping localhost:{port} \(127\.0\.0\.1:{port}\): 64 bytes every 10 ms\n")
        self.assertEqual(len(re.findall(r"(?m)^64 bytes from 127\.0\.0\.1:\d+: seq=\d time=\d+\.\d+ ms$", text)), 5)
        self.assertIn("5 sent, 5 received, 0 lost (0%)", text)
        self.assertIn("answered by echo", text)

    def test_rpc(self) -> None:
        """An rpc server of ours tells the loss in each direction, over IPv6 as well."""
        server = self.serve("--interface", "::1", "--protocol", "calculator", python_path=(CALCULATOR,))
        found = json.loads(self.answer("ping", "-6", server, "-c", "20", "-i", "5ms", "--json", "--size", "1000"))
        self.assertEqual((found["protocol"], found["size"], found["received"]), ("rpc", 1000, 20))
        self.assertEqual((found["lost_there"], found["lost_back"], found["duplicated_there"]), (0, 0, 0))
        self.assertLess(found["server_time"]["p50"], found["p50"])

    def test_flood(self) -> None:
        """A flood prints no line for each datagram, and counts them all."""
        text = self.answer("ping", self.serve(), "--flood", "2000", "-w", "0.5").decode()
        self.assertNotIn("seq=", text)
        self.assertIn("probes       1,000 sent", text)

    def test_files(self) -> None:
        """One run writes rows, a picture and the summary."""
        folder = temporary_folder(self)
        csv, plot = str(folder / "rtt.csv"), str(folder / "rtt.png")
        done = self.udpecho("ping", self.serve(), "-c", "20", "-i", "10ms", "--csv", csv, "--plot", plot, "-q")
        if b"needs matplotlib" in done.stderr:
            self.assertEqual(done.returncode, 2)
            self.assertFalse(Path(csv).exists())
            return
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        rows = Path(csv).read_text(encoding="utf-8").splitlines()
        self.assertEqual(len(rows), 21)
        sent = [float(row.split(",")[2]) for row in rows[1:]]
        self.assertLess(abs(sent[0] - time.time()), LIMIT)
        self.assertEqual(sent, sorted(sent))
        self.assertTrue(Path(plot).read_bytes().startswith(b"\x89PNG"))

    def test_limits(self) -> None:
        """A limit that is exceeded is exit status 1 and one line, also beside JSON."""
        done = self.udpecho("ping", self.serve(), "-c", "5", "-i", "10ms", "--max-p99", "1us", "--json")
        self.assertEqual((done.returncode, json.loads(done.stdout)["received"]), (1, 5))
        self.assertRegex(done.stderr, rb"\Audpecho: p99 is [^\n]+, more than --max-p99 1 us\n\Z")

    def test_nobody(self) -> None:
        """A port where nobody listens, and a name that nobody has, are one line each and exit status 1."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = format_address(free.getsockname())
        done = self.udpecho("ping", address, "-c", "2", "-i", "10ms", "--timeout", "0.1")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), rf"\Audpecho: nobody listens at {address}: [^\n]+\n\Z")
        self.assertIn(b"2 sent, 0 received, 2 lost (100%)", done.stdout)
        self.assertIn("'%' does not resolve", self.failure(1, "ping", "%"))

    def test_full_disk(self) -> None:
        """A disk that is full ends the run with a line that names the file."""
        done = self.udpecho("ping", self.serve(), "-c", "3", "-i", "10ms", "--csv", "/dev/full", "-q")
        self.assertEqual(
            (done.returncode, done.stdout, done.stderr),
            (1, b"", b"udpecho: the system refused: /dev/full: No space left on device\n"),
        )

    def test_closed_pipe(self) -> None:
        """A reader that goes away ends the run at once, with 141 as for any program, and without a traceback."""
        server = self.serve()
        for options in (("--plain",), ("--json-lines",), ("--csv", "-"), ("--flood", "1000")):
            command = [UDPECHO, "ping", server, *options] + ([] if "--flood" in options else ["-i", "10ms"])
            with subprocess.Popen(
                command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()
                process.stdout.close()
                self.assertEqual(process.wait(LIMIT), 141, options)
                assert process.stderr is not None
                self.assertEqual(process.stderr.read(), b"")


class InterruptTests(CommandTestCase):
    """Ctrl-C, where the output is no terminal."""

    def interrupted(self, *options: str, line: bytes) -> tuple[int, bytes, bytes]:
        """Interrupt a run once it has printed a line that begins like this; return status, the rest, and errors."""
        with subprocess.Popen(
            [UDPECHO, "ping", *options], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            while not process.stdout.readline().startswith(line):
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=LIMIT)
        return process.returncode, output, errors

    def test_summary(self) -> None:
        """It ends the run, prints the summary, and the exit status is that of the run."""
        server = self.serve()
        status, output, errors = self.interrupted(server, "-i", "20ms", line=b"64 bytes from")
        self.assertEqual((status, errors), (0, b""))
        self.assertRegex(output.decode(), rf"\n--- {server} ---\n(?s:.*) received, 0 lost \(0%\)\n")

    def test_json_lines(self) -> None:
        """It ends JSON lines by that of the summary."""
        status, output, errors = self.interrupted(self.serve(), "-i", "20ms", "--json-lines", line=b'{"event":"reply"')
        self.assertEqual((status, errors), (0, b""))
        self.assertEqual(json.loads(output.splitlines()[-1])["event"], "summary")

    def test_limits(self) -> None:
        """The limits hold for a run that was interrupted."""
        status, _, errors = self.interrupted(self.serve(), "-i", "20ms", "--max-p50", "1us", line=b"64 bytes from")
        self.assertEqual(status, 1)
        self.assertIn(b"--max-p50", errors)

    def test_silence(self) -> None:
        """Where nothing has come back, the status is 1 and the line says so."""
        status, output, errors = self.interrupted(
            self.silent(), "-i", "10ms", "--timeout", "50ms", line=b"no answer from"
        )
        self.assertEqual(status, 1)
        self.assertIn(b" 0 received, ", output)
        self.assertRegex(errors, rb"\Audpecho: nothing came back from [^\n]+\n\Z")


class Terminal:
    """A terminal on which ``udpecho ping`` runs.

    Attributes:
        process: The process.
        received: What reached the terminal.
    """

    def __init__(self, *arguments: str, columns: int = 80, variables: dict[str, str] | None = None) -> None:
        self._side, inner = pty.openpty()
        self.resize(columns)
        self.received = ""
        extra = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "", "LINES": "", **(variables or {})}
        self.process = subprocess.Popen(
            [UDPECHO, "ping", *arguments],
            env=environment(extra=extra),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            # So that Ctrl-C is typed and not sent.
            preexec_fn=lambda: fcntl.ioctl(inner, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # it takes no lock
        )
        os.close(inner)

    def resize(self, columns: int) -> None:
        """Change the width, of which the process is told as by any terminal."""
        fcntl.ioctl(self._side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Type something."""
        os.write(self._side, text)

    def read_until(self, pattern: str) -> None:
        """Wait for what a pattern describes."""
        end = time.monotonic() + LIMIT
        while not re.search(pattern, self.received):
            ready, _, _ = select.select([self._side], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AssertionError(f"{pattern!r} did not come, but {self.received!r}")
            self._read()

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        with contextlib.suppress(OSError):  # how Linux tells that the other side is closed
            while True:
                self._read()
        os.close(self._side)
        return self.process.wait(LIMIT)

    def _read(self) -> None:
        self.received += os.read(self._side, 65536).decode()


class LiveTests(CommandTestCase):
    """The live display."""

    @contextlib.contextmanager
    def terminal(
        self, *arguments: str, columns: int = 80, variables: dict[str, str] | None = None
    ) -> Iterator[Terminal]:
        """Run on a terminal, to the end of the ``with`` block at the latest."""
        terminal = Terminal(*arguments, columns=columns, variables=variables)
        try:
            yield terminal
        finally:
            if terminal.process.poll() is None:
                terminal.process.kill()
                terminal.process.wait()

    def test_run(self) -> None:
        """The display shows the run and is gone at the end; what stays is the summary alone."""
        server = self.serve()
        with self.terminal(server, "-c", "30", "-i", "50ms", columns=80) as terminal:
            self.assertEqual(terminal.end(), 0)
        shown = terminal.received
        self.assertIn("30 sent, 30 received, 0 lost", shown)
        self.assertRegex(shown, r"[▁▂▃▄▅▆▇█]{5}")
        self.assertRegex(shown, r" \d+%  \d\.\d s left")
        screen = screen_of(shown)
        self.assertEqual(screen[0], f"--- {server} ---")
        self.assertNotIn(" s left", "".join(screen))
        self.assertNotIn("seq=", shown)
        self.assertGreater(shown.rfind("\x1b[?25h"), shown.rfind("\x1b[?25l"))

    def test_rate(self) -> None:
        """It is drawn at most ten times a second, whatever the rate of the probes."""
        for options, most in ((("-i", "20ms"), 10), (("-i", "1ms"), 4)):
            with self.terminal(self.serve(), *options, "-w", "1") as terminal:
                self.assertEqual(terminal.end(), 0)
            drawn = terminal.received.count(" sent, ") - 1
            self.assertTrue(2 <= drawn <= most + 6, (options, drawn))

    def test_interrupt(self) -> None:
        """Ctrl-C erases it, and its ^C, and the summary stands alone."""
        server = self.serve()
        with self.terminal(server, "-i", "20ms") as terminal:
            terminal.read_until(r"(?s)[1-9]\d* received.*Ctrl-C ends the run")
            terminal.type(b"\x03")
            self.assertEqual(terminal.end(), 0)
        screen = screen_of(terminal.received)
        self.assertEqual(screen[0], f"--- {server} ---")
        self.assertNotIn("Ctrl-C", "".join(screen))

    def test_widths(self) -> None:
        """No line is longer than the terminal, also after it became narrower."""
        with self.terminal(self.serve(), "-i", "20ms", columns=200) as terminal:
            terminal.read_until(r"(?s)[1-9]\d* received.*Ctrl-C ends")
            terminal.resize(40)
            before = len(terminal.received)
            terminal.read_until(rf"(?s)\A.{{{before}}}(.*\x1b\[2K){{20}}")
            terminal.type(b"\x03")
            self.assertEqual(terminal.end(), 0)
        later = terminal.received[before:]
        lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", later)]
        live = [line for line in lines if "bytes every" in line and not line.startswith("run")]
        self.assertLessEqual(max(map(len, live[2:])), 40)

    def test_no_colour(self) -> None:
        """NO_COLOR turns the colours off."""
        with self.terminal(self.silent(), "-c", "5", "-i", "20ms", "--timeout", "0.2") as terminal:
            self.assertEqual(terminal.end(), 1)
        self.assertRegex(terminal.received, r"\x1b\[[0-9;]*31m")
        with self.terminal(
            self.silent(), "-c", "5", "-i", "20ms", "--timeout", "0.2", variables={"NO_COLOR": "1"}
        ) as terminal:
            self.assertEqual(terminal.end(), 1)
        self.assertNotRegex(terminal.received, r"\x1b\[[0-9;]*3[0-7]m")
        self.assertIn("5 lost (100%)", terminal.received)

    def test_plain(self) -> None:
        """With --plain, and on a terminal that can do nothing, there are lines."""
        for options, variables in ((["--plain"], {}), ([], {"TERM": "dumb"})):
            with self.terminal(self.serve(), "-c", "2", "-i", "20ms", *options, variables=variables) as terminal:
                self.assertEqual(terminal.end(), 0)
            self.assertEqual(terminal.received.count("seq="), 2)
            self.assertNotIn("\x1b", terminal.received)

    def test_killed(self) -> None:
        """SIGTERM ends it as it ends any program, with the cursor shown again."""
        with self.terminal(self.serve(), "-i", "20ms") as terminal:
            terminal.read_until("Ctrl-C ends the run")
            terminal.process.terminate()
            self.assertEqual(terminal.end(), -signal.SIGTERM)
        self.assertTrue(terminal.received.endswith("\x1b[?25h"), terminal.received[-40:])
