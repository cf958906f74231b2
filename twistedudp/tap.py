"""``twistd udpecho``: the options, and the service that they describe.

Theory of operation: ``twistd`` parses options, forks, gives up root's rights, starts services. Whatever can be found
wrong is found while options are parsed: then there is no pid file to leave behind and no parent that waits for its
daemon. For that reason the port is bound here too (root's rights are still there) and handed on through the options.
An error ends the process with one line: see ``_options.py``. What is left to go wrong later is the plugin's own code,
which must not run before: see ``_startup.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import MultiService
from twisted.python import usage

from ._options import print_and_exit
from ._security_options import SecurityOptions
from .address import DEFAULT_PORT
from .discovery import DISCOVERY_PORT
from .plugins import installed_plugins

if TYPE_CHECKING:
    from twisted.application.service import IService

    from .plugins import InstalledPlugin, InstalledPlugins
    from .transport import BoundSocket

__all__ = ["Options", "makeService"]

_PRIVILEGED_PORTS_FLAG: Final = "answer-privileged-ports"
_LOOPBACK: Final = "127.0.0.1"
_MAX_RECEIVE_BUFFER: Final = 2**30 - 1
"""Bytes; Linux doubles the number it is given and keeps it in an int (net/core/sock.c)."""


class Options(SecurityOptions):
    """The options of ``twistd udpecho``.

    Attributes:
        installed: The plugins that were found.
        plugin: The chosen one.
        protocol_options: What ``--protocol-option`` gave, and the flags that are short for one.
        bound: The socket, bound.
        discovery_bound: The socket of ``--discovery-port``, bound; None without ``--discoverable``.
    """

    command = "udpecho"
    longdesc = (
        "Serves a UDP protocol: RFC 862 echo, the methods of a class of yours by MessagePack-RPC, or what a plugin in "
        "twisted/plugins offers. An option of twistd itself, such as -n or --uid, stands before the word udpecho."
    )
    optParameters = (
        ("port", "p", None, f"The UDP port; 0 picks a free one. [default: {DEFAULT_PORT}]"),
        (
            "interface",
            "i",
            None,
            f"The address to listen on, IPv4 or IPv6; 0.0.0.0 all of IPv4, :: all of both. [default: {_LOOPBACK}]",
        ),
        ("protocol", None, "echo", "The protocol to serve; see --list-protocols."),
        ("max-datagram-size", None, "65535", "Bytes; a larger datagram is counted and dropped, never cut."),
        (
            "receive-buffer",
            None,
            None,
            "Bytes the kernel keeps for datagrams not yet read [default: 4194304 if it may].",
        ),
        ("discoverable", None, None, "Be found by udpecho discover, under this name. [default: not at all]"),
        (
            "discovery-port",
            None,
            None,
            f"The port where --discoverable hears questions, shared by one user's servers. [default: {DISCOVERY_PORT}]",
        ),
    )
    optFlags = (
        ("verbose", "v", "Log a line per datagram, with sender and size."),
        (_PRIVILEGED_PORTS_FLAG, None, "Let echo answer source ports below 1024 of other machines too."),
        ("timestamps", None, "Let the kernel tell when datagrams arrived, which rpc.probe reports."),
    )

    installed: InstalledPlugins
    plugin: InstalledPlugin
    bound: BoundSocket
    discovery_bound: BoundSocket | None = None

    def __init__(self) -> None:
        super().__init__()
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
        print_and_exit(self.command, describe_plugins(installed_plugins()))

    def postOptions(self) -> None:
        """Check every value, choose the plugin, and bind the port.

        Raises:
            UsageError: A value is wrong, or the port cannot be had.
            PluginError: There is not exactly one plugin of that name.
        """
        self._check_address()
        self["max-datagram-size"] = self.whole_number("max-datagram-size", 1, 65535)
        if self["receive-buffer"] is not None:
            self["receive-buffer"] = self.whole_number("receive-buffer", 1, _MAX_RECEIVE_BUFFER)
        self._check_discovery()
        self.check_security()
        if self[_PRIVILEGED_PORTS_FLAG]:
            self._answer_privileged_ports()
        self.installed = installed_plugins()
        self.plugin = self.installed.named(self["protocol"])
        self.check_public_plugin(self.plugin.plugin)
        from . import _startup  # noqa: PLC0415  # --help and --list-protocols need no transport

        if self["discoverable"] is not None:
            port, interface = self["discovery-port"], self["interface"]
            self.discovery_bound = _startup.bind_discovery_or_explain(self["discoverable"], interface, port)
        try:
            if self.descriptor is not None:
                self.bound = _startup.adopt_or_explain(self.descriptor, self["receive-buffer"])
            else:
                self.bound = _startup.bind_or_explain(self["port"], self["interface"], self["receive-buffer"])
        except BaseException:
            if self.discovery_bound is not None:
                self.discovery_bound.close()
            raise

    def _check_address(self) -> None:
        """Check where to listen: on the socket that was inherited, or on what the options say."""
        port, interface = self["port"], self["interface"]
        if port is not None:
            port = self.whole_number("port", 0, 65535)
        if interface is not None:
            self.check_interface()
        inherited = self.inherited_address(port, interface)
        if inherited is not None:
            self["interface"], self["port"] = inherited
        else:
            self["port"] = DEFAULT_PORT if port is None else port
            self["interface"] = interface or _LOOPBACK

    def _check_discovery(self) -> None:
        if self["discovery-port"] is None:
            self["discovery-port"] = DISCOVERY_PORT
        else:
            self["discovery-port"] = self.whole_number("discovery-port", 1, 65535)
            if self["discoverable"] is None:
                raise usage.UsageError("--discovery-port belongs to --discoverable NAME, which is not given")
        if self["discoverable"] is not None and self["port"] == self["discovery-port"]:
            raise usage.UsageError(
                f"--port and --discovery-port are both {self['port']}: questions need a port of their own"
            )

    def _answer_privileged_ports(self) -> None:
        if self["protocol"] != "echo":
            raise usage.UsageError(
                f"--{_PRIVILEGED_PORTS_FLAG} belongs to the protocol 'echo', not to {self['protocol']!r}; give that "
                "one its own options with --protocol-option"
            )
        self.protocol_options["answer_privileged_ports"] = "true"


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
    options.tell_of_unserved()
    factory = protocol_factory(
        options.plugin.plugin,
        options.protocol_options,
        verbose=bool(options["verbose"]),
        prepare=options.preparations(),
    )
    service: Any = PluginService(
        reactor,
        options["port"],
        factory,
        options["interface"],
        max_datagram_size=options["max-datagram-size"],
        receive_buffer=options["receive-buffer"],
        bound=options.bound,
        timestamps=bool(options["timestamps"]),
        discoverable=options["discoverable"],
        discovery_port=options["discovery-port"],
        discovery_bound=options.discovery_bound,
        **options.service_options(),
    )
    service.setName(options.plugin.plugin.name)
    if options.dtls_context is not None:
        from ._certificate_reload import CertificateReload  # noqa: PLC0415  # only with DTLS, for the start is timed

        both: Any = MultiService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        reload: Any = CertificateReload(reactor, options.dtls_context)
        for each in (reload, service):
            each.setServiceParent(both)
        return both  # type: ignore[no-any-return]  # as below
    return service  # type: ignore[no-any-return]  # Service implements IService by a decorator mypy does not follow
