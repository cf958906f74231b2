"""``twistd udpecho`` as a process: start, stop, and what keeps it from starting."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.twistd import (
    TWISTD,
    Directory,
    RunningTwistd,
    daemon_ended,
    environment,
    pid_in,
    run_twistd,
    started_address,
)

if TYPE_CHECKING:
    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

EMPTY_PLUGIN = """
from twisted.application.service import ServiceMaker
empty = ServiceMaker("empty", "empty_tap", "Does nothing.", "empty")
"""

EMPTY_TAP = """
from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python import usage

class Options(usage.Options):
    pass

class Empty(Service):
    def startService(self):
        super().startService()
        Logger().info("empty has started")

def makeService(options):
    return Empty()
"""


def answers(address: Address) -> bool:
    """Tell whether an echo server answers within a minute."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.sendto(b"there?", address)
        return client.recv(100) == b"there?"


class ForegroundTests(SynchronousTestCase):
    """``twistd -n``."""

    def test_start_and_stop(self) -> None:
        """SIGTERM and SIGINT end it as any twistd: it dies by that signal, with a line for start and stop each."""
        for by in (signal.SIGTERM, signal.SIGINT):
            with RunningTwistd() as server:
                port = server.address[1]
                self.assertEqual(server.address[0], "127.0.0.1")
                self.assertGreater(port, 0)
                self.assertTrue(answers(server.address))
                self.assertEqual(server.stop(by), -by)
            lines = [line.partition("] ")[2] for line in server.output.splitlines() if str(port) in line]
            self.assertEqual(
                lines,
                [f"echo {what} on 127.0.0.1:{port} (UDP)" for what in ("is listening", "has stopped listening")],
            )
            self.assertEqual(server.errors, "")
            self.assertNotIn("Traceback", server.output)

    def test_port_is_free_afterwards(self) -> None:
        """The same port can be had again at once."""
        with RunningTwistd() as server:
            port = server.address[1]
        with RunningTwistd("--port", str(port)) as server:
            self.assertEqual(server.address[1], port)
            self.assertTrue(answers(server.address))

    def test_help(self) -> None:
        """``twistd --help`` lists the command."""
        with Directory() as directory:
            finished = run_twistd("--help", directory=directory.path)
        self.assertEqual(finished.returncode, 0)
        self.assertRegex(finished.stdout, r"(?m)^\s+udpecho\s+Serve a UDP protocol")

    def test_verbose(self) -> None:
        """A line per datagram with sender and size, and not a byte of it."""
        with RunningTwistd("--verbose") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.sendto(b"very secret", server.address)
            line = server.wait_for("11 bytes")
            self.assertIn(f"echo: 11 bytes from 127.0.0.1:{client.getsockname()[1]}\n", line)
            self.assertNotIn("secret", server.output)


class DaemonTests(SynchronousTestCase):
    """``twistd`` in the background."""

    def test_start_and_stop(self) -> None:
        """The parent returns when the server listens; SIGTERM ends the daemon, and its pid file is gone."""
        with Directory() as directory:
            finished = run_twistd("udpecho", "--port", "0", directory=directory.path)
            self.assertEqual((finished.returncode, finished.stdout, finished.stderr), (0, "", ""))
            pid = pid_in(directory.path)
            try:
                log = directory.path / "twistd.log"
                address = started_address(log.read_text(encoding="utf-8"))
                self.assertTrue(answers(address))
            finally:
                self.assertTrue(daemon_ended(pid))
            self.assertFalse((directory.path / "twistd.pid").exists())
            text = log.read_text(encoding="utf-8")
            self.assertIn(f"echo has stopped listening on 127.0.0.1:{address[1]} (UDP)", text)
            self.assertNotIn("Traceback", text)


