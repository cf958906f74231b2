"""``twistd udpecho --dtls-cert`` and ``udpecho --dtls`` as processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.checkout import ROOT
from tests.integration.certificates import write_certificates, write_pair
from tests.integration.foreign import missing_program
from tests.integration.openssl import OpenSSLClient
from tests.integration.twistd import Directory, RunningTwistd, environment, run_twistd
from twistedudp.address import format_address

if TYPE_CHECKING:
    from twistedudp.address import Address

UDPECHO = str(Path(sys.executable).parent / "udpecho")
CALCULATOR = ROOT / "examples" / "calculator"
LIMIT = 60.0
"""Seconds after which a command that has not ended never will."""

DENY_EXECUTABLE_MEMORY = """
import ctypes, os, sys
os.execv(sys.argv[1], sys.argv[1:]) if not ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) else sys.exit(77)
"""
"""As ``MemoryDenyWriteExecute=yes`` of systemd: PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN, <linux/prctl.h>."""

pytestmark = pytest.mark.heavy


class ProgramsTestCase(SynchronousTestCase):
    """A server and commands that speak DTLS."""

    def setUp(self) -> None:
        """Write the certificates."""
        directory = Directory()
        self.addCleanup(directory.__exit__, None, None, None)
        self.folder = directory.path
        write_certificates(self.folder)

    def pem(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / f"{name}.pem")

    def server(self, *options: str, certificate: str = "server", twistd_options: tuple[str, ...] = ()) -> RunningTwistd:
        """Return a running server with a certificate."""
        server = RunningTwistd(
            *("--dtls-cert", self.pem(certificate), "--dtls-key", self.pem(f"{certificate}-key")),
            *options,
            python_path=[CALCULATOR],
            twistd_options=twistd_options,
        )
        self.addCleanup(server.stop)
        return server

    def udpecho(self, command: str, address: Address | str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that trusts the authority to its end."""
        where = address if isinstance(address, str) else format_address(address)
        return subprocess.run(
            [UDPECHO, command, "--dtls", *arguments[:-1], where, *arguments[-1].split()],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def answered(self, output: str, command: str, address: Address | str, *arguments: str) -> None:
        """Run a command and expect its output, and no other word."""
        done = self.udpecho(command, address, *arguments)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, output, ""))

    def refused(self, status: int, reason: str, command: str, address: Address | str, *arguments: str) -> None:
        """Run a command and expect one line that says why it failed."""
        done = self.udpecho(command, address, *arguments)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertRegex(done.stderr, rf"\Audpecho: .*{reason}.*\n\Z")


