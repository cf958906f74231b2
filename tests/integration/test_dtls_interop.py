"""DTLS with programs that nobody here wrote, both ways: OpenSSL's and GnuTLS's clients and servers.

What is refused is refused with one line of the log, or one error, that says why.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.certificates import write_certificates
from tests.integration.foreign import missing_program
from tests.integration.openssl import GnuTLSClient, GnuTLSServer, OpenSSLClient, OpenSSLServer
from tests.integration.sockets import RealTestCase
from tests.integration.twistd import Directory, RunningTwistd
from twistedudp import errors
from twistedudp.dtls import DTLSContext, DTLSLimits
from twistedudp.echo import EchoProtocol
from twistedudp.methods import RPCMethods, method
from twistedudp.relay import UDPImpairmentService
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.openssl import Program
    from twistedudp.address import Address
    from twistedudp.client import UDPClientService

pytestmark = pytest.mark.heavy

OLD = ("-cipher", "DEFAULT:@SECLEVEL=0")
"""What lets OpenSSL 3 speak DTLS 1.0 at all."""


def certificates(test: SynchronousTestCase) -> Path:
    """Return a directory of certificates that is gone after the test."""
    directory = Directory()
    test.addCleanup(directory.__exit__, None, None, None)
    write_certificates(directory.path)
    return directory.path


def needs(test: SynchronousTestCase, program: str, package: str = "") -> None:
    """Skip a test where a program is not installed."""
    reason = missing_program(program)
    if reason:
        test.skipTest(reason.replace(f"Debian: {program}", f"Debian: {package or program}"))


class OurServerTests(SynchronousTestCase):
    """Their clients, our server."""

    def setUp(self) -> None:
        """Write the certificates."""
        needs(self, "openssl")
        self.folder = certificates(self)
        self.refusals: collections.Counter[RunningTwistd] = collections.Counter()

    def pem(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / f"{name}.pem")

    def pair(self, name: str) -> tuple[str, ...]:
        """Return OpenSSL's options for a client's certificate."""
        return ("-cert", self.pem(name), "-key", self.pem(f"{name}-key"))

    def server(self, *options: str, certificate: str = "server") -> RunningTwistd:
        """Return a running echo server."""
        own = ("--dtls-cert", self.pem(certificate), "--dtls-key", self.pem(f"{certificate}-key"))
        server = RunningTwistd(*own, *options)
        self.addCleanup(server.stop)
        return server

    def echoed(self, client: Program) -> None:
        """See that a client's lines come back."""
        with client:
            for line in ("one line", "another, with ü", "x" * 900):
                client.echo(line)

    def refused(self, server: RunningTwistd, client: Program, reason: str) -> None:
        """See that a client ends without a session, and that the server says why in one line."""
        self.refusals[server] += 1
        with client:
            client.ended()
        server.wait_for(rf"no DTLS session with 127\.0\.0\.1:\d+: .*{reason}")
        self.assertEqual(server.output.count("no DTLS session"), self.refusals[server])

    def test_openssl(self) -> None:
        """OpenSSL's client verifies our certificate by its name and echoes, with a small MTU too."""
        server = self.server()
        self.echoed(OpenSSLClient(server.address, self.pem("ca"), "-verify_hostname", "localhost"))
        self.echoed(OpenSSLClient(server.address, self.pem("ca"), "-mtu", "300"))

    def test_gnutls(self) -> None:
        """So does GnuTLS's."""
        needs(self, "gnutls-cli", "gnutls-bin")
        server = self.server()
        client = GnuTLSClient(server.address, self.pem("ca"))
        with client:
            client.wait_for("Simple Client Mode")
            self.assertEqual(client.echo("a line"), "a line")

    def test_certificates_of_ours(self) -> None:
        """A client that does not trust us refuses: the authority, the name, the time; one line each."""
        server = self.server()
        wrong = OpenSSLClient(server.address, self.pem("other-ca"))
        self.refused(server, wrong, "does not trust the authority of our certificate")
        misnamed = OpenSSLClient(server.address, self.pem("ca"), "-verify_hostname", "elsewhere.example")
        self.refused(server, misnamed, "refuses our certificate|handshake failure")
        expired = self.server(certificate="expired")
        self.refused(expired, OpenSSLClient(expired.address, self.pem("ca")), "our certificate has expired")

    def test_certificates_of_theirs(self) -> None:
        """A client must show a certificate of our authority with a name on the list; one line each."""
        server = self.server("--dtls-client-ca", self.pem("ca"), "--dtls-allow", "alice")
        ca = self.pem("ca")
        self.echoed(OpenSSLClient(server.address, ca, *self.pair("alice")))
        self.refused(server, OpenSSLClient(server.address, ca), "has shown no certificate")
        self.refused(server, OpenSSLClient(server.address, ca, *self.pair("stranger")), "does not come from an auth")
        self.refused(server, OpenSSLClient(server.address, ca, *self.pair("eve")), "'eve', which is not on the list")
        self.refused(server, OpenSSLClient(server.address, ca, *self.pair("expired")), "certificate has expired")

    def test_gnutls_with_certificate(self) -> None:
        """GnuTLS's client shows a certificate, too."""
        needs(self, "gnutls-cli", "gnutls-bin")
        server = self.server("--dtls-client-ca", self.pem("ca"), "--dtls-allow", "alice")
        own = ("--x509certfile", self.pem("alice"), "--x509keyfile", self.pem("alice-key"))
        with GnuTLSClient(server.address, self.pem("ca"), *own) as client:
            client.wait_for("Simple Client Mode")
            self.assertEqual(client.echo("a line"), "a line")

    def test_old_version(self) -> None:
        """DTLS 1.0 is refused."""
        server = self.server()
        old = OpenSSLClient(server.address, self.pem("ca"), *OLD, version="-dtls1")
        self.refused(server, old, "does not speak DTLS 1.2")