class RefusedTests(SynchronousTestCase):
    """What keeps it from starting: one line, exit status 1, no pid file, no parent that waits; in both modes."""

    def refused(self, *options: str, prefix: tuple[str, ...] = ()) -> str:
        """Start a server that cannot start, in both modes; return the line."""
        lines = []
        for mode in (("-n",), ()):
            with Directory() as directory:
                finished = run_twistd(*mode, "udpecho", *options, directory=directory.path, prefix=prefix)
                self.assertEqual((finished.returncode, finished.stdout), (1, ""))
                self.assertEqual(list(directory.path.iterdir()), [])
            self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
            self.assertTrue(finished.stderr.startswith("twistd udpecho: "), finished.stderr)
            lines.append(finished.stderr)
        self.assertEqual(lines[0], lines[1])
        return lines[0]

    def test_port_in_use(self) -> None:
        """The port, the address, and the process that holds it: this one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            line = self.refused("--port", str(port))
            self.assertIn(f"UDP port 127.0.0.1:{port} is in use by ", line)
            self.assertIn(f"(pid {os.getpid()})", line)
            self.assertIn("--port", line)
            self.assertIn(f"0.0.0.0:{port} is in use", self.refused("--port", str(port), "--interface", "0.0.0.0"))  # noqa: S104  # refused

    def test_privileged_port(self) -> None:
        """The ways out are named."""
        start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        if not start.exists() or int(start.read_text(encoding="ascii")) < 2:
            raise SkipTest("every port is open to all on this machine (net.ipv4.ip_unprivileged_port_start)")
        without = ("setpriv", "--bounding-set", "-net_bind_service") if os.geteuid() == 0 else ()
        line = self.refused("--port", "1", prefix=without)
        self.assertIn("UDP port 127.0.0.1:1 needs a right", line)
        for way in ("--uid", "CAP_NET_BIND_SERVICE", "ip_unprivileged_port_start", "--port"):
            self.assertIn(way, line)

    def test_interface_of_another_machine(self) -> None:
        """An address of the documentation network (RFC 5737) is nobody's."""
        self.assertIn("192.0.2.77 is not an address of this machine", self.refused("--interface", "192.0.2.77"))

    def test_wrong_options(self) -> None:
        """One line for each kind of mistake."""
        for options, expected in (
            (("--port", "many"), "--port: 'many'"),
            (("--prot", "x"), "--protocol or --protocol-option"),
            (("--interfase", "x"), "did you mean '--interface'?"),
            (("--protocol", "ecco"), "did you mean 'echo'?"),
            (("10000",), "'10000' is not an option"),
            (("--receive-buffer", "0"), "--receive-buffer: '0'"),
        ):
            self.assertIn(expected, self.refused(*options))

    def test_no_backend(self) -> None:
        """A name in TWISTEDUDP_BACKEND that is no backend's."""
        line = self.refused("--port", "0", prefix=("env", "TWISTEDUDP_BACKEND=fast"))
        self.assertIn("no backend 'fast' (TWISTEDUDP_BACKEND asks for it); the backends are mmsg", line)


class ReadinessTests(SynchronousTestCase):
    """How soon it is ready."""

    RUNS = 7
    ROUNDS = 3
    """Rounds of runs that may be pooled: on a busy machine single starts differ by more than what is measured."""
    LIMIT = 0.1
    """Seconds that an echo server may be ready later than a twistd with an empty plugin."""

    def test_ready_soon(self) -> None:
        """The median start is at most 100 ms longer than that of a twistd whose plugin does nothing."""
        with Directory() as directory:
            directory.plugin_file("empty_plugin", EMPTY_PLUGIN)
            directory.write("empty_tap.py", EMPTY_TAP)
            empty: list[float] = []
            ours: list[float] = []
            self.seconds_to_start(directory.path, "empty")  # this one writes caches
            for _ in range(self.ROUNDS):
                for _ in range(self.RUNS):
                    empty.append(self.seconds_to_start(directory.path, "empty"))
                    ours.append(self.seconds_to_start(directory.path, "udpecho", "--port", "0"))
                later = statistics.median(ours) - statistics.median(empty)
                if later <= self.LIMIT:
                    break
        self.assertLessEqual(later, self.LIMIT, f"empty {empty}, udpecho {ours}")

    def seconds_to_start(self, directory: Path, *command: str) -> float:
        """Return the seconds from the call to the line that says that the service has started."""
        begun = time.perf_counter()
        with RunningTwistd(
            python_path=[directory], command=command, started=re.compile("has started|is listening")
        ) as server:
            elapsed = time.perf_counter() - begun
            server.stop()
        return elapsed

    def test_imports(self) -> None:
        """An echo server loads neither the codec nor the command line client, nor do the plugin files."""
        script = (
            "import sys; import twisted.plugins.twistedudp_plugin; light = set(sys.modules); "
            "import twistedudp.tap, twistedudp._startup, twistedudp.echo; "
            "heavy = {'msgpack', 'msgspec', 'click', 'rich', 'twistedudp.methods', 'twistedudp.core'}; "
            "reactor = {'twisted.internet.reactor', 'twistedudp.transport'}; "
            "print(sorted(light & (heavy | reactor)), sorted(set(sys.modules) & heavy))"
        )
        with Directory() as directory:
            finished = subprocess.run(
                [sys.executable, "-c", script],
                cwd=directory.path,
                env=environment(),
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
        self.assertEqual(finished.stdout, "[] []\n")

    def test_installed(self) -> None:
        """There is a twistd beside this Python: these tests are about the installed package."""
        self.assertTrue(Path(TWISTD).exists(), TWISTD)
