"""PEM files, and the names that certificates carry.

Theory of operation: files are read here, not by OpenSSL, so that bytes and files take one way and a file that cannot be
read is told by its name and in the system's words. What a file holds is parsed by cryptography. Nothing here judges
whether a certificate is to be trusted: OpenSSL does, by the chain, and service-identity by the name.

The name of a certificate, by which methods and lists know a peer, is the first of its subjectAltNames that is a host
name, an address, a URI or an email address, in the certificate's own order; a certificate without any is known by its
common name. Host names are in lower case.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from ..errors import DTLSConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PEM", "certificate_name", "load_certificates", "load_key", "named", "normal_name"]

PEM: TypeAlias = "Path | str | bytes"
"""The path of a PEM file, or its content as bytes."""


def load_certificates(pem: PEM, what: str) -> Sequence[x509.Certificate]:
    """Read the certificates of a PEM file, in its order; at least one.

    Args:
        pem: Where they are.
        what: What they are for, as the error tells it: ``"the certificate"``.

    Raises:
        DTLSConfigurationError: It cannot be read or holds none.
    """
    content = _content(pem, what)
    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion) as error:
        text = f"{named(what, pem)} holds no certificate that can be read ({error}); it must be a PEM file"
        raise DTLSConfigurationError(text) from error


def load_key(pem: PEM) -> Any:
    """Read a private key that is not encrypted.

    Raises:
        DTLSConfigurationError: It cannot be read, is none, or wants a passphrase.
    """
    content = _content(pem, "the key")
    try:
        return load_pem_private_key(content, None)
    except TypeError as error:  # so cryptography says that it wants a passphrase
        text = f"{named('the key', pem)} is encrypted; decrypt it (openssl pkey -in FILE -out FILE), and let only the "
        raise DTLSConfigurationError(f"{text}server read it") from error
    except ValueError as error:
        text = f"{named('the key', pem)} holds no private key that can be read; it must be a PEM file"
        raise DTLSConfigurationError(text) from error
    except UnsupportedAlgorithm as error:
        raise DTLSConfigurationError(f"{named('the key', pem)} is of a kind that is not supported: {error}") from error


def named(what: str, pem: PEM) -> str:
    """Return what to call a source of PEM in an error: with its path where it has one."""
    return what if isinstance(pem, bytes) else f"{what} {os.fspath(pem)}"


def certificate_name(certificate: x509.Certificate) -> str | None:
    """Return the name by which a peer is known that has shown a certificate; see above. ``None`` where it has none.

    Whatever cryptography cannot read of a certificate that OpenSSL has taken, it raises; the common name does not stand
    in for subjectAltNames that cannot be read.
    """
    for name in _alternative_names(certificate):
        if isinstance(name, x509.DNSName):
            return name.value.lower()
        if isinstance(name, x509.IPAddress | x509.UniformResourceIdentifier | x509.RFC822Name):
            return str(name.value)
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return str(attribute.value)
    return None


def normal_name(name: str) -> str:
    """Return a name of a list as :func:`certificate_name` spells it: a host name in lower case, others as they are."""
    return name if set(name) & set("@:/ ") else name.lower()


def _alternative_names(certificate: x509.Certificate) -> Sequence[x509.GeneralName]:
    """Return the subjectAltNames; raises what :func:`certificate_name` does."""
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return ()
    value: Any = extension.value
    return tuple(value)


def _content(pem: PEM, what: str) -> bytes:
    if isinstance(pem, bytes):
        return pem
    try:
        return Path(pem).read_bytes()
    except OSError as error:
        text = f"{named(what, pem)} cannot be read: {error.strerror}; check its path, and whether this user may read it"
        raise DTLSConfigurationError(text) from error
