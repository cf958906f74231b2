"""Contexts: what they refuse, how they are reloaded, and the names of peers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from twisted.logger import ILogObserver, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.dtls.world import (
    NAME,
    SERVER,
    World,
    authority,
    client_context,
    notes,
    server_context,
    server_credentials,
    strange_authority,
)
from twistedudp.dtls import DTLSContext
from twistedudp.dtls._certificates import certificate_name, load_certificates
from twistedudp.errors import DTLSConfigurationError, DTLSHandshakeFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.logger import LogEvent

    from tests.dtls.authority import Credentials

X400_ADDRESS = bytes.fromhex("3004a3023000")
"""subjectAltNames (RFC 5280 section 4.2.1.6): one, of a kind that cryptography does not read."""

DNS_IN_LATIN1 = bytes.fromhex("30078205e46c696365")
"""subjectAltNames: a host name that is not ASCII."""

KEY_ON_SECT283K1 = b"""\
-----BEGIN PRIVATE KEY-----
MIGQAgEAMBAGByqGSM49AgEGBSuBBAAQBHkwdwIBAQQkAD8apfL6E+TWrcGRe9hG
bIkRwoXeORF1DMPD6TXqDLLeRN2DoUwDSgAEBRhJkHkp6V6LGq5oZwzNWhsphxrz
Lrlxb6qSycpSfH4+5E3+BytVlJr2dkWZ64LHnTmB/Fw3I/qrRysN69E1H+SVeRxx
nLq4
-----END PRIVATE KEY-----
"""
"""As OpenSSL makes it; nobody's."""

CERTIFICATE_ON_SECT283K1 = b"""\
-----BEGIN CERTIFICATE-----
MIIBeTCCARigAwIBAgIUXb/dyt4ClT4b5VnYvJWpeykbwbkwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAeFw0yNjExMjMwMDM4MDJaFw0yNjExMjYwMDM4MDJaMAwx
CjAIBgNVBAMMAXgwXjAQBgcqhkjOPQIBBgUrgQQAEANKAAQFGEmQeSnpXosarmhn
DM1aGymHGvMuuXFvqpLJylJ8fj7kTf4HK1WUmvZ2RZnrgsedOYH8XDcj+qtHKw3r
0TUf5JV5HHGcurijUzBRMB0GA1UdDgQWBBSV0369FexJ9j1ejbrendggQlgx2DAf
BgNVHSMEGDAWgBSV0369FexJ9j1ejbrendggQlgx2DAPBgNVHRMBAf8EBTADAQH/
MAoGCCqGSM49BAMCA08AMEwCJAGEfBAsIjnx0c5R0L3cjDnDCyMqUolX/i/T/g7J
XT0Vt52bwAIkAScnTD84VyqBFuDGbcTxTxl2bVlVKRT55zumx4crVAoI3apT
-----END CERTIFICATE-----
"""


