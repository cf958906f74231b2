"""What is probed and how: the settings of a target, by whatever way they came, and what is wrong with them.

Theory of operation: one class has the settings with their types and ranges, and msgspec checks each value against them,
so that the command line and the file of targets take the same and refuse the same. An error says which setting, what it
was given, and what to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

import msgspec

from .._lookup import checked_servers
from ..address import DEFAULT_PORT, canonical, is_ip, is_ipv6, parse_host_port
from ..errors import BroadcastNotSupported, LocalError
from ..plugins import nearest
from ..probing import DEFAULT_PROBE_SIZE
from ._health import Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._resolve import AddressFamily

__all__ = [
    "MAX_TARGETS",
    "SettingError",
    "Settings",
    "Target",
    "checked_settings",
    "checked_target",
    "parse_target",
    "shown",
]

MAX_TARGETS: Final = 10_000
"""Targets of one process: at an interval of 1 s they take 40 % of a core, and 5 KB of memory each."""

_LONGEST_NAME: Final = 100


class SettingError(LocalError, ValueError):
    """A target that cannot be probed so; the text names the setting and what to write."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a target is probed; times in seconds."""

    interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 1.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    timeout: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 2.0
    size: Annotated[int, msgspec.Meta(ge=56, le=65507)] = DEFAULT_PROBE_SIZE
    protocol: Literal["auto", "echo", "rpc"] = "auto"
    family: Literal["any", "ipv4", "ipv6"] = "any"
    window: Annotated[int, msgspec.Meta(ge=10, le=1000)] = 300
    degraded_loss: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    degraded_rtt: Annotated[float, msgspec.Meta(gt=0, le=60)] | None = None
    down_after: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    up_after: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3

    @property
    def thresholds(self) -> Thresholds:
        """When a target is in which state."""
        return Thresholds(self.window, self.degraded_loss, self.down_after, self.up_after)

    @property
    def address_family(self) -> AddressFamily | None:
        """The family that the addresses of a name are taken from; None takes any."""
        return None if self.family == "any" else self.family


_MEANT: Final = {
    "interval": ("a number of seconds from 0.1 to 3600", "1.0"),
    "jitter": ("a share of the interval from 0 to 1", "0.1"),
    "timeout": ("a number of seconds from 0.01 to 60", "2.0"),
    "size": ("a whole number of bytes from 56 to 65507", "64"),
    "protocol": ("auto, echo or rpc", '"auto"'),
    "family": ("any, ipv4 or ipv6", '"any"'),
    "window": ("a whole number of probes from 10 to 1000", "300"),
    "degraded_loss": ("a share above 0 and at most 1", "0.05"),
    "degraded_rtt": ("a number of seconds above 0 and at most 60", "0.05"),
    "down_after": ("a whole number of probes from 1 to 100", "5"),
    "up_after": ("a whole number of probes from 1 to 100", "3"),
}
_TYPES: Final[dict[str, Any]] = {field.name: field.type for field in msgspec.structs.fields(Settings)}


class Target(NamedTuple):
    """A server to be probed."""

    name: str
    host: str
    """A name or a numeric address, in the kernel's spelling."""
    port: int
    settings: Settings


def shown(key: str) -> str:
    """Return a file's key as it can stand in one line."""
    return key if key.isprintable() else repr(key)


def checked_settings(
    given: Mapping[str, object], defaults: Settings, *, where: str = "", option: bool = False
) -> Settings:
    """Return settings, each checked.

    Args:
        given: Their values by name: those of a file with their types, those of options as text.
        defaults: What holds where nothing is given.
        where: What stands before a setting's name in an error: ``"defaults."``.
        option: They are options.

    Raises:
        SettingError: There is no such setting, or not with such a value.
    """
    values = {}
    for name, value in given.items():
        if name not in _TYPES:
            known = f"the settings are {', '.join(_TYPES)}"
            raise SettingError(f"{where}{shown(name)}: there is no such setting{nearest(name, list(_TYPES))}; {known}")
        meaning, example = _MEANT[name]
        try:
            values[name] = msgspec.convert(value, _TYPES[name], strict=not option)
        except (msgspec.ValidationError, OverflowError):
            values[name] = None
        if values[name] is None:  # no way to write it in TOML, and the text "null" is no number
            flag = f"--{name.replace('_', '-')}"
            example = f"{flag} {example.strip(chr(34))}" if option else f"{name} = {example}"
            place = flag if option else f"{where}{name}"
            raise SettingError(f"{place}: {value!r:.60} is not {meaning}; write for example {example}")
    return msgspec.structs.replace(defaults, **values)


def checked_target(name: str, address: str, settings: Settings) -> Target:
    """Return a target.

    Args:
        name: What it is called in metrics and in the log.
        address: ``HOST`` or ``HOST:PORT``; the default port is 10000.
        settings: How it is probed.

    Raises:
        SettingError: It cannot be one.
    """
    if not (0 < len(name) <= _LONGEST_NAME and name.isprintable() and not name.isspace()):
        raise SettingError(f"{name!r} is not a name: it has 1 to {_LONGEST_NAME} printable characters")
    try:
        host, port = parse_host_port(address, DEFAULT_PORT)
        checked_servers(host, port, "")
    except BroadcastNotSupported:
        raise SettingError(f"{host} is a broadcast or multicast address; name the servers one by one") from None
    except ValueError as error:
        raise SettingError(str(error)) from None
    if is_ip(host):
        host = canonical(host)
        if settings.address_family not in (None, "ipv6" if is_ipv6(host) else "ipv4"):
            raise SettingError(f"{host} is no {settings.family} address; leave family out, or name another address")
    return Target(name, host, port, settings)


def parse_target(text: str, settings: Settings) -> Target:
    """Parse ``NAME=HOST:PORT``, or ``HOST:PORT`` alone, which is its own name then.

    Raises:
        SettingError: It is neither.
    """
    name, equals, address = text.partition("=")
    return checked_target(name.strip(), address, settings) if equals else checked_target(text.strip(), text, settings)
