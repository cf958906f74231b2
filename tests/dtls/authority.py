"""A certificate authority for tests: P-256 keys, certificates of any names and any time, as PEM bytes."""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Authority", "Credentials"]

_DAY = dt.timedelta(days=1)


class Credentials(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Issues certificates.

    Args:
        name: Its common name.
    """

    def __init__(self, name: str = "Test CA") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key.public_key(), days=30)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.certificate = self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        names: Sequence[str | x509.GeneralName] = (),
        *,
        common_name: str = "",
        days: float = 1,
        padding: int = 0,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Credentials:
        """Return a certificate and its key.

        Args:
            names: Its subjectAltNames: host names and addresses as text, others as they are.
            common_name: Its common name, if any.
            days: How long it is valid from now on; negative for one that has expired.
            padding: Bytes to make it larger by.
            extensions: More of them, none critical.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = self._builder(subject, key.public_key(), days=days)
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=not common_name)
        if padding:
            comment = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(padding))
            builder = builder.add_extension(comment, critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Credentials(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, days: float
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        end = now + days * _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - _DAY)
            .not_valid_after(end)
        )


def _general_name(name: str | x509.GeneralName) -> x509.GeneralName:
    if not isinstance(name, str):
        return name
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