class OurClientTests(RealTestCase):
    """Our client, their servers."""

    def setUp(self) -> None:
        """Write the certificates."""
        super().setUp()
        needs(self, "openssl")
        self.folder = certificates(self)

    def pem(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.folder / f"{name}.pem")

    def pair(self, name: str) -> tuple[str, str]:
        """Return the paths of a certificate and its key."""
        return self.pem(name), self.pem(f"{name}-key")

    def started(self, server: Program) -> Any:
        """Have a server run until the end of the test."""
        self.addCleanup(server.end)
        return server

    def secure(self, address: Address, ca: str = "ca", certificate: str = "") -> UDPClientService:
        """Return a client that trusts an authority and may show a certificate."""
        options: dict[str, Any] = {"ca": self.pem(ca)}
        if certificate:
            options["certificate"], options["key"] = self.pair(certificate)
        return self.client(*address, dtls=DTLSContext.client(**options), timeout=30.0)

    async def refusal(self, client: UDPClientService) -> errors.DTLSHandshakeFailed:
        """Return why a handshake failed; far sooner than the call's deadline."""
        try:
            await client.echo_bytes(b"line x\n", timeout=20.0)
        except errors.DTLSHandshakeFailed as error:
            return error
        raise AssertionError("the handshake came about")

    async def test_openssl(self) -> None:
        """OpenSSL's server gets what is sent and sends it back, with a client's certificate too."""
        server = self.started(OpenSSLServer(*self.pair("server")))
        self.assertEqual(await self.secure(server.address).echo_bytes(b"line one\n"), b"line one\n")
        demands = ("-CAfile", self.pem("ca"), "-Verify", "1", "-verify_return_error")
        server = self.started(OpenSSLServer(*self.pair("server"), *demands))
        client = self.secure(server.address, certificate="alice")
        self.assertEqual(await client.echo_bytes(b"line two\n"), b"line two\n")

    async def test_openssl_refuses(self) -> None:
        """A server that wants a certificate refuses who has none, or one of another authority."""
        demands = ("-CAfile", self.pem("ca"), "-Verify", "1", "-verify_return_error")
        for certificate in ("", "stranger"):
            server = self.started(OpenSSLServer(*self.pair("server"), *demands))
            error = await self.refusal(self.secure(server.address, certificate=certificate))
            self.assertEqual(error.reason, "refused", error)

    async def test_gnutls(self) -> None:
        """GnuTLS's server echoes, up to the 128 bytes that it reads at once."""
        needs(self, "gnutls-serv", "gnutls-bin")
        server = self.started(GnuTLSServer(*self.pair("server")))
        client = self.secure(server.address)
        for size in (1, 127):
            line = b"x" * size + b"\n"
            self.assertEqual(await client.echo_bytes(line), line)

    async def test_certificates(self) -> None:
        """A certificate of another authority, for another name, or out of date is refused, each with its reason."""
        for certificate, ca, reason in (
            ("server", "other-ca", "wrong_ca"),
            ("misnamed", "ca", "wrong_name"),
            ("expired", "ca", "expired"),
        ):
            server = self.started(OpenSSLServer(*self.pair(certificate)))
            error = await self.refusal(self.secure(server.address, ca))
            self.assertEqual(error.reason, reason, error)
            self.assertNotIn("\n", str(error))

    async def test_old_version(self) -> None:
        """A server that speaks DTLS 1.0 alone is refused."""
        server = self.started(OpenSSLServer(*self.pair("server"), *OLD, version="-dtls1"))
        error = await self.refusal(self.secure(server.address))
        self.assertEqual(error.reason, "refused")  # it says "handshake failure": its ciphers are not ours

    async def test_plain(self) -> None:
        """A server without DTLS is told from one that is not there: it is, and does not answer in kind."""
        server = self.server(EchoProtocol())
        assert server.address is not None
        client = self.secure(server.address)
        try:
            await client.echo_bytes(b"line x\n", timeout=0.5)
        except errors.DTLSHandshakeFailed as error:
            self.assertIn("does it speak DTLS", str(error))
        else:
            raise AssertionError("plain UDP was taken for DTLS")


