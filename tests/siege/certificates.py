"""The certificates of a siege: a server's, and one that all its honest clients have."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tests.siege.field import SERVER
from twistedudp.errors import DTLSUnavailable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificates", "missing_for_dtls", "write_certificates"]


class Certificates(NamedTuple):
    """What is in the files, as programs are told of it."""

    server: tuple[str, ...]
    """The options of ``twistd udpecho``, by which clients must have a certificate."""
    client: dict[str, Path]
    """The arguments of ``DTLSContext.client``."""


def missing_for_dtls() -> str:
    """Return what is missing for a server that speaks DTLS; empty if nothing is."""
    try:
        import_module("twistedudp.dtls")
        import_module("tests.dtls.authority")
    except (DTLSUnavailable, ImportError) as error:
        return str(error)
    return ""


def write_certificates(folder: Path) -> Certificates:
    """Make an authority and what it issues, and write it; the keys are readable by their owner only."""
    from tests.dtls.authority import Authority  # noqa: PLC0415  # what it needs may not be installed

    authority = Authority()
    written = {"ca.pem": authority.certificate}
    for name in ("server", "client"):
        hosts = [SERVER] if name == "server" else ["client.example"]
        issued = authority.issue(hosts, common_name=hosts[0])
        written |= {f"{name}.pem": issued.certificate, f"{name}-key.pem": issued.key}
    for name, text in written.items():
        (folder / name).touch(mode=0o600 if name.endswith("-key.pem") else 0o644)
        (folder / name).write_bytes(text)
    ca, *pairs = (folder / name for name in written)
    options = ("--dtls-cert", pairs[0], "--dtls-key", pairs[1], "--dtls-client-ca", ca)
    return Certificates(tuple(map(str, options)), {"ca": ca, "certificate": pairs[2], "key": pairs[3]})