class EchoTests(ProgramsTestCase):
    """The commands with a server's certificate."""

    def test_send(self) -> None:
        """What is sent over DTLS comes back, by the name and by the address in the certificate."""
        server = self.server()
        port = server.address[1]
        self.answered("hello\n", "send", server.address, "--ca", self.pem("ca"), "hello")
        self.answered("hello\n", "send", f"localhost:{port}", "--ca", self.pem("ca"), "hello")

    def test_refused(self) -> None:
        """A server that is not to be trusted, and one that does not speak DTLS, are told in one line each."""
        server = self.server()
        self.refused(1, "authority that is trusted here", "send", server.address, "--ca", self.pem("other-ca"), "x")
        self.refused(1, "authority that is trusted here", "send", server.address, "x")
        misnamed = self.server(certificate="misnamed")
        ca = ("--ca", self.pem("ca"))
        self.refused(1, "elsewhere.example.*127.0.0.1", "send", misnamed.address, *ca, "x")
        expired = self.server(certificate="expired")
        self.refused(1, "expired", "send", expired.address, *ca, "x")
        with RunningTwistd() as plain:
            self.refused(1, "does it speak DTLS", "send", plain.address, *ca, "x")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            address = nobody.getsockname()
        self.refused(1, "cannot be reached", "send", address, *ca, "x")

    def test_no_executable_memory(self) -> None:
        """Where no code may be made at run time, as pyOpenSSL does, that is told in one line; without DTLS we serve."""
        denied = (sys.executable, "-c", DENY_EXECUTABLE_MEMORY)
        if subprocess.run([*denied, sys.executable, "-c", ""], check=False).returncode == 77:
            raise SkipTest("this kernel has no PR_SET_MDWE: it came with Linux 6.3")
        options = ("--dtls-cert", self.pem("server"), "--dtls-key", self.pem("server-key"))
        done = run_twistd("-n", "udpecho", "--port", "0", *options, directory=self.folder, prefix=denied)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            done.stderr, r"\Atwistd udpecho: this process may not make memory exec.*DenyWriteExecute=yes\n\Z"
        )
        with RunningTwistd(prefix=denied) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.sendto(b"served", server.address)
            self.assertEqual(client.recv(100), b"served")

    def test_plain_client(self) -> None:
        """A client without DTLS gets no answer; the server says so in one line."""
        server = self.server()
        done = subprocess.run(
            [UDPECHO, "send", "--timeout", "0.5", format_address(server.address), "secret"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        self.assertEqual(done.returncode, 1)
        server.wait_for("nothing is taken from 127.0.0.1:.*not DTLS")
        self.assertEqual(server.output.count("not DTLS"), 1)
        self.assertNotIn("secret", server.output)


class ClientCertificateTests(ProgramsTestCase):
    """Servers that want to know who calls."""

    def setUp(self) -> None:
        """Start one."""
        super().setUp()
        options = ("--protocol", "calculator", "--dtls-client-ca", self.pem("ca"), "--dtls-allow", "alice")
        self.running = self.server(*options)
        self.trust = ("--ca", self.pem("ca"))

    def pair(self, name: str) -> tuple[str, ...]:
        """Return the options of a client's certificate."""
        return ("--cert", self.pem(name), "--key", self.pem(f"{name}-key"))

    def test_allowed(self) -> None:
        """Who is on the list is served; a call's negative number stays a number behind these options."""
        self.answered("-1.5\n", "call", self.running.address, *self.trust, *self.pair("alice"), "echo -1.5")

    def test_refused(self) -> None:
        """No certificate, one of another authority and one that is not listed: refused, in one line at both sides."""
        for pair, here, there in (
            ((), "wants a certificate", "has shown no certificate"),
            (self.pair("stranger"), "no DTLS session", "does not come from an authority"),
            (self.pair("eve"), "no DTLS session", "'eve', which is not on the list"),
        ):
            self.refused(1, here, "call", self.running.address, *self.trust, *pair, "echo 1")
            self.running.wait_for(f"no DTLS session with 127.0.0.1:.*{re.escape(there)}")


class ReloadTests(ProgramsTestCase):
    """SIGHUP."""

    def setUp(self) -> None:
        """Look for the program that holds a session open."""
        super().setUp()
        if missing_program("openssl"):
            self.skipTest(missing_program("openssl"))

    def hang_up(self, server: RunningTwistd, log: str) -> None:
        """Send SIGHUP and wait for a line."""
        server.process.send_signal(signal.SIGHUP)
        server.wait_for(log)

    def test_renewed(self) -> None:
        """A certificate that was renewed is shown to new clients, and the session that is open goes on."""
        write_pair(self.folder, "server", "current")
        server = self.server(certificate="current")
        with OpenSSLClient(server.address, self.pem("ca")) as client:
            self.assertEqual(client.echo("before"), "before")
            write_pair(self.folder, "renewed", "current")
            self.hang_up(server, "SIGHUP: the certificate and its key were read again")
            self.assertEqual(client.echo("after"), "after")
            with OpenSSLClient(server.address, self.pem("ca"), "-verify_hostname", "renewed.example") as other:
                self.assertEqual(other.echo("new"), "new")
            self.assertEqual(client.echo("still"), "still")

    def test_unreadable(self) -> None:
        """A key that cannot be read any more, or does not belong, leaves the old one in use, and one line says so."""
        write_pair(self.folder, "server", "current")
        server = self.server(certificate="current")
        write_pair(self.folder, "alice", "current")
        (self.folder / "current-key.pem").unlink()
        self.hang_up(server, "SIGHUP: the key .*current-key.pem cannot be read: .*loaded before stay in use")
        self.answered("x\n", "send", server.address, "--ca", self.pem("ca"), "x")
        write_pair(self.folder, "eve", "other")
        (self.folder / "other-key.pem").rename(self.folder / "current-key.pem")
        self.hang_up(server, "SIGHUP: the key .*does not belong to.*loaded before stay in use")
        self.answered("x\n", "send", server.address, "--ca", self.pem("ca"), "x")
        self.assertEqual(server.output.count("SIGHUP"), 2)

    def test_after_uid(self) -> None:
        """A key that root alone may read is read before --uid; at SIGHUP it cannot be, and the old one stays."""
        if os.geteuid() != 0:
            self.skipTest("only root can give up its rights")
        server = self.server("--dtls-client-ca", self.pem("ca"), twistd_options=("--uid", "65534", "--gid", "65534"))
        self.hang_up(server, "SIGHUP: the key .*cannot be read: Permission denied.*loaded before stay in use")
        pair = ("--cert", self.pem("alice"), "--key", self.pem("alice-key"))
        self.answered("x\n", "send", server.address, "--ca", self.pem("ca"), *pair, "x")
