"""The settings of sessions: certificates, keys, whom to trust, and everything that is the same for all of them.

Theory of operation: the only place where an ``SSL.Context`` is made. DTLS 1.2 is the lowest and the highest version,
for a later OpenSSL would otherwise turn on 1.3, which has not been tried; there is no renegotiation, no ticket, no
compression and no cache of sessions; the cipher suites are those with forward secrecy and an authenticated cipher.

A context that is reloaded makes a new ``SSL.Context`` for the sessions to come. Sessions that are open keep the one
they were made with.

OpenSSL before 4.0 has a fault by which any datagram of a few bytes, from any address, ends the session of somebody
else: what one Connection met stays in a queue of the thread, and the next one takes it for its own. Therefore nothing
is begun with an older one, whatever the version of the wheel: a distribution's build may be linked to another library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from service_identity.hazmat import DNS_ID

from ..address import is_ip
from ..errors import DTLSConfigurationError, DTLSUnavailable
from ._certificates import certificate_name, load_certificates, load_key, named, normal_name
from ._failures import NOT_ALLOWED, UNREADABLE, PeerRefused, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography import x509

    from ._certificates import PEM
    from ._facts import PeerFacts
    from ._session import Connection

__all__ = ["DTLSContext", "check_openssl", "indicated_name"]

_DTLS_1_2: Final = 0xFEFD
"""RFC 6347 section 4.1; pyOpenSSL has no name for it."""

_FIRST_SOUND: Final = 0x40000000
"""OpenSSL 4.0.0, as OPENSSL_VERSION_NUMBER has it."""

_OPTIONS: Final = SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"

_UNSPECIFIED: Final = 1
"""X509_V_ERR_UNSPECIFIED: what a refusal counts as that OpenSSL gives no number."""


def check_openssl(version: int = SSL.OPENSSL_VERSION_NUMBER) -> None:
    """Refuse an OpenSSL whose sessions strangers can end.

    Args:
        version: Its OPENSSL_VERSION_NUMBER.

    Raises:
        DTLSUnavailable: It is older than 4.0; the text says what to install.
    """
    if version < _FIRST_SOUND:
        number = f"{version >> 28}.{version >> 20 & 0xFF}.{version >> 4 & 0xFF}"
        raise DTLSUnavailable(
            f"the OpenSSL that cryptography is linked to is {number}, in which any datagram can end any DTLS session; "
            "install one with OpenSSL 4.0 or later: pip install --upgrade 'cryptography>=48' pyOpenSSL"
        )


@dataclass(frozen=True, slots=True)
class _Sources:
    """What a context is made of, to make it again."""

    is_server: bool
    certificate: PEM | None
    key: PEM | None
    authorities: PEM | None
    allow: frozenset[str]
    verifies: bool


class DTLSContext:
    """Certificates, key and whom to trust; for any number of ports and clients.

    Make one by :meth:`server` or :meth:`client`.

    Attributes:
        is_server: Whether it is a server's.
        verifies: Whether peers must show a certificate: always at clients, at servers with ``client_ca``.
        allow: The names of the peers that are let in; empty for all that the authority has certified.
        generation: A number that changes with each successful :meth:`reload`.
    """

    __slots__ = ("_sources", "_ssl", "allow", "generation", "is_server", "verifies")

    def __init__(self, sources: _Sources) -> None:
        check_openssl(SSL.OPENSSL_VERSION_NUMBER)
        self._sources = sources
        try:
            self._ssl = _build(sources)
        except MemoryError as error:
            if "write+execute" not in str(error):
                raise
            # What pyOpenSSL calls back is made by cffi, whose machine code for it is written at run time.
            raise DTLSUnavailable(
                "this process may not make memory executable, and without that pyOpenSSL has no callbacks; in a unit "
                "of systemd take out MemoryDenyWriteExecute=yes"
            ) from error
        self.is_server = sources.is_server
        self.verifies = sources.verifies
        self.allow = sources.allow
        self.generation = 0

    @classmethod
    def server(
        cls, certificate: PEM, key: PEM, *, client_ca: PEM | None = None, allow: Iterable[str] = ()
    ) -> DTLSContext:
        """Return the context of a server.

        Args:
            certificate: Its certificate, followed by those between it and the authority's: the path of a PEM file, or
                the PEM itself as bytes.
            key: The private key of the first of them, not encrypted; likewise.
            client_ca: The authorities' certificates that clients' certificates must come from; ``None`` asks clients
                for none.
            allow: The names of the clients that are let in, as :attr:`CurrentPeer.certificate_name` has them; without
                any, all that ``client_ca`` has certified. It needs ``client_ca``.

        Raises:
            DTLSConfigurationError: A file cannot be read or used, the key is not the certificate's, or ``allow`` is
                given without ``client_ca``; one line.
            DTLSUnavailable: This OpenSSL must not be used.
        """
        allowed = frozenset([*allow] if not isinstance(allow, str) else [allow])
        if allowed and client_ca is None:
            raise DTLSConfigurationError(
                "allow= needs client_ca=, the authority of the clients' certificates: without one anybody has any name"
            )
        names = allowed | frozenset(map(normal_name, allowed))
        return cls(_Sources(True, certificate, key, client_ca, names, client_ca is not None))

    @classmethod
    def client(
        cls,
        *,
        ca: PEM | None = None,
        certificate: PEM | None = None,
        key: PEM | None = None,
        accept_any_certificate_which_is_insecure: bool = False,
    ) -> DTLSContext:
        """Return the context of clients.

        Args:
            ca: The authorities' certificates that servers' certificates must come from, as a path or as bytes;
                ``None`` means those that the system trusts.
            certificate: The client's own certificate, for servers that ask for one.
            key: Its key.
            accept_any_certificate_which_is_insecure: Talk to whoever answers: what is sent can be read and changed by
                anybody on the way, who needs nothing but a certificate of his own.

        Raises:
            DTLSConfigurationError: A file cannot be read or used, or one of certificate and key is missing; one line.
            DTLSUnavailable: This OpenSSL must not be used.
        """
        if (certificate is None) != (key is None):
            missing = "certificate=" if certificate is None else "key="
            raise DTLSConfigurationError(f"a certificate and its key belong together: {missing} is missing")
        if ca is not None and accept_any_certificate_which_is_insecure:
            raise DTLSConfigurationError(
                "ca= and accept_any_certificate_which_is_insecure=True contradict each other: leave one of them out"
            )
        verifies = not accept_any_certificate_which_is_insecure
        return cls(_Sources(False, certificate, key, ca, frozenset(), verifies))

    def reload(self) -> None:
        """Read the files again, for the sessions to come; those that are open go on as they are.

        Raises:
            DTLSConfigurationError: A file cannot be read or used; nothing has changed then. One line.
        """
        try:
            fresh = _build(self._sources)
        except DTLSConfigurationError as error:
            raise DTLSConfigurationError(f"{error}; the certificate and key loaded before stay in use") from error
        self._ssl = fresh
        self.generation += 1

    def connection(self, facts: PeerFacts, /) -> Connection:
        """Return a new Connection in this context's role.

        Args:
            facts: What the callbacks are to know; kept as its application data.
        """
        connection = SSL.Connection(self._ssl, None)
        connection.set_app_data(facts)
        if self.is_server:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        return connection

    def verified_name(self, connection: Connection, server_name: str | None, /) -> str | None:
        """Return the verified name of a Connection's peer, after the handshake and before any data.

        Args:
            connection: Its Connection, the chain of which OpenSSL has verified.
            server_name: The host name or address that the server's certificate must be for; ``None`` at servers.

        Returns:
            The name; ``None`` where the peer's certificate was not asked for or not verified.

        Raises:
            PeerRefused: The certificate is for another name, or there is none that can be read.
        """
        if not self.verifies:
            return None
        try:
            certificate = connection.get_peer_certificate(as_cryptography=True)
            name = None if certificate is None else certificate_name(certificate)
        except Exception as error:  # it is the peer's doing, and must not be an error of ours
            raise unreadable() from error
        if certificate is None:  # OpenSSL does not let it come to this
            raise PeerRefused("failed", "it has shown no certificate")
        if server_name is not None:
            _check_name(certificate, server_name, name)
        return name


def indicated_name(server_name: str) -> bytes | None:
    """Return the name by which a server is asked (RFC 6066 section 3); ``None`` for one that is known by its address.

    Raises:
        DTLSConfigurationError: It cannot be a host's name.
    """
    if is_ip(server_name):
        return None
    try:
        return DNS_ID(server_name).hostname
    except (ValueError, ImportError) as error:  # ImportError: a name that is not ASCII, without the package idna
        raise DTLSConfigurationError(
            f"server_name={server_name!r} cannot be the name of a host; give the name or the address in its certificate"
        ) from error


def _check_name(certificate: x509.Certificate, server_name: str, shown: str | None) -> None:
    by_address = is_ip(server_name)
    name = server_name.partition("%")[0] if by_address else server_name  # certificates know nothing of scopes
    verify = verify_certificate_ip_address if by_address else verify_certificate_hostname
    try:
        verify(certificate, name)
    except (VerificationError, CertificateError) as error:
        if shown is not None and shown.lower() == name.lower():
            kind = "IP" if by_address else "DNS"
            text = (
                f"its certificate names {name!r}, but not as a subjectAltName of the kind {kind}, which alone counts; "
            )
            text += "give it one that does"
        else:
            text = f"its certificate is for {shown or 'nobody'!r}, not for {name!r}; ask for it by the former name, or "
            text += "give it a certificate for the latter"
        raise PeerRefused("wrong_name", text) from error


def _build(sources: _Sources) -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_options(_OPTIONS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    if sources.certificate is not None and sources.key is not None:
        _use_certificate(context, sources.certificate, sources.key)
    if sources.verifies:
        _trust(context, sources)
    else:
        context.set_verify(SSL.VERIFY_NONE)
    if sources.is_server:
        context.set_cookie_generate_callback(_make_cookie)
        context.set_cookie_verify_callback(_verify_cookie)
    return context


def _use_certificate(context: SSL.Context, certificate: PEM, key: PEM) -> None:
    first, *between = load_certificates(certificate, "the certificate")
    private = load_key(key)
    try:
        public = first.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        text = f"{named('the certificate', certificate)} has a key of a kind that is not supported: {error}"
        raise DTLSConfigurationError(text) from error
    if public != private.public_key():
        raise DTLSConfigurationError(
            f"{named('the key', key)} does not belong to {named('the certificate', certificate)}"
        )
    try:
        context.use_certificate(first)
        for issuer in between:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(private)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        text = f"OpenSSL refuses {named('the certificate', certificate)} with its key: {error}"
        raise DTLSConfigurationError(text) from error


def _trust(context: SSL.Context, sources: _Sources) -> None:
    if sources.authorities is None:
        context.set_default_verify_paths()
    else:
        what = "the authority's certificate"
        _add_authorities(context, load_certificates(sources.authorities, what), is_server=sources.is_server)
    allow = sources.allow

    # OpenSSL has no number for a refusal by the list, so that the peer gets the alert "internal error" for it.
    def judge(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, preverified: int) -> bool:
        facts: PeerFacts = connection.get_app_data()
        if not preverified:
            facts.refusal = error or _UNSPECIFIED
            return False
        if depth == 0 and allow:
            try:
                facts.name = certificate_name(certificate.to_cryptography())
            except Exception:  # noqa: BLE001  # as in verified_name
                facts.refusal = UNREADABLE
                return False
            if facts.name not in allow:
                facts.refusal = NOT_ALLOWED
                return False
        return True

    demand = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if sources.is_server else 0
    context.set_verify(SSL.VERIFY_PEER | demand, judge)


def _add_authorities(context: SSL.Context, authorities: Sequence[x509.Certificate], *, is_server: bool) -> None:
    store: Any = context.get_cert_store()
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        if is_server:
            context.add_client_ca(authority)


def _make_cookie(connection: SSL.Connection) -> bytes:
    facts: PeerFacts = connection.get_app_data()
    if facts.cookies is None:
        return b""
    return facts.cookies.make(facts.peer, facts.random, now=facts.now)


def _verify_cookie(connection: SSL.Connection, cookie: bytes) -> bool:
    facts: PeerFacts = connection.get_app_data()
    return facts.cookies is not None and facts.cookies.verifies(cookie, facts.peer, facts.random, now=facts.now)
