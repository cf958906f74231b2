"""Certificates as files, for servers and clients that are programs.

Theory of operation: made once for a run of the tests, and written anew for each test that wants them: some tests change
or remove them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tests.dtls.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dtls.authority import Credentials

__all__ = ["HOSTS", "write_certificates", "write_pair"]

HOSTS = ("localhost", "127.0.0.1", "::1")
"""What the server's certificate is for."""


@cache
def _made() -> tuple[dict[str, bytes], dict[str, Credentials]]:
    authority, other = Authority(), Authority("Another CA")
    pairs = {
        "server": authority.issue(HOSTS, common_name="localhost"),
        "renewed": authority.issue([*HOSTS, "renewed.example"], common_name="localhost"),
        "misnamed": authority.issue(["elsewhere.example"], common_name="elsewhere.example"),
        "expired": authority.issue(HOSTS, common_name="localhost", days=-1),
        "alice": authority.issue(["alice"], common_name="alice"),
        "eve": authority.issue(["eve"], common_name="eve"),
        "stranger": other.issue(["alice"], common_name="alice"),
    }
    return {"ca": authority.certificate, "other-ca": other.certificate}, pairs


def write_certificates(folder: Path) -> None:
    """Write the authorities' certificates, ``ca.pem`` and ``other-ca.pem``, and pairs of certificate and key.

    ``server`` is for this machine, ``misnamed`` for another, ``expired`` says it; ``alice`` and ``eve`` are clients';
    ``stranger`` calls itself alice by the other authority.
    """
    authorities, pairs = _made()
    for name, pem in authorities.items():
        (folder / f"{name}.pem").write_bytes(pem)
    for name in pairs:
        write_pair(folder, name, name)


def write_pair(folder: Path, which: str, name: str) -> None:
    """Write one pair under a name: ``NAME.pem`` and ``NAME-key.pem``, the latter for its owner only."""
    certificate, key = _made()[1][which]
    (folder / f"{name}.pem").write_bytes(certificate)
    path = folder / f"{name}-key.pem"
    path.touch(mode=0o600)
    path.write_bytes(key)
