"""``twistd udpimpair``: the options, and the relay that they describe.

Theory of operation: as in ``tap.py``, whatever can be found wrong is found while options are parsed, and the port is
bound then. The server's name is looked up at that time too, once: a test wants the same server from its beginning to
its end, and an error can still be told in one line. The seed is printed at the start, so that any run can be repeated.
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import MultiService, Service
from twisted.logger import Logger
from twisted.python import usage

from ._options import ServiceOptions, print_and_exit
from .address import (
    canonical,
    format_address,
    is_group,
    is_ip,
    is_ipv6,
    is_loopback,
    is_unspecified,
    parse_host_port,
    unmapped,
)

if TYPE_CHECKING:
    from twisted.application.service import IService

    from .address import Address
    from .impairment import LinkEffect, ParsedEffects
    from .relay import UDPImpairmentService
    from .transport import BoundSocket

__all__ = ["Options", "makeService"]

_log = Logger(namespace="twistedudp")

_EFFECT_OPTIONS: Final = ("effects", "effects-to-server", "effects-to-client")
_ASCII: Final = {ord("±"): "+-", ord("\N{MICRO SIGN}"): "u", ord("\N{GREEK SMALL LETTER MU}"): "u"}
"""A log may be written where there are no other characters; effects can be read either way."""

_DESCRIPTORS_PER_SESSION: Final = 2
_OTHER_DESCRIPTORS: Final = 64
"""File descriptors that a twistd has open beside sessions, with room."""


class Options(ServiceOptions):
    """The options of ``twistd udpimpair``.

    Attributes:
        server: The server's numeric address.
        seed: What the effects' randomness is derived from.
        bound: The socket, bound.
    """

    command = "udpimpair"
    longdesc = (
        "Relays UDP between clients and a server over a bad network: clients send to this port instead of the "
        "server's. Effects are listed by --list-effects; both directions share the seed. Statistics are logged on "
        "SIGUSR2 and at the end. An option of twistd itself, such as -n or --uid, stands before the word udpimpair."
    )
    optParameters = (
        ("listen", "l", None, "The UDP port that clients send to; 0 picks a free one."),
        ("interface", "i", "127.0.0.1", "The address to listen on, IPv4 or IPv6; 0.0.0.0 all of IPv4, :: all of both."),
        ("to", "t", None, "HOST:PORT of the server; a name is looked up once, at the start."),
        ("effects", "e", None, "What both directions do, such as loss=5%,delay=20ms±5ms,duplicate=1%,seed=7."),
        ("effects-to-server", None, None, "What happens, after --effects, to what clients send."),
        ("effects-to-client", None, None, "What happens, after --effects, to what the server sends."),
        ("max-sessions", None, "4096", "Clients at once; a new one takes the place of the one idle the longest."),
        ("session-timeout", None, "300", "Seconds after which an idle client is forgotten."),
    )

    server: Address
    seed: int
    bound: BoundSocket

    def __init__(self) -> None:
        super().__init__()
        self._parsed: dict[str, ParsedEffects] = {}

    def opt_list_effects(self) -> NoReturn:
        """Show the effects, and exit."""
        from .impairment import EFFECTS  # noqa: PLC0415  # --help needs none

        lines = [f"{form}\n    {meaning}; for example {example}\n" for form, meaning, example in EFFECTS.values()]
        print_and_exit(self.command, "".join(lines))

    def postOptions(self) -> None:
        """Check every value, look the server up, and bind the port.

        Raises:
            UsageError: A value is wrong, or the port cannot be had.
        """
        for option, example in (("listen", "--listen 10001 (0 picks a free port)"), ("to", "--to 127.0.0.1:10000")):
            if self[option] is None:
                raise usage.UsageError(f"--{option} is missing; write for example {example}")
        self["listen"] = self.whole_number("listen", 0, 65535)
        self["max-sessions"] = self.whole_number("max-sessions", 1, 1_000_000)
        self["session-timeout"] = self.whole_number("session-timeout", 1, 86400)
        self.check_interface()
        self._parse_effects()
        self.server = self._server()
        from ._startup import bind_or_explain  # noqa: PLC0415  # --help and --list-effects need no transport

        if self["listen"]:  # else it cannot be the server's
            self._check_no_loop()
        self.bound = bind_or_explain(self["listen"], self["interface"], option="--listen")

    def effects(self) -> tuple[list[LinkEffect], list[LinkEffect]]:
        """Return fresh effects for both directions: those of both, then its own."""
        to_server, to_client = self._parsed["effects"].make_pair()
        return (
            to_server + self._parsed["effects-to-server"].make(),
            to_client + self._parsed["effects-to-client"].make(),
        )

    def describe(self) -> str:
        """Return in one line what the relay does, in options that make it do the same again."""
        given, server = self["to"].strip(), format_address(self.server)
        where = server if given == server else f"{server} ({given})"
        terms = {option: parsed.terms for option, parsed in self._parsed.items()}
        if not any(terms.values()):
            return f"udpimpair relays to {where} without effects"
        terms["effects"] += (f"seed={self.seed}",)
        options = [f"--{option} {','.join(these)}".translate(_ASCII) for option, these in terms.items() if these]
        return f"udpimpair relays to {where} with {' '.join(options)}"

    @property
    def refuses(self) -> bool:
        """Whether there is an effect that would answer with an ICMP error."""
        terms = [term for parsed in self._parsed.values() for term in parsed.terms]
        return any(term.startswith("unreachable=") or term.endswith(":icmp") for term in terms)

    def _parse_effects(self) -> None:
        from .impairment import EffectError, parse_effects  # noqa: PLC0415  # --help needs none

        seeds = {}
        for option in _EFFECT_OPTIONS:
            try:
                parsed = self._parsed[option] = parse_effects(self[option] or "")
                if option != "effects":
                    parsed.make()
            except EffectError as error:
                nat = error.parameter == "nat"
                problem = "nat works on both directions at once; write it in --effects" if nat else error
                raise usage.UsageError(f"--{option}: {problem}") from None
            seed = parsed.seed
            if seed is not None:
                seeds[seed] = option
        if len(seeds) > 1:
            raise usage.UsageError(
                f"{' and '.join(f'--{option} has seed={seed}' for seed, option in seeds.items())}; there is one seed "
                "for all, write it once"
            )
        import secrets  # noqa: PLC0415  # --help needs none

        self.seed = next(iter(seeds), secrets.randbelow(2**32))

    def _server(self) -> Address:
        """Return the address that ``--to`` means."""
        try:
            host, port = parse_host_port(self["to"], 0)
        except ValueError as error:
            raise usage.UsageError(f"--to: {error}") from None
        if not port:
            raise usage.UsageError(f"--to: {self['to']!r} has no port; write HOST:PORT")
        server = (canonical(host), port) if is_ip(host) else (self._look_up(host), port)
        if is_group(server[0]) or is_unspecified(server[0]):
            raise usage.UsageError(f"--to: {server[0]} is not the address of one server")
        return server

    def _look_up(self, host: str) -> str:
        """Return an address of a host, one of the kind that the relay listens on if there is any."""
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise usage.UsageError(
                f"--to: the host name {host!r} does not resolve ({reason}); check the spelling and the name server"
            ) from None
        hosts = [canonical(str(sockaddr[0])) for *_, sockaddr in found]
        return next((one for one in hosts if is_ipv6(one) is is_ipv6(self["interface"])), hosts[0])

    def _check_no_loop(self) -> None:
        host, port = self.server
        interface = unmapped(self["interface"])
        if port != self["listen"]:
            return
        if canonical(interface) == host or (is_unspecified(interface) and _is_own(host)):
            raise usage.UsageError(
                f"--to: {format_address(self.server)} is the port that the relay would listen on itself; give the "
                "relay another one with --listen"
            )


def _is_own(host: str) -> bool:
    """Tell whether an address is this machine's: only such a one can be bound to."""
    if is_loopback(host):
        return True
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6(host) else socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.bind((host, 0))
    except OSError:
        return False
    return True