class FilesTests(SynchronousTestCase):
    """Certificates and keys, as files and as bytes."""

    def setUp(self) -> None:
        """Write files."""
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        folder = Path(scratch.name)
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.write(*server_credentials())

    def write(self, certificate: bytes, key: bytes) -> None:
        """Put other content into the files."""
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)

    def swap(self) -> None:
        """Put each into the other's file."""
        certificate, key = authority().issue(["a.example"])
        self.write(key, certificate)

    def refused(self, *texts: str, **options: Any) -> None:
        """Check that a server's context is refused, in one line that has these texts."""
        arguments: dict[str, Any] = {"certificate": self.certificate, "key": self.key, **options}
        with self.assertRaises(DTLSConfigurationError) as caught:
            DTLSContext.server(**arguments)
        for text in texts:
            self.assertIn(text, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertNotRegex(str(caught.exception), "holds no .* cannot be read")  # one reason, not both

    def test_files_and_bytes(self) -> None:
        """Paths, texts and bytes are taken alike."""
        DTLSContext.server(self.certificate, self.key)
        DTLSContext.server(str(self.certificate), str(self.key))
        DTLSContext.server(*server_credentials())

    def test_refused(self) -> None:
        """What cannot be used is told with the file's name and the reason."""
        missing = self.certificate.with_name("missing.pem")
        self.refused(f"the certificate {missing} cannot be read: No such file", certificate=missing)
        self.refused("the key", str(missing), "No such file", key=missing)
        self.refused(f"the authority's certificate {missing} cannot be read: No such file", client_ca=missing)
        self.refused(str(self.key), "holds no certificate", certificate=self.key)
        self.refused(str(self.certificate), "holds no private key", key=self.certificate)
        self.refused("the key does not belong to the certificate", key=authority().issue(["other"]).key)
        self.refused("allow= needs client_ca=", allow=["a.example"])
        key = load_pem_private_key(server_credentials().key, None)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        self.refused("the key is encrypted", "openssl pkey", key=secret)

    def test_unsupported(self) -> None:
        """A key on a curve that cryptography does not know is refused in one line, and so is a certificate of it."""
        self.refused("the key is of a kind that is not supported", key=KEY_ON_SECT283K1)
        self.refused("the certificate has a key of a kind that is not supported", certificate=CERTIFICATE_ON_SECT283K1)

    def test_clients(self) -> None:
        """A certificate without its key, and contradictions, are refused."""
        for options in (
            {"certificate": self.certificate},
            {"key": self.key},
            {"ca": self.certificate, "accept_any_certificate_which_is_insecure": True},
        ):
            with self.assertRaises(DTLSConfigurationError):
                DTLSContext.client(**options)
        self.assertTrue(DTLSContext.client().verifies)

    def test_reload_keeps_what_it_has(self) -> None:
        """Where a file cannot be used any more the old certificate stays, and one line says so."""
        context = DTLSContext.server(self.certificate, self.key)
        before = context._ssl
        spoiled: list[Callable[[], object]] = [self.key.unlink, lambda: self.write(b"", b""), self.swap]
        for spoil in spoiled:
            spoil()
            with self.assertRaises(DTLSConfigurationError) as caught:
                context.reload()
            self.assertIn("stay in use", str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
            self.assertEqual((context._ssl, context.generation), (before, 0))
        self.write(*authority().issue([NAME]))
        context.reload()
        self.assertEqual(context.generation, 1)
        self.assertIsNot(context._ssl, before)


class NameTests(SynchronousTestCase):
    """The name by which a peer is known."""

    def name(self, *names: Any, common_name: str = "") -> str | None:
        """Return that of a certificate."""
        (certificate,) = load_certificates(authority().issue(names, common_name=common_name).certificate, "it")
        return certificate_name(certificate)

    def test_first_alternative_name(self) -> None:
        """It is the first that names a host, an address, a URI or an email address; the common name does not count."""
        uri = x509.UniformResourceIdentifier("spiffe://example/a")
        email = x509.RFC822Name("a@example.com")
        directory = x509.DirectoryName(x509.Name([]))
        self.assertEqual(self.name("b.example", "a.example", common_name="c.example"), "b.example")
        self.assertEqual(self.name("192.0.2.7", "a.example"), "192.0.2.7")
        self.assertEqual(self.name("2001:db8::7"), "2001:db8::7")
        self.assertEqual(self.name(directory, uri, email), "spiffe://example/a")
        self.assertEqual(self.name(email, uri), "a@example.com")
        self.assertEqual(self.name("Host.Example"), "host.example")

    def test_common_name(self) -> None:
        """Without any it is the common name, as it is; without that none."""
        self.assertEqual(self.name(common_name="Sensor 7"), "Sensor 7")
        self.assertEqual(self.name(x509.DirectoryName(x509.Name([])), common_name="Sensor 7"), "Sensor 7")
        self.assertIsNone(self.name())


class VerificationTests(World):
    """Who gets a session, with real Connections: one line each in the log and in the error."""

    def setUp(self) -> None:
        """Watch the log."""
        super().setUp()
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_namespace") == "twistedudp.dtls":
                self.lines.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def refused(self, context: DTLSContext, reason: str, *texts: str, name: str = NAME) -> None:
        """Check that a client gets no session."""
        waiting = self.client(context, name=name).open(5.0)
        self.network.advance(1.0)
        error = self.failureResultOf(waiting, DTLSHandshakeFailed).value
        self.assertEqual(error.reason, reason)
        for text in texts:
            self.assertIn(text, str(error))
        self.assertNotIn("\n", str(error))

    def test_wrong_authority(self) -> None:
        """A server whose certificate comes from elsewhere is refused, and learns why."""
        self.serve()
        self.refused(client_context(ca=strange_authority().certificate), "wrong_ca", "not come from an authority")
        self.assertIn("it does not trust the authority of our certificate", self.lines[0])
        self.assertEqual(len(self.lines), 2)  # one for each of the two attempts

    def test_systems_authorities(self) -> None:
        """Without ``ca`` those of the system are asked, which do not know ours."""
        self.serve()
        self.refused(DTLSContext.client(), "wrong_ca")

    def test_expired(self) -> None:
        """A server's certificate that has expired, or is not valid yet, is refused."""
        self.serve(DTLSContext.server(*authority().issue([NAME], days=-1)))
        self.refused(client_context(), "expired", "its certificate has expired")

    def odd(self, names: bytes) -> Credentials:
        """Return credentials of the authority's whose subjectAltNames are these bytes."""
        extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names)
        return authority().issue(common_name="a.example", extensions=[extension])

    def test_unreadable_server(self) -> None:
        """A server's certificate that OpenSSL takes and cryptography cannot read is refused."""
        for names in (X400_ADDRESS, DNS_IN_LATIN1):
            endpoint = self.serve(DTLSContext.server(*self.odd(names)))
            self.refused(client_context(), "failed", "its certificate breaks the rules", "(after 2 attempts)")
            endpoint.stopListening()
            self.settle()

    def test_unreadable_client(self) -> None:
        """So is a client's, by one line; its common name does not stand in for what cannot be read."""
        for names in (X400_ADDRESS, DNS_IN_LATIN1):
            for allow in ((), ("a.example",)):
                endpoint = self.serve(server_context(client_ca=authority().certificate, allow=allow))
                client = self.client(client_context(**self.odd(names)._asdict()))
                client.open(1.0).addErrback(lambda _: None)
                self.network.advance(2.0)
                self.assertEqual((endpoint.stats.opened, endpoint.half_open), (0, 0))
                self.assertIn("its certificate breaks the rules of X.509", self.lines[-1])
                endpoint.stopListening()
                client.stopListening()
                self.settle()

    def test_servers_wrong_use(self) -> None:
        """A certificate that is for clients alone is no server's, which two attempts tell."""
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        self.serve(DTLSContext.server(*authority().issue([NAME], extensions=[use])))
        self.refused(client_context(), "failed", "its certificate is not for this use", "(after 2 attempts)")

    def test_clients_wrong_use(self) -> None:
        """A certificate that is for servers alone is no client's."""
        self.serve(server_context(client_ca=authority().certificate))
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        client = authority().issue(["a.example"], extensions=[use])
        self.refused(client_context(**client._asdict()), "refused", "says that our certificate is not for this use")
        self.assertIn("its certificate is not for this use", self.lines[-1])

    def test_wrong_name(self) -> None:
        """A certificate for another host or address is refused; both names are told."""
        self.serve()
        self.refused(client_context(), "wrong_name", "'server.example'", "'evil.example'", name="evil.example")
        self.refused(client_context(), "wrong_name", "'192.0.2.9'", name="192.0.2.9")

    def test_common_name_is_no_host(self) -> None:
        """A server is known by its subjectAltNames alone (RFC 9525)."""
        self.serve(DTLSContext.server(*authority().issue(common_name=NAME)))
        self.refused(client_context(), "wrong_name", "not as a subjectAltName of the kind DNS", "one that does")

    def test_host_name_is_no_address(self) -> None:
        """An address that stands in the certificate as a host name does not count, and the error says that."""
        self.serve(DTLSContext.server(*authority().issue([x509.DNSName(SERVER)])))
        self.refused(client_context(), "wrong_name", "not as a subjectAltName of the kind IP", name=SERVER)

    def test_scoped_address(self) -> None:
        """The scope of a link-local address is this host's own business, and in no certificate."""
        self.serve(DTLSContext.server(*authority().issue(["fe80::1"])))
        self.opened(self.client(name="fe80::1%eth0"))

    def test_addresses(self) -> None:
        """A certificate for the address is as good, and a name's last dot does not matter."""
        self.serve()
        self.opened(self.client(name=SERVER))
        self.opened(self.client(name=NAME + "."))

    def test_insecure(self) -> None:
        """Who asks for it in so many words gets a session with anybody, whose name is not known then."""
        self.serve(DTLSContext.server(*strange_authority().issue(["evil.example"])))
        context = DTLSContext.client(accept_any_certificate_which_is_insecure=True)
        client = self.opened(self.client(context))
        self.assertIsNone(client.peer_certificate_name())

    def test_client_certificates(self) -> None:
        """With ``client_ca`` a client needs a certificate of it; then its name is known."""
        endpoint = self.serve(server_context(client_ca=authority().certificate))
        self.refused(client_context(), "refused", "it wants a certificate of us")
        self.assertIn("it has shown no certificate", self.lines[-1])
        stranger = strange_authority().issue(["a.example"])
        self.refused(client_context(**stranger._asdict()), "refused", "it does not trust the authority of our cert")
        self.assertIn("not come from an authority", self.lines[-1])
        expired = authority().issue(["a.example"], days=-1)
        self.refused(client_context(**expired._asdict()), "refused", "it says that our certificate has expired")
        self.assertIn("its certificate has expired", self.lines[-1])
        self.opened(self.client(client_context("a.example")))
        (peer,) = endpoint._opened
        self.assertEqual(endpoint.peer_certificate_name(peer), "a.example")

    def test_without_client_certificates(self) -> None:
        """A server that asks for none knows no names."""
        endpoint = self.serve()
        self.opened(self.client(client_context("a.example")))
        self.assertIsNone(endpoint.peer_certificate_name(next(iter(endpoint._opened))))

    def test_allow(self) -> None:
        """Only who is on the list is let in; the handshake is refused with one line that has the name."""
        endpoint = self.serve(server_context(client_ca=authority().certificate, allow=["A.Example", "x"]))
        self.opened(self.client(client_context("a.example")))
        self.refused(client_context("b.example"), "refused", "perhaps our certificate's name is not on its list")
        self.assertEqual(self.lines[-1].count("'b.example', which is not on the list"), 1)
        self.assertEqual(endpoint.stats.failed, {"not_allowed": 2})
        self.assertEqual(endpoint.sessions, 1)

    def test_reload(self) -> None:
        """Sessions go on over a reload, new ones get the new certificate."""
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        folder = Path(scratch.name)
        files = folder / "certificate", folder / "key"
        for path, content in zip(files, server_credentials(), strict=True):
            path.write_bytes(content)
        context = DTLSContext.server(*files)
        self.serve(context)
        former = self.opened(self.client())
        for path, content in zip(files, authority().issue(["new.example"]), strict=True):
            path.write_bytes(content)
        context.reload()
        former.write(b"goes on")
        self.settle()
        self.assertEqual(notes(former).payloads, [b"goes on"])
        self.assertEqual(self.opened(self.client(name="new.example")).peer_certificate_name(), "new.example")
        self.refused(client_context(), "wrong_name")

    def test_log_is_bounded(self) -> None:
        """However many are refused, the log has so many lines a minute, and the number of the others."""
        self.serve(hello_burst=100)
        stranger = self.stranger()
        for _ in range(100):
            stranger.send(b"plaintext")
        self.settle()
        self.assertEqual(len(self.lines), 1)
        self.assertIn("not DTLS", self.lines[0])
        self.network.advance(60.0)
        stranger.send(b"plaintext")
        self.settle()
        self.assertIn("(99 like this since the last line", self.lines[1])
        self.assertNotIn("plaintext", "".join(self.lines))
