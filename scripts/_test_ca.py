"""Certificates for trying DTLS out: a certificate authority, a server's certificate and those of clients.

Theory of operation: one elliptic-curve key (P-256) for each certificate; the authority signs the others and nothing
else. Everything is made in memory first and written last, each key readable by its owner only, into a directory that is
new or empty: what was made before is never overwritten. None of this is for use beyond tests: the authority's key lies
unencrypted beside the certificates that it signed.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Authority", "Issued", "TestCAError", "write_test_ca"]

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of clients: each is the name of a file as well, and a certificate's common name has at most 64 characters."""

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_RESERVED: Final = frozenset({"ca", "server"})
_CLOCKS_DIFFER: Final = dt.timedelta(hours=1)
"""Certificates are valid since so long ago: another machine's clock may be slow."""


class TestCAError(Exception):
    """Something asked for cannot be made; the text is one line that says what to do."""

    __test__ = False  # pytest takes it for tests


class Issued(NamedTuple):
    """A certificate and its key, both in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority.

    Args:
        name: Its name.
        valid_for: From its certificate's first to its last moment, from now on.
    """

    def __init__(self, name: str = "twistedudp test CA", valid_for: dt.timedelta = dt.timedelta(days=365)) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._ends = dt.datetime.now(dt.timezone.utc) + valid_for
        builder = self._builder(self._name, self._key.public_key(), self._ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def issued(self) -> Issued:
        """Its own certificate and key."""
        return Issued(_pem(self._certificate), _pem_of_key(self._key))

    def issue(
        self, name: str, hosts: Sequence[str], *, client: bool = False, ends: dt.datetime | None = None
    ) -> Issued:
        """Issue a certificate.

        Args:
            name: The common name.
            hosts: The names and numeric addresses that it is valid for.
            client: Whether it is a client's, not a server's.
            ends: When it expires, which may be in the past; with the authority if not given.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), ends or self._ends)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return Issued(_pem(builder.sign(self._key, hashes.SHA256())), _pem_of_key(key))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, ends: dt.datetime
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=min(now, ends) - _CLOCKS_DIFFER,
            not_valid_after=ends,
        )
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(authority, critical=False)


def write_test_ca(folder: Path, servers: Sequence[str], clients: Sequence[str], days: int) -> list[Path]:
    """Make an authority, a server's certificate and those of clients, and write them.

    Args:
        folder: The directory; it is made if there is none.
        servers: The names and numeric addresses that clients know the server by; at least one.
        clients: The clients' names; ``NAME.pem`` and ``NAME-key.pem`` are their files.
        days: How long all of it is valid.

    Returns:
        The files, in the order in which they were written.

    Raises:
        TestCAError: A name cannot be one, the directory is not empty, or the system refuses.
    """
    for host in servers:
        _check_host(host)
    for name in clients:
        _check_client(name, clients)
    authority = Authority(valid_for=dt.timedelta(days=days))
    made = {"ca": authority.issued, "server": authority.issue(servers[0][:64], servers)}
    made |= {name: authority.issue(name, [name], client=True) for name in clients}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise TestCAError(f"{folder} is not empty, and nothing is overwritten: name a directory that is not there")
        for name, issued in made.items():
            for path, text, mode in (
                (folder / f"{name}.pem", issued.certificate, 0o644),
                (folder / f"{name}-key.pem", issued.key, 0o600),
            ):
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                    file.write(text)
                written.append(path)
    except OSError as error:
        raise TestCAError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return written


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if len(host) > 253 or not _HOST_NAME.fullmatch(host):
            raise TestCAError(
                f"--server {host!r} is neither a host name nor a numeric address: write one as clients will, such as "
                "localhost or 192.0.2.1"
            ) from None


def _check_client(name: str, clients: Sequence[str]) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise TestCAError(f"--client {name!r}: write a name of letters, digits, dots, - and _, of 64 at most")
    if name in _RESERVED or name.endswith("-key"):
        raise TestCAError(f"--client {name!r}: {name}.pem is another's file; choose another name")
    if clients.count(name) > 1:
        raise TestCAError(f"--client {name!r} is given twice")


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