def _allow_sessions(wanted: int) -> int:
    """Raise the limit of open files as far as that many sessions need and it may be; return how many it allows."""
    import resource  # noqa: PLC0415  # POSIX has it; Windows has no twistd daemon either

    files = wanted * _DESCRIPTORS_PER_SESSION + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = wanted if soft == resource.RLIM_INFINITY else (soft - _OTHER_DESCRIPTORS) // _DESCRIPTORS_PER_SESSION
    return max(1, min(wanted, allowed))


class RelayReports(Service):
    """Tells what a relay does when it starts, and its statistics on SIGUSR2.

    Not SIGUSR1: by that one twistd rotates its log file.

    Args:
        reactor: Provides IReactorFromThreads: a signal comes in the midst of anything.
        relay: The relay.
        about: What it does, in one line.
    """

    def __init__(self, reactor: Any, relay: UDPImpairmentService, about: str) -> None:
        self._reactor = reactor
        self._relay = relay
        self._about = about
        self._previous: Any = None

    def startService(self) -> None:
        """Tell, and listen to the signal."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        _log.info("{about}", about=self._about)
        self._previous = signal.signal(signal.SIGUSR2, self._signalled)

    def stopService(self) -> None:
        """Let the signal do what it did before."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        signal.signal(signal.SIGUSR2, self._previous)

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(self._relay.log_statistics)


def makeService(options: Options) -> IService:
    """Return the relay that the options describe, with what tells about it."""
    from twisted.internet import reactor  # noqa: PLC0415  # --reactor has installed it by now

    from .relay import UDPImpairmentService  # noqa: PLC0415  # see postOptions

    wanted = options["max-sessions"]
    allowed = _allow_sessions(wanted)
    if allowed < wanted:
        _log.warn(
            "the limit of open files allows {allowed} clients at once, not {wanted}: raise it (ulimit -n), or give "
            "--max-sessions {allowed}",
            allowed=allowed,
            wanted=wanted,
        )
    if options.refuses:
        _log.warn(
            "what the effects unreachable and mtu=...:icmp refuse is lost in silence: a relay cannot send ICMP errors"
        )
    relay: Any = UDPImpairmentService(
        reactor,
        options["listen"],
        options.server,
        options["interface"],
        effects=options.effects,
        seed=options.seed,
        max_sessions=allowed,
        session_timeout=options["session-timeout"],
        bound=options.bound,
    )
    relay.setName(options.command)
    both: Any = MultiService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
    reports: Any = RelayReports(reactor, relay, options.describe())
    for service in (reports, relay):
        service.setServiceParent(both)
    return both  # type: ignore[no-any-return]  # Service implements IService by a decorator mypy does not follow
