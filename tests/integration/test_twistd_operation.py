"""``twistd udpecho`` in production: sockets that a supervisor has bound, ``--public``, secrets, another user."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.activating import activated, descriptors
from tests.integration.test_twistd_echo import ipv6_works
from tests.integration.test_twistd_plugins import NOBODY, plugin_text, readable_by_nobody
from tests.integration.twistd import (
    PATIENCE,
    TWISTD,
    Directory,
    RunningTwistd,
    daemon_ended,
    environment,
    failed_daemon_ended,
    pid_in,
    run_twistd,
    started_address,
)
from twistedudp import _msgpack
from twistedudp.messages import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

pytestmark = pytest.mark.heavy

ANY = "0.0.0.0"  # noqa: S104  # served on loopback's behalf: a test of what a wildcard bind answers

ECHO = ("udpecho",)

PRELOADED = "import twistedudp.protocol\n"
"""Imported by root: the user to whom it changes may not be able to read Python's own library."""

PROTOCOLS = """
import os
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twistedudp import RPCMethods, method

class Plain(DatagramProtocol):
    pass

class Harmless(DatagramProtocol):
    amplifies = False

class Methods(RPCMethods):
    @method
    async def who(self, seconds: float = 0.0) -> list[int]:
        from twisted.internet import reactor
        await deferLater(reactor, seconds)
        return [os.getuid(), os.geteuid(), os.getgid()]

    @method
    def variables(self) -> list[str]:
        return [name for name in os.environ if name.startswith("LISTEN_")]
"""


