"""The options of ``twistd udpecho`` that say who is served, how much, and how the server starts and ends.

Theory of operation: these options are for a server on a public address. They are checked as all others are, before
anything is bound and while root's rights are still there: a file that only root may read is read here. What they
describe is made by modules that an echo server on loopback does not need, so those are imported where an option asks
for them: the start is timed.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.logger import Logger
from twisted.python import usage

from ._options import ServiceOptions
from .address import is_loopback
from .errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from twisted.internet.protocol import AbstractDatagramProtocol

    from .address import Address
    from .admission import AdmissionPolicy
    from .dtls import DTLSContext
    from .interfaces import IDatagramPlugin

__all__ = ["DRAIN_TIMEOUT", "SecurityOptions"]

_log = Logger(namespace="twistedudp")

DRAIN_TIMEOUT: Final = 5.0
"""Seconds that running requests are given at a stop where ``--drain-timeout`` says nothing: longer than the two seconds
that a call lasts by default, shorter than the ten after which a container is killed."""

_MOST_SECONDS: Final = 3600.0
_MOST_DESCRIPTOR: Final = 2**20
"""``fs.nr_open``: the kernel lets no process have a descriptor above it, as it comes."""

_NUMBER: Final = re.compile(r"\d{1,10}(\.\d{1,6})?", re.ASCII)


class SecurityOptions(ServiceOptions):
    """The options; a command mixes them into its own by deriving from this class.

    Attributes:
        networks: What ``--allow``, ``--deny`` and ``--trust`` gave, by the option's name.
        admission: What they and the rates amount to, None where nothing was said.
        token_key: What ``--token-key-file`` holds.
        descriptor: The inherited socket that is to be served, None where a port is bound.
        unserved: The descriptors that were passed beside it.
        dtls_context: What ``--dtls-cert`` and its companions hold, None without.
    """

    optParameters: ClassVar[Sequence[tuple[str, str | None, str | None, str]]] = (
        ("rate", None, None, "Datagrams per second that one host (IPv6: /64) may send; 0: no limit. [default: 1000]"),
        ("burst", None, None, "Datagrams that it may send at once before --rate counts. [default: 2000]"),
        ("total-rate", None, None, "Datagrams per second from all hosts together; 0: no limit. [default: 100000]"),
        ("token-key-file", None, None, "A file with a secret of 32 bytes, by which several servers know proven peers."),
        ("drain-timeout", None, str(int(DRAIN_TIMEOUT)), "Seconds that running requests are given at a stop."),
        ("dtls-cert", None, None, "Speak DTLS, with the certificate in this PEM file; see docs/dtls.md."),
        ("dtls-key", None, None, "The PEM file of the key of --dtls-cert."),
        ("dtls-client-ca", None, None, "A PEM file: serve only whose certificate comes from an authority in it."),
        ("fd", None, None, "The number of an inherited UDP socket to serve, instead of --port and --interface."),
    )
    optFlags: ClassVar[Sequence[tuple[str, str | None, str]]] = (
        ("log-only", None, "Log and count what --rate, --allow and --deny would refuse, and refuse nothing."),
        ("public", None, "Refuse to start with what is unsafe on a public address."),
    )

    def __init__(self) -> None:
        super().__init__()
        self.networks: dict[str, list[IPv4Network | IPv6Network]] = {"allow": [], "deny": [], "trust": []}
        self.admission: AdmissionPolicy | None = None
        self.token_key: bytes | None = None
        self.descriptor: int | None = None
        self.unserved: list[int] = []
        self.dtls_context: DTLSContext | None = None
        self._dtls_allow: list[str] = []

    def opt_dtls_allow(self, name: str) -> None:
        """A name: of those with a certificate of --dtls-client-ca, serve only this one. Several: repeated."""
        if not name:
            raise usage.UsageError("--dtls-allow: '' is no name; write one as its certificate has it, or leave it out")
        self._dtls_allow.append(name)

    def opt_allow(self, text: str) -> None:
        """A network that may be served, as 192.0.2.0/24; then no other is. Several: repeated, or with commas."""
        self._take_networks("allow", text)

    def opt_deny(self, text: str) -> None:
        """A network that is not served; it goes before --allow. Several: repeated, or with commas."""
        self._take_networks("deny", text)

    def opt_trust(self, text: str) -> None:
        """A network whose hosts no rate limit is for. Several: repeated, or with commas."""
        self._take_networks("trust", text)

    def inherited_address(self, port: int | None, interface: str | None) -> Address | None:
        """Return what the inherited socket is bound to, if there is one; the environment no longer tells of it then.

        Args:
            port: The value of ``--port``, None where it was not given.
            interface: The value of ``--interface``, likewise.

        Raises:
            UsageError: ``--fd`` is no number.
            LocalError: What was inherited cannot be served.
        """
        if self["fd"] is None and "LISTEN_FDS" not in os.environ:
            return None
        from . import _activation  # noqa: PLC0415  # only for who inherits a socket, for the start is timed

        if self["fd"] is not None:
            descriptor = self["fd"] = self.whole_number("fd", 0, _MOST_DESCRIPTOR)
            _activation.forget(os.environ)
        else:
            passed = _activation.passed_descriptors(os.environ, os.getpid())
            if not passed:
                return None
            descriptor = _activation.choose(passed)
            self.unserved = [each.descriptor for each in passed if each.descriptor != descriptor]
        self.descriptor = descriptor
        return _activation.address_of(descriptor, port, interface)

    def tell_of_unserved(self) -> None:
        """Log which sockets were passed and are not served: what is sent to them, nobody reads."""
        if self.unserved:
            _log.warn(
                "the descriptors {unserved} were passed as well (LISTEN_FDS) and are not served: one server has one "
                "socket; call the one that is meant udpecho (FileDescriptorName=)",
                unserved=", ".join(map(str, self.unserved)),
            )

    @property
    def is_public(self) -> bool:
        """Whether ``--public`` asks for more than on loopback, where nobody but this machine is."""
        return bool(self["public"]) and not is_loopback(self["interface"])

    @property
    def is_encrypted(self) -> bool:
        """Whether DTLS has proven who asks before the protocol sees anything."""
        return bool(self.get("dtls-cert"))

    def check_security(self) -> None:
        """Check every value of these options, and read the files that they name.

        Raises:
            UsageError: A value is wrong, or two contradict each other.
        """
        self["drain-timeout"] = self.number("drain-timeout", "seconds", _MOST_SECONDS)
        self._check_dtls()
        if self.is_public:
            self._check_public()
        self._check_admission()
        if self["token-key-file"] is not None:
            self.token_key = self._read_token_key()

    def _check_admission(self) -> None:
        """Make a policy of what was said about it; where nothing was, the service has its own default."""
        policy: dict[str, Any] = {name: tuple(networks) for name, networks in self.networks.items() if networks}
        for option in ("rate", "burst", "total-rate"):
            if self[option] is not None:
                policy[option.replace("-", "_")] = self.number(option, "datagrams")
        if self["log-only"]:
            policy["log_only"] = True
        if policy:
            from .admission import AdmissionPolicy, PolicyError  # noqa: PLC0415  # only for who sets limits

            try:
                self.admission = AdmissionPolicy(**policy)
            except PolicyError as error:
                option = error.parameter.replace("_", "-")
                raise usage.UsageError(f"--{option}{str(error).removeprefix(error.parameter)}") from None

    def _check_dtls(self) -> None:
        """Read the files of DTLS, while root's rights are there.

        Raises:
            UsageError: One of the options is missing, or belongs to another.
            LocalError: A file cannot be used, or there is no DTLS here; in one line.
        """
        certificate, key, authorities = self["dtls-cert"], self["dtls-key"], self["dtls-client-ca"]
        if certificate is None:
            given = {"dtls-key": key, "dtls-client-ca": authorities, "dtls-allow": self._dtls_allow}
            for option in (name for name, value in given.items() if value):
                raise usage.UsageError(f"--{option} belongs to --dtls-cert FILE, which is not given")
            return
        if key is None:
            raise usage.UsageError("--dtls-cert needs its key: --dtls-key FILE")
        if self._dtls_allow and authorities is None:
            raise usage.UsageError("--dtls-allow names clients by their certificates: it needs --dtls-client-ca FILE")
        if self["discoverable"] is not None:
            raise usage.UsageError(
                "--discoverable and --dtls-cert exclude each other: questions and their answers travel in the clear"
            )
        from .dtls import DTLSContext  # noqa: PLC0415  # OpenSSL: only for who wants it, for the start is timed

        self.dtls_context = DTLSContext.server(
            Path(certificate).absolute(),  # twistd changes its directory
            Path(key).absolute(),
            client_ca=None if authorities is None else Path(authorities).absolute(),
            allow=self._dtls_allow,
        )

    def _check_public(self) -> None:
        """Refuse the limits that are none, and what would let servers answer one another, or anybody write the log.

        Raises:
            UsageError: One of them.
        """
        for option, what in (("rate", "one host"), ("total-rate", "all hosts together")):
            if self[option] is not None and not self.number(option, "datagrams"):
                raise usage.UsageError(
                    f"--public: --{option} 0 lets {what} send without a limit; leave it out, or write a number of "
                    "datagrams per second"
                )
        if self["log-only"]:
            raise usage.UsageError(
                "--public: --log-only refuses nothing; leave it out once the log shows nobody who is to be served"
            )
        if self.networks["trust"]:
            from .admission import covering  # noqa: PLC0415  # only for who trusts a network, for the start is timed

            everybody = covering(tuple(self.networks["trust"]))
            if everybody is not None:
                raise usage.UsageError(
                    f"--public: --trust {everybody} lets everybody send without a limit; write your own networks"
                )
        if self.get("verbose"):
            raise usage.UsageError(
                "--public: --verbose logs each datagram, and so lets anybody fill the disk; leave it out"
            )
        if self.get("answer-privileged-ports"):
            raise usage.UsageError(
                "--public: --answer-privileged-ports lets servers that echo answer one another; leave it out"
            )

    def check_public_plugin(self, plugin: IDatagramPlugin) -> None:
        """Refuse what a plugin itself says is unsafe; see :mod:`twistedudp._public`.

        Raises:
            PluginError: It is not to be served on a public address.
        """
        if self.is_public and not self.is_encrypted:
            from ._public import check_plugin  # noqa: PLC0415  # only for who asks, for the start is timed

            check_plugin(plugin)

    def preparations(self) -> list[Callable[[IDatagramPlugin, AbstractDatagramProtocol], None]]:
        """Return what is to be done with the protocol before it is served; each may raise ``PluginError``."""
        steps: list[Callable[[IDatagramPlugin, AbstractDatagramProtocol], None]] = []
        if self.is_public or self.token_key is not None:
            from . import _public  # noqa: PLC0415  # only for who asks, for the start is timed

            if self.is_public:
                steps.append(partial(_public.check_protocol, encrypted=self.is_encrypted))
            if self.token_key is not None:
                steps.append(_public.check_token_key)
        return steps

    def number(self, option: str, unit: str, most: float = float("inf")) -> float:
        """Return the value of an option that is a number, 0 or more, with or without decimals.

        Raises:
            UsageError: It is none, or too large.
        """
        text = self[option]
        if _NUMBER.fullmatch(text) and float(text) <= most:
            return float(text)
        limit = "" if most == float("inf") else f" from 0 to {most:g}"
        raise usage.UsageError(f"--{option}: {text!r} is not a number of {unit}{limit}")

    def service_options(self) -> dict[str, Any]:
        """Return what these options say, as arguments of the service; what was not given is left to its defaults."""
        options: dict[str, Any] = {"drain_timeout": self["drain-timeout"]}
        if self.token_key is not None:
            options["token_key"] = self.token_key
        if self.dtls_context is not None:
            options["dtls"] = self.dtls_context
        if self.admission is not None:
            options["admission"] = self.admission
        return options

    def _take_networks(self, option: str, text: str) -> None:
        from .admission import parse_network  # noqa: PLC0415  # only for who names a network, for the start is timed

        try:
            self.networks[option] += [parse_network(part) for part in text.split(",")]
        except ValueError as error:
            raise usage.UsageError(f"--{option}: {error}") from None

    def _read_token_key(self) -> bytes:
        """Return the secret in the file; it is read now, for after ``--uid`` it need not be readable any more.

        Raises:
            UsageError: There is none, or it is no secret.
        """
        from ._address_tokens import read_token_key  # noqa: PLC0415  # only for who has one, for the start is timed

        if self["protocol"] == "echo":
            raise usage.UsageError(
                "--token-key-file belongs to protocols that serve methods; echo sends nobody more than it got: leave "
                "it out"
            )
        try:
            return read_token_key(Path(self["token-key-file"]))
        except (LocalError, ValueError) as error:  # ValueError: a NUL in the name
            raise usage.UsageError(f"--token-key-file: {error}") from None
