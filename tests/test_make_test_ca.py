"""``scripts/make-test-ca``, the command that makes certificates to try DTLS out."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import SCRIPTS

try:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise SkipTest(f"{error}: pip install 'twistedudp[dtls]' brings it") from error

LIMIT = 120.0
"""Seconds after which a script that has not ended never will."""


class MakeTestCATests(SynchronousTestCase):
    """The command, from its arguments to its files."""

    def setUp(self) -> None:
        """Make a directory to work in."""
        self.folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_script(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end, and return its exit status and all its output."""
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / "make-test-ca"), "--installed", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        return done.returncode, done.stdout

    def refused(self, reason: str, *arguments: str) -> None:
        """Expect one line with a reason, a failure, and no file."""
        before = sorted(self.folder.rglob("*"))
        status, output = self.run_script(*arguments)
        self.assertNotEqual(status, 0)
        self.assertRegex(output, rf"\Ascripts/make-test-ca: .*{reason}.*\n\Z")
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def certificate(self, name: str) -> x509.Certificate:
        """Return a certificate that was made."""
        return x509.load_pem_x509_certificate((self.folder / "made" / name).read_bytes())

    def test_made(self) -> None:
        """An authority, a server's certificate for this machine and a client's are made, with keys for the owner."""
        status, output = self.run_script("made")
        self.assertEqual(status, 0, output)
        names = {path.name for path in (self.folder / "made").iterdir()}
        pairs = {"ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem"}
        self.assertEqual(names, pairs)
        for name in names:
            mode = (self.folder / "made" / name).stat().st_mode & 0o777
            if name.endswith("-key.pem"):
                self.assertEqual(mode, 0o600)
            self.assertIn(name, output)
        authority = self.certificate("ca.pem")
        for name in ("server.pem", "client.pem"):
            self.certificate(name).verify_directly_issued_by(authority)
        for name in ("server", "client"):  # a key that is not its certificate's is refused here
            context = ssl.create_default_context()
            context.load_cert_chain(self.folder / "made" / f"{name}.pem", self.folder / "made" / f"{name}-key.pem")

    def test_names(self) -> None:
        """Hosts and clients get certificates of their names, and the days asked for."""
        arguments = ("--server", "udp.example", "--server", "192.0.2.1", "--client", "alice", "--client", "bob")
        status, output = self.run_script("made", *arguments, "--days", "3")
        self.assertEqual(status, 0, output)
        server = self.certificate("server.pem")
        hosts = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(hosts.get_values_for_type(x509.DNSName), ["udp.example"])
        self.assertEqual([str(host) for host in hosts.get_values_for_type(x509.IPAddress)], ["192.0.2.1"])
        left = server.not_valid_after_utc - dt.datetime.now(dt.timezone.utc)
        self.assertTrue(dt.timedelta(days=2.9) < left <= dt.timedelta(days=3))
        for name in ("alice", "bob"):
            (common,) = self.certificate(f"{name}.pem").subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            self.assertEqual(common.value, name)
            usage = self.certificate(f"{name}.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            self.assertEqual(list(usage), [ExtendedKeyUsageOID.CLIENT_AUTH])

    def test_nothing_overwritten(self) -> None:
        """A directory that has anything in it is refused, and what is in it stays as it is."""
        (self.folder / "made").mkdir()
        (self.folder / "made" / "ca.pem").write_text("precious", encoding="ascii")
        self.refused("made is not empty, and nothing is overwritten", "made")
        self.assertEqual((self.folder / "made" / "ca.pem").read_text(encoding="ascii"), "precious")

    def test_wrong(self) -> None:
        """Whatever cannot be meant is told in one line, before anything is written."""
        self.refused("required: directory")
        self.refused("neither a host name nor a numeric address", "made", "--server", "a b")
        self.refused("neither a host name nor a numeric address", "made", "--server", "")
        self.refused("letters, digits", "made", "--client", "../x")
        self.refused("another's file", "made", "--client", "server")
        self.refused("another's file", "made", "--client", "alice-key")
        self.refused("given twice", "made", "--client", "alice", "--client", "alice")
        self.refused("whole number from 1 to 3650", "made", "--days", "0")
        self.refused("whole number from 1 to 3650", "made", "--days", "many")
        self.refused("unrecognized arguments: --size", "made", "--size", "3")

    def test_not_writable(self) -> None:
        """What the system refuses is told in one line."""
        (self.folder / "file").write_text("", encoding="ascii")
        self.refused("file/made cannot be written: Not a directory", os.path.join("file", "made"))  # noqa: PTH118  # an argument
