"""The options of ``twistd udpecho`` that say who is served, how much, and how the server starts and ends.

Theory of operation: these options are for a server on a public address. They are checked as all others are, before
anything is bound and while root's rights are still there: a file that only root may read is read here. What they
describe is made by modules that an echo server on loopback does not need, so those are imported where an option asks
for them: the start is timed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.python import usage

from ._options import ServiceOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

__all__ = ["SecurityOptions"]

DRAIN_TIMEOUT: Final = 5.0
"""Seconds that running requests are given at a stop where ``--drain-timeout`` says nothing: longer than the two seconds
that a call lasts by default, shorter than the ten after which a container is killed."""

_MOST_SECONDS: Final = 3600.0
_MOST_DATAGRAMS: Final = 1e9
"""Per second: more than any network brings; what exceeds it is surely a mistake."""

_NUMBER: Final = re.compile(r"\d{1,10}(\.\d{1,6})?", re.ASCII)


class SecurityOptions(ServiceOptions):
    """The options; a command mixes them into its own by deriving from this class.

    Attributes:
        networks: What ``--allow``, ``--deny`` and ``--trust`` gave, by the option's name.
        token_key: What ``--token-key-file`` holds.
    """

    optParameters: ClassVar[Sequence[tuple[str, str | None, str | None, str]]] = (
        ("rate", None, None, "Datagrams per second that one host (IPv6: /64) may send; 0: no limit. [default: 1000]"),
        ("burst", None, None, "Datagrams that it may send at once before --rate counts. [default: 2000]"),
        ("total-rate", None, None, "Datagrams per second from all hosts together; 0: no limit. [default: 100000]"),
        ("token-key-file", None, None, "A file with a secret of 32 bytes, by which several servers know proven peers."),
        ("drain-timeout", None, str(int(DRAIN_TIMEOUT)), "Seconds that running requests are given at a stop."),
        ("fd", None, None, "The number of an inherited UDP socket to serve, instead of --port and --interface."),
    )
    optFlags: ClassVar[Sequence[tuple[str, str | None, str]]] = (
        ("log-only", None, "Log and count what --rate, --allow and --deny would refuse, and refuse nothing."),
        ("public", None, "Refuse to start with what is unsafe on a public address."),
    )

    def __init__(self) -> None:
        super().__init__()
        self.networks: dict[str, list[IPv4Network | IPv6Network]] = {"allow": [], "deny": [], "trust": []}
        self.token_key: bytes | None = None

    def opt_allow(self, text: str) -> None:
        """A network that may be served, as 192.0.2.0/24; then no other is. Several: repeated, or with commas."""
        self._take_networks("allow", text)

    def opt_deny(self, text: str) -> None:
        """A network that is not served; it goes before --allow. Several: repeated, or with commas."""
        self._take_networks("deny", text)

    def opt_trust(self, text: str) -> None:
        """A network whose hosts no rate limit is for. Several: repeated, or with commas."""
        self._take_networks("trust", text)

    def check_security(self) -> None:
        """Check every value of these options, and read the files that they name.

        Raises:
            UsageError: A value is wrong.
        """
        for option in ("rate", "total-rate"):
            if self[option] is not None:
                self[option] = self.number(option, 0.0, _MOST_DATAGRAMS, "datagrams per second")
        if self["burst"] is not None:
            self["burst"] = self.whole_number("burst", 1, int(_MOST_DATAGRAMS))
        self["drain-timeout"] = self.number("drain-timeout", 0.0, _MOST_SECONDS, "seconds")

    def number(self, option: str, least: float, most: float, unit: str) -> float:
        """Return the value of an option that is a number with or without decimals.

        Raises:
            UsageError: It is none, or out of range.
        """
        text = self[option]
        if _NUMBER.fullmatch(text) and least <= float(text) <= most:
            return float(text)
        raise usage.UsageError(f"--{option}: {text!r} is not a number of {unit} from {least:g} to {most:g}")

    def service_options(self) -> dict[str, Any]:
        """Return what these options say, as arguments of the service."""
        return {"drain_timeout": self["drain-timeout"], "public": bool(self["public"])}

    def _take_networks(self, option: str, text: str) -> None:
        from ipaddress import ip_network  # noqa: PLC0415  # only for who names a network, for the start is timed

        for part in text.split(","):
            self.networks[option].append(ip_network(part.strip()))
