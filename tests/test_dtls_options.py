"""The options of DTLS, of ``twistd udpecho`` and of ``udpecho``: what goes together, and what each mistake costs."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_program import ProgramTestCase
from tests.integration.certificates import write_certificates, write_pair
from tests.test_tap import OptionsTestCase
from twistedudp import tap
from twistedudp._certificate_reload import CertificateReload
from twistedudp._startup import PluginService
from twistedudp.dtls import DTLSContext


class FilesTestCase(SynchronousTestCase):
    """A test that has certificates as files."""

    def setUp(self) -> None:
        """Write them."""
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        write_certificates(self.folder)

    def pem(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / f"{name}.pem")


class ServerOptionTests(FilesTestCase, OptionsTestCase):
    """The options of ``twistd udpecho``."""

    def test_taken(self) -> None:
        """Files and names become the context, and a service of the server and of what reads its files again."""
        files = ("--dtls-cert", self.pem("server"), "--dtls-key", self.pem("server-key"))
        names = ("--dtls-client-ca", self.pem("ca"), "--dtls-allow", "alice", "--dtls-allow", "bob")
        options = self.parse(*files, *names)
        context = options.dtls_context
        assert context is not None
        self.assertEqual((context.allow, context.verifies), (frozenset({"alice", "bob"}), True))
        both = tap.makeService(options)
        assert isinstance(both, MultiService)
        self.assertEqual([type(service) for service in both.services], [CertificateReload, PluginService])

    def test_not_given(self) -> None:
        """Without a certificate there is no DTLS, and the service is the server alone."""
        options = self.parse()
        self.assertIsNone(options.dtls_context)
        self.assertNotIn("dtls", options.service_options())
        self.assertIsInstance(tap.makeService(options), PluginService)

    def test_relative(self) -> None:
        """Paths hold when the server has changed its directory, as a daemon does."""
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        options = self.parse("--dtls-cert", "server.pem", "--dtls-key", "server-key.pem")
        os.chdir("/")
        assert options.dtls_context is not None
        options.dtls_context.reload()

    def check_refused(self, reason: str, *arguments: str) -> None:
        """Expect that options are refused for a reason, in one line."""
        self.assertRegex(self.refused(*arguments), reason)

    def test_wrong(self) -> None:
        """What does not go together or cannot be used ends the start with one line."""
        certificate, key = ("--dtls-cert", self.pem("server")), ("--dtls-key", self.pem("server-key"))
        self.check_refused("--dtls-cert needs its key", *certificate)
        self.check_refused("--dtls-key belongs to --dtls-cert", *key)
        self.check_refused("--dtls-client-ca belongs to --dtls-cert", "--dtls-client-ca", self.pem("ca"))
        self.check_refused("--dtls-allow belongs to --dtls-cert", "--dtls-allow", "alice")
        self.check_refused("needs --dtls-client-ca", *certificate, *key, "--dtls-allow", "alice")
        self.check_refused("'' is no name", *certificate, *key, "--dtls-client-ca", self.pem("ca"), "--dtls-allow", "")
        self.check_refused("missing.pem cannot be read", "--dtls-cert", self.pem("missing"), *key)
        self.check_refused("does not belong to", *certificate, "--dtls-key", self.pem("alice-key"))
        self.check_refused("--discoverable and --dtls-cert exclude", *certificate, *key, "--discoverable", "x")


class ReloadTests(FilesTestCase):
    """SIGHUP, as a service."""

    def setUp(self) -> None:
        """Make a context of files that can change."""
        super().setUp()
        write_pair(self.folder, "server", "current")
        self.context = DTLSContext.server(Path(self.pem("current")), Path(self.pem("current-key")))

    def reload(self, context: DTLSContext) -> str:
        """Have it read again, and return the one line that is logged."""
        service: Any = CertificateReload(Clock(), context)
        with capturedLogs() as events:
            service.reload()
        (event,) = events
        return str(event["log_format"]).format(**event)

    def test_read(self) -> None:
        """What was read again is in use, and one line says so."""
        write_pair(self.folder, "renewed", "current")
        self.assertIn("read again", self.reload(self.context))
        self.assertEqual(self.context.generation, 1)

    def test_not_read(self) -> None:
        """What cannot be read leaves the old in use, and one line says so."""
        Path(self.pem("current-key")).unlink()
        line = self.reload(self.context)
        self.assertRegex(line, r"\ASIGHUP: the key .*current-key.pem cannot be read: [^\n]* stay in use\Z")
        self.assertEqual(self.context.generation, 0)

    def raised(self, before: Any) -> Any:
        """Raise the signal while a service runs and check that it is heard; return what the signal does afterwards."""
        calls: list[Any] = []

        class Reactor:
            callFromThread = staticmethod(calls.append)

        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, before))
        service: Any = CertificateReload(Reactor(), self.context)
        service.startService()
        signal.raise_signal(signal.SIGHUP)
        service.stopService()
        self.assertEqual(calls, [service.reload])
        return signal.getsignal(signal.SIGHUP)

    def test_signal(self) -> None:
        """The signal is heard as long as the service runs, and does afterwards what it did before."""
        heard: list[int] = []

        def handler(number: int, _frame: object) -> None:
            heard.append(number)

        self.assertIs(self.raised(handler), handler)
        self.assertEqual(heard, [])

    def test_signal_during_a_drain(self) -> None:
        """It does not end the process afterwards, which the default does: the server may have requests to answer."""
        self.assertIs(self.raised(signal.SIG_DFL), signal.SIG_IGN)


class CommandTests(FilesTestCase, ProgramTestCase):
    """The options of ``udpecho``."""

    def test_wrong(self) -> None:
        """Options that do not go together, and files that cannot be used, are told before anything is sent."""
        send = ("send", "--dtls", "--ca", self.pem("ca"))
        self.assertRegex(self.misuse("send", "--ca", "x", "localhost", "x"), "--ca belongs to --dtls")
        self.assertRegex(
            self.misuse(*send, "--key", self.pem("alice-key"), "localhost", "x"), "--key FILE needs --cert"
        )
        self.assertRegex(self.misuse(*send, "--cert", self.pem("alice"), "localhost", "x"), "--cert FILE needs --key")
        for arguments, reason in (
            (("--ca", self.pem("missing")), "missing.pem cannot be read"),
            (("--ca", self.pem("alice-key")), "holds no certificate"),
            (("--cert", self.pem("alice"), "--key", self.pem("eve-key")), "does not belong to"),
        ):
            self.assertRegex(self.misuse("send", "--dtls", *arguments, "localhost", "x"), reason)