class Counter(RPCMethods):
    """Something that must not run twice."""

    def __init__(self) -> None:
        self.total = 0

    @method
    def add(self, number: int) -> int:
        """Add a number."""
        self.total += number
        return self.total


class LossTests(RealTestCase):
    """Handshakes and calls where 30 % is lost each way."""

    timeout = 120

    def relayed(self, serves: Any, folder: Path) -> Address:
        """Return the address of a relay that loses 30 % each way, before a server."""
        context = DTLSContext.server(folder / "server.pem", folder / "server-key.pem")
        limits = DTLSLimits(half_open_per_host=64)  # behind the relay all clients are one host
        server = UDPServerService(self.reactor, 0, serves, dtls=context, dtls_limits=limits)
        server.startService()
        self.addCleanup(server.stopService)
        assert server.address is not None
        relay = UDPImpairmentService(self.reactor, 0, server.address, effects="loss=30%,seed=6")
        relay.startService()
        self.addCleanup(relay.stopService)
        assert relay.address is not None
        return relay.address

    async def test_calls(self) -> None:
        """Four clients shake hands and call; every call is answered, and none ran twice."""
        await self.all_answered(4)

    @pytest.mark.slow
    async def test_many_calls(self) -> None:
        """So do fifty."""
        await self.all_answered(50)

    async def all_answered(self, count: int) -> None:
        """Have clients call twice each, once in a new session."""
        folder = certificates(self)
        counter = Counter()
        address = self.relayed(counter, folder)
        context = DTLSContext.client(ca=folder / "ca.pem")
        clients = [self.client(*address, dtls=context, timeout=100.0) for _ in range(count)]
        await gatherResults([client.call("add", 1) for client in clients])
        await gatherResults([client.call("add", 1) for client in clients])
        self.assertEqual(counter.total, 2 * count)

    async def test_openssl(self) -> None:
        """OpenSSL's client gets through as well."""
        needs(self, "openssl")
        folder = certificates(self)
        address = self.relayed(EchoProtocol(), folder)
        with OpenSSLClient(address, str(folder / "ca.pem")) as client:
            lines = 0
            while client.output.count("a line") == 0:  # nothing repeats for it what is lost behind the handshake
                if lines < 200:
                    client.send("a line")
                    lines += 1
                for _ in range(50):
                    await self.turn()
