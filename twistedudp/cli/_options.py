"""What commands have in common: whom they ask, how a number is written, which address family.

Theory of operation: parsers of single options and decorators that add several; whatever cannot be meant ends in
``Misuse``, whose text tells how to write it.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ..address import DEFAULT_PORT, is_ip, is_ipv6, parse_host_port
from ._arguments import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._resolve import AddressFamily
    from ..address import Address

__all__ = [
    "Certificates",
    "address",
    "dtls_options",
    "duration",
    "family_of_flags",
    "family_options",
    "seconds",
    "server_options",
    "share",
    "shown_seconds",
]

_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]*)")


def address(text: str) -> Address:
    """Parse ``HOST[:PORT]``; the default port is 10000.

    Raises:
        Misuse: It is none.
    """
    try:
        return parse_host_port(text, DEFAULT_PORT)
    except ValueError as error:
        raise Misuse(str(error)) from error


def seconds(text: str | float) -> float:
    """Parse the value of ``--timeout``: a positive number of seconds, with an end.

    Raises:
        Misuse: It is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise Misuse(f"--timeout {text}: write a number of seconds above 0, such as 2.5")
    return number


def duration(option: str, text: str, *, least: float = 0.0, most: float = 86400.0 * 366) -> float:
    """Parse a duration as people write it: ``0.2``, ``200ms``, ``1.5s``, ``2min``.

    Args:
        option: What to call it in errors, such as ``--interval``.
        text: What was typed.
        least: Seconds; less is refused, and so is 0.
        most: Seconds; more is refused.

    Returns:
        Seconds.

    Raises:
        Misuse: It is none, or out of range.
    """
    parsed = _DURATION.fullmatch(text.strip()) if text.isascii() or "µ" in text else None
    if parsed is None or parsed[2] not in _UNITS:
        raise Misuse(f"{option} {text}: write a time, such as 0.2, 200ms or 5s")
    value = float(parsed[1]) * _UNITS[parsed[2]]
    if value <= 0 or not least <= value <= most:
        at_least = f"at least {shown_seconds(least)}" if least else "above 0"
        raise Misuse(f"{option} {text}: it must be {at_least} and at most {shown_seconds(most)}")
    return value


def shown_seconds(value: float) -> str:
    """Return a time as an option takes it: ``1ms``, ``2s``."""
    return f"{value * 1000:g}ms" if value < 1 else f"{value:g}s"


def share(option: str, text: str) -> float:
    """Parse a share as people write it: ``1%``, ``0.01``.

    Args:
        option: What to call it in errors, such as ``--max-loss``.
        text: What was typed.

    Returns:
        A number from 0 to 1.

    Raises:
        Misuse: It is none.
    """
    typed = text.strip()
    try:
        value = float(typed.removesuffix("%")) / (100 if typed.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise Misuse(f"{option} {text}: write a share from 0% to 100%, such as 1% or 0.01")
    return value


def family_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``-4`` and ``-6``, which the command gets as ``ipv4`` and ``ipv6``; see :func:`family_of_flags`."""
    command = click.option("-6", "ipv6", is_flag=True, help="Use IPv6 only.")(command)
    return click.option("-4", "ipv4", is_flag=True, help="Use IPv4 only.")(command)


def family_of_flags(host: str, *, ipv4: bool, ipv6: bool) -> AddressFamily | None:
    """Return the address family that ``-4`` or ``-6`` asks for, None where neither does.

    Raises:
        Misuse: Both were given, or one that contradicts a numeric host.
    """
    if ipv4 and ipv6:
        raise Misuse("-4 and -6 exclude each other; leave both out to try all addresses of the host")
    family: AddressFamily | None = "ipv4" if ipv4 else "ipv6" if ipv6 else None
    if family and is_ip(host) and is_ipv6(host) != ipv6:
        raise Misuse(f"{host} is not an {'IPv6' if ipv6 else 'IPv4'} address; leave -{6 if ipv6 else 4} out")
    return family


class Certificates(NamedTuple):
    """What ``--dtls`` and its companions say, as paths."""

    ca: Path | None
    """The authorities that the server's certificate may come from, ``None`` for those that the system trusts."""
    certificate: Path | None
    """The own certificate."""
    key: Path | None
    """Its key."""


def dtls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--dtls``, ``--ca``, ``--cert`` and ``--key``, and hand them on as one ``Certificates``, None without."""
    path = click.Path(path_type=Path)

    @click.option("--dtls", is_flag=True, help="Speak DTLS with the server.")
    @click.option("--ca", metavar="FILE", type=path, help="With --dtls: whom to trust. [default: as the system does]")
    @click.option("--cert", metavar="FILE", type=path, help="With --dtls: the certificate to show, if the server asks.")
    @click.option("--key", metavar="FILE", type=path, help="With --cert: its key.")
    @functools.wraps(command)
    def with_certificates(dtls: bool, ca: Path | None, cert: Path | None, key: Path | None, **rest: Any) -> None:
        given = {"--ca": ca, "--cert": cert, "--key": key}
        for option in (name for name, value in given.items() if value is not None and not dtls):
            raise Misuse(f"{option} belongs to --dtls, which is not given")
        if (cert is None) != (key is None):
            there, missing = ("--key", "--cert") if cert is None else ("--cert", "--key")
            raise Misuse(f"{there} FILE needs {missing} FILE: a certificate and its key belong together")
        command(certificates=Certificates(ca, cert, key) if dtls else None, **rest)

    return with_certificates


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the argument HOST[:PORT], ``--timeout``, ``-4``, ``-6`` and DTLS's, and hand them on as one ``Server``."""

    @click.argument("address", metavar="HOST[:PORT]", type=address)
    @click.option(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=2.0,
        show_default=True,
        help="How long to wait for the answer.",
    )
    @family_options
    @dtls_options
    @functools.wraps(command)
    def with_server(
        address: Address, timeout: float, ipv4: bool, ipv6: bool, certificates: Certificates | None, **rest: Any
    ) -> None:
        from ._ask import Server  # noqa: PLC0415  # Twisted: only where something is asked

        family = family_of_flags(address[0], ipv4=ipv4, ipv6=ipv6)
        command(server=Server(*address, timeout, family, certificates), **rest)

    return with_server