class OperationTestCase(SynchronousTestCase):
    """A directory with protocols, and a client."""

    def setUp(self) -> None:
        """Make them."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        self.directory = directory
        self.run_in = directory.path / "run"
        self.run_in.mkdir()
        self.run_in.chmod(0o777)
        directory.write("targets.py", PROTOCOLS)
        for name in ("Plain", "Harmless", "Methods"):
            directory.plugin_file(f"{name}_plugin", PRELOADED + plugin_text(name.lower(), f"targets:{name}"))
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.settimeout(PATIENCE)
        self.addCleanup(self.client.close)

    def ask(self, address: Address, data: bytes = b"hello") -> bytes:
        """Send a datagram and return the answer, which must come from where it was sent to."""
        self.client.sendto(data, address)
        answer, sender = self.client.recvfrom(65536)
        self.assertEqual(sender, address)
        return answer

    def call(self, address: Address, msgid: int, name: str, *params: object) -> object:
        """Call a method and return its result."""
        response = _msgpack.decode_untrusted(self.ask(address, _msgpack.encode_request(msgid, name, list(params))))
        assert isinstance(response, Response)
        self.assertEqual((response.msgid, response.error), (msgid, None))
        return response.result


class InheritedTests(OperationTestCase):
    """A parent that binds the socket and keeps it."""

    def bound(self, host: str = "127.0.0.1", kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """Bind a socket."""
        handle = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        self.addCleanup(handle.close)
        handle.bind((host, 0))
        return handle

    def serving(self, sockets: Sequence[socket.socket], *options: str, **variables: str) -> RunningTwistd:
        """Start a server with sockets."""
        return RunningTwistd(
            *options,
            command=ECHO,
            python_path=[self.directory.path],
            prefix=activated(sockets, **variables),
            pass_fds=descriptors(sockets),
        )

    def refused(self, sockets: Sequence[socket.socket], *options: str, **variables: str) -> str:
        """Start a server that cannot start; return the line."""
        finished = subprocess.run(
            [*activated(sockets, **variables), TWISTD, "-n", "udpecho", *options],
            cwd=self.run_in,
            env=environment(),
            pass_fds=descriptors(sockets),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((finished.returncode, finished.stdout, finished.stderr.count("\n")), (1, "", 1), finished)
        self.assertEqual(list(self.run_in.iterdir()), [])
        return finished.stderr.removeprefix("twistd udpecho: ").rstrip("\n")

    def test_restarts(self) -> None:
        """One socket, several servers, each backend: what came between two of them is answered by the next one."""
        parent = self.bound(ANY)
        port = parent.getsockname()[1]
        for number, early in enumerate((b"before the first", b"before the second")):
            self.client.sendto(early, ("127.0.0.5", port))
            with self.serving([parent]) as server:
                self.assertEqual(self.client.recvfrom(100), (early, ("127.0.0.5", port)), number)
                self.assertEqual(self.ask(("127.0.0.1", port)), b"hello")
                self.assertEqual(server.address, (ANY, port))
                self.assertEqual(server.stop(), -signal.SIGTERM)

    def test_names(self) -> None:
        """With names the one called udpecho is served, and the log tells of the rest; children are told nothing."""
        sockets = [self.bound(kind=socket.SOCK_STREAM), self.bound(), self.bound()]
        address = sockets[2].getsockname()
        with self.serving(sockets, "--protocol", "methods", LISTEN_FDNAMES="http:other:udpecho") as server:
            self.assertEqual(server.address, address)
            self.assertEqual(self.call(address, 1, "variables"), [])
            self.assertIn("the descriptors 3, 4 were passed as well (LISTEN_FDS) and are not served", server.output)

    def test_no_names(self) -> None:
        """Without names it is the first UDP socket, of either family; here on the backend in plain Python."""
        sockets = [self.bound(kind=socket.SOCK_STREAM), self.bound("::1" if ipv6_works() else "127.0.0.1")]
        with self.serving(sockets, TWISTEDUDP_BACKEND="scalar") as server:
            address = server.address
            self.assertEqual(address, sockets[1].getsockname()[:2])
            with socket.socket(sockets[1].family, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"hello", address)
                self.assertEqual(client.recv(100), b"hello")

    def test_fd(self) -> None:
        """--fd names the descriptor; what the environment says is for somebody else."""
        parent = self.bound()
        elsewhere = activated([parent], LISTEN_PID="1")
        for number, prefix in ((parent.fileno(), ()), (3, elsewhere)):
            with RunningTwistd(
                *("--fd", str(number)), command=ECHO, prefix=prefix, pass_fds=descriptors([parent])
            ) as server:
                self.assertEqual(self.ask(server.address), b"hello")
                self.assertEqual(server.address, parent.getsockname())

    def test_daemon(self) -> None:
        """A daemon's process is another than the one that was meant, and serves the socket all the same."""
        parent = self.bound()
        finished = subprocess.run(
            [*activated([parent]), TWISTD, "udpecho"],
            cwd=self.run_in,
            env=environment(),
            pass_fds=descriptors([parent]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((finished.returncode, finished.stdout, finished.stderr), (0, "", ""))
        try:
            self.assertEqual(self.ask(parent.getsockname()), b"hello")
        finally:
            self.assertTrue(daemon_ended(pid_in(self.run_in)))

    def test_refused(self) -> None:
        """What is wrong with it is one line, and no file is left."""
        stream, datagram = self.bound(kind=socket.SOCK_STREAM), self.bound()
        port = datagram.getsockname()[1]
        for line, expected in (
            (
                self.refused([stream]),
                "none of the descriptors passed (LISTEN_FDS) is a UDP socket to serve: 3 is a TCP",
            ),
            (self.refused([datagram], LISTEN_PID="1"), "LISTEN_PID is '1' and this process is "),
            (self.refused([datagram], LISTEN_FDS="2", LISTEN_FDNAMES="other:udpecho"), "4 is not open"),
            (self.refused([datagram], "--port", str(port - 1)), f"is bound to 127.0.0.1:{port}, which --port and"),
            (self.refused([datagram], "--fd", "77"), "the descriptor 77 is not open"),
            (self.refused([], "--fd", "0"), "the descriptor 0 is no socket"),
        ):
            self.assertIn(expected, line)

    def test_systemd(self) -> None:
        """The program of systemd for trying it out starts the server at the first datagram, which is answered."""
        program = shutil.which("systemd-socket-activate")
        if program is None:
            raise SkipTest("systemd-socket-activate is not installed")
        with self.bound() as probe:
            port = probe.getsockname()[1]
        # It ends, as the process that it was, in the server: the signal reaches that one.
        supervisor = subprocess.Popen(
            [program, "--datagram", "--fdname=udpecho", f"--listen=127.0.0.1:{port}"]
            + [f"--setenv={name}={value}" for name, value in environment().items() if "\n" not in value]
            + [TWISTD, "-n", "--pidfile=", "udpecho"],
            cwd=self.run_in,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert supervisor.stdout is not None
            self.assertIn("Listening on", supervisor.stdout.readline())
            self.assertEqual(self.ask(("127.0.0.1", port), b"wake up"), b"wake up")
        finally:
            supervisor.send_signal(signal.SIGTERM)
            output, _ = supervisor.communicate(timeout=PATIENCE)
        self.assertEqual(started_address(output), ("127.0.0.1", port))
        self.assertNotIn("Traceback", output)


class PublicTests(OperationTestCase):
    """``--public``, where it can be told only when the protocol is made."""

    def refused(self, *options: str, twistd_options: Sequence[str] = ()) -> str:
        """Start a server that is refused, in both modes; return the line."""
        line = ""
        for mode in (("-n",), ()):
            finished = run_twistd(
                *mode,
                *twistd_options,
                *("udpecho", "--public", "--port", "0", "--interface", ANY),
                *options,
                directory=self.run_in,
                python_path=[self.directory.path],
            )
            self.assertEqual((finished.returncode, "Traceback" in finished.stderr), (1, False), finished.stderr)
            self.assertIn("--public: ", finished.stderr)
            if mode:
                self.assertEqual(finished.stderr.count("\n"), 1, finished.stderr)
                line = finished.stderr.removeprefix("twistd udpecho: ")
            self.assertTrue(failed_daemon_ended(self.run_in))
            log = self.run_in / "twistd.log"
            self.assertLessEqual(set(self.run_in.iterdir()), {log})  # no pid file
            if log.exists():
                self.assertNotIn("listening", log.read_text(encoding="utf-8"))
                log.unlink()
        return line

    def test_refused(self) -> None:
        """A protocol that says nothing, echo that answers everybody, and limits that are none."""
        self.assertIn("nobody says whether the protocol 'plain'", self.refused("--protocol", "plain"))
        self.assertIn("answer_privileged_ports", self.refused("--protocol-option", "answer_privileged_ports=true"))
        self.assertIn("--rate 0 lets one host send", self.refused("--rate", "0"))

    def test_served(self) -> None:
        """Echo, methods, and a protocol that says that it is harmless."""
        for protocol in ("echo", "methods", "harmless"):
            with RunningTwistd(
                *("--public", "--interface", ANY, "--protocol", protocol), python_path=[self.directory.path]
            ) as server:
                self.assertIn(f"{protocol} is listening on {ANY}", server.output)


class UserTests(OperationTestCase):
    """All of it together with ``--uid``, on a port that only root can bind."""

    def setUp(self) -> None:
        """See that it can be tried."""
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can become somebody else")
        if not readable_by_nobody():
            raise SkipTest(f"the package is installed where the user {NOBODY} cannot read it")

    def test_all(self) -> None:
        """A key that only root can read, a privileged port, limits: read and bound before the change; then drained."""
        key = self.directory.write("key", "k" * 32)
        key.chmod(0o600)
        options = ("--protocol", "methods", "--token-key-file", str(key), "--public", "--interface", ANY)
        with self.on_privileged_port(*options, "--rate", "100", "--deny", "192.0.2.0/24") as server:
            address = "127.0.0.1", server.address[1]
            self.assertEqual(self.call(address, 1, "who"), [NOBODY] * 3)
            self.client.sendto(_msgpack.encode_request(2, "who", [0.5]), address)
            self.assertEqual(self.call(address, 3, "variables"), [])  # so the one before runs
            self.assertEqual(server.stop(), -signal.SIGTERM)
            answer = _msgpack.decode_untrusted(self.client.recv(1000))
            self.assertEqual(answer, Response(2, None, [NOBODY] * 3))
        self.assertNotIn("Traceback", server.output)

    def on_privileged_port(self, *options: str) -> RunningTwistd:
        """Start a server that gives root's rights up on some free port below 1024."""
        for port in range(1023, 511, -1):
            try:
                return RunningTwistd(
                    *options,
                    command=("udpecho", "--port", str(port)),
                    python_path=[self.directory.path],
                    twistd_options=["--uid", str(NOBODY), "--gid", str(NOBODY)],
                )
            except AssertionError as error:  # noqa: PERF203  # each port is another try
                if "is in use" not in str(error):
                    raise
        raise SkipTest("no port from 512 to 1023 is free")

    def test_inherited(self) -> None:
        """A socket that was inherited by root is served by the other user."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as parent:
            parent.bind(("127.0.0.1", 0))
            with RunningTwistd(
                *("--protocol", "methods"),
                command=ECHO,
                python_path=[self.directory.path],
                twistd_options=["--uid", str(NOBODY)],
                prefix=activated([parent]),
                pass_fds=descriptors([parent]),
            ) as server:
                self.assertEqual(server.address, parent.getsockname())
                self.assertEqual(self.call(server.address, 1, "who"), [NOBODY] * 3)

    def test_refused_after_the_change(self) -> None:
        """What --public refuses when the protocol is made leaves no pid file, though another user has to remove it."""
        for mode in (("-n",), ()):
            finished = run_twistd(
                *(*mode, "--uid", str(NOBODY), "udpecho", "--public", "--port", "0"),
                *("--interface", ANY, "--protocol", "plain"),
                directory=self.run_in,
                python_path=[self.directory.path],
            )
            self.assertEqual(finished.returncode, 1, finished.stderr)
            self.assertIn("--public: nobody says whether the protocol 'plain'", finished.stderr)
            self.assertTrue(failed_daemon_ended(self.run_in))
            self.assertFalse((self.run_in / "twistd.pid").exists())


class StartTests(SynchronousTestCase):
    """What the start costs who uses none of this."""

    def test_imports(self) -> None:
        """Neither what reads networks and secrets nor what looks at inherited sockets is loaded by a plain server."""
        script = """
            import sys
            import twisted.plugins.twistedudp_plugin
            from twistedudp import tap
            tap.Options().parseOptions(["--port", "0"])
            unwanted = {f"twistedudp._{name}" for name in ("activation", "address_tokens", "public")}
            print(sorted(set(sys.modules) & unwanted))
        """
        finished = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        self.assertEqual(finished.stdout, "[]\n")
