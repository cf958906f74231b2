"""``twistd udpecho``: the options, and the service that they describe.

Theory of operation: ``twistd`` parses options, forks, gives up root's rights, starts services. Whatever can be found
wrong is found while options are parsed: then there is no pid file to leave behind and no parent that waits for its
daemon. For that reason the port is bound here too (root's rights are still there) and handed on through the options.
An error ends the process with one line; Twisted's own way, ``UsageError``, would print every option first. What is left
to go wrong later is the plugin's own code, which must not run before: see ``_startup.py``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.python import usage

from .address import DEFAULT_PORT, is_group, is_ip
from .errors import PluginError
from .plugins import installed_plugins, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from getopt import GetoptError

    from twisted.application.service import IService

    from .plugins import InstalledPlugin, InstalledPlugins
    from .transport import BoundSocket

__all__ = ["Options", "makeService"]

_PRIVILEGED_PORTS_FLAG: Final = "answer-privileged-ports"
_MAX_RECEIVE_BUFFER: Final = 2**30 - 1
"""Bytes; Linux doubles the number it is given and keeps it in an int (net/core/sock.c)."""


class Options(usage.Options):
    """The options of ``twistd udpecho``.

    Attributes:
        installed: The plugins that were found.
        plugin: The chosen one.
        protocol_options: What ``--protocol-option`` gave, and the flags that are short for one.
        bound: The socket, bound.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a UDP protocol: RFC 862 echo, the methods of a class of yours by MessagePack-RPC, or what a plugin in "
        "twisted/plugins offers. An option of twistd itself, such as -n or --uid, stands before the word udpecho."
    )
    optParameters = (
        ("port", "p", str(DEFAULT_PORT), "The UDP port; 0 picks a free one."),
        ("interface", "i", "127.0.0.1", "The address to listen on, IPv4 or IPv6; 0.0.0.0 all of IPv4, :: all of both."),
        ("protocol", None, "echo", "The protocol to serve; see --list-protocols."),
        ("max-datagram-size", None, "65535", "Bytes; a larger datagram is counted and dropped, never cut."),
        (
            "receive-buffer",
            None,
            None,
            "Bytes the kernel keeps for datagrams not yet read [default: 4194304 if it may].",
        ),
    )
    optFlags = (
        ("verbose", "v", "Log a line per datagram, with sender and size."),
        (_PRIVILEGED_PORTS_FLAG, None, "Let echo answer source ports below 1024 of other machines too."),
    )

    installed: InstalledPlugins
    plugin: InstalledPlugin
    bound: BoundSocket

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.protocol_options: dict[str, str] = {}

    def opt_protocol_option(self, text: str) -> None:
        """An option of the protocol, as key=value; may be given several times."""
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise usage.UsageError(f"--protocol-option: {text!r} is not of the form key=value")
        if key in self.protocol_options:
            raise usage.UsageError(f"--protocol-option: {key!r} is given twice")
        self.protocol_options[key] = value

    def opt_list_protocols(self) -> NoReturn:
        """Show the protocols that are installed, and exit."""
        _print(describe_plugins(installed_plugins()))

    def opt_version(self) -> NoReturn:
        """Show the versions of twistedudp and Twisted, and exit."""
        from importlib.metadata import version  # noqa: PLC0415  # 10 ms that only this option spends

        _print(f"twistedudp {version('twistedudp')}, Twisted {version('twisted')}\n")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse, check, and bind the port.

        Raises:
            SystemExit: Something is wrong; its text is the one line that Python prints for it, with exit status 1.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        except (usage.UsageError, PluginError) as error:
            raise SystemExit(f"twistd udpecho: {self._explained(error)}") from None

    def _explained(self, error: Exception) -> str:
        """Return an error's text; with the nearest option, where getopt did not know one."""
        unknown: GetoptError | Any = error.__context__
        option = getattr(unknown, "opt", "")
        if not option:
            return str(error)
        if len(option) == 1 and "not recognized" in str(error):
            return f"there is no option -{option}; --help lists them all"
        known = [f"--{name.rstrip('=')}" for name in self.longOpt]
        if "not recognized" in str(error):
            return f"there is no option --{option}{nearest(f'--{option}', known)}; --help lists them all"
        if "unique prefix" in str(error):
            meant = " or ".join(name for name in known if name.startswith(f"--{option}"))
            return f"the option --{option} may mean {meant}; write it out"
        return str(error)

    def parseArgs(self, *arguments: str) -> None:
        """Refuse what is not an option."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option: options begin with --; --help lists them all")

    def postOptions(self) -> None:
        """Check every value, choose the plugin, and bind the port.

        Raises:
            UsageError: A value is wrong, or the port cannot be had.
            PluginError: There is not exactly one plugin of that name.
        """
        self["port"] = self._number("port", 0, 65535)
        self["max-datagram-size"] = self._number("max-datagram-size", 1, 65535)
        if self["receive-buffer"] is not None:
            self["receive-buffer"] = self._number("receive-buffer", 1, _MAX_RECEIVE_BUFFER)
        self._check_interface(self["interface"])
        if self[_PRIVILEGED_PORTS_FLAG]:
            self._answer_privileged_ports()
        self.installed = installed_plugins()
        self.plugin = self.installed.named(self["protocol"])
        from ._startup import bind_or_explain  # noqa: PLC0415  # --help and --list-protocols need no transport

        self.bound = bind_or_explain(self["port"], self["interface"], self["receive-buffer"])

    def _number(self, option: str, least: int, most: int) -> int:
        text = self[option]
        # At most ten digits: int() of thousands takes its time and is refused by some versions of Python.
        if text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most:
            return int(text)
        raise usage.UsageError(f"--{option}: {text!r} is not a whole number from {least} to {most}")

    def _check_interface(self, interface: str) -> None:
        if not is_ip(interface):
            raise usage.UsageError(
                f"--interface: {interface!r} is not a numeric address; write one of this machine, such as 127.0.0.1 or "
                "::1, or 0.0.0.0 or :: for all of them"
            )
        if is_group(interface):
            raise usage.UsageError(
                f"--interface: {interface} is a broadcast or multicast address; write an address of this machine"
            )

    def _answer_privileged_ports(self) -> None:
        if self["protocol"] != "echo":
            raise usage.UsageError(
                f"--{_PRIVILEGED_PORTS_FLAG} belongs to the protocol 'echo', not to {self['protocol']!r}; give that "
                "one its own options with --protocol-option"
            )
        self.protocol_options["answer_privileged_ports"] = "true"


def _print(text: str) -> NoReturn:
    """Print a text and exit; where nobody reads it, that is no reason for a traceback."""
    try:
        print(text, end="", flush=True)  # noqa: T201  # what was asked for; print() copes with a closed stream
    except OSError as error:
        with suppress(OSError):  # Python would complain once more at its end, of what is left in the buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(f"twistd udpecho: standard output cannot be written: {error.strerror}") from None
    raise SystemExit(0)


def describe_plugins(installed: InstalledPlugins) -> str:
    """Return what ``--list-protocols`` shows: a table of the plugins, then each broken file with its error."""
    rows = [("NAME", "DESCRIPTION", "FILE")]
    rows += [(found.plugin.name, found.plugin.description, found.file) for found in installed.found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {description:<{widths[1]}}  {file}" for name, description, file in rows]
    names = [found.plugin.name for found in installed.found]
    lines += [
        f"\n{name} cannot be chosen: more than one plugin has that name; remove or rename one"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    lines += [
        f"\n{broken.file} could not be imported, its protocols are missing here:\n{broken.traceback.rstrip()}"
        for broken in installed.broken
    ]
    return "\n".join(lines) + "\n"


def makeService(options: Options) -> IService:
    """Return the service that the options describe; nothing of the plugin's target runs before it is started."""
    from twisted.internet import reactor  # noqa: PLC0415  # --reactor has installed it by now

    from ._startup import PluginService, protocol_factory, tell_of_broken_files  # noqa: PLC0415  # see postOptions

    tell_of_broken_files(options.installed.broken)
    service: Any = PluginService(
        reactor,
        options["port"],
        protocol_factory(options.plugin.plugin, options.protocol_options, verbose=bool(options["verbose"])),
        options["interface"],
        max_datagram_size=options["max-datagram-size"],
        receive_buffer=options["receive-buffer"],
        bound=options.bound,
    )
    service.setName(options.plugin.plugin.name)
    return service  # type: ignore[no-any-return]  # Service implements IService by a decorator mypy does not follow
